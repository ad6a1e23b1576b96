//! The results folder: README, one static HTML page, plots, raw data, summary.

use super::plots::{self, Plot};
use super::summary::{METRICS, Row, Summary};
use super::{Run, suite};
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
        let name = format!("{}-{}-{}-round{}", m.suite, m.step, m.engine, m.round);
        let json = serde_json::to_string_pretty(m).map_err(|e| e.to_string())?;
        put(raw.join(format!("{name}.json")), json)?;
        if !m.hgrm.is_empty() {
            put(raw.join(format!("{name}.hgrm")), m.hgrm.clone())?;
        }
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
    let plots = plots::plots(run, summary);
    let folder = out.join("plots");
    fs::create_dir_all(&folder).map_err(|e| told(&folder, e))?;
    for plot in &plots {
        put(folder.join(format!("{}.svg", plot.name)), plot.canvas.svg())?;
        let path = folder.join(format!("{}.png", plot.name));
        fs::write(&path, plot.canvas.png()?).map_err(|e| told(&path, e))?;
    }
    put(out.join("report.html"), html(run, summary, &plots))?;
    put(out.join("README.md"), readme(run, summary, &plots))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:.6em 0;font-size:13px}\
td,th{border:1px solid #ddd;padding:3px 8px;text-align:right;white-space:nowrap}\
td:first-child,th:first-child{text-align:left}small{color:#777}svg{max-width:100%;height:auto}\
.bad{color:#b00;font-weight:bold}.wide{overflow-x:auto}.facts td{text-align:left;white-space:normal}";

/// The page that holds everything: no script, no other file.
fn html(run: &Run, summary: &Summary, plots: &[Plot]) -> String {
    let title = format!("Comparison of {}, commit {}", run.date, run.commit);
    let mut t = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title><style>{STYLE}</style><h1>{0}</h1>",
        escape(&title)
    );
    // A String takes any write, here and below.
    if run.interrupted {
        t.push_str("<p class=bad>Ended early: not all rounds were measured.</p>");
    }
    if summary.failed {
        t.push_str("<p class=bad>Some measurements had errors and must not be quoted.</p>");
    }
    t.push_str("<div class=wide><table class=facts>");
    let mut facts = run.machine.rows();
    facts.push(("servers on CPUs", format!("{:?}", run.server_cpus)));
    facts.push(("load generator on CPUs", format!("{:?}", run.client_cpus)));
    facts.push(("arguments", run.arguments.join(" ")));
    for (name, value) in facts {
        let _ = write!(t, "<tr><td>{name}<td>{}", escape(&value));
    }
    t.push_str("</table><table class=facts><tr><th>engine<th>version<th>started as");
    for e in &run.engines {
        let (label, version, command) = (escape(&e.label), escape(&e.version), escape(&e.command));
        let _ = write!(t, "<tr><td>{label}<td>{version}<td><code>{command}</code>");
    }
    for (name, why) in &run.left_out {
        let _ = write!(t, "<tr><td>{}<td>left out<td>{}", escape(name), escape(why));
    }
    let base = run.engines.first().map_or("-", |e| e.label.as_str());
    let _ = write!(
        t,
        "</table></div><p>Each step was measured on all engines within seconds, round after round. Figures are medians \
         over the rounds, with the smallest and largest; × is the median of the ratios to {} within a round.</p>",
        escape(base)
    );
    let mut suites: Vec<&str> = summary.rows.iter().map(|r| r.suite.as_str()).collect();
    suites.dedup();
    for name in suites {
        let about = suite::suite(name).map_or("", |s| s.about);
        let _ = write!(t, "<h2>{}</h2><p>{}</p>", escape(name), escape(about));
        let mine = |p: &&Plot| p.name.starts_with(&format!("{name}-"));
        // Pictures of the whole suite first, then each step with its own.
        let rows: Vec<&Row> = summary.rows.iter().filter(|r| r.suite == name).collect();
        let mut steps: Vec<&str> = rows.iter().map(|r| r.step.as_str()).collect();
        steps.dedup();
        let of_step = |p: &&Plot, step: &str| {
            p.name == format!("{name}-{step}-percentiles")
                || p.name == format!("{name}-{step}-timeline")
        };
        for plot in plots
            .iter()
            .filter(mine)
            .filter(|p| !steps.iter().any(|s| of_step(p, s)))
        {
            let _ = write!(t, "<figure>{}</figure>", plot.canvas.svg());
        }
        for step in steps {
            let rows: Vec<&&Row> = rows.iter().filter(|r| r.step == step).collect();
            let rate = rows.iter().find_map(|r| r.rate);
            let rate = rate.map_or(String::new(), |r| {
                format!(", offered {r:.0} requests/s (open loop)")
            });
            let _ = write!(
                t,
                "<h3>{}{rate}</h3><div class=wide><table><tr><th>engine",
                escape(step)
            );
            let metrics: Vec<_> = METRICS
                .iter()
                .filter(|m| rows.iter().any(|r| r.cell(m.0).is_some()))
                .collect();
            for (metric, unit, _, _) in &metrics {
                let _ = write!(
                    t,
                    "<th>{metric}{}",
                    if unit.is_empty() {
                        String::new()
                    } else {
                        format!("<br>{unit}")
                    }
                );
            }
            for row in rows {
                let label = run
                    .engines
                    .iter()
                    .find(|e| e.name == row.engine)
                    .map_or(&row.engine, |e| &e.label);
                let _ = write!(t, "<tr><td>{}", escape(label));
                for (metric, _, decimals, _) in &metrics {
                    t.push_str("<td>");
                    let Some(cell) = row.cell(metric) else {
                        continue;
                    };
                    let (v, d) = (cell.value, *decimals);
                    let _ = write!(t, "{:.d$}", v.median);
                    if let Some(r) = cell.ratio {
                        let _ = write!(t, " ×{:.2}", r.median);
                    }
                    let _ = write!(t, "<br><small>{:.d$}–{:.d$}</small>", v.min, v.max);
                }
                if row.client_bound > 0 {
                    let _ = write!(
                        t,
                        "<td class=bad>client-bound in {} of {}",
                        row.client_bound, row.rounds
                    );
                }
                if row.errors > 0 {
                    let _ = write!(t, "<td class=bad>FAILED: {} errors", row.errors);
                }
            }
            t.push_str("</table></div>");
            for plot in plots.iter().filter(|p| of_step(p, step)) {
                let _ = write!(t, "<figure>{}</figure>", plot.canvas.svg());
            }
        }
    }
    t.push_str("</html>\n");
    t
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
pub fn readme(run: &Run, summary: &Summary, plots: &[Plot]) -> String {
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
    let _ = writeln!(
        t,
        "\nAll plots with all tables are in `report.html`, the raw data in `raw/`."
    );
    let (mut last_suite, mut last) = (String::new(), String::new());
    for row in &summary.rows {
        if row.suite != last_suite {
            last_suite = row.suite.clone();
            let about = suite::suite(&row.suite).map_or("", |s| s.about);
            let _ = writeln!(t, "\n## {}\n\n{about}", row.suite);
            let whole = |p: &&Plot| {
                [
                    "throughput",
                    "cpu",
                    "p99",
                    "bytes-per-key",
                    "throughput-latency-open",
                    "throughput-latency-closed",
                ]
                .iter()
                .any(|n| p.name == format!("{}-{n}", row.suite))
            };
            for plot in plots.iter().filter(whole) {
                let _ = writeln!(t, "\n![{}](plots/{}.svg)", plot.caption, plot.name);
            }
        }
        if row.step != last {
            last = row.step.clone();
            let rate = row.rate.map_or(String::new(), |r| {
                format!(", offered {r:.0} requests/s (open loop)")
            });
            let _ = writeln!(t, "\n### {}{rate}\n", row.step);
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
