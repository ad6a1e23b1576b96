//! `SAVE`, `BGSAVE`, `LASTSAVE`, `DEBUG RELOAD`: the data as a file. What they do is in [`crate::snapshot`].
//!
//! All but `LASTSAVE` run with the slices of every shard in hand, so that the file is of one instant. `BGSAVE` holds
//! them only to make the cut.

use std::sync::atomic::Ordering::*;

use super::{Command, CommandError, CommandResult, Ctx, Group, Route, acl, flag};
use crate::args::Args;
use crate::shard::{Effect, LogLevel, Shard};
use crate::snapshot;

use flag::*;

const SERVER: Group = Group::Server;

/// This family's rows.
pub static TABLE: &[Command] =
    &[
        Command::home("lastsave", lastsave, 1, LOADING | STALE | FAST, SERVER)
            .categories(acl::ADMIN | acl::DANGEROUS)
            .doc("1.0.0", "O(1)", "Returns the Unix time of the last snapshot.", ""),
        Command::data("save", save, 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, SERVER).route(Route::All).doc(
            "1.0.0",
            "O(N), N being the number of keys",
            "Writes a snapshot while clients wait.",
            "",
        ),
        Command::data("bgsave", bgsave, -1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, SERVER).route(Route::All).doc(
            "1.0.0",
            "O(1)",
            "Starts a snapshot in the background.",
            "[SCHEDULE]",
        ),
        Command::data("debug|reload", reload, -2, ADMIN | NOSCRIPT | LOADING | STALE | PROTECTED | SUBCOMMAND, SERVER)
            .route(Route::All)
            .doc("1.0.0", "O(N), N being the number of keys", "Saves and loads the data.", ""),
    ];

/// As in Redis the start counts as the first snapshot.
fn lastsave(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let seconds = shard.core.shared.persistence.last_save.load(Relaxed);
    shard.client(index).reply().integer(seconds);
    Ok(())
}

fn log(ctx: &mut Ctx<'_>, level: LogLevel, text: impl Into<String>) {
    ctx.core.for_driver.push(Effect::Log(level, text.into()));
}

fn save_all(ctx: &mut Ctx<'_>) -> CommandResult {
    match snapshot::save(ctx.core, ctx.keys.slices()) {
        Ok(()) => {
            log(ctx, LogLevel::Notice, "DB saved on disk");
            Ok(())
        }
        Err(text) => {
            log(ctx, LogLevel::Warning, text);
            Err("ERR The snapshot could not be written, see the server's log".into())
        }
    }
}

/// Writes the snapshot that is to hold nothing, behind `FLUSHALL`. That it could not be written is for the log: the keys
/// are gone either way.
pub(super) fn save_flushed(ctx: &mut Ctx<'_>) {
    let _ = save_all(ctx);
}

fn save(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    if ctx.core.shared.persistence.saving.load(Acquire) {
        return Err("ERR Background save already in progress".into());
    }
    save_all(ctx)?;
    ctx.reply.ok();
    Ok(())
}

fn bgsave(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let schedule = match args.len() {
        1 => false,
        2 if args.is(1, "schedule") => true,
        _ => return Err(CommandError::Syntax),
    };
    let shared = ctx.core.shared.clone();
    if schedule && shared.aof.rewriting.load(Acquire) {
        shared.persistence.scheduled.store(true, Relaxed);
        ctx.reply.simple("Background saving scheduled");
        return Ok(());
    }
    snapshot::begin(ctx.core, ctx.keys.slices())?;
    log(ctx, LogLevel::Notice, "Background saving started");
    ctx.reply.simple("Background saving started");
    Ok(())
}

fn reload(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (mut keep, mut merge, mut write) = (false, false, true);
    for i in 2..args.len() {
        match () {
            () if args.is(i, "merge") => merge = true,
            () if args.is(i, "noflush") => keep = true,
            () if args.is(i, "nosave") => write = false,
            () => return Err("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.".into()),
        }
    }
    if ctx.core.shared.persistence.loading.load(Acquire) {
        return Err("LOADING Redis is loading the dataset in memory".into());
    }
    ctx.core.shared.persistence.give_up();
    if write {
        save_all(ctx)?;
    }
    let failed = "ERR Error trying to load the RDB dump, check server logs.";
    let host = ctx.core.shared.host.clone();
    let file = match host.open_snapshot(&ctx.core.config) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(failed.into()),
        Err(text) => {
            log(ctx, LogLevel::Warning, text);
            return Err(failed.into());
        }
    };
    let mut slices: Vec<_> = ctx.keys.slices().collect();
    if !keep {
        snapshot::empty(ctx.core, &mut slices, false);
    }
    let loaded = snapshot::load(ctx.core, file, &mut slices, merge, false);
    if let Err(text) = loaded {
        log(ctx, LogLevel::Warning, text);
        return Err(failed.into());
    }
    log(ctx, LogLevel::Warning, "DB reloaded by DEBUG RELOAD");
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests;
