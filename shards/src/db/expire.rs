//! The active expire cycle: removes keys whose time has come though nobody asks for them.
//!
//! Samples the keys with a time to live, going round each database by a scan cursor, and goes on with a database
//! while more than a tolerated share of what it looks at is stale, within a bound of CPU time. Efforts and bounds are
//! those of Redis's `activeExpireCycle` (`expire.c`): at effort 1, 20 keys a round, 25 % of a cron period, 10 % stale.

use super::{RedisDb, Slice};
use crate::commands::Key;
use crate::core::Core;
use crate::entry::EntryPtr;
use crate::object::ObjectRef;

/// What one shard remembers between cycles.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExpireCycle {
    timed_out: bool,
    last_fast_us: u64,
    /// Running estimate of the share of keys that are stale, in percent.
    stale_percent: f64,
}

/// Which of the two cycles runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// From the time event: up to a share of its period.
    Slow,
    /// Before sleeping: up to a ms, and only after a slow cycle that ran out of time.
    Fast,
}

impl ExpireCycle {
    /// The running estimate of stale keys, in percent.
    pub fn stale_percent(&self) -> f64 {
        self.stale_percent
    }

    /// Runs a cycle over `slice`.
    pub fn run(&mut self, core: &mut Core, slice: &mut Slice, pace: Pace) {
        let effort = (core.config.active_expire_effort - 1) as u64;
        let keys_per_round = (20 + 5 * effort) as usize;
        let fast_us = 1000 + 250 * effort;
        let acceptable_stale = 10 - effort.min(9);
        let limit_us = match pace {
            Pace::Fast => {
                if !self.timed_out && self.stale_percent < acceptable_stale as f64 {
                    return;
                }
                if core.now_us < self.last_fast_us + 2 * fast_us {
                    return;
                }
                self.last_fast_us = core.now_us;
                fast_us
            }
            Pace::Slow => ((25 + 2 * effort) * 10_000 / core.config.hz.max(1) as u64).max(1),
        };
        let clock = core.shared.host.ticks();
        let ticks_per_us = core.shared.host.ticks_per_us();
        let started = clock();
        let elapsed_us = || ((clock().wrapping_sub(started)) as f64 / ticks_per_us) as u64;

        let ran_out = std::mem::replace(&mut self.timed_out, false);
        let (mut total_sampled, mut total_expired) = (0usize, 0usize);
        let databases = slice.dbs.len();
        // Redis looks at 16 databases a call unless the last cycle ran out of time.
        for _ in 0..if ran_out { databases } else { databases.min(16) } {
            let index = slice.expire_db % databases;
            slice.expire_db = (index + 1) % databases;
            let db = &mut slice.dbs[index];
            // Fields take a quarter of the time at most, or they would hold up keys.
            while expire_fields(core, db) && pace == Pace::Slow && elapsed_us() < limit_us / 4 {}
            let mut rounds = 0u32;
            loop {
                let volatile = db.expires.len();
                if volatile == 0 {
                    db.avg_ttl = 0;
                    break;
                }
                let mut sampled: Vec<EntryPtr> = Vec::with_capacity(2 * keys_per_round);
                // Sparse tables are walked, not sampled: look at so many buckets at most.
                for _ in 0..20 * keys_per_round {
                    db.expires_cursor = db.expires.scan(db.expires_cursor, &mut |entry| sampled.push(entry));
                    if sampled.len() >= keys_per_round.min(volatile) || db.expires_cursor == 0 {
                        break;
                    }
                }
                let (mut expired, mut ttl_sum, mut ttl_count) = (0, 0i128, 0i128);
                for entry in &sampled {
                    match entry.expire_at() {
                        Some(at) if at <= core.now_ms => {
                            let name = entry.key().to_vec();
                            let key = Key { hash: core.hasher.hash(&name), bytes: &name };
                            db.expire_now(core, key);
                            expired += 1;
                        }
                        Some(at) => {
                            // Times may lie as far ahead as an i64 reaches.
                            ttl_sum += i128::from(at) - i128::from(core.now_ms);
                            ttl_count += 1;
                        }
                        None => {}
                    }
                }
                if ttl_count > 0 {
                    let average = (ttl_sum / ttl_count) as i64;
                    // A running average, as Redis keeps it: 2 % of each new sample.
                    db.avg_ttl = if db.avg_ttl == 0 { average } else { db.avg_ttl / 50 * 49 + average / 50 };
                }
                total_sampled += sampled.len();
                total_expired += expired;
                rounds += 1;
                if rounds.is_multiple_of(16) && elapsed_us() > limit_us {
                    self.timed_out = true;
                    core.stats.expired_time_cap_reached += 1;
                    break;
                }
                let stale = !sampled.is_empty() && expired * 100 / sampled.len() > acceptable_stale as usize;
                if !stale && !sampled.is_empty() {
                    break;
                }
                if sampled.is_empty() && db.expires_cursor == 0 {
                    break;
                }
            }
            if self.timed_out {
                break;
            }
        }
        let elapsed_us = elapsed_us();
        core.stats.expire_cycle_us += elapsed_us;
        core.note_latency("expire-cycle", elapsed_us);
        let current = if total_sampled > 0 { total_expired as f64 / total_sampled as f64 * 100.0 } else { 0.0 };
        self.stale_percent = current * 0.05 + self.stale_percent * 0.95;
    }
}

/// Fields that one visit of a database may remove: some 100 µs.
const FIELDS_A_VISIT: usize = 400;

/// Removes fields whose time has come, the earliest hashes first, up to a bound; whether there may be more.
fn expire_fields(core: &mut Core, db: &mut RedisDb) -> bool {
    let mut left = FIELDS_A_VISIT;
    while left > 0 {
        let first = db.field_expires.first().filter(|(at, _)| *at <= core.now_ms);
        let Some((_, name)) = first.cloned() else { return false };
        let key = Key { hash: core.hasher.hash(&name), bytes: &name };
        let entry = db.dict.find(key.hash, key.bytes).expect("the index names keys that are there");
        let Some(ObjectRef::Hash(hash)) = entry.object() else { unreachable!("the index names hashes") };
        let due = hash.expires().map(|expires| expires.due(core.now_ms, left)).unwrap_or_default();
        left -= due.len().clamp(1, left);
        let fields: Vec<&[u8]> = due.iter().map(|field| &**field).collect();
        db.expire_fields(core, key, entry, &fields);
    }
    true
}
