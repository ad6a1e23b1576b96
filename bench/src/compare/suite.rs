//! Suites: lists of measurements that answer one question.
//!
//! A step is one measurement. Steps that need a server started differently, or empty, say so; all others share the
//! servers of a round. To add a suite, add it to [`suite`] and [`NAMES`].

/// How a step offers its load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Offer {
    /// As fast as replies come.
    Closed,
    /// A share of the capacity that an earlier step measured: of the slowest engine, so that all get one rate.
    Share(f64),
    /// So many requests per second.
    Rate(f64),
    /// No load: fill only, and see what a key takes.
    FillOnly,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Unique within its suite; letters, digits, `-` and `.`.
    pub name: String,
    /// Workload.
    pub workload: String,
    /// Connections.
    pub connections: usize,
    /// Connections that do nothing.
    pub idle: usize,
    /// Requests in flight per connection.
    pub pipeline: usize,
    /// Closed or open loop.
    pub offer: Offer,
    /// Number of keys.
    pub keys: u64,
    /// Value size; the workload's own if none.
    pub value_size: Option<String>,
    /// Key distribution.
    pub distribution: String,
    /// Server threads or shards; as many as it has CPUs if none.
    pub threads: Option<usize>,
    /// Needs an empty server.
    pub fresh: bool,
    /// Further steps with [`Offer::Share`] refer to this one.
    pub capacity: bool,
}

impl Step {
    /// A closed loop over a million keys.
    pub fn new(workload: &str, connections: usize, pipeline: usize) -> Step {
        let name = format!("{}-c{connections}-p{pipeline}", workload.replace(':', ""));
        Step {
            name,
            workload: workload.to_owned(),
            connections,
            idle: 0,
            pipeline,
            offer: Offer::Closed,
            keys: 1_000_000,
            value_size: None,
            distribution: "uniform".to_owned(),
            threads: None,
            fresh: false,
            capacity: false,
        }
    }
}

/// A list of steps.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// What it answers.
    pub about: &'static str,
    /// The measurements.
    pub steps: Vec<Step>,
    /// Rounds unless told otherwise.
    pub rounds: usize,
    /// Seconds per measurement unless told otherwise.
    pub seconds: f64,
    /// Only engines whose name starts so.
    pub only: Option<&'static str>,
}

/// Names of the built-in suites.
pub const NAMES: &[&str] = &[
    "quick",
    "latency",
    "pipeline",
    "shards",
    "memory",
    "loops",
    "connections",
    "types",
    "ycsb",
];

/// The suite of this name.
pub fn suite(name: &str) -> Option<Suite> {
    let make = |about, steps, rounds, seconds| {
        Some(Suite {
            name: name.to_owned(),
            about,
            steps,
            rounds,
            seconds,
            only: None,
        })
    };
    match name {
        "quick" => {
            let mut steps = Vec::new();
            for pipeline in [1, 16] {
                for workload in ["get", "set"] {
                    steps.push(Step::new(workload, 50, pipeline));
                }
            }
            steps.push(Step::new("mget:10", 50, 1));
            steps.push(Step {
                distribution: "zipfian".to_owned(),
                name: "mixed90-zipfian".to_owned(),
                ..Step::new("mixed:90", 50, 1)
            });
            make(
                "The first impression: GET and SET with and without pipeline, MGET, a skewed mix",
                steps,
                3,
                1.5,
            )
        }
        "latency" => {
            let mut steps: Vec<Step> = [1, 50, 500, 5000].map(|c| Step::new("get", c, 1)).to_vec();
            steps[1].capacity = true;
            for percent in [30, 50, 70, 90] {
                steps.push(Step {
                    name: format!("get-open-{percent}"),
                    offer: Offer::Share(f64::from(percent) / 100.0),
                    ..Step::new("get", 50, 1)
                });
            }
            make(
                "How long a request takes, alone, in company, and at a share of the capacity (open loop)",
                steps,
                5,
                5.0,
            )
        }
        "pipeline" => {
            let mut steps = Vec::new();
            for workload in ["get", "set"] {
                steps.extend([1, 4, 16, 64].map(|p| Step::new(workload, 50, p)));
            }
            make("What pipelining saves", steps, 5, 3.0)
        }
        "shards" => {
            let mut steps = Vec::new();
            for threads in [1, 2, 4, 8, 16] {
                for (workload, pipeline) in
                    [("get", 1), ("get", 16), ("mget:10", 16), ("mset:10", 16)]
                {
                    let step = Step::new(workload, 50, pipeline);
                    steps.push(Step {
                        name: format!("{}-t{threads}", step.name),
                        threads: Some(threads),
                        ..step
                    });
                }
            }
            make(
                "The cost of a hop: more shards or threads on the same cores",
                steps,
                3,
                2.0,
            )
        }
        "memory" => {
            let rows: &[(&str, u64, Option<&str>)] = &[
                ("set", 1_000_000, Some("8")),
                ("set", 1_000_000, Some("32")),
                ("set", 1_000_000, Some("128")),
                ("set", 200_000, Some("1024")),
                ("hget", 500_000, None),
                ("lpush", 500_000, None),
                ("sadd", 500_000, None),
                ("zadd", 500_000, None),
                ("zrange", 100_000, None),
                ("xread", 200_000, None),
                ("ycsb-c", 100_000, None),
                ("lrange100", 20_000, None),
                // Large ones: what is counted as a key is an element.
                ("lindex", 1_000_000, None),
                ("hget-big", 1_000_000, None),
                ("sismember", 1_000_000, None),
                ("zrank", 1_000_000, None),
                ("xrange", 1_000_000, None),
            ];
            let steps = rows
                .iter()
                .map(|(workload, keys, size)| Step {
                    name: format!("{workload}-{}", size.unwrap_or("default")),
                    offer: Offer::FillOnly,
                    keys: *keys,
                    value_size: size.map(str::to_owned),
                    fresh: true,
                    ..Step::new(workload, 8, 64)
                })
                .collect();
            make("Bytes per key by type", steps, 1, 0.0)
        }
        "loops" => {
            let steps = vec![
                Step::new("get", 1, 1),
                Step::new("get", 50, 1),
                Step::new("get", 50, 16),
                Step::new("get", 500, 1),
                Step {
                    offer: Offer::Rate(5_000.0),
                    name: "get-open-5k".to_owned(),
                    ..Step::new("get", 50, 1)
                },
            ];
            let suite = make(
                "io_uring against epoll, with and without busy polling",
                steps,
                5,
                3.0,
            );
            suite.map(|s| Suite {
                only: Some("ringshard"),
                ..s
            })
        }
        "connections" => {
            let mut steps: Vec<Step> = [100, 1_000, 10_000, 20_000]
                .map(|c| Step::new("get", c, 1))
                .to_vec();
            for idle in [1_000, 10_000, 20_000] {
                steps.push(Step {
                    name: format!("get-c50-idle{idle}"),
                    idle,
                    ..Step::new("get", 50, 1)
                });
            }
            for step in &mut steps {
                step.keys = 100_000;
                // What thousands of clients leave behind must not weigh on the next step.
                step.fresh = true;
            }
            make("Many connections, busy or mostly idle", steps, 3, 4.0)
        }
        "types" => {
            // What makes a large reply, or goes through whole collections, comes from fewer keys and is not pipelined.
            let rows: &[(&str, u64, usize)] = &[
                ("incr", 100_000, 16),
                ("append", 100_000, 16),
                ("del", 100_000, 16),
                ("lpush", 100_000, 16),
                ("lrange", 10_000, 16),
                ("lrange100", 1_000, 1),
                ("hset", 100_000, 16),
                ("hget", 100_000, 16),
                ("hget-big", 100_000, 16),
                ("sadd", 100_000, 16),
                ("sismember", 100_000, 16),
                ("sinter", 5_000, 1),
                ("zadd", 100_000, 16),
                ("zrange", 100_000, 16),
                ("zrangebyscore", 100_000, 16),
                ("zrank", 100_000, 16),
                ("zunionstore", 5_000, 1),
                ("xadd", 100_000, 16),
                ("xread", 100_000, 16),
                ("xreadgroup", 100_000, 16),
                ("eval", 100_000, 16),
                ("setbit", 100_000, 16),
                ("pfadd", 100_000, 16),
                ("geosearch", 100_000, 1),
                ("mset:10", 100_000, 16),
            ];
            let steps = rows.iter().map(|(workload, keys, pipeline)| Step {
                keys: *keys,
                // Collections of one name are filled by one step, for itself.
                fresh: matches!(*workload, "zrank" | "zrangebyscore"),
                ..Step::new(workload, 50, *pipeline)
            });
            make("Each data type's core commands", steps.collect(), 3, 1.5)
        }
        "ycsb" => {
            let steps = ["a", "b", "c", "d", "e", "f"].map(|x| Step {
                keys: 100_000,
                distribution: if x == "d" { "latest" } else { "zipfian" }.to_owned(),
                // Inserts of D and E must not leak into each other's keyspace.
                fresh: matches!(x, "d" | "e"),
                ..Step::new(&format!("ycsb-{x}"), 50, 1)
            });
            make("YCSB A to F", steps.to_vec(), 3, 3.0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::Workload;

    #[test]
    fn every_suite_names_real_workloads_and_different_steps() {
        for name in NAMES {
            let suite = suite(name).unwrap();
            for (i, step) in suite.steps.iter().enumerate() {
                Workload::load(&step.workload).unwrap();
                assert!(
                    suite.steps[..i].iter().all(|s| s.name != step.name),
                    "{name}: {} twice",
                    step.name
                );
                if let Offer::Share(_) = step.offer {
                    assert!(
                        suite.steps[..i].iter().any(|s| s.capacity),
                        "{name}: {} refers to nothing",
                        step.name
                    );
                }
            }
        }
        assert!(suite("nonsense").is_none());
    }
}
