//! Who comes from one address for all of its kind.

use std::net::SocketAddr;

use towpath::protocols::tunnel::wire::{Answer, CHALLENGE, Claim, REPLY, Token};

use super::{CLIENT, Client};

impl Client {
    /// A visitor comes by the core that has the service's port, from an address that it shares with all who come so.
    pub fn visit_shared(&mut self) -> SocketAddr {
        let core = usize::from(self.session.core());
        let former = self.connect(core, Some(self.public()));
        let peer = SocketAddr::from(([10, 8, 0, 1], 1_000 + self.last));
        self.with(former, |world, id| world.sockets[id].peer = peer);
        peer
    }

    /// Somebody at an address of its own who does not know the token comes by that core; whether it is
    /// told so at once, and its connection.
    pub fn prove_wrongly(&mut self, core: usize) -> (bool, SocketAddr) {
        let former = self.connect(core, None);
        let peer = SocketAddr::from(([10, 8, 0, 2], 1_000 + self.last));
        self.with(former, |world, id| world.sockets[id].peer = peer);
        self.say(peer, &Claim::Control.kind().preamble());
        self.settle();
        let challenge: [u8; CHALLENGE] = self.unread(peer).try_into().unwrap();
        let (token, claim) = (Token::new(b"another"), Claim::Control);
        let mut bytes = Vec::new();
        Answer::new(&token, &challenge, claim, CLIENT, [9; 32]).encode(&mut bytes);
        self.say(peer, &bytes);
        self.settle();
        (self.is_told(peer), peer)
    }

    /// Whether it was answered what its proof is worth.
    pub fn is_told(&self, peer: SocketAddr) -> bool {
        self.heard(peer).len() == CHALLENGE + REPLY
    }
}
