//! Snapshots and logs as files: written in the background, loaded at the start, checked by hand.
//!
//! What stands in a file is the machine's affair (`ringshard_shards::rdb`, `ringshard_shards::snapshot`); here are the
//! files and the threads. Counterpart: the parts of `rdb.c` that touch the disk, and `redis-check-rdb.c`.

pub mod aof;
pub mod check;
pub mod direct;
pub mod disk;
pub mod load;
pub mod pages;
pub mod rdb;
pub mod stream;
pub mod sync;
