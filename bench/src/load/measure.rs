//! What threads measure and how it comes together: one histogram per kind of request and second, merged later.
//!
//! The one idea: a thread records each latency once, into the histograms of the current second; when the second
//! is over it hands them to the main thread, which merges them into the totals and draws the timeline and the
//! progress line from them. Nothing is shared while a second runs but two counters.

use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Longest latency that is told apart: ten minutes, in ns.
const LONGEST_NS: u64 = 600_000_000_000;

/// An empty latency histogram: ns, three digits.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that hdrhistogram admits.
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds of the histogram")
}

/// Nanoseconds of the monotonic clock.
#[inline]
pub fn now_ns() -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// The measured window. Before it, at zero, connections are warmed up and nothing counts.
pub const MEASURE: u8 = 1;
/// No new requests; replies under way are awaited.
pub const STOP: u8 = 2;

/// How the main thread steers all threads of a run.
#[derive(Debug, Default)]
pub struct Control {
    /// Zero, [`MEASURE`] or [`STOP`].
    pub phase: AtomicU8,
    /// Start of the measured window, ns.
    pub window_start: AtomicU64,
    /// Its end, ns; zero while it is open.
    pub window_end: AtomicU64,
}

impl Control {
    /// Opens the window at this time.
    pub fn measure(&self, now: u64) {
        self.window_start.store(now, Ordering::Relaxed);
        self.phase.store(MEASURE, Ordering::Release);
    }

    /// Ends the run at this time.
    pub fn stop(&self, now: u64) {
        self.window_end.store(now, Ordering::Relaxed);
        self.phase.store(STOP, Ordering::Release);
    }
}

/// One second of one thread.
#[derive(Debug)]
pub struct Interval {
    /// Seconds since the window opened.
    pub second: u64,
    /// By op.
    pub latency: Vec<Histogram<u64>>,
    /// Errors within it.
    pub errors: u64,
}

/// What a thread shows the main thread while it runs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Board {
    /// Replies received since the start.
    pub done: AtomicU64,
    /// Errors since the start.
    pub errors: AtomicU64,
    /// The thread has nothing more to do.
    pub finished: AtomicBool,
    /// Seconds that are over.
    pub intervals: Mutex<Vec<Interval>>,
}

/// A thread's recorder.
#[derive(Debug)]
pub struct Recorder {
    latency: Vec<Histogram<u64>>,
    window_start: u64,
    window_end: u64,
    /// Requests that began earlier do not count.
    counts_from: u64,
    second: u64,
    second_ends: u64,
    second_errors: u64,
    run: (u16, u64, u64),
    /// Replies, right or not.
    pub done: u64,
    /// Wrong or error replies, lost connections, unanswered requests.
    pub errors: u64,
    /// Nils where nil is allowed.
    pub misses: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// The first few errors, in words.
    pub samples: Vec<String>,
    /// How late requests left, against their intended time, for reasons of the generator's own (open loop).
    pub lag: Histogram<u64>,
}

impl Recorder {
    /// A recorder for so many ops.
    pub fn new(ops: usize) -> Self {
        Recorder {
            latency: (0..ops).map(|_| histogram()).collect(),
            window_start: u64::MAX,
            window_end: u64::MAX,
            counts_from: u64::MAX,
            second: 0,
            second_ends: u64::MAX,
            second_errors: 0,
            run: (0, 0, 0),
            done: 0,
            errors: 0,
            misses: 0,
            bytes_in: 0,
            bytes_out: 0,
            samples: Vec::new(),
            lag: histogram(),
        }
    }

    /// Starts counting. An open loop counts what was due in the window; a closed loop whatever is answered from here
    /// on, or a request that takes longer than the window would count nowhere.
    pub fn open(&mut self, window_start: u64, closed: bool) {
        self.window_start = window_start;
        self.counts_from = if closed { 0 } else { window_start };
        self.second = 0;
        self.second_ends = window_start + 1_000_000_000;
        self.misses = 0;
        self.bytes_in = 0;
        self.bytes_out = 0;
    }

    /// Requests intended from here on no longer count.
    pub fn close(&mut self, window_end: u64) {
        self.window_end = window_end;
    }

    /// Records the latency of a request that began at `at`. Replies of one batch often share op and latency, so
    /// runs of them are recorded at once.
    #[inline]
    pub fn record(&mut self, op: u16, at: u64, now: u64) {
        if at < self.counts_from || at >= self.window_end {
            return;
        }
        if self.run.2 > 0 && self.run.0 == op && self.run.1 == now - at {
            self.run.2 += 1;
        } else {
            self.flush();
            self.run = (op, now.saturating_sub(at), 1);
        }
    }

    /// Ends a run of equal latencies.
    #[inline]
    pub fn flush(&mut self) {
        let (op, latency, count) = std::mem::take(&mut self.run);
        if count > 0 {
            // Clamped to the longest bucket rather than lost.
            self.latency[op as usize].saturating_record_n(latency.max(1), count);
        }
    }

    /// Counts an error and keeps the first few in words.
    pub fn error(&mut self, text: impl FnOnce() -> String) {
        self.errors += 1;
        self.second_errors += 1;
        if self.samples.len() < 5 {
            self.samples.push(text());
        }
    }

    /// Hands finished seconds over; called once a turn.
    #[inline]
    pub fn tick(&mut self, now: u64, board: &Board) {
        board.done.store(self.done, Ordering::Relaxed);
        board.errors.store(self.errors, Ordering::Relaxed);
        if now >= self.second_ends {
            self.hand_over(board);
            let passed = (now - self.window_start) / 1_000_000_000;
            self.second = passed;
            self.second_ends = self.window_start + (passed + 1) * 1_000_000_000;
        }
    }

    /// Hands over what the current second holds.
    pub fn hand_over(&mut self, board: &Board) {
        self.flush();
        board.done.store(self.done, Ordering::Relaxed);
        board.errors.store(self.errors, Ordering::Relaxed);
        if self.window_start == u64::MAX {
            return;
        }
        let latency = self
            .latency
            .iter_mut()
            .map(|h| std::mem::replace(h, histogram()))
            .collect();
        let interval = Interval {
            second: self.second,
            latency,
            errors: std::mem::take(&mut self.second_errors),
        };
        board
            .intervals
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .push(interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_handed_over_and_merge_to_the_whole() {
        let board = Board::default();
        let mut r = Recorder::new(2);
        r.record(0, 5, 10);
        r.open(1_000, false);
        r.record(0, 999, 2_000); // Began before the window.
        for i in 0..100u64 {
            r.record(0, 1_000 + i, 1_000 + i + 500);
        }
        r.tick(1_500_000_000, &board);
        r.record(1, 1_500_000_000, 1_500_000_900);
        r.error(|| "x".into());
        r.close(2_000_000_000);
        r.record(1, 2_000_000_000, 2_000_000_900); // Began after it.
        r.hand_over(&board);
        let intervals = board.intervals.lock().unwrap();
        assert_eq!(intervals.len(), 2);
        assert_eq!((intervals[0].second, intervals[1].second), (0, 1));
        assert_eq!(intervals[0].latency[0].len(), 100);
        assert_eq!((intervals[1].latency[1].len(), intervals[1].errors), (1, 1));
        let mut all = histogram();
        for i in intervals.iter() {
            for h in &i.latency {
                all.add(h).unwrap();
            }
        }
        assert_eq!(all.len(), 101);
        assert_eq!((all.value_at_quantile(0.5), all.max()), (500, 900));
    }

    #[test]
    fn merging_two_threads_equals_recording_in_one() {
        let (mut a, mut b, mut both) = (histogram(), histogram(), histogram());
        for i in 1..10_000u64 {
            let v = i * i;
            if i % 3 == 0 {
                a.record(v).unwrap()
            } else {
                b.record(v).unwrap()
            }
            both.record(v).unwrap();
        }
        a.add(&b).unwrap();
        for q in [0.0, 0.5, 0.9, 0.99, 0.9999, 1.0] {
            assert_eq!(a.value_at_quantile(q), both.value_at_quantile(q));
        }
    }
}
