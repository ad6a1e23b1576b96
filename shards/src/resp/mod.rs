//! The Redis protocol: an incremental parser of requests, and a writer of replies in RESP2 and RESP3.

pub mod parser;
pub mod reply;

pub use parser::{Limits, Parsed, Parser};
pub use reply::{OpenList, Reply};
