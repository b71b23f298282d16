//! The keys of the admin address, at the start.

use std::net::TcpListener;

use crate::support::command::towpath;
use crate::support::folder::Folder;
use crate::support::server::Setup;
use crate::support::until;

#[test]
fn an_open_address_needs_a_token() {
    let folder = Folder::new();
    let text =
        "[admin]\nlisten = [\"127.0.0.1:0\", \"0.0.0.0:0\"]\n[agent]\nlisten = [\"127.0.0.1:0\"]\n";
    let file = folder.write("towpath.toml", text);
    let words = ["check", "--config", file.to_str().unwrap()];
    let said = towpath(&words, &[], b"").expect(78).error;
    assert!(
        said.contains("towpath.toml:2:") && said.contains("0.0.0.0:0"),
        "{said}"
    );
    assert!(said.contains("set `admin.token`"), "{said}");
    let finished = towpath(&words, &[("TOWPATH_ADMIN_TOKEN", "long and secret")], b"").expect(0);
    assert!(!finished.text().contains("long and secret"));
    let words = [
        "check",
        "--config",
        file.to_str().unwrap(),
        "--admin",
        "off",
    ];
    towpath(&words, &[], b"").expect(0);
}

#[test]
fn a_taken_address_is_told_as_others_are() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let flag = format!("--admin={address}");
    let (code, said) = Setup::new().flag(&flag).fail();
    assert_eq!(code, 75, "{said}");
    assert!(
        said.contains(&format!("admin cannot listen on {address}")),
        "{said}"
    );
}

#[test]
fn it_is_off_without_its_key_and_announced_with_it() {
    let server = Setup::new().start();
    assert!(server.addresses.get("admin").is_none());
    server.stop();
    let server = Setup::new().admin().start();
    let address = server.admin().address;
    let line = format!("admin listening on {address}");
    until("the log names it", || server.log().contains(&line));
    let status = server.admin().get("/status");
    assert_eq!(status["pid"].as_u64(), Some(u64::from(server.process())));
    let listeners = status["listeners"].as_array().unwrap();
    let names: Vec<_> = listeners
        .iter()
        .map(|at| at["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["agent", "admin"]);
    assert_eq!(status["partial"], false);
    let reload = server.admin().call("POST", "/reload", "", "").expect(200);
    assert_eq!(reload.json()["changes"].as_array().unwrap().len(), 0);
    server
        .admin()
        .call("POST", "/reload?dry_run=2", "", "")
        .expect(400);
    server.stop();
}
