//! A token or key that must never be seen: it prints as `(secret)`, whoever prints it. What a
//! secret opens is the business of the role that reads it.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;

/// Bytes that no log line, error message or debug dump shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// A secret of these bytes. Empty means that there is none.
    pub fn new(bytes: &[u8]) -> Option<Secret> {
        (!bytes.is_empty()).then(|| Secret(bytes.into()))
    }

    /// The secret in a file, without the line end that an editor leaves behind it.
    ///
    /// An empty file is refused: where somebody names a file, no secret at all is surely not what
    /// they meant, and it would open the door.
    pub fn read(path: &Path) -> Result<Secret, String> {
        let shown = super::plain(&path.to_string_lossy());
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("the secret file {shown} cannot be read: {error}"))?;
        if bytes.len() as u64 > LONGEST {
            return Err(format!(
                "the secret file {shown} is longer than {LONGEST} bytes"
            ));
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Secret::new(line).ok_or_else(|| format!("the secret file {shown} is empty"))
    }

    /// What tells it from another, and says nothing of it.
    pub fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    /// The bytes, for the one who compares or sends them. Compare in constant time.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The longest secret that a file may hold, in bytes.
const LONGEST: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new(b"hunter2").unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        assert_eq!(secret.expose(), b"hunter2");
        assert_eq!(Secret::new(b""), None);
    }
}
