//! The server.
pub mod config;
fn main(){}
