//! How words that may come from a peer stand in a line of a log: no letter of them can end the word, the
//! line, or what a terminal shows.

use std::fmt::{self, Write};

/// A value behind `key=`: as it is where that is plain, else in quotes with JSON's escapes.
pub struct Word<'a>(pub &'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |letter| !matches!(letter, ' ' | '"' | '\\' | '=') && !is_hidden(letter);
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        let mut quoted = String::with_capacity(self.0.len() + 8);
        quote(&mut quoted, self.0);
        f.write_str(&quoted)
    }
}

/// Appends a text as JSON writes it, with every letter escaped that does not show as itself.
pub fn quote(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if is_hidden(letter) => {
                // All that are hidden fit into four digits; writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// Controls, line ends, and marks that change how the rest of a line is shown.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_and_others_are_quoted() {
        for (text, want) in [
            ("web", "web"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("größe", "größe"),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("a=b", r#""a=b""#),
            ("a\"\\", r#""a\"\\""#),
            ("a\nb\u{1b}", r#""a\nb\u001b""#),
            ("\u{85}\u{202e}", r#""\u0085\u202e""#),
        ] {
            assert_eq!(Word(text).to_string(), want);
        }
    }
}
