//! How a command ends: the exit codes, and a failure with the lines that explain it.

use std::io;

use super::flags::Usage;
use crate::config::Mistake;

/// It worked.
pub(super) const OK: u8 = 0;
/// It failed while it ran.
pub(super) const FAILED: u8 = 1;
/// The command line asks for something that is not there.
pub(super) const USAGE: u8 = 2;
/// It may work later.
pub(super) const TEMPORARY: u8 = 75;
/// The system does not allow it.
pub(super) const DENIED: u8 = 77;
/// The configuration has mistakes.
pub(super) const CONFIGURATION: u8 = 78;

/// What each code means.
pub(super) const CODES: [(u8, &str); 6] = [
    (OK, "Done; for serve, stopped by a signal."),
    (
        FAILED,
        "Failed while running; for agent query, also that there is no value.",
    ),
    (USAGE, "The command line is wrong."),
    (
        TEMPORARY,
        "May work later: address or store in use, out of descriptors or memory.",
    ),
    (DENIED, "No permission, or a read-only disk."),
    (CONFIGURATION, "The configuration is wrong."),
];

/// A command that did not do what it should.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    /// What stderr is told; may be nothing when it was told already.
    pub(super) lines: Vec<String>,
}

impl Failure {
    /// A failure with one line.
    pub(super) fn new(code: u8, line: impl Into<String>) -> Failure {
        Failure {
            code,
            lines: vec![line.into()],
        }
    }

    /// What the system's refusal of a socket means for the one who may try again.
    pub(super) fn of_socket(error: &io::Error, line: impl Into<String>) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::AddrInUse => TEMPORARY,
            io::ErrorKind::PermissionDenied => DENIED,
            _ => FAILED,
        };
        Failure::new(code, line)
    }

    /// All mistakes of a configuration. Flags alone are a usage error.
    pub(super) fn of_mistakes(command: &str, mistakes: &[Mistake]) -> Failure {
        let mut lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let code = match mistakes.iter().all(Mistake::is_usage) {
            true => USAGE,
            false => CONFIGURATION,
        };
        if code == USAGE {
            lines.push(format!("see towpath {command} --help"));
        }
        Failure { code, lines }
    }
}

impl From<Usage> for Failure {
    fn from(usage: Usage) -> Failure {
        Failure::new(USAGE, usage.to_string())
    }
}
