//! `EVAL`, `EVALSHA` and their read-only forms, and `SCRIPT`: scripts; see [`crate::scripting`]. Counterpart: `eval.c`.

use std::sync::atomic::Ordering::Relaxed;

use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, flag, help, key};
use crate::args::Args;
use crate::scripting;
use crate::scripting::debugger::DebugMode;
use crate::scripting::store::{BUSY_FUNCTION, BUSY_SCRIPT};
use crate::shard::Shard;

use flag::*;

const SCRIPTING: Group = Group::Scripting;
const EVAL: u32 = NOSCRIPT | SKIP_MONITOR | MAY_REPLICATE | NO_MANDATORY_KEYS | STALE | MOVABLE_KEYS | SCRIPT;
const EVAL_RO: u32 = NOSCRIPT | SKIP_MONITOR | NO_MANDATORY_KEYS | STALE | READONLY | MOVABLE_KEYS | SCRIPT;

pub(super) const WRITES: &[KeySpec] = &[KeySpec::counted(2, key::RW | key::ACCESS | key::UPDATE)];
pub(super) const READS: &[KeySpec] = &[KeySpec::counted(2, key::RO | key::ACCESS)];

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("eval", |ctx, args| scripting::eval(ctx, args, false, false), -3, EVAL, SCRIPTING).keys(WRITES).doc(
        "2.6.0",
        "Depends on the script that is executed.",
        "Runs a script.",
        "script numkeys [key [key ...]] [arg [arg ...]]",
    ),
    Command::data("evalsha", |ctx, args| scripting::eval(ctx, args, true, false), -3, EVAL, SCRIPTING)
        .keys(WRITES)
        .doc(
            "2.6.0",
            "Depends on the script that is executed.",
            "Runs a script by its SHA-1.",
            "sha1 numkeys [key [key ...]] [arg [arg ...]]",
        ),
    Command::data("eval_ro", |ctx, args| scripting::eval(ctx, args, false, true), -3, EVAL_RO, SCRIPTING)
        .keys(READS)
        .doc(
            "7.0.0",
            "Depends on the script that is executed.",
            "Runs a script that only reads.",
            "script numkeys [key [key ...]] [arg [arg ...]]",
        ),
    Command::data("evalsha_ro", |ctx, args| scripting::eval(ctx, args, true, true), -3, EVAL_RO, SCRIPTING)
        .keys(READS)
        .doc(
            "7.0.0",
            "Depends on the script that is executed.",
            "Runs a script that only reads by its SHA-1.",
            "sha1 numkeys [key [key ...]] [arg [arg ...]]",
        ),
    Command::container("script", SCRIPTING).doc(
        "2.6.0",
        "Depends on the subcommand.",
        "Manages the scripts that are known.",
        "",
    ),
    Command::home("script|load", load, 3, NOSCRIPT | STALE, SCRIPTING).doc(
        "2.6.0",
        "O(N), N being the length of the script",
        "Makes a script known without running it.",
        "script",
    ),
    Command::home("script|exists", exists, -3, NOSCRIPT, SCRIPTING).doc(
        "2.6.0",
        "O(N), N being the number of scripts asked for",
        "Says which scripts are known.",
        "sha1 [sha1 ...]",
    ),
    Command::home("script|flush", flush, -2, NOSCRIPT, SCRIPTING).doc(
        "2.6.0",
        "O(N), N being the number of scripts that are known",
        "Forgets all scripts.",
        "[ASYNC|SYNC]",
    ),
    Command::home("script|kill", kill, 2, NOSCRIPT | ALLOW_BUSY, SCRIPTING).doc(
        "2.6.0",
        "O(1)",
        "Stops a script that runs too long and has not written.",
        "",
    ),
    Command::home("script|debug", debug, 3, NOSCRIPT, SCRIPTING).doc(
        "3.2.0",
        "O(1)",
        "Sets whether scripts are debugged.",
        "YES|SYNC|NO",
    ),
    Command::home("script|help", script_help, 2, LOADING | STALE, SCRIPTING).doc(
        "5.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

fn load(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let sha = scripting::load_script(&mut shard.core, args.at(2))?;
    shard.client(index).reply().bulk(&sha);
    Ok(())
}

fn exists(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let mut reply = shard.client(index).reply();
    reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        let known = name.try_into().ok().and_then(|sha| shared.scripts.script(&sha));
        reply.integer(known.is_some() as i64);
    }
    Ok(())
}

fn flush(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.len() > 3 || (args.len() == 3 && !args.is(2, "sync") && !args.is(2, "async")) {
        return Err("ERR SCRIPT FLUSH only support SYNC|ASYNC option".into());
    }
    shard.core.shared.scripts.flush_scripts();
    shard.client(index).reply().ok();
    Ok(())
}

fn kill(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    kill_slow(shard, true)?;
    shard.client(index).reply().ok();
    Ok(())
}

/// Asks the slow scripts (or functions) of all shards to stop; it is done when one of them can be.
pub(super) fn kill_slow(shard: &Shard, eval: bool) -> CommandResult {
    let mut refused: Option<CommandError> = None;
    let mut stopped = false;
    for slot in &shard.core.shared.scripts.slow {
        let slow = slot.slow.lock().expect("no holder panics");
        let Some(slow) = slow.as_ref() else { continue };
        if slow.wrote {
            refused = Some(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
                 the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
                    .into(),
            );
        } else if slow.eval != eval {
            refused = Some(match eval {
                true => BUSY_FUNCTION.into(),
                false => BUSY_SCRIPT.into(),
            });
        } else {
            slot.kill.store(true, Relaxed);
            stopped = true;
        }
    }
    match refused {
        _ if stopped => Ok(()),
        Some(error) => Err(error),
        None => Err("NOTBUSY No scripts in execution right now.".into()),
    }
}

fn debug(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let client = shard.client(index);
    if !client.out.is_empty() || client.awaits_replies() {
        return Err("ERR SCRIPT DEBUG must be called outside a pipeline".into());
    }
    client.debugs = match () {
        () if args.is(2, "no") => DebugMode::No,
        () if args.is(2, "yes") => DebugMode::Undone,
        () if args.is(2, "sync") => DebugMode::Sync,
        () => return Err("ERR Use SCRIPT DEBUG YES/SYNC/NO".into()),
    };
    client.reply().ok();
    Ok(())
}

fn script_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "SCRIPT",
        &[
            (
                "DEBUG (YES|SYNC|NO)",
                "Set whether the next script is debugged, and if so whether what it writes stays (SYNC).",
            ),
            ("EXISTS <sha1> [<sha1> ...]", "Say which of these scripts are known."),
            ("FLUSH [ASYNC|SYNC]", "Forget all scripts, on all shards."),
            ("KILL", "Stop a script that runs for too long and has not written."),
            ("LOAD <script>", "Make a script known without running it."),
        ],
    )
}

/// `FCALL` and `FCALL_RO` are rows of [`super::function`], which shares these flags.
pub(super) const fn flags(ro: bool) -> u32 {
    if ro { EVAL_RO } else { EVAL }
}

/// What runs `FCALL`.
pub(super) fn fcall(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    scripting::fcall(ctx, args, false)
}

/// What runs `FCALL_RO`.
pub(super) fn fcall_ro(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    scripting::fcall(ctx, args, true)
}
