//! The server.
fn main(){}
