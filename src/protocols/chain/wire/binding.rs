//! Which request a datagram from a hop answers.
//!
//! A response is bound to the nonce of one request of its flow, and does not say of which: the hop passes
//! on what comes from behind it, which may be an answer to any request, or to none. The rule:
//!
//! * A hop binds a flow's responses to the first request that it gets, and from then on to every request
//!   whose nonce is an *anchor*, one whose first byte is below 4.
//! * A client makes an anchor of the nonces of a flow's first request, and of the first one after each
//!   second ([`Cadence`], [`make_anchor`]). The others stay as they are, so that one in 64 is an anchor,
//!   too.
//! * It remembers of each hop the nonces that may be meant, and tries them ([`Asked`]).
//!
//! So an anchor that was lost costs nothing, and a client that sends however fast has its last anchors in
//! memory long after the hop has seen them.

use super::{Key, Nonce, Response, Transport, Unsealed, open_response};

/// Whether a hop binds its responses to the request of this nonce anew.
pub const fn is_anchor(nonce: &Nonce) -> bool {
    nonce[0] < 4
}

/// Makes an anchor of a nonce.
pub const fn make_anchor(nonce: &mut Nonce) {
    nonce[0] &= 3;
}

/// Tells a flow's client when its requests are to be anchors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cadence(Option<u64>);

impl Cadence {
    /// Whether a request that leaves now is to be an anchor: the first, and the first of each second
    /// that follows an anchor's. The clock is any that counts milliseconds.
    pub const fn is_due(&mut self, now_ms: u64) -> bool {
        if let Some(last) = self.0
            && last.abs_diff(now_ms) < PAUSE_MS
        {
            return false;
        }
        self.0 = Some(now_ms);
        true
    }
}

/// What a client remembers of its requests to one hop, of one flow: at most [`ANCHORS`] and [`LATEST`]
/// nonces.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    anchors: Latest<ANCHORS>,
    others: Latest<LATEST>,
    /// What the last answer was bound to.
    answered: Option<Nonce>,
}

/// An answer, and what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the hop says.
    pub response: Response,
    /// The nonce of its response.
    pub nonce: Nonce,
    /// The nonce of the request that it is bound to.
    pub request_nonce: Nonce,
}

impl Asked {
    /// Remembers the nonce of a request that leaves.
    pub fn note(&mut self, nonce: &Nonce) {
        if is_anchor(nonce) {
            self.anchors.put(nonce);
        }
        self.others.put(nonce);
    }

    /// Opens the frame of a response over UDP. Tried are the nonce that the last answer was bound to, the
    /// anchors from the newest on, and the latest others from the newest on.
    pub fn open(&mut self, key: &Key, frame: &[u8]) -> Result<Answer, Unsealed> {
        let others = self.others.newest_first().filter(|nonce| !is_anchor(nonce));
        let remembered = self.anchors.newest_first().chain(others);
        let remembered = remembered.filter(|nonce| Some(**nonce) != self.answered);
        let mut found = Err(Unsealed::Forged);
        for request_nonce in self.answered.iter().chain(remembered) {
            match open_response(key, Transport::Udp, frame, request_nonce) {
                Err(Unsealed::Forged) => {}
                opened => {
                    found = opened.map(|(nonce, response)| Answer {
                        response,
                        nonce,
                        request_nonce: *request_nonce,
                    });
                    break;
                }
            }
        }
        if let Ok(answer) = &found {
            self.answered = Some(answer.request_nonce);
        }
        found
    }
}

/// The last `N` nonces.
#[derive(Clone, Debug)]
struct Latest<const N: usize> {
    nonces: [Nonce; N],
    count: usize,
    /// Where the next one goes.
    next: usize,
}

impl<const N: usize> Latest<N> {
    fn put(&mut self, nonce: &Nonce) {
        self.nonces[self.next] = *nonce;
        self.next = (self.next + 1) % N;
        self.count = (self.count + 1).min(N);
    }

    fn newest_first(&self) -> impl Iterator<Item = &Nonce> {
        (1..=self.count).map(|age| &self.nonces[(self.next + N - age) % N])
    }
}

impl<const N: usize> Default for Latest<N> {
    fn default() -> Self {
        Self {
            nonces: [[0; super::NONCE]; N],
            count: 0,
            next: 0,
        }
    }
}

/// How many anchors a client remembers.
pub const ANCHORS: usize = 32;

/// How many of the latest nonces a client remembers, whatever they are.
pub const LATEST: usize = 16;

/// The time between two anchors.
const PAUSE_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::super::{Code, seal_response};
    use super::*;

    const KEY: Key = Key::from_bytes([5; 32]);

    /// No anchor, and another one for each number.
    fn nonce(number: u16) -> Nonce {
        let mut nonce = [0xff; super::super::NONCE];
        nonce[1..3].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    fn anchor(number: u16) -> Nonce {
        let mut nonce = nonce(number);
        make_anchor(&mut nonce);
        assert!(is_anchor(&nonce));
        nonce
    }

    fn answer_to(request: &Nonce) -> Vec<u8> {
        let mut frame = Vec::new();
        let response = Response {
            code: Code::Ok,
            dial: 1,
        };
        seal_response(
            &mut frame,
            &KEY,
            Transport::Udp,
            &[6; 24],
            request,
            &response,
        );
        frame
    }

    fn bound(asked: &mut Asked, request: &Nonce) -> Option<Nonce> {
        let opened = asked.open(&KEY, &answer_to(request));
        opened.ok().map(|answer| answer.request_nonce)
    }

    #[test]
    fn answers_to_what_is_remembered_are_opened() {
        let mut asked = Asked::default();
        assert_eq!(bound(&mut asked, &nonce(0)), None);
        for number in 0..40 {
            asked.note(&nonce(number));
            assert_eq!(bound(&mut asked, &nonce(number)), Some(nonce(number)));
        }
        for number in 0..40 {
            let mut asked = asked.clone();
            // The last 16; the one that was answered last is among them.
            let known = (number >= 24).then_some(nonce(number));
            assert_eq!(bound(&mut asked, &nonce(number)), known, "{number}");
        }
        // Never asked, another key, another frame.
        assert_eq!(bound(&mut asked, &anchor(0)), None);
        let other = Key::from_bytes([6; 32]);
        let frame = answer_to(&nonce(39));
        assert_eq!(asked.open(&other, &frame), Err(Unsealed::Forged));
        assert_eq!(asked.open(&KEY, &frame[1..]), Err(Unsealed::Forged));
    }

    #[test]
    fn anchors_are_remembered_longer() {
        let mut asked = Asked::default();
        for number in 0..40 {
            asked.note(&anchor(number));
            for other in 0..63 {
                asked.note(&nonce(number * 63 + other));
            }
        }
        for number in 0..40 {
            let known = (number >= 8).then_some(anchor(number));
            assert_eq!(
                bound(&mut asked.clone(), &anchor(number)),
                known,
                "{number}"
            );
        }
    }

    #[test]
    fn what_was_answered_last_is_remembered_whatever_comes() {
        let mut asked = Asked::default();
        asked.note(&nonce(7));
        assert!(bound(&mut asked, &nonce(7)).is_some());
        for number in 100..1000 {
            asked.note(&anchor(number));
        }
        assert!(bound(&mut asked, &nonce(7)).is_some());
        assert!(bound(&mut asked, &anchor(999)).is_some());
        assert!(bound(&mut asked, &nonce(7)).is_none());
    }

    #[test]
    fn anchors_are_due_first_and_after_each_second() {
        let mut cadence = Cadence::default();
        let due = [0, 1, 999, 1000, 1001, 1999, 2500, 3499, 3500].map(|now| cadence.is_due(now));
        assert_eq!(
            due,
            [true, false, false, true, false, false, true, false, true]
        );
        // A clock that is set back waits for no hour.
        assert!(cadence.is_due(0));
    }
}
