//! Chains: their hops, keys and weights.

use super::{KEY_TEXT, read, refuses, shown, with};

#[test]
fn a_chain_is_shown_hop_by_hop_without_its_secrets() {
    let (config, told) = read(&with(&format!(
        "via = [{{ address = 'nyc.example', key = '{KEY_TEXT}' }}, {{ address = '[::1]' }},\n\
         {{ address = 'localhost:http' }}, {{ address = '10.0.0.1:7301', key = '{KEY_TEXT}' }}]\n\
         payload_key = '{KEY_TEXT}'\nprotocol = 'tcp'"
    )));
    assert_eq!(told, Ok(vec![]));
    assert_eq!(
        shown(&config),
        "chain: off\naccess db: listens on 127.0.0.1:9\n  \
         hop 1: nyc.example:7300; key set\n  \
         hop 2: [::1]:7300; the key that everybody knows\n  \
         hop 3: localhost:80; the key that everybody knows\n  \
         hop 4: 10.0.0.1:7301; key set, payload key set\n  \
         tcp -> a:1\n"
    );
    assert!(!format!("{config:?}").contains(KEY_TEXT));
    let (config, told) = read(&with(
        "chains = [{ via = [{ address = '127.0.0.1' }], weight = 3 }, { via = [] }]\n\
         probe_interval = '5s'",
    ));
    assert_eq!(told, Ok(vec![]));
    assert_eq!(
        shown(&config),
        "chain: off\naccess db: listens on 127.0.0.1:9\n  \
         chain 1, weight 3\n    hop 1: 127.0.0.1:7300; the key that everybody knows\n  \
         chain 2, weight 1\n    straight to the destination\n  \
         each chain is probed every 5s\n  tcp -> a:1\n"
    );
    let (config, told) = read(&with(
        "via = [{ address = 'localhost' }]\nearly_data = true",
    ));
    assert_eq!(told, Ok(vec![]));
    assert!(shown(&config).contains("\n  payload leaves before the hops have answered\n"));
}

#[test]
fn a_key_is_read_from_a_file_too() {
    let path = std::env::temp_dir().join(format!("towpath-hop-{}.key", std::process::id()));
    std::fs::write(&path, format!("{}\n", KEY_TEXT.trim_end_matches('='))).unwrap();
    let line = format!("via = [{{ address = 'a', key = {{ file = {path:?} }} }}]");
    let (config, told) = read(&with(&line));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(told, Ok(vec![]));
    assert!(config.access[0].chains[0].hops[0].key.is_some());
}

#[test]
fn what_is_wrong_with_a_hop_is_told_where_it_stands() {
    let hop = r#"{ address = "hop.example:7300", key = { file = "hop.key" } }"#;
    let many = format!("[{}]", "{ address = 'localhost' }, ".repeat(17));
    let cases = [
        ("'a'", format!("7: error: `via`: wants a list of hops, such as [{hop}], or []; found the text \"a\"")),
        (&many, "7: error: `via`: has 17 hops; 16 are the most".into()),
        ("['a']", format!("8: error: write {hop}; found the text \"a\"")),
        ("[{}]", format!("8: error: no `address`; a hop is {hop}")),
        ("[{ addres = 'a' }]", "10: error: unknown key `addres`; the nearest known one is `address`".into()),
        ("[{ address = 'a' }]", format!("20: error: the hop a:7300 needs its `key`; a hop is {hop}")),
        ("[{ address = 'a', key = '' }]", format!("20: error: the hop a:7300 needs its `key`; a hop is {hop}")),
        ("[{ address = '10.0.0.1:1' }]", format!("20: error: the hop 10.0.0.1:1 needs its `key`; a hop is {hop}")),
        ("[{ address = '' }]", "20: error: `address`: \"\" is not a destination; write a host and a port, like \"example.com:http\", \"10.0.0.1:80\" or \"[::1]:80\"".into()),
        ("[{ address = 7300 }]", "20: error: `address`: wants a destination, such as \"example.com:80\"; found the number 7300".into()),
        ("[{ address = 'localhost:0' }]", "20: error: `address`: a port is from 1 to 65535; found 0".into()),
        ("[{ address = '::1' }]", "20: error: `address`: \"::1\" is not a destination; write a host and a port, like \"example.com:http\", \"10.0.0.1:80\" or \"[::1]:80\"".into()),
        ("[{ address = 'a', key = 'AAAA' }]", "31: error: `key`: wants 32 bytes in base64, such as towpath gen key makes; it is base64 of 3 bytes; a key has 32".into()),
        ("[{ address = 'a', key = { file = '/nowhere/x' } }]", "40: error: `key`: the secret file /nowhere/x cannot be read: No such file or directory (os error 2)".into()),
        ("[{ address = 'a', key = 5 }]", "31: error: write `key` as a text, or a file such as { file = \"secrets/token\" }; found the number 5".into()),
    ];
    for (via, want) in cases {
        let text = with(&format!("via = {via}"));
        let told = read(&text).1.unwrap_err();
        assert!(
            told.contains(&format!("t.toml:2:{want}")),
            "{via}: {told:?}"
        );
        assert_eq!(
            told.len(),
            1 + usize::from(via.contains("addres =")),
            "{told:?}"
        );
    }
}

#[test]
fn a_first_hop_that_is_the_listener_itself_is_a_mistake() {
    refuses(
        &with("listen = ':7300'\nvia = [{ address = '127.0.0.1' }]"),
        &[
            "t.toml:1:1: error: the first hop, 127.0.0.1:7300, is this very listener; it would dial itself",
        ],
    );
    // Behind a hop the address is another host's, and so is the destination.
    let hop = "via = [{ address = 'localhost' }, { address = '127.0.0.1:9' }]";
    let text = with(&format!("to = '127.0.0.1:9'\n{hop}"));
    assert_eq!(read(&text).1, Ok(vec![]));
}

#[test]
fn several_chains_have_all_in_themselves() {
    let wants = "`chains`: wants 1 to 16 times { via = [...], weight = 1 }; found";
    let many = format!("[{}]", "{ via = [] }, ".repeat(17));
    for (chains, want) in [
        ("[]", format!("10: error: {wants} 0 of them")),
        (&many, format!("10: error: {wants} 17 of them")),
        ("5", format!("10: error: {wants} the number 5")),
        (
            "[5]",
            "11: error: write { via = [...], weight = 1 }; found the number 5".into(),
        ),
        (
            "[{ weight = 1 }]",
            "11: error: no `via`; write { via = [...], weight = 1 }".into(),
        ),
        (
            "[{ via = [], weight = 0 }]",
            "32: error: `weight`: must be from 1 to 1000; found 0".into(),
        ),
        (
            "[{ via = [], weight = 1001 }]",
            "32: error: `weight`: must be from 1 to 1000; found 1001".into(),
        ),
        (
            "[{ via = [], wieght = 1 }]",
            "23: error: unknown key `wieght`; the nearest known one is `weight`".into(),
        ),
    ] {
        refuses(
            &with(&format!("chains = {chains}")),
            &[&format!("t.toml:2:{want}")],
        );
    }
    let key = format!("payload_key = '{KEY_TEXT}'");
    refuses(
        &with(&format!("chains = [{{ via = [] }}]\nvia = []\n{key}")),
        &[
            "t.toml:3:7: error: `via`: stands in each of `chains`, not beside them",
            "t.toml:4:15: error: `payload_key`: stands in each of `chains`, not beside them",
        ],
    );
}

#[test]
fn a_payload_key_wants_a_last_hop() {
    let key = format!("payload_key = '{KEY_TEXT}'");
    let told = "error: `payload_key`: is for the last hop, and there is none";
    refuses(&with(&key), &[&format!("t.toml:2:15: {told}")]);
    refuses(
        &with(&format!("chains = [{{ via = [], {key} }}]")),
        &[&format!("t.toml:2:37: {told}")],
    );
    assert_eq!(read(&with("payload_key = ''")).1, Ok(vec![]));
    let udp = format!("protocol = 'udp'\nvia = [{{ address = 'localhost' }}]\n{key}");
    assert_eq!(read(&with(&udp)).1, Ok(vec![]));
}

#[test]
fn what_no_header_could_carry_is_told() {
    let told = "its host has a character that is no letter, digit, - . or _";
    refuses(
        &with(&format!(
            "via = [{{ address = 'a*b', key = '{KEY_TEXT}' }}]"
        )),
        &[&format!("t.toml:2:20: error: `address`: {told}")],
    );
    let text = with("to = ['a:1', 'a*b:1']");
    assert_eq!(read(&text).1, Ok(vec![]));
    refuses(
        &(text + "via = [{ address = 'localhost' }]\n"),
        &[&format!("t.toml:2:14: error: `to`: {told}")],
    );
}
