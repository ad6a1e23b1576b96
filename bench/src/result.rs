//! What a run is reduced to: figures for tables, JSON and CSV, and the curves that plots are drawn from.

use crate::procstat::Cost;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Percentiles in µs.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq)]
pub struct Summary {
    /// Shortest.
    pub min_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// 99.99th percentile.
    pub p9999_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl Summary {
    /// Of a histogram in ns.
    pub fn of(h: &Histogram<u64>) -> Summary {
        let us = |ns: u64| ns as f64 / 1000.0;
        let q = |q: f64| us(h.value_at_quantile(q));
        if h.is_empty() {
            return Summary::default();
        }
        Summary {
            min_us: us(h.min()),
            mean_us: h.mean() / 1000.0,
            p50_us: q(0.5),
            p90_us: q(0.9),
            p99_us: q(0.99),
            p999_us: q(0.999),
            p9999_us: q(0.9999),
            max_us: us(h.max()),
        }
    }
}

/// Points of the percentile curve: (quantile, µs), denser towards the tail.
pub fn curve(h: &Histogram<u64>) -> Vec<(f64, f64)> {
    if h.is_empty() {
        return Vec::new();
    }
    let mut points = Vec::new();
    let mut tail = 1.0f64;
    // Ten points a decade of «one in so many», up to what the sample can tell.
    while tail * h.len() as f64 >= 1.0 {
        let q = 1.0 - tail;
        points.push((q, h.value_at_quantile(q) as f64 / 1000.0));
        tail *= 10f64.powf(-0.1);
    }
    points.push((1.0, h.max() as f64 / 1000.0));
    points
}

/// The percentile file that HdrHistogram's plotting page reads (µs).
pub fn hgrm(h: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    for v in h.iter_quantiles(5) {
        let value = v.value_iterated_to() as f64 / 1000.0;
        let q = v.quantile_iterated_to();
        let count = h.count_between(0, v.value_iterated_to());
        // A String takes any write.
        let _ = if q < 1.0 {
            writeln!(
                out,
                "{value:12.3} {q:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - q)
            )
        } else {
            writeln!(out, "{value:12.3} {q:2.12} {count:10}            inf")
        };
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]",
        h.mean() / 1000.0,
        h.stdev() / 1000.0,
        h.max() as f64 / 1000.0,
        h.len()
    );
    out
}

/// CPU time and its kin, per request.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct Cpu {
    /// µs of CPU time (user and system, all threads) per request.
    pub cpu_us_per_request: f64,
    /// The user part.
    pub user_us_per_request: f64,
    /// The system part.
    pub system_us_per_request: f64,
    /// Context switches per request.
    pub switches_per_request: f64,
    /// The voluntary ones.
    pub voluntary_per_request: f64,
    /// CPUs in use on average.
    pub cpus: f64,
    /// The busiest thread's share of the window.
    pub busiest_thread: f64,
    /// Time ready to run without a CPU, as a share of the window.
    pub waited: f64,
    /// Resident memory at the end, bytes.
    pub rss_bytes: u64,
    /// Threads.
    pub threads: usize,
}

impl Cpu {
    /// A window's cost divided by its requests.
    pub fn of(cost: &Cost, requests: u64) -> Cpu {
        let per = |n: u64| n as f64 / requests.max(1) as f64;
        Cpu {
            cpu_us_per_request: per(cost.cpu_us()),
            user_us_per_request: per(cost.user_us),
            system_us_per_request: per(cost.system_us),
            switches_per_request: per(cost.voluntary_switches + cost.involuntary_switches),
            voluntary_per_request: per(cost.voluntary_switches),
            cpus: cost.cpus,
            busiest_thread: cost.busiest_thread,
            waited: cost.waited,
            rss_bytes: cost.rss_bytes,
            threads: cost.threads,
        }
    }
}

/// One kind of request.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct OpResult {
    /// The command.
    pub name: String,
    /// How many.
    pub count: u64,
    /// How long.
    pub latency: Summary,
}

/// One second of the window.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Second {
    /// Since the window opened.
    pub second: u64,
    /// Requests that began in it or were answered in it.
    pub requests: u64,
    /// Errors.
    pub errors: u64,
    /// Median, µs.
    pub p50_us: f64,
    /// 99th percentile, µs.
    pub p99_us: f64,
    /// Longest, µs.
    pub max_us: f64,
}

/// One run of the load generator.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct LoadResult {
    /// Name of the workload.
    pub workload: String,
    /// The server.
    pub endpoint: String,
    /// `closed` or `open`.
    pub mode: String,
    /// Requests per second asked for (open loop).
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Client threads.
    pub threads: usize,
    /// Requests in flight per connection.
    pub pipeline: usize,
    /// Keys.
    pub keys: u64,
    /// Their distribution.
    pub distribution: String,
    /// Value size.
    pub value_size: String,
    /// 2 or 3.
    pub resp: u8,
    /// `io_uring` or `epoll`.
    pub client_loop: String,
    /// Length of the window.
    pub seconds: f64,
    /// Requests answered in it.
    pub requests: u64,
    /// Requests per second.
    pub throughput: f64,
    /// Error replies, wrong replies, lost connections, missing replies.
    pub errors: u64,
    /// The first few in words.
    pub error_samples: Vec<String>,
    /// Nils where nil is allowed.
    pub misses: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Latency of all requests: closed loop from sending, open loop from the due time.
    pub latency: Summary,
    /// By command.
    pub by_op: Vec<OpResult>,
    /// By second.
    pub timeline: Vec<Second>,
    /// Percentile curve: quantile, µs.
    pub curve: Vec<(f64, f64)>,
    /// The server's cost.
    pub server: Option<Cpu>,
    /// The generator's own cost.
    pub client: Cpu,
    /// How late requests left although a connection was free (open loop).
    pub send_lag_p99_us: Option<f64>,
    /// Set when the client was the bottleneck.
    pub client_bound: Option<String>,
    /// Set when other processes took a noticeable share of the CPUs.
    pub disturbed: Option<String>,
    /// Set when the rate asked for was not reached.
    pub fell_behind: Option<String>,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
    /// There were errors: do not quote this run.
    pub failed: bool,
}

impl LoadResult {
    /// The table for a person.
    pub fn table(&self) -> String {
        let mut t = String::new();
        let rate = self.rate.map_or(String::new(), |r| format!(" at {r:.0}/s"));
        // A String takes any write.
        let _ = writeln!(
            t,
            "{} on {}: {} loop{rate}, {} connections, pipeline {}, {} threads ({}), {} keys {}, values of {} bytes",
            self.workload,
            self.endpoint,
            self.mode,
            self.connections,
            self.pipeline,
            self.threads,
            self.client_loop,
            self.keys,
            self.distribution,
            self.value_size
        );
        let _ = writeln!(
            t,
            "  {:.0} requests/s  ({} in {:.2} s, {} errors{})",
            self.throughput,
            self.requests,
            self.seconds,
            self.errors,
            if self.misses > 0 {
                format!(", {} misses", self.misses)
            } else {
                String::new()
            }
        );
        let _ = writeln!(
            t,
            "  {:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "µs", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
        );
        let row = |t: &mut String, name: &str, s: &Summary| {
            let _ = writeln!(
                t,
                "  {:<10} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                name, s.mean_us, s.p50_us, s.p90_us, s.p99_us, s.p999_us, s.p9999_us, s.max_us
            );
        };
        row(&mut t, "all", &self.latency);
        if self.by_op.len() > 1 {
            for op in &self.by_op {
                row(&mut t, &op.name, &op.latency);
            }
        }
        let cost = |t: &mut String, who: &str, c: &Cpu| {
            let _ = writeln!(
                t,
                "  {who}: {:.3} µs CPU per request ({:.3} user, {:.3} system), {:.4} switches per request, \
                 busiest thread {:.0} %, waited {:.1} %, RSS {:.1} MB",
                c.cpu_us_per_request,
                c.user_us_per_request,
                c.system_us_per_request,
                c.switches_per_request,
                100.0 * c.busiest_thread,
                100.0 * c.waited,
                c.rss_bytes as f64 / 1e6
            );
        };
        if let Some(server) = &self.server {
            cost(&mut t, "server", server);
        }
        cost(&mut t, "client", &self.client);
        if let Some(lag) = self.send_lag_p99_us {
            let _ = writeln!(
                t,
                "  sends left {lag:.1} µs late at p99 although a connection was free"
            );
        }
        for note in [&self.fell_behind, &self.client_bound, &self.disturbed]
            .into_iter()
            .flatten()
        {
            let _ = writeln!(t, "  ATTENTION: {note}");
        }
        if self.interrupted {
            let _ = writeln!(t, "  ended early by an interrupt");
        }
        if self.failed {
            let _ = writeln!(t, "  FAILED: {} errors, for instance:", self.errors);
            for sample in &self.error_samples {
                let _ = writeln!(t, "    {sample}");
            }
        }
        t
    }

    /// Heading of the CSV rows.
    pub const CSV_HEADING: &'static str = "workload,mode,rate,connections,threads,pipeline,keys,distribution,\
        value_size,seconds,requests,throughput,errors,misses,mean_us,p50_us,p90_us,p99_us,p999_us,p9999_us,max_us,\
        server_cpu_us,server_user_us,server_system_us,server_switches,server_rss_bytes,client_cpu_us,failed";

    /// One CSV row.
    pub fn csv(&self) -> String {
        let l = &self.latency;
        let s = self.server.clone().unwrap_or_default();
        format!(
            "{},{},{},{},{},{},{},{},{},{:.3},{},{:.1},{},{},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},{:.2},\
             {:.4},{:.4},{:.4},{:.5},{},{:.4},{}",
            self.workload,
            self.mode,
            self.rate.map_or(String::new(), |r| format!("{r:.0}")),
            self.connections,
            self.threads,
            self.pipeline,
            self.keys,
            self.distribution,
            self.value_size,
            self.seconds,
            self.requests,
            self.throughput,
            self.errors,
            self.misses,
            l.mean_us,
            l.p50_us,
            l.p90_us,
            l.p99_us,
            l.p999_us,
            l.p9999_us,
            l.max_us,
            s.cpu_us_per_request,
            s.user_us_per_request,
            s.system_us_per_request,
            s.switches_per_request,
            s.rss_bytes,
            self.client.cpu_us_per_request,
            self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::measure::histogram;

    #[test]
    fn the_curve_reaches_as_far_as_the_sample() {
        let mut h = histogram();
        for v in 1..=1000u64 {
            h.record(v * 1000).unwrap();
        }
        let c = curve(&h);
        assert!(c.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1));
        assert!(c[c.len() - 2].0 >= 0.998 && (c.last().unwrap().1 - 1000.0).abs() < 1.0);
        assert!(curve(&histogram()).is_empty());
        assert!(hgrm(&h).lines().count() > 20);
    }

    #[test]
    fn csv_rows_fit_their_heading() {
        let row = LoadResult::default().csv();
        assert_eq!(
            row.split(',').count(),
            LoadResult::CSV_HEADING.split(',').count()
        );
    }
}
