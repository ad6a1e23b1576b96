//! How collections lie in memory: the flat ones for small collections, and what they grow into.
//!
//! Each file is one structure that knows nothing of keys, commands or the configuration; the types
//! (`types/`) choose between them by size, as Redis's thresholds say.

pub mod counted_tree;
mod headed;
pub mod hll;
pub mod intset;
pub mod listpack;
pub mod pack_or;
pub mod pair;
pub mod quicklist;
pub mod scored;

pub use counted_tree::CountedTree;
pub use intset::IntSet;
pub use listpack::ListPack;
pub use quicklist::QuickList;
