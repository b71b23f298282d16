//! The tests' own codec against published vectors, and their tools against each other, so that both can
//! be trusted where the product disagrees with them.

use std::net::ToSocketAddrs;

use crate::support::backend::{Backend, Refusing};
use crate::support::chain::client::Headers;
use crate::support::chain::fake::FakeHop;
use crate::support::chain::names::{self, Say};
use crate::support::chain::request::{PROBE, Request};
use crate::support::chain::seal::{base64, encrypt, hchacha20};
use crate::support::chain::secluded::secluded;
use crate::support::chain::{Key, Transport, address, code};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .map(|two| std::str::from_utf8(two).unwrap());
    pairs
        .map(|two| u8::from_str_radix(two, 16).unwrap())
        .collect()
}

#[test]
fn hchacha20_is_that_of_the_draft() {
    let key: Vec<u8> = (0..32).collect();
    let nonce = hex("000000090000004a0000000031415927");
    let subkey = hchacha20(&key.try_into().unwrap(), &nonce.try_into().unwrap());
    let expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc";
    assert_eq!(subkey.to_vec(), hex(expected));
}

#[test]
fn the_cipher_is_that_of_the_draft() {
    let key: Vec<u8> = (0x80..0xa0).collect();
    let nonce: Vec<u8> = (0x40..0x58).collect();
    let plain = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for \
                 the future, sunscreen would be it.";
    let sealed = encrypt(
        &Key(key.try_into().unwrap()),
        &nonce.try_into().unwrap(),
        &hex("50515253c0c1c2c3c4c5c6c7"),
        plain.as_bytes(),
    );
    let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
                    731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
                    2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                    21f9664c97637da9768812f615c68b13b52e\
                    c0875924c1c7987947deafd8780acf49";
    assert_eq!(sealed, hex(expected));
}

#[test]
fn base64_is_that_of_the_rfc() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}

#[test]
fn frames_have_the_lengths_of_the_specification() {
    let key = Key::number(1);
    let request = Request::new(key, Transport::Tcp, address::ip("10.0.0.1:80"));
    // Nonce, length, stamp, flags, type, address, port, tag.
    assert_eq!(request.frame().len(), 24 + 2 + 8 + 1 + 1 + 4 + 2 + 16);
    assert_eq!(request.frame()[24..26], [0, 32]);
    assert_eq!(request.response(code::OK).len(), 24 + 2 + 1 + 4 + 16);
    let again = Request::parse(key, Transport::Tcp, &request.frame()).unwrap();
    assert_eq!(again.plain(), request.plain());
}

#[test]
fn a_frame_opens_under_what_it_was_sealed_under_and_nothing_else() {
    let request = Request::new(Key::number(1), Transport::Tcp, address::ip("[::1]:80"));
    let frame = request.frame();
    assert!(request.seal().open(&frame).is_some());
    let wrong = [
        (Key::number(2), Transport::Tcp),
        (Key::number(1), Transport::Udp),
    ];
    for (key, transport) in wrong {
        assert!(Request::parse(key, transport, &frame).is_none());
    }
    assert!(request.read(&frame).is_none());
    let other = Request::new(Key::number(1), Transport::Tcp, address::ip("[::1]:80"));
    let response = request.response(code::REFUSED);
    assert!(other.read(&response).is_none());
    assert_eq!(request.read(&response).unwrap().code, code::REFUSED);
}

#[test]
fn the_raw_client_and_the_hops_of_the_tests_own_understand_each_other() {
    let backend = Backend::echo();
    let refusing = Refusing::new();
    let (first, seen) = FakeHop::honest(Key::number(1));
    let (second, _) = FakeHop::honest(Key::number(2));
    let hops = [first.hop.clone(), second.hop.clone()];
    Headers::to(&hops, backend.address)
        .dial()
        .expect_echo(b"hello");
    let probe = Headers::to(&hops, backend.address).with_last_flags(PROBE);
    probe.dial().expect_echo(b"anybody");
    Headers::to(&hops, refusing.address)
        .dial()
        .expect_error(2, code::REFUSED);
    assert_eq!(seen.requests().len(), 3);
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn a_secluded_test_has_its_own_names() {
    let name = "chain::codec::a_secluded_test_has_its_own_names";
    secluded(name, || {
        let look_up = |name: &str| -> Vec<String> {
            let found = (name, 80).to_socket_addrs().into_iter().flatten();
            found.map(|address| address.ip().to_string()).collect()
        };
        let server = names::serve(|name, _| match name {
            "known.example" => Say::Address([8, 8, 4, 4].into()),
            _ => Say::Unknown,
        });
        assert_eq!(look_up("inner.example"), ["10.1.2.3"]);
        assert_eq!(server.received(), 0);
        assert_eq!(look_up("known.example"), ["8.8.4.4"]);
        assert!(look_up("unknown.example").is_empty());
        assert!(server.received() >= 2);
        let mut local = look_up("localhost");
        local.sort();
        assert_eq!(local, ["127.0.0.1", "::1"]);
    });
}
