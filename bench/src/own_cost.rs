//! `own-cost`: what a request costs the load generator itself, beside other load generators.
//!
//! A generator that needs more CPU than the server measures itself. Each tool sends the same GETs to the same
//! server from the same CPU, as a child process whose CPU time the kernel accounts for when it ends; tools take
//! turns, and ratios are taken within a round. What the server pays is reported too: a tool that feeds it request
//! by request makes it sleep and wake more often, and its figures then show that, not the server.

use crate::compare::engine::{self, Server};
use crate::compare::summary::{Spread, median};
use crate::load::{self, INTERRUPTED, LoadSpec};
use crate::procstat;
use clap::Args;
use serde::Serialize;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What to send, how often.
#[derive(Args, Clone)]
pub struct OwnCostOptions {
    /// The server to send to: a row of the built-in engines.
    #[arg(long, default_value = "redis")]
    engine: String,
    /// The server of this project, if that is the engine.
    #[arg(long)]
    ringshard: Option<PathBuf>,
    /// Rounds.
    #[arg(long, short = 'n', default_value_t = 5)]
    rounds: usize,
    /// Seconds that a run of this tool should take; the others get as many requests.
    #[arg(long, short = 's', default_value_t = 2.0)]
    seconds: f64,
    /// Connections.
    #[arg(long, short = 'c', default_value_t = 50)]
    connections: usize,
    /// Pipeline depths, with commas.
    #[arg(long, short = 'P', value_delimiter = ',', default_value = "1,16,64")]
    pipeline: Vec<usize>,
    /// Number of keys.
    #[arg(long, short = 'k', default_value_t = 100_000)]
    keys: u64,
    /// CPU of the server [default: the first].
    #[arg(long)]
    server_cpus: Option<String>,
    /// CPU of the tools [default: the second].
    #[arg(long)]
    client_cpus: Option<String>,
    /// Write all runs as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One tool in one round.
#[derive(Debug, Clone, Serialize)]
struct Run {
    tool: &'static str,
    pipeline: usize,
    round: usize,
    requests: u64,
    requests_per_second: f64,
    client_us_per_request: f64,
    client_user_us: f64,
    client_system_us: f64,
    server_us_per_request: f64,
}

const OURS: &str = "ringshard-bench";
const TOOLS: &[&str] = &[OURS, "redis-benchmark", "memtier_benchmark"];

fn installed(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(tool).is_file()))
}

/// Runs a command to its end; returns its user and system time in µs.
fn time(command: &mut Command, cpus: Vec<usize>) -> Result<(f64, f64), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(move || procstat::pin(0, &cpus)) };
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    let (mut status, pid) = (0, child.id() as libc::pid_t);
    // SAFETY: an all-zero rusage is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: the child is ours and not reaped; both places are valid.
        let got = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
        if got == pid {
            break;
        }
        let e = std::io::Error::last_os_error();
        if e.kind() != std::io::ErrorKind::Interrupted {
            return Err(format!("{name}: {e}"));
        }
    }
    if status != 0 {
        return Err(format!("{name} ended with status {status}"));
    }
    let us = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    Ok((us(usage.ru_utime), us(usage.ru_stime)))
}

impl OwnCostOptions {
    fn command(
        &self,
        tool: &str,
        port: u16,
        pipeline: usize,
        requests: u64,
    ) -> Result<Command, String> {
        let (port, p, n) = (port.to_string(), pipeline.to_string(), requests.to_string());
        let (c, keys) = (self.connections.to_string(), self.keys.to_string());
        let mut command = if tool == OURS {
            let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
            command.args([
                "load",
                "-q",
                "--no-prefill",
                "--warmup",
                "0",
                "-w",
                "get",
                "-p",
                &port,
            ]);
            command.args(["-n", &n, "-c", &c, "-P", &p, "-k", &keys]);
            command
        } else if tool == "redis-benchmark" {
            let mut command = Command::new(tool);
            command.args([
                "-t", "get", "-q", "-d", "32", "-p", &port, "-n", &n, "-c", &c, "-P", &p, "-r",
                &keys,
            ]);
            command
        } else {
            // Its keys are not padded with zeros, so that it asks for keys that do not exist.
            let each = (requests / self.connections as u64).max(1).to_string();
            let mut command = Command::new(tool);
            command.args([
                "-s",
                "127.0.0.1",
                "-p",
                &port,
                "-t",
                "1",
                "-c",
                &c,
                "-n",
                &each,
                "--ratio",
                "0:1",
            ]);
            command.args([
                "--pipeline",
                &p,
                "--key-prefix",
                "key:",
                "--key-maximum",
                &keys,
                "--hide-histogram",
            ]);
            command.stderr(Stdio::null());
            command
        };
        command.env_remove("RUST_BACKTRACE");
        Ok(command)
    }

    /// Runs, shows and writes.
    pub fn run(&self) -> Result<bool, String> {
        let allowed = procstat::allowed_cpus();
        let or = |text: &Option<String>, nth: usize| match text {
            Some(text) => procstat::parse_cpus(text),
            None => Ok(vec![allowed[nth.min(allowed.len() - 1)]]),
        };
        let (server_cpus, client_cpus) = (or(&self.server_cpus, 0)?, or(&self.client_cpus, 1)?);
        let rows = engine::parse(engine::BUILTIN)?;
        let row = rows
            .iter()
            .find(|e| e.name == self.engine)
            .ok_or_else(|| format!("no engine '{}'", self.engine))?;
        let program = row
            .locate(self.ringshard.as_deref())
            .ok_or_else(|| format!("{} is not installed", row.name))?;
        let server = Server::start(row, &program, &server_cpus, server_cpus.len())?;
        let load::connect::Endpoint::Tcp(address) = server.endpoint.clone() else {
            return Err("the server must listen on a port".to_owned());
        };
        let mut spec = LoadSpec::new(server.endpoint.clone(), "get");
        spec.keys = Some(self.keys);
        spec.cpus = Some(client_cpus.clone());
        load::fill_only(&spec)?;
        let tools: Vec<&'static str> = TOOLS
            .iter()
            .copied()
            .filter(|t| *t == OURS || installed(t))
            .collect();
        for tool in TOOLS.iter().filter(|t| !tools.contains(t)) {
            eprintln!("not installed, left out: {tool}");
        }
        let mut runs: Vec<Run> = Vec::new();
        for &pipeline in &self.pipeline {
            // How many requests fill the time?
            spec.prefill = false;
            (spec.pipeline, spec.connections, spec.seconds, spec.warmup) =
                (pipeline, self.connections, 0.5, 0.2);
            let speed = load::run(&spec)?.result.throughput;
            let batch = (self.connections * pipeline) as u64;
            let requests = ((speed * self.seconds) as u64).max(batch).div_ceil(batch) * batch;
            for round in 1..=self.rounds {
                let mut order = tools.clone();
                order.rotate_left((round - 1) % tools.len());
                for tool in order {
                    if INTERRUPTED.load(Ordering::Relaxed) {
                        return Err("interrupted".to_owned());
                    }
                    let before = procstat::sample(server.pid())?;
                    let began = Instant::now();
                    let mut command = self.command(tool, address.port(), pipeline, requests)?;
                    let (user, system) = time(&mut command, client_cpus.clone())?;
                    let seconds = began.elapsed().as_secs_f64();
                    let cost = procstat::sample(server.pid())?.since(&before, seconds);
                    let per = |us: f64| us / requests as f64;
                    runs.push(Run {
                        tool,
                        pipeline,
                        round,
                        requests,
                        requests_per_second: requests as f64 / seconds,
                        client_us_per_request: per(user + system),
                        client_user_us: per(user),
                        client_system_us: per(system),
                        server_us_per_request: per(cost.cpu_us() as f64),
                    });
                }
            }
        }
        self.show(&runs, &tools);
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&runs).map_err(|e| e.to_string())?;
            std::fs::write(path, text)
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        Ok(true)
    }

    fn show(&self, runs: &[Run], tools: &[&'static str]) {
        for &pipeline in &self.pipeline {
            println!(
                "\nGET, {} connections, pipeline {pipeline}, {} rounds",
                self.connections, self.rounds
            );
            println!(
                "  {:<18} {:>10} {:>22} {:>8} {:>8} {:>34} {:>18}",
                "tool",
                "1/s",
                "client CPU µs/request",
                "user",
                "system",
                "this tool's share of its client CPU",
                "server µs/request"
            );
            for &tool in tools {
                let of = |t: &str| -> Vec<&Run> {
                    runs.iter()
                        .filter(|r| r.pipeline == pipeline && r.tool == t)
                        .collect()
                };
                let own = of(tool);
                let pick = |f: fn(&Run) -> f64| {
                    median(&own.iter().map(|r| f(r)).collect::<Vec<f64>>()).unwrap_or(0.0)
                };
                let ratios: Vec<f64> = of(OURS)
                    .iter()
                    .filter_map(|a| {
                        let b = own.iter().find(|b| b.round == a.round)?;
                        Some(a.client_us_per_request / b.client_us_per_request)
                    })
                    .collect();
                let ratio = match Spread::of(&ratios) {
                    Some(s) if tool != OURS => {
                        format!("{:.2} ({:.2}–{:.2})", s.median, s.min, s.max)
                    }
                    _ => "-".to_owned(),
                };
                println!(
                    "  {tool:<18} {:>10.0} {:>22.3} {:>8.3} {:>8.3} {ratio:>34} {:>18.3}",
                    pick(|r| r.requests_per_second),
                    pick(|r| r.client_us_per_request),
                    pick(|r| r.client_user_us),
                    pick(|r| r.client_system_us),
                    pick(|r| r.server_us_per_request),
                );
            }
        }
    }
}
