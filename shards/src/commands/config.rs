//! `CONFIG`: the directives in force, read, changed, and written back to the file.
//!
//! The directives themselves, their values and error texts are [`crate::config`]'s. A change replaces the one
//! configuration of all shards as a whole; this shard takes it over at once, the others at their next turn, before
//! they take in anything that was sent after the change was answered. What a change asks of the process (listeners,
//! limits of files) is the driver's ([`Effect::ConfigChanged`]). Counterpart: `config.c`.

use super::{Command, CommandError, CommandResult, Group, flag, help};
use crate::args::Args;
use crate::client::Wait;
use crate::config::{Config, SetContext, SetError};
use crate::message::{Answer, Question};
use crate::shard::{Effect, Shard};

use flag::*;

const SERVER: Group = Group::Server;
const CONFIG: u32 = ADMIN | NOSCRIPT | LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("config", SERVER).doc(
        "2.0.0",
        "Depends on the subcommand.",
        "Reads and changes directives.",
        "",
    ),
    Command::home("config|get", get, -3, CONFIG, SERVER).doc(
        "2.0.0",
        "O(N), N being the number of directives",
        "Returns the directives that match, and their values.",
        "parameter [parameter ...]",
    ),
    // Nothing is asked before it runs; it asks the others itself when it has.
    Command::gather("config|set", |_| None, set, -4, CONFIG, SERVER).doc(
        "2.0.0",
        "O(N), N being the number of directives given",
        "Changes directives: all of those given, or none.",
        "parameter value [parameter value ...]",
    ),
    Command::gather("config|resetstat", resetstat_question, resetstat, 2, CONFIG, SERVER).doc(
        "2.0.0",
        "O(1)",
        "Sets the counters of INFO to zero.",
        "",
    ),
    // The reply comes when the file is written, which the replies of an EXEC cannot wait for.
    Command::home("config|rewrite", rewrite, 2, CONFIG | NO_MULTI, SERVER).doc(
        "2.8.0",
        "O(1)",
        "Writes the directives in force to the configuration file.",
        "",
    ),
    Command::home("config|help", config_help, 2, LOADING | STALE, SERVER).doc(
        "5.0.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

fn get(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let patterns: Vec<&[u8]> = args.iter_from(2).collect();
    let found = shard.core.config.get(&patterns);
    let mut reply = shard.client(index).reply();
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(&name);
        reply.bulk(&value);
    }
    Ok(())
}

fn set(shard: &mut Shard, index: u32, args: Args<'_>, answers: Vec<Answer>) -> CommandResult {
    if !answers.is_empty() {
        // All shards have done what the change asks of them. It was counted when it ran.
        let id = shard.core.table.resolve(args);
        shard.uncount(id);
        shard.client(index).reply().ok();
        return Ok(());
    }
    let pairs: Vec<&[u8]> = args.iter_from(2).collect();
    let loading = shard.core.shared.persistence.loading.load(std::sync::atomic::Ordering::Relaxed);
    let context = SetContext { loading, client_is_local: shard.client(index).peer.local };
    let host = shard.core.shared.host.clone();
    let change = |config: &mut Config| {
        let changed = config.set_pairs(&pairs, context)?;
        let names: Vec<&'static str> = changed.iter().map(|directive| directive.name).collect();
        host.apply(config, &names)
            .map_err(|(name, reason)| SetError::Failed { name: name.into(), reason: reason.into() })?;
        Ok::<_, SetError>(changed)
    };
    let changed = shard
        .core
        .shared
        .change_config(change)
        .map_err(|error| CommandError::new(format!("{} {error}", error.code())))?;
    if changed.iter().any(|directive| directive.name == "requirepass") {
        let password = shard.core.shared.config().requirepass.clone();
        let _ = shard.core.shared.change_users(|users| {
            users.set_default_password(password.as_deref());
            Ok::<(), ()>(())
        });
    }
    if !changed.is_empty() {
        shard.refresh_config();
        shard.effects.push(Effect::ConfigChanged(changed.iter().map(|directive| directive.name).collect()));
    }
    if changed.iter().any(|directive| directive.name == "appendonly") {
        shard.switch_log();
    }
    let asks = |name: &str| name == "tracking-table-max-keys" || name.starts_with("maxmemory");
    if changed.iter().any(|directive| asks(directive.name)) {
        if shard.core.deny_blocking {
            // Inside a transaction, which nothing comes between: time events see to it.
            shard.client(index).reply().ok();
            return Ok(());
        }
        let limit = shard.core.config.maxmemory as usize;
        let excess = if limit == 0 { 0 } else { shard.core.shared.counted_memory().saturating_sub(limit) };
        if shard.core.shards > 1 {
            let id = shard.core.table.resolve(args);
            shard.client(index).parked = Some(Box::new((id, args.to_owned())));
            shard.ask_all(index, vec![Question::HeedConfig(excess)]);
            return Err(CommandError::NoReply);
        }
        shard.heed_config(excess);
    }
    shard.client(index).reply().ok();
    Ok(())
}

fn resetstat_question(_: Args<'_>) -> Option<Question> {
    Some(Question::ResetStat)
}

fn resetstat(shard: &mut Shard, index: u32, _: Args<'_>, _: Vec<Answer>) -> CommandResult {
    let shared = &shard.core.shared;
    for counter in [&shared.lazyfreed_objects, &shared.scripts.evicted] {
        counter.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    shard.client(index).reply().ok();
    Ok(())
}

fn rewrite(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    ask_for_rewrite(shard, index, false)
}

/// Has the driver rewrite the configuration file, with `all` the directives or with those that say something.
pub(super) fn ask_for_rewrite(shard: &mut Shard, index: u32, all: bool) -> CommandResult {
    if shard.core.shared.config_file.is_empty() {
        return Err("ERR The server is running without a config file".into());
    }
    shard.wait_for(index, Wait::Driver);
    shard.effects.push(Effect::RewriteConfig(index, all));
    Ok(())
}

fn config_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "CONFIG",
        &[
            ("GET <pattern>", "Return the directives whose names match the glob-style <pattern>, and their values."),
            ("SET <directive> <value>", "Change <directive> to <value>."),
            ("RESETSTAT", "Set the counters that INFO reports to zero."),
            ("REWRITE", "Write the directives in force to the configuration file."),
        ],
    )
}

#[cfg(test)]
mod tests {
    /// Who sets back all that `CONFIG GET` shows leaves out the immutable directives of Redis, not those it has never
    /// heard of.
    #[test]
    fn own_immutable_directives_may_be_set_to_what_they_are() {
        let mut t = crate::testing::Check::with_config(&[("event-loop", "epoll"), ("pin-threads", "no")]);
        t.check("CONFIG SET event-loop epoll pin-threads no", "OK").check("CONFIG SET EVENT-LOOP EPOLL hz 20", "OK");
        for (line, name) in [("event-loop uring", "event-loop"), ("hz 30 pin-threads yes", "pin-threads")] {
            let reply =
                format!("-ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config");
            t.check(&format!("CONFIG SET {line}"), &reply);
        }
        t.check("CONFIG GET hz", r#"["hz" "20"]"#);
    }

    #[test]
    fn what_loading_relies_on_cannot_change_meanwhile() {
        let mut world = crate::testing::World::with_config(1, &[("enable-protected-configs", "yes")]);
        let conn = world.connect();
        world.shared.persistence.loading.store(true, std::sync::atomic::Ordering::Relaxed);
        world.shared.bump_epoch();
        let refused = world.run(conn, "CONFIG SET dir /tmp").to_string();
        world.shared.persistence.loading.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(refused.starts_with("-LOADING"), "{refused}");
    }

    use super::*;
    use crate::testing::{Check, World};
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn values_are_read_and_set() {
        let mut t = Check::new();
        t.types("CONFIG GET maxmemory", r#"["maxmemory" "0"]"#, r#"{"maxmemory": "0"}"#);
        t.check("CONFIG GET nosuch", "[]");
        t.check("CONFIG SET maxmemory 100mb hz 50", "OK");
        t.check("CONFIG GET maxmemory hz", r#"["maxmemory" "104857600" "hz" "50"]"#);
        t.check("CONFIG GET slowlog-*-than", r#"["slowlog-log-slower-than" "10000"]"#);
        t.check("CONFIG SET hz", "-ERR wrong number of arguments for 'config|set' command");
        t.check("CONFIG SET hz 10 port", "-ERR syntax error");
        t.check("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'");
        t.look("CONFIG SET hz 20 maxmemory-policy nosuch", |v| {
            let text = v.text();
            assert!(
                text.starts_with("ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy')"),
                "{text}"
            );
        });
        t.check("CONFIG GET hz", r#"["hz" "50"]"#);
        t.look("CONFIG FOO", |v| assert_eq!(v.text(), "ERR unknown subcommand 'FOO'. Try CONFIG HELP."));
    }

    #[test]
    fn a_change_counts_at_once_and_everywhere() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (a, b) = (world.connect(), world.connect());
            world.send(a, b"CONFIG SET databases 4\r\nCONFIG SET maxmemory 1\r\nSET k v\r\n");
            let text = String::from_utf8(world.received(a)).unwrap();
            assert!(text.contains("can't set immutable config"), "{text}");
            assert!(text.ends_with("-OOM command not allowed when used memory > 'maxmemory'.\r\n"), "{text}");
            assert!(world.run(b, "SET k v").text().starts_with("OOM"));
            let changed = world
                .effects
                .iter()
                .any(|(_, effect)| matches!(effect, Effect::ConfigChanged(names) if names.as_slice() == ["maxmemory"]));
            assert!(changed, "{:?}", world.effects);
        }
    }

    #[test]
    fn a_lower_maxmemory_evicts() {
        let mut t = Check::new();
        t.each(|world, conn| {
            for i in 0..40 {
                world.run(conn, &format!("SET key:{i} v"));
            }
            world.host.used_memory.store(2000, Relaxed);
            world.host.shrinks_by.store(100, Relaxed);
        });
        t.check("CONFIG SET maxmemory 1000 maxmemory-policy allkeys-random", "OK");
        t.each(|world, conn| {
            world.advance(100);
            world.host.used_memory.store(0, Relaxed);
            let left = world.run(conn, "DBSIZE").integer();
            assert!((20..40).contains(&left), "{left}");
        });
    }

    /// With keys that may go on one shard alone, the others have it evict at the end of their turn.
    #[test]
    fn a_full_shard_has_the_others_evict() {
        let mut world = World::new(4);
        let conn = world.connect();
        world.run(conn, "CONFIG SET maxmemory-policy volatile-random maxmemory 1000");
        for key in ["a", "b", "c", "d", "e", "f"] {
            world.host.used_memory.store(0, Relaxed);
            world.run(conn, "SET v x EX 1000");
            world.cron();
            world.run(conn, &format!("SET {key} x"));
            world.host.used_memory.store(2000, Relaxed);
            world.end_turns();
            world.host.used_memory.store(0, Relaxed);
            assert_eq!(
                world.run(conn, "EXISTS v").integer(),
                (crate::router::owner_of(b"v", 4) == crate::router::owner_of(key.as_bytes(), 4)) as i64,
                "{key}"
            );
        }
    }

    /// Keys that the policy spares are no reason to take a write that there is no memory for.
    #[test]
    fn without_volatile_keys_memory_is_full_on_every_shard() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            for key in ["a", "b", "c", "d", "e", "f"] {
                world.run(conn, &format!("SET {key} x"));
            }
            world.cron();
            world.run(conn, "CONFIG SET maxmemory-policy volatile-lru maxmemory 1000");
            world.host.used_memory.store(2000, Relaxed);
            for key in ["a", "b", "c", "d", "e", "f"] {
                let reply = world.run(conn, &format!("SET {key} y")).to_string();
                assert!(reply.starts_with("-OOM"), "{reply}");
            }
        }
    }

    #[test]
    fn counters_start_again() {
        let mut t = Check::new();
        t.check("SET k v", "OK").check("GET k", "\"v\"").check("GET none", "nil").check("CONFIG RESETSTAT", "OK");
        t.look("INFO everything", |v| {
            let text = v.text();
            assert!(text.contains("keyspace_hits:0\r\nkeyspace_misses:0\r\n"), "{text}");
            assert!(!text.contains("cmdstat_get"), "{text}");
            assert!(text.contains("cmdstat_config|resetstat:calls=1,"), "{text}");
        });
        // `evicted_scripts` went on counting, over which Redis's "Lua scripts eviction is plain LRU" failed.
        let mut world = World::new(2);
        let conn = world.connect();
        for i in 0..502 {
            world.run(conn, &format!("EVAL 'return {i}' 0"));
        }
        assert!(world.run(conn, "INFO stats").text().contains("evicted_scripts:2\r\n"));
        assert_eq!(world.run(conn, "CONFIG RESETSTAT").to_string(), "OK");
        assert!(world.run(conn, "INFO stats").text().contains("evicted_scripts:0\r\n"));
    }

    #[test]
    fn rewrite_needs_a_file_and_waits_for_the_driver() {
        let mut t = Check::new();
        t.check("CONFIG REWRITE", "-ERR The server is running without a config file");
        let mut world = World::new(2);
        // Nothing else holds the shared part yet, but its shards do: a server learns its file before they start.
        let config = crate::config::Config::default();
        let mut shared = crate::shared::Shared::new(config, 2, [1, 2], crate::testing::START_MS, world.host.clone());
        shared.config_file = "/etc/ringshard.conf".into();
        let shared = Arc::new(shared);
        world.shards = (0..2).map(|i| Shard::new(i, shared.clone(), 1)).collect();
        let conn = world.connect();
        world.send(conn, b"CONFIG REWRITE\r\nPING\r\n");
        assert_eq!(world.received(conn), b"+OK\r\n+PONG\r\n");
        world.rewrite_result = Err("ERR Rewriting config file: Permission denied".into());
        assert_eq!(world.run(conn, "CONFIG REWRITE").to_string(), "-ERR Rewriting config file: Permission denied");
        assert!(matches!(world.effects.last(), Some((_, Effect::RewriteConfig(_, false)))));
        world.run(conn, "MULTI");
        assert_eq!(world.run(conn, "CONFIG REWRITE").text(), "ERR Command not allowed inside a transaction");
    }

    #[test]
    fn help_lists_the_subcommands() {
        Check::new().look("CONFIG HELP", |v| {
            let lines = v.items();
            assert_eq!(lines[0].text(), "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
            assert!(lines.iter().any(|line| line.text() == "RESETSTAT"));
            assert_eq!(lines[lines.len() - 2].text(), "HELP");
        });
    }
}
