//! The dials that wait for the gateway's answer.
//!
//! ```text
//!   document:  Asking ── Open ──> Opened ── Dial sent ──> Waiting ── Accept, Refuse ──> answer
//!   fastway:                                              Waiting ── Accept, Refuse ──> answer
//! ```
//!
//! Answers name no dial, so they are matched: an Open with the first that asks, since the gateway
//! answers in order; what follows by the connection's id, or in the fastway dialect by the remote's,
//! the first come first. Who gives up leaves a place behind, so that the late answer is not taken for
//! another's.

use std::sync::Arc;

use super::super::wire::Dialect;
use super::channel::Channel;

/// The table of them, at most [`MOST`].
#[derive(Default)]
pub(super) struct Dials {
    waiting: Vec<Dial>,
    next_ticket: u64,
}

struct Dial {
    ticket: u64,
    remote: u32,
    /// Known from Open on; 0 before, and in the fastway dialect.
    conn: u32,
    stage: Stage,
    is_given_up: bool,
}

enum Stage {
    Asking,
    Opened,
    Waiting,
    Answered(Answer),
}

/// How a dial ended.
pub(super) enum Answer {
    Accepted(u32, Arc<Channel>),
    Refused,
}

/// What the dialler has to know next.
pub(super) enum News {
    /// The connection's id, with which it is to dial.
    Opened(u32),
    /// It is done.
    Answered(Answer),
}

/// Whose an answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A dialler who still waits.
    Dialler,
    /// One who has given up: what was opened is to be closed.
    Nobody,
    /// No dial fits it.
    Unknown,
}

impl Dials {
    /// A place for a dial, before its first command is sent; none when all are taken.
    pub(super) fn begin(&mut self, dialect: Dialect, remote: u32) -> Option<u64> {
        if self.waiting.len() >= MOST {
            return None;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push(Dial {
            ticket,
            remote,
            conn: 0,
            stage: match dialect {
                Dialect::Document => Stage::Asking,
                Dialect::Fastway => Stage::Waiting,
            },
            is_given_up: false,
        });
        Some(ticket)
    }

    /// What has come for a dial since the last look, told once.
    pub(super) fn news(&mut self, ticket: u64) -> Option<News> {
        let at = self.find(|dial| dial.ticket == ticket)?;
        let dial = self.waiting.get_mut(at)?;
        match dial.stage {
            Stage::Opened => {
                dial.stage = Stage::Waiting;
                Some(News::Opened(dial.conn))
            }
            Stage::Answered(_) => match self.waiting.remove(at).stage {
                Stage::Answered(answer) => Some(News::Answered(answer)),
                _ => None,
            },
            Stage::Asking | Stage::Waiting => None,
        }
    }

    /// Takes back a dial whose command was never sent.
    pub(super) fn forget(&mut self, ticket: u64) {
        self.waiting.retain(|dial| dial.ticket != ticket);
    }

    /// Leaves a dial alone; its answer is still to come.
    pub(super) fn give_up(&mut self, ticket: u64) {
        if let Some(dial) = self.waiting.iter_mut().find(|dial| dial.ticket == ticket) {
            dial.is_given_up = true;
        }
    }

    /// The gateway gave out an id.
    pub(super) fn opened(&mut self, conn: u32) -> Owner {
        let at = self.find(|dial| matches!(dial.stage, Stage::Asking));
        let Some((at, dial)) = at.and_then(|at| Some((at, self.waiting.get_mut(at)?))) else {
            return Owner::Unknown;
        };
        if dial.is_given_up {
            self.waiting.remove(at);
            return Owner::Nobody;
        }
        dial.conn = conn;
        dial.stage = Stage::Opened;
        Owner::Dialler
    }

    /// The gateway answered a dial. `make` gives the answer, and is called only for a dialler.
    pub(super) fn answered(
        &mut self,
        dialect: Dialect,
        conn: u32,
        remote: u32,
        make: impl FnOnce() -> Answer,
    ) -> Owner {
        let at = self.find(|dial| {
            let fits = match dialect {
                Dialect::Document => dial.conn == conn,
                Dialect::Fastway => dial.remote == remote,
            };
            fits && matches!(dial.stage, Stage::Waiting)
        });
        let Some((at, dial)) = at.and_then(|at| Some((at, self.waiting.get_mut(at)?))) else {
            return Owner::Unknown;
        };
        if dial.is_given_up {
            self.waiting.remove(at);
            return Owner::Nobody;
        }
        dial.stage = Stage::Answered(make());
        Owner::Dialler
    }

    fn find(&self, is_it: impl FnMut(&Dial) -> bool) -> Option<usize> {
        self.waiting.iter().position(is_it)
    }
}

/// Dials that may wait at once on one link, those that were given up included.
pub(super) const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(conn: u32) -> Answer {
        Answer::Accepted(conn, Arc::new(Channel::new(1)))
    }

    fn conn(news: Option<News>) -> u32 {
        match news {
            Some(News::Answered(Answer::Accepted(conn, _))) => conn,
            Some(News::Answered(Answer::Refused)) => panic!("refused"),
            Some(News::Opened(conn)) => panic!("only opened: {conn}"),
            None => panic!("no news"),
        }
    }

    #[test]
    fn ids_go_to_those_who_asked_in_order_and_answers_by_id() {
        let dialect = Dialect::Document;
        let mut dials = Dials::default();
        let first = dials.begin(dialect, 7).unwrap();
        let second = dials.begin(dialect, 7).unwrap();
        assert!(dials.news(first).is_none());
        for (conn, ticket) in [(10, first), (11, second)] {
            assert_eq!(dials.opened(conn), Owner::Dialler);
            let news = dials.news(ticket);
            assert!(matches!(news, Some(News::Opened(id)) if id == conn));
            assert!(dials.news(ticket).is_none());
        }
        assert_eq!(dials.opened(12), Owner::Unknown);
        let by_second = dials.answered(dialect, 11, 0, || Answer::Refused);
        assert_eq!(by_second, Owner::Dialler);
        let twice = dials.answered(dialect, 11, 0, || Answer::Refused);
        assert_eq!(twice, Owner::Unknown);
        dials.answered(dialect, 10, 7, || accepted(10));
        let refused = dials.news(second);
        assert!(matches!(refused, Some(News::Answered(Answer::Refused))));
        assert_eq!(conn(dials.news(first)), 10);
        assert!(dials.waiting.is_empty());
    }

    #[test]
    fn an_answer_before_the_dial_was_sent_is_nobodys() {
        let mut dials = Dials::default();
        dials.begin(Dialect::Document, 7).unwrap();
        dials.opened(10);
        let early = dials.answered(Dialect::Document, 10, 7, || accepted(10));
        assert_eq!(early, Owner::Unknown);
    }

    #[test]
    fn fastway_answers_go_by_remote_first_come_first() {
        let dialect = Dialect::Fastway;
        let mut dials = Dials::default();
        let tickets: Vec<u64> = [7, 8, 7]
            .into_iter()
            .map(|remote| dials.begin(dialect, remote).unwrap())
            .collect();
        for (id, remote) in [(1, 8), (2, 7), (3, 7)] {
            dials.answered(dialect, id, remote, || accepted(id));
        }
        let got: Vec<u32> = tickets.iter().map(|&one| conn(dials.news(one))).collect();
        assert_eq!(got, [2, 1, 3]);
    }

    #[test]
    fn a_late_answer_is_not_anothers() {
        let dialect = Dialect::Fastway;
        let mut dials = Dials::default();
        let late = dials.begin(dialect, 7).unwrap();
        dials.give_up(late);
        let next = dials.begin(dialect, 7).unwrap();
        let first = dials.answered(dialect, 1, 7, || accepted(1));
        assert_eq!(first, Owner::Nobody);
        dials.answered(dialect, 2, 7, || accepted(2));
        assert_eq!(conn(dials.news(next)), 2);

        let mut dials = Dials::default();
        let late = dials.begin(Dialect::Document, 7).unwrap();
        dials.give_up(late);
        let next = dials.begin(Dialect::Document, 7).unwrap();
        assert_eq!(dials.opened(1), Owner::Nobody);
        assert_eq!(dials.opened(2), Owner::Dialler);
        assert!(matches!(dials.news(next), Some(News::Opened(2))));
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let mut dials = Dials::default();
        let first = dials.begin(Dialect::Fastway, 0).unwrap();
        for _ in 1..MOST {
            dials.begin(Dialect::Fastway, 1).unwrap();
        }
        assert_eq!(dials.begin(Dialect::Fastway, 2), None);
        dials.forget(first);
        assert!(dials.begin(Dialect::Fastway, 2).is_some());
    }
}
