//! The pictures of a run: bars per metric, percentile curves per step, latency over throughput, timelines.

use super::summary::{Spread, Summary};
use super::{Measurement, Run};
use crate::canvas::Canvas;
use crate::chart::{Bars, COLORS, Curves, Scale, Series};

/// A picture with the name of its file.
pub struct Plot {
    /// File name without extension.
    pub name: String,
    /// What it shows, for the report.
    pub caption: String,
    /// The picture.
    pub canvas: Canvas,
}

/// The round whose p99 is the median one: a curve of a real run, not a mean of curves.
fn typical<'a>(run: &'a Run, suite: &str, step: &str, engine: &str) -> Option<&'a Measurement> {
    let mut all: Vec<&Measurement> = run
        .measurements
        .iter()
        .filter(|m| m.suite == suite && m.step == step && m.engine == engine)
        .collect();
    all.sort_by(|a, b| a.result.latency.p99_us.total_cmp(&b.result.latency.p99_us));
    all.get(all.len().checked_sub(1)? / 2).copied()
}

/// All pictures of a run.
pub fn plots(run: &Run, summary: &Summary) -> Vec<Plot> {
    let mut plots = Vec::new();
    let mut suites: Vec<&str> = summary.rows.iter().map(|r| r.suite.as_str()).collect();
    suites.dedup();
    for suite in suites {
        let mut steps: Vec<&str> = summary
            .rows
            .iter()
            .filter(|r| r.suite == suite)
            .map(|r| r.step.as_str())
            .collect();
        steps.dedup();
        bars(&mut plots, run, summary, suite, &steps);
        over_throughput(&mut plots, run, summary, suite, &steps);
        for step in steps {
            curves(&mut plots, run, suite, step);
        }
    }
    plots
}

fn bars(plots: &mut Vec<Plot>, run: &Run, summary: &Summary, suite: &str, steps: &[&str]) {
    let wanted = [
        (
            "requests/s",
            "throughput",
            "requests per second",
            "more is better",
        ),
        (
            "server CPU/request",
            "cpu",
            "µs of server CPU per request (user and system, all threads)",
            "less is better",
        ),
        ("p99", "p99", "µs at the 99th percentile", "less is better"),
        (
            "bytes/key",
            "bytes-per-key",
            "bytes per key by used_memory",
            "less is better",
        ),
    ];
    for (metric, file, unit, better) in wanted {
        let cell = |step: &str, engine: &str| -> Option<Spread> {
            let row = summary
                .rows
                .iter()
                .find(|r| r.suite == suite && r.step == step && r.engine == engine)?;
            row.cell(metric).map(|c| c.value)
        };
        let groups: Vec<&str> = steps
            .iter()
            .copied()
            .filter(|s| run.engines.iter().any(|e| cell(s, &e.name).is_some()))
            .collect();
        if groups.is_empty() {
            continue;
        }
        let series = run.engines.iter().enumerate().map(|(i, e)| {
            let bars = groups
                .iter()
                .map(|s| cell(s, &e.name).map(|v| (v.median, v.min, v.max)))
                .collect();
            (e.label.clone(), COLORS[i % COLORS.len()], bars)
        });
        let chart = Bars {
            title: format!("Suite {suite}: {unit}, {better}"),
            unit: "bar: median of the rounds; whisker: smallest to largest".to_owned(),
            groups: groups.iter().map(|s| (*s).to_owned()).collect(),
            series: series
                .filter(|s: &(_, _, Vec<_>)| s.2.iter().any(Option::is_some))
                .collect(),
        };
        let caption = format!("{unit} of each step, {better}");
        plots.push(Plot {
            name: format!("{suite}-{file}"),
            caption,
            canvas: chart.draw(),
        });
    }
}

/// Latency over throughput: for suites that offer several rates or numbers of connections.
fn over_throughput(
    plots: &mut Vec<Plot>,
    run: &Run,
    summary: &Summary,
    suite: &str,
    steps: &[&str],
) {
    let row = |step: &str, engine: &str| {
        summary
            .rows
            .iter()
            .find(|r| r.suite == suite && r.step == step && r.engine == engine)
    };
    let open = |step: &&&str| {
        run.engines
            .iter()
            .any(|e| row(step, &e.name).is_some_and(|r| r.rate.is_some()))
    };
    let (rated, closed): (Vec<&&str>, Vec<&&str>) = steps.iter().partition(|s| open(s));
    let busy: Vec<&&str> = closed.into_iter().filter(|s| !s.contains("idle")).collect();
    let sets = [
        (rated, "open", "open loop at rising rates"),
        (
            if matches!(suite, "connections" | "latency") {
                busy
            } else {
                Vec::new()
            },
            "closed",
            "closed loop with more and more connections",
        ),
    ];
    for (steps, file, what) in sets {
        if steps.len() < 3 {
            continue;
        }
        let series: Vec<Series> = run
            .engines
            .iter()
            .enumerate()
            .map(|(i, e)| Series {
                name: e.label.clone(),
                color: COLORS[i % COLORS.len()],
                points: steps
                    .iter()
                    .filter_map(|s| {
                        let row = row(s, &e.name)?;
                        Some((
                            row.cell("requests/s")?.value.median,
                            row.cell("p99")?.value.median,
                        ))
                    })
                    .collect(),
                marks: true,
            })
            .filter(|s| !s.points.is_empty())
            .collect();
        let chart = Curves {
            title: format!("Suite {suite}: latency over throughput, {what}"),
            x: ("requests per second".to_owned(), Scale::Linear),
            y: ("p99, µs".to_owned(), Scale::Log),
            series,
        };
        let caption = format!("p99 over throughput, {what}");
        plots.push(Plot {
            name: format!("{suite}-throughput-latency-{file}"),
            caption,
            canvas: chart.draw(),
        });
    }
}

fn curves(plots: &mut Vec<Plot>, run: &Run, suite: &str, step: &str) {
    let of = |pick: fn(&Measurement) -> Vec<(f64, f64)>, marks: bool| -> Vec<Series> {
        run.engines
            .iter()
            .enumerate()
            .filter_map(|(i, e)| {
                let points = pick(typical(run, suite, step, &e.name)?);
                let color = COLORS[i % COLORS.len()];
                (!points.is_empty()).then(|| Series {
                    name: e.label.clone(),
                    color,
                    points,
                    marks,
                })
            })
            .collect()
    };
    // The maximum has no place on an axis of «one in so many»; it stands in the tables.
    let series = of(
        |m| {
            m.result
                .curve
                .iter()
                .copied()
                .filter(|p| p.0 < 1.0)
                .collect()
        },
        false,
    );
    if !series.is_empty() {
        let chart = Curves {
            title: format!("Suite {suite}, {step}: latency by percentile"),
            x: (
                "share of requests answered within".to_owned(),
                Scale::Quantile,
            ),
            y: ("µs".to_owned(), Scale::Log),
            series,
        };
        let name = format!("{suite}-{step}-percentiles");
        plots.push(Plot {
            name,
            caption: format!("{step}: latency by percentile"),
            canvas: chart.draw(),
        });
    }
    let series = of(
        |m| {
            m.result
                .timeline
                .iter()
                .map(|s| (s.second as f64, s.p99_us))
                .collect()
        },
        true,
    );
    if series.iter().any(|s| s.points.len() >= 3) {
        let chart = Curves {
            title: format!("Suite {suite}, {step}: p99 second by second"),
            x: ("seconds".to_owned(), Scale::Linear),
            y: ("p99, µs".to_owned(), Scale::Log),
            series,
        };
        let name = format!("{suite}-{step}-timeline");
        plots.push(Plot {
            name,
            caption: format!("{step}: p99 second by second"),
            canvas: chart.draw(),
        });
    }
}
