//! A terminal taken over for a while: keys without a line end, a screen drawn as a whole.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use crate::sys;

/// The terminal; dropping it gives it back as it was.
pub(super) struct Screen {
    _raw: sys::RawTerminal,
}

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Leave,
    Letter(u8),
}

impl Screen {
    /// Takes the terminal over; `None` where stdin or stdout is none.
    pub(super) fn open() -> Option<Screen> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let raw = sys::RawTerminal::new(io::stdin().as_fd()).ok()?;
        let screen = Screen { _raw: raw };
        // The other screen, without a cursor.
        write("\x1b[?1049h\x1b[?25l").ok()?;
        Some(screen)
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> (usize, usize) {
        let (columns, lines) = sys::terminal_size(io::stdout().as_fd()).unwrap_or((80, 24));
        (usize::from(columns.max(20)), usize::from(lines.max(5)))
    }

    /// Draws all lines over what was there. Those that are to stand out are told by number.
    pub(super) fn draw(&self, lines: &[String], bright: &[usize]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            let (on, off) = match bright.contains(&number) {
                true => ("\x1b[7m", "\x1b[0m"),
                false => ("", ""),
            };
            let end = if number + 1 < lines.len() { "\r\n" } else { "" };
            text += &format!("{on}{line}{off}\x1b[K{end}");
        }
        write(&(text + "\x1b[J"))
    }

    /// What was pressed in the last moments, which this waits for; an error when the terminal has gone.
    pub(super) fn keys(&self) -> io::Result<Vec<Key>> {
        let mut bytes = [0; 64];
        let count = io::stdin().lock().read(&mut bytes)?;
        Ok(keys(&bytes[..count]))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal has gone there is nothing to give back.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        bytes = rest;
        let arrow = rest.strip_prefix(b"[").or(rest.strip_prefix(b"O"));
        match (first, arrow.and_then(<[u8]>::split_first)) {
            (0x1b, Some((letter, rest))) => {
                bytes = rest;
                match letter {
                    b'A' => keys.push(Key::Up),
                    b'B' => keys.push(Key::Down),
                    _ => {}
                }
            }
            (0x1b | 0x03 | 0x04 | b'q', _) => keys.push(Key::Leave),
            (b'k', _) => keys.push(Key::Up),
            (b'j', _) => keys.push(Key::Down),
            (letter, _) => keys.push(Key::Letter(letter)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_and_letters_are_keys() {
        let pressed = keys(b"j\x1b[A\x1bOBx\x1b[5~q");
        let want = [
            Key::Down,
            Key::Up,
            Key::Down,
            Key::Letter(b'x'),
            Key::Letter(b'~'),
            Key::Leave,
        ];
        assert_eq!(pressed, want);
        assert_eq!(keys(b"\x1b"), [Key::Leave]);
        assert_eq!(keys(b"\x03"), [Key::Leave]);
    }
}
