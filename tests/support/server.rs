//! The real binary: started with a configuration of its own on free ports, watched, stopped.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use super::admin::Admin;
use super::command::{Log, TOWPATH, wait};
use super::folder::Folder;
use super::frame::Dialect;
use super::peer::Peer;
use super::route::Route;
use super::{kernel, until};

/// How a server is to be started.
#[derive(Clone, Default)]
pub struct Setup {
    top: String,
    limits: String,
    agent: String,
    routes: Vec<Route>,
    tables: String,
    flags: Vec<String>,
    wrapper: Vec<String>,
    program: Option<PathBuf>,
    environment: Vec<(String, String)>,
    listen: Option<SocketAddr>,
    folder: Option<Arc<Folder>>,
    passed: Option<(String, [Arc<OwnedFd>; 2])>,
}

impl Setup {
    pub fn new() -> Self {
        Self::default()
    }

    /// A server whose one service `svc` leads every field to `backend` without a token.
    pub fn to(backend: SocketAddr) -> Self {
        Self::new().route(Route::new("svc").host("default", backend))
    }

    /// A line at the top of the file.
    pub fn top(mut self, line: &str) -> Self {
        self.top += &format!("{line}\n");
        self
    }

    /// A line of `[limits]`.
    pub fn limit(mut self, line: &str) -> Self {
        self.limits += &format!("{line}\n");
        self
    }

    /// A line of `[agent]`.
    pub fn agent(mut self, line: &str) -> Self {
        self.agent += &format!("{line}\n");
        self
    }

    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Tables of other roles, as they stand in the file.
    pub fn tables(mut self, text: &str) -> Self {
        self.tables += text;
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// With an admin address.
    pub fn admin(self) -> Self {
        self.flag("--admin=127.0.0.1:0")
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A command in front of the program; it must end in an exec, so that the process stays one.
    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(ToString::to_string).collect();
        self
    }

    /// Another file than the program under test.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Passes two descriptors as a service manager does, with names that a colon separates.
    pub fn passed(mut self, names: &str, descriptors: [Arc<OwnedFd>; 2]) -> Self {
        // As its own stdin and stdout they reach the shell, which puts them where they belong.
        let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
        self.passed = Some((names.into(), descriptors));
        self.wrapper(&["sh", "-c", script, "sh"])
    }

    /// Listens on this address instead of a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Keeps its data here, so that a later server finds them again.
    pub fn folder(mut self, folder: &Arc<Folder>) -> Self {
        self.folder = Some(Arc::clone(folder));
        self
    }

    fn toml(&self, data: &Path) -> String {
        let listen = self
            .listen
            .map_or("127.0.0.1:0".into(), |address| address.to_string());
        let routes: String = self.routes.iter().map(Route::toml).collect();
        format!(
            "{}data_dir = {data:?}\n[limits]\n{}[agent]\nlisten = [{listen:?}]\n{}{routes}{}",
            self.top, self.limits, self.agent, self.tables
        )
    }

    fn command(&self, folder: &Folder, data: &Path) -> Command {
        let file = folder.write("towpath.toml", self.toml(data));
        let mut words = self.wrapper.clone();
        let program = self.program.as_ref().map(|path| path.to_str().unwrap());
        words.push(program.unwrap_or(TOWPATH).into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .arg("--config")
            .arg(file);
        command
            .arg("--address-file")
            .arg(folder.path().join("addresses"));
        command.args(&self.flags);
        // Only root may count the descriptors of a server that hides its memory.
        if !kernel::is_root() {
            command.env("TOWPATH_DEBUGGABLE", "true");
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some((names, [first, second])) = &self.passed {
            let stdio = |one: &OwnedFd| Stdio::from(one.try_clone().unwrap());
            command.stdin(stdio(first)).stdout(stdio(second));
            command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", names);
        }
        command
    }

    /// Starts the server and waits until it says where it listens.
    pub fn start(&self) -> Server {
        let own = Folder::new();
        let shared = self.folder.clone();
        let data = shared.as_deref().unwrap_or(&own).path().join("data");
        let mut child = self.command(&own, &data).spawn().unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let file = own.path().join("addresses");
        let mut addresses = None;
        until("the server writes its addresses", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended at its start, {status}:\n{}", log.text());
            }
            addresses = read_addresses(&file);
            addresses.is_some()
        });
        let addresses = addresses.unwrap();
        Server {
            // Where the agent role is off, the first listener that has a name.
            address: first(&addresses["agent"])
                .or_else(|| first(addresses["access"].as_object()?.values().next()?))
                .unwrap(),
            addresses,
            descriptors: kernel::descriptors(child.id()),
            child,
            log,
            data,
            own,
            _shared: shared,
        }
    }

    /// Starts a server that must not come up; its exit code and what it said.
    pub fn fail(&self) -> (i32, String) {
        let own = Folder::new();
        let data = self.folder.as_deref().unwrap_or(&own).path().join("data");
        let mut child = self.command(&own, &data).spawn().unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let status = wait(&mut child);
        let code = status
            .code()
            .unwrap_or_else(|| panic!("{status}: {}", log.text()));
        (code, log.finish())
    }
}

fn read_addresses(file: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(file).ok()?;
    serde_json::from_str(&text).ok()
}

fn first(list: &Value) -> Option<SocketAddr> {
    list[0].as_str()?.parse().ok()
}

/// A running server; killed when dropped.
pub struct Server {
    pub address: SocketAddr,
    /// The address file.
    pub addresses: Value,
    /// How many it had before its first client.
    descriptors: usize,
    child: Child,
    log: Log,
    data: PathBuf,
    own: Folder,
    _shared: Option<Arc<Folder>>,
}

impl Server {
    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// Connects to the access listener of that name.
    pub fn access(&self, name: &str) -> Peer {
        Peer::connect(first(&self.addresses["access"][name]).unwrap())
    }

    /// A client of its admin address.
    pub fn admin(&self) -> Admin {
        Admin::new(first(&self.addresses["admin"]).unwrap())
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Writes another configuration where it finds that when it reads it again. Flags stay those of its
    /// start.
    pub fn rewrite(&self, setup: &Setup) {
        self.rewrite_as(&setup.toml(&self.data));
    }

    /// The same with any text. Renamed into place: a reload that is due just then reads a whole file.
    pub fn rewrite_as(&self, text: &str) {
        let draft = self.own.write("towpath.toml.new", text);
        std::fs::rename(draft, self.own.path().join("towpath.toml")).unwrap();
    }

    /// The first address of a role by the address file as it is now.
    pub fn now_at(&self, role: &str) -> Option<SocketAddr> {
        first(&read_addresses(&self.own.path().join("addresses"))?[role])
    }

    /// All of them.
    pub fn now_at_all(&self, role: &str) -> Vec<SocketAddr> {
        let file = read_addresses(&self.own.path().join("addresses")).unwrap();
        let list = file[role].as_array().unwrap().iter();
        list.map(|at| at.as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// The same for an access listener.
    pub fn access_now_at(&self, name: &str) -> Option<SocketAddr> {
        first(&read_addresses(&self.own.path().join("addresses"))?["access"][name])
    }

    /// The directory of its store.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, name: &str) {
        kernel::signal(self.process(), name);
    }

    /// Waits for its end; the exit code, none when a signal ended it. Its log is whole from then on, unless
    /// a newer process writes to it as well.
    pub fn ended(&mut self) -> Option<i32> {
        let code = wait(&mut self.child).code();
        if self.heirs().is_empty() {
            self.log.expect_end();
        }
        code
    }

    /// Has it hand over to a newer process, and waits until that serves; which. The next one is asked in
    /// the place of one that has done so.
    pub fn hand_over(&self) -> u32 {
        let done = self.heirs().len();
        kernel::signal(self.heirs().pop().unwrap_or(self.process()), "USR2");
        until("a newer process serves", || self.heirs().len() > done);
        self.heirs()[done]
    }

    /// The processes that have been handed to, by the log.
    pub fn heirs(&self) -> Vec<u32> {
        let log = self.log();
        let told = log.split("handover: process ").skip(1);
        told.map(|rest| rest.split(' ').next().unwrap().parse().unwrap())
            .collect()
    }

    /// Asks the newest process to stop, and waits until it is gone, and all others are.
    pub fn stop_heir(self) {
        kernel::signal(self.heirs().pop().unwrap(), "TERM");
        self.log.expect_end();
        let log = self.log();
        let ended = log.matches("stopped: accepted=").count();
        assert_eq!(ended, self.heirs().len() + 1, "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }

    /// Asks it to stop and fails unless it ends well.
    pub fn stop(mut self) {
        self.signal("TERM");
        let code = self.ended();
        let log = self.log.text();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stores a value through a connection of its own and fails unless that is acknowledged.
    pub fn store(&self, id: &[u8], section: &[u8], data: &[u8]) {
        let wide = Dialect::Stock;
        let request = wide.update(id, section, data);
        self.connect().ask(wide, &request).expect_done(b"update");
    }

    /// The value under a key, through a connection of its own.
    pub fn stored(&self, id: &[u8], section: &[u8]) -> Option<Vec<u8>> {
        let wide = Dialect::Stock;
        let reply = self.connect().ask(wide, &wide.query(id, section));
        if reply.code == 0 {
            return Some(reply.record(wide).1);
        }
        reply.expect_missing(wide);
        None
    }

    /// Fails unless a fresh client is served: what every hostile case ends with.
    pub fn expect_alive(&self) {
        self.store(b"alive", b"probe", b"yes");
        assert_eq!(
            self.stored(b"alive", b"probe").as_deref(),
            Some(&b"yes"[..])
        );
    }

    /// Waits until fresh clients are served again: after a shortage, when those that caused it have
    /// gone, some may still be turned away until every core has seen them go. So many in a row are
    /// served that each core has had some.
    pub fn expect_served_again(&self) {
        let wide = Dialect::Stock;
        let mut served = 0;
        until("clients are served again", || {
            let mut peer = self.connect();
            peer.try_send(&wide.sniff());
            served = match peer.some(&mut [0; 256]) {
                Ok(1..) => served + 1,
                _ => 0,
            };
            served == 16
        });
        self.expect_alive();
    }

    /// Opens a relay to `service`/`field` and reads the greeting of its dialect.
    pub fn relay(&self, dialect: Dialect, service: &str, field: &str, token: &str) -> Peer {
        let mut peer = self.connect();
        let request = dialect.traffic(service.as_bytes(), field.as_bytes(), token.as_bytes());
        peer.send(request).expect(dialect.greeting());
        peer
    }

    /// Opens a relay through the service of [`Setup::to`].
    pub fn open(&self) -> Peer {
        self.relay(Dialect::Stock, "svc", "x", "")
    }

    /// Waits until the process has exactly the descriptors of its start and of `connections`
    /// open ones; a relay has two.
    pub fn expect_open(&self, connections: usize) {
        let count = self.descriptors + connections;
        let mut now = 0;
        let start = std::time::Instant::now();
        while start.elapsed() < super::DEADLINE {
            now = kernel::descriptors(self.process());
            // At its start it may have had one more for a moment than it keeps.
            if now == count || (connections == 0 && now < count) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("{now} descriptors instead of {count}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for heir in self.heirs() {
            if kernel::is_running(heir) {
                kernel::signal(heir, "KILL");
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}---", self.log.text());
        }
    }
}
