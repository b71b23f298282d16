//! The command line: help, exit codes, and `check`.

use crate::support::command::{Finished, TOWPATH, towpath};
use crate::support::folder::Folder;
use crate::support::server::Setup;

fn run(arguments: &[&str]) -> Finished {
    towpath(arguments, &[], b"")
}

/// Runs `check` on a configuration.
fn check(text: &str) -> Finished {
    let folder = Folder::new();
    let file = folder.write("towpath.toml", text);
    run(&["check", "--config", file.to_str().unwrap()])
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = run(&["--version"]).expect(0);
    assert!(
        version.text().contains(env!("CARGO_PKG_VERSION")),
        "{}",
        version.text()
    );
    assert_eq!(version.error, "");
    let help = run(&["--help"]).expect(0);
    for command in ["serve", "check", "agent", "route"] {
        assert!(help.text().contains(command), "{}", help.text());
    }
    let of_commands: [(&[&str], &str); 5] = [
        (&["serve", "--help"], "--config"),
        (&["check", "--help"], "--config"),
        (&["agent", "--help"], "update"),
        (&["agent", "update", "--help"], "--server"),
        (&["route", "--help"], "--listen"),
    ];
    for (arguments, word) in of_commands {
        let help = run(arguments).expect(0);
        assert!(help.text().contains(word), "{arguments:?}: {}", help.text());
        assert_eq!(help.error, "", "{arguments:?}");
    }
}

#[test]
fn a_usage_error_is_one_line_that_points_to_the_help() {
    let wrong: [&[&str]; 9] = [
        &[],
        &["server"],
        &["serve", "--confg", "x"],
        &["serve", "--workers"],
        &["serve", "stray"],
        &["agent"],
        &["agent", "update", "id"],
        &["agent", "query", "id"],
        &["route"],
    ];
    for arguments in wrong {
        let finished = run(arguments).expect(2);
        assert_eq!(finished.text(), "", "{arguments:?}");
        assert!(
            finished.error.contains("--help"),
            "{arguments:?}: {}",
            finished.error
        );
        assert!(
            finished.error.lines().count() <= 2,
            "{arguments:?}: {}",
            finished.error
        );
    }
    let finished = run(&["serve", "--confg", "x"]);
    assert!(
        finished.error.contains("--config"),
        "the nearest flag: {}",
        finished.error
    );
}

#[test]
fn check_prints_what_serve_would_do_and_opens_nothing() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    let text = format!(
        "data_dir = {data:?}\n[agent]\nlisten = [\"127.0.0.1:7199\"]\ntoken = \"very-secret\"\n\
         [routes.web]\ntoken = \"quite-secret\"\n\
         [routes.web.hosts]\nsite = {{ host = \"backend.example\", service = \"http\" }}\n"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:7199");
    let finished = check(&text).expect(0);
    let said = finished.text();
    for word in ["127.0.0.1:7199", "web", "site", "backend.example"] {
        assert!(said.contains(word), "{word} is not in:\n{said}");
    }
    assert!(!said.contains("secret"), "{said}");
    assert!(!data.exists(), "check creates nothing");
    drop(taken);
}

#[test]
fn check_prints_every_mistake_at_once_with_its_place() {
    let text =
        "workrs = 2\n\n[limits]\nhandshake_timeout = 5\n\n[agent]\n  max_payload = \"big\"\n";
    let finished = check(text).expect(78);
    let said = format!("{}{}", finished.text(), finished.error);
    for (place, hint) in [
        (":1:1: error:", "workers"),
        (":4:", "5s"),
        (":7:", "max_payload"),
    ] {
        let line = said.lines().find(|line| line.contains(place));
        let line = line.unwrap_or_else(|| panic!("no mistake at {place}\n{said}"));
        assert!(
            line.contains("towpath.toml") && line.contains("error:"),
            "{line}"
        );
        assert!(line.contains(hint), "{line}");
    }
}

#[test]
fn check_points_at_what_is_no_toml() {
    let finished = check("[agent\nlisten = 1\n").expect(78);
    let said = format!("{}{}", finished.text(), finished.error);
    assert!(said.contains("towpath.toml:1:"), "{said}");
}

#[test]
fn a_role_that_does_not_exist_is_an_unknown_key() {
    let finished = check("[wormhole]\nlisten = [\"127.0.0.1:0\"]\n").expect(78);
    let said = format!("{}{}", finished.text(), finished.error);
    assert!(
        said.contains("`wormhole`") && said.contains(":1:"),
        "{said}"
    );
}

#[test]
fn serve_refuses_a_bad_configuration_as_check_does() {
    let (code, said) = Setup::new().limit("handshake_timeout = 5").fail();
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("towpath.toml:") && said.contains("error:"),
        "{said}"
    );
}

#[test]
fn a_missing_configuration_file_is_a_bad_configuration() {
    for command in ["serve", "check"] {
        let finished = run(&[command, "--config", "/no/such/towpath.toml"]).expect(78);
        let said = format!("{}{}", finished.text(), finished.error);
        assert!(said.contains("/no/such/towpath.toml"), "{said}");
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let folder = Folder::new();
    let file = folder.write("towpath.toml", "[agent]\nlisten = [\"127.0.0.1:7001\"]\n");
    let file = file.to_str().unwrap();
    let said = |flags: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["check", "--config", file], flags].concat();
        towpath(&arguments, environment, b"").expect(0).text()
    };
    let variable = [("TOWPATH_AGENT", "127.0.0.1:7002")];
    assert!(said(&[], &[]).contains("127.0.0.1:7001"));
    let by_environment = said(&[], &variable);
    assert!(
        by_environment.contains("127.0.0.1:7002"),
        "{by_environment}"
    );
    let by_flag = said(&["--agent", "127.0.0.1:7003"], &variable);
    assert!(by_flag.contains("127.0.0.1:7003"), "{by_flag}");
    for other in ["127.0.0.1:7001", "127.0.0.1:7002"] {
        assert!(!by_flag.contains(other), "{by_flag}");
    }
}

#[test]
fn the_bundled_configurations_are_in_order() {
    for name in ["towpath.toml", "minimal.toml"] {
        let path = format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"));
        run(&["check", "--config", &path]).expect(0);
    }
}

#[test]
fn a_closed_stdout_is_no_panic() {
    let command = format!("{TOWPATH} --help | true");
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
}
