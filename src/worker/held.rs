//! The connections of one session: two in place, as most have, and more behind them when needed.

use crate::net::ConnKey;

/// A set of connections. Adding and removing walk it: a session with very many keeps its own index.
#[derive(Default)]
pub(super) struct Held {
    few: [Option<ConnKey>; 2],
    more: Option<Box<Held>>,
}

impl Held {
    /// Adds one that is not in it yet.
    pub(super) fn insert(&mut self, key: ConnKey) {
        let mut part = self;
        loop {
            if let Some(free) = part.few.iter_mut().find(|place| place.is_none()) {
                *free = Some(key);
                return;
            }
            part = part.more.get_or_insert_default();
        }
    }

    /// Takes one out, if it is in it.
    pub(super) fn remove(&mut self, key: ConnKey) {
        let mut part = Some(self);
        while let Some(present) = part {
            for place in &mut present.few {
                if *place == Some(key) {
                    *place = None;
                    return;
                }
            }
            part = present.more.as_deref_mut();
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnKey> {
        std::iter::successors(Some(self), |part| part.more.as_deref())
            .flat_map(|part| part.few.iter().flatten().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inserted_and_not_removed_is_held_once() {
        let key = |index| ConnKey::from_parts(index, 1).unwrap();
        let mut held = Held::default();
        for index in 0..7 {
            held.insert(key(index));
        }
        for index in [0, 3, 6, 9] {
            held.remove(key(index));
        }
        held.insert(key(10));
        let mut left: Vec<_> = held.iter().map(ConnKey::index).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 4, 5, 10]);
    }
}
