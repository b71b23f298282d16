//! The one-byte codes and their words.
//!
//! A code that is not known here comes from a newer peer: it is kept, shown as a number, and never
//! an error, so that a new reason to refuse something does not break old programs.

use std::fmt;

/// Makes an enum of codes: each variant with its byte, its word for scripts and logs, and its
/// sentence for people.
macro_rules! codes {
    (
        $(#[$about:meta])*
        $name:ident { $($variant:ident = $code:literal, $word:literal, $told:literal;)+ }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $told] $variant,)+
            /// Another code, of a newer peer.
            Other(u8),
        }

        impl $name {
            /// Every code that is known, in the order of the bytes.
            pub const KNOWN: &[Self] = &[$(Self::$variant),+];

            /// The code of this byte.
            pub const fn from_byte(byte: u8) -> Self {
                match byte {
                    $($code => Self::$variant,)+
                    other => Self::Other(other),
                }
            }

            /// The byte of this code.
            pub const fn byte(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)+
                    Self::Other(byte) => byte,
                }
            }

            /// One word for it, without a number.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(_) => "unknown",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($told),)+
                    Self::Other(byte) => write!(f, "code {byte}, which this version does not know"),
                }
            }
        }
    };
}

codes! {
    /// How the server answers a handshake.
    Status {
        Ok = 0, "ok", "welcome";
        WrongToken = 1, "wrong_token", "the token is wrong";
        BadVersion = 2, "bad_version", "the server speaks another version of the protocol";
        Superseded = 3, "superseded", "superseded by a newer client with this identity";
        Overloaded = 4, "overloaded", "the server has as many clients as it takes";
        Draining = 5, "draining", "the server is stopping";
        UnknownPlace = 6, "unknown_place", "the server has no such session or service";
    }
}

codes! {
    /// Why a service is not exposed.
    Refusal {
        NoPorts = 1, "no_ports", "no port is free";
        PortTaken = 2, "port_taken", "the wanted port is taken";
        PortNotAllowed = 3, "port_not_allowed", "the wanted port is not in the server's range";
        BadName = 4, "bad_name", "the name is not 1 to 64 letters, digits, \".\", \"_\" or \"-\"";
        TooManyServices = 5, "too_many_services", "the client has as many services as it may";
        Overloaded = 6, "overloaded", "the server is overloaded";
        Superseded = 7, "superseded", "superseded by a newer client with this identity";
        Draining = 8, "draining", "the server is stopping";
        Unsupported = 9, "unsupported", "the server does not know an option that was asked for";
        NotStored = 10, "not_stored", "the server cannot remember the port";
        AlreadyExposed = 11, "already_exposed", "this connection has exposed the name already";
        Released = 12, "released", "an operator has released the port";
    }
}

codes! {
    /// Why a visitor's connection has ended, or never began.
    Reason {
        Finished = 1, "finished", "both directions have ended";
        VisitorLeft = 2, "visitor_left", "the visitor left before it was served";
        Unreachable = 3, "unreachable", "the inside service cannot be reached";
        Timeout = 4, "timeout", "no data connection came in time";
        Overloaded = 5, "overloaded", "too many visitors";
        Withdrawn = 6, "withdrawn", "the service was withdrawn";
        Reset = 7, "reset", "the connection was reset";
        Idle = 8, "idle", "nothing came for too long";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte is a code, and every known one has a word and a sentence of its own.
    macro_rules! check {
        ($name:ident) => {
            let mut words = std::collections::HashSet::new();
            for code in $name::KNOWN {
                assert_eq!($name::from_byte(code.byte()), *code);
                assert!(words.insert(code.word()), "{code:?}");
                assert!(
                    code.word()
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b == b'_')
                );
                assert!(!code.to_string().is_empty());
            }
            let others = (0..=255).filter(|&byte| {
                let code = $name::from_byte(byte);
                assert_eq!(code.byte(), byte);
                matches!(code, $name::Other(_))
            });
            assert_eq!(others.count(), 256 - $name::KNOWN.len());
            assert_eq!($name::Other(200).word(), "unknown");
            assert!($name::Other(200).to_string().contains("200"));
        };
    }

    #[test]
    fn every_byte_is_a_code_with_a_word() {
        check!(Status);
        check!(Refusal);
        check!(Reason);
    }

    #[test]
    fn who_is_superseded_reads_that_word() {
        for told in [
            Status::Superseded.to_string(),
            Refusal::Superseded.to_string(),
        ] {
            assert!(told.contains("superseded"), "{told}");
        }
    }
}
