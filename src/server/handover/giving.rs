//! The older process's side: a thread that starts the newer one, gives it everything, and has this one
//! drain; or has it go on as if nothing had been.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::super::StartError;
use super::super::passed::{ADMIN, name_of};
use super::super::signals::Stopper;
use super::super::supervisor::Supervisor;
use super::{ALL, CHECKED, Channel, LOOK, MAIN, MOST, SERVING, SOCKET, VARIABLE, VERSION, YOURS};
use crate::admin::Reception;
use crate::control::{self, Errand, Files, Query, Request};
use crate::reactor::{Address, Bell, mailbox};
use crate::worker::{Copied, Order, Outcome, Task};

/// How this program was started, to be started so again.
#[derive(Clone, Debug)]
pub(in super::super) struct Program {
    path: PathBuf,
    /// What it was called.
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// That of this process; to be asked at its start, as the file may be replaced later.
    pub(in super::super) fn own() -> io::Result<Self> {
        let file = fs::read_link("/proc/self/exe")?;
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_else(|| file.clone().into());
        Ok(Self {
            path: started_by(Path::new(&name), file),
            name,
            arguments: words.collect(),
        })
    }

    /// A process of it, with one end of a channel as its standard input.
    fn start(&self, end: OwnedFd) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        // They name another process, and what that was given.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command.env(VARIABLE, VERSION);
        command.stdin(Stdio::from(end)).spawn()
    }
}

/// The path that the program was started by, where it leads to its `file`: a symbolic link that is turned
/// to another version then means that one.
fn started_by(name: &Path, file: PathBuf) -> PathBuf {
    if !name.to_string_lossy().contains('/') {
        return file; // It was looked for in PATH, and what was found is the file.
    }
    match std::path::absolute(name) {
        Ok(path) if fs::canonicalize(&path).is_ok_and(|found| found == file) => path,
        _ => file,
    }
}

/// What the giver asks for and acts on.
pub(in super::super) struct Holdings {
    pub(in super::super) program: Program,
    pub(in super::super) workers: Vec<Address<Order>>,
    pub(in super::super) control: Sender<Request>,
    /// The admin address's listeners, where it is on.
    pub(in super::super) reception: Option<Arc<Reception>>,
    pub(in super::super) stopper: Stopper,
    pub(in super::super) supervisor: Arc<Supervisor>,
}

/// The running giver.
pub(in super::super) struct Giver {
    asker: Asker,
    thread: JoinHandle<()>,
}

/// Asks for a handing over. Cloned for whoever asks.
#[derive(Clone)]
pub(in super::super) struct Asker {
    calls: Sender<Call>,
    is_busy: Arc<AtomicBool>,
    stopper: Stopper,
}

enum Call {
    HandOver,
    End,
}

impl Asker {
    /// Asks for it, without an answer: the log tells.
    pub(in super::super) fn ask(&self) {
        if self.stopper.is_ending() {
            log::warn!("SIGUSR2: the server is ending; nothing is handed over any more");
        } else if self.is_busy.swap(true, Ordering::AcqRel) {
            log::warn!("SIGUSR2: a newer process is being started already");
        } else {
            // There is room, as no other is under way.
            let _ = self.calls.try_send(Call::HandOver);
        }
    }
}

impl Giver {
    /// Starts it.
    pub(in super::super) fn start(holdings: Holdings) -> Result<Self, StartError> {
        let (sender, calls) = bounded(2);
        let asker = Asker {
            calls: sender,
            is_busy: Arc::default(),
            stopper: holdings.stopper.clone(),
        };
        let is_busy = Arc::clone(&asker.is_busy);
        let thread = thread::Builder::new()
            .name("handover".into())
            .spawn(move || run(&holdings, &calls, &is_busy))
            .map_err(|error| StartError::System("start the thread of the handover", error))?;
        Ok(Self { asker, thread })
    }

    /// Who asks it.
    pub(in super::super) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Ends it; false when it has panicked. What is under way is given up.
    pub(in super::super) fn end(self) -> bool {
        // Behind what is under way there is room for this.
        let _ = self.asker.calls.try_send(Call::End);
        self.thread.join().is_ok()
    }
}

fn run(holdings: &Holdings, calls: &Receiver<Call>, is_busy: &AtomicBool) {
    while let Ok(Call::HandOver) = calls.recv() {
        match holdings.hand_over() {
            Ok(process) => log::info!(
                "handover: process {process} serves now; draining, and a signal stops this one at once"
            ),
            Err(why) if holdings.stopper.is_ending() => log::error!("handover: {why}"),
            Err(why) => log::error!("handover: {why}; this process goes on"),
        }
        is_busy.store(false, Ordering::Release);
    }
}

impl Holdings {
    /// All of it; the number of the newer process, or why this one goes on.
    fn hand_over(&self) -> Result<u32, String> {
        let sockets = self.copies()?;
        log::info!(
            "handover: {} sockets for a new process of {}",
            sockets.len(),
            self.program.path.display()
        );
        let mut heir = Heir::start(&self.program)?;
        for (name, socket) in &sockets {
            heir.told(
                heir.channel
                    .give(&format!("{SOCKET}{name}"), socket.as_fd()),
            )?;
        }
        drop(sockets);
        heir.told(heir.channel.say(ALL))?;
        heir.expect(CHECKED, CHECK, &self.stopper)?;
        let outcome = self
            .ask_control(Files::Close)
            .and_then(|()| heir.told(heir.channel.say(YOURS)))
            .and_then(|()| heir.expect(SERVING, OPEN, &self.stopper));
        if let Err(why) = outcome {
            // Before the files are opened here it must be gone.
            heir.end();
            return match self.ask_control(Files::Open) {
                Ok(()) => Err(why),
                Err(also) => Err(format!("{why}; and the store is not opened again: {also}")),
            };
        }
        self.resign(heir)
    }

    /// From here on the newer process serves, and alone accepts before any client here is told to go.
    fn resign(&self, heir: Heir) -> Result<u32, String> {
        let process = heir.child.id();
        if let Some(reception) = &self.reception {
            reception.close();
        }
        if let Err(why) = self.ask_workers(|| Task::Close) {
            // What is late closes with the drain, and the newer process has clients already.
            log::warn!("handover: some listeners are closed late: {why}");
        }
        if let Err(why) = self.ask_control(Files::Leave) {
            // It writes nothing meanwhile, so the newer process is not kept from beginning.
            log::warn!("handover: what has waited is not refused yet: {why}");
        }
        self.supervisor.resign(process);
        self.stopper.hand_over();
        if let Err(error) = heir.channel.say(MAIN) {
            log::error!("handover: process {process} was serving and is gone: {error}");
        }
        heir.let_go();
        Ok(process)
    }

    /// A copy of every listening socket, with the name that it has for the newer process.
    fn copies(&self) -> Result<Vec<(String, OwnedFd)>, String> {
        let failed = |error: io::Error| format!("cannot copy a socket: {error}");
        let mut sockets = Vec::new();
        for (core, outcome) in self.ask_workers(|| Task::Copy)?.into_iter().enumerate() {
            let Outcome::Copied(copies) = outcome else {
                continue;
            };
            for Copied { name, socket } in copies.map_err(failed)? {
                let label = name_of(&name);
                let numbered = format!("{label}-{core}");
                // What is in the store of a service manager stays there under its name; what is not,
                // such as a socket unit's, must not get into it.
                let name = match self.supervisor.keeps(&numbered) {
                    true => numbered,
                    false => label,
                };
                sockets.push((name, socket));
            }
        }
        if let Some(reception) = &self.reception {
            let copies = reception.copies().map_err(failed)?;
            let named = |socket| (ADMIN.to_owned(), socket);
            sockets.extend(copies.into_iter().map(named));
        }
        match sockets.len() > MOST {
            true => Err(format!("{} sockets are too many", sockets.len())),
            false => Ok(sockets),
        }
    }

    /// Has every worker do something; what came of it, in the order of the cores.
    fn ask_workers(&self, task: impl Fn() -> Task) -> Result<Vec<Outcome>, String> {
        let (ring, rung) = bounded(1);
        let (answering, mut answers) = mailbox(self.workers.len().max(1), Arc::new(Ring(ring)));
        for worker in &self.workers {
            let order = Order {
                ticket: 0,
                task: task(),
                answer: answering.clone(),
            };
            if worker.post(order).is_err() {
                return Err("a worker has too many orders".to_owned());
            }
        }
        let mut outcomes: Vec<Option<Outcome>> = self.workers.iter().map(|_| None).collect();
        let until = Instant::now() + ANSWER;
        while outcomes.iter().any(Option::is_none) {
            if Instant::now() >= until || self.stopper.is_ending() {
                return Err("a worker does not answer".to_owned());
            }
            // Whether one has or not, it is looked at what there is.
            let _ = rung.recv_timeout(LOOK);
            answers.open(self.workers.len(), |answer| {
                outcomes[usize::from(answer.core)] = Some(answer.outcome);
            });
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn ask_control(&self, files: Files) -> Result<(), String> {
        ask_control(&self.control, files)
    }
}

/// Has the control thread do something about the store's files.
pub(super) fn ask_control(control: &Sender<Request>, files: Files) -> Result<(), String> {
    let (answer, answered) = bounded(1);
    let errand = Errand {
        query: Query::Files(files),
        answer: Box::new(move |outcome| {
            let _ = answer.try_send(outcome);
        }),
    };
    let request = Request::errand(errand);
    let sent = request.map(|request| control.send_timeout(request, ANSWER));
    if !matches!(sent, Some(Ok(()))) {
        return Err("the control thread takes no questions".to_owned());
    }
    match answered.recv_timeout(ANSWER) {
        Ok(control::Answer::Files(outcome)) => outcome,
        _ => Err("the control thread does not answer".to_owned()),
    }
}

/// The newer process. Dropping it kills it, unless it was let go.
struct Heir {
    child: Child,
    channel: Channel,
    is_free: bool,
}

impl Heir {
    fn start(program: &Program) -> Result<Self, String> {
        let cannot = |error: io::Error| {
            let path = program.path.display();
            format!("cannot start {path}: {error}")
        };
        let (channel, end) = Channel::pair().map_err(cannot)?;
        let child = program.start(end).map_err(cannot)?;
        Ok(Self {
            child,
            channel,
            is_free: false,
        })
    }

    /// Waits for a word of it.
    fn expect(&mut self, word: &str, within: Duration, stopper: &Stopper) -> Result<(), String> {
        let until = Instant::now() + within;
        let heard = self.channel.await_word(Some(until), || stopper.is_ending());
        match heard {
            Ok(Some(heard)) if heard.word == word => Ok(()),
            Ok(Some(heard)) => {
                let other = crate::config::plain(&heard.word);
                Err(format!("the new process says {other} instead of {word}"))
            }
            Ok(None) if stopper.is_ending() => {
                Err("the server is ending, and the new process with it".to_owned())
            }
            Ok(None) => Err(format!(
                "the new process has not said {word} within {within:?} and is killed"
            )),
            Err(error) => Err(self.obituary(&error)),
        }
    }

    /// What became of something that it was to be told.
    fn told(&mut self, outcome: io::Result<()>) -> Result<(), String> {
        outcome.map_err(|error| self.obituary(&error))
    }

    /// The channel has failed: most likely its other end is closed, for the process has ended, and says why
    /// by its code.
    fn obituary(&mut self, error: &io::Error) -> String {
        let until = Instant::now() + LAST;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!("the new process {}", end_of(status)),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                Err(_) => break,
            }
        }
        format!("the new process does not use the channel that is its standard input: {error}")
    }

    /// Kills it and waits until it is gone.
    fn end(&mut self) {
        // Failing means that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It serves, whatever becomes of this process.
    fn let_go(mut self) {
        self.is_free = true;
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if !self.is_free {
            self.end();
        }
    }
}

fn end_of(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Wakes the giver when a worker has answered.
struct Ring(Sender<()>);

impl Bell for Ring {
    fn ring(&self) {
        // One that is full has rung.
        let _ = self.0.try_send(());
    }
}

/// How long the newer process may take to read its configuration and take its sockets.
const CHECK: Duration = Duration::from_secs(10);

/// How long it may take to open the store and start. So long updates wait at most.
const OPEN: Duration = Duration::from_secs(20);

/// How long a worker or the control thread may take to answer; the latter may have a disk to wait for.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a process that has closed its end may take to end.
const LAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_remembered_as_long_as_it_leads_to_the_program() {
        let folder = std::env::temp_dir().join(format!("towpath-link-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let folder = fs::canonicalize(folder).unwrap();
        let (file, other, link) = (
            folder.join("one"),
            folder.join("other"),
            folder.join("current"),
        );
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(started_by(&link, file.clone()), link);
        assert_eq!(started_by(Path::new("current"), file.clone()), file);
        assert_eq!(started_by(&other, file.clone()), file, "a name may lie");
        fs::remove_dir_all(&folder).unwrap();
    }
}
