//! What is wrong with a configuration, and where. All mistakes are gathered before any is shown,
//! so that one look at the output is enough to mend the file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A point of a text file. Both count from 1; the column counts characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// Where a value came from, or should have. The order is that of the report: flags, environment,
/// files from the top to the bottom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A command-line flag, without its dashes.
    Flag(&'static str),
    /// An environment variable.
    Environment(String),
    /// A configuration file as a whole.
    File(Arc<Path>),
    /// A point of a configuration file.
    Line(Arc<Path>, Position),
    /// The configuration as a whole, whatever it was put together from.
    Whole,
}

/// One mistake, shown as `conf/towpath.toml:3:11: error: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What is wrong and what would be right; one line.
    pub message: String,
}

impl Mistake {
    /// True when the command line is to blame, which is a usage error and not a bad configuration.
    pub fn is_usage(&self) -> bool {
        matches!(self.place, Place::Flag(_))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Flag(flag) => write!(f, "--{flag}: error: ")?,
            Place::Environment(name) => write!(f, "{name}: error: ")?,
            Place::File(path) => write!(f, "{}: error: ", shown(path))?,
            Place::Line(path, at) => {
                write!(f, "{}:{}:{}: error: ", shown(path), at.line, at.column)?;
            }
            Place::Whole => f.write_str("error: ")?,
        }
        f.write_str(&self.message)
    }
}

/// A path as text that cannot break the line it is printed in.
fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

/// Text from outside with its control characters made visible, so that it stays on its line and
/// does nothing to a terminal.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Resolves a path of the configuration file, which is relative to that file's folder.
pub(super) fn beside(file: Option<&Path>, path: &str) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(folder) => folder.join(path),
        None => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_one_line_that_begins_with_its_place() {
        let path: Arc<Path> = Arc::from(Path::new("a\nb.toml"));
        let at = Position {
            line: 3,
            column: 11,
        };
        for (place, want) in [
            (Place::Flag("workers"), "--workers: error: no"),
            (Place::Environment("X".into()), "X: error: no"),
            (Place::File(Arc::clone(&path)), "a\\nb.toml: error: no"),
            (Place::Line(path, at), "a\\nb.toml:3:11: error: no"),
            (Place::Whole, "error: no"),
        ] {
            let message = "no".to_owned();
            assert_eq!(Mistake { place, message }.to_string(), want);
        }
    }
}
