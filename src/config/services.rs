//! Service names and their TCP ports: the host's `/etc/services`, and behind it a short list for
//! hosts that have none. Read once for each reading of a configuration, never on a worker.

use std::fs::File;
use std::io::Read;

/// The names that one reading of the configuration may use.
pub(super) struct Services {
    known: Vec<(String, u16)>,
}

impl Services {
    /// What this host knows. A file that is missing or unreadable leaves the built-in names.
    pub(super) fn of_host() -> Services {
        let mut bytes = Vec::new();
        let read = File::open("/etc/services")
            .and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes));
        match read {
            Ok(_) => Services::parse(&String::from_utf8_lossy(&bytes)),
            Err(_) => Services::parse(""),
        }
    }

    /// Reads lines of `name port/protocol alias... # comment`; what is no such line is passed over.
    fn parse(text: &str) -> Services {
        let mut known = Vec::new();
        for line in text.lines() {
            let words = line.split('#').next().unwrap_or_default();
            let mut words = words.split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else {
                continue;
            };
            let Some(Ok(port)) = port.strip_suffix("/tcp").map(str::parse::<u16>) else {
                continue;
            };
            if port > 0 {
                known.extend(
                    [name]
                        .into_iter()
                        .chain(words)
                        .map(|name| (name.to_owned(), port)),
                );
            }
        }
        known.extend(BUILT_IN.iter().map(|&(name, port)| (name.to_owned(), port)));
        Services { known }
    }

    /// The TCP port of a service. Names are compared by all their bytes, as the system does.
    pub(super) fn port(&self, name: &str) -> Option<u16> {
        self.known
            .iter()
            .find(|(known, _)| known == name)
            .map(|&(_, port)| port)
    }

    /// The known name that this one may have been meant as.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        super::nearest(name, self.known.iter().map(|(known, _)| known.as_str()))
    }
}

/// How much of the host's file is read, in bytes; the fullest one in use has 700 KiB.
const LONGEST_FILE: u64 = 1 << 20;

/// What every host knows.
const BUILT_IN: &[(&str, u16)] = &[
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("www", 80),
    ("pop3", 110),
    ("imap", 143),
    ("imap2", 143),
    ("ldap", 389),
    ("https", 443),
    ("submissions", 465),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("socks", 1080),
    ("mqtt", 1883),
    ("mysql", 3306),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("redis", 6379),
    ("http-alt", 8080),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_comes_first_and_the_built_in_list_behind_it() {
        let services = Services::parse(
            "# comment\nhttp 8000/tcp www extra # more\nntp 123/udp\nzero 0/tcp\nbad x/tcp\nlone\n",
        );
        assert_eq!(services.port("http"), Some(8000));
        assert_eq!(services.port("extra"), Some(8000));
        assert_eq!(services.port("https"), Some(443));
        for name in ["ntp", "zero", "bad", "lone", "HTTP", "more", "#"] {
            assert_eq!(services.port(name), None, "{name}");
        }
        assert_eq!(services.nearest("htpt"), Some("http"));
    }

    #[test]
    fn a_host_without_the_file_knows_the_common_names() {
        assert_eq!(Services::parse("").port("http"), Some(80));
        assert_eq!(Services::of_host().port("domain"), Some(53));
    }
}
