//! The server as a whole: its time, its end, and the modules that it does not have.
//!
//! Commands whose feature is missing say so in one form ([`not_built`]); a client that asks for a failover must not
//! believe it has one. Counterpart: parts of `server.c`, `module.c`.

use super::{Command, CommandError, CommandResult, Group, flag, help};
use crate::args::Args;
use crate::shard::{LogLevel, Shard, Shutdown};

use flag::*;

const SERVER: Group = Group::Server;
const MODULE: u32 = ADMIN | NOSCRIPT | NO_ASYNC_LOADING | PROTECTED;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::home("time", time, 1, LOADING | STALE | FAST, SERVER).doc(
        "2.6.0",
        "O(1)",
        "Returns the server's time.",
        "",
    ),
    Command::home("shutdown", shutdown, -1, ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY, SERVER).doc(
        "1.0.0",
        "O(N) with a snapshot, N being the number of keys; O(1) without",
        "Ends the server.",
        "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    ),
    Command::container("module", SERVER).doc("4.0.0", "Depends on the subcommand.", "Loads and lists modules.", ""),
    Command::home("module|list", module_list, 2, ADMIN | NOSCRIPT, SERVER).doc(
        "4.0.0",
        "O(N), N being the number of modules",
        "Returns the modules loaded, of which there are none.",
        "",
    ),
    Command::home("module|load", module_load, -3, MODULE, SERVER).doc(
        "4.0.0",
        "O(1)",
        "Loads a module.",
        "path [arg [arg ...]]",
    ),
    Command::home("module|loadex", module_load, -3, MODULE, SERVER).doc(
        "7.0.0",
        "O(1)",
        "Loads a module with directives.",
        "path [CONFIG name value [CONFIG name value ...]] [ARGS args [args ...]]",
    ),
    Command::home("module|unload", module_unload, 3, MODULE, SERVER).doc("4.0.0", "O(1)", "Unloads a module.", "name"),
    Command::home("module|help", module_help, 2, LOADING | STALE, SERVER).doc(
        "5.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

/// What a command answers whose feature is still to be built.
pub fn not_built(what: &str) -> CommandError {
    format!("ERR {what} is not built yet in Ringshard {}", env!("CARGO_PKG_VERSION")).into()
}

fn time(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let us = shard.core.unix_us();
    let mut reply = shard.client(index).reply();
    reply.array(2);
    reply.bulk_integer(us / 1_000_000);
    reply.bulk_integer(us % 1_000_000);
    Ok(())
}

fn shutdown(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let (mut save, mut nosave, mut now, mut force, mut abort) = (false, false, false, false, false);
    for i in 1..args.len() {
        let word = ["nosave", "save", "now", "force", "abort"].into_iter().find(|word| args.is(i, word));
        match word {
            Some("nosave") => nosave = true,
            Some("save") => save = true,
            Some("now") => now = true,
            Some("force") => force = true,
            Some("abort") => abort = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    if (abort && (save || nosave || now || force)) || (save && nosave) {
        return Err(CommandError::Syntax);
    }
    if abort {
        // Nothing is waited for before the end but time events, where these are paused.
        let asked = shard.core.shared.shutdown_asked.lock().expect("no holder panics").take();
        asked.ok_or("ERR No shutdown in progress.")?;
        shard.log(LogLevel::Notice, "Shutdown manually aborted.");
        shard.client(index).reply().ok();
        return Ok(());
    }
    let save = if nosave { Some(false) } else { save.then_some(true) };
    shard.shut_down(Some(index), Shutdown { save, now, force });
    // Redis's clients take the closed connection for the answer.
    Err(CommandError::NoReply)
}

fn module_list(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.client(index).reply().array(0);
    Ok(())
}

fn module_load(_: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    Err("ERR Error loading the extension: Ringshard does not run modules.".into())
}

fn module_unload(_: &mut Shard, _: u32, _: Args<'_>) -> CommandResult {
    Err("ERR Error unloading module: no such module with that name".into())
}

fn module_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "MODULE",
        &[
            ("LIST", "Return the modules loaded; there are never any."),
            ("LOAD <path> [<arg> ...]", "Refused: modules are not supported."),
            ("LOADEX <path> [[CONFIG NAME VALUE] ...] [ARGS ...]", "Refused: modules are not supported."),
            ("UNLOAD <name>", "Refused: modules are not supported."),
        ],
    )
}

#[cfg(test)]
mod tests {
    /// Time events that are paused do not end the server either; until then the end can be called off.
    #[test]
    fn a_signals_shutdown_can_be_aborted_while_cron_is_paused() {
        use crate::shard::{Event, Shutdown};
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            world.run(conn, "DEBUG PAUSE-CRON 1");
            let asked = |world: &mut World| {
                world.shards[0].step(Event::Shutdown(Shutdown { save: Some(false), ..Shutdown::default() }))
            };
            let ends =
                |world: &World| world.effects.iter().any(|(_, effect)| matches!(effect, Effect::Shutdown { .. }));
            asked(&mut world);
            world.cron();
            assert_eq!(world.run(conn, "SHUTDOWN ABORT").to_string(), "OK");
            assert_eq!(world.run(conn, "SHUTDOWN ABORT").to_string(), "-ERR No shutdown in progress.");
            asked(&mut world);
            assert!(!ends(&world));
            world.run(conn, "DEBUG PAUSE-CRON 0");
            world.cron();
            world.settle();
            assert!(ends(&world));
        }
    }

    use crate::shard::Effect;
    use crate::testing::{Check, World};

    #[test]
    fn what_the_server_says_of_itself() {
        let mut t = Check::new();
        t.check("TIME", r#"["1700000000" "0"]"#).advance(1500).check("TIME", r#"["1700000001" "500000"]"#);
        t.check("LASTSAVE", "1700000000").check("MODULE LIST", "[]");
    }

    #[test]
    fn shutdown_leaves_an_effect() {
        let ends = |line: &str, directives: &[(&str, &str)]| {
            let mut world = World::with_config(2, directives);
            let conn = world.connect();
            world.send(conn, format!("{line}\r\n").as_bytes());
            let said = String::from_utf8(world.received(conn)).unwrap();
            let ends = world.effects.iter().find_map(|(_, effect)| match effect {
                Effect::Shutdown { save, now } => Some((*save, *now)),
                _ => None,
            });
            (said, ends)
        };
        assert_eq!(ends("SHUTDOWN NOSAVE", &[]), (String::new(), Some((false, false))));
        assert_eq!(ends("SHUTDOWN NOW FORCE", &[]), (String::new(), Some((true, true))));
        assert_eq!(ends("SHUTDOWN", &[("save", "\"\"")]), (String::new(), Some((false, false))));
        for line in ["SHUTDOWN ABORT NOW", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN what"] {
            assert_eq!(ends(line, &[]), ("-ERR syntax error\r\n".to_string(), None), "{line}");
        }
        assert_eq!(ends("SHUTDOWN ABORT", &[]), ("-ERR No shutdown in progress.\r\n".to_string(), None));
    }

    #[test]
    fn protected_commands_need_leave() {
        let mut world = World::with_config(1, &[("enable-debug-command", "no")]);
        let conn = world.connect();
        assert!(world.run(conn, "DEBUG SLEEP 0").text().starts_with("ERR DEBUG command not allowed."));
        assert!(world.run(conn, "MODULE LOAD x").text().starts_with("ERR MODULE command not allowed."));
        let mut world = World::with_config(1, &[("enable-debug-command", "local"), ("enable-module-command", "yes")]);
        let (near, mut peer) = (world.connect(), crate::client::Peer::default());
        assert_eq!(world.run(near, "DEBUG SLEEP 0").text(), "OK");
        assert!(world.run(near, "MODULE LOAD x").text().starts_with("ERR Error loading the extension"));
        peer.address = "10.0.0.1:5".into();
        world.run(near, "CONFIG SET protected-mode no");
        let far = world.connect_from(0, peer);
        assert!(world.run(far, "DEBUG SLEEP 0").text().starts_with("ERR DEBUG command not allowed."));
    }
}
