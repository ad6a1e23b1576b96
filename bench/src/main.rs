//! The bench.
fn main(){}
