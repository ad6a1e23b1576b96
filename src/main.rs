//! Ringshard: a drop-in Redis server with one shard per core, each on its own io_uring event loop.
//!
//! This crate is everything that touches the outside: event loops, sockets, files, signals, the command line. What
//! happens to a request is decided by the machine in `ringshard-shards`, which knows none of these.
//!
//! The way through: [`server::main`] fills the configuration (`init_server_config`), makes databases, listeners and
//! loops (`init_server`), and enters the loops ([`event_loop::EventLoop::ae_main`]).

mod alloc;
mod clock;
mod config;
mod crash;
mod event_loop;
mod host;
mod log;
mod mailbox;
mod migrate;
mod net;
mod oom_score;
mod persistence;
mod proc_title;
mod server;
mod signals;
mod tls;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> std::process::ExitCode {
    server::main()
}
