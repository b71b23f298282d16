//! Why the store could not be opened and why an update was refused, each in words that say what
//! to do about it.
//!
//! No decision is taken here; `store` makes these values, the server prints the first and a
//! session sends the second.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store could not be opened. The message names the file and what the operator can do.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the file open.
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// The file is not a sound database; nothing of it is served.
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What was found wrong.
        what: String,
    },
    /// This user may not open, create or write the file.
    Permission {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system is mounted read-only.
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that the system refused.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    /// What the process exits with: 75 try again later, 77 no permission, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Locked { .. } => 75,
            Self::Permission { .. } | Self::ReadOnly { .. } => 77,
            Self::Damaged { .. } | Self::Io { .. } => 1,
        }
    }

    /// Sorts what the system said about `path`.
    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { path, source },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path, source },
            io::ErrorKind::WouldBlock => Self::Locked { path },
            // What a database that ends too early or begins with other bytes comes back as.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged {
                path,
                what: source.to_string(),
            },
            _ => Self::Io { path, source },
        }
    }

    /// Sorts what the database said about `path`.
    pub(super) fn from_database(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => Self::from_io(path, source),
            redb::Error::DatabaseAlreadyOpen => Self::Locked {
                path: path.to_path_buf(),
            },
            other => Self::damaged(path, other.to_string()),
        }
    }

    pub(super) fn damaged(path: &Path, what: String) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            what,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { path } => write!(
                f,
                "{}: in use by another process; stop that one, or give this one another data_dir",
                path.display()
            ),
            Self::Damaged { path, what } => write!(
                f,
                "{}: damaged: {what}; put a copy of the file in its place, or move it away to \
                 start with an empty store",
                path.display()
            ),
            Self::Permission { path, source } => write!(
                f,
                "{}: {source}; give this user the directory and its files, or choose another \
                 data_dir",
                path.display()
            ),
            Self::ReadOnly { path, source } => write!(
                f,
                "{}: {source}; mount it writable, or choose another data_dir",
                path.display()
            ),
            Self::Io { path, source } => write!(
                f,
                "{}: {source}; check the disk, or choose another data_dir",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Locked { .. } | Self::Damaged { .. } => None,
            Self::Permission { source, .. }
            | Self::ReadOnly { source, .. }
            | Self::Io { source, .. } => Some(source),
        }
    }
}

/// Why an update was not stored. Its `Display` is the message that travels to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The value is longer than the limit.
    ValueTooLong {
        /// Its length.
        length: usize,
        /// The limit.
        most: usize,
    },
    /// It would be one record too many.
    TooManyRecords {
        /// The limit.
        most: usize,
    },
    /// Ids, sections and data together would take too many bytes.
    TooManyBytes {
        /// The limit.
        most: usize,
    },
    /// The disk did not take it, for the reason given.
    Disk(Arc<str>),
    /// A newer process of this server has the store.
    HandedOver,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValueTooLong { length, most } => {
                write!(f, "value of {length} bytes is over max_value {most}")
            }
            Self::TooManyRecords { most } => write!(f, "store full: max_records {most} reached"),
            Self::TooManyBytes { most } => write!(f, "store full: max_bytes {most} reached"),
            Self::Disk(reason) => write!(f, "not stored: {reason}"),
            Self::HandedOver => f.write_str(
                "not stored: a newer process of this server has the store; connect again",
            ),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_decides_the_exit_code() {
        let code = |error: io::Error| OpenError::from_io(Path::new("d/x"), error).exit_code();
        assert_eq!(code(io::Error::from_raw_os_error(libc::EACCES)), 77);
        assert_eq!(code(io::Error::from_raw_os_error(libc::EPERM)), 77);
        assert_eq!(code(io::Error::from_raw_os_error(libc::EROFS)), 77);
        assert_eq!(code(io::Error::from_raw_os_error(libc::EAGAIN)), 75);
        assert_eq!(code(io::Error::from_raw_os_error(libc::EIO)), 1);
        assert_eq!(code(io::Error::from_raw_os_error(libc::ENOSPC)), 1);
    }

    #[test]
    fn every_message_names_the_file() {
        for raw in [libc::EACCES, libc::EROFS, libc::EAGAIN, libc::EIO] {
            let error = OpenError::from_io(Path::new("d/x"), io::Error::from_raw_os_error(raw));
            assert!(error.to_string().starts_with("d/x: "), "{error}");
        }
        let error = OpenError::damaged(Path::new("d/x"), "bad".into());
        assert!(error.to_string().starts_with("d/x: damaged: bad; "));
    }
}
