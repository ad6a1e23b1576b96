//! What happens from time to time: `server_cron`, `hz` times a second on every shard.

use super::Shard;
use crate::client::{Wait, gate};
use crate::db::expire::Pace;
use crate::db::{Keyspace, evict};
use crate::message::Detail;
use crate::stats::ShardReport;

/// Samples kept for rates (Redis: `STATS_METRIC_SAMPLES`), one every 100 ms.
const SAMPLES: usize = 16;

/// Rates of commands, bytes in, bytes out, turns of the loop, and µs that these worked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    last_us: u64,
    last: [u64; 5],
    samples: [[u64; SAMPLES]; 5],
    next: usize,
}

impl Rates {
    fn sample(&mut self, now_us: u64, totals: [u64; 5]) {
        let elapsed = now_us.saturating_sub(self.last_us);
        if elapsed < 100_000 && self.last_us != 0 {
            return;
        }
        for (k, total) in totals.into_iter().enumerate() {
            let grown = total.saturating_sub(self.last[k]);
            self.samples[k][self.next] = if self.last_us == 0 { 0 } else { grown * 1_000_000 / elapsed.max(1) };
            self.last[k] = total;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.last_us = now_us;
    }

    /// Averages, a second.
    pub fn averages(&self) -> [u64; 5] {
        self.samples.map(|samples| samples.iter().sum::<u64>() / SAMPLES as u64)
    }
}

impl Shard {
    /// The time event.
    pub(crate) fn server_cron(&mut self) {
        if self.core.cron_paused {
            return;
        }
        self.cron_loops += 1;
        if self.core.id == 0 {
            let asked = self.core.shared.shutdown_asked.lock().expect("no holder panics").take();
            asked.into_iter().for_each(|how| self.shut_down(None, how));
        }
        let stats = &self.core.stats;
        let [turns, worked_us] = self.turns;
        let totals = [stats.commands_processed, stats.net_input_bytes, stats.net_output_bytes, turns, worked_us];
        self.rates.sample(self.core.now_us, totals);
        self.core.shared.sample_memory();
        crate::scripting::cron(&mut self.core);
        self.clients_cron();
        self.databases_cron();
        self.settle_own();
        self.limit_tracking();
        if self.guarded {
            self.end_pauses();
            self.refresh_guard();
        }
        self.publish_evictable();
        self.persistence_cron();
        self.replication_cron();
        if self.cron_loops.is_multiple_of(self.core.config.hz.max(1) as u64) {
            self.spare_buffers.trim();
            self.outbox.trim();
        }
    }

    /// Looks after a share of the clients, so that each is seen about once a second.
    fn clients_cron(&mut self) {
        let total = self.clients.len();
        if total == 0 {
            return;
        }
        let share = (total / self.core.config.hz.max(1) as usize).max(5).min(total);
        for _ in 0..share {
            let index = self.cron_client % total as u32;
            self.cron_client = (index + 1) % total as u32;
            let Some(client) = self.clients[index as usize].as_deref_mut() else { continue };
            let idle_s = (self.core.now_ms - client.last_interaction_ms) / 1000;
            let wanted = client.parser.wanted(client.query.pending().len());
            client.query.shrink(idle_s > 2, wanted);
            let timeout = self.core.config.timeout as i64;
            if timeout > 0 && idle_s > timeout && client.gate & (gate::SUBSCRIBED | gate::WAITING | gate::REPLICA) == 0
            {
                let line = "Closing idle client";
                self.log(super::LogLevel::Verbose, line);
                self.close_now(index);
                continue;
            }
            self.check_output_limit(index);
            if self.client_memory_limit != 0 {
                self.count_memory(index);
            }
        }
    }

    fn databases_cron(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let own = self.core.id;
        if self.slices[own as usize].is_none() {
            return;
        }
        if self.core.active_expire && !self.core.writes_paused && !self.core.shared.persistence.loading.load(Relaxed) {
            let slice = self.slices[own as usize].as_deref_mut().expect("seen above");
            self.expire_cycle.run(&mut self.core, slice, Pace::Slow);
            slice.log_said(&mut self.core);
        }
        self.evict_own();
        // While data is loaded, tables are of the sizes that it will need.
        let loading = self.core.shared.persistence.loading.load(Relaxed);
        if self.core.config.activerehashing && self.core.dict_resizing && !loading {
            let slice = self.slices[own as usize].as_deref_mut().expect("seen above");
            // About 1 ms at most: 100 buckets of up to ten keys take some 20 µs.
            for db in &mut slice.dbs {
                for table in [&mut db.dict, &mut db.expires] {
                    let mut steps = 0;
                    while table.is_rehashing() && steps < 50 {
                        table.rehash_step(&self.core.hasher, 20);
                        steps += 1;
                    }
                }
            }
        }
    }

    /// Evicts from this shard's slice its part of what memory asks for, as others do from theirs. What is told of evicted
    /// keys is memory for a moment: shards that each freed all that is too many would take that for more of it, until no
    /// key is left.
    pub(crate) fn evict_own(&mut self) {
        let limit = self.core.config.maxmemory as usize;
        if limit != 0 {
            let excess = self.core.shared.counted_memory().saturating_sub(limit);
            let share = self.share_of(excess);
            self.evict_up_to(share);
        }
    }

    /// This shard's part, by its keys, of `bytes` that all shards are to free.
    fn share_of(&self, bytes: usize) -> usize {
        use std::sync::atomic::Ordering::Relaxed;
        self.publish_evictable();
        let keys = |shard: usize| self.core.shared.keys[shard].0.load(Relaxed) as u128;
        let all = (0..self.core.shards).map(keys).sum::<u128>().max(1);
        (bytes as u128 * keys(self.core.id as usize)).div_ceil(all) as usize
    }

    fn evict_up_to(&mut self, most: usize) {
        let own = self.core.id;
        self.drop_spare_parcels();
        if self.core.config.maxmemory != 0 && self.slices[own as usize].is_some() && !self.clients_go_first() {
            let mut keys = Keyspace::one(&mut self.slices, own);
            evict::perform(&mut self.core, &mut keys, &mut self.spare_buffers, most);
            self.slices[own as usize].as_deref_mut().expect("seen above").log_said(&mut self.core);
            self.settle_own();
        }
    }

    /// How many keys of this shard may be evicted, unless its slice is lent.
    fn evictable(&self) -> Option<usize> {
        let all = self.core.config.maxmemory_policy.is_allkeys();
        let keys = |db: &crate::db::RedisDb| if all { db.dict.len() } else { db.expires.len() };
        self.slice().map(|slice| slice.dbs.iter().map(keys).sum())
    }

    /// Tells the other shards so.
    pub(crate) fn publish_evictable(&self) {
        if let Some(keys) = self.evictable() {
            self.core.shared.keys[self.core.id as usize].0.store(keys, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// What a change of the configuration asks for at once, as far as it gets; the rest is for time events. There are
    /// `excess` bytes too many in use, of which each shard frees its share: what is told of evicted keys takes memory for
    /// a moment, and if shards freed what the others need for that, they would all run empty.
    pub(crate) fn heed_config(&mut self, excess: usize) {
        let share = self.share_of(excess);
        self.evict_up_to(share);
        self.limit_tracking();
        self.post();
    }

    /// At the end of a turn whose commands have filled memory, when this shard's keys do not make room enough: the others
    /// evict too, now and not at their next time event. A shard that has run no command asks nobody, so that they do not keep each other awake.
    pub(crate) fn have_others_evict(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let commands = self.core.stats.commands_processed;
        let idle = std::mem::replace(&mut self.commands_at_turn, commands) == commands;
        let in_vain = std::mem::take(&mut self.evicts_in_vain);
        let config = &self.core.config;
        if idle
            || config.maxmemory_policy == crate::config::MaxmemoryPolicy::Noeviction
            || self.core.shared.counted_memory() <= config.maxmemory as usize
            || (!in_vain && self.evictable().is_none_or(|keys| keys > 0))
        {
            return;
        }
        for other in (0..self.core.shards as u16).filter(|other| *other != self.core.id) {
            if self.core.shared.keys[other as usize].0.load(Relaxed) > 0 {
                self.outbox.note(other, crate::message::Note::Evict);
            }
        }
    }

    pub(crate) fn end_pauses(&mut self) {
        use std::sync::atomic::Ordering::Relaxed;
        let now = self.core.now_ms as u64;
        let pause = &self.core.shared.pause;
        for until in [&pause.all_until, &pause.write_until] {
            let at = until.load(Relaxed);
            if at != 0 && at <= now {
                until.store(0, Relaxed);
            }
        }
        if pause.all_until.load(Relaxed) == 0 {
            let paused: Vec<u32> =
                self.clients().filter(|client| client.wait == Wait::Pause).map(|client| client.index).collect();
            paused.into_iter().for_each(|index| self.wake(index));
        }
    }

    /// What this shard reports of itself.
    pub fn report(&self, detail: Detail) -> ShardReport {
        self.publish_changes();
        let mut report = ShardReport {
            stats: self.core.stats.told(detail),
            dbs: self.slice().map_or_else(|| self.lent_report.clone(), |slice| slice.report()),
            stale_percent: self.expire_cycle.stale_percent(),
            hops_waiting: self.waiting.len(),
            instantaneous: self.rates.averages(),
            ..ShardReport::default()
        };
        for db in self.slice().iter().flat_map(|slice| &slice.dbs) {
            report.blocking_keys[0] += db.blocking_keys.len();
        }
        if let Some(slice) = self.slice().filter(|slice| slice.blocked.any_on_delete()) {
            let names = slice.blocked.iter().filter(|waiter| waiter.on_delete).flat_map(|waiter| &waiter.keys);
            report.blocking_keys[1] = names.collect::<std::collections::BTreeSet<_>>().len();
        }
        for client in self.clients() {
            report.clients += usize::from(client.gate & gate::REPLICA == 0);
            report.blocked_clients += client.is_blocked() as usize;
            report.clients_memory += client.memory();
            report.watching_clients += !client.watched.is_empty() as usize;
            report.pubsub_clients += (client.gate & gate::SUBSCRIBED != 0) as usize;
            report.watched_keys += client.watched.len();
            report.max_buffers[0] = report.max_buffers[0].max(client.query.pending().len());
            report.max_buffers[1] = report.max_buffers[1].max(client.output_bytes());
        }
        report
    }
}
