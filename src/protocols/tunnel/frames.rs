//! Frames out of a ring: most lie in one block, and the others are put side by side; and what is left
//! of them where a stream ends.

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

/// Drops what was left in a ring by one who has read all whole frames, when no byte will follow: the
/// stream's end is told only when the ring is empty, and nobody else would take half a frame out.
pub(super) fn drop_half(rx: &mut Ring, last: bool) {
    if last {
        rx.consume(rx.len());
    }
}

/// What a control connection may hold unread.
pub(super) const ROOM: usize = 2 * (HEAD + MAX_BODY);
