//! The tunnel's frames with their bytes, made by another program from the tables of the wire room's
//! page: what is written here was shipped, and stays as it is.

use towpath::protocols::tunnel::wire::{
    Answer, Body, Claim, ClientId, Control, Expose, Exposed, Frame, Mode, Options, Place, Reason,
    Refusal, Ticket, TicketList, Token, Transport, Uuid, Visit, Visitor,
};

use crate::vectors::unhex;

pub const TOKEN: &[u8] = b"a token of 16 bytes or more";

pub const WHO: Uuid = Uuid::new([0xab; 16], 3);

pub const PLACE: Place = Place {
    session: WHO,
    service: 258,
};

/// Bytes that count up from `first`.
pub const fn run(first: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut at = 0;
    while at < 32 {
        bytes[at] = first + at as u8;
        at += 1;
    }
    bytes
}

pub const CHALLENGE: [u8; 32] = run(0);

pub const NONCE: [u8; 32] = run(0x80);

const TICKETS: [[u8; 32]; 2] = {
    let (first, mut second) = (run(0x40), [0; 32]);
    let mut at = 0;
    while at < 32 {
        second[at] = first[31 - at];
        at += 1;
    }
    [first, second]
};

pub const TICKET: Ticket = Ticket::new(TICKETS[0]);

pub fn answer(token: &Token, claim: Claim) -> Answer {
    let client = ClientId::new(*b"0123456789abcdef");
    Answer::new(token, &CHALLENGE, claim, client, NONCE)
}

/// Each claim with its answer's bytes.
pub fn answers() -> Vec<(Claim, Vec<u8>)> {
    let open = "30313233343536373839616263646566\
                808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f";
    let place = "03ababababababababababababababab0201";
    [
        (
            Claim::Control,
            "8fbb8ef2a3ede6775736fb719b19f9a539ef0f3a54db6484a225c72a722117fd",
            "",
        ),
        (
            Claim::Send(PLACE),
            "c025d258c135bc41d5274a17246f2a70e8635ccc090d6773bacd92b9fcca0fc9",
            place,
        ),
        (
            Claim::Receive(PLACE),
            "e22a113eb77ddf14dfb2d024199b8792fafc67c86afebf153f8c5c932a8adf1e",
            place,
        ),
    ]
    .map(|(claim, proof, place)| (claim, unhex(&[open, proof, place].concat())))
    .to_vec()
}

pub fn visitor() -> Visitor {
    Visitor {
        service: 258,
        address: "10.0.0.9:5120".parse().unwrap(),
    }
}

pub fn visitor_by_ipv6() -> Visitor {
    Visitor {
        service: 258,
        address: "[2001:db8::1]:80".parse().unwrap(),
    }
}

fn exposed(visitor: Visitor) -> Control<'static> {
    Control::Exposed(Exposed {
        request: 7,
        service: 258,
        lease_seconds: 10_800,
        epoch: 9,
        public: visitor.address,
    })
}

fn visit(visitor: Visitor) -> Control<'static> {
    Control::Visit(Visit {
        uuid: WHO,
        service: visitor.service,
        ticket: TICKET,
        visitor: visitor.address,
    })
}

fn refused(code: Refusal, text: &'static str) -> Control<'static> {
    Control::Refused {
        request: 7,
        code,
        text,
    }
}

fn expose(name: &'static [u8]) -> Expose<'static> {
    Expose {
        request: 7,
        transport: Transport::Tcp,
        mode: Mode::Mux,
        port: 30_080,
        options: Options(Options::ANY_PORT_WILL_DO),
        epoch: 0x0102_0304_0506_0708,
        name,
    }
}

const BARE: Expose<'static> = Expose {
    request: 8,
    transport: Transport::Udp,
    mode: Mode::Direct,
    port: 0,
    options: Options(0),
    epoch: 0,
    name: b"",
};

/// Every control frame with its bytes.
pub fn controls() -> Vec<(Control<'static>, Vec<u8>)> {
    let tickets = TicketList::new(&TICKETS);
    let (uuid, reason, service, text) = (WHO, Reason::Unreachable, 258, "superseded");
    let superseded = Control::Superseded {
        service,
        epoch: 9,
        text,
    };
    let number = 0x0102_0304_0506_0708;
    let frames: [(Control<'static>, &str); 18] = [
        (
            Control::Welcome { session: WHO },
            "0c1000000003ababababababababababababababab",
        ),
        (
            Control::Expose(expose(b"web")),
            "0118000000070000000102807501000000080706050403020103776562",
        ),
        (
            Control::Expose(BARE),
            "0115000000080000000201000000000000000000000000000000",
        ),
        (
            exposed(visitor()),
            "0219000000070000000201302a00000900000000000000040a0000090014",
        ),
        (
            exposed(visitor_by_ipv6()),
            "0225000000070000000201302a00000900000000000000\
             0620010db80000000000000000000000015000",
        ),
        (
            refused(Refusal::NoPorts, "no port is free"),
            "031400000007000000016e6f20706f72742069732066726565",
        ),
        (refused(Refusal::Other(200), ""), "030500000007000000c8"),
        (
            visit(visitor()),
            "043900000003ababababababababababababababab0201404142434445464748494a4b4c4d4e4f\
             505152535455565758595a5b5c5d5e5f040a0000090014",
        ),
        (
            visit(visitor_by_ipv6()),
            "044500000003ababababababababababababababab0201404142434445464748494a4b4c4d4e4f\
             505152535455565758595a5b5c5d5e5f0620010db80000000000000000000000015000",
        ),
        (
            Control::PoolWanted(tickets),
            "05420000000200404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f\
             5f5e5d5c5b5a595857565554535251504f4e4d4c4b4a49484746454443424140",
        ),
        (Control::PoolWanted(TicketList::new(&[])), "05020000000000"),
        (
            Control::Closed { uuid, reason },
            "061100000003ababababababababababababababab03",
        ),
        (Control::Withdraw { service }, "07020000000201"),
        (
            superseded,
            "08140000000201090000000000000073757065727365646564",
        ),
        (Control::Ping(number), "09080000000807060504030201"),
        (Control::Pong(number), "0a080000000807060504030201"),
        (Control::Drain { seconds: 30 }, "0b040000001e000000"),
        (Control::Drain { seconds: 0 }, "0b0400000000000000"),
    ];
    frames.map(|(frame, bytes)| (frame, unhex(bytes))).to_vec()
}

/// Every frame of a stream's connection with its bytes.
pub fn frames() -> Vec<(Frame<'static>, Vec<u8>)> {
    let uuid = WHO;
    let frames: [(Body<'static>, &str); 8] = [
        (Body::Data(b"Hello"), "0500000048656c6c6f"),
        (Body::End, "00000000"),
        (Body::Reset, "ffffffff"),
        (Body::Open(visitor()), "feffffff0201040a0000090014"),
        (
            Body::Open(visitor_by_ipv6()),
            "feffffff02010620010db80000000000000000000000015000",
        ),
        (
            Body::Move(Ticket::new([0xcd; 32])),
            "fdffffffcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
        ),
        (Body::Moved, "fcffffff"),
        (Body::Stay, "fbffffff"),
    ];
    let whole = |rest: &str| unhex(&["03ababababababababababababababab", rest].concat());
    frames
        .map(|(body, rest)| (Frame { uuid, body }, whole(rest)))
        .to_vec()
}
