//! Eviction: which keys go when `maxmemory` is reached, and the LFU counter.
//!
//! Keys are sampled; a small pool keeps the best candidates of earlier samples, which brings the choice close to true
//! LRU at a cost that does not grow with the keyspace. Memory is the whole process's, candidates are the shard's own:
//! each shard evicts for the writes it runs, and asks the others when it has nothing to give.
//! Counterpart: `evict.c`.

use super::{Keyspace, RedisDb};
use crate::commands::Key;
use crate::config::MaxmemoryPolicy;
use crate::core::{Core, Event};
use crate::entry::EntryPtr;
use crate::shard::output::SpareBuffers;

/// Candidates kept (Redis: `EVPOOL_SIZE`).
const POOL: usize = 16;

/// A counter starts here, so that a new key is not the first to go (Redis: `LFU_INIT_VAL`).
const LFU_INIT: u32 = 5;

/// The key is known by its hash: long names, kept by every shard, would be memory for which further keys had to go.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: u64,
    db: usize,
    hash: u64,
}

/// The best candidates of earlier samples, worst first.
#[derive(Clone, Debug, Default)]
pub struct EvictionPool {
    best: Vec<Candidate>,
}

/// How an attempt to get under the limit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Memory is within the limit.
    Within,
    /// Still over it, but time is up; the next turn goes on.
    Busy,
    /// Nothing can be evicted.
    Full,
}

/// Minutes, 16 bits, of Unix time.
fn minutes(core: &Core) -> u32 {
    ((core.now_ms / 60_000) & 0xffff) as u32
}

/// The LFU field of a new entry: when, and how often it was used.
pub fn lfu_new(core: &Core) -> u32 {
    minutes(core) << 8 | LFU_INIT
}

/// The counter of an LFU field, less what time took from it.
pub fn lfu_count(field: u32, core: &Core) -> u32 {
    let elapsed = minutes(core).wrapping_sub(field >> 8) & 0xffff;
    let decay = core.config.lfu_decay_time;
    let periods = elapsed.checked_div(decay).unwrap_or(0);
    (field & 0xff).saturating_sub(periods)
}

/// The LFU field of an entry that is used now: the counter grows with a probability that falls as it grows.
pub fn lfu_touched(field: u32, core: &mut Core) -> u32 {
    let mut count = lfu_count(field, core);
    if count < 255 {
        let base = count.saturating_sub(LFU_INIT) as f64;
        if core.rng.unit() < 1.0 / (base * core.config.lfu_log_factor as f64 + 1.0) {
            count += 1;
        }
    }
    minutes(core) << 8 | count
}

/// Seconds since `entry` was used, by the LRU clock.
pub fn idle_seconds(entry: EntryPtr, core: &Core) -> u64 {
    (core.lru_clock.wrapping_sub(entry.lru()) & 0xff_ffff) as u64
}

/// How good a candidate `entry` is: the higher the sooner it goes.
fn score(entry: EntryPtr, policy: MaxmemoryPolicy, core: &Core) -> u64 {
    match policy {
        MaxmemoryPolicy::VolatileTtl => u64::MAX - entry.expire_at().unwrap_or(i64::MAX) as u64,
        policy if policy.is_lfu() => 255 - lfu_count(entry.lru(), core) as u64,
        _ => idle_seconds(entry, core),
    }
}

impl EvictionPool {
    fn offer(&mut self, score: u64, db: usize, hash: u64) {
        if self.best.len() == POOL && self.best[0].score >= score {
            return;
        }
        if self.best.iter().any(|c| c.db == db && c.hash == hash) {
            return;
        }
        if self.best.len() == POOL {
            self.best.remove(0);
        }
        let at = self.best.partition_point(|c| c.score < score);
        self.best.insert(at, Candidate { score, db, hash });
    }
}

/// Evicts from the slices in hand until memory is within `maxmemory` or `most` bytes are free, for a bounded time. Buffers
/// that only lie ready go before keys do.
pub(crate) fn perform(core: &mut Core, keys: &mut Keyspace<'_>, spare: &mut SpareBuffers, most: usize) -> Outcome {
    let limit = core.config.maxmemory as usize;
    let mut used = core.shared.counted_memory();
    if limit != 0 && used > limit && !spare.is_empty() {
        spare.clear();
        used = core.shared.counted_memory();
    }
    if limit == 0 || used <= limit || core.writes_paused {
        return Outcome::Within;
    }
    let policy = core.config.maxmemory_policy;
    if policy == MaxmemoryPolicy::Noeviction {
        return Outcome::Full;
    }
    let clock = core.shared.host.ticks();
    let budget =
        (tenacity_us(core.config.maxmemory_eviction_tenacity as u64) as f64 * core.shared.host.ticks_per_us()) as u64;
    let started = clock();
    let mut evicted = 0u32;
    let mut outcome = Outcome::Within;
    // What is to be told of evicted keys takes memory too, for as long as it is on its way. It must not cost further keys,
    // of which there would be more to tell. And other shards allocate meanwhile: each key counts for what it held at least.
    let (wanted, mut freed) = ((used - limit).min(most), 0);
    while used > limit && freed < wanted {
        let Some(held) = evict_one(core, keys, policy) else {
            outcome = Outcome::Full;
            break;
        };
        evicted += 1;
        let before = std::mem::replace(&mut used, core.shared.counted_memory());
        freed += before.saturating_sub(used).max(held);
        if evicted.is_multiple_of(16) && clock().wrapping_sub(started) > budget {
            outcome = if used <= limit { Outcome::Within } else { Outcome::Busy };
            break;
        }
    }
    let elapsed_us = clock().wrapping_sub(started) as f64 / core.shared.host.ticks_per_us();
    core.note_latency("eviction-cycle", elapsed_us as u64);
    outcome
}

/// Time one attempt may take (Redis: `evictionTimeLimitUs`): up to 500 µs, then growing by 15 % a step.
fn tenacity_us(tenacity: u64) -> u64 {
    match tenacity {
        0..=10 => 50 * tenacity,
        11..=99 => (500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64,
        _ => u64::MAX >> 20,
    }
}

/// Evicts one key; says how many bytes it held.
fn evict_one(core: &mut Core, keys: &mut Keyspace<'_>, policy: MaxmemoryPolicy) -> Option<usize> {
    let slices = keys.slices().count();
    let first = core.rng.below(slices as u64) as usize;
    for i in 0..slices {
        let slice = keys.slices().nth((first + i) % slices).expect("counted");
        let victim = match matches!(policy, MaxmemoryPolicy::AllkeysRandom | MaxmemoryPolicy::VolatileRandom) {
            true => random_victim(core, &slice.dbs, policy),
            false => pooled_victim(core, &mut slice.evict, &slice.dbs, policy),
        };
        let Some((db, name)) = victim else { continue };
        let key = Key { hash: core.hasher.hash(&name), bytes: &name };
        let held = slice.dbs[db].dict.find(key.hash, &name).map_or(0, |entry| entry.heap_bytes());
        if slice.dbs[db].delete_lazily(core, key, core.config.lazyfree_lazy_eviction) {
            core.stats.evicted_keys += 1;
            core.notify(Event::EVICTED, "evicted", &name, db as u16);
            let word: &[u8] = if core.config.lazyfree_lazy_eviction { b"UNLINK" } else { b"DEL" };
            core.effects.push(db as u16, &[word, &name]);
            return Some(held);
        }
    }
    None
}

fn random_victim(core: &mut Core, dbs: &[RedisDb], policy: MaxmemoryPolicy) -> Option<(usize, Vec<u8>)> {
    let first = core.rng.below(dbs.len() as u64) as usize;
    for i in 0..dbs.len() {
        let db = &dbs[(first + i) % dbs.len()];
        let table = if !policy.is_allkeys() { &db.expires } else { &db.dict };
        if let Some(entry) = table.random(&mut || core.rng.next_u64()) {
            return Some((db.id, entry.key().to_vec()));
        }
    }
    None
}

fn pooled_victim(
    core: &mut Core,
    pool: &mut EvictionPool,
    dbs: &[RedisDb],
    policy: MaxmemoryPolicy,
) -> Option<(usize, Vec<u8>)> {
    // The pool may hold nothing but keys that are gone; a second round has then sampled afresh.
    for _ in 0..2 {
        for (index, db) in dbs.iter().enumerate() {
            let table = if !policy.is_allkeys() { &db.expires } else { &db.dict };
            if table.is_empty() {
                continue;
            }
            let mut sampled = Vec::new();
            let samples = core.config.maxmemory_samples as usize;
            table.sample(&mut || core.rng.next_u64(), samples, |entry| sampled.push(entry));
            for entry in sampled {
                pool.offer(score(entry, policy, core), index, core.hasher.hash(entry.key()));
            }
        }
        while let Some(best) = pool.best.pop() {
            let db = &dbs[best.db];
            let table = if !policy.is_allkeys() { &db.expires } else { &db.dict };
            if let Some(entry) = table.find_hash(&core.hasher, best.hash) {
                return Some((best.db, entry.key().to_vec()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::testing::World;

    /// Each shard's time event freed all that was too many, for itself; and with clients that track keys, what they were told
    /// of one shard's keys was memory that the next one freed more for, until none was left.
    #[test]
    fn shards_evict_their_parts() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            world.host.used_memory.store(0, Relaxed);
            world
                .run(conn, "CONFIG SET maxmemory 1000000 maxmemory-policy allkeys-lru maxmemory-eviction-tenacity 100");
            for i in 0..400 {
                world.run(conn, &format!("SET key:{i} {}", "x".repeat(1000)));
            }
            assert_eq!(world.run(conn, "DBSIZE").integer(), 400);
            world.host.used_memory.store(1_040_000, Relaxed);
            world.shards.iter_mut().for_each(|shard| shard.publish_evictable());
            world.shards.iter_mut().for_each(|shard| shard.evict_own());
            world.host.used_memory.store(0, Relaxed);
            let left = world.run(conn, "DBSIZE").integer();
            assert!((355..=365).contains(&left), "{left} keys with {shards} shard(s)");
        }
    }
}
