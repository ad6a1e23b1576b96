//! The command line of `load`, and where its results go.

use crate::load::connect::{Endpoint, Greeting};
use crate::load::tls::Tls;
use crate::load::{self, LoadSpec, LoopKind};
use crate::procstat;
use crate::result::{LoadResult, hgrm};
use clap::Args;
use std::io::IsTerminal;
use std::path::PathBuf;

/// Where the server is and how to greet it.
#[derive(Args, Clone)]
pub struct ServerOptions {
    /// Host name or address.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port.
    #[arg(long, short = 'p', default_value_t = 6379)]
    pub port: u16,
    /// Socket file instead of host and port.
    #[arg(long)]
    pub unix: Option<PathBuf>,
    /// Speak RESP3.
    #[arg(long)]
    pub resp3: bool,
    /// User for AUTH.
    #[arg(long)]
    pub user: Option<String>,
    /// Password for AUTH.
    #[arg(long, short = 'a')]
    pub password: Option<String>,
    /// Database number.
    #[arg(long, default_value_t = 0)]
    pub db: u32,
    /// Speak TLS.
    #[arg(long)]
    pub tls: bool,
    /// Certificate authority that the server's certificate must come from (PEM).
    #[arg(long)]
    pub cacert: Option<PathBuf>,
    /// Accept any certificate.
    #[arg(long)]
    pub insecure: bool,
    /// Name that the certificate must have [default: --host].
    #[arg(long)]
    pub sni: Option<String>,
    /// Own certificate, for servers that ask for one (PEM).
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Cluster mode: ask for the slots and send each key to its node.
    #[arg(long)]
    pub cluster: bool,
    /// Report CPU time, context switches and memory of this process as the server's.
    #[arg(long)]
    pub server_pid: Option<u32>,
}

/// What is sent.
#[derive(Args, Clone)]
pub struct LoadOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// Workload: a name (see `workloads`), or a file (@FILE).
    #[arg(long, short = 'w', default_value = "get")]
    workload: String,
    /// Number of keys [default: the workload's].
    #[arg(long, short = 'k')]
    keys: Option<u64>,
    /// uniform, zipfian[:THETA], latest, sequential, or hot:KEYS:SHARE.
    #[arg(long, default_value = "uniform")]
    distribution: String,
    /// BYTES, MIN-MAX (drawn by key) or log:MIN:MAX [default: the workload's].
    #[arg(long, short = 'd')]
    value_size: Option<String>,
    /// Connections of all threads together.
    #[arg(long, short = 'c', default_value_t = 50)]
    connections: usize,
    /// Subscribers, for the publish workload.
    #[arg(long, default_value_t = 4)]
    subscribers: usize,
    /// Connections that are opened and never used, besides the others.
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Threads.
    #[arg(long, short = 't', default_value_t = 1)]
    threads: usize,
    /// Requests in flight per connection: a closed loop sends this many at once, an open loop queues so many.
    #[arg(long, short = 'P', default_value_t = 1)]
    pipeline: usize,
    /// Open loop: requests per second, whatever the server does; latency counts from the due time.
    #[arg(long, short = 'r')]
    rate: Option<f64>,
    /// Open loop: exponential distances between requests instead of equal ones.
    #[arg(long)]
    poisson: bool,
    /// Seconds to measure.
    #[arg(long, short = 's', default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before, which do not count.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Measure this many requests instead of a time.
    #[arg(long, short = 'n')]
    requests: Option<u64>,
    /// Do not fill the keyspace first.
    #[arg(long)]
    no_prefill: bool,
    /// Take nil for an answer.
    #[arg(long)]
    nil_ok: bool,
    /// CPUs to pin the threads to, as in 0,2-3.
    #[arg(long)]
    cpus: Option<String>,
    /// How the client waits.
    #[arg(long = "loop", value_enum, default_value = "auto")]
    loop_kind: LoopKind,
    /// Seed of keys and mixes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Open loop: poll instead of sleeping when the next request is due within this many µs.
    #[arg(long, default_value_t = 60)]
    spin_us: u64,
    /// Seconds to wait for outstanding replies at the end.
    #[arg(long, default_value_t = 2.0)]
    drain: f64,
    /// Write the result as JSON ('-' for standard output).
    #[arg(long)]
    json: Option<PathBuf>,
    /// Append the result as a CSV row.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Write the percentiles as an .hgrm file.
    #[arg(long)]
    hgrm: Option<PathBuf>,
    /// No progress line, no table.
    #[arg(long, short = 'q')]
    quiet: bool,
}

impl ServerOptions {
    /// The address.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        match &self.unix {
            Some(path) => Ok(Endpoint::Unix(path.clone())),
            None => Endpoint::tcp(&self.host, self.port),
        }
    }

    /// What is said first.
    pub fn greeting(&self) -> Result<Greeting, String> {
        let tls = if self.tls {
            if self.cacert.is_none() && !self.insecure {
                return Err(
                    "--tls needs --cacert FILE, or --insecure to accept any certificate".to_owned(),
                );
            }
            let authority = self.cacert.as_deref().filter(|_| !self.insecure);
            let own = self.cert.as_deref().zip(self.key.as_deref());
            Some(Tls::new(
                self.sni.as_deref().unwrap_or(&self.host),
                authority,
                own,
            )?)
        } else {
            None
        };
        let (user, password) = (self.user.clone(), self.password.clone());
        Ok(Greeting {
            resp3: self.resp3,
            user,
            password,
            db: self.db,
            tls,
        })
    }
}

impl LoadOptions {
    /// The run that these options describe.
    pub fn spec(&self) -> Result<LoadSpec, String> {
        for (name, value) in [
            ("--seconds", self.seconds),
            ("--warmup", self.warmup),
            ("--drain", self.drain),
        ] {
            if !(0.0..=1e6).contains(&value) {
                return Err(format!("{name} {value}: a number of seconds is needed"));
            }
        }
        Ok(LoadSpec {
            endpoint: self.server.endpoint()?,
            greeting: self.server.greeting()?,
            cluster: self.server.cluster,
            workload: self.workload.clone(),
            keys: self.keys,
            distribution: self.distribution.clone(),
            value_size: self.value_size.clone(),
            connections: self.connections,
            subscribers: self.subscribers,
            idle: self.idle,
            threads: self.threads,
            pipeline: self.pipeline,
            rate: self.rate,
            poisson: self.poisson,
            seconds: self.seconds,
            warmup: self.warmup,
            requests: self.requests,
            prefill: !self.no_prefill,
            nil_ok: self.nil_ok,
            server_pid: self.server.server_pid,
            cpus: self.cpus.as_deref().map(procstat::parse_cpus).transpose()?,
            loop_kind: self.loop_kind,
            seed: self.seed,
            spin_us: self.spin_us,
            drain: self.drain,
            progress: !self.quiet && std::io::stderr().is_terminal(),
        })
    }

    /// Runs, shows and writes; false if the run failed.
    pub fn run(&self) -> Result<bool, String> {
        let finished = load::run(&self.spec()?)?;
        let result = &finished.result;
        let stdout_is_json = self.json.as_ref().is_some_and(|p| p.as_os_str() == "-");
        if !self.quiet && !stdout_is_json {
            print!("{}", result.table());
        } else if self.quiet && (result.failed || result.client_bound.is_some()) {
            eprint!("{}", result.table());
        }
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(result).map_err(|e| e.to_string())?;
            if stdout_is_json {
                println!("{text}")
            } else {
                write(path, &text)?
            }
        }
        if let Some(path) = &self.hgrm {
            write(path, &hgrm(&finished.latency))?;
        }
        if let Some(path) = &self.csv {
            let old = std::fs::read_to_string(path).unwrap_or_default();
            let heading = if old.is_empty() {
                format!("{}\n", LoadResult::CSV_HEADING)
            } else {
                old
            };
            write(path, &format!("{heading}{}\n", result.csv()))?;
        }
        Ok(!result.failed)
    }
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
