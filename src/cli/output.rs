//! The program's own words on stdout and stderr. A reader who leaves early, as in `| head`, is no
//! failure.

use std::io::{self, Write};

use super::exit::{FAILED, Failure};

/// Writes to stdout, all of it at once.
pub(super) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let line = format!("towpath: stdout cannot be written: {error}");
            Err(Failure::new(FAILED, line))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where stderr is gone, there is nobody to tell.
pub(super) fn say(line: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes());
}
