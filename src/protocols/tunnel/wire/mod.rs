//! The tunnel role's bytes: handshakes, control frames, and the frames of many visitors on one
//! connection.
//!
//! It is not the role's behaviour: it sees no connection, no clock and no lease, and decides nothing
//! but what the bytes say. The session, the client and tests call it. Nothing is allocated on the
//! word of a length, and frames are borrowed from the bytes that they were read from.
//!
//! All numbers are little-endian. An address is a family (1 byte: 4 or 6), the IP's 4 or 16 bytes
//! as they are written, and the port (2).
//!
//! # The start of a connection
//!
//! | from, to | bytes | field |
//! |---|---|---|
//! | client to server | 4 | `TWP1`; the last byte is the version |
//! | | 1 | kind: `C` control, `D` data, `S` the client sends frames, `R` it receives them |
//!
//! Behind `C`, `S` and `R` both sides prove that they know the token, which is never sent:
//!
//! | from, to | bytes | field |
//! |---|---|---|
//! | server to client | 32 | challenge, random |
//! | client to server | 16 | client id |
//! | | 32 | nonce, random |
//! | | 32 | HMAC-SHA256(token, "towpath tunnel 1" ‖ kind ‖ challenge ‖ nonce ‖ client id ‖ place) |
//! | | 0 or 18 | place: nothing for `C`; for `S` and `R` the control connection's session id (16) and the service's number (2) |
//! | server to client | 1 | [`Status`] |
//! | | 32 | HMAC-SHA256(token, "towpath tunnel 1 server" ‖ nonce ‖ challenge); zeros to a client that has not proved the token |
//!
//! Who has not proved the token gets no proof either: it would be something to try tokens on at leisure.
//! A server that does not know the version sends a challenge as ever and at once the status
//! `bad_version`; challenge and status stay where they are in later versions.
//!
//! Behind `D` comes a ticket (32) that the control connection handed out, and the uuid (16) that it
//! was handed out for, zeros for the pool. There is no answer and no round trip: raw bytes may follow
//! at once, both ways. What is wrong is closed. On a connection of the pool the server writes, when it
//! has a visitor for it, one head before the visitor's bytes: uuid (16), service (2), visitor's address.
//! The client writes nothing before that head.
//!
//! # Control frames
//!
//! Type (1), length of the body (4), body; a frame is 64 KiB at most, and most types are far shorter:
//! a length that its type cannot have is refused before the body has come.
//!
//! | type | frame | from | body |
//! |---|---|---|---|
//! | 1 | [`Expose`] | client | request (4), transport (1: 1 TCP, 2 UDP), mode (1: 1 direct, 2 mux), wanted port or 0 (2), options (4), former epoch or 0 (8), length of the name (1), name |
//! | 2 | [`Exposed`] | server | request (4), service (2), lease in seconds (4), epoch (8), public address |
//! | 3 | Refused | server | request (4), [`Refusal`] (1), text |
//! | 4 | [`Visit`] | server | uuid (16), service (2), ticket (32), visitor's address |
//! | 5 | PoolWanted | server | count (2), as many tickets (32 each) |
//! | 6 | Closed | both | uuid (16), [`Reason`] (1) |
//! | 7 | Withdraw | both | service (2) |
//! | 8 | Superseded | server | service (2), the epoch that is void (8), text, which contains `superseded` |
//! | 9, 10 | Ping, Pong | both | any number (8), which the Pong gives back |
//! | 11 | Drain | server | seconds until the server closes what is still open (4) |
//! | 12 | Welcome | server | session id (16); the first frame on every control connection |
//!
//! Texts are UTF-8 to the end of the body, [`MAX_TEXT`] bytes at most.
//!
//! # Frames of many visitors
//!
//! On `S` and `R` connections, which belong to one service, and on the data connection of a service
//! for UDP:
//!
//! | bytes | field |
//! |---|---|
//! | 16 | uuid |
//! | 4 | rawlen: bytes of raw, or a mark |
//! | rawlen | raw, at most [`MAX_RAW`]; of a datagram at most [`MAX_DATAGRAM`] |
//!
//! | mark | meaning |
//! |---|---|
//! | 0 | this direction is finished; for UDP an empty datagram instead |
//! | 0xffffffff | both directions have ended; for UDP that the flow is forgotten |
//! | 0xfffffffe | a visitor: service (2) and visitor's address follow. Server to client only, and first |
//!
//! The visitor is announced in front of its own bytes and not on the control connection, since between
//! two connections there is no order.
//!
//! Streams have credit: each direction of each uuid may have [`WINDOW`] bytes under way that the
//! receiver has not passed on. It grants them back **against the stream**, on the connection that the
//! bytes came on, where nothing else flows: uuid (16), bytes (4). So a grant never waits behind
//! somebody's payload, and whoever reads grants reads nothing else there. Datagrams have no credit;
//! those that find no room are dropped.

mod address;
mod code;
mod control;
mod credit;
mod handshake;
mod id;
mod mux;
mod preamble;

pub use code::{Reason, Refusal, Status};
pub use control::{
    Control, Expose, Exposed, HEAD, MAX_BODY, MAX_TEXT, MAX_TICKETS, Mode, Options, SUPERSEDED,
    TicketList, Transport, Visit,
};
pub use credit::{Overdrawn, Receiving, STEP, Sending, WINDOW};
pub use handshake::{Answer, CHALLENGE, Claim, Denied, NONCE, PROOF, Place, REPLY, Reply, Token};
pub use id::{CLIENT_ID, ClientId, LONGEST_NAME, Name, TICKET, Ticket, UUID, Uuid};
pub use mux::{
    Body, Frame, GRANT, Grant, MAX_DATAGRAM, MAX_RAW, MUX_HEAD, Mark, MuxHead, Visitor,
    append_stream,
};
pub use preamble::{ATTACH, Attach, Hello, Kind, MAGIC, PREAMBLE};
