//! The tickets that control connections have handed out, for all cores: a data connection may come to
//! another core than the visitor that waits for it.
//!
//! A ticket is 32 random bytes, admits once, and is dead [`LIFE`] after it was issued. It is found by a
//! keyed hash of all its bytes: how long a look-up takes says nothing about how near a guess was, and
//! no guess is repeated under the same ticket for longer than it lives.
//!
//! Locks are held for one look-up, or by [`Tickets::sweep`] for the walk over one shard; no two are
//! held at a time. Bounds: as many tickets in all and for each client as the table was made with;
//! those that have expired count until they are swept.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::wire::{ClientId, Ticket, Uuid};
use crate::reactor::Handle;

/// What a ticket admits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Who is handed the data connection: the visitor's session, the one of all visitors of a service
    /// for UDP, or for the pool the control connection's.
    pub to: Handle,
    /// Whose control connection has issued it.
    pub client: ClientId,
    /// What the data connection is for.
    pub wanted: Wanted,
}

/// What a data connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One visitor of this service; for UDP all of them.
    Visit {
        /// The service's number on its control connection.
        service: u16,
        /// The visitor, never [`Uuid::NONE`].
        uuid: Uuid,
    },
    /// Whoever comes next.
    Pool,
}

impl Wanted {
    /// What the client writes behind the ticket.
    pub const fn uuid(&self) -> Uuid {
        match self {
            Self::Visit { uuid, .. } => *uuid,
            Self::Pool => Uuid::NONE,
        }
    }
}

/// The tickets of all cores.
pub struct Tickets {
    shards: [Mutex<HashMap<Ticket, Entry>>; SHARDS],
    /// How many each client has; none has 0.
    shares: [Mutex<HashMap<ClientId, usize>>; SHARDS],
    /// Chooses the shard; the maps have keys of their own.
    hasher: RandomState,
    count: AtomicUsize,
    most: usize,
    most_per_client: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    purpose: Purpose,
    expires: Instant,
}

impl Tickets {
    /// An empty table with these bounds.
    pub fn new(most: usize, most_per_client: usize) -> Self {
        Self {
            shards: Default::default(),
            shares: Default::default(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            most,
            most_per_client,
        }
    }

    /// Enters a ticket of fresh random bytes.
    pub fn issue(&self, ticket: Ticket, purpose: Purpose, now: Instant) -> Result<(), Full> {
        if !self.reserve() {
            return Err(Full::All);
        }
        if !self.reserve_share(&purpose.client) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Client);
        }
        let expires = now + LIFE;
        let entry = Entry { purpose, expires };
        let former = self.shard(&ticket).lock().insert(ticket, entry);
        // Two equal draws of 32 random bytes are a broken source of them; the count stays right.
        if let Some(former) = former {
            self.release(&former.purpose.client, 1);
        }
        Ok(())
    }

    /// Takes a ticket that was shown with this uuid. Whatever comes of it, the ticket is used: none
    /// where it was never issued, was used, has expired, or was issued for another uuid.
    pub fn take(&self, ticket: &Ticket, uuid: Uuid, now: Instant) -> Option<Purpose> {
        let Entry { purpose, expires } = self.remove(ticket)?;
        (now < expires && purpose.wanted.uuid() == uuid).then_some(purpose)
    }

    /// Voids a ticket that is not needed any more, such as that of a visitor that left; true where
    /// there was one.
    pub fn cancel(&self, ticket: &Ticket) -> bool {
        self.remove(ticket).is_some()
    }

    /// Drops what has expired, and says how much that was. One core calls it now and then: nothing
    /// else removes a ticket that nobody shows.
    pub fn sweep(&self, now: Instant) -> usize {
        let mut swept: HashMap<ClientId, usize> = HashMap::new();
        for shard in &self.shards {
            shard.lock().retain(|_, entry| {
                let lives = now < entry.expires;
                if !lives {
                    *swept.entry(entry.purpose.client).or_default() += 1;
                }
                lives
            });
        }
        for (client, count) in &swept {
            self.release(client, *count);
        }
        swept.values().sum()
    }

    /// How many there are, those among them that have expired and were not swept.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remove(&self, ticket: &Ticket) -> Option<Entry> {
        let entry = self.shard(ticket).lock().remove(ticket)?;
        self.release(&entry.purpose.client, 1);
        Some(entry)
    }

    fn reserve(&self) -> bool {
        let more = |count| (count < self.most).then_some(count + 1);
        let reserved = self
            .count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        reserved.is_ok()
    }

    fn reserve_share(&self, client: &ClientId) -> bool {
        let mut shares = self.shares(client).lock();
        let share = shares.get(client).copied().unwrap_or_default();
        if share >= self.most_per_client {
            return false;
        }
        shares.insert(*client, share + 1);
        true
    }

    fn release(&self, client: &ClientId, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
        let mut shares = self.shares(client).lock();
        if let Some(share) = shares.get_mut(client) {
            *share = share.saturating_sub(count);
            if *share == 0 {
                shares.remove(client);
            }
        }
    }

    fn shard(&self, ticket: &Ticket) -> &Mutex<HashMap<Ticket, Entry>> {
        &self.shards[self.hasher.hash_one(ticket) as usize % SHARDS]
    }

    fn shares(&self, client: &ClientId) -> &Mutex<HashMap<ClientId, usize>> {
        &self.shares[self.hasher.hash_one(client) as usize % SHARDS]
    }
}

/// Without the secrets.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({})", self.len())
    }
}

/// Why a ticket cannot be issued now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The client has as many as one may have.
    Client,
    /// There are as many as may be in all.
    All,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "the client has too many tickets",
            Self::All => "there are too many tickets",
        })
    }
}

/// How long a ticket lives.
pub const LIFE: Duration = Duration::from_secs(10);

/// More than there are cores on most machines, so that two rarely want the same.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::tunnel::wire::TICKET;
    use crate::reactor::SessionKey;

    fn ticket(number: u32) -> Ticket {
        let mut bytes = [0x5a; TICKET];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        Ticket::new(bytes)
    }

    fn purpose(client: u8, wanted: Wanted) -> Purpose {
        Purpose {
            to: Handle {
                core: 1,
                session: SessionKey::from_parts(7, 3).unwrap(),
            },
            client: ClientId::new([client; 16]),
            wanted,
        }
    }

    fn visit(uuid: Uuid) -> Wanted {
        let service = 2;
        Wanted::Visit { service, uuid }
    }

    #[test]
    fn a_ticket_admits_once_and_with_its_own_uuid() {
        let (tickets, now) = (Tickets::new(10, 10), Instant::now());
        let uuid = Uuid::new([1; 16], 2);
        let purpose = purpose(1, visit(uuid));
        assert_eq!(tickets.take(&ticket(1), uuid, now), None);
        tickets.issue(ticket(1), purpose, now).unwrap();
        assert_eq!(tickets.take(&ticket(2), uuid, now), None);
        assert_eq!(tickets.take(&ticket(1), uuid, now), Some(purpose));
        assert_eq!(tickets.take(&ticket(1), uuid, now), None);
        // Shown for another visitor, it is used up.
        tickets.issue(ticket(3), purpose, now).unwrap();
        assert_eq!(tickets.take(&ticket(3), Uuid::NONE, now), None);
        assert_eq!(tickets.take(&ticket(3), uuid, now), None);
        assert!(tickets.is_empty());
    }

    #[test]
    fn a_ticket_of_the_pool_names_nobody() {
        let (tickets, now) = (Tickets::new(10, 10), Instant::now());
        let purpose = purpose(1, Wanted::Pool);
        tickets.issue(ticket(1), purpose, now).unwrap();
        assert_eq!(tickets.take(&ticket(1), Uuid::NONE, now), Some(purpose));
        tickets.issue(ticket(2), purpose, now).unwrap();
        assert!(tickets.cancel(&ticket(2)) && !tickets.cancel(&ticket(2)));
        assert_eq!(tickets.take(&ticket(2), Uuid::NONE, now), None);
    }

    #[test]
    fn a_ticket_is_dead_after_its_life() {
        let (tickets, now) = (Tickets::new(10, 10), Instant::now());
        let purpose = purpose(1, Wanted::Pool);
        for number in 1..=3 {
            tickets.issue(ticket(number), purpose, now).unwrap();
        }
        let nearly = now + LIFE - Duration::from_nanos(1);
        assert_eq!(tickets.sweep(nearly), 0);
        assert_eq!(tickets.take(&ticket(1), Uuid::NONE, nearly), Some(purpose));
        assert_eq!(tickets.take(&ticket(2), Uuid::NONE, now + LIFE), None);
        assert_eq!((tickets.sweep(now + LIFE), tickets.len()), (1, 0));
        assert_eq!(tickets.take(&ticket(3), Uuid::NONE, now), None);
    }

    #[test]
    fn no_client_and_not_all_have_more_than_they_may() {
        let (tickets, now) = (Tickets::new(5, 3), Instant::now());
        let issue =
            |number, client, at| tickets.issue(ticket(number), purpose(client, Wanted::Pool), at);
        for number in 0..3 {
            assert_eq!(issue(number, 1, now), Ok(()));
        }
        assert_eq!(issue(3, 1, now), Err(Full::Client));
        assert_eq!((issue(4, 2, now), issue(5, 2, now)), (Ok(()), Ok(())));
        assert_eq!(issue(6, 2, now), Err(Full::All));
        assert_eq!(tickets.len(), 5);
        // A used one makes room, and so do the dead ones once they are swept.
        assert!(tickets.take(&ticket(0), Uuid::NONE, now).is_some());
        assert_eq!(issue(7, 1, now), Ok(()));
        let later = now + LIFE;
        assert_eq!(issue(8, 3, later), Err(Full::All));
        assert_eq!(tickets.sweep(later), 5);
        for number in 0..3 {
            assert_eq!(issue(number, 1, later), Ok(()));
        }
        assert_eq!(issue(3, 1, later), Err(Full::Client));
    }

    #[test]
    fn the_same_bytes_twice_are_one_ticket() {
        let (tickets, now) = (Tickets::new(10, 2), Instant::now());
        for client in [1, 1, 1, 2] {
            tickets
                .issue(ticket(1), purpose(client, Wanted::Pool), now)
                .unwrap();
            assert_eq!(tickets.len(), 1);
        }
        assert_eq!(tickets.sweep(now + LIFE), 1);
        assert!(tickets.shares.iter().all(|shares| shares.lock().is_empty()));
    }
}
