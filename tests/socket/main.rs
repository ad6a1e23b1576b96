//! The whole server, spoken to over its sockets, on both event loops.
//!
//! One binary, so that it is linked once. Each module is a subject; [`harness`] starts servers and stops them,
//! [`wire`] speaks to them. Every test starts its own servers on free ports and needs no particular number of cores:
//! four shards run on one core too, only slower.

mod harness;
mod wire;

mod acl;
mod aof;
mod atomic;
mod benchmark;
mod cli;
mod clients;
mod crash;
mod crowd;
mod differential;
mod life;
mod limits;
mod listen;
mod migrate;
mod order;
mod pour;
mod protocol;
mod refused;
mod replication;
mod signals;
mod snapshot;
mod tls;
