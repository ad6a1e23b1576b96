//! Reducing a run: medians, their spread, and ratios taken within a round.

use super::Run;
use crate::result::LoadResult;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The middle of some numbers.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut v: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
    v.sort_by(f64::total_cmp);
    let n = v.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(v[n / 2]),
        _ => Some((v[n / 2 - 1] + v[n / 2]) / 2.0),
    }
}

/// A median with the smallest and largest value beside it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of some numbers; `None` of none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let median = median(values)?;
        let finite = || values.iter().copied().filter(|x| x.is_finite());
        Some(Spread {
            median,
            min: finite().fold(f64::MAX, f64::min),
            max: finite().fold(f64::MIN, f64::max),
        })
    }
}

/// What is reported of each measurement: name, unit, decimals, and how to read it off.
type Metric = (
    &'static str,
    &'static str,
    usize,
    fn(&super::Measurement) -> Option<f64>,
);

fn of_server(m: &super::Measurement, pick: fn(&crate::result::Cpu) -> f64) -> Option<f64> {
    m.result.server.as_ref().map(pick)
}

fn measured(m: &super::Measurement, pick: fn(&LoadResult) -> f64) -> Option<f64> {
    (m.result.requests > 0).then(|| pick(&m.result))
}

/// All metrics, in the order of columns.
pub const METRICS: &[Metric] = &[
    ("requests/s", "1/s", 0, |m| measured(m, |r| r.throughput)),
    ("p50", "µs", 1, |m| measured(m, |r| r.latency.p50_us)),
    ("p99", "µs", 1, |m| measured(m, |r| r.latency.p99_us)),
    ("p99.9", "µs", 1, |m| measured(m, |r| r.latency.p999_us)),
    ("server CPU/request", "µs", 3, |m| {
        of_server(m, |c| c.cpu_us_per_request)
    }),
    ("user", "µs", 3, |m| {
        of_server(m, |c| c.user_us_per_request)
    }),
    ("system", "µs", 3, |m| {
        of_server(m, |c| c.system_us_per_request)
    }),
    ("switches/request", "", 4, |m| {
        of_server(m, |c| c.switches_per_request)
    }),
    ("RSS", "MB", 1, |m| {
        of_server(m, |c| c.rss_bytes as f64 / 1e6)
    }),
    ("waited for a CPU", "%", 1, |m| {
        of_server(m, |c| 100.0 * c.waited)
    }),
    ("client CPU/request", "µs", 3, |m| {
        measured(m, |r| r.client.cpu_us_per_request)
    }),
    ("bytes/key", "B", 1, |m| m.bytes_per_key),
    ("RSS bytes/key", "B", 1, |m| m.rss_bytes_per_key),
];

/// One metric of one engine at one step.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Cell {
    /// As in [`METRICS`].
    pub metric: String,
    /// Over the rounds.
    pub value: Spread,
    /// This engine's value divided by the base engine's of the same round.
    pub ratio: Option<Spread>,
}

/// One engine at one step.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Row {
    /// Suite.
    pub suite: String,
    /// Step.
    pub step: String,
    /// Engine.
    pub engine: String,
    /// Rounds measured.
    pub rounds: usize,
    /// Requests per second offered, for open loops (median).
    pub rate: Option<f64>,
    /// Errors of all rounds.
    pub errors: u64,
    /// Rounds in which the client was the bottleneck.
    pub client_bound: usize,
    /// Metrics.
    pub cells: Vec<Cell>,
}

impl Row {
    /// A metric by name.
    pub fn cell(&self, metric: &str) -> Option<&Cell> {
        self.cells.iter().find(|c| c.metric == metric)
    }
}

/// The whole run, reduced.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Summary {
    /// Engine that ratios refer to.
    pub base: String,
    /// Rows by step, then engine.
    pub rows: Vec<Row>,
    /// Some measurement had errors.
    pub failed: bool,
}

impl Summary {
    /// Reduces a run. The base is the first engine in the order of the table of engines.
    pub fn of(run: &Run) -> Summary {
        let base = run
            .engines
            .first()
            .map(|e| e.name.clone())
            .unwrap_or_default();
        let mut steps: Vec<(&str, &str)> = Vec::new();
        for m in &run.measurements {
            let key = (m.suite.as_str(), m.step.as_str());
            if !steps.contains(&key) {
                steps.push(key);
            }
        }
        let mut rows = Vec::new();
        for (suite, step) in steps {
            for engine in &run.engines {
                let of = |name: &str| -> Vec<&super::Measurement> {
                    let here = |m: &&super::Measurement| {
                        m.suite == suite && m.step == step && m.engine == name
                    };
                    run.measurements.iter().filter(here).collect()
                };
                let own = of(&engine.name);
                let theirs = of(&base);
                if own.is_empty() {
                    continue;
                }
                let cells = METRICS
                    .iter()
                    .filter_map(|(metric, _, _, pick)| {
                        let values: Vec<f64> = own.iter().filter_map(|m| pick(m)).collect();
                        let ratios: Vec<f64> = own
                            .iter()
                            .filter_map(|m| {
                                let other = theirs.iter().find(|o| o.round == m.round)?;
                                Some(pick(m)? / pick(other)?)
                            })
                            .collect();
                        let ratio = if engine.name == base {
                            None
                        } else {
                            Spread::of(&ratios)
                        };
                        Some(Cell {
                            metric: (*metric).to_owned(),
                            value: Spread::of(&values)?,
                            ratio,
                        })
                    })
                    .collect();
                rows.push(Row {
                    suite: suite.to_owned(),
                    step: step.to_owned(),
                    engine: engine.name.clone(),
                    rounds: own.len(),
                    rate: median(
                        &own.iter()
                            .filter_map(|m| m.result.rate)
                            .collect::<Vec<f64>>(),
                    ),
                    errors: own.iter().map(|m| m.result.errors).sum(),
                    client_bound: own
                        .iter()
                        .filter(|m| m.result.client_bound.is_some())
                        .count(),
                    cells,
                });
            }
        }
        Summary {
            base,
            failed: rows.iter().any(|r| r.errors > 0),
            rows,
        }
    }

    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut t = String::new();
        let mut last = String::new();
        for row in &self.rows {
            if row.step != last {
                last = row.step.clone();
                let rate = row.rate.map_or(String::new(), |r| format!(" at {r:.0}/s"));
                // A String takes any write.
                let _ = writeln!(t, "\n{} {}{rate}", row.suite, row.step);
                let fill = row.cell("bytes/key").is_some() || row.cell("RSS bytes/key").is_some();
                let _ = if fill {
                    writeln!(
                        t,
                        "  {:<22} {:>22} {:>22}",
                        "engine", "bytes/key", "RSS bytes/key"
                    )
                } else {
                    writeln!(
                        t,
                        "  {:<22} {:>9} {:>22} {:>9} {:>9} {:>9} {:>26} {:>8} {:>8}",
                        "engine",
                        "1/s",
                        "ratio",
                        "p50 µs",
                        "p99 µs",
                        "p99.9 µs",
                        "server CPU µs, ratio",
                        "RSS MB",
                        "waited"
                    )
                };
            }
            let value = |metric: &str, decimals: usize| {
                row.cell(metric).map_or("-".to_owned(), |c| {
                    format!("{:.*}", decimals, c.value.median)
                })
            };
            let ratio = |metric: &str| match row.cell(metric).and_then(|c| c.ratio) {
                Some(r) => format!("{:.2} ({:.2}–{:.2})", r.median, r.min, r.max),
                None => "base".to_owned(),
            };
            let fill = row.cell("bytes/key").is_some() || row.cell("RSS bytes/key").is_some();
            let _ = if fill {
                writeln!(
                    t,
                    "  {:<22} {:>22} {:>22}",
                    row.engine,
                    format!("{} {}", value("bytes/key", 1), ratio("bytes/key")),
                    format!("{} {}", value("RSS bytes/key", 1), ratio("RSS bytes/key"))
                )
            } else {
                writeln!(
                    t,
                    "  {:<22} {:>9} {:>22} {:>9} {:>9} {:>9} {:>26} {:>8} {:>6} %{}{}",
                    row.engine,
                    value("requests/s", 0),
                    ratio("requests/s"),
                    value("p50", 1),
                    value("p99", 1),
                    value("p99.9", 1),
                    format!(
                        "{} {}",
                        value("server CPU/request", 3),
                        ratio("server CPU/request")
                    ),
                    value("RSS", 1),
                    value("waited for a CPU", 1),
                    if row.client_bound > 0 {
                        "  CLIENT-BOUND"
                    } else {
                        ""
                    },
                    if row.errors > 0 {
                        format!("  FAILED: {} errors", row.errors)
                    } else {
                        String::new()
                    },
                )
            };
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EngineInfo, Measurement};
    use super::*;
    use crate::machine::Machine;

    fn run(figures: &[(usize, &str, f64)]) -> Run {
        let engine = |name: &str| EngineInfo {
            name: name.to_owned(),
            label: name.to_owned(),
            version: String::new(),
            command: String::new(),
        };
        Run {
            date: String::new(),
            machine: Machine::default(),
            commit: String::new(),
            arguments: Vec::new(),
            server_cpus: vec![0],
            client_cpus: vec![1],
            engines: vec![engine("a"), engine("b")],
            left_out: Default::default(),
            measurements: figures
                .iter()
                .map(|&(round, engine, throughput)| Measurement {
                    round,
                    suite: "s".to_owned(),
                    step: "get".to_owned(),
                    engine: engine.to_owned(),
                    result: LoadResult {
                        throughput,
                        requests: 1,
                        ..LoadResult::default()
                    },
                    hgrm: String::new(),
                    bytes_per_key: None,
                    rss_bytes_per_key: None,
                })
                .collect(),
            interrupted: false,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is half as fast in round two; the ratio does not care.
        let summary = Summary::of(&run(&[
            (1, "a", 100.0),
            (1, "b", 150.0),
            (2, "b", 75.0),
            (2, "a", 50.0),
            (3, "a", 90.0),
        ]));
        let b = summary.rows.iter().find(|r| r.engine == "b").unwrap();
        let cell = b.cell("requests/s").unwrap();
        assert_eq!(
            cell.ratio,
            Some(Spread {
                median: 1.5,
                min: 1.5,
                max: 1.5
            })
        );
        assert_eq!(
            cell.value,
            Spread {
                median: 112.5,
                min: 75.0,
                max: 150.0
            }
        );
        assert_eq!(b.rounds, 2);
        assert!(summary.table().contains("1.50 (1.50–1.50)"));
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[f64::NAN]), None);
    }
}
