//! A configuration file as a tree that remembers where everything stood. Which keys there are and
//! what they take is not known here.

use std::ops::Range;

use toml::de::{DeArray, DeTable, DeValue};

use super::Position;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where.
    pub at: Position,
    /// What.
    pub value: Value,
}

/// A key of a table with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub at: Position,
    /// Its value.
    pub item: Item,
}

/// What a file can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text in quotes.
    Text(String),
    /// A whole number, held at the ends of the type's range when it is beyond them.
    Number(i128),
    /// `true` or `false`.
    Truth(bool),
    /// A list.
    List(Vec<Item>),
    /// A table, its keys in the order of the file.
    Table(Vec<Entry>),
    /// A number with a fraction or an exponent.
    Fraction,
    /// A date or a time of day.
    Date,
}

impl Value {
    /// What it is, for the one who wanted something else.
    pub fn describe(&self) -> String {
        match self {
            Value::Text(text) => {
                let short: String = text.chars().take(SHOWN).collect();
                let more = if short.len() < text.len() { "..." } else { "" };
                format!(r#"the text "{}{more}""#, super::plain(&short))
            }
            Value::Number(number) => format!("the number {number}"),
            Value::Truth(truth) => format!("{truth}"),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Fraction => "a number with a fraction".to_owned(),
            Value::Date => "a date".to_owned(),
        }
    }
}

/// Reads a file's text. What is no TOML is told with its position, one mistake a line; the rest of
/// the file is read as well as it can be, so that its other mistakes are found in the same run.
pub(super) fn parse(text: &str) -> (Vec<Entry>, Vec<(Position, String)>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut mistakes: Vec<(Position, String)> = Vec::new();
    for error in errors {
        let at = lines.position(error.span().map_or(0, |span| span.start));
        if mistakes.iter().all(|(known, _)| known.line != at.line) {
            mistakes.push((at, super::plain(error.message())));
        }
    }
    (entries(table.get_ref(), &lines), mistakes)
}

fn entries(table: &DeTable<'_>, lines: &Lines<'_>) -> Vec<Entry> {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let entry = Entry {
                name: key.get_ref().to_string(),
                at: lines.position(key.span().start),
                item: item(value.get_ref(), value.span(), lines),
            };
            (key.span().start, entry)
        })
        .collect();
    entries.sort_by_key(|(start, _)| *start);
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// The depth of this recursion is bounded by the reader of the TOML, which refuses deeper files.
fn item(value: &DeValue<'_>, span: Range<usize>, lines: &Lines<'_>) -> Item {
    let at = lines.position(span.start);
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            let beyond = match digits.starts_with('-') {
                true => i128::MIN,
                false => i128::MAX,
            };
            Value::Number(i128::from_str_radix(digits, radix).unwrap_or(beyond))
        }
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Array(array) => Value::List(list(array, lines)),
        DeValue::Table(table) => Value::Table(entries(table, lines)),
        DeValue::Float(_) => Value::Fraction,
        DeValue::Datetime(_) => Value::Date,
    };
    Item { at, value }
}

fn list(array: &DeArray<'_>, lines: &Lines<'_>) -> Vec<Item> {
    array
        .iter()
        .map(|value| item(value.get_ref(), value.span(), lines))
        .collect()
}

/// Where each line of a text begins.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        let ends = text.match_indices('\n').map(|(end, _)| end + 1);
        Lines {
            text,
            starts: std::iter::once(0).chain(ends).collect(),
        }
    }

    fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Position {
            line,
            column: before.chars().count() + 1,
        }
    }
}

/// How much of a wrong text is repeated to its writer, in characters.
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Position {
        Position { line, column }
    }

    #[test]
    fn every_key_and_value_remembers_where_it_stood() {
        let (entries, mistakes) = parse("b = 1\n[a]\n  'é' = \"ü\" \n  x = [0x10, -1]\n");
        assert_eq!(mistakes, []);
        assert_eq!(entries[0].name, "b");
        assert_eq!((entries[0].at, entries[0].item.at), (at(1, 1), at(1, 5)));
        assert_eq!((&*entries[1].name, entries[1].at), ("a", at(2, 2)));
        let Value::Table(inner) = &entries[1].item.value else {
            panic!("no table");
        };
        assert_eq!((&*inner[0].name, inner[0].item.at), ("é", at(3, 9)));
        let Value::List(list) = &inner[1].item.value else {
            panic!("no list");
        };
        assert_eq!(list[0].value, Value::Number(16));
        assert_eq!(
            (list[1].at, &list[1].value),
            (at(4, 14), &Value::Number(-1))
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_position_and_the_rest_is_read() {
        let (entries, mistakes) = parse("a = 1\na = 2\nb =\nc = 3\n");
        let told: Vec<_> = mistakes
            .iter()
            .map(|(at, message)| (at.line, at.column, message.as_str()))
            .collect();
        let quoted = "string values must be quoted, expected literal string";
        assert_eq!(told, [(2, 1, "duplicate key"), (3, 4, quoted)]);
        assert_eq!(entries.last().map(|entry| &*entry.name), Some("c"));
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        let text = "a=1\n[b]\nc=\"\\u00e9 ü\"\nd=[{x=1},2]\n[[e]]\nf=1979-05-27T07:32:00Z\n";
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            parse(&text[..end]);
            parse(&text[end..]);
        }
        parse(&"[".repeat(100_000));
        parse(&format!("a={}", "[".repeat(100_000)));
        parse(&format!("a={}", "{b=".repeat(100_000)));
    }
}
