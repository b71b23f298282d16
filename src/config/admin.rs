//! The keys of the admin address, on which the server tells of itself.

use std::net::SocketAddr;

use super::{Key, Kind, Secret, Settings};

/// The admin address's part of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens; empty means that it is off.
    pub listen: Vec<SocketAddr>,
    /// What a client must show; none only on loopback.
    pub token: Option<Secret>,
}

impl Admin {
    /// Reads the keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Admin {
        let admin = Admin {
            listen: settings.addresses("admin.listen"),
            token: settings.secret("admin.token"),
        };
        let open = admin.listen.iter().find(|at| !at.ip().is_loopback());
        if let Some(address) = open
            && admin.token.is_none()
        {
            settings.mistake_of(
                "admin.listen",
                format!(
                    "the admin address {address} is not loopback, and without a token whoever reaches it could stop the server; set `admin.token`"
                ),
            );
        }
        admin
    }
}

/// The keys.
pub const KEYS: &[Key] = &[
    Key::new(
        "admin.listen",
        Kind::Addresses,
        "127.0.0.1:7900",
        "where the server tells of itself by HTTP; off where a configuration file names no address",
    )
    .flag("admin")
    .fixed(),
    Key::new(
        "admin.token",
        Kind::Secret,
        "",
        "what a client of the admin address must show; needed on any address but loopback",
    )
    .flag("admin-token-file"),
];
