//! `MEMORY`: where the bytes are. Counterpart: the second half of `object.c`.

use std::sync::atomic::Ordering::Relaxed;

use super::info::{report_question, sum};
use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, flag, help, key};
use crate::args::Args;
use crate::core::Core;
use crate::message::Answer;
use crate::number::parse_i64;
use crate::shard::Shard;
use crate::shared::HostFacts;
use crate::stats::{DbReport, ShardReport};

use flag::*;

const SERVER: Group = Group::Server;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("memory", SERVER).doc("4.0.0", "Depends on the subcommand.", "Looks at the use of memory.", ""),
    Command::data("memory|usage", usage, -3, READONLY, SERVER).keys(&[KeySpec::one(2, key::RO)]).doc(
        "4.0.0",
        "O(N), N being the number of samples",
        "Estimates the bytes a key and its value take.",
        "key [SAMPLES count]",
    ),
    Command::gather("memory|stats", report_question, stats, 2, 0, SERVER).doc(
        "4.0.0",
        "O(1)",
        "Reports what memory is used for.",
        "",
    ),
    Command::gather("memory|doctor", report_question, doctor, 2, 0, SERVER).doc(
        "4.0.0",
        "O(1)",
        "Looks for problems with memory.",
        "",
    ),
    Command::home("memory|purge", purge, 2, 0, SERVER).doc(
        "4.0.0",
        "Depends on how much the allocator holds back",
        "Asks the allocator to return what it holds back.",
        "",
    ),
    Command::home("memory|malloc-stats", malloc_stats, 2, 0, SERVER).doc(
        "4.0.0",
        "Depends on how much the allocator holds",
        "Reports the allocator's own statistics.",
        "",
    ),
    Command::home("memory|help", memory_help, 2, LOADING | STALE, SERVER).doc(
        "4.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

/// What the memory of the process is used for. Ratios are 1 where there is nothing to compare, so that neither a
/// monitor nor the doctor sees trouble in an allocator that keeps no figures.
pub struct Overhead {
    /// Bytes in use now.
    pub used: usize,
    /// The most that ever were.
    pub peak: usize,
    /// Bytes in use before the first key.
    pub startup: usize,
    /// Bytes that are no data: the start's, tables, clients.
    pub overhead: usize,
    /// Bytes of tables.
    pub tables: usize,
    /// Bytes of tables that are growing or shrinking now.
    pub rehashing_bytes: usize,
    /// Keys of all databases.
    pub keys: usize,
    /// Bytes of clients.
    pub clients: usize,
    /// What the process says.
    pub facts: HostFacts,
}

fn ratio(a: usize, b: usize) -> f64 {
    if a == 0 || b == 0 { 1.0 } else { a as f64 / b as f64 }
}

impl Overhead {
    /// The state of a server whose shards report this.
    pub fn new(core: &Core, report: &ShardReport) -> Self {
        let used = if report.used_memory > 0 { report.used_memory } else { core.shared.sample_memory() };
        let startup = core.shared.startup_memory.load(Relaxed);
        let tables: usize = report.dbs.iter().map(|db| db.table_bytes + db.expires_bytes).sum();
        let rehashing = report.dbs.iter().filter(|db| db.rehashing > 0);
        Overhead {
            used,
            peak: core.shared.peak_memory.load(Relaxed).max(used),
            startup,
            overhead: startup + tables + report.clients_memory,
            tables,
            rehashing_bytes: rehashing.map(|db| db.table_bytes + db.expires_bytes).sum(),
            keys: report.dbs.iter().map(|db| db.keys).sum(),
            clients: report.clients_memory,
            facts: core.shared.host.facts(),
        }
    }

    /// Bytes of data.
    pub fn dataset(&self) -> usize {
        self.used.saturating_sub(self.overhead)
    }

    /// Use now as a share of the peak.
    pub fn peak_percent(&self) -> f64 {
        self.used as f64 * 100.0 / self.peak.max(1) as f64
    }

    /// Data as a share of what came after the start.
    pub fn dataset_percent(&self) -> f64 {
        let net = self.used.saturating_sub(self.startup).max(1);
        (self.dataset() as f64 * 100.0 / net as f64).min(100.0)
    }

    /// Active pages over bytes in use.
    pub fn allocator_frag(&self) -> f64 {
        ratio(self.facts.allocator.active, self.facts.allocator.allocated)
    }

    /// The same as a difference.
    pub fn allocator_frag_bytes(&self) -> usize {
        self.facts.allocator.active.saturating_sub(self.facts.allocator.allocated)
    }

    /// The allocator's resident pages over its active ones.
    pub fn allocator_rss(&self) -> f64 {
        ratio(self.facts.allocator.resident, self.facts.allocator.active)
    }

    /// The same as a difference.
    pub fn allocator_rss_bytes(&self) -> i64 {
        self.facts.allocator.resident as i64 - self.facts.allocator.active as i64
    }

    /// The process's resident pages over the allocator's.
    pub fn rss_overhead(&self) -> f64 {
        ratio(self.facts.rss, self.facts.allocator.resident)
    }

    /// The same as a difference.
    pub fn rss_overhead_bytes(&self) -> i64 {
        self.facts.rss as i64 - self.facts.allocator.resident as i64
    }

    /// Resident bytes over bytes in use.
    pub fn fragmentation(&self) -> f64 {
        ratio(self.facts.rss, self.used)
    }

    /// The same as a difference.
    pub fn fragmentation_bytes(&self) -> i64 {
        self.facts.rss as i64 - self.used as i64
    }
}

/// Bytes for people: `1.50K`, `2.00G`.
pub fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = ' ';
    for next in ['K', 'M', 'G', 'T', 'P', 'E'] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.2}{unit}")
}

fn usage(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut i = 3;
    while i < args.len() {
        if !args.is(i, "samples") || i + 1 >= args.len() {
            return Err(CommandError::Syntax);
        }
        // Sizes are known here without looking at elements, so the number of samples only has to be one.
        if parse_i64(args.at(i + 1)).ok_or(CommandError::NotInteger)? < 0 {
            return Err(CommandError::Syntax);
        }
        i += 2;
    }
    let key = ctx.key(args, 2);
    // As with DEBUG, a key past its time that is still there takes memory.
    match ctx.db(key).dict.find(key.hash, key.bytes) {
        None => ctx.reply.null(),
        Some(entry) => {
            let db = ctx.db(key);
            // Its share of the table: one slot, and the load of a table is about that.
            let slot = db.dict.bytes() / db.dict.len().max(1);
            let slot = slot.min(64) + if entry.expire_at().is_some() { size_of::<usize>() } else { 0 };
            ctx.reply.integer((entry.heap_bytes() + slot) as i64);
        }
    }
    Ok(())
}

fn stats(shard: &mut Shard, index: u32, _: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let report = sum(answers);
    let memory = Overhead::new(&shard.core, &report);
    let dbs: Vec<(usize, &DbReport)> = report.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0).collect();
    let rehashing: usize = report.dbs.iter().map(|db| db.rehashing).sum();
    let reply = &mut shard.client(index).reply();
    let list = reply.open_list();
    let mut pairs = 0;
    let mut number = |reply: &mut crate::resp::Reply<'_>, name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
        pairs += 1;
    };
    number(reply, "peak.allocated", memory.peak as i64);
    number(reply, "total.allocated", memory.used as i64);
    number(reply, "startup.allocated", memory.startup as i64);
    number(reply, "replication.backlog", 0);
    number(reply, "clients.slaves", 0);
    number(reply, "clients.normal", memory.clients as i64);
    number(reply, "cluster.links", 0);
    number(reply, "aof.buffer", 0);
    number(reply, "lua.caches", 0);
    number(reply, "functions.caches", 0);
    let count = dbs.len();
    for (id, db) in dbs {
        reply.bulk(format!("db.{id}").as_bytes());
        reply.map(2);
        reply.bulk(b"overhead.hashtable.main");
        reply.integer(db.table_bytes as i64);
        reply.bulk(b"overhead.hashtable.expires");
        reply.integer(db.expires_bytes as i64);
    }
    number(reply, "overhead.db.hashtable.lut", memory.tables as i64);
    number(reply, "overhead.db.hashtable.rehashing", memory.rehashing_bytes as i64);
    number(reply, "overhead.total", memory.overhead as i64);
    number(reply, "db.dict.rehashing.count", rehashing as i64);
    number(reply, "keys.count", memory.keys as i64);
    let each = memory.dataset().checked_div(memory.keys).unwrap_or(0);
    number(reply, "keys.bytes-per-key", each as i64);
    number(reply, "dataset.bytes", memory.dataset() as i64);
    let allocator = memory.facts.allocator;
    let mut pairs = pairs + count;
    let mut pair = |reply: &mut crate::resp::Reply<'_>, name: &str, value: Result<f64, i64>| {
        reply.bulk(name.as_bytes());
        match value {
            Ok(value) => reply.double(value),
            Err(value) => reply.integer(value),
        }
        pairs += 1;
    };
    pair(reply, "dataset.percentage", Ok(memory.dataset_percent()));
    pair(reply, "peak.percentage", Ok(memory.peak_percent()));
    pair(reply, "allocator.allocated", Err(allocator.allocated as i64));
    pair(reply, "allocator.active", Err(allocator.active as i64));
    pair(reply, "allocator.resident", Err(allocator.resident as i64));
    pair(reply, "allocator.muzzy", Err(0));
    pair(reply, "allocator-fragmentation.ratio", Ok(memory.allocator_frag()));
    pair(reply, "allocator-fragmentation.bytes", Err(memory.allocator_frag_bytes() as i64));
    pair(reply, "allocator-rss.ratio", Ok(memory.allocator_rss()));
    pair(reply, "allocator-rss.bytes", Err(memory.allocator_rss_bytes()));
    pair(reply, "rss-overhead.ratio", Ok(memory.rss_overhead()));
    pair(reply, "rss-overhead.bytes", Err(memory.rss_overhead_bytes()));
    pair(reply, "fragmentation", Ok(memory.fragmentation()));
    pair(reply, "fragmentation.bytes", Err(memory.fragmentation_bytes()));
    reply.close_map(list, pairs);
    Ok(())
}

/// Below this much memory in use the ratios say nothing.
const DOCTOR_MIN_BYTES: usize = 5 << 20;

/// A difference of fewer bytes is not worth a word, whatever its ratio.
const DOCTOR_BYTES: i64 = 10 << 20;

/// What is wrong with this use of memory.
fn diagnose(memory: &Overhead, clients: usize) -> Vec<&'static str> {
    let mut found = Vec::new();
    let over = |ratio: f64, limit: f64, bytes: i64| ratio > limit && bytes > DOCTOR_BYTES;
    if memory.peak as f64 > memory.used as f64 * 1.5 {
        found.push(
            "Peak: at some time this server used over 150% of the memory it uses now. Pages from then may still be \
             held, which makes the ratios below look bad; they will be filled before new ones are taken. MEMORY PURGE \
             tries to return them.",
        );
    }
    if over(memory.fragmentation(), 1.4, memory.fragmentation_bytes()) {
        found.push(
            "Resident memory: the process holds over 1.4 times the bytes in use. If there was a peak (see above) this \
             is what is left of it; if not, sizes of values change in a way the allocator copes badly with.",
        );
    }
    if over(memory.allocator_frag(), 1.1, memory.allocator_frag_bytes() as i64) {
        found.push("Allocator fragmentation: pages in use are filled to less than 1/1.1 of their size.");
    }
    if over(memory.allocator_rss(), 1.1, memory.allocator_rss_bytes()) {
        found.push("Allocator overhead: the allocator keeps pages it has no use for; MEMORY PURGE returns them.");
    }
    if over(memory.rss_overhead(), 1.1, memory.rss_overhead_bytes()) {
        found.push(
            "Process overhead: over a tenth of the resident memory is not the allocator's (rings, stacks, code).",
        );
    }
    if clients > 0 && memory.clients / clients > 200 << 10 {
        found.push(
            "Clients: their buffers take over 200 KB each on average. CLIENT LIST shows who does not read replies or \
             sends very long pipelines (fields omem, qbuf).",
        );
    }
    found
}

fn doctor(shard: &mut Shard, index: u32, _: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let report = sum(answers);
    let memory = Overhead::new(&shard.core, &report);
    let text = if memory.used < DOCTOR_MIN_BYTES {
        "This server holds little or nothing, too little to judge its use of memory by. Ask again when there is data \
         in it.\n"
            .to_string()
    } else {
        let found = diagnose(&memory, report.clients);
        match found.is_empty() {
            true => "There is nothing wrong with the use of memory as far as can be seen from here.\n".to_string(),
            false => {
                let lines: String = found.iter().map(|line| format!(" * {line}\n\n")).collect();
                format!("Some things about the use of memory deserve a look:\n\n{lines}")
            }
        }
    };
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

fn purge(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.core.shared.host.purge();
    shard.client(index).reply().ok();
    Ok(())
}

fn malloc_stats(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let host = &shard.core.shared.host;
    let text = host.malloc_stats().unwrap_or_else(|| {
        let facts = host.facts().allocator;
        format!(
            "Allocated: {}, active: {}, resident: {}, retained: {}\n",
            facts.allocated, facts.active, facts.resident, facts.retained
        )
    });
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

fn memory_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "MEMORY",
        &[
            ("DOCTOR", "Look for problems with memory and name them."),
            ("MALLOC-STATS", "Return the allocator's own statistics."),
            ("PURGE", "Ask the allocator to return the pages it holds back."),
            ("STATS", "Return what the memory is used for."),
            (
                "USAGE <key> [SAMPLES <count>]",
                "Return the bytes that <key> and its value take. <count> bounds how many elements are looked at.",
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Check, Value};

    #[test]
    fn usage_grows_with_the_value() {
        let mut t = Check::new();
        t.check("MEMORY USAGE none", "nil");
        t.check("SET short 1", "OK").check("SET long x", "OK").check("SETRANGE long 9999 x", "10000");
        t.look("MEMORY USAGE short", |v| assert!((16..200).contains(&v.integer()), "{v}"));
        t.look("MEMORY USAGE long SAMPLES 0", |v| assert!((10_000..25_000).contains(&v.integer()), "{v}"));
        t.check("MEMORY USAGE short SAMPLES -1", "-ERR syntax error");
        t.check("MEMORY USAGE short SAMPLES x", "-ERR value is not an integer or out of range");
        t.check("MEMORY USAGE short COUNT", "-ERR syntax error");
    }

    #[test]
    fn stats_is_a_map() {
        let mut t = Check::new();
        t.check("MSET a 1 b 2 c 3 d 4", "OK");
        t.look("MEMORY STATS", |v| {
            assert_eq!(v.get("keys.count"), Some(Value::Integer(4)));
            assert_eq!(v.get("total.allocated"), Some(Value::Integer(1 << 20)));
            assert!(v.get("db.0").unwrap().get("overhead.hashtable.main").unwrap().integer() > 0);
            // 31 fields and one database, as in Redis 7.4.
            assert_eq!(v.items().len(), 64);
        });
        t.types("MEMORY PURGE", "OK", "OK").each(|world, _| assert!(world.host.purged.load(Relaxed)));
        t.look("MEMORY MALLOC-STATS", |v| assert!(v.text().starts_with("Allocated: 1048576,")));
    }

    #[test]
    fn the_doctor_looks_only_at_what_is_there() {
        let mut t = Check::new();
        t.look("MEMORY DOCTOR", |v| assert!(v.text().contains("too little to judge")));
        t.each(|world, _| world.host.used_memory.store(100 << 20, Relaxed));
        t.look("MEMORY DOCTOR", |v| assert!(v.text().starts_with("There is nothing wrong"), "{v}"));
        t.each(|world, _| world.host.used_memory.store(10 << 20, Relaxed));
        t.look("MEMORY DOCTOR", |v| assert!(v.text().contains(" * Peak:"), "{v}"));
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (1 << 20, "1.00M"), (5 << 30, "5.00G")] {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human(u64::MAX), "16.00E");
    }
}
