//! `compare`: several servers, one machine, measurements that alternate.
//!
//! The one idea: machines are noisy, and noise that lasts longer than a measurement hits neighbours alike. So every
//! step is measured on all engines within seconds (A B C, then the next step), the order rotates from round to
//! round, and what is compared is the ratio within a round, not the mean of one day with that of another.
//!
//! A round starts all engines on the same CPUs and halts those that are not being measured (`engine.rs`).
//! `suite.rs` lists what is measured, `summary.rs` reduces it, `report.rs` shows it.

pub mod engine;
pub mod plots;
pub mod report;
pub mod suite;
pub mod summary;

use crate::load::{self, INTERRUPTED, LoadSpec};
use crate::machine::{self, Machine};
use crate::procstat;
use crate::result::{LoadResult, hgrm};
use clap::Args;
use engine::{Engine, Server};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use suite::{Offer, Step, Suite};

/// What to compare, and how.
#[derive(Args, Clone)]
pub struct CompareOptions {
    /// One of quick, latency, pipeline, shards, memory, loops, connections, types, ycsb; several with commas.
    #[arg(long, default_value = "quick")]
    suite: String,
    /// Measure these workloads instead of a suite's (closed loop), with commas.
    #[arg(long, short = 'w', value_delimiter = ',')]
    workloads: Vec<String>,
    /// Connections for --workloads.
    #[arg(long, short = 'c', default_value_t = 50)]
    connections: usize,
    /// Pipeline depths for --workloads, with commas.
    #[arg(long, short = 'P', value_delimiter = ',', default_value = "1")]
    pipeline: Vec<usize>,
    /// Engines by name, with commas; the first is what the others are compared with [default: all installed].
    #[arg(long, short = 'e', value_delimiter = ',')]
    engines: Vec<String>,
    /// A file of further engines, or of other rows for known names.
    #[arg(long)]
    engine_file: Option<PathBuf>,
    /// The server of this project [default: `ringshard` beside this program].
    #[arg(long)]
    ringshard: Option<PathBuf>,
    /// Rounds [default: the suite's].
    #[arg(long, short = 'n')]
    rounds: Option<usize>,
    /// Seconds per measurement [default: the suite's].
    #[arg(long, short = 's')]
    seconds: Option<f64>,
    /// Seconds of warm-up before each measurement.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Number of keys [default: the suite's].
    #[arg(long, short = 'k')]
    keys: Option<u64>,
    /// Value size [default: the workload's].
    #[arg(long, short = 'd')]
    value_size: Option<String>,
    /// CPUs of the servers, as in 0,2-3 [default: the first half].
    #[arg(long)]
    server_cpus: Option<String>,
    /// CPUs of the load generator [default: the other half].
    #[arg(long)]
    client_cpus: Option<String>,
    /// Threads of the load generator [default: one per client CPU].
    #[arg(long, short = 't')]
    client_threads: Option<usize>,
    /// Folder for the results [default: bench/results/<date>-<machine>, or without the checkout results/…].
    #[arg(long, short = 'o')]
    out: Option<PathBuf>,
    /// Write no files.
    #[arg(long)]
    no_files: bool,
    /// Say nothing but the table.
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Rows made by the program itself: exactly these engines.
    #[arg(skip)]
    pub rows: Vec<Engine>,
}

/// One step on one engine in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measurement {
    /// From 1.
    pub round: usize,
    /// Suite of the step.
    pub suite: String,
    /// Step.
    pub step: String,
    /// Engine.
    pub engine: String,
    /// What was measured.
    pub result: LoadResult,
    /// The percentiles as an .hgrm file's text, in a file of its own.
    #[serde(skip)]
    pub hgrm: String,
    /// Memory per key (`used_memory` by its own account), for steps that only fill.
    pub bytes_per_key: Option<f64>,
    /// The same by the growth of its resident memory.
    pub rss_bytes_per_key: Option<f64>,
}

/// Everything a report needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Date.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Of this project.
    pub commit: String,
    /// Of the runner.
    pub arguments: Vec<String>,
    /// CPUs of the servers.
    pub server_cpus: Vec<usize>,
    /// CPUs of the load generator.
    pub client_cpus: Vec<usize>,
    /// Engines measured, the first being the base of ratios.
    pub engines: Vec<EngineInfo>,
    /// Engines left out, and why.
    pub left_out: BTreeMap<String, String>,
    /// All measurements in the order they were taken.
    pub measurements: Vec<Measurement>,
    /// Ended early.
    pub interrupted: bool,
}

/// An engine that took part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Its name.
    pub name: String,
    /// For people.
    pub label: String,
    /// What it says of itself.
    pub version: String,
    /// How it was started.
    pub command: String,
}

/// Folders of the machine are nobody's business in a published result.
fn without_folders(argument: String) -> String {
    match argument.split_once('=') {
        Some((name, value)) if value.contains('/') => {
            format!("{name}={}", without_folders(value.to_owned()))
        }
        _ if argument.contains('/') => argument
            .rsplit('/')
            .find(|p| !p.is_empty())
            .unwrap_or_default()
            .to_owned(),
        _ => argument,
    }
}

struct Candidate {
    engine: Engine,
    program: PathBuf,
}

impl CompareOptions {
    /// Runs, shows and writes; false if a measurement failed.
    pub fn run(&self) -> Result<bool, String> {
        let run = self.measure()?;
        if run.measurements.is_empty() {
            return Err("nothing was measured".to_owned());
        }
        let summary = summary::Summary::of(&run);
        print!("{}", summary.table());
        if !self.no_files {
            let out = self.out_folder(&run);
            report::write(&out, &run, &summary)?;
            eprintln!("results: {}", out.display());
        }
        Ok(!summary.failed)
    }

    fn out_folder(&self, run: &Run) -> PathBuf {
        self.out.clone().unwrap_or_else(|| {
            let base = if PathBuf::from("bench/Cargo.toml").is_file() {
                "bench/results"
            } else {
                "results"
            };
            PathBuf::from(base).join(format!("{}-{}", run.date, run.machine.slug()))
        })
    }

    fn suites(&self) -> Result<Vec<Suite>, String> {
        if !self.workloads.is_empty() {
            let steps = self.workloads.iter().flat_map(|w| {
                self.pipeline.iter().map(|&p| Step {
                    keys: 100_000,
                    ..Step::new(w, self.connections, p)
                })
            });
            let name = "chosen".to_owned();
            let about = "Workloads chosen on the command line";
            return Ok(vec![Suite {
                name,
                about,
                steps: steps.collect(),
                rounds: 3,
                seconds: 2.0,
                only: None,
            }]);
        }
        self.suite
            .split(',')
            .map(|n| {
                suite::suite(n)
                    .ok_or_else(|| format!("no suite '{n}'; there are {}", suite::NAMES.join(", ")))
            })
            .collect()
    }

    /// Rows of all engines: the file's replace built-in ones of the same name.
    fn engines(&self) -> Result<Vec<Engine>, String> {
        if !self.rows.is_empty() {
            return Ok(self.rows.clone());
        }
        let mut engines = engine::parse(engine::BUILTIN)?;
        if let Some(path) = &self.engine_file {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            for row in engine::parse(&text)? {
                match engines.iter_mut().find(|e| e.name == row.name) {
                    Some(old) => *old = row,
                    None => engines.push(row),
                }
            }
        }
        if self.engines.is_empty() {
            return Ok(engines);
        }
        let find = |name: &String| engines.iter().find(|e| e.name == *name).cloned();
        let names = || {
            engines
                .iter()
                .map(|e| e.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.engines
            .iter()
            .map(|n| find(n).ok_or_else(|| format!("no engine '{n}'; there are {}", names())))
            .collect()
    }

    fn cpus(&self) -> Result<(Vec<usize>, Vec<usize>), String> {
        let allowed = procstat::allowed_cpus();
        let half = (allowed.len() / 2).max(1);
        let server = match &self.server_cpus {
            Some(text) => procstat::parse_cpus(text)?,
            None => allowed[..half].to_vec(),
        };
        let client = match &self.client_cpus {
            Some(text) => procstat::parse_cpus(text)?,
            None => {
                let rest: Vec<usize> = allowed
                    .iter()
                    .copied()
                    .filter(|c| !server.contains(c))
                    .collect();
                if rest.is_empty() {
                    allowed.clone()
                } else {
                    rest
                }
            }
        };
        if server.iter().any(|c| client.contains(c)) && !self.quiet {
            eprintln!("ATTENTION: server and client share CPUs; latencies will show both");
        }
        Ok((server, client))
    }

    fn measure(&self) -> Result<Run, String> {
        let mut suites = self.suites()?;
        // Servers inherit the limit, and size themselves by it.
        for suite in &mut suites {
            suite.steps.retain(|step| {
                let possible = load::raise_file_limit(step.connections + step.idle + 100);
                if let Err(why) = &possible {
                    eprintln!("step {} is left out: {why}", step.name);
                }
                possible.is_ok()
            });
        }
        let (server_cpus, client_cpus) = self.cpus()?;
        let mut run = Run {
            date: machine::today(),
            machine: Machine::here(),
            commit: machine::commit(),
            arguments: std::env::args().skip(1).map(without_folders).collect(),
            server_cpus,
            client_cpus,
            engines: Vec::new(),
            left_out: BTreeMap::new(),
            measurements: Vec::new(),
            interrupted: false,
        };
        let mut candidates = Vec::new();
        for engine in self.engines()? {
            match engine.locate(self.ringshard.as_deref()) {
                Some(program) => candidates.push(Candidate { engine, program }),
                None => {
                    run.left_out
                        .insert(engine.name.clone(), "not installed".to_owned());
                }
            }
        }
        if !run.left_out.is_empty() && !self.quiet {
            let names: Vec<&str> = run.left_out.keys().map(String::as_str).collect();
            eprintln!("not installed, left out: {}", names.join(", "));
            if names.iter().any(|n| n.starts_with("ringshard")) {
                eprintln!(
                    "(this project's server: cargo build --release --bin ringshard, or --ringshard PATH)"
                );
            }
        }
        for suite in &suites {
            let rounds = self.rounds.unwrap_or(suite.rounds);
            for round in 1..=rounds {
                if let Err(e) = self.round(suite, round, rounds, &candidates, &mut run) {
                    // What was measured so far is worth keeping.
                    if run.measurements.is_empty() {
                        return Err(e);
                    }
                    eprintln!("ringshard-bench: {e}");
                    run.interrupted = true;
                }
                if INTERRUPTED.load(Ordering::Relaxed) || run.interrupted {
                    run.interrupted = true;
                    return Ok(run);
                }
            }
        }
        Ok(run)
    }

    /// One round of a suite: groups of steps that can share servers, one group after the other.
    fn round(
        &self,
        suite: &Suite,
        round: usize,
        rounds: usize,
        candidates: &[Candidate],
        run: &mut Run,
    ) -> Result<(), String> {
        let chosen = |c: &&Candidate| {
            suite
                .only
                .is_none_or(|prefix| c.engine.name.starts_with(prefix))
                && c.engine
                    .suites
                    .as_ref()
                    .is_none_or(|s| s.contains(&suite.name) || !self.engines.is_empty())
                && !run.left_out.contains_key(&c.engine.name)
        };
        let mut engines: Vec<&Candidate> = candidates.iter().filter(chosen).collect();
        if engines.is_empty() {
            return Err(format!("no engine for suite {}", suite.name));
        }
        // Who goes first changes, so that no engine always follows the same one.
        let shift = (round - 1) % engines.len();
        engines.rotate_left(shift);
        let mut at = 0;
        while at < suite.steps.len() {
            let first = &suite.steps[at];
            let together = |s: &Step| !first.fresh && !s.fresh && s.threads == first.threads;
            let n = 1 + suite.steps[at + 1..]
                .iter()
                .take_while(|s| together(s))
                .count();
            let steps = &suite.steps[at..at + n];
            at += n;
            self.group(suite, steps, round, rounds, &engines, run)?;
            if INTERRUPTED.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn group(
        &self,
        suite: &Suite,
        steps: &[Step],
        round: usize,
        rounds: usize,
        engines: &[&Candidate],
        run: &mut Run,
    ) -> Result<(), String> {
        let threads = steps[0].threads.unwrap_or(run.server_cpus.len());
        let mut running: Vec<(&Engine, Server, HashSet<String>)> = Vec::new();
        for c in engines {
            if run.left_out.contains_key(&c.engine.name) {
                continue;
            }
            match Server::start(&c.engine, &c.program, &run.server_cpus, threads) {
                Ok(mut server) => {
                    if run.engines.iter().all(|e| e.name != c.engine.name) {
                        run.engines.push(EngineInfo {
                            name: c.engine.name.clone(),
                            label: c.engine.label.clone(),
                            version: server.version().unwrap_or_else(|| "unknown".to_owned()),
                            command: c.engine.command_line(),
                        });
                    }
                    server.halt(true);
                    running.push((&c.engine, server, HashSet::new()));
                }
                Err(e) => {
                    eprintln!("left out: {e}");
                    run.left_out.insert(c.engine.name.clone(), e);
                }
            }
        }
        if running.is_empty() {
            return Err("no engine could be started".to_owned());
        }
        for step in steps {
            let rate = match step.offer {
                Offer::Rate(r) => Some(r),
                Offer::Share(share) => Some((share * self.capacity(suite, run)?).max(1.0)),
                _ => None,
            };
            for (engine, server, filled) in &mut running {
                self.note(suite, step, round, rounds, &engine.label);
                server.halt(false);
                let measured = self.step(step, suite, server, filled, rate, run);
                server.halt(true);
                if INTERRUPTED.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let mut measurement =
                    measured.map_err(|e| format!("{} on {}: {e}", step.name, engine.name))?;
                measurement.round = round;
                measurement.suite = suite.name.clone();
                measurement.engine = engine.name.clone();
                // A port number says nothing to a reader.
                measurement.result.endpoint = engine.name.clone();
                if let Some(why) = &measurement.result.client_bound {
                    self.warn(&format!("{} on {}: {why}", step.name, engine.name));
                }
                if measurement.result.failed {
                    let sample = measurement
                        .result
                        .error_samples
                        .first()
                        .cloned()
                        .unwrap_or_default();
                    let n = measurement.result.errors;
                    self.warn(&format!(
                        "FAILED: {} on {}: {n} errors: {sample}",
                        step.name, engine.name
                    ));
                }
                run.measurements.push(measurement);
            }
        }
        Ok(())
    }

    /// Median capacity of the slowest engine: open loops are offered a share of it, the same rate to all.
    fn capacity(&self, suite: &Suite, run: &Run) -> Result<f64, String> {
        let step = suite
            .steps
            .iter()
            .find(|s| s.capacity)
            .map(|s| s.name.as_str())
            .unwrap_or_default();
        let of = |engine: &str| {
            let all = run
                .measurements
                .iter()
                .filter(|m| m.suite == suite.name && m.step == step && m.engine == engine);
            summary::median(&all.map(|m| m.result.throughput).collect::<Vec<f64>>())
        };
        let all: Vec<f64> = run.engines.iter().filter_map(|e| of(&e.name)).collect();
        all.into_iter()
            .reduce(f64::min)
            .ok_or_else(|| format!("step {step} has not been measured"))
    }

    fn step(
        &self,
        step: &Step,
        suite: &Suite,
        server: &Server,
        filled: &mut HashSet<String>,
        rate: Option<f64>,
        run: &Run,
    ) -> Result<Measurement, String> {
        let workload = load::workload::Workload::load(&step.workload)?;
        let keys = self.keys.unwrap_or(step.keys);
        let value_size = self.value_size.clone().or_else(|| step.value_size.clone());
        let mut spec = LoadSpec::new(server.endpoint.clone(), &step.workload);
        spec.keys = Some(keys);
        spec.distribution = step.distribution.clone();
        spec.value_size = value_size.clone();
        spec.connections = step.connections;
        spec.idle = step.idle;
        spec.pipeline = step.pipeline;
        spec.threads = self.client_threads.unwrap_or(run.client_cpus.len());
        spec.cpus = Some(run.client_cpus.clone());
        spec.rate = rate;
        spec.seconds = self.seconds.unwrap_or(suite.seconds);
        spec.warmup = self.warmup;
        spec.server_pid = Some(server.pid());
        spec.progress = !self.quiet && std::io::stderr().is_terminal();
        let mut measurement = Measurement {
            round: 0,
            suite: String::new(),
            step: step.name.clone(),
            engine: String::new(),
            result: LoadResult::default(),
            hgrm: String::new(),
            bytes_per_key: None,
            rss_bytes_per_key: None,
        };
        // The same commands on the same keys need not be sent twice to one server.
        let fill = format!(
            "{:?} {keys} {value_size:?}",
            workload
                .prefill
                .iter()
                .map(|op| &op.text)
                .collect::<Vec<_>>()
        );
        if step.offer == Offer::FillOnly {
            let memory = |s: &Server| s.info("used_memory");
            let rss = |s: &Server| procstat::sample(s.pid()).map(|p| p.rss_bytes);
            let (before, rss_before) = (memory(server), rss(server)?);
            spec.prefill = true;
            load::fill_only(&spec)?;
            // Some give memory back, or finish a resize, a moment later.
            std::thread::sleep(std::time::Duration::from_millis(500));
            let (after, rss_after) = (memory(server), rss(server)?);
            let per_key = |a: u64, b: u64| a.saturating_sub(b) as f64 / keys as f64;
            measurement.bytes_per_key = after.zip(before).map(|(a, b)| per_key(a, b));
            measurement.rss_bytes_per_key = Some(per_key(rss_after, rss_before));
            measurement.result.workload = step.workload.clone();
            measurement.result.keys = keys;
            return Ok(measurement);
        }
        spec.prefill = filled.insert(fill);
        let finished = load::run(&spec)?;
        measurement.hgrm = hgrm(&finished.latency);
        measurement.result = finished.result;
        Ok(measurement)
    }

    fn note(&self, suite: &Suite, step: &Step, round: usize, rounds: usize, label: &str) {
        if !self.quiet && std::io::stderr().is_terminal() {
            eprint!(
                "\r\x1b[K[{} round {round}/{rounds}] {} on {label}\n\x1b[1A",
                suite.name, step.name
            );
        }
    }

    fn warn(&self, text: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        eprintln!("{text}");
    }
}
