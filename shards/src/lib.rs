//! x
pub mod dict;
pub mod entry;
pub mod object;
