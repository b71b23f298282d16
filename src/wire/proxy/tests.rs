//! The header's corpus: what is a header and what is none, whole, byte by byte and split anywhere.

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn between(from: &str, to: &str) -> Option<Ends> {
    Some(Ends {
        from: at(from),
        to: at(to),
    })
}

/// A header of version 2 with this command, family and body.
fn binary(command: u8, family: u8, length: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

const PAIR: [u8; 12] = [10, 0, 0, 9, 192, 0, 2, 1, 1, 2, 0, 80];

/// Whole headers, and what they say.
fn good() -> Vec<(Vec<u8>, Option<Ends>)> {
    let pair = || between("10.0.0.9:258", "192.0.2.1:80");
    let longest = format!(
        "PROXY UNKNOWN {} {} 65535 65535\r\n",
        ["ffff"; 8].join(":"),
        ["ffff"; 8].join(":")
    );
    assert_eq!(longest.len(), LONGEST_LINE);
    let mut extended = PAIR.to_vec();
    extended.extend([4, 0, 0, 5, 0, 2, 7, 7]);
    let mut full = PAIR.to_vec();
    full.extend([4, 15, 241]);
    full.resize(LONGEST_BODY, 0);
    let mut six = [0; 36];
    six[15] = 1;
    six[31] = 2;
    six[33] = 3;
    six[35] = 4;
    vec![
        (b"PROXY TCP4 10.0.0.9 192.0.2.1 258 80\r\n".to_vec(), pair()),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n".to_vec(),
            between("255.255.255.255:65535", "255.255.255.255:0"),
        ),
        (
            b"PROXY TCP6 2001:DB8:0:0::1 ::1 1 65535\r\n".to_vec(),
            between("[2001:db8::1]:1", "[::1]:65535"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (longest.into_bytes(), None),
        (binary(PROXY, TCP4, 12, &PAIR), pair()),
        (binary(PROXY, TCP4, 20, &extended), pair()),
        (binary(PROXY, TCP4, 4096, &full), pair()),
        (binary(PROXY, TCP6, 36, &six), between("[::1]:3", "[::2]:4")),
        // On its own behalf, whatever else it says.
        (binary(LOCAL, 0, 0, &[]), None),
        (binary(LOCAL, TCP4, 0, &[]), None),
        (binary(LOCAL, TCP4, 12, &PAIR), None),
        (binary(LOCAL, 0xff, 3, b"abc"), None),
        // Of addresses that a TCP connection does not have.
        (binary(PROXY, 0, 0, &[]), None),
        (binary(PROXY, 0, 5, b"whole"), None),
        (binary(PROXY, 0x12, 12, &PAIR), None),
        (binary(PROXY, 0x31, 216, &[0; 216]), None),
    ]
}

/// What begins no connection.
fn bad() -> Vec<Vec<u8>> {
    let mut late = b"PROXY TCP4 10.0.0.9 192.0.2.1 258 80".to_vec();
    late.resize(106, b' ');
    late.extend(b"\r\n");
    let mut beyond = PAIR.to_vec();
    beyond.extend([5, 0, 9, 1]);
    let mut torn = PAIR.to_vec();
    torn.extend([5, 0]);
    let mut all = vec![
        late,
        [b'P'; 107].to_vec(),
        [&b"PROXY "[..], &[b'x'; 101]].concat(),
        binary(0x22, TCP4, 12, &PAIR),
        binary(0x11, TCP4, 12, &PAIR),
        binary(PROXY, 0x13, 12, &PAIR),
        binary(PROXY, 0x41, 12, &PAIR),
        binary(PROXY, 0xff, 0, &[]),
        binary(PROXY, TCP4, 0, &[]),
        binary(PROXY, TCP4, 11, &PAIR[..11]),
        binary(PROXY, TCP6, 35, &[0; 35]),
        binary(PROXY, TCP4, 4097, &[]),
        binary(PROXY, TCP4, 65535, &PAIR),
        binary(LOCAL, 0, 65535, &[]),
        binary(PROXY, TCP4, 16, &beyond),
        binary(PROXY, TCP4, 14, &torn),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\r".to_vec(),
        b"\r\n\r\nGET".to_vec(),
        b"\0".to_vec(),
    ];
    let lines: &[&str] = &[
        "PROXY TCP4 10.0.0.9 192.0.2.1 258 80\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 258 80 \r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 258 80 1\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 258\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 0258 80\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 258 00\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 +258 80\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 -1 80\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 65536 80\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1 258 65536\r\n",
        "PROXY TCP4 10.0.0.9 192.0.2.1  258 80\r\n",
        "PROXY TCP4  10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY  TCP4 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY\tTCP4 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY TCP4 010.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY TCP4 10.0.9 192.0.2.1 258 80\r\n",
        "PROXY TCP4 10.0.0.256 192.0.2.1 258 80\r\n",
        "PROXY TCP4 ::1 ::1 258 80\r\n",
        "PROXY TCP6 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY TCP6 ::1%lo ::1 258 80\r\n",
        "PROXY TCP5 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY UDP4 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY tcp4 10.0.0.9 192.0.2.1 258 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "proxy UNKNOWN\r\n",
        "PROXY TCP4 10.0.0.9\r\r\n",
    ];
    all.extend(lines.iter().map(|line| line.as_bytes().to_vec()));
    all
}

#[test]
fn headers_are_read_whole_and_what_follows_is_left() {
    for (bytes, ends) in good() {
        let len = bytes.len();
        let want = Ok(Some(Header { len, ends }));
        let shown = bytes.escape_ascii();
        assert_eq!(decode(&bytes), want, "{shown}");
        for payload in [&b"x"[..], b"\r\n", b"PROXY TCP4 ", &[0; 5000]] {
            let more = [&bytes[..], payload].concat();
            assert_eq!(decode(&more), want, "{shown} with payload");
        }
    }
}

#[test]
fn every_beginning_of_a_header_waits_for_more() {
    for (bytes, _) in good() {
        for len in 0..bytes.len() {
            let shown = bytes[..len].escape_ascii();
            assert_eq!(decode(&bytes[..len]), Ok(None), "{shown}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_and_never_waited_for() {
    for bytes in bad() {
        let shown = bytes.escape_ascii();
        assert!(decode(&bytes).is_err(), "{shown}");
        // Once refused, more bytes change nothing; and before, nothing is taken.
        let mut refused = false;
        for len in 0..=bytes.len() {
            match decode(&bytes[..len]) {
                Ok(None) => assert!(!refused, "{shown} is waited for again"),
                Ok(Some(header)) => panic!("{shown} is taken as {header:?}"),
                Err(_) => refused = true,
            }
        }
    }
}

#[test]
fn any_bytes_give_an_answer() {
    let mut state = 7_u64;
    for (bytes, _) in good() {
        for round in 0..2000 {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(round);
            let mut mutant = bytes.clone();
            let place = (state >> 33) as usize % mutant.len();
            mutant[place] = (state >> 20) as u8;
            if let Ok(Some(header)) = decode(&mutant) {
                assert!(header.len <= mutant.len() && header.len <= LONGEST);
            }
        }
    }
}

#[test]
fn a_line_for_each_family() {
    let line = |from, to| {
        let bytes = encode(Version::V1, false, between(from, to));
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(
        line("10.0.0.9:5120", "192.0.2.1:80"),
        "PROXY TCP4 10.0.0.9 192.0.2.1 5120 80\r\n"
    );
    assert_eq!(
        line("[2001:db8::1]:1", "[::1]:65535"),
        "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"
    );
    assert_eq!(
        line("[::ffff:10.0.0.9]:1", "10.0.0.1:2"),
        "PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n"
    );
    assert_eq!(
        line("[2001:db8::1]:1", "10.0.0.1:2"),
        "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 1 2\r\n"
    );
    assert_eq!(encode(Version::V1, false, None), b"PROXY UNKNOWN\r\n");
}

#[test]
fn the_binary_header_as_the_specification_has_it() {
    let pair = between("10.0.0.9:258", "192.0.2.1:80");
    let bytes = encode(Version::V2, false, pair);
    assert_eq!(bytes, binary(PROXY, TCP4, 12, &PAIR));
    let bytes = encode(Version::V2, true, between("[::1]:1", "[::2]:2"));
    assert_eq!((&bytes[12..16], bytes.len()), (&b"\x21\x22\0\x24"[..], 52));
    assert_eq!(encode(Version::V2, false, None), binary(LOCAL, 0, 0, &[]));
}

#[test]
fn what_is_written_is_read_back() {
    for version in [Version::V1, Version::V2] {
        for ends in [
            between("10.0.0.9:1", "192.0.2.1:65535"),
            between("[2001:db8::1]:65535", "[::1]:1"),
            None,
        ] {
            let bytes = encode(version, false, ends);
            let len = bytes.len();
            assert_eq!(decode(&bytes), Ok(Some(Header { len, ends })));
        }
        assert_eq!(Version::from_name(version.name()), Some(version));
    }
}
