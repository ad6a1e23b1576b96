//! The server as a whole.
use super::Command;
/// This family's rows.
pub static TABLE: &[Command] = &[];
