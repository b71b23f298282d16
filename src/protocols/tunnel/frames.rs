//! Control frames out of a ring: most lie in one block, and the others are put side by side.

use super::wire::{Control, HEAD, MAX_BODY};
use crate::buffer::Ring;
use crate::wire::WireError;

/// The bytes at the front of a ring that the next frame is read from.
pub(super) fn front<'a>(rx: &'a Ring, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], WireError> {
    let head = rx.head();
    if head.len() == rx.len() || Control::decode(head)?.is_some() {
        return Ok(head);
    }
    scratch.resize(rx.len().min(HEAD + MAX_BODY), 0);
    rx.copy_to(0, scratch);
    Ok(scratch)
}

/// What a control connection may hold unread.
pub(super) const ROOM: usize = 2 * (HEAD + MAX_BODY);
