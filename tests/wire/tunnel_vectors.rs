//! The tunnel's bytes as they were fixed: written so, read so, "not yet" at every prefix, and refused
//! where something in them is wrong.

use towpath::protocols::tunnel::wire::{
    Answer, Attach, Body, Claim, Control, Denied, Expose, Frame, Grant, HEAD, Hello, Kind,
    MAX_TEXT, MAX_TICKETS, Mark, Mode, MuxHead, Options, PREAMBLE, Refusal, Reply, SUPERSEDED,
    Status, TicketList, Token, Transport, Uuid, Visitor,
};
use towpath::wire::WireError;

use crate::tunnel_samples::{
    CHALLENGE, NONCE, PLACE, TICKET, TOKEN, WHO, answer, answers, controls, frames, visitor,
    visitor_by_ipv6,
};
use crate::vectors::unhex;

#[test]
fn answers_are_as_another_program_makes_them() {
    let token = Token::new(TOKEN);
    for (claim, want) in answers() {
        let mut bytes = Vec::new();
        let answer = answer(&token, claim);
        answer.encode(&mut bytes);
        assert_eq!(bytes, want);
        assert_eq!(Answer::len(claim.kind()), Ok(want.len()));
        assert_eq!(Answer::decode(claim.kind(), &want), Ok(Some(answer)));
        let longer = [&want[..], b"more"].concat();
        assert_eq!(Answer::decode(claim.kind(), &longer), Ok(Some(answer)));
        assert!(answer.is_proved(&token, &CHALLENGE));
        for end in 0..want.len() {
            assert_eq!(Answer::decode(claim.kind(), &want[..end]), Ok(None));
        }
    }
    assert!(Answer::decode(Kind::Data, &[0; 200]).is_err());
    let mut empty = Vec::new();
    answer(&Token::new(b""), Claim::Control).encode(&mut empty);
    let proof = unhex("22ea002271158c8518fb6425de1fa236abba475381a94741e9cdac5ad118b501");
    assert_eq!(empty[48..], proof);
}

#[test]
fn every_flipped_bit_of_an_answer_is_refused() {
    let token = Token::new(TOKEN);
    for (claim, bytes) in answers() {
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let answer = Answer::decode(claim.kind(), &wrong).unwrap().unwrap();
            assert!(!answer.is_proved(&token, &CHALLENGE), "bit {bit}");
        }
        let answer = Answer::decode(claim.kind(), &bytes).unwrap().unwrap();
        for bit in 0..CHALLENGE.len() * 8 {
            let mut other = CHALLENGE;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!answer.is_proved(&token, &other));
        }
        for other in [&b""[..], b"another token", &TOKEN[1..]] {
            assert!(!answer.is_proved(&Token::new(other), &CHALLENGE));
        }
    }
}

#[test]
fn an_answer_is_for_one_kind_of_connection() {
    let token = Token::new(TOKEN);
    let (_, sent) = &answers()[1];
    let answer = Answer::decode(Kind::Receive, sent).unwrap().unwrap();
    assert_eq!(answer.claim, Claim::Receive(PLACE));
    assert!(!answer.is_proved(&token, &CHALLENGE));
}

#[test]
fn replies_are_as_another_program_makes_them() {
    let token = Token::new(TOKEN);
    let proof = "94df0a0806c39620318d12bea495b89e0b378dddef17841a9faa9053779bcdf4";
    let proved = |status| Reply::proved(status, &token, &CHALLENGE, &NONCE);
    let wrong = Reply::unproved(Status::WrongToken);
    for (reply, status, rest, checked) in [
        (proved(Status::Ok), "00", proof, Ok(())),
        (
            proved(Status::Draining),
            "05",
            proof,
            Err(Denied::Refused(Status::Draining)),
        ),
        (
            wrong,
            "01",
            &"0".repeat(64),
            Err(Denied::Refused(Status::WrongToken)),
        ),
    ] {
        let bytes = unhex(&[status, rest].concat());
        assert_eq!(reply.encode()[..], bytes);
        assert_eq!(Reply::decode(&bytes), Some(reply));
        for end in 0..bytes.len() {
            assert_eq!(Reply::decode(&bytes[..end]), None);
        }
        assert_eq!(reply.check(&token, &CHALLENGE, &NONCE), checked);
    }
    assert!(!wrong.is_proved(&token, &CHALLENGE, &NONCE));
}

#[test]
fn a_server_that_does_not_know_the_token_is_no_server() {
    let token = Token::new(TOKEN);
    let good = Reply::proved(Status::Ok, &token, &CHALLENGE, &NONCE);
    for bit in 8..good.encode().len() * 8 {
        let mut bytes = good.encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let reply = Reply::decode(&bytes).unwrap();
        let checked = reply.check(&token, &CHALLENGE, &NONCE);
        assert_eq!(checked, Err(Denied::Impostor), "bit {bit}");
    }
    // Neither challenge and nonce the other way round, nor the client's own proof.
    assert!(good.check(&token, &NONCE, &CHALLENGE).is_err());
    let mut mirrored = vec![0];
    mirrored.extend_from_slice(&answers()[0].1[48..80]);
    let mirrored = Reply::decode(&mirrored).unwrap();
    assert!(mirrored.check(&token, &CHALLENGE, &NONCE).is_err());
    let empty = Reply::unproved(Status::Ok);
    let checked = empty.check(&token, &CHALLENGE, &NONCE);
    assert_eq!(checked, Err(Denied::Impostor));
}

#[test]
fn a_data_connection_begins_as_fixed() {
    let uuid = WHO;
    let attach = Attach {
        ticket: TICKET,
        uuid,
    };
    let bytes = unhex(
        "5457503144404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f\
         03ababababababababababababababab",
    );
    assert_eq!(attach.encode()[..], bytes);
    assert_eq!(Hello::decode(&bytes), Ok(Some(Hello::Known(Kind::Data))));
    assert_eq!(Attach::decode(&bytes[PREAMBLE..]), Some(attach));
    for end in PREAMBLE..bytes.len() {
        assert_eq!(Attach::decode(&bytes[PREAMBLE..end]), None);
    }
    for (visitor, hex) in [
        (visitor(), "0201040a0000090014"),
        (
            visitor_by_ipv6(),
            "02010620010db80000000000000000000000015000",
        ),
    ] {
        let want = unhex(&["03ababababababababababababababab", hex].concat());
        let mut bytes = Vec::new();
        visitor.encode_assigned(uuid, &mut bytes);
        assert_eq!(bytes, want);
        for end in 0..want.len() {
            assert_eq!(Visitor::decode_assigned(&want[..end]), Ok(None));
        }
        let first = [&want[..], b"first bytes"].concat();
        let read = Visitor::decode_assigned(&first);
        assert_eq!(read, Ok(Some((uuid, visitor, want.len()))));
    }
}

#[test]
fn control_frames_are_as_another_program_makes_them() {
    for (frame, want) in controls() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes, want, "{frame:?}");
        assert_eq!(Control::decode(&want), Ok(Some((frame, want.len()))));
        for end in 0..want.len() {
            assert_eq!(Control::decode(&want[..end]), Ok(None), "{frame:?} {end}");
        }
    }
}

#[test]
fn control_frames_in_one_run_are_parted_wherever_it_is_cut() {
    let controls = controls();
    let run: Vec<u8> = controls
        .iter()
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    for cut in 0..=run.len() {
        let (mut taken, mut at) = (0, 0);
        // The first half alone, then all of it.
        for end in [cut, run.len()] {
            while let Some((frame, len)) = Control::decode(&run[at..end]).unwrap() {
                assert_eq!(frame, controls[taken].0);
                (taken, at) = (taken + 1, at + len);
            }
        }
        assert_eq!((taken, at), (controls.len(), run.len()), "cut at {cut}");
    }
}

#[test]
fn a_length_that_a_type_cannot_have_is_refused_by_the_head() {
    for (frame, bytes) in controls() {
        let head = |length: u32| {
            let mut head = bytes[..HEAD].to_vec();
            head[1..].copy_from_slice(&length.to_le_bytes());
            Control::decode(&head).map(|read| read.is_some())
        };
        assert!(head(0).is_err(), "{frame:?}");
        for long in [9000, 65_531, 65_532, 1 << 31, u32::MAX] {
            let refused = head(long);
            assert!(
                matches!(refused, Err(WireError::TooLong { .. })),
                "{frame:?}"
            );
        }
        // One byte more or less: refused by the head, or by the body when it is there.
        for length in [bytes.len() - HEAD - 1, bytes.len() - HEAD + 1] {
            let mut wrong = bytes.clone();
            wrong.resize(HEAD + length, 0xff);
            wrong[1..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
            let is_open = matches!(frame, Control::Refused { .. } | Control::Superseded { .. });
            let read = Control::decode(&wrong);
            assert!(read.is_err() || is_open, "{frame:?} {length} {read:?}");
        }
    }
    for kind in [0, 13, 0x47, 255] {
        let value = kind.into();
        let field = "frame type";
        let error = WireError::BadValue { field, value };
        assert_eq!(Control::decode(&[kind]), Err(error));
    }
}

#[test]
fn wrong_fields_of_control_frames_are_named() {
    let (_, expose) = &controls()[1];
    for (at, byte, want) in [
        (9, 0, "transport has the unknown value 0"),
        (10, 3, "mode has the unknown value 3"),
        (25, 4, "name needs 4 bytes but 3 are there"),
        (25, 2, "1 bytes follow the last field"),
    ] {
        let mut wrong = expose.clone();
        wrong[at] = byte;
        assert_eq!(Control::decode(&wrong).unwrap_err().to_string(), want);
    }
    let (_, exposed) = &controls()[3];
    let mut wrong = exposed.clone();
    wrong[23] = 6;
    assert!(Control::decode(&wrong).is_err());
    let (_, refused) = &controls()[5];
    let mut wrong = refused.clone();
    wrong[12] = 0xff;
    let told = Control::decode(&wrong).unwrap_err().to_string();
    assert_eq!(told, "text, not UTF-8 at has the unknown value 2");
    let (_, pool) = &controls()[9];
    for count in [1, 3] {
        let mut wrong = pool.clone();
        wrong[5] = count;
        assert!(Control::decode(&wrong).is_err());
    }
}

#[test]
fn what_is_written_too_long_is_cut() {
    let text = "ä".repeat(MAX_TEXT);
    let mut bytes = Vec::new();
    Control::Refused {
        request: 1,
        code: Refusal::Overloaded,
        text: &text,
    }
    .encode(&mut bytes);
    let Ok(Some((Control::Refused { text, .. }, _))) = Control::decode(&bytes) else {
        panic!("not read");
    };
    assert_eq!(text, "ä".repeat(MAX_TEXT / 2));
    let tickets = [[7; 32]; MAX_TICKETS + 1];
    let mut bytes = Vec::new();
    Control::PoolWanted(TicketList::new(&tickets)).encode(&mut bytes);
    let Ok(Some((Control::PoolWanted(tickets), len))) = Control::decode(&bytes) else {
        panic!("not read");
    };
    assert_eq!((tickets.len(), len), (MAX_TICKETS, bytes.len()));
    assert_eq!(tickets.iter().count(), MAX_TICKETS);
    let mut bytes = Vec::new();
    Control::Expose(Expose {
        request: 0,
        transport: Transport::Tcp,
        mode: Mode::Direct,
        port: 0,
        options: Options(4),
        epoch: 0,
        name: &[b'x'; 300],
    })
    .encode(&mut bytes);
    let Ok(Some((Control::Expose(expose), _))) = Control::decode(&bytes) else {
        panic!("not read");
    };
    assert_eq!(expose.name.len(), 255);
    assert!(expose.options.has_unknown() && !expose.options.any_port_will_do());
}

#[test]
fn each_frame_has_those_who_may_say_it() {
    let count = |may: fn(&Control<'static>) -> bool| {
        let controls = controls();
        controls.iter().filter(|(frame, _)| may(frame)).count()
    };
    // Two Expose; Closed, Withdraw, Ping and Pong of both.
    assert_eq!(count(Control::is_from_client), 6);
    assert_eq!(count(Control::is_from_server), controls().len() - 2);
    assert!(SUPERSEDED.contains("superseded") && SUPERSEDED.len() <= MAX_TEXT);
}

#[test]
fn frames_of_visitors_are_as_another_program_makes_them() {
    for (frame, want) in frames() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(bytes, want, "{frame:?}");
        let read = Frame::decode(&want, Transport::Tcp);
        assert_eq!(read, Ok(Some((frame, want.len()))));
        for end in 0..want.len() {
            assert_eq!(Frame::decode(&want[..end], Transport::Tcp), Ok(None));
        }
        let head = MuxHead::decode(&want, Transport::Tcp).unwrap().unwrap();
        assert_eq!(head.encode()[..], want[..20]);
        // An empty datagram is one, not an end.
        if frame.body == Body::End {
            let head = MuxHead::decode(&want, Transport::Udp).unwrap().unwrap();
            assert_eq!(head.mark, Mark::Data(0));
            let (frame, _) = Frame::decode(&want, Transport::Udp).unwrap().unwrap();
            assert_eq!(frame.body, Body::Data(&[]));
        } else if matches!(frame.body, Body::Move(_) | Body::Moved | Body::Stay) {
            assert!(Frame::decode(&want, Transport::Udp).is_err());
        } else {
            assert_eq!(Frame::decode(&want, Transport::Udp), read);
        }
    }
    let grant = Grant {
        uuid: WHO,
        bytes: 65_536,
    };
    let bytes = unhex("03ababababababababababababababab00000100");
    assert_eq!(grant.encode()[..], bytes);
    assert_eq!(Grant::decode(&bytes), Ok(Some(grant)));
    for end in 0..bytes.len() {
        assert_eq!(Grant::decode(&bytes[..end]), Ok(None));
    }
}

#[test]
fn frames_of_visitors_in_one_run_are_parted_wherever_it_is_cut() {
    let frames = frames();
    let run: Vec<u8> = frames.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    for cut in 0..=run.len() {
        let (mut taken, mut at) = (0, 0);
        for end in [cut, run.len()] {
            while let Some((frame, len)) = Frame::decode(&run[at..end], Transport::Tcp).unwrap() {
                assert_eq!(frame, frames[taken].0);
                (taken, at) = (taken + 1, at + len);
            }
        }
        assert_eq!((taken, at), (frames.len(), run.len()), "cut at {cut}");
    }
}

#[test]
fn a_uuid_is_read_as_it_is_written() {
    assert_eq!(WHO.core(), 3);
    assert_eq!(WHO.to_string(), "03ababababababababababababababab");
    assert_eq!(Uuid::from_bytes(*WHO.as_bytes()), WHO);
}
