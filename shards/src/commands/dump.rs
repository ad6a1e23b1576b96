//! `DUMP` and `RESTORE`: a key's value as bytes, and back. The format is in [`crate::rdb`]. Counterpart: `cluster.c`,
//! where Redis keeps them for `MIGRATE`'s sake.

use std::sync::atomic::Ordering::Relaxed;

use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, acl, flag, key};
use crate::args::Args;
use crate::core::{Core, Event};
use crate::entry::EntryPtr;
use crate::number::parse_i64;
use crate::rdb::payload;
use crate::rdb::read::Limits;
use crate::rdb::write::Style;
use crate::shard::{Effect, LogLevel};

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("dump", dump, 2, READONLY, Group::Generic).keys(&[KeySpec::one(1, key::RO | key::ACCESS)]).doc(
        "2.6.0",
        "O(N) for collections, N being the number of elements",
        "Returns a key's value as bytes that RESTORE takes.",
        "key",
    ),
    Command::data("restore", restore, -4, WRITE | DENYOOM, Group::Generic)
        .keys(&[KeySpec::one(1, key::OW | key::UPDATE)])
        .categories(acl::DANGEROUS)
        .doc(
            "2.6.0",
            "O(N) for collections, N being the number of elements",
            "Makes a key from the bytes that DUMP gave.",
            "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        ),
    Command::data("restore-asking", restore, -4, WRITE | DENYOOM | ASKING, Group::Server)
        .keys(&[KeySpec::one(1, key::OW | key::UPDATE)])
        .categories(acl::KEYSPACE | acl::DANGEROUS)
        .doc(
            "3.0.0",
            "O(N) for collections, N being the number of elements",
            "RESTORE as cluster nodes send it to each other.",
            "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
        ),
];

fn dump(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    match db.lookup_read(ctx.core, key) {
        Some(entry) => ctx.reply.bulk(&payload::dump(entry, Style::of(&ctx.core.config))),
        None => ctx.reply.null(),
    }
    Ok(())
}

/// How recently or how often a key shall seem used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Seconds since it was used.
    pub(crate) idle_seconds: Option<i64>,
    /// The logarithmic counter of LFU.
    pub(crate) frequency: Option<u8>,
}

impl Usage {
    /// Marks an entry so, as far as the policy keeps such a thing.
    pub(crate) fn stamp(self, entry: &mut EntryPtr, core: &Core) {
        if core.config.maxmemory_policy.is_lfu() {
            if let Some(frequency) = self.frequency {
                let minutes = (core.now_ms / 60_000) as u32 & 0xFFFF;
                entry.set_lru(minutes << 8 | u32::from(frequency));
            }
        } else if let Some(idle) = self.idle_seconds {
            // The clock has 24 bits and goes round.
            entry.set_lru(core.lru_clock.wrapping_sub(idle.min(0xFF_FFFF) as u32) & 0xFF_FFFF);
        }
    }
}

fn restore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (mut replace, mut absolute, mut usage) = (false, false, Usage::default());
    let mut i = 4;
    while i < args.len() {
        let value = args.get(i + 1);
        if args.is(i, "replace") {
            replace = true;
        } else if args.is(i, "absttl") {
            absolute = true;
        } else if let (true, Some(value), None) = (args.is(i, "idletime"), value, usage.frequency) {
            let idle = parse_i64(value).ok_or(CommandError::NotInteger)?;
            usage.idle_seconds = Some(idle).filter(|idle| *idle >= 0);
            usage.idle_seconds.ok_or("ERR Invalid IDLETIME value, must be >= 0")?;
            i += 1;
        } else if let (true, Some(value), None) = (args.is(i, "freq"), value, usage.idle_seconds) {
            let frequency = parse_i64(value).ok_or(CommandError::NotInteger)?;
            usage.frequency = u8::try_from(frequency).ok();
            usage.frequency.ok_or("ERR Invalid FREQ value, must be >= 0 and <= 255")?;
            i += 1;
        } else {
            return Err(CommandError::Syntax);
        }
        i += 1;
    }
    let (key, db) = (ctx.key(args, 1), ctx.client.db);
    if !replace && ctx.keys.db(db, key.bytes).lookup_write(ctx.core, key).is_some() {
        return Err("BUSYKEY Target key name already exists.".into());
    }
    let ttl = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    if ttl < 0 {
        return Err("ERR Invalid TTL value, must be >= 0".into());
    }
    let check = !ctx.core.shared.debug.skip_checksum_validation.load(Relaxed);
    let body = payload::verified(args.at(3), check).ok_or("ERR DUMP payload version or checksum are wrong")?;
    let value = match payload::restore(body, &Limits::of(ctx.core)) {
        Ok(value) => value,
        Err(error) => {
            // The reply is Redis's; whoever runs the server sees why.
            let line = format!("RESTORE of a bad payload: {error}");
            ctx.core.for_driver.push(Effect::Log(LogLevel::Warning, line));
            return Err("ERR Bad data format".into());
        }
    };
    let at = match ttl {
        0 => None,
        ttl if absolute => Some(ttl),
        ttl => Some(ttl.saturating_add(ctx.core.now_ms)),
    };
    let target = ctx.keys.db(db, key.bytes);
    let deleted = replace && target.delete_lazily(ctx.core, key, ctx.core.config.lazyfree_lazy_server_del);
    if at.is_some_and(|at| at <= ctx.core.now_ms) {
        drop(value);
        if deleted {
            let word: &[u8] = if ctx.core.config.lazyfree_lazy_server_del { b"UNLINK" } else { b"DEL" };
            ctx.effect(&[word, key.bytes]);
            ctx.changed(Event::GENERIC, "del", key.bytes);
        }
        ctx.reply.ok();
        return Ok(());
    }
    let mut entry = value.into_entry(key.bytes, at);
    target.before_write(key.bytes);
    target.add(ctx.core, key, entry);
    usage.stamp(&mut entry, ctx.core);
    if let Some(at) = at.filter(|_| !absolute) {
        let mut words: Vec<&[u8]> = args.iter_from(0).collect();
        let at = at.to_string();
        words[2] = at.as_bytes();
        words.push(b"ABSTTL");
        ctx.effect(&words);
    }
    ctx.changed(Event::GENERIC, "restore", key.bytes);
    ctx.reply.ok();
    Ok(())
}
