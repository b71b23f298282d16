//! The program as a process: run to its end, or followed while it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The program under test.
pub const TOWPATH: &str = env!("CARGO_BIN_EXE_towpath");

/// Runs one `towpath` command to its end, with `input` on its stdin.
pub fn towpath(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Finished {
    let mut command = Command::new(TOWPATH);
    command.args(arguments).envs(environment.iter().copied());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = Log::follow(child.stderr.take().unwrap());
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).unwrap();
        bytes
    });
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    let status = wait(&mut child);
    Finished {
        code: status.code(),
        output: reader.join().unwrap(),
        error: log.finish(),
    }
}

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub output: Vec<u8>,
    pub error: String,
}

impl Finished {
    pub fn text(&self) -> String {
        String::from_utf8(self.output.clone()).unwrap()
    }

    /// Fails unless the command ended with `code`.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.text(), self.error);
        self
    }
}

/// Waits for the end of a process; kills it when the deadline passes.
pub fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    let start = std::time::Instant::now();
    while status.is_none() && start.elapsed() < super::DEADLINE {
        status = child.try_wait().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    status.unwrap_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the process does not end");
    })
}

/// What a process writes to a pipe, collected by a thread.
pub struct Log {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Log {
    pub fn follow(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                let mut text = shared.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { text, reader }
    }

    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until all is collected that was written; to be called when the process has ended.
    pub fn expect_end(&self) {
        super::until("the pipe of an ended process ends", || {
            self.reader.is_finished()
        });
    }

    /// Everything up to the pipe's end.
    pub fn finish(self) -> String {
        self.reader.join().unwrap();
        Arc::into_inner(self.text).unwrap().into_inner().unwrap()
    }
}

/// Puts a copy of a file in the place of another. A file that this process itself had open for writing
/// could not be executed while another test starts a program.
pub fn copy(from: &Path, to: &Path) {
    let script = "cp \"$1\" \"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"";
    let mut command = Command::new("sh");
    let status = command.args(["-c", script, "sh"]).arg(from).arg(to);
    assert!(status.status().unwrap().success());
}
