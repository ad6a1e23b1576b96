//! The load generator: connections on pinned threads, a warm-up, a measured window, and what came of it.
//!
//! A run goes top to bottom through [`run`]: load the workload, fill the keyspace, dial, warm up, open the window
//! (sample the server and ourselves, read the counters), close it (the same), wait for the last replies, merge.
//! Requests, CPU time and context switches are differences between the same two instants, so «CPU per request»
//! needs no correction for warm-up or drain.
//!
//! | file | noun |
//! | --- | --- |
//! | `workload.rs`, `builtin.rs` | commands, their mix, what must come back |
//! | `keys.rs` | which keys and values |
//! | `lane.rs` | one thread's connections, no I/O |
//! | `uring.rs`, `epoll.rs` | the loops that move a lane's bytes |
//! | `reply.rs` | where a reply ends |
//! | `measure.rs` | histograms by second, phases |
//! | `connect.rs`, `cluster.rs`, `tls.rs` | dialling, slots, TLS |

pub mod builtin;
pub mod cluster;
pub mod connect;
pub mod epoll;
pub mod keys;
pub mod lane;
pub mod measure;
pub mod reply;
pub mod tls;
pub mod uring;
pub mod workload;

use crate::procstat;
use crate::result::{Cpu, LoadResult, OpResult, Second, Summary, curve};
use connect::{Client, Endpoint, Greeting};
use hdrhistogram::Histogram;
use keys::{Distribution, ValueSize, Values};
use lane::{Lane, LaneOptions, Pace, Plan};
use measure::{Board, Control, histogram, now_ns};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use workload::Workload;

/// Set by Ctrl-C: end early, with what was measured.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Which loop moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LoopKind {
    /// io_uring, or epoll where it is refused.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// A run, fully described.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// What is said first.
    pub greeting: Greeting,
    /// Route by slot.
    pub cluster: bool,
    /// A workload's name or file.
    pub workload: String,
    /// Number of keys; the workload's own if none.
    pub keys: Option<u64>,
    /// Key distribution.
    pub distribution: String,
    /// Value size; the workload's own if none.
    pub value_size: Option<String>,
    /// Connections of all threads together.
    pub connections: usize,
    /// Connections that receive what is published.
    pub subscribers: usize,
    /// Connections that are opened and never used.
    pub idle: usize,
    /// Threads.
    pub threads: usize,
    /// Requests in flight per connection.
    pub pipeline: usize,
    /// Requests per second of all threads; closed loop if none.
    pub rate: Option<f64>,
    /// Arrivals as of independent clients.
    pub poisson: bool,
    /// Length of the window, s.
    pub seconds: f64,
    /// Time before it, s.
    pub warmup: f64,
    /// End after this many requests instead.
    pub requests: Option<u64>,
    /// Fill the keyspace first.
    pub prefill: bool,
    /// Nil is no error.
    pub nil_ok: bool,
    /// Whose CPU time to report.
    pub server_pid: Option<u32>,
    /// CPUs of the threads, one each in turn.
    pub cpus: Option<Vec<usize>>,
    /// Which loop.
    pub loop_kind: LoopKind,
    /// Seed of keys and mixes.
    pub seed: u64,
    /// Poll instead of sleeping less than this, µs (open loop).
    pub spin_us: u64,
    /// Wait for replies after the end, s.
    pub drain: f64,
    /// Show a progress line.
    pub progress: bool,
}

impl LoadSpec {
    /// A closed loop of 50 connections against this server, as a starting point.
    pub fn new(endpoint: Endpoint, workload: &str) -> LoadSpec {
        LoadSpec {
            endpoint,
            greeting: Greeting::default(),
            cluster: false,
            workload: workload.to_owned(),
            keys: None,
            distribution: "uniform".to_owned(),
            value_size: None,
            connections: 50,
            subscribers: 0,
            idle: 0,
            threads: 1,
            pipeline: 1,
            rate: None,
            poisson: false,
            seconds: 10.0,
            warmup: 1.0,
            requests: None,
            prefill: true,
            nil_ok: false,
            server_pid: None,
            cpus: None,
            loop_kind: LoopKind::Auto,
            seed: 1,
            spin_us: 60,
            drain: 2.0,
            progress: std::io::stderr().is_terminal(),
        }
    }
}

/// A finished run: the figures, and the histogram behind them.
pub struct Finished {
    /// For tables and files.
    pub result: LoadResult,
    /// All ops together, ns.
    pub latency: Histogram<u64>,
}

/// What a run needs, worked out from its description.
struct Prepared {
    workload: Workload,
    keys: u64,
    size: ValueSize,
    values: Values,
    nodes: Vec<Endpoint>,
    slots: Option<Vec<u16>>,
}

fn work_out(spec: &LoadSpec) -> Result<Prepared, String> {
    let workload = Workload::load(&spec.workload)?;
    let keys = spec.keys.unwrap_or(workload.default_keys).max(1);
    let size = match &spec.value_size {
        Some(text) => ValueSize::parse(text)?,
        None => ValueSize::Fixed(workload.default_size),
    };
    if spec.connections == 0 || spec.threads == 0 || spec.pipeline == 0 {
        return Err(
            "at least one connection, one thread and a pipeline of one are needed".to_owned(),
        );
    }
    if spec.rate.is_some_and(|r| !(r.is_finite() && r > 0.0)) {
        return Err("--rate must be a positive number of requests per second".to_owned());
    }
    raise_file_limit(spec.connections + spec.subscribers + spec.idle + 64)?;
    let (nodes, slots) = if spec.cluster {
        cluster::map(spec)?
    } else {
        (vec![spec.endpoint.clone()], None)
    };
    if slots.is_some()
        && workload
            .ops
            .iter()
            .chain(&workload.prefill)
            .any(|op| op.keys() > 1)
    {
        return Err(format!(
            "workload '{}' names several keys at once, which cluster mode refuses",
            workload.name
        ));
    }
    Ok(Prepared {
        workload,
        keys,
        size,
        values: Values::new(size),
        nodes,
        slots,
    })
}

/// Writes all keys of the workload and measures nothing.
pub fn fill_only(spec: &LoadSpec) -> Result<(), String> {
    prefill(spec, &work_out(spec)?)
}

fn prefill(spec: &LoadSpec, p: &Prepared) -> Result<(), String> {
    for i in 0..p.workload.prefill.len() {
        let plan = Plan {
            workload: p.workload.of_prefill(i),
            distribution: Distribution::Sequential,
            keys: p.keys,
            values: p.values.clone(),
            pipeline: 64,
            slots: p.slots.clone(),
            nil_ok: true,
        };
        fill(spec, plan, &p.nodes, p.keys)?;
    }
    Ok(())
}

/// Runs it. An `Err` means that nothing was measured; errors of the server are in the result.
pub fn run(spec: &LoadSpec) -> Result<Finished, String> {
    let prepared = work_out(spec)?;
    if spec.prefill {
        prefill(spec, &prepared)?;
    }
    let Prepared {
        workload,
        keys,
        size,
        values,
        nodes,
        slots,
    } = prepared;
    let distribution = Distribution::parse(&spec.distribution, keys)?;
    let plan = Plan {
        workload: workload.clone(),
        distribution,
        keys,
        values,
        pipeline: spec.pipeline,
        slots,
        nil_ok: spec.nil_ok,
    };
    let threads = spec.threads.min(spec.connections);
    let lanes = (0..threads)
        .map(|index| LaneOptions {
            index,
            lanes: threads,
            seed: keys::mix(spec.seed.wrapping_mul(1000) + index as u64),
            sequence: keys * index as u64 / threads as u64,
            budget: spec.requests.map(|n| share(n, index, threads)),
            pace: Pace::Closed,
            drain_ns: (spec.drain * 1e9) as u64,
        })
        .collect();
    let outcome = execute(spec, plan, &nodes, lanes, false)?;
    Ok(conclude(spec, &workload, keys, size, threads, outcome))
}

/// `n` split fairly: the part of thread `index`.
fn share(n: u64, index: usize, threads: usize) -> u64 {
    n * (index as u64 + 1) / threads as u64 - n * index as u64 / threads as u64
}

/// Writes every key once. In a cluster each node's connections skip the keys of the others.
fn fill(spec: &LoadSpec, plan: Plan, nodes: &[Endpoint], keys: u64) -> Result<(), String> {
    if plan.slots.is_some() {
        return cluster::fill(spec, &plan, nodes, keys);
    }
    let threads = spec.threads.min(spec.connections).min(keys as usize);
    let lanes = (0..threads)
        .map(|index| LaneOptions {
            index,
            lanes: threads,
            seed: index as u64,
            sequence: keys * index as u64 / threads as u64,
            budget: Some(share(keys, index, threads)),
            pace: Pace::Closed,
            drain_ns: 60_000_000_000,
        })
        .collect();
    let calm = LoadSpec {
        connections: spec.connections.min(threads * 8).max(threads),
        subscribers: 0,
        idle: 0,
        rate: None,
        warmup: 0.0,
        server_pid: None,
        ..spec.clone()
    };
    let outcome = execute(&calm, plan, nodes, lanes, true)?;
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err("interrupted while filling the keyspace".to_owned());
    }
    if outcome.errors > 0 {
        return Err(format!(
            "filling the keyspace: {} errors, first: {}",
            outcome.errors,
            outcome.samples.join("; ")
        ));
    }
    Ok(())
}

/// What `execute` brings home.
struct Outcome {
    seconds: f64,
    requests: u64,
    errors: u64,
    misses: u64,
    bytes_in: u64,
    bytes_out: u64,
    samples: Vec<String>,
    /// By op.
    latency: Vec<Histogram<u64>>,
    timeline: Vec<Second>,
    server: Option<procstat::Cost>,
    client: procstat::Cost,
    lag: Histogram<u64>,
    loop_name: String,
}

/// What a thread brings home.
type Harvest = (lane::Lane, &'static str);

fn execute(
    spec: &LoadSpec,
    plan: Plan,
    nodes: &[Endpoint],
    lanes: Vec<LaneOptions>,
    filling: bool,
) -> Result<Outcome, String> {
    let plan = Arc::new(plan);
    let threads = lanes.len();
    let control = Arc::new(Control::default());
    let boards: Arc<Vec<Board>> = Arc::new((0..threads).map(|_| Board::default()).collect());
    let (ready_tx, ready_rx) = mpsc::channel::<Result<(), String>>();
    let go = Arc::new(std::sync::Barrier::new(threads + 1));
    let failed = Arc::new(AtomicBool::new(false));
    let mut handles = Vec::new();
    for options in lanes {
        let (spec, plan, nodes) = (spec.clone(), plan.clone(), nodes.to_vec());
        let main = std::thread::current();
        let (control, boards, ready_tx, go, failed) = (
            control.clone(),
            boards.clone(),
            ready_tx.clone(),
            go.clone(),
            failed.clone(),
        );
        let handle = std::thread::Builder::new()
            .name(format!("lane-{}", options.index))
            .spawn(move || {
                let index = options.index;
                let prepared = prepare(&spec, plan, &nodes, &options);
                let prepared = match prepared {
                    Ok(p) => {
                        let _ = ready_tx.send(Ok(()));
                        Some(p)
                    }
                    Err(e) => {
                        let _ = ready_tx.send(Err(e));
                        None
                    }
                };
                drop(ready_tx);
                go.wait();
                let (mut lane, driver) = match prepared {
                    Some(p) if !failed.load(Ordering::Acquire) => p,
                    _ => return Err("not started".to_owned()),
                };
                if let Some(rate) = spec.rate {
                    let interval = threads as f64 / rate * 1e9;
                    // Threads are shifted against each other, so that arrivals are even over all of them.
                    let next = now_ns() as f64 + interval * index as f64 / threads as f64;
                    lane.pace = Pace::Open {
                        interval,
                        next,
                        poisson: spec.poisson,
                    };
                }
                let spin_ns = if spec.rate.is_some() {
                    spec.spin_us * 1000
                } else {
                    0
                };
                let board = &boards[index];
                let (name, end) = match driver {
                    Driver::Uring(ring) => {
                        ("io_uring", ring.run(&mut lane, &control, board, spin_ns))
                    }
                    Driver::Epoll(epoll) => {
                        ("epoll", epoll.run(&mut lane, &control, board, spin_ns))
                    }
                };
                board.finished.store(true, Ordering::Release);
                main.unpark();
                end.map_err(|e| format!("{name} loop: {e}"))?;
                Ok::<Harvest, String>((lane, name))
            });
        handles.push(handle.map_err(|e| format!("cannot start a thread: {e}"))?);
    }
    drop(ready_tx);
    let mut trouble = None;
    for _ in 0..threads {
        match ready_rx.recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => trouble = Some(e),
            Err(_) => trouble = trouble.or(Some("a thread died while dialling".to_owned())),
        }
    }
    failed.store(trouble.is_some(), Ordering::Release);
    if let Some(e) = trouble {
        go.wait();
        for h in handles {
            let _ = h.join();
        }
        return Err(e);
    }

    let me = std::process::id();
    let count = |pick: fn(&Board) -> &std::sync::atomic::AtomicU64| -> u64 {
        boards.iter().map(|b| pick(b).load(Ordering::Relaxed)).sum()
    };
    let stopped = || INTERRUPTED.load(Ordering::Relaxed);
    let finished = || boards.iter().all(|b| b.finished.load(Ordering::Acquire));
    let mut progress = Progress::new(spec, &plan.workload.name, filling);

    // Warm-up. Without one the window opens before the first request leaves, so that a count is exact.
    let warm = spec.warmup > 0.0;
    if warm {
        go.wait();
        let warm_until = now_ns() + (spec.warmup * 1e9) as u64;
        while now_ns() < warm_until && !stopped() && !finished() {
            nap(warm_until.saturating_sub(now_ns()).min(50_000_000));
        }
    }

    // The window opens.
    let server_before = spec.server_pid.map(procstat::sample).transpose()?;
    let client_before = procstat::sample(me)?;
    let done_before = count(|b| &b.done);
    let start = now_ns();
    control.measure(start);
    if !warm {
        go.wait();
    }
    let bounded = filling || spec.requests.is_some();
    let end_at = if bounded {
        u64::MAX
    } else {
        start + (spec.seconds * 1e9) as u64
    };
    let mut merged = Merged::new(plan.workload.ops.len() + usize::from(plan.workload.pubsub));
    while !stopped() && !finished() {
        let now = now_ns();
        if now >= end_at {
            break;
        }
        // A lane that finishes wakes us; polling for it would cost as much as some requests do.
        std::thread::park_timeout(Duration::from_nanos((end_at - now).min(100_000_000)));
        merged.collect(&boards);
        progress.show(
            now_ns() - start,
            count(|b| &b.done) - done_before,
            count(|b| &b.errors),
            &merged,
        );
    }

    // It closes.
    let end = now_ns();
    let requests = count(|b| &b.done) - done_before;
    let client_after = procstat::sample(me)?;
    // A server that died under load is worth a result, not an error message alone.
    let server_after = spec.server_pid.map(procstat::sample).transpose();
    control.stop(end);
    progress.clear();
    let seconds = (end - start) as f64 / 1e9;
    let mut outcome = Outcome {
        seconds,
        requests,
        errors: 0,
        misses: 0,
        bytes_in: 0,
        bytes_out: 0,
        samples: Vec::new(),
        latency: Vec::new(),
        timeline: Vec::new(),
        server: None,
        client: client_after.since(&client_before, seconds),
        lag: histogram(),
        loop_name: String::new(),
    };
    match (server_before, server_after) {
        (Some(before), Ok(Some(after))) => outcome.server = Some(after.since(&before, seconds)),
        (_, Err(e)) => {
            outcome.errors += 1;
            outcome.samples.push(format!("the server process: {e}"));
        }
        _ => {}
    }
    for handle in handles {
        let (lane, name) = handle
            .join()
            .map_err(|_| "a load thread panicked".to_owned())??;
        let r = lane.recorder;
        outcome.errors += r.errors;
        outcome.misses += r.misses;
        outcome.bytes_in += r.bytes_in;
        outcome.bytes_out += r.bytes_out;
        outcome
            .samples
            .extend(r.samples.into_iter().filter(|s| !s.is_empty()));
        outcome.samples.truncate(5);
        // Histograms of one shape always add.
        let _ = outcome.lag.add(&r.lag);
        outcome.loop_name = name.to_owned();
    }
    merged.collect(&boards);
    outcome.timeline = merged.timeline();
    outcome.latency = merged.total;
    Ok(outcome)
}

enum Driver {
    Uring(Box<uring::Uring>),
    Epoll(epoll::Epoll),
}

/// On its own thread: pins it, creates the loop, dials.
fn prepare(
    spec: &LoadSpec,
    plan: Arc<Plan>,
    nodes: &[Endpoint],
    options: &LaneOptions,
) -> Result<(Lane, Driver), String> {
    if let Some(cpus) = &spec.cpus {
        let cpu = cpus[options.index % cpus.len()];
        procstat::pin(0, &[cpu]).map_err(|e| format!("cannot pin a thread to CPU {cpu}: {e}"))?;
    }
    // The default slack of 50 µs would show as lateness of an open loop's sends.
    // SAFETY: PR_SET_TIMERSLACK takes one number.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let connections = share(spec.connections as u64, options.index, options.lanes) as usize;
    let subscribers = if plan.workload.pubsub {
        share(spec.subscribers as u64, options.index, options.lanes) as usize
    } else {
        0
    };
    let idle = share(spec.idle as u64, options.index, options.lanes) as usize;
    let reply = plan.values.size.max()
        * plan
            .workload
            .ops
            .iter()
            .map(|op| op.reply_values())
            .max()
            .unwrap_or(1);
    let buffer = (reply * spec.pipeline)
        .clamp(4096, 64 * 1024)
        .next_power_of_two();
    let driver = match spec.loop_kind {
        LoopKind::Epoll => None,
        kind => match uring::Uring::new(connections + subscribers + idle, buffer) {
            Ok(ring) => Some(Driver::Uring(Box::new(ring))),
            Err(e) if kind == LoopKind::Uring => {
                return Err(format!("cannot create an io_uring: {e}"));
            }
            Err(_) => None,
        },
    };
    let driver = match driver {
        Some(d) => d,
        None => Driver::Epoll(
            epoll::Epoll::new().map_err(|e| format!("cannot create an epoll instance: {e}"))?,
        ),
    };
    let nonblocking = matches!(driver, Driver::Epoll(_));
    let mut lane = Lane::new(plan.clone(), options);
    for i in 0..connections + subscribers + idle {
        let node = (i * options.lanes + options.index) % nodes.len();
        let subscriber = (connections..connections + subscribers).contains(&i);
        let mut client = Client::connect(&nodes[node], &spec.greeting)?;
        if subscriber {
            for channel in 0..plan.keys {
                client.ask(&["SUBSCRIBE", &format!("chn:{channel:012}")])?;
            }
        }
        let (fd, ahead, session) = client
            .into_socket(nonblocking)
            .map_err(|e| format!("socket: {e}"))?;
        if !ahead.is_empty() {
            return Err(format!(
                "the server said more than it was asked: {}",
                ahead.escape_ascii()
            ));
        }
        lane.add(fd, session, node as u16, i >= connections);
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err("interrupted while dialling".to_owned());
        }
    }
    Ok((lane, driver))
}

/// Seconds of all threads, merged as they come.
struct Merged {
    total: Vec<Histogram<u64>>,
    seconds: Vec<(Histogram<u64>, u64)>,
}

impl Merged {
    fn new(ops: usize) -> Merged {
        Merged {
            total: (0..ops).map(|_| histogram()).collect(),
            seconds: Vec::new(),
        }
    }

    fn collect(&mut self, boards: &[Board]) {
        for board in boards {
            let intervals =
                std::mem::take(&mut *board.intervals.lock().unwrap_or_else(|e| e.into_inner()));
            for interval in intervals {
                let at = interval.second as usize;
                while self.seconds.len() <= at.min(100_000) {
                    self.seconds.push((histogram(), 0));
                }
                let Some(second) = self.seconds.get_mut(at) else {
                    continue;
                };
                second.1 += interval.errors;
                for (total, h) in self.total.iter_mut().zip(&interval.latency) {
                    // Histograms of one shape always add.
                    let _ = total.add(h);
                    let _ = second.0.add(h);
                }
            }
        }
    }

    fn timeline(&self) -> Vec<Second> {
        let us = |ns: u64| ns as f64 / 1000.0;
        self.seconds
            .iter()
            .enumerate()
            .map(|(i, (h, errors))| Second {
                second: i as u64,
                requests: h.len(),
                errors: *errors,
                p50_us: us(h.value_at_quantile(0.5)),
                p99_us: us(h.value_at_quantile(0.99)),
                max_us: us(h.max()),
            })
            .collect()
    }
}

fn conclude(
    spec: &LoadSpec,
    workload: &Workload,
    keys: u64,
    size: ValueSize,
    threads: usize,
    outcome: Outcome,
) -> Finished {
    let mut names: Vec<String> = workload.ops.iter().map(|op| op.name.clone()).collect();
    let mut latency = histogram();
    // A message's delivery is no request: it stands in its own row only.
    for h in &outcome.latency[..names.len()] {
        let _ = latency.add(h);
    }
    if workload.pubsub {
        names.push("delivery".to_owned());
    }
    let by_op = names
        .into_iter()
        .zip(&outcome.latency)
        .map(|(name, h)| OpResult {
            name,
            count: h.len(),
            latency: Summary::of(h),
        })
        .collect();
    let throughput = outcome.requests as f64 / outcome.seconds.max(1e-9);
    let per = |cost: &procstat::Cost| Cpu::of(cost, outcome.requests);
    let interrupted = INTERRUPTED.load(Ordering::Relaxed);
    let lag_p99_us = outcome.lag.value_at_quantile(0.99) as f64 / 1000.0;
    let client = per(&outcome.client);
    let server = outcome.server.as_ref().map(per);
    let server_busy = server.as_ref().map(|s| s.busiest_thread);
    let client_bound = match spec.rate {
        None if client.busiest_thread > 0.95 && server_busy.is_none_or(|s| s < 0.93) => {
            Some(format!(
                "the client's busiest thread used {:.0} % of a CPU and the server's {}: \
             this measures the client; give it more threads or fewer connections",
                100.0 * client.busiest_thread,
                server_busy.map_or("is unknown (--server-pid)".to_owned(), |s| format!(
                    "{:.0} %",
                    100.0 * s
                )),
            ))
        }
        Some(_) if lag_p99_us > 1000.0 => Some(format!(
            "free connections got their requests {lag_p99_us:.0} µs late (p99): the client could not keep its own \
             schedule; give it a CPU of its own or more threads"
        )),
        _ => None,
    };
    let warmup_note =
        (spec.rate.is_some_and(|r| throughput < 0.98 * r) && !interrupted).then(|| {
            format!(
                "only {throughput:.0} of {:.0} requests/s were answered",
                spec.rate.unwrap_or_default()
            )
        });
    let server_waited = server.as_ref().map(|s| 100.0 * s.waited);
    let client_waited = 100.0 * client.waited;
    let disturbed = (server_waited.unwrap_or(0.0).max(client_waited) > 5.0).then(|| {
        let server = server_waited.map_or(String::new(), |w| format!("the server {w:.0} % of the time and "));
        format!("others use these CPUs: {server}the client {client_waited:.0} % of the time was kept waiting for one")
    });
    let result = LoadResult {
        workload: spec.workload.clone(),
        endpoint: spec.endpoint.to_string(),
        mode: if spec.rate.is_some() {
            "open"
        } else {
            "closed"
        }
        .to_owned(),
        rate: spec.rate,
        connections: spec.connections,
        threads,
        pipeline: spec.pipeline,
        keys,
        distribution: spec.distribution.clone(),
        value_size: match size {
            ValueSize::Fixed(n) => n.to_string(),
            ValueSize::Uniform(a, b) => format!("{a}-{b}"),
            ValueSize::LogUniform(a, b) => format!("log:{a}:{b}"),
        },
        resp: if spec.greeting.resp3 { 3 } else { 2 },
        client_loop: outcome.loop_name,
        seconds: outcome.seconds,
        requests: outcome.requests,
        throughput,
        errors: outcome.errors,
        error_samples: outcome.samples,
        misses: outcome.misses,
        bytes_in: outcome.bytes_in,
        bytes_out: outcome.bytes_out,
        latency: Summary::of(&latency),
        by_op,
        timeline: outcome.timeline,
        curve: curve(&latency),
        server,
        client,
        send_lag_p99_us: spec.rate.map(|_| lag_p99_us),
        client_bound,
        disturbed,
        fell_behind: warmup_note,
        interrupted,
        failed: outcome.errors > 0,
    };
    Finished { result, latency }
}

fn nap(ns: u64) {
    std::thread::sleep(Duration::from_nanos(ns));
}

/// The progress line: only for a terminal.
struct Progress {
    shown: bool,
    on: bool,
    label: String,
    seconds: f64,
    last_ns: u64,
    last_requests: u64,
}

impl Progress {
    fn new(spec: &LoadSpec, label: &str, filling: bool) -> Progress {
        let seconds = if filling || spec.requests.is_some() {
            0.0
        } else {
            spec.seconds
        };
        Progress {
            shown: false,
            on: spec.progress,
            label: label.to_owned(),
            seconds,
            last_ns: 0,
            last_requests: 0,
        }
    }

    fn show(&mut self, elapsed_ns: u64, requests: u64, errors: u64, merged: &Merged) {
        if !self.on || elapsed_ns < self.last_ns + 500_000_000 {
            return;
        }
        let rate =
            (requests - self.last_requests) as f64 / ((elapsed_ns - self.last_ns) as f64 / 1e9);
        (self.last_ns, self.last_requests) = (elapsed_ns, requests);
        let p99 = merged
            .seconds
            .iter()
            .rev()
            .find(|s| !s.0.is_empty())
            .map(|s| s.0.value_at_quantile(0.99));
        let p99 = p99.map_or("-".to_owned(), |ns| format!("{:.0} µs", ns as f64 / 1000.0));
        let left = if self.seconds > 0.0 {
            format!(
                ", {:.0} s left",
                (self.seconds - elapsed_ns as f64 / 1e9).max(0.0)
            )
        } else {
            format!(", {requests} done")
        };
        let mut err = std::io::stderr().lock();
        let _ = write!(
            err,
            "\r\x1b[K{}: {rate:.0}/s, p99 {p99}, {errors} errors{left}",
            self.label
        );
        let _ = err.flush();
        self.shown = true;
    }

    fn clear(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Ctrl-C or SIGTERM ends the run early; a second Ctrl-C ends the program.
pub fn catch_interrupts() {
    extern "C" fn handler(signal: libc::c_int) {
        // `timeout` and service managers send SIGTERM to the process and to its group: two are not more than one.
        if INTERRUPTED.swap(true, Ordering::Relaxed) && signal == libc::SIGINT {
            // SAFETY: `_exit` is allowed in a signal handler.
            unsafe { libc::_exit(130) };
        }
    }
    let handler: extern "C" fn(libc::c_int) = handler;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only touches an atomic and `_exit`.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Lets the process hold so many descriptors.
pub fn raise_file_limit(wanted: usize) -> Result<(), String> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives through all calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        if limit.rlim_cur < wanted as u64 {
            // Root may raise the hard limit as well; others get what the hard limit allows.
            let more = libc::rlimit {
                rlim_cur: wanted as u64,
                rlim_max: limit.rlim_max.max(wanted as u64),
            };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &more) == 0 {
                limit = more;
            } else {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            }
        }
    }
    if limit.rlim_cur < wanted as u64 {
        return Err(format!(
            "{wanted} descriptors are needed and the limit is {}: raise it with `ulimit -n {wanted}`",
            limit.rlim_cur
        ));
    }
    Ok(())
}
