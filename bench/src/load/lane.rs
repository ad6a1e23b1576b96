//! A lane: one thread's connections, what is in flight on each, and when the next request leaves.
//!
//! The one idea: a lane does no I/O. Its loop (`uring.rs`, `epoll.rs`) hands it bytes and the time, asks it to
//! [`Lane::fill`] the output of connections that may send, and moves those bytes. So both loops measure the same
//! client, and split input can be tested without a socket.
//!
//! Two ways to send:
//! - **closed**: a connection sends a batch of `pipeline` requests when the last batch is answered. Latency counts
//!   from the moment of sending. A server that stalls also stalls the arrivals: good for throughput and cost,
//!   too kind for latency.
//! - **open**: requests are due at a fixed rate, whatever the server does. Latency counts from the due time, so a
//!   stall is felt by every request that was due during it. When all connections are busy the schedule waits as
//!   numbers, not as memory.

use super::keys::{Distribution, Rng, Values, unit};
use super::measure::{Board, Control, MEASURE, Recorder, STOP};
use super::reply::{self, Head, Scan};
use super::tls::Session;
use super::workload::{Request, Source, Verdict, Workload};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A reply that needs more than this is given up: no workload here asks for that much.
const MAX_REPLY: usize = 1 << 30;

/// Draws of keys until one belongs to a connection's node (cluster mode).
const MAX_DRAWS: usize = 1_000_000;

/// What all threads of a run share and never change.
#[derive(Debug)]
pub struct Plan {
    /// The requests.
    pub workload: Workload,
    /// How keys are drawn.
    pub distribution: Distribution,
    /// Number of keys.
    pub keys: u64,
    /// Their values.
    pub values: Values,
    /// Requests in flight per connection, at most.
    pub pipeline: usize,
    /// Nodes by slot, in cluster mode.
    pub slots: Option<Vec<u16>>,
    /// Nil is no error.
    pub nil_ok: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// Its socket.
    pub fd: OwnedFd,
    /// Bytes for the loop to send; it clears them.
    pub out: Vec<u8>,
    /// Bytes composed while `out` was still on its way.
    pub queued: Vec<u8>,
    /// `out` is with the kernel.
    pub sending: bool,
    /// The peer is gone.
    pub dead: bool,
    /// Bytes are sealed before they leave and opened when they come.
    session: Option<Box<Session>>,
    /// Composed and not sealed yet.
    plain: Vec<u8>,
    pending: VecDeque<Request>,
    /// Ops that follow a reply: op, seed, key.
    follow: VecDeque<(u16, u64, u64)>,
    partial: Vec<u8>,
    need: usize,
    ready: bool,
    /// In cluster mode, the node it leads to.
    node: u16,
    subscriber: bool,
}

/// When requests leave.
#[derive(Debug, Clone)]
pub enum Pace {
    /// As replies come.
    Closed,
    /// On a schedule.
    Open {
        /// Mean distance between this lane's requests, ns.
        interval: f64,
        /// When the next one is due, ns.
        next: f64,
        /// Distances are exponential (independent clients) instead of equal.
        poisson: bool,
    },
}

/// One thread's connections.
pub struct Lane {
    /// What is run.
    pub plan: Arc<Plan>,
    /// The connections.
    pub conns: Vec<Conn>,
    /// Connections whose `out` holds something to send.
    pub to_send: Vec<u32>,
    /// The measurements.
    pub recorder: Recorder,
    /// How requests are paced.
    pub pace: Pace,
    ready: VecDeque<u32>,
    rng: Rng,
    sequence: u64,
    inserted: u64,
    insert_stride: u64,
    insert_offset: u64,
    budget: Option<u64>,
    in_flight: u64,
    /// Since when some connection is free, ns.
    free_since: u64,
    phase: u8,
    stop_seen: u64,
    drain_ns: u64,
}

/// What distinguishes one lane from its sisters.
#[derive(Debug, Clone)]
pub struct LaneOptions {
    /// Number of this lane, and of all.
    pub index: usize,
    /// Number of lanes.
    pub lanes: usize,
    /// Seed of its random numbers.
    pub seed: u64,
    /// The first key of its sequence.
    pub sequence: u64,
    /// How many requests it sends at most once the window is open.
    pub budget: Option<u64>,
    /// How requests are paced.
    pub pace: Pace,
    /// How long replies are awaited after the end, ns.
    pub drain_ns: u64,
}

impl Lane {
    /// A lane without connections.
    pub fn new(plan: Arc<Plan>, options: &LaneOptions) -> Lane {
        let kinds = plan.workload.ops.len() + usize::from(plan.workload.pubsub);
        Lane {
            plan,
            conns: Vec::new(),
            to_send: Vec::new(),
            recorder: Recorder::new(kinds),
            pace: options.pace.clone(),
            ready: VecDeque::new(),
            rng: Rng::new(options.seed),
            sequence: options.sequence,
            inserted: 0,
            insert_stride: options.lanes as u64,
            insert_offset: options.index as u64,
            budget: options.budget,
            in_flight: 0,
            free_since: 0,
            phase: 0,
            stop_seen: 0,
            drain_ns: options.drain_ns,
        }
    }

    /// Adds a connection.
    pub fn add(&mut self, fd: OwnedFd, session: Option<Box<Session>>, node: u16, subscriber: bool) {
        let index = self.conns.len() as u32;
        self.conns.push(Conn {
            fd,
            out: Vec::new(),
            queued: Vec::new(),
            sending: false,
            dead: false,
            session,
            plain: Vec::new(),
            pending: VecDeque::new(),
            follow: VecDeque::new(),
            partial: Vec::new(),
            need: 0,
            ready: !subscriber,
            node,
            subscriber,
        });
        if !subscriber {
            self.ready.push_back(index);
        }
    }

    /// Follows the main thread's phases; returns false once there is nothing more to do.
    #[inline]
    pub fn turn(&mut self, control: &Control, board: &Board, now: u64) -> bool {
        let phase = control.phase.load(Ordering::Acquire);
        if phase != self.phase {
            if self.phase < MEASURE && phase >= MEASURE {
                let start = control.window_start.load(Ordering::Relaxed);
                self.recorder.open(start, matches!(self.pace, Pace::Closed));
            }
            if phase == STOP {
                self.stop_seen = now;
                self.recorder
                    .close(control.window_end.load(Ordering::Relaxed));
            }
            self.phase = phase;
        }
        self.recorder.tick(now, board);
        let spent = self.budget == Some(0) && self.phase >= MEASURE;
        let done = (self.phase == STOP || spent) && self.in_flight == 0 && !self.follows();
        let late = self.phase == STOP && now.saturating_sub(self.stop_seen) > self.drain_ns;
        let lost = self.conns.iter().all(|c| c.dead);
        if done && self.phase == STOP || late || lost || (done && spent) {
            self.end(now);
            return false;
        }
        true
    }

    fn follows(&self) -> bool {
        self.phase < STOP
            && self.plan.workload.ops.iter().any(|op| op.then.is_some())
            && self.conns.iter().any(|c| !c.dead && !c.follow.is_empty())
    }

    /// Accounts for what never came back.
    fn end(&mut self, now: u64) {
        let unanswered: u64 = self.conns.iter().map(|c| c.pending.len() as u64).sum();
        for _ in 0..unanswered {
            self.recorder
                .error(|| "no reply within the drain time".to_owned());
        }
        for conn in &mut self.conns {
            for request in conn.pending.drain(..) {
                // It took at least this long: an unanswered request must not make the percentiles better.
                self.recorder.record(request.op, request.at, now);
            }
        }
        if let Pace::Open { .. } = self.pace {
            let backlog: Vec<u64> = self.overdue(self.stop_seen);
            for at in backlog {
                self.recorder.record(0, at, now);
            }
        }
        self.recorder.flush();
    }

    /// Due times up to `until` that no connection was free for.
    fn overdue(&mut self, until: u64) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(at) = self.pop_due(until) {
            due.push(at);
        }
        due
    }

    #[inline]
    fn pop_due(&mut self, now: u64) -> Option<u64> {
        let Pace::Open {
            interval,
            next,
            poisson,
        } = &mut self.pace
        else {
            return None;
        };
        if *next > now as f64 {
            return None;
        }
        let at = *next as u64;
        let factor = if *poisson {
            -(1.0 - unit(self.rng.next())).ln()
        } else {
            1.0
        };
        *next += *interval * factor;
        Some(at)
    }

    /// When the loop must come back even without input: the next due time, if a connection is free for it.
    #[inline]
    pub fn wake_at(&self) -> Option<u64> {
        match self.pace {
            Pace::Open { next, .. } if self.phase < STOP && !self.ready.is_empty() => {
                Some(next as u64)
            }
            _ => None,
        }
    }

    #[inline]
    fn request(&mut self, c: usize, at: u64) -> Option<Request> {
        let plan = &self.plan;
        if let Some((op, seed, key)) = self.conns[c].follow.pop_front() {
            return Some(Request { at, seed, key, op });
        }
        for _ in 0..MAX_DRAWS {
            let op = plan.workload.draw(&mut self.rng);
            let row = &plan.workload.ops[op as usize];
            let seed = if plan.distribution == Distribution::Sequential {
                self.sequence += 1;
                self.sequence - 1
            } else {
                self.rng.next()
            };
            let key = if row.inserts {
                self.inserted += 1;
                plan.keys + self.insert_offset + (self.inserted - 1) * self.insert_stride
            } else if let Distribution::Latest(_) = plan.distribution {
                plan.distribution
                    .key(seed, 0, plan.keys + self.inserted * self.insert_stride)
            } else {
                plan.distribution.key(seed, 0, plan.keys)
            };
            // In a cluster a connection only carries keys of its node: draws of other nodes' keys are dropped.
            if let Some(slots) = &plan.slots
                && let Some(slot) = row.slot(key)
                && slots[slot as usize] != self.conns[c].node
            {
                continue;
            }
            return Some(Request { at, seed, key, op });
        }
        None
    }

    #[inline]
    fn compose(&mut self, c: usize, at: u64, now: u64) {
        let Some(request) = self.request(c, at) else {
            return self.closed(c, "no key of the workload belongs to its node");
        };
        let plan = &self.plan;
        let source = Source {
            distribution: &plan.distribution,
            keys: plan.keys,
            values: &plan.values,
        };
        let conn = &mut self.conns[c];
        let out = if conn.session.is_some() {
            &mut conn.plain
        } else if conn.sending {
            &mut conn.queued
        } else {
            &mut conn.out
        };
        let before = out.len();
        plan.workload.ops[request.op as usize].compose(out, &request, &source, now);
        self.recorder.bytes_out += (out.len() - before) as u64;
        conn.pending.push_back(request);
        self.in_flight += 1;
    }

    /// Seals what was composed, on a connection that speaks TLS.
    #[inline]
    fn seal(&mut self, c: usize) {
        let conn = &mut self.conns[c];
        let Some(session) = &mut conn.session else {
            return;
        };
        let out = if conn.sending {
            &mut conn.queued
        } else {
            &mut conn.out
        };
        let sealed = session.seal(&conn.plain, out);
        conn.plain.clear();
        if let Err(e) = sealed {
            self.closed(c, &e.to_string());
        }
    }

    /// Composes what may leave now; `to_send` then names the connections that have output.
    #[inline]
    pub fn fill(&mut self, now: u64) {
        let ended = self.phase == STOP;
        match self.pace {
            Pace::Closed => {
                while let Some(c) = self.ready.pop_front() {
                    let c = c as usize;
                    self.conns[c].ready = false;
                    let mut n = self.plan.pipeline;
                    if let Some(budget) = &mut self.budget
                        && self.phase == MEASURE
                    {
                        n = n.min(*budget as usize);
                        *budget -= n as u64;
                    }
                    if ended {
                        n = 0;
                    }
                    // A reply's follow-up belongs to a request that was sent already.
                    let n = if ended {
                        0
                    } else {
                        n.max(self.conns[c].follow.len())
                    };
                    if n == 0 {
                        continue;
                    }
                    for _ in 0..n {
                        self.compose(c, now, now);
                        if self.conns[c].dead {
                            break;
                        }
                    }
                    self.seal(c);
                    if !self.conns[c].sending && !self.conns[c].dead {
                        self.to_send.push(c as u32);
                    }
                }
            }
            Pace::Open { .. } => {
                if ended || self.budget == Some(0) {
                    return;
                }
                while let Some(&c) = self.ready.front() {
                    let follows = !self.conns[c as usize].follow.is_empty();
                    let at = if follows {
                        Some(now)
                    } else {
                        self.pop_due(now)
                    };
                    let Some(at) = at else { break };
                    self.ready.pop_front();
                    if let Some(budget) = &mut self.budget
                        && self.phase == MEASURE
                    {
                        *budget -= 1;
                    }
                    let c = c as usize;
                    if self.phase == MEASURE {
                        // While all connections are busy the server is late, not we.
                        let possible = at.max(self.free_since).min(now);
                        self.recorder.lag.saturating_record((now - possible).max(1));
                    }
                    let fresh = self.conns[c].out.is_empty();
                    self.compose(c, at, now);
                    self.seal(c);
                    let conn = &mut self.conns[c];
                    if fresh && !conn.sending && !conn.dead {
                        self.to_send.push(c as u32);
                    }
                    conn.ready = !conn.dead && conn.pending.len() < self.plan.pipeline;
                    if conn.ready {
                        self.ready.push_back(c as u32);
                    }
                    if self.budget == Some(0) {
                        break;
                    }
                }
            }
        }
    }

    /// The loop has sent all of `out`.
    pub fn sent(&mut self, c: usize) {
        let conn = &mut self.conns[c];
        conn.out.clear();
        conn.sending = false;
        if !conn.queued.is_empty() {
            std::mem::swap(&mut conn.out, &mut conn.queued);
            self.to_send.push(c as u32);
        }
    }

    /// The connection ended or broke.
    pub fn closed(&mut self, c: usize, why: &str) {
        if self.conns[c].dead {
            return;
        }
        self.conns[c].dead = true;
        let lost = self.conns[c].pending.len() as u64;
        if self.phase < STOP || lost > 0 {
            self.recorder.error(|| format!("connection lost: {why}"));
        }
        for _ in 1..lost {
            self.recorder.error(String::new);
        }
        self.in_flight -= lost;
        self.conns[c].pending.clear();
        self.conns[c].out.clear();
        self.ready.retain(|&r| r as usize != c);
        self.to_send.retain(|&r| r as usize != c);
    }

    /// Nothing is in flight on this connection.
    #[inline]
    pub fn idle(&self, c: usize) -> bool {
        self.conns[c].pending.is_empty()
    }

    /// Bytes from the server.
    #[inline]
    pub fn on_data(&mut self, c: usize, data: &[u8], now: u64) {
        let Some(session) = &mut self.conns[c].session else {
            return self.on_plain(c, data, now);
        };
        match session.open(data) {
            Ok(plain) => {
                self.on_plain(c, &plain, now);
                if let Some(session) = &mut self.conns[c].session {
                    session.give_back(plain);
                }
            }
            Err(e) => self.closed(c, &e.to_string()),
        }
    }

    #[inline]
    fn on_plain(&mut self, c: usize, data: &[u8], now: u64) {
        self.recorder.bytes_in += data.len() as u64;
        if self.conns[c].partial.is_empty() {
            let used = self.take_replies(c, data, now);
            if used < data.len() {
                self.conns[c].partial.extend_from_slice(&data[used..]);
            }
        } else {
            let conn = &mut self.conns[c];
            conn.partial.extend_from_slice(data);
            if conn.partial.len() < conn.need {
                return;
            }
            let mut whole = std::mem::take(&mut conn.partial);
            let used = self.take_replies(c, &whole, now);
            whole.drain(..used);
            self.conns[c].partial = whole;
        }
        self.recorder.flush();
        let conn = &mut self.conns[c];
        let free = match self.pace {
            Pace::Closed => conn.pending.is_empty(),
            Pace::Open { .. } => conn.pending.len() < self.plan.pipeline,
        };
        if free && !conn.ready && !conn.dead && !conn.subscriber {
            conn.ready = true;
            if self.ready.is_empty() {
                self.free_since = now;
            }
            // A follow-up is due at once.
            if conn.follow.is_empty() {
                self.ready.push_back(c as u32)
            } else {
                self.ready.push_front(c as u32)
            }
        }
    }

    /// Takes whole replies off the front of `data`; returns how many bytes they were.
    fn take_replies(&mut self, c: usize, data: &[u8], now: u64) -> usize {
        let plan = self.plan.clone();
        let source = Source {
            distribution: &plan.distribution,
            keys: plan.keys,
            values: &plan.values,
        };
        let mut at = 0;
        while at < data.len() {
            let rest = &data[at..];
            let expected = self.conns[c].pending.front().copied();
            if let Some(request) = &expected
                && let Some(n) = plan.workload.glance(request, rest, &plan.values)
            {
                at += n;
                self.answered(c, request, now);
                continue;
            }
            let n = match reply::scan(rest) {
                Ok(Scan::Done(n)) => n,
                Ok(Scan::More(need)) if need > MAX_REPLY => {
                    self.closed(c, "a reply of more than 1 GB");
                    return data.len();
                }
                Ok(Scan::More(need)) => {
                    self.conns[c].need = need;
                    return at;
                }
                Err(e) => {
                    self.closed(c, &e.to_string());
                    return data.len();
                }
            };
            let whole = &rest[..n];
            at += n;
            if self.conns[c].subscriber || whole[0] == b'>' {
                self.delivered(whole, now);
                continue;
            }
            let Some(request) = expected else {
                let text = whole[..n.min(80)].escape_ascii().to_string();
                self.closed(c, &format!("a reply to no request: {text}"));
                return data.len();
            };
            match plan.workload.judge(&request, whole, &source) {
                Verdict::Right => {}
                Verdict::Miss => self.recorder.misses += 1,
                Verdict::Wrong
                    if plan.nil_ok && matches!(reply::head(whole), Some((Head::Nil, _))) =>
                {
                    self.recorder.misses += 1;
                }
                verdict => {
                    let name = &plan.workload.ops[request.op as usize].name;
                    self.recorder.error(|| {
                        let what = if verdict == Verdict::Error {
                            "error reply"
                        } else {
                            "wrong reply"
                        };
                        format!(
                            "{what} to {name} of key {}: {}",
                            request.key,
                            whole[..n.min(120)].escape_ascii()
                        )
                    });
                }
            }
            self.answered(c, &request, now);
        }
        at
    }

    #[inline]
    fn answered(&mut self, c: usize, request: &Request, now: u64) {
        let conn = &mut self.conns[c];
        conn.pending.pop_front();
        if let Some(next) = self.plan.workload.ops[request.op as usize].then {
            conn.follow.push_back((next, request.seed, request.key));
        }
        self.in_flight -= 1;
        self.recorder.done += 1;
        self.recorder.record(request.op, request.at, now);
    }

    /// A published message reached a subscriber: its text is the time it was sent at.
    fn delivered(&mut self, whole: &[u8], now: u64) {
        let sent = || -> Option<u64> {
            let (Head::Array(3) | Head::Push(3), mut at) = reply::head(whole)? else {
                return None;
            };
            for _ in 0..2 {
                at += reply::head(&whole[at..])?.1;
            }
            match reply::head(&whole[at..])?.0 {
                Head::Bulk(text) => reply::decimal(text.get(1..)?).ok().map(|n| n as u64),
                _ => None,
            }
        };
        match sent() {
            Some(at) => {
                let delivery = self.plan.workload.ops.len() as u16;
                self.recorder.record(delivery, at, now);
            }
            None => self.recorder.error(|| {
                format!(
                    "not a message: {}",
                    whole[..whole.len().min(80)].escape_ascii()
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::ValueSize;
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn lane(workload: &str, pipeline: usize, pace: Pace) -> (Lane, Control, Board) {
        let plan = Plan {
            workload: Workload::load(workload).unwrap(),
            distribution: Distribution::Uniform,
            keys: 100,
            values: Values::new(ValueSize::Fixed(20)),
            pipeline,
            slots: None,
            nil_ok: false,
        };
        let options = LaneOptions {
            index: 0,
            lanes: 1,
            seed: 1,
            sequence: 0,
            budget: None,
            pace,
            drain_ns: 1_000,
        };
        let mut lane = Lane::new(Arc::new(plan), &options);
        let (a, _) = UnixStream::pair().unwrap();
        lane.add(OwnedFd::from(a), None, 0, false);
        let control = Control::default();
        control.measure(0);
        (lane, control, Board::default())
    }

    /// Answers what the lane sent as a server would.
    fn answers(lane: &mut Lane) -> Vec<u8> {
        let mut out = Vec::new();
        let values = Values::new(ValueSize::Fixed(20));
        for r in &lane.conns[0].pending {
            out.extend_from_slice(b"$20\r\n");
            values.write(&mut out, r.key);
            out.extend_from_slice(b"\r\n");
        }
        out
    }

    #[test]
    fn replies_split_anywhere_are_all_counted() {
        for cut in 0..54 {
            let (mut lane, control, board) = lane("get", 2, Pace::Closed);
            assert!(lane.turn(&control, &board, 10));
            lane.fill(10);
            assert_eq!(lane.to_send, [0]);
            let all = answers(&mut lane);
            assert_eq!(all.len(), 54);
            lane.on_data(0, &all[..cut], 20);
            if cut > 0 {
                lane.on_data(0, &all[cut..cut + 1], 20);
                lane.on_data(0, &all[cut + 1..], 30);
            } else {
                lane.on_data(0, &all, 30);
            }
            assert_eq!(
                (lane.recorder.done, lane.recorder.errors, lane.in_flight),
                (2, 0, 0),
                "cut at {cut}"
            );
            assert!(lane.conns[0].ready && lane.conns[0].partial.is_empty());
        }
    }

    #[test]
    fn wrong_and_foreign_replies_are_errors() {
        let (mut lane, control, board) = lane("get", 3, Pace::Closed);
        lane.turn(&control, &board, 10);
        lane.fill(10);
        lane.on_data(0, b"$-1\r\n-ERR no\r\n$20\r\naaaaaaaaaaaaaaaaaaaa\r\n", 20);
        assert_eq!((lane.recorder.done, lane.recorder.errors), (3, 3));
        lane.on_data(0, b"+OK\r\n", 30);
        assert!(lane.conns[0].dead, "a reply nobody asked for");
        assert!(!lane.turn(&control, &board, 40), "no connection is left");
    }

    #[test]
    fn an_open_loop_counts_from_the_due_time() {
        let (mut lane, control, board) = lane(
            "get",
            1,
            Pace::Open {
                interval: 10.0,
                next: 100.0,
                poisson: false,
            },
        );
        lane.turn(&control, &board, 50);
        lane.fill(50);
        assert!(lane.to_send.is_empty());
        assert_eq!(lane.wake_at(), Some(100));
        lane.fill(105);
        assert_eq!(lane.to_send, [0]);
        lane.to_send.clear();
        assert_eq!(lane.wake_at(), None, "its only connection is busy");
        // The server stalls: ten requests come due meanwhile.
        let reply = answers(&mut lane);
        lane.conns[0].out.clear();
        lane.on_data(0, &reply, 205);
        let mut seen = Vec::new();
        while lane.recorder.done < 11 {
            lane.fill(205);
            seen.push(lane.conns[0].pending[0].at);
            let reply = answers(&mut lane);
            lane.conns[0].out.clear();
            lane.on_data(0, &reply, 205);
        }
        assert_eq!(seen, (1..=10).map(|i| 100 + 10 * i).collect::<Vec<u64>>());
        // The first left 5 ns late; that the others could not leave earlier is the server's doing.
        assert_eq!(lane.recorder.lag.max(), 5);
    }

    #[test]
    fn what_never_came_back_counts_with_the_time_it_waited() {
        let (mut lane, control, board) = lane(
            "get",
            1,
            Pace::Open {
                interval: 10.0,
                next: 100.0,
                poisson: false,
            },
        );
        lane.turn(&control, &board, 50);
        lane.fill(100);
        control.stop(200);
        assert!(lane.turn(&control, &board, 200));
        assert!(
            !lane.turn(&control, &board, 2_000),
            "the drain time is over"
        );
        assert_eq!(lane.recorder.errors, 1);
        lane.recorder.hand_over(&board);
        let intervals = board.intervals.lock().unwrap();
        let h = &intervals[0].latency[0];
        // One unanswered request, and those due from 110 to 190 that never left.
        assert_eq!(h.len(), 10);
        assert!(h.max() >= 1_900 && h.min() >= 1_800);
    }

    #[test]
    fn a_budget_is_kept() {
        let (mut lane, control, board) = lane("get", 4, Pace::Closed);
        lane.budget = Some(6);
        for now in [10, 20, 30] {
            if !lane.turn(&control, &board, now) {
                break;
            }
            lane.fill(now);
            let reply = answers(&mut lane);
            lane.conns[0].out.clear();
            lane.on_data(0, &reply, now + 5);
        }
        assert_eq!(lane.recorder.done, 6);
        assert!(!lane.turn(&control, &board, 40));
    }

    #[test]
    fn a_follow_up_uses_the_same_key() {
        let (mut lane, control, board) = lane("del", 1, Pace::Closed);
        lane.turn(&control, &board, 10);
        lane.fill(10);
        let first = lane.conns[0].pending[0];
        lane.on_data(0, b":1\r\n", 20);
        lane.fill(30);
        let second = lane.conns[0].pending[0];
        assert_eq!((second.op, second.key), (1, first.key));
    }
}
