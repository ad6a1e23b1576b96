//! The simulator: many shards and clients in one thread, with everything that real time leaves to chance drawn from a
//! seed: which message is delivered next, which shard is slow, when clients send, in what pieces, and when they vanish.
//!
//! Mailboxes are what they are in the server: one a shard, in the order in which others put something in ([`world`]). A
//! run ends when all is quiet, and then checkers look at what clients saw ([`registers`],
//! [`lists`], [`bank`], [`caches`], [`scripts`]) and at what is left in the shards: no key held, no slice away, nobody waiting. A seed that fails
//! is printed and replays exactly.
//!
//! ```text
//! cargo test -p ringshard-shards --features testing --test sim          the seeds of CI
//! RINGSHARD_SIM_SEEDS=1000000 cargo test --release …                    a long run
//! RINGSHARD_SIM_SEED=4711 …                                             one seed of each workload
//! ```
//!
//! [`faults`] leaves steps of the protocol out on purpose and expects to be caught.

mod bank;
mod caches;
mod durable;
mod faults;
mod history;
mod linear;
mod lists;
mod passing;
mod registers;
mod replica;
mod scripts;
mod world;

/// Runs `check` with many seeds; says which failed.
fn each_seed(name: &str, default: u64, check: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("RINGSHARD_SIM_SEED") {
        return check(seed);
    }
    let seeds = number("RINGSHARD_SIM_SEEDS").unwrap_or(default);
    let first = number("RINGSHARD_SIM_FIRST").unwrap_or(0);
    for seed in first..first + seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed)));
        if let Err(panic) = outcome {
            eprintln!("{name}: seed {seed} fails; RINGSHARD_SIM_SEED={seed} brings it back");
            std::panic::resume_unwind(panic);
        }
    }
    eprintln!("{name}: {seeds} seeds");
}
