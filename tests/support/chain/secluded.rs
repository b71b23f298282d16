//! A network and a few files of the test's own: the test runs itself again where only loopback is, with
//! private addresses on it, no way to anywhere else, and names that it says itself.

use std::path::Path;
use std::process::Command;

use crate::support::folder::Folder;

/// Runs `body` in a network namespace of its own; `name` is the test's path, as the test harness
/// has it. Where the machine gives no namespaces the test passes with a word about that.
pub fn secluded(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    if !is_possible() {
        eprintln!("{name}: this machine gives no namespaces; nothing was tested");
        return;
    }
    let folder = Folder::new();
    let hosts = folder.write("hosts", HOSTS);
    let resolver = folder.write("resolv.conf", RESOLVER);
    let order = folder.write("nsswitch.conf", "hosts: files dns\n");
    let mut script = String::from("set -e\nip link set lo up\n");
    for address in ADDRESSES {
        let plain = if address.contains(':') { "nodad" } else { "" };
        script += &format!("ip addr add {address} dev lo {plain}\n");
    }
    for (file, at) in [
        (&hosts, "/etc/hosts"),
        (&resolver, "/etc/resolv.conf"),
        (&order, "/etc/nsswitch.conf"),
    ] {
        script += &mount(file, Path::new(at));
    }
    script += "exec \"$@\"\n";
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(NAMESPACES)
        .args(["sh", "-c", &script, "sh"])
        .arg(program)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "inside:\n{out}{error}");
    // A path with a slip in it would run nothing, and that well.
    assert!(
        out.contains("1 passed"),
        "{name} ran nothing inside:\n{out}"
    );
}

/// The mounted file must exist, and may be a link to somewhere else.
fn mount(file: &Path, at: &Path) -> String {
    if !at.exists() {
        return String::new();
    }
    let at = std::fs::canonicalize(at).unwrap();
    format!("mount --bind {} {}\n", file.display(), at.display())
}

fn is_possible() -> bool {
    let mut command = Command::new("unshare");
    command
        .args(NAMESPACES)
        .args(["sh", "-c", "ip link set lo up"]);
    command.output().is_ok_and(|output| output.status.success())
}

const NAMESPACES: [&str; 4] = ["--user", "--map-root-user", "--net", "--mount"];

const INSIDE: &str = "TOWPATH_TEST_SECLUDED";

/// What is on loopback inside, beside what always is.
pub const ADDRESSES: [&str; 6] = [
    "10.1.2.3/32",
    "172.16.5.6/32",
    "192.168.7.8/32",
    "169.254.169.254/32",
    "fd00:ec2::254/128",
    "8.8.4.4/32",
];

/// An address that is none of this network, and to which no way leads.
pub const NOWHERE: &str = "9.9.9.9";

/// A public address that is here.
pub const PUBLIC: &str = "8.8.4.4";

const HOSTS: &str = "127.0.0.1 localhost\n\
    ::1 localhost\n\
    127.0.0.1 loop.example\n\
    ::1 loop6.example\n\
    10.1.2.3 inner.example\n\
    8.8.4.4 public.example\n\
    9.9.9.9 nowhere.example\n";

/// Where [`super::names`] answers, and how soon somebody who gets no answer gives up.
const RESOLVER: &str = "nameserver 127.0.0.1\noptions timeout:60 attempts:1\n";
