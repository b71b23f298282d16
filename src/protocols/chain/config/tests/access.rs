//! Access listeners and what goes with each of their protocols.

use super::{read, refuses, shown, with};

#[test]
fn a_listener_has_one_address_and_destination_or_lists_of_them() {
    let (config, told) = read(
        "[[chain.access]]\nname = 'db'\nlisten = '127.0.0.1:7310'\nto = 'db.internal:5432'\n\
         [[chain.access]]\nname = 'web-1.b_2'\nlisten = ['127.0.0.1:7311', '[::1]:0', '[::1]:0']\n\
         via = []\nprotocol = 'tcp'\nto = ['10.0.0.1:http', '[2001:db8::1]:8080', 'a:1', 'a:2']\n",
    );
    assert_eq!(told, Ok(vec![]));
    assert_eq!(
        shown(&config),
        "chain: off\n\
         access db: listens on 127.0.0.1:7310\n  tcp -> db.internal:5432\n\
         access web-1.b_2: listens on 127.0.0.1:7311, [::1]:0, [::1]:0\n  \
         tcp -> 10.0.0.1:80, [2001:db8::1]:8080, a:1, a:2\n"
    );
}

#[test]
fn what_is_no_list_of_tables_is_told_how_to_write_one() {
    refuses(
        "[chain.access]\nname = 'db'\n",
        &["t.toml:1:1: error: write `[[chain.access]]` for each of them; found a table"],
    );
    refuses(
        "chain.access = 5\n",
        &["t.toml:1:16: error: write `[[chain.access]]` for each of them; found the number 5"],
    );
    refuses(
        "chain.access = ['db']\n",
        &[
            "t.toml:1:17: error: write { name = \"db\", listen = \"127.0.0.1:7310\", via = [], \
           to = \"db.example:5432\" }; found the text \"db\"",
        ],
    );
    refuses(
        "[[chain.acess]]\nname = 'db'\n",
        &["t.toml:1:9: error: unknown key `acess`; the nearest known one is `access`"],
    );
}

#[test]
fn what_is_missing_and_what_is_unknown_is_told() {
    let example = "an access listener is { name = \"db\", listen = \"127.0.0.1:7310\", \
                   via = [], to = \"db.example:5432\" }";
    refuses(
        "\n[[chain.access]]\nnmae = 'db'\n",
        &[
            &format!("t.toml:2:1: error: no `listen`; {example}"),
            &format!("t.toml:2:1: error: no `name`; {example}"),
            &format!("t.toml:2:1: error: no `to`; {example}"),
            "t.toml:3:1: error: unknown key `nmae`; the nearest known one is `name`",
        ],
    );
}

#[test]
fn names_are_plain_words_and_differ() {
    let wants = "`name`: wants 1 to 64 letters, digits, \".\", \"_\" or \"-\", such as \"db\"";
    let long = "x".repeat(65);
    for (name, found) in [
        ("''", "the text \"\"".to_owned()),
        ("'a b'", "the text \"a b\"".to_owned()),
        ("'ä'", "the text \"ä\"".to_owned()),
        ("7", "the number 7".to_owned()),
        (
            &format!("'{long}'"),
            format!("the text \"{}...\"", &long[..40]),
        ),
    ] {
        refuses(
            &format!("[[chain.access]]\nname = {name}\nlisten = ':0'\nto = 'a:1'\n"),
            &[&format!("t.toml:2:8: error: {wants}; found {found}")],
        );
    }
    let db = "[[chain.access]]\nname = 'db'\nlisten = ':0'\nto = 'a:1'\n";
    refuses(
        &format!("{db}{db}"),
        &["t.toml:6:8: error: `name`: an access listener above is \"db\", too"],
    );
}

#[test]
fn each_value_is_refused_where_it_stands() {
    let destination =
        "write a host and a port, like \"example.com:http\", \"10.0.0.1:80\" or \"[::1]:80\"";
    let wrong = |text: &str| format!("`to`: \"{text}\" is not a destination; {destination}");
    for (line, want) in [
        ("listen = []", "10: error: `listen`: wants a list of addresses, such as [\"127.0.0.1:7000\"]; found none".into()),
        ("listen = 7310", "10: error: `listen`: wants an address, such as \"127.0.0.1:7000\"; found the number 7310".into()),
        ("listen = ['127.0.0.1:1', '127.0.0.1']", "26: error: `listen`: \"127.0.0.1\" has no port; write for example \"127.0.0.1:7000\"".into()),
        ("listen = ['127.0.0.1:1', '127.0.0.1:1']", "26: error: `listen`: 127.0.0.1:1 is named twice; `chain.access` has it already".into()),
        ("protocol = 'tpc'", "12: error: `protocol`: wants one of: \"tcp\", \"udp\", \"socks5\", \"http\"; found the text \"tpc\"".into()),
        ("protocol = true", "12: error: `protocol`: wants one of: \"tcp\", \"udp\", \"socks5\", \"http\"; found true".into()),
        ("to = []", "6: error: `to`: an empty list; name at least one destination, such as \"example.com:80\"".into()),
        ("to = 5432", "6: error: `to`: wants a destination, such as \"example.com:80\"; found the number 5432".into()),
        ("to = ['a:1', 'b:2', 'a:1']", "21: error: `to`: a:1 is twice in this list".into()),
        ("to = 'db'", format!("6: error: {}", wrong("db"))),
        ("to = ''", format!("6: error: {}", wrong(""))),
        ("to = ':80'", format!("6: error: {}", wrong(":80"))),
        ("to = 'db:'", format!("6: error: {}", wrong("db:"))),
        ("to = '::1'", format!("6: error: {}", wrong("::1"))),
        ("to = '::1:80'", format!("6: error: {}", wrong("::1:80"))),
        ("to = '[::1]'", format!("6: error: {}", wrong("[::1]"))),
        ("to = '[db]:80'", format!("6: error: {}", wrong("[db]:80"))),
        ("to = 'a b:80'", "6: error: `to`: \"a b\" is neither a host's name nor an address, such as \"example.com\"".into()),
        ("to = 'db:0'", "6: error: `to`: a port is from 1 to 65535; found 0".into()),
        ("to = 'db:65536'", "6: error: `to`: a port is from 1 to 65535; found 65536".into()),
        ("to = 'db:htpt'", "6: error: `to`: \"htpt\" is neither a port nor a known service; the nearest is \"http\"".into()),
    ] {
        refuses(&with(line), &[&format!("t.toml:2:{want}")]);
    }
}

#[test]
fn a_listener_that_would_dial_itself_is_a_mistake() {
    for (listen, to) in [
        ("127.0.0.1:9", "127.0.0.1:9"),
        (":9", "[::1]:9"),
        (":9", "127.0.0.1:9"),
        ("0.0.0.0:9", "0.0.0.0:9"),
    ] {
        let text = format!("[[chain.access]]\nname = 'db'\nlisten = '{listen}'\nto = '{to}'\n");
        let want =
            format!("t.toml:4:6: error: `to`: {to} is this very listener; it would dial itself");
        refuses(&text, &[&want]);
    }
    for to in ["127.0.0.1:8", "127.0.0.2:9"] {
        let (_, told) = read(&with(&format!("to = '{to}'")));
        assert_eq!(told, Ok(vec![]));
    }
}

/// A listener of these lines and a name.
fn listener(lines: &str) -> String {
    format!("[[chain.access]]\nname = 'db'\n{lines}\n")
}

#[test]
fn each_protocol_says_where_to_in_its_own_way() {
    let (config, told) = read(
        &[
            listener("listen = '127.0.0.1:1'\nprotocol = 'udp'\nto = 'a:domain'\nmax_flows = 7"),
            listener("listen = '127.0.0.1:1'\nto = 'a:53'").replace("'db'", "'tcp'"),
            listener("listen = '[::1]:2'\nprotocol = 'socks5'\nusers = { ann = 'x' }")
                .replace("'db'", "'socks'"),
            listener("listen = '127.0.0.1:3'\nprotocol = 'http'").replace("'db'", "'http'"),
        ]
        .concat(),
    );
    assert_eq!(told, Ok(vec![]));
    assert_eq!(
        shown(&config),
        "chain: off\n  allow                   *:*\n  deny                    nothing\n\
         access db: listens on 127.0.0.1:1\n  udp -> a:53\n\
         access tcp: listens on 127.0.0.1:1\n  tcp -> a:53\n\
         access socks: listens on [::1]:2\n  socks5 -> wherever the client says, for 1 user\n\
         access http: listens on 127.0.0.1:3\n  http -> wherever the client says, for everybody\n"
    );
    assert_eq!(
        (config.access[0].max_flows, config.access[1].max_flows),
        (7, 4096)
    );
    let example = "an access listener is { name = \"db\", listen = \"127.0.0.1:7310\", \
                   via = [], to = \"db.example:5432\" }";
    let lines =
        |protocol: &str| listener(&format!("listen = '127.0.0.1:1'\nprotocol = '{protocol}'"));
    for protocol in ["tcp", "udp"] {
        refuses(
            &lines(protocol),
            &[&format!("t.toml:1:1: error: no `to`; {example}")],
        );
    }
    for protocol in ["socks5", "http"] {
        let want = format!(
            "t.toml:5:6: error: `to`: a client of \"{protocol}\" says where to; leave it out"
        );
        refuses(&(lines(protocol) + "to = 'a:1'\n"), &[&want]);
    }
}

#[test]
fn two_listeners_for_the_same_traffic_share_no_address() {
    let udp = listener("listen = '127.0.0.1:1'\nprotocol = 'udp'\nto = 'a:1'");
    refuses(
        &format!("{udp}{}", udp.replace("'db'", "'dc'")),
        &[
            "t.toml:8:10: error: `listen`: 127.0.0.1:1 is named twice; `chain.access` has it already",
        ],
    );
    for protocol in ["tcp", "udp"] {
        let text = with("listen = '127.0.0.1:7300'") + &format!("protocol = '{protocol}'\n");
        refuses(
            &format!("[chain]\nlisten = ['127.0.0.1:7300']\n{text}"),
            &[
                "t.toml:4:10: error: `listen`: 127.0.0.1:7300 is named twice; `chain.listen` has it already",
            ],
        );
    }
}

#[test]
fn a_proxy_off_loopback_has_users_or_says_that_it_is_open() {
    let lines = |protocol: &str, more: &str| {
        listener(&format!(
            "listen = ['127.0.0.1:1', '10.0.0.1:1']\nprotocol = '{protocol}'\n{more}"
        ))
    };
    for protocol in ["socks5", "http"] {
        for text in ["", "open = false"] {
            let want = "t.toml:1:1: error: everybody who reaches 10.0.0.1:1 could use this proxy; \
                        name its `users`, such as { ann = \"her password\" }, or write open = true";
            refuses(&lines(protocol, text), &[want]);
        }
        for text in ["open = true", "users = { ann = 'x' }"] {
            assert_eq!(read(&lines(protocol, text)).1, Ok(vec![]), "{text}");
        }
    }
    for line in ["users = { ann = 'x' }", "open = true"] {
        let (name, at) = (
            line.split(' ').next().unwrap(),
            line.find("= ").unwrap() + 3,
        );
        let want = format!(
            "t.toml:2:{at}: error: `{name}`: only \"socks5\" and \"http\" have clients that say who they are"
        );
        refuses(&with(line), &[&want]);
    }
}

#[test]
fn users_are_a_table_or_a_list() {
    let lines = |users: &str, protocol: &str| {
        listener(&format!(
            "listen = '127.0.0.1:1'\nprotocol = '{protocol}'\nusers = {users}"
        ))
    };
    let (config, told) = read(&lines("{ ann = 'first', 'b:b' = 'two' }", "socks5"));
    assert_eq!(told, Ok(vec![]));
    let users = &config.access[0].users;
    assert_eq!(
        (&*users[0].name, users[0].password.expose()),
        ("ann", &b"first"[..])
    );
    assert_eq!(
        (&*users[1].name, users[1].password.expose()),
        ("b:b", &b"two"[..])
    );
    assert!(!format!("{config:?}").contains("first"));
    let (config, told) = read(&lines("[{ name = 'ann', password = 'one' }]", "http"));
    assert_eq!(told, Ok(vec![]));
    assert_eq!(config.access[0].users[0].name, "ann".into());

    let long = "x".repeat(256);
    let wants = "`users`: wants 1 to 256 users, such as { ann = \"her password\" }; found";
    let user = "write { name = \"ann\", password = { file = \"ann.password\" } }";
    for (users, want) in [
        ("{}", format!("9: error: {wants} 0 of them")),
        ("[]", format!("9: error: {wants} 0 of them")),
        ("'ann'", format!("9: error: {wants} the text \"ann\"")),
        ("['ann']", format!("10: error: {user}; found the text \"ann\"")),
        ("[{ name = 'ann' }]", format!("10: error: a user has both; {user}")),
        ("[{ name = 7, password = 'x' }]", "19: error: `name`: wants a text; found the number 7".into()),
        ("{ ann = '' }", "17: error: `users`: a password has 1 to 255 bytes; this one has 0".into()),
        (&format!("{{ ann = '{long}' }}"), "17: error: `users`: a password has 1 to 255 bytes; this one has 256".into()),
        (&format!("{{ {long} = 'x' }}"), "11: error: `users`: a name has 1 to 255 bytes; this one has 256".into()),
        ("{ '' = 'x' }", "11: error: `users`: a name has 1 to 255 bytes; this one has 0".into()),
        ("{ 'a:b' = 'x' }", "11: error: `users`: no name may have a colon: it ends there for HTTP".into()),
        ("{ ann = { file = '/nowhere/x' } }", "26: error: `password`: the secret file /nowhere/x cannot be read: No such file or directory (os error 2)".into()),
        ("[{ name = 'a', password = 'x' }, { name = 'a', password = 'y' }]", "51: error: `users`: a user of that name is in this list already".into()),
    ] {
        refuses(&lines(users, "http"), &[&format!("t.toml:5:{want}")]);
    }
}

#[test]
fn early_data_wants_a_stream_and_a_hop_that_needs_no_answer() {
    let hop = "via = [{ address = 'localhost' }]";
    let (config, told) = read(&with(&format!("early_data = true\n{hop}")));
    assert_eq!((config.access[0].early_data, told), (true, Ok(vec![])));
    assert_eq!(read(&with("early_data = false")).1, Ok(vec![]));
    for (more, why) in [
        ("", "there is no hop that it could be early for"),
        (
            "chains = [{ via = [{ address = '[::1]' }] }, { via = [] }]",
            "there is no hop that it could be early for",
        ),
        (
            "payload_key = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='\nvia = [{ address = 'localhost' }]",
            "with `payload_key` nothing can be sent before the last hop has answered",
        ),
    ] {
        let want = format!("t.toml:2:14: error: `early_data`: {why}");
        refuses(&with(&format!("early_data = true\n{more}")), &[&want]);
    }
    for (protocol, why) in [
        (
            "socks5",
            "a proxy's clients send nothing before they are told of success",
        ),
        (
            "http",
            "a proxy's clients send nothing before they are told of success",
        ),
        ("udp", "a datagram carries its payload anyway"),
    ] {
        let to = if protocol == "udp" { "to = 'a:1'" } else { "" };
        let text = listener(&format!(
            "listen = '127.0.0.1:1'\nprotocol = '{protocol}'\n{hop}\nearly_data = true\n{to}"
        ));
        refuses(
            &text,
            &[&format!("t.toml:6:14: error: `early_data`: {why}")],
        );
    }
    refuses(
        &with("early_data = 1"),
        &["t.toml:2:14: error: `early_data`: wants true or false; found the number 1"],
    );
}

#[test]
fn what_belongs_to_another_kind_of_listener_is_told() {
    for (line, want) in [
        (
            "max_flows = 5",
            "13: error: `max_flows`: there are flows only where there are datagrams",
        ),
        (
            "probe_interval = '5s'",
            "18: error: `probe_interval`: only several `chains` are probed",
        ),
    ] {
        refuses(&with(line), &[&format!("t.toml:2:{want}")]);
    }
    let udp = listener("listen = '127.0.0.1:1'\nto = 'a:1'\nprotocol = 'udp'\nmax_flows = 0");
    refuses(
        &udp,
        &["t.toml:6:13: error: `max_flows`: must be from 1 to 1000000; found 0"],
    );
    refuses(
        &with("protocl = 'udp'"),
        &["t.toml:2:1: error: unknown key `protocl`; the nearest known one is `protocol`"],
    );
}
