//! The record of a session: what is told of it, in one line of words or of JSON, whatever its peers are
//! called.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::LogFormat;
use crate::reactor::Handle;
use crate::session::{Close, Word, quote};

/// What is told of a session.
pub(super) struct Record<'a> {
    /// When it ended, since the Unix epoch.
    pub(super) at: Duration,
    pub(super) id: Handle,
    pub(super) role: &'a str,
    pub(super) listener: &'a str,
    pub(super) peer: Option<SocketAddr>,
    pub(super) upstream: Option<SocketAddr>,
    /// Bytes from whom it was for, and to them.
    pub(super) moved: [u64; 2],
    pub(super) lasted: Duration,
    pub(super) connect: Option<Duration>,
    pub(super) close: &'a Close,
    /// What the session says of itself.
    pub(super) words: &'a str,
}

/// A value, and how JSON writes it.
enum Value<'a> {
    Text(&'a str),
    Number(String),
    Truth,
}

impl Record<'_> {
    /// The record as one line, its end included.
    pub(super) fn line(&self, format: LogFormat) -> String {
        let words = words(self.words);
        let mut line = String::with_capacity(USUAL);
        let mut fields: Vec<(&str, Value<'_>)> = Vec::with_capacity(16);
        let (time, id) = (show_time(self.at), self.id.to_string());
        fields.push(("time", Value::Text(&time)));
        fields.push(("id", Value::Text(&id)));
        fields.push(("role", Value::Text(self.role)));
        fields.push(("listener", Value::Text(self.listener)));
        let addresses = [self.peer, self.upstream].map(|at| at.map(|at| at.to_string()));
        for (key, address) in ["peer", "upstream"].into_iter().zip(&addresses) {
            fields.extend(address.as_ref().map(|at| (key, Value::Text(at))));
        }
        // A session that passes payload on itself knows what of its bytes was payload.
        for (key, bytes) in ["up", "down"].into_iter().zip(self.moved) {
            let own = words.iter().find(|word| word.key == key);
            let own = own.and_then(|word| word.value.as_deref()?.parse().ok());
            fields.push((key, Value::Number(own.unwrap_or(bytes).to_string())));
        }
        let seconds = format!("{:.3}", self.lasted.as_secs_f64());
        fields.push(("seconds", Value::Number(seconds)));
        if let Some(connect) = self.connect {
            let milliseconds = format!("{:.3}", connect.as_secs_f64() * 1e3);
            fields.push(("connect_ms", Value::Number(milliseconds)));
        }
        let close = self.close.to_string();
        fields.push(("reason", Value::Text(self.close.cause.word())));
        fields.push(("close", Value::Text(&close)));
        for word in &words {
            let known = fields.iter().any(|(key, _)| *key == word.key);
            if let (false, Some(value)) = (known, &word.value) {
                let count = value.parse::<u64>().ok();
                let count = count.filter(|_| COUNTS.contains(&word.key));
                fields.push(match count {
                    Some(count) => (word.key, Value::Number(count.to_string())),
                    None => (word.key, Value::Text(value)),
                });
            } else if !known {
                fields.push((word.key, Value::Truth));
            }
        }
        match format {
            LogFormat::Text => write_text(&mut line, &fields),
            LogFormat::Json => write_json(&mut line, &fields),
        }
        line
    }
}

fn write_text(line: &mut String, fields: &[(&str, Value<'_>)]) {
    for (number, (key, value)) in fields.iter().enumerate() {
        if number > 0 {
            line.push(' ');
        }
        line.push_str(key);
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Text(text) => write!(line, "={}", Word(text)),
            Value::Number(digits) => write!(line, "={digits}"),
            Value::Truth => Ok(()),
        };
    }
    line.push('\n');
}

fn write_json(line: &mut String, fields: &[(&str, Value<'_>)]) {
    line.push('{');
    for (number, (key, value)) in fields.iter().enumerate() {
        if number > 0 {
            line.push(',');
        }
        quote(line, key);
        line.push(':');
        match value {
            Value::Text(text) => quote(line, text),
            Value::Number(digits) => line.push_str(digits),
            Value::Truth => line.push_str("true"),
        }
    }
    line.push_str("}\n");
}

/// One word of those that a session says of itself.
struct Said<'a> {
    key: &'a str,
    /// None for a word that stands alone.
    value: Option<String>,
}

/// The words `key=value`, `key="value"` and `word`; values of one key are joined by a comma. What is no
/// word of ours, as nobody has quoted it, is the value of the key `text`.
fn words(said: &str) -> Vec<Said<'_>> {
    let mut words: Vec<Said<'_>> = Vec::new();
    let mut rest = said.trim_start_matches(' ');
    while !rest.is_empty() && words.len() < MOST_WORDS {
        let is_end = |letter: char| letter == '=' || letter == ' ';
        let (key, behind) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
        let (value, behind) = match behind.strip_prefix('=') {
            None => (None, behind),
            Some(value) => {
                let (value, behind) = take_value(value);
                (Some(value), behind)
            }
        };
        rest = behind.trim_start_matches(' ');
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let (key, value) = match !key.is_empty() && key.bytes().all(is_key) {
            true => (key, value),
            false => ("text", Some(key.to_owned() + &value.unwrap_or_default())),
        };
        match words.iter_mut().find(|known| known.key == key) {
            None => words.push(Said { key, value }),
            Some(known) => {
                if let (Some(known), Some(value)) = (&mut known.value, &value) {
                    known.push(',');
                    known.push_str(value);
                }
            }
        }
    }
    words
}

/// The value that a text begins with, and what stands behind it.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find(' ').unwrap_or(text.len()));
        return (value.to_owned(), behind);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match letters.next().map(|(_, letter)| letter) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some('u') => {
                    let code = letters.by_ref().take(4).map(|(_, digit)| digit);
                    let code = u32::from_str_radix(&code.collect::<String>(), 16).ok();
                    value.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
                }
                Some(other) => value.push(other),
                None => {}
            },
            letter => value.push(letter),
        }
    }
    (value, "")
}

/// A time as RFC 3339 writes it, in UTC, to the millisecond.
fn show_time(since_epoch: Duration) -> String {
    let (days, seconds) = (
        since_epoch.as_secs() / 86_400,
        since_epoch.as_secs() % 86_400,
    );
    // Days are counted from the first of March of the year 0, so that a leap day is a year's last;
    // 400 years have 146,097 of them.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let milliseconds = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// Words that say how many: numbers in JSON. What peers call something is a text there, whatever it looks
/// like.
const COUNTS: &[&str] = &[
    "bytes", "flows", "frames", "hop", "nodes", "open", "visitors", "visits",
];

/// Words of one session; those beyond are left out.
const MOST_WORDS: usize = 64;

/// What a record takes.
const USUAL: usize = 384;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::reactor::SessionKey;
    use crate::session::Cause;

    pub(in super::super) fn record<'a>(words: &'a str, close: &'a Close) -> Record<'a> {
        Record {
            at: Duration::from_millis(1_795_795_200_007),
            id: Handle {
                core: 1,
                session: SessionKey::from_parts(17, 41).unwrap(),
            },
            role: "agent",
            listener: "agent",
            peer: Some("127.0.0.1:5000".parse().unwrap()),
            upstream: Some("[::1]:80".parse().unwrap()),
            moved: [10, 20],
            lasted: Duration::from_millis(1_500),
            connect: Some(Duration::from_micros(250)),
            close,
            words,
        }
    }

    #[test]
    fn a_record_has_every_field_in_both_formats() {
        let close = Close::own(Cause::Kicked);
        let record = record(" service=a field=b to=host:1", &close);
        assert_eq!(
            record.line(LogFormat::Text),
            "time=2026-11-27T16:00:00.007Z id=w1#17.41 role=agent listener=agent \
             peer=127.0.0.1:5000 upstream=[::1]:80 up=10 down=20 seconds=1.500 connect_ms=0.250 \
             reason=kicked close=kicked service=a field=b to=host:1\n"
        );
        let json: serde_json::Value = serde_json::from_str(&record.line(LogFormat::Json)).unwrap();
        assert_eq!(json["peer"], "127.0.0.1:5000");
        assert_eq!(json["up"], 10);
        assert_eq!(json["connect_ms"], 0.25);
        assert_eq!(json["to"], "host:1");
    }

    #[test]
    fn a_sessions_own_payload_counts_and_its_words_replace_nothing_else() {
        let close = Close::finished();
        let words = " mux up=7 down=8 role=evil service=a service=b visits=3 client=4";
        let record = record(words, &close);
        let line = record.line(LogFormat::Text);
        assert!(line.contains(" up=7 down=8 "), "{line}");
        assert!(
            line.ends_with(" mux service=a,b visits=3 client=4\n"),
            "{line}"
        );
        let json: serde_json::Value = serde_json::from_str(&record.line(LogFormat::Json)).unwrap();
        assert_eq!(json["mux"], true);
        assert_eq!((&json["visits"], &json["client"]), (&3.into(), &"4".into()));
        assert_eq!(
            (&json["role"], &json["service"]),
            (&"agent".into(), &"a,b".into())
        );
    }

    #[test]
    fn no_words_make_a_second_record_or_break_one() {
        let close = Close::finished();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let hostile = [
            "service=\"a\nrole=evil\"",
            "service=a\nid=w0#1.1 role=evil",
            "=",
            "==",
            "\"",
            "key=\"",
            "key=\"\\",
            "key=\"\\u12",
            "\u{1b}[2J=\u{7}",
            "a=\u{2028}\u{85}",
            "Ä=ö",
            "key=\"a\" \"b\"",
            " ",
            "\r\n",
            "x=\0",
            "to=\u{202e}evil",
        ];
        for round in 0..2_000 {
            let mut words = String::new();
            for _ in 0..=round % 5 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                words.push(' ');
                words.push_str(hostile[(random % hostile.len() as u64) as usize]);
            }
            let record = record(&words, &close);
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = record.line(format);
                let body = line.strip_suffix('\n').unwrap();
                assert!(!body.chars().any(char::is_control), "{words:?}: {line:?}");
                assert_eq!(
                    body.matches("role=agent").count() + body.matches("\"role\":\"agent\"").count(),
                    1
                );
                if format == LogFormat::Json {
                    let json: serde_json::Value = serde_json::from_str(body).unwrap();
                    assert_eq!(json["role"], "agent", "{words:?}");
                }
            }
        }
    }

    #[test]
    fn quoted_words_come_back_as_they_were() {
        for value in [
            "a b",
            "a\"b",
            "a\\",
            "\n\r\t",
            "\u{7}\u{85}\u{2028}",
            "",
            "x=y",
            "ü",
        ] {
            let said = format!(" service={} mux", Word(value));
            let words = words(&said);
            assert_eq!(words[0].value.as_deref(), Some(value), "{said}");
            assert_eq!((words.len(), words[1].key), (2, "mux"));
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(show_time(Duration::from_secs(seconds)), want);
        }
    }
}
