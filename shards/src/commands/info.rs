//! `INFO`: the state of the server as text, section by section.
//!
//! Counters live in the shards; every shard reports ([`Question::Report`]) and the sum is what is shown. Fields and
//! their order are those of Redis 7.4, for clients and monitors read them by name. What is not built (logs,
//! replication, scripts, modules) shows the value that Redis shows while it does nothing of that kind.
//! Counterpart: `genRedisInfoString` (`server.c`).

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use super::memory::{Overhead, human};
use super::{Command, CommandResult, Group, acl, flag};
use crate::aof::State;
use crate::args::Args;
use crate::config::format_percentile;
use crate::core::Core;
use crate::message::{Answer, Detail, Question};
use crate::pubsub::Kind;
use crate::shard::Shard;
use crate::stats::{CommandStats, ShardReport};

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[Command::gather("info", info_question, info, -1, LOADING | STALE, Group::Server)
    .categories(acl::DANGEROUS)
    .doc("1.0.0", "O(1)", "Describes the server and what it has done so far.", "[section [section ...]]")];

/// Asks every shard for its report.
pub fn report_question(_: Args<'_>) -> Option<Question> {
    Some(Question::Report { detail: Detail::Sums })
}

fn info_question(args: Args<'_>) -> Option<Question> {
    let wanted = Wanted::new(args);
    let detail = match () {
        () if wanted.has("latencystats") => Detail::Histograms,
        () if wanted.has("commandstats") => Detail::Commands,
        () => Detail::Sums,
    };
    Some(Question::Report { detail })
}

/// The reports of single shards, in their order.
fn reports(answers: Vec<Answer>) -> Vec<ShardReport> {
    answers
        .into_iter()
        .filter_map(|answer| match answer {
            Answer::Report(report) => Some(*report),
            _ => None,
        })
        .collect()
}

/// The report of the whole server.
pub fn sum(answers: Vec<Answer>) -> ShardReport {
    total(&reports(answers))
}

fn total(reports: &[ShardReport]) -> ShardReport {
    let mut total = ShardReport::default();
    reports.iter().for_each(|report| total.add(report));
    total
}

/// Counters by full name of command, sorted; those of subcommands that `COMMAND` does not list count for their
/// container, as in Redis.
pub fn command_stats(core: &Core, report: &ShardReport) -> Vec<(&'static str, CommandStats)> {
    let mut list: Vec<(&'static str, CommandStats)> = Vec::new();
    for (id, row) in core.table.rows() {
        let Some(stats) = report.stats.commands.get(id as usize) else { continue };
        let name = if row.has(SUBCOMMAND) { row.container_name() } else { row.name };
        match list.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => sum.add(stats),
            None => list.push((name, stats.clone())),
        }
    }
    list.retain(|(_, stats)| stats.calls != 0 || stats.rejected != 0 || stats.failed != 0);
    list.sort_by_key(|(name, _)| *name);
    list
}

/// Sections shown when none is named.
const DEFAULT: [&str; 11] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
];

/// Which sections are asked for.
struct Wanted {
    names: Vec<String>,
    all: bool,
}

impl Wanted {
    fn new(args: Args<'_>) -> Self {
        let mut wanted = Wanted { names: Vec::new(), all: false };
        for arg in args.iter_from(1) {
            let name = String::from_utf8_lossy(arg).to_lowercase();
            match name.as_str() {
                "all" | "everything" => wanted.all = true,
                "default" => wanted.names.extend(DEFAULT.map(String::from)),
                "module_list" => wanted.names.push("modules".into()),
                _ => wanted.names.push(name),
            }
        }
        if args.len() == 1 {
            wanted.names.extend(DEFAULT.map(String::from));
        }
        wanted
    }

    fn has(&self, section: &str) -> bool {
        self.all || self.named(section)
    }

    fn named(&self, section: &str) -> bool {
        self.names.iter().any(|name| name == section)
    }
}

/// The text under construction.
#[derive(Default)]
struct Text(String);

impl Text {
    fn section(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.0, "# {title}\r\n");
    }

    fn line(&mut self, field: &str, value: impl Display) {
        let _ = write!(self.0, "{field}:{value}\r\n");
    }

    /// Bytes, and the same for people under `<field>_human`.
    fn bytes(&mut self, field: &str, bytes: u64) {
        self.line(field, bytes);
        self.line(&format!("{field}_human"), human(bytes));
    }

    /// Fields that are 0 while nothing of their kind is built or has happened.
    fn zeros(&mut self, fields: &[&str]) {
        fields.iter().for_each(|field| self.line(field, 0));
    }
}

fn info(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    let wanted = Wanted::new(args);
    // As it was before anything was put together for this reply.
    let reports = reports(answers);
    let used = shard.core.shared.sample_memory().saturating_sub(reports.iter().map(ShardReport::bytes).sum());
    let text = text(&shard.core, &wanted, &reports, used);
    shard.client(index).reply().verbatim("txt", text.as_bytes());
    Ok(())
}

/// Writes one section.
type Section = fn(&mut Text, &Core, &ShardReport);

fn text(core: &Core, wanted: &Wanted, reports: &[ShardReport], used_memory: usize) -> String {
    let report = ShardReport { used_memory, ..total(reports) };
    let mut text = Text::default();
    let sections: [(&str, Section); 13] = [
        ("server", server),
        ("clients", clients),
        ("memory", memory),
        ("persistence", persistence),
        ("stats", stats),
        ("replication", replication),
        ("cpu", cpu),
        ("modules", |text, _, _| text.section("Modules")),
        ("commandstats", commandstats),
        ("errorstats", errorstats),
        ("latencystats", latencystats),
        ("cluster", cluster),
        ("keyspace", keyspace),
    ];
    for (name, write) in sections {
        if wanted.has(name) {
            write(&mut text, core, &report);
        }
    }
    if wanted.has("shards") {
        shards(&mut text, core, reports);
    }
    if wanted.named("debug") {
        debug(&mut text, core);
    }
    text.0
}

fn server(text: &mut Text, core: &Core, _: &ShardReport) {
    let (shared, config) = (&core.shared, &core.config);
    let facts = shared.host.facts();
    let mut told: Vec<&str> = Vec::new();
    let mut fact = |text: &mut Text, field: &'static str, otherwise: &str| {
        told.push(field);
        let known = facts.server.iter().find(|(name, _)| *name == field);
        text.line(field, known.map_or(otherwise, |(_, value)| value));
    };
    text.section("Server");
    text.line("redis_version", crate::REDIS_VERSION);
    fact(text, "redis_git_sha1", "00000000");
    fact(text, "redis_git_dirty", "0");
    fact(text, "redis_build_id", "0");
    text.line("redis_mode", "standalone");
    fact(text, "os", "Linux");
    fact(text, "arch_bits", "64");
    fact(text, "monotonic_clock", "POSIX clock_gettime");
    fact(text, "multiplexing_api", facts.event_loop);
    fact(text, "atomicvar_api", "rust-std");
    fact(text, "gcc_version", "0.0.0");
    text.line("process_id", shared.process_id);
    fact(text, "process_supervised", "no");
    text.line("run_id", &shared.run_id);
    text.line("tcp_port", if config.port != 0 { config.port } else { config.tls_port });
    text.line("server_time_usec", core.unix_us());
    let uptime = (core.now_ms - shared.start_ms).max(0) / 1000;
    text.line("uptime_in_seconds", uptime);
    text.line("uptime_in_days", uptime / (24 * 3600));
    text.line("hz", config.hz);
    text.line("configured_hz", config.hz);
    text.line("lru_clock", core.lru_clock);
    text.line("executable", &shared.executable);
    text.line("config_file", &shared.config_file);
    text.line("io_threads_active", 0);
    let mut listeners = 0;
    let mut listener = |text: &mut Text, kind: &str, place: &str, port: Option<u16>| {
        let port = port.map_or(String::new(), |port| format!(",port={port}"));
        text.line(&format!("listener{listeners}"), format!("name={kind},{place}{port}"));
        listeners += 1;
    };
    if config.port != 0 {
        let places: Vec<String> = config.bind.iter().map(|address| format!("bind={address}")).collect();
        listener(text, "tcp", &places.join(","), Some(config.port));
    }
    if let Some(path) = &config.unixsocket {
        listener(text, "unix", &format!("bind={path}"), None);
    }
    text.line("ringshard_version", env!("CARGO_PKG_VERSION"));
    text.line("shards", core.shards);
    text.line("event_loop", facts.event_loop);
    for (field, value) in facts.server.iter().filter(|(field, _)| !told.contains(field) && *field != "mem_allocator") {
        text.line(field, value);
    }
}

fn clients(text: &mut Text, core: &Core, report: &ShardReport) {
    text.section("Clients");
    text.line("connected_clients", report.clients);
    text.line("cluster_connections", 0);
    text.line("maxclients", core.config.maxclients);
    text.line("client_recent_max_input_buffer", report.max_buffers[0]);
    text.line("client_recent_max_output_buffer", report.max_buffers[1]);
    text.line("blocked_clients", report.blocked_clients);
    text.line("tracking_clients", core.shared.tracking.total_clients());
    text.line("pubsub_clients", report.pubsub_clients);
    text.line("watching_clients", report.watching_clients);
    text.line("clients_in_timeout_table", 0);
    text.line("total_watched_keys", report.watched_keys);
    text.line("total_blocking_keys", report.blocking_keys[0]);
    text.line("total_blocking_keys_on_nokey", report.blocking_keys[1]);
}

fn memory(text: &mut Text, core: &Core, report: &ShardReport) {
    let memory = Overhead::new(core, report);
    let facts = &memory.facts;
    text.section("Memory");
    text.bytes("used_memory", memory.used as u64);
    text.bytes("used_memory_rss", facts.rss as u64);
    text.bytes("used_memory_peak", memory.peak as u64);
    text.line("used_memory_peak_perc", format_args!("{:.2}%", memory.peak_percent()));
    text.line("used_memory_overhead", memory.overhead);
    text.line("used_memory_startup", memory.startup);
    text.line("used_memory_dataset", memory.dataset());
    text.line("used_memory_dataset_perc", format_args!("{:.2}%", memory.dataset_percent()));
    text.line("allocator_allocated", facts.allocator.allocated);
    text.line("allocator_active", facts.allocator.active);
    text.line("allocator_resident", facts.allocator.resident);
    text.line("allocator_muzzy", 0);
    text.bytes("total_system_memory", facts.system_memory);
    let store = &core.shared.scripts;
    let [eval, functions] = store.machine_report();
    let (scripts, script_bytes) = store.script_report();
    let [functions_number, libraries, library_bytes] = store.with_libraries(|libraries| {
        let bytes = libraries.by_name.values().map(|library| library.code.len()).sum();
        [libraries.functions.len(), libraries.by_name.len(), bytes]
    });
    text.bytes("used_memory_vm_eval", eval as u64);
    text.bytes("used_memory_lua", eval as u64);
    text.line("used_memory_scripts_eval", script_bytes);
    text.line("number_of_cached_scripts", scripts);
    text.line("number_of_functions", functions_number);
    text.line("number_of_libraries", libraries);
    text.line("used_memory_vm_functions", functions);
    text.bytes("used_memory_vm_total", (eval + functions) as u64);
    text.line("used_memory_functions", library_bytes);
    text.bytes("used_memory_scripts", (script_bytes + library_bytes) as u64);
    text.bytes("maxmemory", core.config.maxmemory);
    use crate::config::Named;
    text.line("maxmemory_policy", core.config.maxmemory_policy.name());
    text.line("allocator_frag_ratio", format_args!("{:.2}", memory.allocator_frag()));
    text.line("allocator_frag_bytes", memory.allocator_frag_bytes());
    text.line("allocator_rss_ratio", format_args!("{:.2}", memory.allocator_rss()));
    text.line("allocator_rss_bytes", memory.allocator_rss_bytes());
    text.line("rss_overhead_ratio", format_args!("{:.2}", memory.rss_overhead()));
    text.line("rss_overhead_bytes", memory.rss_overhead_bytes());
    text.line("mem_fragmentation_ratio", format_args!("{:.2}", memory.fragmentation()));
    text.line("mem_fragmentation_bytes", memory.fragmentation_bytes());
    text.line("mem_not_counted_for_evict", core.shared.uncounted_memory());
    text.zeros(&["mem_replication_backlog", "mem_total_replication_buffers", "mem_clients_slaves"]);
    text.line("mem_clients_normal", report.clients_memory);
    text.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    let allocator = facts.server.iter().find(|(field, _)| *field == "mem_allocator");
    text.line("mem_allocator", allocator.map_or("jemalloc", |(_, name)| name.as_str()));
    text.line("mem_overhead_db_hashtable_rehashing", memory.rehashing_bytes);
    text.line("active_defrag_running", 0);
    text.line("lazyfree_pending_objects", core.shared.lazyfree_pending.load(Relaxed));
    text.line("lazyfreed_objects", core.shared.lazyfreed_objects.load(Relaxed));
}

fn persistence(text: &mut Text, core: &Core, _: &ShardReport) {
    let state = &core.shared.persistence;
    let loading = state.loading.load(Relaxed);
    let saving = state.saving.load(Relaxed);
    text.section("Persistence");
    text.line("loading", loading as u8);
    text.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    let [done, total] = [0, 1].map(|i| state.progress[i].load(Relaxed));
    let percent = if saving && total > 0 { done as f64 * 100.0 / total as f64 } else { 0.0 };
    text.line("current_fork_perc", format_args!("{percent:.2}"));
    text.line("current_save_keys_processed", if saving { done } else { 0 });
    text.line("current_save_keys_total", if saving { total } else { 0 });
    let changes: u64 = state.changes.iter().map(|n| n.0.load(Relaxed)).sum();
    text.line("rdb_changes_since_last_save", changes.saturating_sub(state.saved_changes.load(Relaxed)));
    let aof = &core.shared.aof;
    let (rewriting, base) = (aof.rewriting.load(Relaxed), state.base_of.load(Relaxed) != 0);
    let saving = saving && !base;
    text.line("rdb_bgsave_in_progress", saving as u8);
    text.line("rdb_last_save_time", state.last_save.load(Relaxed));
    text.line("rdb_last_bgsave_status", if state.last_ok.load(Relaxed) { "ok" } else { "err" });
    text.line("rdb_last_bgsave_time_sec", state.last_seconds.load(Relaxed));
    let since = (core.now_ms - state.since_ms.load(Relaxed)) / 1000;
    text.line("rdb_current_bgsave_time_sec", if saving { since } else { -1 });
    text.line("rdb_saves", state.saves.load(Relaxed));
    text.line("rdb_last_cow_size", 0);
    text.line("rdb_last_load_keys_expired", state.loaded[1].load(Relaxed));
    text.line("rdb_last_load_keys_loaded", state.loaded[0].load(Relaxed));
    let state_of_log = aof.state();
    text.line("aof_enabled", u8::from(state_of_log != State::Off));
    text.line("aof_rewrite_in_progress", u8::from(rewriting));
    text.line("aof_rewrite_scheduled", u8::from(aof.scheduled.load(Relaxed)));
    text.line("aof_last_rewrite_time_sec", aof.rewrite_seconds.load(Relaxed));
    let since = aof.rewrite_since_ms.load(Relaxed);
    text.line("aof_current_rewrite_time_sec", if rewriting && since > 0 { (core.now_ms - since) / 1000 } else { -1 });
    text.line("aof_last_bgrewrite_status", if aof.rewrite_ok.load(Relaxed) { "ok" } else { "err" });
    text.line("aof_rewrites", aof.rewrites.load(Relaxed));
    text.line("aof_rewrites_consecutive_failures", aof.failures.load(Relaxed));
    text.line("aof_last_write_status", if aof.broken.load(Relaxed) { "err" } else { "ok" });
    text.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if state_of_log != State::Off {
        text.line("aof_current_size", aof.current_size());
        text.line("aof_base_size", aof.rewrite_base_size.load(Relaxed));
        text.line("aof_pending_rewrite", u8::from(aof.scheduled.load(Relaxed)));
        text.line("aof_buffer_length", aof.buffered.load(Relaxed));
        text.line("aof_pending_bio_fsync", aof.syncing.load(Relaxed));
        text.line("aof_delayed_fsync", aof.delayed_syncs.load(Relaxed));
    }
    if loading {
        let (total, done) = (state.loading_total.load(Relaxed), state.loading_done.load(Relaxed));
        let (begun, now) = (state.loading_since_ms.load(Relaxed), core.now_ms);
        let left = total.saturating_sub(done) as f64 * (now - begun).max(1) as f64 / 1000.0 / done.max(1) as f64;
        text.line("loading_start_time", begun / 1000);
        text.line("loading_total_bytes", total);
        text.line("loading_rdb_used_mem", 0);
        text.line("loading_loaded_bytes", done);
        let percent = if total > 0 { done as f64 * 100.0 / total as f64 } else { 0.0 };
        text.line("loading_loaded_perc", format_args!("{percent:.2}"));
        text.line("loading_eta_seconds", left as u64);
    }
}

fn stats(text: &mut Text, core: &Core, report: &ShardReport) {
    let stats = &report.stats;
    let facts = core.shared.host.facts();
    let [commands, input, output, turns, worked_us] = report.instantaneous;
    let kbps = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    text.section("Stats");
    text.line("total_connections_received", stats.connections_received);
    text.line("total_commands_processed", stats.commands_processed);
    text.line("instantaneous_ops_per_sec", commands);
    text.line("total_net_input_bytes", stats.net_input_bytes);
    text.line("total_net_output_bytes", stats.net_output_bytes);
    text.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    text.line("instantaneous_input_kbps", kbps(input));
    text.line("instantaneous_output_kbps", kbps(output));
    text.line("instantaneous_input_repl_kbps", "0.00");
    text.line("instantaneous_output_repl_kbps", "0.00");
    text.line("rejected_connections", stats.rejected_connections);
    for (field, count) in
        ["sync_full", "sync_partial_ok", "sync_partial_err"].into_iter().zip(&core.shared.replication.syncs)
    {
        text.line(field, count.load(Relaxed));
    }
    text.line("expired_subkeys", stats.expired_subkeys);
    text.line("expired_keys", stats.expired_keys);
    text.line("expired_stale_perc", format_args!("{:.2}", report.stale_percent));
    text.line("expired_time_cap_reached_count", stats.expired_time_cap_reached);
    text.line("expire_cycle_cpu_milliseconds", stats.expire_cycle_us / 1000);
    text.line("evicted_keys", stats.evicted_keys);
    text.line("evicted_clients", stats.evicted_clients);
    text.line("evicted_scripts", core.shared.scripts.evicted.load(std::sync::atomic::Ordering::Relaxed));
    text.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    text.line("keyspace_hits", stats.keyspace_hits);
    text.line("keyspace_misses", stats.keyspace_misses);
    let registry = &core.shared.registry;
    text.line("pubsub_channels", registry.count(Kind::Channel));
    text.line("pubsub_patterns", registry.count(Kind::Pattern));
    text.line("pubsubshard_channels", registry.count(Kind::Sharded));
    text.zeros(&["latest_fork_usec", "total_forks"]);
    text.line("migrate_cached_sockets", facts.migrate_cached_sockets);
    text.zeros(&[
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ]);
    let tracking = &core.shared.tracking;
    text.line("tracking_total_keys", tracking.keys.load(Relaxed));
    text.line("tracking_total_items", tracking.items.load(Relaxed));
    text.line("tracking_total_prefixes", tracking.total_prefixes());
    text.line("unexpected_error_replies", 0);
    text.line("total_error_replies", stats.error_replies);
    text.line("dump_payload_sanitizations", 0);
    text.line("total_reads_processed", stats.reads_processed);
    text.line("total_writes_processed", stats.writes_processed);
    text.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    text.line("client_query_buffer_limit_disconnections", stats.query_buffer_limit_disconnections);
    text.line("client_output_buffer_limit_disconnections", stats.output_buffer_limit_disconnections);
    text.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    text.line("eventloop_cycles", facts.eventloop_cycles);
    text.line("eventloop_duration_sum", facts.eventloop_duration_us);
    text.line("eventloop_duration_cmd_sum", (stats.command_ticks as f64 / core.shared.host.ticks_per_us()) as u64);
    text.line("instantaneous_eventloop_cycles_per_sec", turns);
    text.line("instantaneous_eventloop_duration_usec", worked_us.checked_div(turns).unwrap_or(0));
    text.line("acl_access_denied_auth", stats.acl_access_denied_auth);
    text.line("acl_access_denied_cmd", stats.acl_access_denied_cmd);
    text.line("acl_access_denied_key", stats.acl_access_denied_key);
    text.line("acl_access_denied_channel", stats.acl_access_denied_channel);
}

fn replication(text: &mut Text, core: &Core, _: &ShardReport) {
    let shared = core.shared.clone();
    let feed = shared.replication.feed();
    text.section("Replication");
    text.line("role", "master");
    text.line("connected_slaves", feed.replicas.len());
    if crate::replication::is_demanding(&core.config) {
        text.line("min_slaves_good_slaves", shared.replication.good.load(Relaxed));
    }
    for (n, replica) in feed.replicas.iter().enumerate() {
        let online = replica.state == crate::replication::replica::State::Online;
        let lag = if online { core.now_ms / 1000 - replica.heard_ms / 1000 } else { 0 };
        text.line(
            &format!("slave{n}"),
            format_args!(
                "ip={},port={},state={},offset={},lag={lag}",
                replica.address,
                replica.port,
                replica.state.name(),
                replica.acknowledged
            ),
        );
    }
    text.line("master_failover_state", "no-failover");
    text.line("master_replid", &feed.id);
    text.line("master_replid2", "0".repeat(40));
    text.line("master_repl_offset", feed.offset());
    text.line("second_repl_offset", -1);
    text.line("repl_backlog_active", u8::from(feed.active));
    text.line("repl_backlog_size", core.config.repl_backlog_size);
    let (bytes, first) = (feed.backlog_bytes(), feed.offset() - feed.backlog_bytes() + 1);
    text.line("repl_backlog_first_byte_offset", if feed.active { first } else { 0 });
    text.line("repl_backlog_histlen", bytes);
}

fn cpu(text: &mut Text, core: &Core, _: &ShardReport) {
    let facts = core.shared.host.facts();
    text.section("CPU");
    let fields = ["used_cpu_sys", "used_cpu_user", "used_cpu_sys_children", "used_cpu_user_children"];
    for (field, seconds) in fields.into_iter().zip(facts.cpu) {
        text.line(field, format_args!("{seconds:.6}"));
    }
    // There is no main thread; this is the shard that answers.
    for (field, seconds) in ["used_cpu_sys_main_thread", "used_cpu_user_main_thread"].into_iter().zip(facts.thread_cpu)
    {
        text.line(field, format_args!("{seconds:.6}"));
    }
}

fn commandstats(text: &mut Text, core: &Core, report: &ShardReport) {
    text.section("Commandstats");
    let per_us = core.shared.host.ticks_per_us();
    for (name, stats) in command_stats(core, report) {
        let us = (stats.ticks as f64 / per_us) as u64;
        let each = if stats.calls == 0 { 0.0 } else { stats.ticks as f64 / per_us / stats.calls as f64 };
        text.line(
            &format!("cmdstat_{name}"),
            format_args!(
                "calls={},usec={us},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                stats.calls, stats.rejected, stats.failed
            ),
        );
    }
}

fn errorstats(text: &mut Text, _: &Core, report: &ShardReport) {
    text.section("Errorstats");
    let mut errors = report.stats.errors.clone();
    errors.sort();
    for (code, count) in errors {
        text.line(&format!("errorstat_{}", safe_codes(&code)), format_args!("count={count}"));
    }
}

/// Error codes as they may be shown: what a client made up must not look like a field of its own.
pub(crate) fn safe_codes(codes: &str) -> String {
    codes.chars().map(|c| if matches!(c, ':' | '\r' | '\n' | '#') { '_' } else { c }).collect()
}

fn latencystats(text: &mut Text, core: &Core, report: &ShardReport) {
    text.section("Latencystats");
    if !core.config.latency_tracking {
        return;
    }
    for (name, stats) in command_stats(core, report) {
        let Some(histogram) = &stats.latency else { continue };
        let percentiles: Vec<String> = core
            .config
            .latency_tracking_info_percentiles
            .iter()
            .map(|p| {
                let us = histogram.value_at_quantile(p / 100.0) as f64 / 1000.0;
                format!("p{}={us:.3}", format_percentile(*p))
            })
            .collect();
        text.line(&format!("latency_percentiles_usec_{name}"), percentiles.join(","));
    }
}

fn cluster(text: &mut Text, _: &Core, _: &ShardReport) {
    text.section("Cluster");
    text.line("cluster_enabled", 0);
}

fn keyspace(text: &mut Text, _: &Core, report: &ShardReport) {
    text.section("Keyspace");
    for (number, db) in report.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0) {
        text.line(
            &format!("db{number}"),
            format_args!("keys={},expires={},avg_ttl={},subexpiry={}", db.keys, db.expires, db.avg_ttl, db.subexpiry),
        );
    }
}

/// Ringshard's own section: what Redis has no words for.
fn shards(text: &mut Text, core: &Core, reports: &[ShardReport]) {
    text.section("Shards");
    for (number, report) in reports.iter().enumerate() {
        let keys: usize = report.dbs.iter().map(|db| db.keys).sum();
        text.line(
            &format!("shard{number}"),
            format_args!(
                "clients={},keys={keys},commands={},hops={},transactions={},waiting={}",
                core.shared.clients[number].0.load(Relaxed),
                report.stats.commands_processed,
                report.stats.hops,
                report.stats.transactions,
                report.hops_waiting
            ),
        );
    }
}

fn debug(text: &mut Text, core: &Core) {
    let facts = core.shared.host.facts();
    text.section("Debug");
    text.line("eventloop_duration_aof_sum", 0);
    text.line("eventloop_duration_cron_sum", facts.eventloop_cron_us);
    text.line("eventloop_duration_max", facts.eventloop_longest_us);
    text.line("eventloop_cmd_per_cycle_max", facts.eventloop_most_commands);
    text.zeros(&[
        "allocator_allocated_lua",
        "allocator_active_lua",
        "allocator_resident_lua",
        "allocator_frag_bytes_lua",
    ]);
}

#[cfg(test)]
mod tests {
    use crate::testing::{Check, World};

    fn field(text: &str, name: &str) -> String {
        let start = format!("{name}:");
        let line = text.split("\r\n").find(|line| line.starts_with(&start));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))[start.len()..].to_string()
    }

    #[test]
    fn default_sections_in_redis_order() {
        let mut t = Check::new();
        let sections = |text: &str| {
            let titles = text.split("\r\n").filter_map(|line| line.strip_prefix("# "));
            titles.collect::<Vec<_>>().join(" ")
        };
        let default = "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster Keyspace";
        t.look("INFO", |v| assert_eq!(sections(&v.text()), default));
        t.look("INFO default", |v| assert_eq!(sections(&v.text()), default));
        t.look("INFO default commandstats", |v| {
            assert!(sections(&v.text()).contains("Modules Commandstats Errorstats"));
        });
        t.look("INFO everything", |v| {
            assert!(sections(&v.text()).ends_with("Latencystats Cluster Keyspace Shards"));
        });
        t.look("INFO cpu server", |v| assert_eq!(sections(&v.text()), "Server CPU"));
        t.check("INFO nosuch", "\"\"");
        t.types(
            "INFO cluster",
            r##""# Cluster\r\ncluster_enabled:0\r\n""##,
            r##"txt:"# Cluster\r\ncluster_enabled:0\r\n""##,
        );
    }

    #[test]
    fn values_are_sums_over_shards() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conns: Vec<_> = (0..4).map(|_| world.connect()).collect();
            for i in 0..40 {
                world.run(conns[i % 4], &format!("SET key:{i} v EX 100"));
                world.run(conns[i % 4], &format!("GET key:{i}"));
            }
            world.run(conns[0], "SELECT 3");
            world.run(conns[0], "SET other 1");
            world.run(conns[1], "GET nothing");
            world.run(conns[1], "INCR key:1");
            world.run(conns[2], "nosuch");
            let text = world.run(conns[3], "INFO everything").text();
            assert_eq!(field(&text, "connected_clients"), "4");
            assert_eq!(field(&text, "total_connections_received"), "4");
            // 40 times SET and GET, SELECT, SET, GET and INCR; the INFO itself is not yet counted.
            assert_eq!(field(&text, "total_commands_processed"), "84");
            assert_eq!(field(&text, "keyspace_hits"), "40");
            assert_eq!(field(&text, "keyspace_misses"), "1");
            assert_eq!(field(&text, "rdb_changes_since_last_save"), "41");
            assert_eq!(field(&text, "total_error_replies"), "2");
            assert_eq!(field(&text, "errorstat_ERR"), "count=2");
            assert!(field(&text, "db0").starts_with("keys=40,expires=40,avg_ttl="), "{text}");
            assert_eq!(field(&text, "db3"), "keys=1,expires=0,avg_ttl=0,subexpiry=0");
            assert!(field(&text, "cmdstat_get").starts_with("calls=41,usec="), "{text}");
            assert!(field(&text, "cmdstat_incr").ends_with("rejected_calls=0,failed_calls=1"), "{text}");
            assert!(field(&text, "latency_percentiles_usec_get").starts_with("p50="), "{text}");
            assert_eq!(field(&text, "shards"), shards.to_string());
            assert_eq!(field(&text, "event_loop"), "test");
            let own: Vec<&str> = text.split("\r\n").filter(|l| l.starts_with("shard") && l.contains("keys=")).collect();
            let keys = own.iter().map(|l| l.split("keys=").nth(1).unwrap().split(',').next().unwrap());
            assert_eq!(keys.map(|n| n.parse::<usize>().unwrap()).sum::<usize>(), 41);
        }
    }

    #[test]
    fn keys_of_a_lent_slice_are_counted() {
        // The slice of one shard is away, on loan, while another asks: its keys are still the server's.
        let mut world = World::new(4);
        let (a, b) = (world.connect_to(0), world.connect_to(1));
        for i in 0..20 {
            world.run(a, &format!("SET key:{i} v"));
        }
        world.send_only(a, b"*1\r\n$6\r\nDBSIZE\r\n");
        world.send_only(b, b"*2\r\n$4\r\nINFO\r\n$8\r\nkeyspace\r\n");
        world.settle();
        assert_eq!(world.received(a), b":20\r\n");
        let text = String::from_utf8(world.received(b)).unwrap();
        assert!(text.contains("db0:keys=20,"), "{text}");
    }

    #[test]
    fn info_inside_multi_has_its_answers() {
        let mut t = Check::new();
        t.check("SET k v", "OK").check("MULTI", "OK").check("INFO keyspace", "QUEUED").check("GET k", "QUEUED");
        t.check("EXEC", "[\"# Keyspace\\r\\ndb0:keys=1,expires=0,avg_ttl=0,subexpiry=0\\r\\n\" \"v\"]");
    }

    /// With more codes than are counted apart, which only scripts can make up, none is, until the counters are reset.
    #[test]
    fn too_many_error_codes_end_their_counting() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            let raise = |world: &mut World, code: usize| {
                let line = format!("EVAL \"return redis.error_reply('C{code} text')\" 0");
                assert_eq!(world.run(conn, &line).to_string(), format!("-C{code} text"));
            };
            (0..128).for_each(|code| raise(&mut world, code));
            let text = world.run(conn, "INFO errorstats").text();
            assert!(text.contains("errorstat_C0:count=1\r\n") && text.contains("errorstat_C127:count=1\r\n"), "{text}");
            raise(&mut world, 128);
            raise(&mut world, 0);
            let text = world.run(conn, "INFO errorstats").text();
            assert_eq!(text, "# Errorstats\r\nerrorstat_ERRORSTATS_DISABLED:count=1\r\n");
            world.end_turns();
            assert!(world.run(conn, "INFO memory").text().contains("lazyfreed_objects:128\r\n"));
            world.run(conn, "CONFIG RESETSTAT");
            raise(&mut world, 5);
            let text = world.run(conn, "INFO errorstats").text();
            assert_eq!(text, "# Errorstats\r\nerrorstat_C5:count=1\r\n");
        }
    }
}
