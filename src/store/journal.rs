//! The journal: the batches since the last fold, one after the other in a file beside the
//! database, so that an acknowledged update costs one append and one sync of a few sectors.
//!
//! It knows frames and no table; [`Disk`](super::disk::Disk) alone calls it and decides when the
//! batches move into the database, which makes all frames void at once.
//!
//! ```text
//! file    frames from the start on, each from a sector's border; the rest is what was there before
//! frame   u64 LE generation | u64 LE sequence | u32 LE length | u32 LE crc | body | zeros
//! body    i64 LE timestamp | changes
//! change  u32 LE id length, its highest bit set for a lease | u32 LE section length
//!         | u32 LE data length, or all ones = removed | id | section | data
//! ```
//!
//! A frame counts when its generation is the database's, its sequence follows the frame before
//! and its crc (CRC-32 over everything but itself and the zeros) is right. The generation is a
//! random number, so that neither an older frame nor bytes that a client sent can pass for one.
//!
//! The first frame that does not count is the end. It may be a batch whose sync never returned,
//! which nobody was promised; if a frame of this generation lies behind it, it was promised, and
//! that is damage. What cannot be told apart is a damaged last frame from one cut short by a
//! crash; an orderly stop leaves no frame at all.

use std::io;

use redb::StorageBackend;

use super::contents::Keyspace;
use super::disk::Write;
use super::memory::Record;

/// The open file and where the next frame goes.
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    /// The length of the file, which never changes: no sync has to write a new one.
    size: usize,
    generation: u64,
    sequence: u64,
    end: usize,
    /// The frame being made; at most `size` bytes.
    frame: Vec<u8>,
}

/// Why a journal could not be replayed.
pub(super) enum Broken {
    /// It could not be read.
    Io(io::Error),
    /// It was read, and it is not what was written.
    Damaged(String),
}

impl Journal {
    /// A journal of `size` bytes, a multiple of the sector, on an open file.
    pub(super) fn over(file: Box<dyn StorageBackend>, size: usize) -> Self {
        Self {
            file,
            size,
            generation: 0,
            sequence: 0,
            end: 0,
            frame: Vec::new(),
        }
    }

    /// Gives a new file its full length in real blocks, so that no append can fill the disk.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let length = self.file.len()?;
        if length >= self.size as u64 {
            return Ok(());
        }
        self.file.set_len(self.size as u64)?;
        let zeros = vec![0; self.size - length as usize];
        self.file.write(length, &zeros)?;
        self.file.sync_data()
    }

    /// Makes all frames void and starts again with none. The generation must be in the database
    /// before the first frame is appended.
    pub(super) fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.sequence = 0;
        self.end = 0;
    }

    /// True when a frame of these changes fits behind the others.
    pub(super) fn takes(&self, writes: &[Write<'_>]) -> bool {
        let room = self.size - self.end;
        let mut length = HEADER + TIMESTAMP;
        writes.iter().all(|write| {
            length += LENGTHS + write.id.len() + write.section.len();
            length += write.data.map_or(0, <[u8]>::len);
            length <= room
        })
    }

    /// Appends the changes, which must fit, as one frame and returns when it is on the disk.
    ///
    /// After an error nobody knows whether it is; no further frame of this generation may follow.
    pub(super) fn append(&mut self, writes: &[Write<'_>], timestamp: i64) -> io::Result<()> {
        self.encode(writes, timestamp);
        self.file.write(self.end as u64, &self.frame)?;
        self.file.sync_data()?;
        self.end += self.frame.len();
        self.sequence += 1;
        Ok(())
    }

    fn encode(&mut self, writes: &[Write<'_>], timestamp: i64) {
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&self.generation.to_le_bytes());
        frame.extend_from_slice(&self.sequence.to_le_bytes());
        frame.extend_from_slice(&[0; 8]);
        frame.extend_from_slice(&timestamp.to_le_bytes());
        for write in writes {
            // What fits into the journal is far below 4 GiB.
            let data = write.data.map_or(REMOVED, |data| data.len() as u32);
            let keyspace = match write.keyspace {
                Keyspace::Records => 0,
                Keyspace::Leases => LEASE,
            };
            let id = write.id.len() as u32 | keyspace;
            for length in [id, write.section.len() as u32, data] {
                frame.extend_from_slice(&length.to_le_bytes());
            }
            frame.extend_from_slice(write.id);
            frame.extend_from_slice(write.section);
            frame.extend_from_slice(write.data.unwrap_or_default());
        }
        let length = (frame.len() - HEADER) as u32;
        frame[16..20].copy_from_slice(&length.to_le_bytes());
        let crc = checksum(&frame[..20], &frame[HEADER..]);
        frame[20..HEADER].copy_from_slice(&crc.to_le_bytes());
        // Whole sectors: a later frame that is torn cannot take this one with it.
        frame.resize(frame.len().next_multiple_of(SECTOR), 0);
    }

    /// Hands over every change of every frame of a generation, in the order they were made;
    /// `None` removes the record.
    pub(super) fn replay(
        &self,
        generation: u64,
        mut each: impl FnMut(Keyspace, &[u8], &[u8], Option<Record>),
    ) -> Result<(), Broken> {
        let length = self.file.len().map_err(Broken::Io)?;
        // The file had its full length, on the disk, before the database spoke of it.
        if length != self.size as u64 {
            return Err(Broken::Damaged(format!(
                "its journal is {length} bytes long, not {}",
                self.size
            )));
        }
        let mut bytes = vec![0; self.size];
        self.file.read(0, &mut bytes).map_err(Broken::Io)?;
        let mut rest = bytes.as_slice();
        let mut sequence = 0;
        while let Some(frame) = Frame::at_start_of(rest, generation)
            && frame.sequence == sequence
        {
            let whole = frame.each_change(&mut each);
            whole.ok_or_else(|| Broken::Damaged(format!("frame {sequence} is malformed")))?;
            rest = &rest[frame.takes..];
            sequence += 1;
        }
        let later = rest
            .chunks(SECTOR)
            .enumerate()
            .find_map(|(at, _)| Frame::at_start_of(&rest[at * SECTOR..], generation));
        match later {
            None => Ok(()),
            Some(later) => Err(Broken::Damaged(format!(
                "frame {sequence} of its journal is broken, and frame {} follows",
                later.sequence
            ))),
        }
    }
}

/// A frame with a right crc.
struct Frame<'a> {
    sequence: u64,
    body: &'a [u8],
    /// The bytes with header and padding.
    takes: usize,
}

impl<'a> Frame<'a> {
    fn at_start_of(bytes: &'a [u8], generation: u64) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        if header[..8] != generation.to_le_bytes() {
            return None;
        }
        let mut fields = Fields(&header[8..]);
        let (low, high) = (fields.number()?, fields.number()?);
        let (length, crc) = (fields.number()? as usize, fields.number()?);
        let body = rest.get(..length)?;
        (crc == checksum(&header[..20], body)).then_some(Self {
            sequence: u64::from(low) | u64::from(high) << 32,
            body,
            takes: (HEADER + length).next_multiple_of(SECTOR).min(bytes.len()),
        })
    }

    /// `None` when the body is not what [`Journal::encode`] makes.
    fn each_change(
        &self,
        mut each: impl FnMut(Keyspace, &[u8], &[u8], Option<Record>),
    ) -> Option<()> {
        let (timestamp, changes) = self.body.split_first_chunk()?;
        let timestamp = i64::from_le_bytes(*timestamp);
        let mut fields = Fields(changes);
        while !fields.0.is_empty() {
            let (id, section, data) = (fields.number()?, fields.number()?, fields.number()?);
            let keyspace = match id & LEASE {
                0 => Keyspace::Records,
                _ => Keyspace::Leases,
            };
            let id = fields.bytes((id & !LEASE) as usize)?;
            let section = fields.bytes(section as usize)?;
            let record = match data {
                REMOVED => None,
                length => Some(Record {
                    timestamp,
                    data: fields.bytes(length as usize)?.into(),
                }),
            };
            each(keyspace, id, section, record);
        }
        Some(())
    }
}

/// What is still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

const HEADER: usize = 24;
const TIMESTAMP: usize = 8;
/// The three lengths before each change.
const LENGTHS: usize = 12;
const REMOVED: u32 = u32::MAX;
const LEASE: u32 = 1 << 31;
/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
