//! The names of things: visitors, tickets, clients, services.

use std::fmt;

/// The name of one visitor, or of a control connection: both ends find what belongs together by it.
///
/// It is random but for its low byte, the first on the wire: there the server has the number of the
/// worker that holds the visitor. To the client it means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; UUID]);

impl Uuid {
    /// No visitor yet: what a connection of the pool comes with.
    pub const NONE: Self = Self([0; UUID]);

    /// A name out of random bytes, of something on this core.
    pub const fn new(random: [u8; UUID], core: u8) -> Self {
        let mut bytes = random;
        bytes[0] = core;
        Self(bytes)
    }

    /// As it came from the wire.
    pub const fn from_bytes(bytes: [u8; UUID]) -> Self {
        Self(bytes)
    }

    /// As it goes onto the wire.
    pub const fn as_bytes(&self) -> &[u8; UUID] {
        &self.0
    }

    /// The worker that made it, if the server did. A peer may have written anything.
    pub const fn core(&self) -> u8 {
        self.0[0]
    }

    /// Whether it names nobody.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// Admits one data connection, once.
///
/// It is compared as any other value is: a table finds it by a keyed hash of all its bytes, so that
/// time tells nothing about how near a guess was, and it is dead soon.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket([u8; TICKET]);

impl Ticket {
    /// A ticket of these random bytes.
    pub const fn new(random: [u8; TICKET]) -> Self {
        Self(random)
    }

    /// As it goes onto the wire.
    pub const fn as_bytes(&self) -> &[u8; TICKET] {
        &self.0
    }
}

/// Without the secret.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(secret)")
    }
}

/// Who a client is, over reconnects and restarts: a port is remembered for it and a service's name.
///
/// It is no secret, as it travels in the clear; but the one who knows it and the token takes the
/// client's ports over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId([u8; CLIENT_ID]);

impl ClientId {
    /// The client of these bytes.
    pub const fn new(bytes: [u8; CLIENT_ID]) -> Self {
        Self(bytes)
    }

    /// As it goes onto the wire.
    pub const fn as_bytes(&self) -> &[u8; CLIENT_ID] {
        &self.0
    }

    /// Reads 32 hex digits.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let (pairs, []) = text.as_chunks::<2>() else {
            return None;
        };
        if pairs.len() != CLIENT_ID {
            return None;
        }
        let mut id = [0; CLIENT_ID];
        let digit = |byte: u8| char::from(byte).to_digit(16);
        for (byte, &[high, low]) in id.iter_mut().zip(pairs) {
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        Some(Self(id))
    }

    /// The 32 hex digits, as [`ClientId::from_hex`] reads them.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The first four bytes in hex: enough to follow one client in a log, too few to be it.
impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// A service's name: one plain word, since it goes into log lines and into scripts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// The name of these bytes: 1 to [`LONGEST_NAME`] letters, digits, `.`, `_` or `-`; none else.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let is_name = (1..=LONGEST_NAME).contains(&bytes.len()) && bytes.iter().all(is_plain);
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_name)?;
        Some(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Bytes of a [`Uuid`].
pub const UUID: usize = 16;

/// Bytes of a [`Ticket`].
pub const TICKET: usize = 32;

/// Bytes of a [`ClientId`].
pub const CLIENT_ID: usize = 16;

/// The longest [`Name`], in bytes.
pub const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_core_in_the_low_byte_and_shows_as_hex() {
        let uuid = Uuid::new([0xab; UUID], 3);
        assert_eq!(uuid.core(), 3);
        assert_eq!(uuid.to_string(), "03ababababababababababababababab");
        assert_eq!(Uuid::from_bytes(*uuid.as_bytes()), uuid);
        assert!(Uuid::NONE.is_none() && !uuid.is_none());
    }

    #[test]
    fn a_ticket_does_not_show_itself() {
        assert_eq!(format!("{:?}", Ticket::new([7; TICKET])), "Ticket(secret)");
    }

    #[test]
    fn a_client_is_read_from_hex_and_shows_a_part_of_it() {
        let id = ClientId::new(*b"0123456789abcdef");
        let text = "30313233343536373839616263646566";
        assert_eq!(id.to_hex(), text);
        assert_eq!(ClientId::from_hex(text.as_bytes()), Some(id));
        assert_eq!(id.to_string(), "30313233");
        for wrong in ["", &text[1..], &text[2..], &text.replace('3', "g")] {
            assert_eq!(ClientId::from_hex(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(ClientId::from_hex(&[text.as_bytes(), b"00"].concat()), None);
    }

    #[test]
    fn a_name_is_one_plain_word() {
        let long = "x".repeat(LONGEST_NAME);
        for name in ["a", "db", "web-1.b_2", &long] {
            assert_eq!(Name::new(name.as_bytes()).unwrap().as_str(), name);
        }
        for wrong in ["", "a b", "ä", "a/b", "a\n", "a=b", &(long + "x")] {
            assert_eq!(Name::new(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Name::new(&[0xff]), None);
    }
}
