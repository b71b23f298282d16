//! The frame and its two dialects, written from the protocol's text for the tests alone.
//!
//! ```text
//!   68 66 | sum | version | op | mask x4 | length (u32 document, u64 stock) | payload, masked
//! ```

/// Which widths a frame uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    Document,
    Stock,
}

/// The mask of requests that do not care.
pub const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
/// The largest payload that a frame may carry.
pub const MOST: usize = 524_288;
/// `op` of agent frames.
pub const AGENT: u8 = 0;
/// `op` of traffic frames.
pub const TRAFFIC: u8 = 1;
/// `op` of an update that stores.
pub const SET: u32 = 0;
/// `op` of an update that removes.
pub const REMOVE: u32 = 1;

pub const DIALECTS: [Dialect; 2] = [Dialect::Document, Dialect::Stock];

impl Dialect {
    /// Bytes of a length, in the header and inside payloads.
    pub fn width(self) -> usize {
        match self {
            Dialect::Document => 4,
            Dialect::Stock => 8,
        }
    }

    /// Bytes of the frame header.
    pub fn header(self) -> usize {
        9 + self.width()
    }

    /// A length in this dialect's width.
    pub fn length(self, length: u64) -> Vec<u8> {
        length.to_le_bytes()[..self.width()].to_vec()
    }

    /// A `Binary`: its length and its bytes.
    pub fn binary(self, bytes: &[u8]) -> Vec<u8> {
        [self.length(bytes.len() as u64), bytes.to_vec()].concat()
    }

    /// A whole frame with any mask.
    pub fn frame_with(self, op: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let sum = payload.iter().fold(0, |sum, byte| sum ^ byte);
        let mut frame = vec![0x68, 0x66, sum, 1, op];
        frame.extend(mask);
        frame.extend(self.length(payload.len() as u64));
        frame.extend(masked(payload, mask));
        frame
    }

    /// A whole frame with the usual mask.
    pub fn frame(self, op: u8, payload: &[u8]) -> Vec<u8> {
        self.frame_with(op, MASK, payload)
    }

    /// The payload of an agent request.
    pub fn command(self, command: &[u8], inner: &[u8]) -> Vec<u8> {
        [
            self.binary(command),
            0_i32.to_le_bytes().to_vec(),
            self.binary(inner),
        ]
        .concat()
    }

    /// The payload of an update; the op travels in the stock dialect only.
    pub fn update_payload(self, id: &[u8], section: &[u8], data: &[u8], op: u32) -> Vec<u8> {
        let mut inner = [self.binary(id), self.binary(section), self.binary(data)].concat();
        match self {
            Dialect::Stock => inner.extend(op.to_le_bytes()),
            Dialect::Document => assert_eq!(op, SET, "the document has no update op"),
        }
        self.command(b"update", &inner)
    }

    /// A frame that stores a value.
    pub fn update(self, id: &[u8], section: &[u8], data: &[u8]) -> Vec<u8> {
        self.frame(AGENT, &self.update_payload(id, section, data, SET))
    }

    /// A frame that asks for a value and does not wait.
    pub fn query(self, id: &[u8], section: &[u8]) -> Vec<u8> {
        match self {
            Dialect::Document => {
                let inner = [self.binary(id), self.binary(section)].concat();
                self.frame(AGENT, &self.command(b"query", &inner))
            }
            Dialect::Stock => query_wait(id, section, 0),
        }
    }

    /// A frame that asks for the client's own address.
    pub fn sniff(self) -> Vec<u8> {
        self.frame(AGENT, &self.command(b"sniff", b""))
    }

    /// A frame that presents the token of the store.
    pub fn auth(self, token: &[u8]) -> Vec<u8> {
        self.frame(AGENT, &self.command(b"auth", &self.binary(token)))
    }

    /// The payload of a traffic request; the leading operation travels in the document's dialect.
    pub fn traffic_payload(self, service: &[u8], field: &[u8], token: &[u8]) -> Vec<u8> {
        let fields = [self.binary(service), self.binary(field), self.binary(token)];
        match self {
            Dialect::Document => [vec![0; 4], fields.concat()].concat(),
            Dialect::Stock => fields.concat(),
        }
    }

    /// A frame that asks for a relay.
    pub fn traffic(self, service: &[u8], field: &[u8], token: &[u8]) -> Vec<u8> {
        self.frame(TRAFFIC, &self.traffic_payload(service, field, token))
    }

    /// What the server sends once the backend is connected.
    pub fn greeting(self) -> &'static [u8] {
        match self {
            Dialect::Document => b"",
            Dialect::Stock => b"ok",
        }
    }
}

/// A stock frame that asks for a value and waits at most `seconds` for it.
pub fn query_wait(id: &[u8], section: &[u8], seconds: i32) -> Vec<u8> {
    let wide = Dialect::Stock;
    let inner = [
        wide.binary(id),
        wide.binary(section),
        seconds.to_le_bytes().to_vec(),
    ]
    .concat();
    wide.frame(AGENT, &wide.command(b"query", &inner))
}

/// A stock frame that removes a value.
pub fn remove(id: &[u8], section: &[u8]) -> Vec<u8> {
    let payload = Dialect::Stock.update_payload(id, section, b"", REMOVE);
    Dialect::Stock.frame(AGENT, &payload)
}

/// A traffic request of the early peers: wide lengths with the leading operation, no greeting.
pub fn early_traffic(service: &[u8], field: &[u8], token: &[u8]) -> Vec<u8> {
    let fields = Dialect::Stock.traffic_payload(service, field, token);
    Dialect::Stock.frame(TRAFFIC, &[vec![0; 4], fields].concat())
}

/// `payload` under `mask`; the same call takes the mask off again.
pub fn masked(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let cycle = mask.iter().cycle();
    payload
        .iter()
        .zip(cycle)
        .map(|(byte, key)| byte ^ key)
        .collect()
}

/// A reply of the agent service, every field read exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub command: Vec<u8>,
    pub code: i32,
    pub message: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Reply {
    /// Reads the unmasked payload of a reply frame; panics when it is not exactly that.
    pub fn read(dialect: Dialect, payload: &[u8]) -> Self {
        let mut rest = payload;
        let reply = Self {
            command: take_binary(dialect, &mut rest),
            code: i32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()),
            message: take_binary(dialect, &mut rest),
            payload: take_binary(dialect, &mut rest),
        };
        assert!(rest.is_empty(), "bytes behind the reply: {rest:02x?}");
        reply
    }

    /// The timestamp and the data of a query's reply.
    pub fn record(&self, dialect: Dialect) -> (i64, Vec<u8>) {
        assert_eq!(self.command, b"query");
        let mut rest = self.payload.as_slice();
        let timestamp = i64::from_le_bytes(take(&mut rest, 8).try_into().unwrap());
        let data = take_binary(dialect, &mut rest);
        assert!(rest.is_empty(), "bytes behind the record: {rest:02x?}");
        (timestamp, data)
    }

    /// Fails unless this is a success without a payload.
    pub fn expect_done(&self, command: &[u8]) {
        assert_eq!(self.command, command);
        assert_eq!((self.code, self.text().as_str()), (0, ""));
        assert!(self.payload.is_empty(), "{self:?}");
    }

    /// Fails unless this is a refusal that says something; returns what it says.
    pub fn expect_refused(&self, command: &[u8]) -> String {
        assert_eq!(self.command, command);
        assert_eq!(self.code, 1, "{self:?}");
        assert!(!self.message.is_empty(), "a refusal says why");
        self.text()
    }

    /// Fails unless this says that the key is not there.
    pub fn expect_missing(&self, dialect: Dialect) {
        assert_eq!(self.expect_refused(b"query"), "not existed");
        assert_eq!(self.record(dialect), (0, Vec::new()));
    }

    /// The message as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.message.clone()).unwrap()
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    assert!(
        rest.len() >= count,
        "{count} bytes wanted, {rest:02x?} left"
    );
    let (head, tail) = rest.split_at(count);
    *rest = tail;
    head
}

fn take_binary(dialect: Dialect, rest: &mut &[u8]) -> Vec<u8> {
    let mut length = [0; 8];
    length[..dialect.width()].copy_from_slice(take(rest, dialect.width()));
    let length = usize::try_from(u64::from_le_bytes(length)).unwrap();
    take(rest, length).to_vec()
}
