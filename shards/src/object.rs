//! `Object`: a value too large or too structured to lie inside its entry.
//!
//! An entry (`entry.rs`) holds short strings and integers itself and everything else as a
//! `Box<Object>`. A new type of collection adds its variant here, with what it answers to
//! `heap_bytes` and `encoding`. Redis's counterpart is what `robj.ptr` points to.

use crate::entry::Encoding;
use crate::types::{Hash, List, Set, Stream, ZSet};

/// A boxed value of an entry.
#[derive(Clone, Debug)]
pub enum Object {
    /// A string longer than an entry holds inline. Its spare capacity is what `APPEND` grows into.
    String(Vec<u8>),
    /// A hash.
    Hash(Hash),
    /// A list.
    List(List),
    /// A set.
    Set(Set),
    /// A stream. What it keeps beside its entries is thrice the size of all others.
    Stream(Box<Stream>),
    /// A sorted set.
    ZSet(ZSet),
}

// A small collection's own bytes are few, so the box of each counts: with the stream in it, 128 instead of 32.
const _: () = assert!(size_of::<Object>() <= 32);

impl Object {
    /// Bytes of the heap it takes, its own box included, for `MEMORY USAGE`.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::String(bytes) => bytes.capacity(),
                Self::Hash(hash) => hash.heap_bytes(),
                Self::List(list) => list.heap_bytes(),
                Self::Set(set) => set.heap_bytes(),
                Self::Stream(stream) => stream.heap_bytes(),
                Self::ZSet(set) => set.heap_bytes(),
            }
    }

    /// When the first of its parts goes by itself, Unix ms.
    #[inline]
    pub fn next_expire(&self) -> Option<i64> {
        match self {
            Self::Hash(hash) => hash.next_expire(),
            _ => None,
        }
    }

    /// About how many allocations freeing it takes.
    pub fn free_effort(&self) -> usize {
        match self.encoding() {
            Encoding::Stream => match self {
                Self::Stream(stream) => stream.allocations(),
                _ => 1,
            },
            Encoding::HashTable => match self {
                Self::Hash(hash) => hash.len(),
                Self::Set(set) => set.len(),
                _ => 1,
            },
            Encoding::QuickList => match self {
                Self::List(list) => list.nodes(),
                _ => 1,
            },
            Encoding::SkipList => match self {
                Self::ZSet(set) => set.len(),
                _ => 1,
            },
            _ => 1,
        }
    }

    /// How it lies in memory.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::String(_) => Encoding::Raw,
            Self::Hash(hash) => hash.encoding(),
            Self::List(list) => list.encoding(),
            Self::Set(set) => set.encoding(),
            Self::Stream(stream) => stream.encoding(),
            Self::ZSet(set) => set.encoding(),
        }
    }
}
