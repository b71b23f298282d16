//! What is permitted and what is not, in tables.

use super::*;

fn rules(text: &str) -> Vec<Rule> {
    let words = text.split_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

/// The server listens on every interface at 7000 and on loopback at 7300; the host has two
/// addresses.
fn policy(allow: &str, deny: &str) -> Policy {
    let own = ["[::]:7000", "127.0.0.1:7300", "198.100.0.9:7400"];
    let local = ["127.0.0.1", "::1", "198.100.0.9", "2a00::9"];
    Policy::new(
        rules(allow),
        rules(deny),
        own.map(|at| at.parse().unwrap()).into(),
        local.map(|ip| ip.parse().unwrap()).into(),
    )
}

/// Whether who asks for `host` may go to `address`.
#[track_caller]
fn judge(allow: &str, deny: &str, asked: &str, want: bool) {
    let (host, address) = asked.split_once('=').unwrap_or(("", asked));
    let address: SocketAddr = address.parse().unwrap();
    let host = match host {
        "" => address.ip().to_string(),
        name => name.to_owned(),
    };
    let found = policy(allow, deny).permits(&host, address);
    assert_eq!(found, want, "allow {allow}, deny {deny}: {asked}");
}

/// One address of each kind that is guarded, all of them as they could be dialled.
const GUARDED: &[&str] = &[
    "0.0.0.0:80",
    "0.1.2.3:80",
    "10.0.0.1:80",
    "100.64.0.1:80",
    "100.127.255.255:80",
    "127.0.0.1:80",
    "127.255.0.1:80",
    "169.254.169.254:80",
    "172.16.0.1:80",
    "172.31.255.255:80",
    "192.0.0.170:80",
    "192.0.2.1:80",
    "192.168.1.1:80",
    "198.18.0.1:80",
    "198.19.255.255:80",
    "198.51.100.1:80",
    "203.0.113.1:80",
    "224.0.0.1:80",
    "239.255.255.255:80",
    "240.0.0.1:80",
    "255.255.255.255:80",
    "[::]:80",
    "[::1]:80",
    "[::127.0.0.1]:80",
    "[::ffff:127.0.0.1]:80",
    "[::ffff:0.0.0.0]:80",
    "[::ffff:169.254.169.254]:80",
    "[::ffff:0:10.0.0.1]:80",
    "[64:ff9b::10.0.0.1]:80",
    "[64:ff9b:1::1]:80",
    "[100::1]:80",
    "[2001:2::1]:80",
    "[2001:db8::1]:80",
    "[2002:7f00:1::]:80",
    "[2002:a00:1:ffff::1]:80",
    "[3fff::1]:80",
    "[fc00::1]:80",
    "[fd00:ec2::254]:80",
    "[fe80::1]:80",
    "[febf::1]:80",
    "[fec0::1]:80",
    "[ff02::1]:80",
];

/// Addresses beside the guarded ones.
const OPEN: &[&str] = &[
    "1.1.1.1:80",
    "9.255.255.255:80",
    "11.0.0.0:80",
    "100.63.255.255:80",
    "100.128.0.0:80",
    "126.255.255.255:80",
    "128.0.0.0:80",
    "169.253.255.255:80",
    "172.15.255.255:80",
    "172.32.0.0:80",
    "192.167.255.255:80",
    "198.17.255.255:80",
    "198.20.0.0:80",
    "223.255.255.255:80",
    "[2a00::1]:80",
    "[2001:4860::8888]:80",
    "[::ffff:1.1.1.1]:80",
    "[64:ff9b::1.1.1.1]:80",
    "[2002:101:101::1]:80",
    "[fbff::1]:80",
];

#[test]
fn everything_opens_all_but_the_guarded_addresses() {
    for asked in OPEN {
        judge("*:*", "", asked, true);
        judge("", "", asked, false);
    }
    for asked in GUARDED {
        judge("*:*", "", asked, false);
        judge("*:80", "", asked, false);
        judge(
            "evil.example:* *.example:*",
            "",
            &format!("evil.example={asked}"),
            false,
        );
    }
}

#[test]
fn a_guarded_address_is_opened_by_its_address() {
    for asked in GUARDED {
        let address: SocketAddr = asked.parse().unwrap();
        let rule = match address {
            SocketAddr::V4(at) => format!("{}:80", at.ip()),
            SocketAddr::V6(at) => format!("[{}]:*", at.ip()),
        };
        judge(&rule, "", asked, true);
        judge(&rule, &rule, asked, false);
        judge(&rule, "*:80", asked, false);
    }
    for (allow, asked, want) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:80", "[::1]:80", false),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
        ("127.0.0.1:80", "[64:ff9b::7f00:1]:80", true),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ("[::ffff:10.0.0.0/104]:80", "10.9.8.7:80", true),
        ("[::ffff:10.0.0.0]/104:80", "11.9.8.7:80", false),
        ("10.0.0.0/8:*", "[::ffff:10.0.0.1]:80", true),
        ("10.0.0.0/8:*", "11.0.0.1:80", false),
        ("10.0.0.0/8:*", "192.168.0.1:80", false),
        ("0.0.0.0/0:80", "169.254.169.254:80", true),
        ("[fd00::/8]:80", "[fd00:ec2::254]:80", true),
        ("[fd00::]/8:80", "[fd00:ec2::254]:80", true),
        ("[fd00::/8]:80", "[fc00::1]:80", false),
        // All of IPv6 is not all of IPv4, in whatever form.
        ("[::/0]:*", "[::1]:80", true),
        ("[::/0]:*", "[::ffff:127.0.0.1]:80", false),
        ("[::/0]:*", "[64:ff9b::7f00:1]:80", false),
        ("[64:ff9b::/96]:*", "[64:ff9b::7f00:1]:80", false),
        ("[64:ff9b::/96]:*", "[64:ff9b::1.1.1.1]:80", true),
        ("[64:ff9b::/96]:*", "1.1.1.1:80", false),
        ("[2002::/16]:*", "[2002:7f00:1::]:80", false),
    ] {
        judge(allow, "", asked, want);
    }
}

#[test]
fn localhost_stands_for_loopback_and_for_nothing_else() {
    for (asked, want) in [
        ("127.0.0.1:80", true),
        ("127.9.9.9:80", true),
        ("localhost=[::1]:80", true),
        ("[::ffff:127.0.0.1]:80", true),
        ("other.example=127.0.0.1:80", true),
        ("localhost=127.0.0.1:81", false),
        // A name server that says so cannot make it another host.
        ("localhost=10.0.0.1:80", false),
        ("localhost=1.1.1.1:80", false),
        ("sub.localhost=1.1.1.1:80", false),
    ] {
        judge("LocalHost.:80", "", asked, want);
    }
    judge("*:*", "localhost:*", "localhost=1.1.1.1:80", false);
    judge("*:* 127.0.0.0/8:*", "localhost:*", "127.0.0.1:80", false);
    judge("*:*", "localhost:*", "1.1.1.1:80", true);
}

#[test]
fn names_compare_without_case_and_without_a_point_at_the_end() {
    for (allow, asked, want) in [
        ("db.Example.com:80", "db.example.com=1.1.1.1:80", true),
        ("db.example.com.:80", "DB.EXAMPLE.COM.=1.1.1.1:80", true),
        ("db.example.com:80", "db.example.com=1.1.1.1:81", false),
        ("db.example.com:80", "xdb.example.com=1.1.1.1:80", false),
        ("db.example.com:80", "db.example.com.evil=1.1.1.1:80", false),
        ("db.example.com:80", "1.1.1.1:80", false),
        ("*.example.com:80", "a.example.com=1.1.1.1:80", true),
        ("*.example.com:80", "a.b.EXAMPLE.com.=1.1.1.1:80", true),
        ("*.example.com:80", "example.com=1.1.1.1:80", false),
        ("*.example.com:80", ".example.com=1.1.1.1:80", false),
        ("*.example.com:80", "badexample.com=1.1.1.1:80", false),
        ("*.example.com:80", "com=1.1.1.1:80", false),
        // A name that is made to lead to a guarded address stays outside.
        ("*.example.com:80", "a.example.com=127.0.0.1:80", false),
        (
            "*.example.com:80",
            "a.example.com=[::ffff:169.254.169.254]:80",
            false,
        ),
        // Spellings that only a look-up understands are judged by what it says.
        ("*:*", "0x7f000001=127.0.0.1:80", false),
        ("*:*", "2130706433=127.0.0.1:80", false),
        ("*:*", "0177.0.0.1=127.0.0.1:80", false),
    ] {
        judge(allow, "", asked, want);
    }
}

#[test]
fn a_refusal_beats_every_permission() {
    for (deny, asked, want) in [
        ("1.1.1.1:*", "1.1.1.1:80", false),
        ("1.1.1.0/24:80", "1.1.1.1:80", false),
        ("1.1.1.0/24:80", "1.1.1.1:81", true),
        ("1.1.1.1:*", "a.example=1.1.1.1:80", false),
        ("1.1.1.1:*", "[::ffff:1.1.1.1]:80", false),
        ("1.1.1.1:*", "[2002:101:101::9]:80", false),
        ("[64:ff9b::/96]:*", "[64:ff9b::1.1.1.1]:80", false),
        ("[::/0]:*", "[2a00::1]:80", false),
        ("[::/0]:*", "1.1.1.1:80", true),
        ("*:25", "1.1.1.1:25", false),
        ("*.evil.example:*", "a.evil.example=1.1.1.1:80", false),
        ("evil.example:*", "EVIL.example.=1.1.1.1:80", false),
        ("evil.example:*", "good.example=1.1.1.1:80", true),
    ] {
        judge("*:* 1.1.1.1:*", deny, asked, want);
    }
}

#[test]
fn ports_are_one_a_range_or_all() {
    for (allow, asked, want) in [
        ("*:8000-8099", "1.1.1.1:7999", false),
        ("*:8000-8099", "1.1.1.1:8000", true),
        ("*:8000-8099", "1.1.1.1:8099", true),
        ("*:8000-8099", "1.1.1.1:8100", false),
        ("*:443", "1.1.1.1:443", true),
        ("*:*", "1.1.1.1:65535", true),
        ("*:*", "1.1.1.1:1", true),
        ("*:*", "1.1.1.1:0", false),
        ("1.1.1.1:*", "1.1.1.1:0", false),
    ] {
        judge(allow, "", asked, want);
    }
}

#[test]
fn an_own_listener_is_opened_by_nothing_but_its_address_and_port() {
    // By every address that leads to the listener on all interfaces.
    for asked in [
        "127.0.0.1:7000",
        "127.9.9.9:7000",
        "[::1]:7000",
        "0.0.0.0:7000",
        "[::]:7000",
        "[::ffff:127.0.0.1]:7000",
        "198.100.0.9:7000",
        "[2a00::9]:7000",
        "[64:ff9b::198.100.0.9]:7000",
        "127.0.0.1:7300",
        "0.0.0.0:7300",
        "[::]:7300",
        "198.100.0.9:7400",
    ] {
        for allow in [
            "*:*",
            "0.0.0.0/0:* [::/0]:*",
            "127.0.0.0/8:7000",
            "198.100.0.9:7000-7400",
        ] {
            judge(allow, "", asked, false);
        }
        let address = whole(asked.parse().unwrap());
        judge(&address.to_string(), "", asked, true);
        judge(&address.to_string(), "*:7000-7400", asked, false);
    }
    for (allow, asked, want) in [
        ("localhost:7000", "127.0.0.1:7000", true),
        ("localhost:7000", "[::1]:7000", true),
        ("localhost:7000-7001", "127.0.0.1:7000", false),
        ("localhost:*", "127.0.0.1:7000", false),
        ("localhost:7000", "198.100.0.9:7000", false),
        // Another port, or another host's.
        ("*:*", "198.100.0.9:7001", true),
        ("*:*", "198.100.0.10:7000", true),
        ("*:*", "198.100.0.9:7300", true),
        ("127.0.0.0/8:*", "127.0.0.1:7001", true),
        ("127.0.0.0/8:*", "127.0.0.2:7300", true),
    ] {
        judge(allow, "", asked, want);
    }
}

#[test]
fn rules_are_shown_as_they_are_written() {
    for (text, shown) in [
        ("*:*", "*:*"),
        ("1.2.3.4:80", "1.2.3.4:80"),
        ("1.2.3.4/32:80", "1.2.3.4:80"),
        ("[2a00::1]:80-90", "[2a00::1]:80-90"),
        ("10.0.0.0/8:*", "10.0.0.0/8:*"),
        ("[fd00::]/8:*", "[fd00::/8]:*"),
        ("[::ffff:10.0.0.0/104]:1", "10.0.0.0/8:1"),
        ("LOCALHOST:80", "localhost:80"),
        ("*.Example.com.:80", "*.example.com:80"),
        ("db_1.internal:5432-5432", "db_1.internal:5432"),
    ] {
        let rule: Rule = text.parse().unwrap();
        assert_eq!(rule.to_string(), shown, "{text}");
        assert_eq!(shown.parse(), Ok(rule), "{text}");
    }
}

#[test]
fn what_is_no_rule_is_told_what_is_wrong_with_it() {
    let rule = |text: &str| {
        format!(
            r#""{text}" is no rule; write a host and its ports, like "*:*", "10.0.0.0/8:443", "[fd00::/8]:*", "*.example.com:8000-8099" or "db.internal:5432""#
        )
    };
    let name = |text: &str| {
        format!(
            r#"the host of "{text}" is neither an address nor a name, such as "example.com", "*.example.com" or "*""#
        )
    };
    let part = |text: &str| {
        format!(
            r#"the host of "{text}" is no whole address; write all four numbers, or a net like "10.0.0.0/8""#
        )
    };
    for (text, want) in [
        ("", rule("")),
        ("[::1", rule("[::1")),
        ("[::1]80", rule("[::1]80")),
        ("[::1/64]/64:80", rule("[::1/64]/64:80")),
        ("[::1]x:80", rule("[::1]x:80")),
        ("*", r#""*" has no port; write "*:*" for all of them"#.into()),
        ("10.0.0.0/8", r#""10.0.0.0/8" has no port; write "10.0.0.0/8:*" for all of them"#.into()),
        ("fd00::1", r#"the IPv6 address of "fd00::1" needs brackets; write "[fd00::1]:*""#.into()),
        ("fd00::/8:80", r#"the IPv6 address of "fd00::/8:80" needs brackets; write "[fd00::/8]:80""#.into()),
        ("[db]:80", r#""db" in brackets is no IPv6 address"#.into()),
        ("[1.2.3.4]:80", r#""1.2.3.4" in brackets is no IPv6 address"#.into()),
        ("10.0.0.0/33:80", r#"the length "33" of "10.0.0.0/33:80" is not one of 0 to 32"#.into()),
        ("10.0.0.0/:80", r#"the length "" of "10.0.0.0/:80" is not one of 0 to 32"#.into()),
        ("10.0.0.0/+8:80", r#"the length "+8" of "10.0.0.0/+8:80" is not one of 0 to 32"#.into()),
        ("[fd00::/129]:80", r#"the length "129" of "[fd00::/129]:80" is not one of 0 to 128"#.into()),
        ("10.0.0.1/8:80", r#""10.0.0.1/8:80" has bits set beyond its length; write "10.0.0.0/8", or the address alone"#.into()),
        ("db/8:80", r#""db" is no IP address, and only such a one has a length behind it"#.into()),
        ("*:", r#""" is not a range of ports; write it like "20000-29999", or one port like "20000""#.into()),
        ("*:http", r#""http" is not a range of ports; write it like "20000-29999", or one port like "20000""#.into()),
        ("*:0", r#"a port of "0" is out of range: 1 to 65535"#.into()),
        ("*:9-8", r#""9-8" runs backwards; write "8-9""#.into()),
        (":80", name(":80")),
        ("a b:80", name("a b:80")),
        ("*.*.com:80", name("*.*.com:80")),
        ("*.:80", name("*.:80")),
        ("a..b:80", name("a..b:80")),
        ("a.*:80", name("a.*:80")),
        ("127.1:80", part("127.1:80")),
        ("256.0.0.1:80", part("256.0.0.1:80")),
        ("*.0.0.1:80", part("*.0.0.1:80")),
    ] {
        assert_eq!(text.parse::<Rule>().unwrap_err(), want, "{text}");
    }
}
