//! `BGREWRITEAOF`, `WAITAOF`, `DEBUG LOADAOF`: the append-only log by hand. What they do is in [`crate::aof`],
//! [`crate::snapshot`] and [`crate::shard::append`].

use std::sync::atomic::Ordering::*;

use super::block::deadline_of_ms;
use super::{Command, CommandError, CommandResult, Ctx, Group, Route, acl, flag};
use crate::aof::State;
use crate::aof::load::LogLoader;
use crate::args::Args;
use crate::number::parse_i64;
use crate::shard::append::WaitsFor;
use crate::shard::{Effect, LogLevel, Shard};
use crate::shared::LogPart;
use crate::snapshot;

use flag::*;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("bgrewriteaof", bgrewriteaof, 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, Group::Server)
        .route(Route::All)
        .doc("1.0.0", "O(1)", "Rewrites the append-only log in the background.", ""),
    Command::home("waitaof", waitaof, 4, BLOCKING, Group::Generic).only_categories(acl::CONNECTION).doc(
        "7.2.0",
        "O(1)",
        "Waits until what the connection has written is on disk, here and on replicas.",
        "numlocal numreplicas timeout",
    ),
    Command::data(
        "debug|loadaof",
        loadaof,
        2,
        ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED | SUBCOMMAND,
        Group::Server,
    )
    .route(Route::All)
    .doc("1.0.0", "O(N), N being the length of the log", "Loads the append-only log.", ""),
    Command::home(
        "debug|aof-flush-sleep",
        flush_sleep,
        3,
        ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED | SUBCOMMAND,
        Group::Server,
    )
    .doc("1.0.0", "O(1)", "Has each write of the log take so many µs longer.", "microseconds"),
];

fn bgrewriteaof(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let shared = ctx.core.shared.clone();
    if shared.aof.rewriting.load(Acquire) {
        return Err("ERR Background append only file rewriting already in progress".into());
    }
    if shared.persistence.saving.load(Acquire) {
        shared.aof.failures.store(0, Relaxed);
        shared.aof.not_before_ms.store(0, Relaxed);
        shared.aof.scheduled.store(true, Release);
        ctx.reply.simple("Background append only file rewriting scheduled");
        return Ok(());
    }
    match snapshot::begin_rewrite(ctx.core, ctx.keys.slices()) {
        Ok(()) => {
            ctx.reply.simple("Background append only file rewriting started");
            Ok(())
        }
        Err(text) => {
            ctx.core.for_driver.push(Effect::Log(LogLevel::Warning, text));
            Err("ERR Can't execute an AOF background rewriting. Please check the server logs for more information."
                .into())
        }
    }
}

fn waitaof(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let number = |at: usize| parse_i64(args.at(at)).ok_or(CommandError::NotInteger);
    let local = number(1)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::OutOfRange);
    }
    let replicas = number(2)?;
    if replicas < 0 {
        return Err("ERR value is out of range, must be positive".into());
    }
    let deadline = deadline_of_ms(&shard.core, args.at(3))?;
    if local > 0 && shard.core.shared.aof.state() == State::Off {
        return Err("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.".into());
    }
    match shard.wait_for_log(index, WaitsFor::Disks { local: local > 0 }, replicas, deadline) {
        true => Err(CommandError::NoReply),
        false => Ok(()),
    }
}

fn loadaof(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let shared = ctx.core.shared.clone();
    let pieces = ctx.keys.slices().flat_map(|slice| slice.log.take_pieces(slice.owner)).collect();
    let handed_over: Vec<_> = std::mem::take(&mut ctx.core.pieces).into_iter().chain::<Vec<_>>(pieces).collect();
    shared.host.append(handed_over);
    let loaded = shared.host.flush_logs(false).and_then(|()| {
        let mut slices: Vec<_> = ctx.keys.slices().collect();
        snapshot::empty(ctx.core, &mut slices, true);
        let config = ctx.core.config.clone();
        let mut loader = LogLoader::new((0, 1));
        shared.host.read_logs(&config, &mut |part| match part {
            LogPart::Snapshot(source) => {
                let mut slices: Vec<_> = ctx.keys.slices().collect();
                snapshot::load(ctx.core, source, &mut slices, false, true)
            }
            LogPart::Begin(shard, of) => {
                loader = LogLoader::new((shard, of));
                Ok(())
            }
            LogPart::Bytes(bytes) => loader.run(ctx.core, ctx.keys.places(), None, bytes),
        })?;
        shared.aof.loaded_libraries.apply(ctx.core)
    });
    if let Err(text) = loaded {
        ctx.core.for_driver.push(Effect::Log(LogLevel::Warning, text));
        return Err("ERR Error trying to load the AOF files, check server logs.".into());
    }
    ctx.core.for_driver.push(Effect::Log(LogLevel::Notice, "Append Only File loaded by DEBUG LOADAOF".into()));
    ctx.reply.ok();
    Ok(())
}

fn flush_sleep(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let us = parse_i64(args.at(2)).and_then(|us| u64::try_from(us).ok()).ok_or(CommandError::NotInteger)?;
    shard.core.shared.debug.aof_flush_sleep_us.store(us, Relaxed);
    shard.client(index).reply().ok();
    Ok(())
}
