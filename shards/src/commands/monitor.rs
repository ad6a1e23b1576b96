//! `MONITOR`: a client that is shown every command of every other.
//!
//! The home of a client shows its commands as they end, by a note to each shard that has monitors. While there are
//! none, nothing is asked on the path of a plain command: monitors make every shard `guarded`. Counterpart:
//! `replicationFeedMonitors` in `replication.c`.

use std::sync::atomic::Ordering::Relaxed;

use super::{Command, CommandId, CommandResult, CommandTable, Group, flag};
use crate::args::Args;
use crate::client::{Peer, gate};
use crate::quote::repr_into;
use crate::shard::Shard;
use crate::slowlog::is_secret;

use flag::*;

/// This family's row.
pub static TABLE: &[Command] =
    &[Command::home("monitor", monitor, 1, ADMIN | NOSCRIPT | LOADING | STALE, Group::Server).doc(
        "1.0.0",
        "O(1)",
        "Shows every command as it is run.",
        "",
    )];

fn monitor(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    if shard.core.deny_blocking {
        return Err("ERR MONITOR isn't allowed for DENY BLOCKING client".into());
    }
    let client = shard.client(index);
    if client.gate & gate::MONITOR != 0 {
        return Ok(());
    }
    client.gate |= gate::MONITOR;
    client.reply().ok();
    shard.core.shared.monitors[shard.core.id as usize].0.fetch_add(1, Relaxed);
    shard.core.shared.bump_epoch();
    shard.refresh_guard();
    Ok(())
}

/// Where a command came from, as monitors are shown it.
fn origin(peer: &Peer) -> String {
    match peer.unix {
        true => format!("unix:{}", peer.address.strip_suffix(":0").unwrap_or(&peer.address)),
        false => peer.address.clone(),
    }
}

impl Shard {
    /// Shows a command of this shard's client to monitors, unless it is one that they may not see.
    pub(crate) fn show_to_monitors(&mut self, index: u32, id: CommandId, args: Args<'_>) {
        if is_shown(self.core.table.row(id)) {
            self.show(index, args);
        }
    }

    /// As [`Shard::show_to_monitors`], whatever the command.
    pub(crate) fn show(&mut self, index: u32, args: Args<'_>) {
        let Some(client) = self.clients[index as usize].as_deref() else { return };
        let (db, origin) = (client.db, origin(&client.peer));
        self.core.monitor(db, &origin, args);
    }

    /// The client monitors no longer: it resets, or goes away.
    pub(crate) fn end_monitor(&mut self, index: u32) {
        let client = self.client(index);
        if client.gate & gate::MONITOR != 0 {
            client.gate &= !gate::MONITOR;
            self.core.shared.monitors[self.core.id as usize].0.fetch_sub(1, Relaxed);
            self.core.shared.bump_epoch();
            self.refresh_guard();
        }
    }
}

/// Whether monitors are shown a command when it has run. Scripts are shown before it, those that administer never.
pub(crate) fn is_shown(row: &Command) -> bool {
    row.flags & (ADMIN | SKIP_MONITOR) == 0
}

/// The line that monitors get.
pub(crate) fn line(table: &CommandTable, unix_us: i64, db: u16, origin: &str, args: Args<'_>) -> Vec<u8> {
    let mut line = format!("+{}.{:06} [{db} {origin}]", unix_us / 1_000_000, unix_us % 1_000_000).into_bytes();
    for (i, arg) in args.iter_from(0).enumerate() {
        line.push(b' ');
        match is_secret(table, args, i) {
            true => line.extend_from_slice(b"\"(redacted)\""),
            false => repr_into(&mut line, arg),
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use crate::testing::{Conn, Value, World, request};

    /// What a monitor was shown, without the time.
    fn shown(world: &mut World, conn: Conn) -> Vec<String> {
        let lines = Value::parse_all(&world.received(conn));
        let text = |line: &Value| line.text().split_once(' ').expect("time, then the rest").1.to_string();
        lines.iter().map(text).collect()
    }

    #[test]
    fn every_command_is_shown_once() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (a, b) = (world.connect(), world.connect());
            let monitors = [world.connect(), world.connect()];
            for monitor in monitors {
                assert_eq!(world.run(monitor, "MONITOR").to_string(), "OK");
            }
            let seen = |world: &mut World, line: &str, expected: &[&str]| {
                world.run(a, line);
                for monitor in monitors {
                    assert_eq!(shown(world, monitor), expected, "{line} on {shards} shard(s)");
                }
            };
            seen(&mut world, "set k \"a\\n\\x01\"", &[r#"[0 127.0.0.1:50000] "set" "k" "a\n\x01""#]);
            seen(&mut world, "MGET a b c d e", &[r#"[0 127.0.0.1:50000] "MGET" "a" "b" "c" "d" "e""#]);
            seen(&mut world, "RENAME k k2", &[r#"[0 127.0.0.1:50000] "RENAME" "k" "k2""#]);
            seen(&mut world, "AUTH me secret", &[r#"[0 127.0.0.1:50000] "AUTH" "(redacted)" "(redacted)""#]);
            seen(&mut world, "SELECT 3", &[r#"[3 127.0.0.1:50000] "SELECT" "3""#]);
            // Refused, or too dangerous to be shown.
            seen(&mut world, "GET", &[]);
            seen(&mut world, "CONFIG GET maxmemory", &[]);
            seen(&mut world, "MULTI", &[r#"[3 127.0.0.1:50000] "MULTI""#]);
            seen(&mut world, "SET a 1", &[]);
            seen(&mut world, "SET b 2", &[]);
            seen(
                &mut world,
                "EXEC",
                &[
                    r#"[3 127.0.0.1:50000] "SET" "a" "1""#,
                    r#"[3 127.0.0.1:50000] "SET" "b" "2""#,
                    r#"[3 127.0.0.1:50000] "EXEC""#,
                ],
            );
            world.run(a, "MULTI");
            world.run(a, "nosuch");
            world.run(a, "EXEC");
            let expected = [r#"[3 127.0.0.1:50000] "MULTI""#, r#"[3 127.0.0.1:50000] "EXEC""#];
            monitors.iter().for_each(|monitor| assert_eq!(shown(&mut world, *monitor), expected));
            world.send(a, &request(&["BLPOP", "l", "l2", "l3", "0"]));
            world.run(b, "LPUSH l x");
            let expected = [
                r#"[3 127.0.0.1:50000] "BLPOP" "l" "l2" "l3" "0""#.to_string(),
                r#"[0 127.0.0.1:50001] "LPUSH" "l" "x""#.to_string(),
            ];
            monitors.iter().for_each(|monitor| assert_eq!(shown(&mut world, *monitor), expected));
            let no = world.run(monitors[0], "GET k").to_string();
            assert_eq!(no, "-ERR Replica can't interact with the keyspace");
            world.run(b, "MULTI");
            world.run(b, "MONITOR");
            let replies = world.run(b, "EXEC").to_string();
            assert_eq!(replies, "[-ERR MONITOR isn't allowed for DENY BLOCKING client]");
            monitors.iter().for_each(|monitor| drop(world.received(*monitor)));
            assert_eq!(world.run(monitors[0], "RESET").to_string(), "RESET");
            world.disconnect(monitors[1]);
            world.run(b, "SET k v");
            assert!(world.received(monitors[0]).is_empty());
            world.advance(100);
            assert!(world.shards.iter().all(|shard| !shard.guarded));
        }
    }

    /// A script stands before the commands that it calls, wherever it runs, and one that has to begin anew is shown
    /// once.
    #[test]
    fn scripts_are_shown_before_their_commands() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, monitor) = (world.connect(), world.connect());
            world.run(monitor, "MONITOR");
            let text = "if ARGV[1] then redis.call('SET', ARGV[1], 'x') end return redis.call('GET', KEYS[1])";
            let eval = |world: &mut World, key: &str, more: &[&str]| {
                let words = [&["EVAL", text, "1", key][..], more].concat();
                world.send(conn, &request(&words));
                world.received(conn);
                shown(world, monitor)
            };
            let line = |key: &str| format!(r#"[0 127.0.0.1:50000] "EVAL" "{text}" "1" "{key}""#);
            let get = |key: &str| format!(r#"[0 lua] "GET" "{key}""#);
            for key in ["a", "b", "c", "d", "e"] {
                assert_eq!(eval(&mut world, key, &[]), [line(key), get(key)], "{shards} shard(s)");
            }
            let set = r#"[0 lua] "SET" "q" "x""#;
            for key in ["a", "b", "c", "d", "e"] {
                let head = line(key) + r#" "q""#;
                assert_eq!(eval(&mut world, key, &["q"]), [head, set.into(), get(key)], "{shards} shard(s)");
            }
            world.run(conn, "MULTI");
            eval(&mut world, "a", &[]);
            world.run(conn, "EXEC");
            let exec = r#"[0 127.0.0.1:50000] "EXEC""#.to_string();
            assert_eq!(shown(&mut world, monitor), [line("a"), get("a"), exec], "{shards} shard(s)");
        }
    }

    /// With slices of several shards in hand, and one key beyond them: the script begins anew, and is answered.
    #[test]
    fn a_script_that_strays_from_several_shards_is_answered() {
        let mut world = World::new(4);
        let conn = world.connect();
        let text = "if ARGV[1] then redis.call('SET', ARGV[1], 'x') end return redis.call('GET', KEYS[1])";
        let eval = |world: &mut World, words: &[&str]| {
            world.send(conn, &request(&[&["EVAL", text][..], words].concat()));
            let replies = Value::parse_all(&world.received(conn));
            replies.iter().map(Value::to_string).collect::<Vec<_>>()
        };
        assert_eq!(eval(&mut world, &["2", "a", "b"]), ["nil"]);
        for key in ["c", "d", "e", "f"] {
            assert_eq!(eval(&mut world, &["2", key, "b", key]), ["\"x\""]);
        }
        for (n, key) in ["c", "d", "e", "f"].into_iter().enumerate() {
            // Known to stray by now, or not yet: both ways.
            let fresh = format!("{text} --{n}");
            world.send(conn, &request(&["EVAL", &fresh, "2", "a", "b"]));
            world.received(conn);
            world.send(conn, &request(&["EVAL", &fresh, "2", "a", "b", key]));
            let replies = Value::parse_all(&world.received(conn));
            assert_eq!(replies.len(), 1, "{key}");
        }
        assert_eq!(world.run(conn, "PING").to_string(), "PONG");
    }

    /// A script's own line comes first however the shards' messages overtake each other: all are shown by its home.
    #[test]
    fn a_monitored_script_runs_where_its_client_is() {
        let mut world = World::new(4);
        let (conn, monitor) = (world.connect(), world.connect());
        world.run(monitor, "MONITOR");
        let before: u64 = world.shards.iter().map(|shard| shard.core.stats.hops).sum();
        for key in ["a", "b", "c", "d", "e"] {
            world.send(conn, &request(&["EVAL", "return redis.call('GET', KEYS[1])", "1", key]));
        }
        world.received(conn);
        let after: u64 = world.shards.iter().map(|shard| shard.core.stats.hops).sum();
        assert_eq!(after, before);
        assert_eq!(shown(&mut world, monitor).len(), 10);
    }

    /// What is refused for want of memory has not run, and is not shown; nor are secrets.
    #[test]
    fn what_is_not_shown() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, monitor) = (world.connect(), world.connect());
            world.run(monitor, "MONITOR");
            let mut seen = |lines: &[&str]| {
                lines.iter().for_each(|line| drop(world.run(conn, line)));
                shown(&mut world, monitor)
            };
            let line = |rest: &str| format!("[0 127.0.0.1:50000] {rest}");
            assert_eq!(
                seen(&["HELLO 2 AUTH default pw", "HELLO 2 SETNAME n AUTH me pw", "auth pw"]),
                [
                    line(r#""HELLO" "2" "AUTH" "(redacted)" "(redacted)""#),
                    line(r#""HELLO" "2" "SETNAME" "n" "AUTH" "(redacted)" "(redacted)""#),
                    line(r#""auth" "(redacted)""#),
                ]
            );
            let secret: &[&str] =
                &["CONFIG SET requirepass pw", "AUTH pw", "CONFIG SET requirepass ''", "ACL SETUSER bob >pw"];
            assert_eq!(seen(secret), [line(r#""AUTH" "(redacted)""#)]);
            let full = ["CONFIG SET maxmemory 1", "SET a 1", "SET b 2", "SET c 3", "MSET a 1 b 2 c 3", "GET a"];
            assert_eq!(seen(&full), [line(r#""GET" "a""#)]);
            let queued = ["MULTI", "SET a 1", "EXEC", "CONFIG SET maxmemory 0"];
            assert_eq!(seen(&queued), [line(r#""MULTI""#), line(r#""EXEC""#)]);
        }
    }
}
