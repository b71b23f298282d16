//! The agent store's bounds.

/// What the store takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one value.
    pub max_value: usize,
    /// Records in all.
    pub max_records: usize,
    /// Bytes of all ids, sections and values.
    pub max_bytes: usize,
}
