//! `Object`: a value too large or too structured to lie inside its entry.
//!
//! An entry (`entry.rs`) holds short strings and integers itself and everything else as a
//! `Box<Object>`. A new type of collection adds its variant here, with what it answers to
//! `heap_bytes` and `encoding`. Redis's counterpart is what `robj.ptr` points to.

use crate::entry::Encoding;
use crate::types::set::Set;

/// A boxed value of an entry.
#[derive(Clone, Debug)]
pub enum Object {
    /// A string longer than an entry holds inline. Its spare capacity is what `APPEND` grows into.
    String(Vec<u8>),
    /// A set.
    Set(Set),
}

impl Object {
    /// Bytes of the heap it takes, its own box included, for `MEMORY USAGE`.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::String(bytes) => bytes.capacity(),
                Self::Set(set) => set.heap_bytes(),
            }
    }

    /// The encoding that it has now; a string's entry knows that itself.
    pub fn encoding(&self) -> Option<Encoding> {
        match self {
            Self::String(_) => None,
            Self::Set(set) => Some(set.encoding()),
        }
    }
}
