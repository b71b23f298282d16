//! Values as people write them: durations, sizes, addresses. Pure text in, a value or one sentence
//! out; where the text stood is the caller's knowledge.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::plain;

/// Reads a duration: `250ms`, `5s`, `3m`, `12h`. A bare number is refused, because nobody can
/// tell whether its writer thought of seconds or milliseconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let wrong = || {
        let shown = plain(text);
        format!(
            r#""{shown}" is not a duration; write it like "250ms", "5s", "3m" or "12h", whole and with one unit"#
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let microseconds = match unit {
        "" => return Err(bare_duration(i128::from(number))),
        "us" => Some(number),
        "ms" => number.checked_mul(1_000),
        "s" => number.checked_mul(1_000_000),
        "m" => number.checked_mul(60_000_000),
        "h" => number.checked_mul(3_600_000_000),
        _ => return Err(wrong()),
    };
    microseconds.map(Duration::from_micros).ok_or_else(wrong)
}

/// What to say about a number that stands where a duration should.
pub(super) fn bare_duration(number: i128) -> String {
    let milliseconds = number.saturating_mul(1_000);
    format!(r#"the duration {number} has no unit; write "{number}s" or "{milliseconds}ms""#)
}

/// Reads a size in bytes: `16K`, `8M`, `1G` (of 1024 each), or plain bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let wrong = || {
        let shown = plain(text);
        format!(
            r#""{shown}" is not a size; write it like "16K", "8M", "1G", or as plain bytes, whole and with one unit"#
        )
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Reads an address to listen on: `127.0.0.1:7000`, `[::1]:7000`, or `:7000` for every interface.
///
/// `:7000` means `[::]:7000`, which takes both IPv6 and IPv4. A host without any IPv6 writes
/// `0.0.0.0:7000`. Names are refused: which address a listener gets must not depend on a lookup.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shown = plain(text);
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match (text.parse::<u16>(), text.parse::<IpAddr>()) {
            (Ok(port), _) => format!(
                r#""{shown}" is a port alone; write ":{port}" for every interface or "127.0.0.1:{port}" for this host"#
            ),
            (_, Ok(_)) => format!(r#""{shown}" has no port; write for example "{shown}:7000""#),
            _ => wrong_address(&shown),
        });
    };
    let Ok(port) = port.parse::<u16>() else {
        if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(format!(
                r#"the port of "{shown}" is out of range: 0 to 65535"#
            ));
        }
        return Err(wrong_address(&shown));
    };
    if host.is_empty() {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            r#"the IPv6 address of "{shown}" needs brackets; write "[{host}]:{port}""#
        ));
    }
    Err(wrong_address(&shown))
}

fn wrong_address(shown: &str) -> String {
    format!(
        r#""{shown}" is not an address; write an IP address and a port, like "127.0.0.1:7000", "[::1]:7000" or ":7000""#
    )
}

/// Reads a range of ports, `20000-29999` with both ends in it, or one port alone.
pub fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let shown = plain(text);
    let wrong = || {
        format!(
            r#""{shown}" is not a range of ports; write it like "20000-29999", or one port like "20000""#
        )
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |digits: &str| {
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(wrong());
        }
        let number = digits.parse::<u16>().ok().filter(|port| *port > 0);
        number.ok_or_else(|| format!(r#"a port of "{shown}" is out of range: 1 to 65535"#))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!(
            r#""{shown}" runs backwards; write "{last}-{first}""#
        ));
    }
    Ok(first..=last)
}

/// A range of ports as [`ports`] reads it.
pub fn show_ports(ports: &RangeInclusive<u16>) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// A duration as [`duration`] reads it, in its largest whole unit.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if milliseconds >= unit && milliseconds.is_multiple_of(unit) {
            return format!("{}{name}", milliseconds / unit);
        }
    }
    match milliseconds {
        0 => "0s".to_owned(),
        _ => format!("{milliseconds}ms"),
    }
}

/// A size as [`size`] reads it, in its largest whole unit.
pub fn show_size(bytes: u64) -> String {
    for (shift, name) in [(30, "G"), (20, "M"), (10, "K")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{name}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A bandwidth limit in words.
pub fn show_bandwidth(rate: u64) -> String {
    match rate {
        0 => "no limit".to_owned(),
        rate => format!("{} a second each way", show_size(rate)),
    }
}

/// Splits a value into its digits and its unit.
fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("3m", 180_000),
            ("12h", 43_200_000),
            ("0s", 0),
        ] {
            let want = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(want));
            assert_eq!(show_duration(want), text);
        }
        assert_eq!(show_duration(Duration::from_secs(3601)), "3601s");
    }

    #[test]
    fn a_bare_duration_is_refused_with_the_two_ways_to_write_it() {
        assert_eq!(
            duration("5").unwrap_err(),
            r#"the duration 5 has no unit; write "5s" or "5000ms""#
        );
    }

    #[test]
    fn what_is_no_duration_is_refused_with_examples() {
        for text in ["", "s", "5x", "-5s", "5 s", "1.5s", "1h30m", "+5s", "5S"] {
            let want = format!(
                r#""{text}" is not a duration; write it like "250ms", "5s", "3m" or "12h", whole and with one unit"#
            );
            assert_eq!(duration(text).unwrap_err(), want);
        }
        assert!(duration("99999999999999999999s").is_err());
        assert!(duration("18446744073709551615h").is_err());
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("16K", 16_384),
            ("8M", 8 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("16k"), Ok(16_384));
        for text in ["", "K", "1.5G", "8MB", "-1", "1 K", "18446744073709551615K"] {
            let want = format!(
                r#""{text}" is not a size; write it like "16K", "8M", "1G", or as plain bytes, whole and with one unit"#
            );
            assert_eq!(size(text).unwrap_err(), want);
        }
    }

    #[test]
    fn port_ranges_are_read_and_shown() {
        for (text, range) in [
            ("20000-29999", 20_000..=29_999),
            ("1-65535", 1..=65_535),
            ("7000", 7_000..=7_000),
        ] {
            assert_eq!(ports(text), Ok(range.clone()));
            assert_eq!(show_ports(&range), text);
        }
        assert_eq!(ports("7000-7000"), Ok(7_000..=7_000));
    }

    #[test]
    fn each_slip_in_a_port_range_has_its_own_answer() {
        for text in [
            "", "-", "1-", "-1", "1-2-3", "a-b", "+1-2", "1 - 2", "1..2", "1,2",
        ] {
            let want = format!(
                r#""{text}" is not a range of ports; write it like "20000-29999", or one port like "20000""#
            );
            assert_eq!(ports(text).unwrap_err(), want);
        }
        for text in ["0", "0-9", "60000-65536", "99999999999999999999"] {
            let want = format!(r#"a port of "{text}" is out of range: 1 to 65535"#);
            assert_eq!(ports(text).unwrap_err(), want);
        }
        assert_eq!(
            ports("29999-20000").unwrap_err(),
            r#""29999-20000" runs backwards; write "20000-29999""#
        );
    }

    #[test]
    fn addresses_are_read() {
        for (text, want) in [
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("[::]:7000", "[::]:7000"),
            (":7000", "[::]:7000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert_eq!(address(text), Ok(want.parse().unwrap()));
        }
    }

    #[test]
    fn each_slip_in_an_address_has_its_own_answer() {
        for (text, want) in [
            (
                "7000",
                r#""7000" is a port alone; write ":7000" for every interface or "127.0.0.1:7000" for this host"#,
            ),
            (
                "10.0.0.1",
                r#""10.0.0.1" has no port; write for example "10.0.0.1:7000""#,
            ),
            (
                "127.0.0.1:65536",
                r#"the port of "127.0.0.1:65536" is out of range: 0 to 65535"#,
            ),
            (
                "::1:7000",
                r#"the IPv6 address of "::1:7000" needs brackets; write "[::1]:7000""#,
            ),
            (
                "localhost:7000",
                r#""localhost:7000" is not an address; write an IP address and a port, like "127.0.0.1:7000", "[::1]:7000" or ":7000""#,
            ),
            (
                "127.0.0.1:",
                r#""127.0.0.1:" is not an address; write an IP address and a port, like "127.0.0.1:7000", "[::1]:7000" or ":7000""#,
            ),
            (
                "",
                r#""" is not an address; write an IP address and a port, like "127.0.0.1:7000", "[::1]:7000" or ":7000""#,
            ),
        ] {
            assert_eq!(address(text).unwrap_err(), want);
        }
    }
}
