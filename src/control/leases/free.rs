//! The free places of a range, in the order in which they became free.
//!
//! A queue with links instead of cells: the longest free one is taken first, so that a port comes
//! to another owner as late as can be, and any other one is taken out just as fast.

/// Places that are free: numbers below a size that is fixed at the start.
pub(super) struct FreeList {
    links: Box<[Link]>,
    len: usize,
}

/// The neighbours of a place in the queue. The last link of all is no place: it is where the
/// queue, a ring, begins and ends. One that is not in the queue is linked to itself.
#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

impl FreeList {
    /// All places of a size are free, the lowest first.
    pub(super) fn full(size: usize) -> Self {
        let ring = size as u32 + 1;
        let links = (0..ring).map(|at| Link {
            before: (at + ring - 1) % ring,
            after: (at + 1) % ring,
        });
        Self {
            links: links.collect(),
            len: size,
        }
    }

    /// How many are free.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The one that has been free the longest.
    pub(super) fn first(&self) -> Option<usize> {
        let first = self.links[self.end()].after as usize;
        (first != self.end()).then_some(first)
    }

    /// Takes one out; false when it was not free.
    pub(super) fn remove(&mut self, at: usize) -> bool {
        if !self.has(at) {
            return false;
        }
        let Link { before, after } = self.links[at];
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        self.links[at] = Link {
            before: at as u32,
            after: at as u32,
        };
        self.len -= 1;
        true
    }

    /// Puts one behind all others; it must not be free already.
    pub(super) fn push(&mut self, at: usize) {
        assert!(!self.has(at), "a place becomes free once");
        let end = self.end();
        let before = self.links[end].before;
        self.links[at] = Link {
            before,
            after: end as u32,
        };
        self.links[before as usize].after = at as u32;
        self.links[end].before = at as u32;
        self.len += 1;
    }

    /// True when it is free.
    pub(super) fn has(&self, at: usize) -> bool {
        self.links[at].after as usize != at
    }

    fn end(&self) -> usize {
        self.links.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(mut list: FreeList) -> Vec<usize> {
        let mut order = Vec::new();
        while let Some(first) = list.first() {
            assert!(list.remove(first));
            order.push(first);
        }
        assert_eq!(list.len(), 0);
        order
    }

    #[test]
    fn what_was_free_the_longest_comes_first() {
        let mut list = FreeList::full(5);
        for at in [0, 3, 4] {
            assert!(list.remove(at));
            assert!(!list.remove(at), "it is not free any more");
        }
        list.push(3);
        list.push(0);
        assert_eq!((list.len(), list.has(3), list.has(4)), (4, true, false));
        assert_eq!(drained(list), [1, 2, 3, 0]);
    }

    #[test]
    fn a_range_of_one_place_is_full_and_empty_in_turn() {
        let mut list = FreeList::full(1);
        for _ in 0..3 {
            assert_eq!(list.first(), Some(0));
            assert!(list.remove(0));
            assert_eq!((list.first(), list.len()), (None, 0));
            list.push(0);
        }
        assert_eq!(drained(list), [0]);
    }
}
