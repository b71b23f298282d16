//! A client that others wrote: curl through the access listeners and two hops.

use std::process::{Command, Stdio};

use crate::support::chain::http::page;
use crate::support::chain::plan::{Row, access, access_address, serve, via};

/// What curl gets from `url` through a proxy, and how it ended.
fn curl(arguments: &[&str], url: &str) -> (Option<i32>, String) {
    let output = Command::new("curl")
        .args([
            "--disable",
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "",
        ])
        .args(arguments)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    eprint!("{error}");
    (output.status.code(), said)
}

#[test]
fn curl_fetches_a_page_through_each_kind_of_proxy() {
    let page = page("a page inside");
    let port = page.address.port();
    let row = Row::new(2, &[format!("localhost:{port}"), page.address.to_string()]);
    let lines = [format!("via = {}", via(&row.hops()))];
    let secured = [&lines[..], &["users = { ann = \"secret\" }".to_owned()]].concat();
    let tables = [
        access("socks", "socks5", &lines),
        access("http", "http", &lines),
        access("socks-users", "socks5", &secured),
        access("http-users", "http", &secured),
    ];
    let server = serve(&tables.concat());
    let at = |name| access_address(&server, name);
    let url = format!("http://localhost:{port}/");
    let by_address = format!("http://127.0.0.1:{port}/");
    let fetched = (Some(0), "a page inside".to_owned());
    let socks = at("socks");
    for proxy in [format!("socks5h://{socks}"), format!("socks5://{socks}")] {
        assert_eq!(curl(&["-x", &proxy], &by_address), fetched, "{proxy}");
    }
    let named = format!("socks5h://{socks}");
    assert_eq!(curl(&["-x", &named], &url), fetched);
    let http = format!("http://{}", at("http"));
    assert_eq!(curl(&["-p", "-x", &http], &url), fetched);
    assert_eq!(curl(&["-p", "-x", &http], &by_address), fetched);
    let socks = format!("socks5h://ann:secret@{}", at("socks-users"));
    assert_eq!(curl(&["-x", &socks], &url), fetched);
    let http = format!("http://ann:secret@{}", at("http-users"));
    assert_eq!(curl(&["-p", "-x", &http], &url), fetched);
    // And is told what went wrong: no permission, and nobody there.
    let wrong = format!("http://ann:wrong@{}", at("http-users"));
    assert_ne!(curl(&["-p", "-x", &wrong], &url).0, Some(0));
    let wrong = format!("socks5h://ann:wrong@{}", at("socks-users"));
    assert_ne!(curl(&["-x", &wrong], &url).0, Some(0));
    assert_ne!(curl(&["-x", &named], "http://localhost:1/").0, Some(0));
    assert_eq!(page.accepted(), 7);
    server.stop();
    row.stop();
}
