//! `FUNCTION`, `FCALL`, `FCALL_RO`: libraries of functions; see [`crate::scripting`]. Counterpart: `functions.c`.

use super::script::{READS, WRITES, fcall, fcall_ro, flags, kill_slow};
use super::{Command, CommandResult, Group, flag, help};
use crate::args::{Args, OwnedArgs};
use crate::core::Core;
use crate::rdb;
use crate::scripting::store::{BUSY_SCRIPT, Flags, LibraryInfo};
use crate::scripting::{make_library, store::Libraries};
use crate::shard::Shard;
use std::sync::Arc;

use flag::*;

const SCRIPTING: Group = Group::Scripting;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("fcall", fcall, -3, flags(false), SCRIPTING).keys(WRITES).doc(
        "7.0.0",
        "Depends on the function that is executed.",
        "Calls a function.",
        "function numkeys [key [key ...]] [arg [arg ...]]",
    ),
    Command::data("fcall_ro", fcall_ro, -3, flags(true), SCRIPTING).keys(READS).doc(
        "7.0.0",
        "Depends on the function that is executed.",
        "Calls a function that only reads.",
        "function numkeys [key [key ...]] [arg [arg ...]]",
    ),
    Command::container("function", SCRIPTING).doc(
        "7.0.0",
        "Depends on the subcommand.",
        "Manages libraries of functions.",
        "",
    ),
    Command::home("function|load", load, -3, WRITE | DENYOOM | NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(1)",
        "Loads a library.",
        "[REPLACE] function-code",
    ),
    Command::home("function|list", list, -2, NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(N), N being the number of functions",
        "Lists libraries.",
        "[LIBRARYNAME library-name-pattern] [WITHCODE]",
    ),
    Command::home("function|delete", delete, 3, WRITE | NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(1)",
        "Deletes a library.",
        "library-name",
    ),
    Command::home("function|flush", flush, -2, WRITE | NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(N), N being the number of functions deleted",
        "Deletes all libraries.",
        "[ASYNC|SYNC]",
    ),
    Command::home("function|stats", stats, 2, NOSCRIPT | ALLOW_BUSY, SCRIPTING).doc(
        "7.0.0",
        "O(1)",
        "Describes the function that runs, and the engine.",
        "",
    ),
    Command::home("function|kill", kill, 2, NOSCRIPT | ALLOW_BUSY, SCRIPTING).doc(
        "7.0.0",
        "O(1)",
        "Stops a function that runs too long and has not written.",
        "",
    ),
    Command::home("function|dump", dump, 2, NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(N), N being the number of functions",
        "Gives all libraries as one value.",
        "",
    ),
    Command::home("function|restore", restore, -3, WRITE | DENYOOM | NOSCRIPT, SCRIPTING).doc(
        "7.0.0",
        "O(N), N being the number of functions in the value",
        "Loads the libraries that FUNCTION DUMP gave.",
        "serialized-value [FLUSH|APPEND|REPLACE]",
    ),
    Command::home("function|help", function_help, 2, LOADING | STALE, SCRIPTING).doc(
        "7.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

/// Counts a change, for libraries are saved with the keys, and tells the log of it.
///
/// Libraries belong to no slice. With several shards the log of any one tells of all libraries there are, and the
/// highest number counts when logs are loaded.
fn changed(shard: &mut Shard, index: u32, args: Args<'_>) {
    if let Some(slice) = shard.slices.iter_mut().flatten().next() {
        slice.changes += 1;
    }
    if !shard.core.effects.on {
        return;
    }
    let db = shard.client(index).db;
    shard.tell_replicas(db, args.iter_from(0));
    if !shard.core.effects.log {
        return;
    }
    if shard.core.shards == 1 {
        if let Some(slice) = shard.slices.iter_mut().flatten().next() {
            slice.log.append(db, args.iter_from(0));
        }
        return;
    }
    let number = shard.core.shared.aof.next_number();
    let payload = dumped(&shard.core);
    let words = OwnedArgs::from_words(&[crate::aof::SLICE_WORD, b"FUNCTION", b"RESTORE", &payload, b"FLUSH"]);
    match shard.slices.iter_mut().flatten().next() {
        Some(slice) => slice.append_numbered(number, words.args()),
        None => shard.late_effects.push((number, words)),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn load(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let mut replace = false;
    for at in 2..args.len() - 1 {
        match args.is(at, "replace") {
            true => replace = true,
            false => return Err(format!("ERR Unknown option given: {}", text(args.at(at))).into()),
        }
    }
    let name = take_in(&mut shard.core, args.at(args.len() - 1), replace)?;
    changed(shard, index, args);
    shard.client(index).reply().bulk(&name);
    Ok(())
}

fn list(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let (mut with_code, mut pattern) = (false, None);
    let mut at = 2;
    while at < args.len() {
        if !with_code && args.is(at, "withcode") {
            with_code = true;
        } else if pattern.is_none() && args.is(at, "libraryname") {
            at += 1;
            pattern = Some(args.get(at).ok_or("ERR library name argument was not given")?);
        } else {
            return Err(format!("ERR Unknown argument {}", text(args.at(at))).into());
        }
        at += 1;
    }
    let wanted = |name: &[u8]| pattern.is_none_or(|pattern| crate::glob::matches(pattern, name, true));
    let listed: Vec<Arc<LibraryInfo>> = shard.core.shared.scripts.with_libraries(|libraries| {
        libraries.by_name.values().filter(|library| wanted(&library.name)).cloned().collect()
    });
    let mut reply = shard.client(index).reply();
    reply.array(listed.len());
    for library in listed {
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(&library.name);
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(library.functions.len());
        for function in &library.functions {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&function.name);
            reply.bulk(b"description");
            reply.bulk_or_null(function.description.as_deref());
            reply.bulk(b"flags");
            let flags = || Flags::NAMES.iter().filter(|(flag, _)| function.flags.has(*flag));
            reply.set(flags().count());
            flags().for_each(|(_, name)| reply.simple(name));
        }
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(&library.code);
        }
    }
    Ok(())
}

fn delete(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    shard.core.shared.scripts.change_libraries(|libraries| match libraries.remove(args.at(2)) {
        true => Ok(()),
        false => Err("ERR Library not found".into()),
    })?;
    shard.core.shared.scripts.note_removed();
    changed(shard, index, args);
    shard.client(index).reply().ok();
    Ok(())
}

fn flush(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(subcommand_syntax(args));
    }
    if args.len() == 3 && !args.is(2, "sync") && !args.is(2, "async") {
        return Err("ERR FUNCTION FLUSH only supports SYNC|ASYNC option".into());
    }
    let lazily = match args.len() {
        2 => shard.core.config.lazyfree_lazy_user_flush,
        _ => args.is(2, "async"),
    };
    let shared = shard.core.shared.clone();
    let parts = shared.scripts.change_libraries(|libraries| {
        let parts = libraries.functions.len();
        libraries.clear();
        Ok(parts)
    })?;
    shared.scripts.note_removed();
    if lazily && parts > LAZYFREE_THRESHOLD {
        // Redis counts the engine too.
        shared.lazyfreed_objects.fetch_add(parts as u64 + 1, std::sync::atomic::Ordering::Relaxed);
    }
    changed(shard, index, args);
    shard.client(index).reply().ok();
    Ok(())
}

/// Fewer parts Redis frees at once.
const LAZYFREE_THRESHOLD: usize = 64;

fn subcommand_syntax(args: Args<'_>) -> super::CommandError {
    let name = text(args.at(1));
    format!("ERR unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP.").into()
}

fn stats(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let shared = shard.core.shared.clone();
    let slow = shared.scripts.slow.iter().find_map(|slot| slot.slow.lock().expect("no holder panics").clone());
    if slow.as_ref().is_some_and(|slow| slow.eval) {
        return Err(BUSY_SCRIPT.into());
    }
    let counts = shared.scripts.with_libraries(|libraries| [libraries.by_name.len(), libraries.functions.len()]);
    let mut reply = shard.client(index).reply();
    reply.map(2);
    reply.bulk(b"running_script");
    match slow {
        None => reply.null(),
        Some(slow) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(slow.name.as_bytes());
            reply.bulk(b"command");
            reply.array(slow.command.len());
            slow.command.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            let us = shared.host.ticks()().saturating_sub(slow.start) as f64 / shared.host.ticks_per_us();
            reply.integer((us / 1000.0) as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(counts[0] as i64);
    reply.bulk(b"functions_count");
    reply.integer(counts[1] as i64);
    Ok(())
}

fn kill(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    kill_slow(shard, false)?;
    shard.client(index).reply().ok();
    Ok(())
}

fn dump(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let value = dumped(&shard.core);
    shard.client(index).reply().bulk(&value);
    Ok(())
}

/// All libraries as one value.
fn dumped(core: &Core) -> Vec<u8> {
    let style = rdb::write::Style::of(&core.config);
    core.shared.scripts.with_libraries(|libraries| {
        rdb::payload::dump_functions(libraries.by_name.values().map(|library| &library.code[..]), style)
    })
}

/// Does again what the log tells of libraries.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn replay(core: &mut Core, args: Args<'_>) -> CommandResult {
    let shared = core.shared.clone();
    match () {
        () if args.is(1, "load") && args.len() > 2 => {
            take_in(core, args.at(args.len() - 1), args.is(2, "replace"))?;
        }
        () if args.is(1, "delete") && args.len() > 2 => {
            shared.scripts.change_libraries(|libraries| {
                libraries.remove(args.at(2));
                Ok(())
            })?;
            shared.scripts.note_removed();
        }
        () if args.is(1, "flush") => {
            shared.scripts.change_libraries(|libraries| {
                libraries.clear();
                Ok(())
            })?;
            shared.scripts.note_removed();
        }
        () if args.is(1, "restore") && args.len() > 2 => take_in_all(core, args)?,
        () => {}
    }
    Ok(())
}

enum Policy {
    Append,
    Replace,
    Flush,
}

fn restore(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    take_in_all(&mut shard.core, args)?;
    changed(shard, index, args);
    shard.client(index).reply().ok();
    Ok(())
}

/// What `FUNCTION RESTORE` does.
fn take_in_all(core: &mut Core, args: Args<'_>) -> CommandResult {
    let policy = match args.len() {
        3 => Policy::Append,
        4 if args.is(3, "append") => Policy::Append,
        4 if args.is(3, "replace") => Policy::Replace,
        4 if args.is(3, "flush") => Policy::Flush,
        4 => return Err("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.".into()),
        _ => return Err(subcommand_syntax(args)),
    };
    let skip_checksum = core.shared.debug.skip_checksum_validation.load(std::sync::atomic::Ordering::Relaxed);
    let codes = rdb::payload::restore_functions(args.at(2), !skip_checksum)?;
    let mut made = Vec::new();
    let result = codes.iter().try_for_each(|code| {
        made.push(make_library(core, code, true)?);
        Ok(())
    });
    let shared = core.shared.clone();
    let result = result.and_then(|()| {
        shared.scripts.change_libraries(|libraries| match policy {
            Policy::Append => libraries.join(&made, false),
            Policy::Replace => libraries.join(&made, true),
            Policy::Flush => Libraries::default().join(&made, false).map(|()| {
                libraries.clear();
                libraries.join(&made, false).expect("they have just been joined")
            }),
        })
    });
    if result.is_err() {
        // What the machine has loaded of them goes.
        made.iter().for_each(|library| library.drop_it());
    }
    shared.scripts.note_removed();
    result?;
    Ok(())
}

/// Takes in a library that a snapshot holds; with `replace` in the place of one of the same name.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn load_library(core: &mut Core, code: &[u8], replace: bool) -> Result<(), String> {
    take_in(core, code, replace).map(|_| ())
}

/// Makes a library and puts it among the others; gives its name.
fn take_in(core: &mut Core, code: &[u8], replace: bool) -> Result<Vec<u8>, String> {
    let library = make_library(core, code, replace)?;
    let store = &core.shared.scripts;
    let stored = store.change_libraries(|libraries| libraries.put(library.clone(), replace));
    if stored.is_err() {
        // What the machine has loaded of it goes.
        library.drop_it();
    }
    if replace || stored.is_err() {
        store.note_removed();
    }
    stored.map(|()| library.name.clone())
}

fn function_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "FUNCTION",
        &[
            ("LOAD [REPLACE] <FUNCTION CODE>", "Load a library; its first line names it."),
            ("DELETE <LIBRARY NAME>", "Delete a library."),
            (
                "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
                "List libraries with their functions, and their code if asked for.",
            ),
            ("STATS", "Describe the function that runs, and count libraries and functions."),
            ("KILL", "Stop a function that runs for too long and has not written."),
            ("FLUSH [ASYNC|SYNC]", "Delete all libraries, on all shards."),
            ("DUMP", "Give all libraries as one value for FUNCTION RESTORE."),
            (
                "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
                "Load the libraries of FUNCTION DUMP: in place of all others, beside them, or over those of the same name.",
            ),
        ],
    )
}
