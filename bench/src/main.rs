//! `ringshard-bench`: measures servers that speak the Redis protocol.
//!
//! `load` sends one workload to one server and reports throughput, latency percentiles, and what a request cost
//! the server and the client in CPU time. `compare` starts several servers and measures them in turns. Nothing here knows a server but through its socket and `/proc`.

mod ab;
mod canvas;
mod chart;
mod compare;
mod load;
mod machine;
mod options;
mod own_cost;
mod procstat;
mod result;
mod sweep;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Load generator and comparison runner for servers that speak the Redis protocol.
#[derive(Parser)]
#[command(name = "ringshard-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send one workload to a server and measure it.
    Load(options::LoadOptions),
    /// Raise the rate until the p99 target breaks.
    Sweep(sweep::SweepOptions),
    /// Start servers side by side and measure them in turns.
    Compare(compare::CompareOptions),
    /// Build two revisions of this project and compare them.
    Ab(ab::AbOptions),
    /// Measure what a request costs this load generator, beside redis-benchmark and memtier_benchmark.
    OwnCost(own_cost::OwnCostOptions),
    /// Name the built-in workloads.
    Workloads,
}

fn main() -> ExitCode {
    load::catch_interrupts();
    let done = match Cli::parse().command {
        Command::Load(options) => options.run(),
        Command::Sweep(options) => options.run(),
        Command::Compare(options) => options.run(),
        Command::Ab(options) => options.run(),
        Command::OwnCost(options) => options.run(),
        Command::Workloads => {
            for (name, about) in load::workload::builtin_names() {
                println!("{name:<14} {about}");
            }
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // Something was measured and found wrong.
        Ok(false) => ExitCode::from(2),
        Err(e) => {
            eprintln!("ringshard-bench: {e}");
            ExitCode::FAILURE
        }
    }
}
