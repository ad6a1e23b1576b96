//! The results folder: README, raw data, summary.

use super::Run;
use super::summary::{METRICS, Summary};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes everything under `out`.
pub fn write(out: &Path, run: &Run, summary: &Summary) -> Result<(), String> {
    let told = |path: &Path, e: std::io::Error| format!("cannot write {}: {e}", path.display());
    let raw = out.join("raw");
    fs::create_dir_all(&raw).map_err(|e| told(&raw, e))?;
    let put =
        |path: std::path::PathBuf, text: String| fs::write(&path, text).map_err(|e| told(&path, e));
    for m in &run.measurements {
        let name = format!("{}-{}-{}-round{}.json", m.suite, m.step, m.engine, m.round);
        put(
            raw.join(name),
            serde_json::to_string_pretty(m).map_err(|e| e.to_string())?,
        )?;
    }
    put(
        out.join("run.json"),
        serde_json::to_string_pretty(&bare(run)).map_err(|e| e.to_string())?,
    )?;
    put(
        out.join("summary.json"),
        serde_json::to_string_pretty(summary).map_err(|e| e.to_string())?,
    )?;
    put(out.join("summary.csv"), csv(summary))?;
    put(out.join("README.md"), readme(run, summary))
}

/// The run without its measurements, which lie in files of their own.
fn bare(run: &Run) -> Run {
    Run {
        measurements: Vec::new(),
        ..run.clone()
    }
}

fn csv(summary: &Summary) -> String {
    let mut t = String::from(
        "suite,step,engine,rounds,metric,unit,median,min,max,ratio,ratio_min,ratio_max\n",
    );
    for row in &summary.rows {
        for cell in &row.cells {
            let unit = METRICS
                .iter()
                .find(|m| m.0 == cell.metric)
                .map_or("", |m| m.1);
            let ratio = cell.ratio.map_or(",,".to_owned(), |r| {
                format!("{},{},{}", r.median, r.min, r.max)
            });
            let v = cell.value;
            // A String takes any write.
            let _ = writeln!(
                t,
                "{},{},{},{},{},{unit},{},{},{},{ratio}",
                row.suite, row.step, row.engine, row.rounds, cell.metric, v.median, v.min, v.max
            );
        }
    }
    t
}

/// The summary in words and tables.
pub fn readme(run: &Run, summary: &Summary) -> String {
    let mut t = String::new();
    // A String takes any write, here and below.
    let _ = writeln!(t, "# Comparison of {}, commit {}\n", run.date, run.commit);
    if run.interrupted {
        let _ = writeln!(t, "**Ended early: not all rounds were measured.**\n");
    }
    let _ = writeln!(t, "| machine | |\n| --- | --- |");
    for (name, value) in run.machine.rows() {
        let _ = writeln!(t, "| {name} | {value} |");
    }
    let _ = writeln!(
        t,
        "| servers on CPUs | {:?} |\n| load generator on CPUs | {:?} |",
        run.server_cpus, run.client_cpus
    );
    let _ = writeln!(t, "| arguments | `{}` |\n", run.arguments.join(" "));
    let _ = writeln!(t, "| engine | version | started as |\n| --- | --- | --- |");
    for e in &run.engines {
        let _ = writeln!(t, "| {} | {} | `{}` |", e.label, e.version, e.command);
    }
    for (name, why) in &run.left_out {
        let _ = writeln!(t, "| {name} | left out | {why} |");
    }
    let _ = writeln!(
        t,
        "\nEach step was measured on all engines within seconds, round after round. Figures are medians over the rounds \
         (smallest–largest); a ratio divides by {} in the same round.",
        run.engines.first().map_or("-", |e| e.label.as_str())
    );
    let label = |name: &str| {
        run.engines
            .iter()
            .find(|e| e.name == name)
            .map_or(name, |e| e.label.as_str())
            .to_owned()
    };
    let mut last = String::new();
    for row in &summary.rows {
        if row.step != last {
            last = row.step.clone();
            let rate = row.rate.map_or(String::new(), |r| {
                format!(", offered {r:.0} requests/s (open loop)")
            });
            let _ = writeln!(t, "\n## {}: {}{rate}\n", row.suite, row.step);
            let mut heading = String::from("| engine |");
            let mut rule = String::from("| --- |");
            for cell in &row.cells {
                let unit = METRICS
                    .iter()
                    .find(|m| m.0 == cell.metric)
                    .map_or("", |m| m.1);
                let unit = if unit.is_empty() || unit == "1/s" {
                    String::new()
                } else {
                    format!(", {unit}")
                };
                heading.push_str(&format!(" {}{unit} |", cell.metric));
                rule.push_str(" ---: |");
            }
            let _ = writeln!(t, "{heading}\n{rule}");
        }
        let mut line = format!("| {} |", label(&row.engine));
        for cell in &row.cells {
            let decimals = METRICS
                .iter()
                .find(|m| m.0 == cell.metric)
                .map_or(2, |m| m.2);
            let v = cell.value;
            let _ = write!(
                line,
                " {:.*} ({:.*}–{:.*})",
                decimals, v.median, decimals, v.min, decimals, v.max
            );
            if let Some(r) = cell.ratio {
                let _ = write!(line, ", ×{:.2}", r.median);
            }
            line.push_str(" |");
        }
        if row.client_bound > 0 {
            let _ = write!(
                line,
                " client-bound in {} of {} rounds",
                row.client_bound, row.rounds
            );
        }
        if row.errors > 0 {
            let _ = write!(line, " **FAILED: {} errors**", row.errors);
        }
        let _ = writeln!(t, "{line}");
    }
    t
}
