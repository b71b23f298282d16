//! Addresses in frames: a family, the IP's bytes, the port.

use std::net::{IpAddr, SocketAddr};

use crate::wire::{Reader, WireError, Writer};

/// Takes an address off the front. A scope or a flow label of IPv6 does not travel.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<SocketAddr, WireError> {
    let ip = match reader.u8("address family")? {
        4 => IpAddr::from(reader.array::<4>("address")?),
        6 => IpAddr::from(reader.array::<16>("address")?),
        family => {
            return Err(WireError::BadValue {
                field: "address family",
                value: family.into(),
            });
        }
    };
    Ok(SocketAddr::new(ip, reader.u16_le("port")?))
}

/// Appends an address.
pub(super) fn write(writer: &mut Writer<'_>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            writer.u8(4);
            writer.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            writer.u8(6);
            writer.bytes(&ip.octets());
        }
    }
    writer.u16_le(address.port());
}

/// Bytes of the address that begins with this family; none for a family that there is not.
pub(super) const fn len(family: u8) -> Option<usize> {
    match family {
        4 => Some(SHORTEST),
        6 => Some(LONGEST),
        _ => None,
    }
}

/// Bytes of an IPv4 address with its family and port.
pub(super) const SHORTEST: usize = 7;

/// Bytes of an IPv6 address with its family and port.
pub(super) const LONGEST: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_come_back() {
        for (text, want) in [
            ("10.0.0.9:5120", SHORTEST),
            ("[2001:db8::1]:80", LONGEST),
            ("[::ffff:10.0.0.9]:1", LONGEST),
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let mut out = Vec::new();
            write(&mut Writer::new(&mut out), address);
            assert_eq!((out.len(), len(out[0])), (want, Some(want)));
            let mut reader = Reader::new(&out);
            assert_eq!(read(&mut reader), Ok(address));
            assert_eq!(reader.remaining(), 0);
            for end in 0..out.len() {
                assert!(read(&mut Reader::new(&out[..end])).is_err());
            }
        }
        assert!(read(&mut Reader::new(&[5; 20])).is_err());
        assert_eq!(len(5), None);
    }
}
