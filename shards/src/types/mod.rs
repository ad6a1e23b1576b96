//! The types of values: what a hash, a set, a list is, whichever way it lies in memory.
//!
//! A type chooses between encodings (`encodings/`, `dict/`) by size, under the directives that Redis has for it, and
//! knows nothing of keys or commands.

pub mod field_expire;
pub mod hash;
pub mod list;
pub mod member;
pub mod set;
pub mod stream;
pub mod zset;

pub use hash::Hash;
pub use list::List;
pub use set::Set;
pub use stream::Stream;
pub use zset::ZSet;
