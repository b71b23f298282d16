//! `towpath top`: the sessions, anew each second, by a key or the other; one can be chosen and ended.

use std::thread;
use std::time::{Duration, Instant};

use super::http::Line;
use super::rows::{HEAD, Sample};
use super::screen::{Key, Screen};
use super::status::{cut, text};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::flags::{Command, Usage};
use crate::cli::output;
use crate::config::plain;

/// How it is shown.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) sort: Sort,
    pub(super) once: bool,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// The most bytes a second.
    Rate,
    /// The most bytes.
    Bytes,
    /// The oldest.
    Age,
}

impl Sort {
    pub(super) fn of(command: &Command, word: Option<String>) -> Result<Sort, Usage> {
        match word.as_deref() {
            None | Some("rate") => Ok(Sort::Rate),
            Some("bytes") => Ok(Sort::Bytes),
            Some("age") => Ok(Sort::Age),
            Some(other) => {
                let other = plain(other);
                Err(command.wrong(format!("--sort is rate, bytes or age, not {other}")))
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Sort::Rate => "rate",
            Sort::Bytes => "bytes",
            Sort::Age => "age",
        }
    }
}

/// Shows until it is left.
pub(super) fn run(server: &Line, options: &Options, is_json: bool) -> Result<(), Failure> {
    // Asked before the terminal is taken over, so that a failure is told on the usual screen.
    let first = Sample::take(server, None)?;
    let screen = match options.once || is_json {
        true => None,
        false => Screen::open(),
    };
    match screen {
        Some(screen) => {
            let view = View {
                server,
                sort: options.sort,
                chosen: None,
                asking: false,
                said: String::new(),
            };
            view.run(&screen, first)
        }
        None => print_tables(server, options, is_json, first),
    }
}

/// One table after the other; the first one has its rates from a second of waiting.
fn print_tables(
    server: &Line,
    options: &Options,
    is_json: bool,
    first: Sample,
) -> Result<(), Failure> {
    let mut before = first;
    loop {
        thread::sleep(EACH);
        let mut sample = Sample::take(server, Some(&before))?;
        sample.sort(options.sort);
        let text = match is_json {
            true => format!("{}\n", sample.json()),
            false => {
                let rows = sample.rows.iter().map(|row| row.line(WIDE) + "\n");
                format!("{HEAD}\n{}\n", rows.collect::<String>())
            }
        };
        output::print(text.as_bytes())?;
        if options.once {
            return Ok(());
        }
        before = sample;
    }
}

/// What is on the screen.
struct View<'a> {
    server: &'a Line,
    sort: Sort,
    /// The session that was chosen; it stays so wherever it is sorted to.
    chosen: Option<String>,
    /// Whether to end it has been asked.
    asking: bool,
    said: String,
}

impl View<'_> {
    fn run(mut self, screen: &Screen, first: Sample) -> Result<(), Failure> {
        let mut sample = first;
        loop {
            let next = Instant::now() + EACH;
            while Instant::now() < next {
                sample.sort(self.sort);
                let (lines, bright) = self.lines(&sample, screen.size());
                screen.draw(&lines, &bright).map_err(|error| lost(&error))?;
                for key in screen.keys().map_err(|error| lost(&error))? {
                    if !self.press(key, &sample) {
                        return Ok(());
                    }
                }
            }
            match Sample::take(self.server, Some(&sample)) {
                Ok(taken) => sample = taken,
                // A server that is away for a while may come back.
                Err(failure) => self.said = failure.lines.join(" "),
            }
        }
    }

    /// The whole screen, and which lines stand out.
    fn lines(
        &self,
        sample: &Sample,
        (columns, lines): (usize, usize),
    ) -> (Vec<String>, Vec<usize>) {
        let count = sample.rows.len();
        let more = if sample.cut { " and more" } else { "" };
        let (address, sort) = (plain(&self.server.address), self.sort.word());
        let room = lines - 4;
        let at = self.place(sample);
        let from = at.map_or(0, |at| (at + 1).saturating_sub(room));
        let mut text = vec![
            format!("towpath {address}: {count} sessions{more}, by {sort}"),
            HEAD.to_owned(),
        ];
        let rows = sample.rows.iter().skip(from).take(room);
        text.extend(rows.map(|row| row.line(columns)));
        let shown = text.len();
        text.resize(lines - 2, String::new());
        let about = at.map_or(String::new(), |at| {
            let row = &sample.rows[at];
            format!("{} {}", row.id, row.about)
        });
        text.push(about);
        text.push(match (&self.chosen, self.asking, self.said.is_empty()) {
            (Some(id), true, _) => format!("end {id}? y/n"),
            (_, _, false) => self.said.clone(),
            _ => "j k choose  x end it  r b a sort by rate, bytes, age  q leave".to_owned(),
        });
        let text = text.iter().map(|line| cut(line, columns)).collect();
        let mut bright = vec![1];
        let chosen = at.map(|at| at - from + 2).filter(|line| *line < shown);
        bright.extend(chosen);
        (text, bright)
    }

    fn place(&self, sample: &Sample) -> Option<usize> {
        let chosen = self.chosen.as_ref()?;
        sample.rows.iter().position(|row| row.id == *chosen)
    }

    /// False when it is to be left.
    fn press(&mut self, key: Key, sample: &Sample) -> bool {
        if std::mem::take(&mut self.asking) {
            if key == Key::Letter(b'y') {
                self.kick();
            }
            return true;
        }
        self.said.clear();
        match key {
            Key::Leave => return false,
            Key::Up => self.choose(sample, |at| at.saturating_sub(1)),
            Key::Down => self.choose(sample, |at| at + 1),
            Key::Letter(b'x') => self.asking = self.place(sample).is_some(),
            Key::Letter(b'r') => self.sort = Sort::Rate,
            Key::Letter(b'b') => self.sort = Sort::Bytes,
            Key::Letter(b'a') => self.sort = Sort::Age,
            Key::Letter(_) => {}
        }
        true
    }

    fn choose(&mut self, sample: &Sample, step: impl FnOnce(usize) -> usize) {
        let at = self.place(sample).map_or(0, step);
        let last = sample.rows.len().saturating_sub(1);
        self.chosen = sample.rows.get(at.min(last)).map(|row| row.id.clone());
    }

    fn kick(&mut self) {
        let Some(id) = &self.chosen else {
            return;
        };
        let path = format!("/sessions/{}", id.replace('#', "%23"));
        self.said = match self.server.ask("kick", "DELETE", &path) {
            Ok(done) => format!("ended {}", text(&done["kicked"])),
            Err(failure) => failure.lines.join(" "),
        };
    }
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(
        FAILED,
        format!("towpath top: the terminal has gone: {error}"),
    )
}

/// How often the server is asked.
const EACH: Duration = Duration::from_secs(1);

/// A line of a table that goes to no terminal.
const WIDE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_chosen_by_name_and_ended_only_when_asked_twice() {
        let server = Line {
            address: "127.0.0.1:1".to_owned(),
            token: None,
        };
        let mut view = View {
            server: &server,
            sort: Sort::Rate,
            chosen: None,
            asking: false,
            said: String::new(),
        };
        let sample = Sample::for_tests(&["w0#0.1", "w0#1.2", "w1#0.1"]);
        assert!(
            view.press(Key::Letter(b'x'), &sample) && !view.asking,
            "nobody is chosen"
        );
        for (key, want) in [
            (Key::Down, 0),
            (Key::Down, 1),
            (Key::Down, 2),
            (Key::Down, 2),
            (Key::Up, 1),
        ] {
            assert!(view.press(key, &sample));
            assert_eq!(view.place(&sample), Some(want));
        }
        assert!(view.press(Key::Letter(b'x'), &sample) && view.asking);
        assert!(view.press(Key::Leave, &sample), "anything but y is no");
        assert!(!view.asking && view.said.is_empty());
        let (lines, bright) = view.lines(&sample, (80, 24));
        assert_eq!((lines.len(), bright), (24, vec![1, 3]));
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        let (lines, _) = view.lines(&sample, (20, 5));
        assert_eq!(lines.len(), 5);
        view.press(Key::Letter(b'a'), &sample);
        assert_eq!(view.sort, Sort::Age);
        assert!(!view.press(Key::Leave, &sample));
    }
}
