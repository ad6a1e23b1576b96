//! Counters of one shard, and what a shard reports when the server as a whole is asked.

use hdrhistogram::Histogram;

use crate::message::Detail;

/// Counters of one command.
#[derive(Clone, Debug, Default)]
pub struct CommandStats {
    /// Times it ran.
    pub calls: u64,
    /// Ticks it took.
    pub ticks: u64,
    /// Times it was refused before it ran.
    pub rejected: u64,
    /// Times it ran and failed.
    pub failed: u64,
    /// Durations in ns, once it has run.
    pub latency: Option<Box<Durations>>,
}

impl CommandStats {
    /// Adds another shard's, or another row's, counters.
    pub fn add(&mut self, other: &CommandStats) {
        self.calls += other.calls;
        self.ticks += other.ticks;
        self.rejected += other.rejected;
        self.failed += other.failed;
        match (&mut self.latency, &other.latency) {
            (Some(mine), Some(theirs)) => mine.add(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            _ => {}
        }
    }
}

/// Up to where histograms of durations reach, in ns, and the bytes that they take then: 8, 14 and 24 KB.
const REACHES: [u64; 3] = [(1 << 14) - 1, (1 << 20) - 1, 1_000_000_000];

/// How long a command took: a histogram from 1 ns to 1 s with two digits, as Redis keeps it for each command that has
/// run. There it takes 24 KB at once. Here each shard has one, and most commands of most servers never take longer than
/// 16 µs: it begins short, and is made longer when one does, which changes nothing of what it tells.
#[derive(Clone, Debug)]
pub struct Durations(Histogram<u64>);

impl Default for Durations {
    fn default() -> Self {
        Durations(reaching(REACHES[0]))
    }
}

fn reaching(ns: u64) -> Histogram<u64> {
    Histogram::new_with_bounds(1, ns, 2).expect("constant bounds are valid")
}

impl Durations {
    /// Counts one of `ns`; what is longer than a second counts as a second.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        if ns > self.0.high() {
            self.reach(ns);
        }
        self.0.saturating_record(ns.max(1));
    }

    /// Makes room for durations up to `ns`, exactly as much as they need: a vector that doubles would end up larger than
    /// one that was never short.
    #[cold]
    fn reach(&mut self, ns: u64) {
        let enough = *REACHES.iter().find(|reach| **reach >= ns).unwrap_or(&REACHES[2]);
        if enough > self.0.high() {
            let short = std::mem::replace(&mut self.0, reaching(enough));
            self.0.add(short).expect("it reaches as far");
        }
    }

    /// Counts what another one counted.
    pub fn add(&mut self, other: &Durations) {
        self.reach(other.0.high());
        self.0.add(&other.0).expect("it reaches as far");
    }
}

impl std::ops::Deref for Durations {
    type Target = Histogram<u64>;

    fn deref(&self) -> &Histogram<u64> {
        &self.0
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a shard; sums over shards are the server's.
        #[derive(Clone, Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// By command.
            pub commands: Vec<CommandStats>,
            /// Errors replied, by code.
            pub errors: Vec<(String, u64)>,
            /// There were too many codes, and errors are not counted by code any more.
            pub errors_given_up: bool,
            /// The codes there were then, to be logged.
            pub too_many_codes: Option<String>,
        }

        impl Stats {
            /// Adds another shard's counters.
            pub fn add(&mut self, other: &Stats) {
                $(self.$name += other.$name;)*
                self.commands.resize_with(other.commands.len().max(self.commands.len()), Default::default);
                for (mine, theirs) in self.commands.iter_mut().zip(&other.commands) {
                    mine.add(theirs);
                }
                for (code, n) in &other.errors {
                    self.count_error_code(code, *n);
                }
                if other.errors_given_up && !self.errors_given_up {
                    self.give_up_errors();
                }
            }

            /// A copy with as much as is asked for.
            pub fn told(&self, detail: Detail) -> Stats {
                let plain = |command: &CommandStats| CommandStats { latency: None, ..*command };
                let commands = match detail {
                    Detail::Sums => Vec::new(),
                    Detail::Commands => self.commands.iter().map(plain).collect(),
                    Detail::Histograms => self.commands.clone(),
                };
                let mut told = Stats {
                    $($name: self.$name,)*
                    commands,
                    errors: self.errors.clone(),
                    errors_given_up: self.errors_given_up,
                    too_many_codes: None,
                };
                told.command_ticks = self.commands.iter().map(|command| command.ticks).sum();
                told
            }
        }
    };
}

counters! {
    /// Commands run.
    commands_processed,
    /// Ticks that all commands took; summed up when it is told.
    command_ticks,
    /// Connections accepted.
    connections_received,
    /// Connections refused for `maxclients`.
    rejected_connections,
    /// Bytes read from clients.
    net_input_bytes,
    /// Bytes written to clients.
    net_output_bytes,
    /// Read events.
    reads_processed,
    /// Write events.
    writes_processed,
    /// Keys found by reads.
    keyspace_hits,
    /// Keys not found by reads.
    keyspace_misses,
    /// Keys expired.
    expired_keys,
    /// Hash fields expired.
    expired_subkeys,
    /// Times an active expire cycle ran out of time.
    expired_time_cap_reached,
    /// µs spent in the active expire cycle.
    expire_cycle_us,
    /// Keys evicted.
    evicted_keys,
    /// Clients evicted.
    evicted_clients,
    /// Keyspace events reported.
    notifications,
    /// Error replies.
    error_replies,
    /// Requests sent to other shards.
    hops,
    /// Commands that were split over several shards.
    splits,
    /// Transactions over several shards.
    transactions,
    /// Clients closed for a full query buffer.
    query_buffer_limit_disconnections,
    /// Clients closed for a full output buffer.
    output_buffer_limit_disconnections,
    /// Failed authentications.
    acl_access_denied_auth,
    /// Commands refused by the ACL.
    acl_access_denied_cmd,
    /// Keys refused by the ACL.
    acl_access_denied_key,
    /// Channels refused by the ACL.
    acl_access_denied_channel,
}

/// Most error codes that are counted apart; a script could invent codes without end. With one more, none is counted apart
/// until `CONFIG RESETSTAT` (Redis: `ERROR_STATS_NUMBER`).
pub const MAX_ERROR_CODES: usize = 128;

impl Stats {
    /// Zero for all of `commands` commands.
    pub fn new(commands: usize) -> Self {
        Stats { commands: vec![CommandStats::default(); commands], ..Stats::default() }
    }

    /// Counts an error reply by its text.
    pub fn count_error(&mut self, text: &str) {
        self.error_replies += 1;
        let code = text.split(' ').next().unwrap_or("ERR");
        self.count_error_code(code, 1);
    }

    fn count_error_code(&mut self, code: &str, n: u64) {
        if self.errors_given_up {
            return;
        }
        if let Some((_, count)) = self.errors.iter_mut().find(|(known, _)| known == code) {
            *count += n;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.push((code.to_string(), n));
        } else {
            self.give_up_errors();
        }
    }

    #[cold]
    fn give_up_errors(&mut self) {
        let mut codes: Vec<&str> = self.errors.iter().map(|(code, _)| code.as_str()).collect();
        codes.sort_unstable();
        self.too_many_codes = Some(codes.join(", "));
        self.errors = vec![("ERRORSTATS_DISABLED".into(), 1)];
        self.errors_given_up = true;
    }

    /// Sets all to zero.
    pub fn reset(&mut self) {
        *self = Stats::new(self.commands.len());
    }
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, Default)]
pub struct DbReport {
    /// Number of keys.
    pub keys: usize,
    /// Number of keys with a time to live.
    pub expires: usize,
    /// Number of hashes with fields that have one.
    pub subexpiry: usize,
    /// Their average time to live in ms, weighted by `expires` when summed.
    pub avg_ttl: i64,
    /// Bytes of the tables.
    pub table_bytes: usize,
    /// Bytes of the tables of keys with a time to live.
    pub expires_bytes: usize,
    /// How many of the two tables are growing or shrinking now.
    pub rehashing: usize,
}

/// What a shard reports of itself.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Counters.
    pub stats: Stats,
    /// Databases.
    pub dbs: Vec<DbReport>,
    /// Clients connected.
    pub clients: usize,
    /// Clients blocked.
    pub blocked_clients: usize,
    /// Keys that clients wait for, and those of them that someone waits for to go.
    pub blocking_keys: [usize; 2],
    /// Clients in `MULTI` with watched keys.
    pub watching_clients: usize,
    /// Clients in pub/sub.
    pub pubsub_clients: usize,
    /// Keys watched.
    pub watched_keys: usize,
    /// Bytes of clients' buffers.
    pub clients_memory: usize,
    /// Longest query buffer and longest output.
    pub max_buffers: [usize; 2],
    /// Estimated share of expired keys among those with a time to live, in percent; the worst when summed.
    pub stale_percent: f64,
    /// Requests that wait for the slice to come home.
    pub hops_waiting: usize,
    /// Commands, bytes in, bytes out and turns of the loop a second, and µs that these worked, lately.
    pub instantaneous: [u64; 5],
    /// Bytes that the process used when the reports were in, without these; 0 when nobody has looked.
    pub used_memory: usize,
}

impl ShardReport {
    /// Bytes that it holds itself.
    pub fn bytes(&self) -> usize {
        size_of::<ShardReport>()
            + self.dbs.capacity() * size_of::<DbReport>()
            + self.stats.commands.capacity() * size_of::<CommandStats>()
            + self.stats.errors.capacity() * size_of::<(String, u64)>()
    }

    /// Adds another shard's report.
    pub fn add(&mut self, other: &ShardReport) {
        self.stats.add(&other.stats);
        self.dbs.resize_with(other.dbs.len().max(self.dbs.len()), Default::default);
        for (mine, theirs) in self.dbs.iter_mut().zip(&other.dbs) {
            let volatile = (mine.expires + theirs.expires) as i64;
            if volatile > 0 {
                let sum = mine.avg_ttl as i128 * mine.expires as i128 + theirs.avg_ttl as i128 * theirs.expires as i128;
                mine.avg_ttl = (sum / volatile as i128) as i64;
            }
            mine.keys += theirs.keys;
            mine.expires += theirs.expires;
            mine.subexpiry += theirs.subexpiry;
            mine.table_bytes += theirs.table_bytes;
            mine.expires_bytes += theirs.expires_bytes;
            mine.rehashing += theirs.rehashing;
        }
        self.clients += other.clients;
        self.blocked_clients += other.blocked_clients;
        self.watching_clients += other.watching_clients;
        self.pubsub_clients += other.pubsub_clients;
        self.watched_keys += other.watched_keys;
        self.clients_memory += other.clients_memory;
        self.stale_percent = self.stale_percent.max(other.stale_percent);
        self.hops_waiting += other.hops_waiting;
        for i in 0..2 {
            self.blocking_keys[i] += other.blocking_keys[i];
            self.max_buffers[i] = self.max_buffers[i].max(other.max_buffers[i]);
        }
        for i in 0..5 {
            self.instantaneous[i] += other.instantaneous[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that grows tells the same as one that was long from the start.
    #[test]
    fn durations_are_the_same_however_they_grew() {
        let orders: [&[u64]; 4] = [
            &[0, 1, 5, 900, 16_383, 16_384, 70_000, 1_048_575, 1_048_576, 999_999_999, 1_000_000_001, u64::MAX],
            &[u64::MAX, 3, 20_000],
            &[300, 2_000_000, 300, 40],
            &[7],
        ];
        let mut sum = Durations::default();
        let mut whole_sum = reaching(REACHES[2]);
        for order in orders {
            let (mut grown, mut whole) = (Durations::default(), reaching(REACHES[2]));
            for ns in order {
                grown.record(*ns);
                whole.saturating_record((*ns).max(1));
            }
            sum.add(&grown);
            whole_sum.add(&whole).unwrap();
            for (grown, whole) in [(&grown, &whole), (&sum, &whole_sum)] {
                assert_eq!((grown.len(), grown.max(), grown.min()), (whole.len(), whole.max(), whole.min()));
                let buckets = |of: &Histogram<u64>| {
                    of.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect::<Vec<_>>()
                };
                assert_eq!(buckets(grown), buckets(whole), "{order:?}");
                let quantiles = |of: &Histogram<u64>| [0.0, 0.5, 0.9, 0.99, 1.0].map(|q| of.value_at_quantile(q));
                assert_eq!(quantiles(grown), quantiles(whole));
            }
        }
        assert_eq!(REACHES.map(|ns| reaching(ns).distinct_values() * 8), [8192, 14336, 24576]);
    }
}
