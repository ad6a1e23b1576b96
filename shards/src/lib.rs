//! Ringshard's machine: slices of the keyspace, types, commands, the protocol, routing and transactions.
//!
//! Nothing here opens a socket or a file, starts a thread, reads a clock or draws unseeded randomness: bytes,
//! messages, time and seeds come in, bytes, messages and effects go out ([`shard::Shard`]).

pub mod acl;
pub mod aof;
pub mod args;
pub mod client;
pub mod commands;
pub mod config;
pub mod core;
pub mod db;
pub mod dict;
pub mod digest;
pub mod encodings;
pub mod entry;
pub mod glob;
pub mod latency;
pub mod limits;
pub mod message;
pub mod number;
pub mod object;
pub mod propagate;
pub mod pubsub;
pub mod quote;
pub mod rdb;
pub mod replication;
pub mod resp;
pub mod router;
pub mod scripting;
pub mod shard;
pub mod shared;
pub mod size_class;
pub mod slowlog;
pub mod snapshot;
pub mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tracking;
pub mod transaction;
pub mod types;

/// The version of Redis whose commands and replies this follows, as `HELLO` and `INFO` report it.
pub const REDIS_VERSION: &str = "7.4.0";
