//! The latency monitor: spikes of named events, as `LATENCY LATEST|HISTORY|RESET|GRAPH` report them.

use std::collections::BTreeMap;

/// Spikes kept for one event (Redis: `LATENCY_TS_LEN`).
pub const HISTORY: usize = 160;

/// The spikes of one event; those of one second are one, the worst.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// (Unix seconds, ms), oldest first.
    pub samples: Vec<(i64, u64)>,
    /// The worst ever, in ms.
    pub max: u64,
}

/// All events that had a spike.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    /// By name.
    pub events: BTreeMap<&'static str, Event>,
}

impl LatencyMonitor {
    /// Notes a spike of `ms` at `now` (Unix seconds).
    pub fn add(&mut self, event: &'static str, now: i64, ms: u64) {
        let entry = self.events.entry(event).or_default();
        entry.max = entry.max.max(ms);
        match entry.samples.last_mut() {
            Some((time, worst)) if *time == now => *worst = (*worst).max(ms),
            _ => {
                if entry.samples.len() == HISTORY {
                    entry.samples.remove(0);
                }
                entry.samples.push((now, ms));
            }
        }
    }

    /// Forgets the named events, or all; says how many there were.
    pub fn reset(&mut self, names: &[&[u8]]) -> usize {
        let before = self.events.len();
        if names.is_empty() {
            self.events.clear();
        } else {
            self.events.retain(|event, _| !names.iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes())));
        }
        before - self.events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_a_second_and_the_worst_of_it() {
        let mut monitor = LatencyMonitor::default();
        for (now, ms) in [(1, 5), (1, 9), (1, 7), (2, 3)] {
            monitor.add("command", now, ms);
        }
        assert_eq!(monitor.events["command"].samples, [(1, 9), (2, 3)]);
        assert_eq!(monitor.events["command"].max, 9);
        (3..400).for_each(|now| monitor.add("command", now, 1));
        assert_eq!(monitor.events["command"].samples.len(), HISTORY);
        assert_eq!(monitor.reset(&[b"fork"]), 0);
        assert_eq!(monitor.reset(&[]), 1);
    }
}
