//! Keys in files. A file that is not there is a slip of the command line; one that holds no key is a
//! mistake of the configuration.

use std::fs::File;
use std::io::{self, Read};

use crate::chain::{Key, KeyError};
use crate::cli::exit::{CONFIGURATION, DENIED, Failure, USAGE};
use crate::config::plain;

/// The key in a file that a flag names.
pub(super) fn read(command: &str, flag: &str, path: &str) -> Result<Key, Failure> {
    let shown = plain(path);
    let failed = |code, what: String| {
        Failure::new(
            code,
            format!("towpath {command}: {flag}: the key file {shown} {what}"),
        )
    };
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    opened.map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => DENIED,
            _ => USAGE,
        };
        let more = match code {
            USAGE => format!(" (see towpath {command} --help)"),
            _ => String::new(),
        };
        failed(code, format!("cannot be read: {error}{more}"))
    })?;
    let wrong = |error: KeyError| failed(CONFIGURATION, format!("holds no key: {error}"));
    // What is not text has a character that is not base64.
    let text = String::from_utf8_lossy(&bytes);
    Key::from_base64(&text).map_err(wrong)
}

/// A file of more bytes is no key's, and is not read to its end.
const LONGEST: u64 = 1024;
