//! Stub.
use super::super::wire::{Ticket, Uuid};
use super::{Route, Rules};
use crate::reactor::Handle;
use crate::session::{Close, Cx, Event, Session};
use std::rc::Rc;
pub(super) struct Trunk;
impl Trunk {
    pub(super) fn new(_: &Rc<Rules>, _: Handle, _: Route, _: (Uuid, u16)) -> Self {
        Self
    }
}
impl Session for Trunk {
    fn handle(&mut self, _: Event<'_>, _: &mut Cx<'_>) -> Result<(), Close> {
        Ok(())
    }
    fn describe(&self, _: &mut String) {}
}
