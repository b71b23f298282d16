//! Stub.
use super::lobby::Lobby;
use super::words::Share;
use crate::session::{Close, Cx, Event, Session};
use std::sync::Arc;
pub(super) struct Datagrams;
impl Datagrams {
    pub(super) fn new(_: Arc<Lobby>, _: Arc<Share>, _: super::super::wire::Mode) -> Self {
        Self
    }
}
impl Session for Datagrams {
    fn handle(&mut self, _: Event<'_>, _: &mut Cx<'_>) -> Result<(), Close> {
        Ok(())
    }
    fn describe(&self, _: &mut String) {}
}
