//! `sweep`: rising rates until the p99 target breaks, which gives the curve of latency over throughput.
//!
//! Every point is an open-loop run, so a point past the capacity shows the queue that grows there instead of
//! hiding it. Rates grow by a factor; the step in which the target broke is then halved a few times, to find the
//! highest rate that keeps it.

use crate::chart::{COLORS, Curves, Scale, Series};
use crate::load::{self, INTERRUPTED, LoadSpec};
use crate::options::LoadOptions;
use crate::result::LoadResult;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// How far to go.
#[derive(Args, Clone)]
pub struct SweepOptions {
    #[command(flatten)]
    load: LoadOptions,
    /// The latency that must hold at p99, µs.
    #[arg(long, default_value_t = 1000.0)]
    target_p99_us: f64,
    /// First rate, requests per second.
    #[arg(long, default_value_t = 1000.0)]
    from: f64,
    /// Last rate at most.
    #[arg(long, default_value_t = 10_000_000.0)]
    to: f64,
    /// Growth from one rate to the next.
    #[arg(long, default_value_t = 1.5)]
    factor: f64,
    /// Halvings of the step in which the target broke.
    #[arg(long, default_value_t = 3)]
    refine: u32,
    /// Write all points as JSON.
    #[arg(long)]
    sweep_json: Option<PathBuf>,
    /// Draw the curve to FILE.svg and FILE.png.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// A finished sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep {
    /// The target, µs.
    pub target_p99_us: f64,
    /// The highest rate that kept it.
    pub best_rate: Option<f64>,
    /// All runs, by rate.
    pub points: Vec<LoadResult>,
}

/// Whether a run kept the target: latency, rate and replies all right.
fn keeps(result: &LoadResult, target_p99_us: f64) -> bool {
    !result.failed && result.fell_behind.is_none() && result.latency.p99_us <= target_p99_us
}

/// Measures rising rates with `measure` (rate in, result out) and returns all points.
pub fn sweep(
    options: (f64, f64, f64, u32, f64),
    mut measure: impl FnMut(f64) -> Result<LoadResult, String>,
) -> Result<Sweep, String> {
    let (from, to, factor, refine, target_p99_us) = options;
    let mut sweep = Sweep {
        target_p99_us,
        best_rate: None,
        points: Vec::new(),
    };
    let mut broken = None;
    let mut rate = from;
    while rate <= to && !INTERRUPTED.load(Ordering::Relaxed) {
        let result = measure(rate)?;
        let kept = keeps(&result, target_p99_us);
        sweep.points.push(result);
        if !kept {
            broken = Some(rate);
            break;
        }
        sweep.best_rate = Some(rate);
        rate *= factor;
    }
    for _ in 0..refine {
        let (Some(low), Some(high)) = (sweep.best_rate, broken) else {
            break;
        };
        if INTERRUPTED.load(Ordering::Relaxed) {
            break;
        }
        let middle = (low * high).sqrt();
        let result = measure(middle)?;
        if keeps(&result, target_p99_us) {
            sweep.best_rate = Some(middle);
        } else {
            broken = Some(middle);
        }
        sweep.points.push(result);
    }
    sweep
        .points
        .sort_by(|a, b| a.rate.unwrap_or(0.0).total_cmp(&b.rate.unwrap_or(0.0)));
    Ok(sweep)
}

impl Sweep {
    /// Latency over throughput.
    fn chart(&self) -> Curves {
        let of = |name: &str, color: usize, pick: fn(&LoadResult) -> f64| Series {
            name: name.to_owned(),
            color: COLORS[color],
            points: self
                .points
                .iter()
                .map(|p| (p.throughput, pick(p)))
                .collect(),
            marks: true,
        };
        Curves {
            title: format!(
                "Open loop at rising rates; target: p99 within {} µs",
                self.target_p99_us
            ),
            x: ("requests per second answered".to_owned(), Scale::Linear),
            y: ("µs from the due time".to_owned(), Scale::Log),
            series: vec![
                of("p50", 1, |p| p.latency.p50_us),
                of("p99", 0, |p| p.latency.p99_us),
                of("p99.9", 3, |p| p.latency.p999_us),
            ],
        }
    }
}

impl SweepOptions {
    /// Runs, shows and writes; false if a run failed.
    pub fn run(&self) -> Result<bool, String> {
        if !(self.factor > 1.0
            && self.from > 0.0
            && self.to >= self.from
            && self.target_p99_us > 0.0)
        {
            return Err(
                "--factor must exceed 1, and --from and --target-p99-us must be positive"
                    .to_owned(),
            );
        }
        let spec = self.load.spec()?;
        println!(
            "{:>12} {:>12} {:>10} {:>10} {:>10} {:>12}",
            "rate", "answered", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/req"
        );
        let mut first = true;
        let bounds = (
            self.from,
            self.to,
            self.factor,
            self.refine,
            self.target_p99_us,
        );
        let sweep = sweep(bounds, |rate| {
            let prefill = spec.prefill && first;
            first = false;
            let result = load::run(&LoadSpec {
                rate: Some(rate),
                prefill,
                ..spec.clone()
            })?
            .result;
            println!(
                "{rate:>12.0} {:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>12}{}{}",
                result.throughput,
                result.latency.p50_us,
                result.latency.p99_us,
                result.latency.p999_us,
                result
                    .server
                    .as_ref()
                    .map_or("-".to_owned(), |s| format!("{:.3}", s.cpu_us_per_request)),
                if result.client_bound.is_some() {
                    "  CLIENT-BOUND"
                } else {
                    ""
                },
                if result.failed { "  FAILED" } else { "" },
            );
            Ok(result)
        })?;
        match sweep.best_rate {
            Some(rate) => println!(
                "p99 stays within {} µs up to {rate:.0} requests/s",
                self.target_p99_us
            ),
            None => println!(
                "p99 exceeds {} µs at the first rate already",
                self.target_p99_us
            ),
        }
        let first_broken = sweep.points.iter().find(|p| !keeps(p, self.target_p99_us));
        if first_broken.is_some_and(|p| p.client_bound.is_some() || p.disturbed.is_some()) {
            println!("ATTENTION: there the client or the machine was the limit, not the server");
        }
        if let Some(path) = &self.sweep_json {
            let text = serde_json::to_string_pretty(&sweep).map_err(|e| e.to_string())?;
            std::fs::write(path, text)
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        if let Some(path) = &self.plot {
            let canvas = sweep.chart().draw();
            let told = |p: &std::path::Path, e: std::io::Error| {
                format!("cannot write {}: {e}", p.display())
            };
            let (svg, png) = (path.with_extension("svg"), path.with_extension("png"));
            std::fs::write(&svg, canvas.svg()).map_err(|e| told(&svg, e))?;
            std::fs::write(&png, canvas.png()?).map_err(|e| told(&png, e))?;
        }
        Ok(sweep.points.iter().all(|p| !p.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Summary;

    #[test]
    fn it_finds_the_rate_where_the_target_breaks() {
        // A server whose p99 passes 1 ms at 50,000 requests per second.
        let measure = |rate: f64| {
            let latency = Summary {
                p99_us: if rate < 50_000.0 { 300.0 } else { 4000.0 },
                ..Summary::default()
            };
            Ok(LoadResult {
                rate: Some(rate),
                latency,
                ..LoadResult::default()
            })
        };
        let found = sweep((1000.0, 1e7, 2.0, 6, 1000.0), measure).unwrap();
        let best = found.best_rate.unwrap();
        assert!((48_000.0..50_000.0).contains(&best), "{best}");
        assert!(found.points.windows(2).all(|w| w[0].rate <= w[1].rate));
        let none = sweep((60_000.0, 1e7, 2.0, 3, 1000.0), measure).unwrap();
        assert_eq!((none.best_rate, none.points.len()), (None, 1));
    }
}
