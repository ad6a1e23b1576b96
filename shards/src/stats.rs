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
    pub latency: Option<Box<Histogram<u64>>>,
}

impl CommandStats {
    /// Adds another shard's, or another row's, counters.
    pub fn add(&mut self, other: &CommandStats) {
        self.calls += other.calls;
        self.ticks += other.ticks;
        self.rejected += other.rejected;
        self.failed += other.failed;
        match (&mut self.latency, &other.latency) {
            (Some(mine), Some(theirs)) => mine.add(&**theirs).expect("same bounds everywhere"),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            _ => {}
        }
    }
}

/// An empty histogram of durations: 1 ns to 1 s with two digits, as Redis keeps them.
pub fn latency_histogram() -> Box<Histogram<u64>> {
    Box::new(Histogram::new_with_bounds(1, 1_000_000_000, 2).expect("constant bounds are valid"))
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
