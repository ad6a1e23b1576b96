//! `LATENCY`: spikes of named events, and how long commands take; the monitor itself is [`crate::latency`].
//! Counterpart: `latency.c`, and `sparkline.c` for the graph.

use super::info::{command_stats, sum};
use super::{Command, CommandError, CommandResult, Group, flag, help};
use crate::args::Args;
use crate::latency::Event;
use crate::message::{Answer, Detail, Question};
use crate::resp::Reply;
use crate::shard::Shard;
use crate::stats::CommandStats;

use flag::*;

const SERVER: Group = Group::Server;
const LATENCY: u32 = ADMIN | NOSCRIPT | LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("latency", SERVER).doc("2.8.13", "Depends on the subcommand.", "Reads the latency monitor.", ""),
    Command::home("latency|latest", latest, 2, LATENCY, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Returns the last spike of every event.",
        "",
    ),
    Command::home("latency|history", history, 3, LATENCY, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Returns the spikes of an event.",
        "event",
    ),
    Command::home("latency|reset", reset, -2, LATENCY, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Forgets the spikes of some or all events.",
        "[event [event ...]]",
    ),
    Command::home("latency|graph", graph, 3, LATENCY, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Draws the spikes of an event.",
        "event",
    ),
    Command::home("latency|doctor", doctor, 2, LATENCY, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Says what the spikes seen so far mean.",
        "",
    ),
    Command::gather("latency|histogram", histogram_question, histogram, -2, LATENCY, SERVER).doc(
        "7.0.0",
        "O(N), N being the number of commands with figures",
        "Returns how the durations of commands are distributed.",
        "[command [command ...]]",
    ),
    Command::home("latency|help", latency_help, 2, LOADING | STALE, SERVER).doc(
        "2.8.13",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

fn latest(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let monitor = shared.latency.lock().expect("no holder panics");
    let mut reply = shard.client(index).reply();
    reply.array(monitor.events.len());
    for (name, event) in &monitor.events {
        let (time, ms) = event.samples.last().copied().unwrap_or_default();
        reply.array(4);
        reply.bulk(name.as_bytes());
        reply.integer(time);
        reply.integer(ms as i64);
        reply.integer(event.max as i64);
    }
    Ok(())
}

fn history(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let monitor = shared.latency.lock().expect("no holder panics");
    let samples = find(&monitor.events, args.at(2)).map_or(&[][..], |(_, event)| event.samples.as_slice());
    let mut reply = shard.client(index).reply();
    reply.array(samples.len());
    for (time, ms) in samples {
        reply.array(2);
        reply.integer(*time);
        reply.integer(*ms as i64);
    }
    Ok(())
}

type Events = std::collections::BTreeMap<&'static str, Event>;

fn find<'a>(events: &'a Events, name: &[u8]) -> Option<(&'static str, &'a Event)> {
    events.iter().find(|(known, _)| known.as_bytes() == name).map(|(known, event)| (*known, event))
}

fn reset(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let names: Vec<&[u8]> = args.iter_from(2).collect();
    let count = shard.core.shared.latency.lock().expect("no holder panics").reset(&names);
    shard.client(index).reply().integer(count as i64);
    Ok(())
}

fn graph(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let monitor = shared.latency.lock().expect("no holder panics");
    let Some((name, event)) = find(&monitor.events, args.at(2)) else {
        let name = String::from_utf8_lossy(args.at(2));
        return Err(format!("ERR No samples available for event '{name}'").into());
    };
    let text = draw(name, event, shard.core.now_ms / 1000);
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: usize = 4;
/// Heights within one row of the graph.
const GRAPH_MARKS: [char; 3] = ['_', 'o', '#'];

/// How long ago, in the largest unit that fits.
fn age(seconds: i64) -> String {
    match seconds {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 24 * 3600 => format!("{}h", s / 3600),
        s => format!("{}d", s / (24 * 3600)),
    }
}

/// One column a spike, [`GRAPH_COLUMNS`] in a strip, with its age written downwards below it.
fn draw(name: &str, event: &Event, now: i64) -> String {
    let values: Vec<u64> = event.samples.iter().map(|(_, ms)| *ms).collect();
    let (low, high) = (values.iter().min().copied().unwrap_or(0), values.iter().max().copied().unwrap_or(0));
    let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {} ms)\n", event.max);
    text.push_str(&"-".repeat(GRAPH_COLUMNS));
    text.push('\n');
    let steps = GRAPH_ROWS * GRAPH_MARKS.len();
    let span = (high - low).max(1);
    for strip in event.samples.chunks(GRAPH_COLUMNS) {
        for row in (0..GRAPH_ROWS).rev() {
            for (_, ms) in strip {
                let step = (((ms - low) * steps as u64 / span) as usize).min(steps - 1);
                let floor = row * GRAPH_MARKS.len();
                text.push(match step.checked_sub(floor) {
                    None => ' ',
                    Some(above) => GRAPH_MARKS.get(above).copied().unwrap_or('|'),
                });
            }
            text.push('\n');
        }
        text.push('\n');
        let ages: Vec<String> = strip.iter().map(|(time, _)| age((now - time).max(0))).collect();
        for line in 0..ages.iter().map(String::len).max().unwrap_or(0) {
            text.extend(ages.iter().map(|age| age.as_bytes().get(line).map_or(' ', |b| *b as char)));
            text.push('\n');
        }
    }
    text
}

/// What an event means, and what to do about it.
fn advice(event: &str) -> &'static str {
    match event {
        "command" => {
            "Commands that are slow by nature: look at them with SLOWLOG GET, avoid them on large values, or split \
             the values. Deleting a large value is one of them; UNLINK frees it out of the way."
        }
        "fast-command" => {
            "Commands that cost next to nothing took long, so the thread was not running: the machine is overcommitted, \
             or swaps, or another shard's thread shares its core."
        }
        "expire-cycle" => "Many keys expire at the same moment; spread their times to live.",
        "eviction-cycle" | "eviction-del" => {
            "Much had to be evicted at once; raise maxmemory, or lower maxmemory-eviction-tenacity."
        }
        _ => "Look at what the server and the machine did at those moments.",
    }
}

fn doctor(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let monitor = shared.latency.lock().expect("no holder panics");
    let mut text = String::new();
    if monitor.events.is_empty() {
        text = match shard.core.config.latency_monitor_threshold {
            0 => "The latency monitor is off and has seen nothing. CONFIG SET latency-monitor-threshold \
                  <milliseconds> turns it on.\n"
                .into(),
            ms => format!("No event took {ms} ms or more since the monitor was last reset.\n"),
        };
    }
    for (number, (name, event)) in monitor.events.iter().enumerate() {
        let n = event.samples.len().max(1) as u64;
        let mean = event.samples.iter().map(|(_, ms)| ms).sum::<u64>() / n;
        let deviation = event.samples.iter().map(|(_, ms)| ms.abs_diff(mean)).sum::<u64>() / n;
        let first = event.samples.first().map_or(0, |(time, _)| *time);
        let period = (shard.core.now_ms / 1000 - first).max(0) as f64 / n as f64;
        if number == 0 {
            text.push_str("Events took longer than the threshold of the latency monitor:\n\n");
        }
        text.push_str(&format!(
            "{}. {name}: {n} latency spikes (average {mean}ms, mean deviation {deviation}ms, period {period:.2} sec). \
             Worst all time event {}ms.\n   {}\n\n",
            number + 1,
            event.max,
            advice(name)
        ));
    }
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

fn histogram_question(_: Args<'_>) -> Option<Question> {
    Some(Question::Report { detail: Detail::Histograms })
}

fn histogram(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let all = command_stats(&shard.core, &sum(answers));
    let known = |name: &str| all.iter().find(|(full, _)| *full == name);
    let mut wanted: Vec<&(&'static str, CommandStats)> = Vec::new();
    let table = shard.core.table;
    for name in args.iter_from(2) {
        let id = table.find_full(name);
        if id == crate::commands::UNKNOWN {
            continue;
        }
        // A container stands for all of its subcommands.
        for id in [id].iter().chain(table.subcommands(id)) {
            wanted.extend(known(table.row(*id).name));
        }
    }
    if args.len() == 2 {
        wanted = all.iter().collect();
    }
    wanted.retain(|(_, stats)| stats.latency.is_some());
    let mut reply = shard.client(index).reply();
    reply.map(wanted.len());
    for (name, stats) in wanted {
        reply.bulk(name.as_bytes());
        distribution(&mut reply, stats);
    }
    Ok(())
}

/// Durations in µs by powers of two, and how many commands took no longer.
fn distribution(reply: &mut Reply<'_>, stats: &CommandStats) {
    let Some(histogram) = &stats.latency else { return };
    reply.map(2);
    reply.bulk(b"calls");
    reply.integer(histogram.len() as i64);
    reply.bulk(b"histogram_usec");
    let list = reply.open_list();
    let (mut steps, mut seen) = (0, 0);
    for step in histogram.iter_log(1024, 2.0) {
        if step.count_since_last_iteration() == 0 {
            continue;
        }
        seen += step.count_since_last_iteration();
        reply.integer((step.value_iterated_to() / 1000) as i64);
        reply.integer(seen as i64);
        steps += 1;
    }
    reply.close_map(list, steps);
}

fn latency_help(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.len() > 2 {
        return Err(CommandError::Syntax);
    }
    help(
        shard,
        index,
        "LATENCY",
        &[
            ("DOCTOR", "Say what the spikes seen so far mean."),
            ("GRAPH <event>", "Draw the spikes of <event> in ASCII."),
            ("HISTORY <event>", "Return time and duration of the spikes of <event>."),
            ("LATEST", "Return the last spike of every event."),
            ("RESET [<event> ...]", "Forget the spikes of these events, or of all."),
            (
                "HISTOGRAM [COMMAND ...]",
                "Return the cumulative distribution of the durations of these commands, or of all.",
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use crate::testing::{Check, START_MS};

    #[test]
    fn spikes_are_kept_by_event() {
        let mut t = Check::with_config(&[("latency-monitor-threshold", "200")]);
        t.check("LATENCY LATEST", "[]").check("LATENCY HISTORY command", "[]");
        t.check("LATENCY GRAPH command", "-ERR No samples available for event 'command'");
        t.check("DEBUG SLEEP 0.3", "OK").advance(2000).check("DEBUG SLEEP 0.5", "OK");
        let second = START_MS / 1000;
        t.check("LATENCY LATEST", &format!("[[\"command\" {} 500 500]]", second + 2));
        t.check("LATENCY HISTORY command", &format!("[[{second} 300] [{} 500]]", second + 2));
        t.look("LATENCY GRAPH command", |v| {
            let text = v.text();
            assert!(text.starts_with("command - high 500 ms, low 300 ms (all time high 500 ms)\n----"), "{text}");
            let lines: Vec<&str> = text.lines().skip(2).collect();
            assert_eq!(lines, [" #", " |", " |", "_|", "", "20", "ss"], "{text}");
        });
        t.look("LATENCY DOCTOR", |v| {
            let text = v.text();
            assert!(text.contains("1. command: 2 latency spikes (average 400ms, mean deviation 100ms"), "{text}");
        });
        t.check("LATENCY RESET fork", "0").check("LATENCY RESET", "1").check("LATENCY LATEST", "[]");
        t.look("LATENCY DOCTOR", |v| assert!(v.text().starts_with("No event took 200 ms")));
    }

    #[test]
    fn histograms_of_all_shards() {
        let mut t = Check::new();
        for key in ["a", "b", "c", "d", "e"] {
            t.check(&format!("SET {key} 1"), "OK");
        }
        t.check("CONFIG RESETSTAT", "OK").check("GET a", "\"1\"").check("GET b", "\"1\"").check("GET c", "\"1\"");
        t.look("LATENCY HISTOGRAM get nosuch set", |v| {
            let get = v.get("get").unwrap();
            assert_eq!(get.get("calls").unwrap().integer(), 3);
            let steps = get.get("histogram_usec").unwrap().items();
            assert_eq!(steps.last().unwrap().integer(), 3, "{v}");
            assert!(v.get("set").is_none());
        });
        t.look("LATENCY HISTOGRAM", |v| assert!(v.get("config|resetstat").is_some() && v.get("get").is_some(), "{v}"));
        t.look("LATENCY HISTOGRAM config", |v| assert_eq!(v.items()[0].text(), "config|resetstat"));
    }
}
