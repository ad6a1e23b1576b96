//! The types of values that are collections: which encoding they have at which size, and what can be asked of them.

pub mod member;
pub mod set;
