//! `SLOWLOG`: the commands that took long; the log itself is [`crate::slowlog`]. Counterpart: `slowlog.c`.

use super::{Command, CommandResult, Group, flag, help};
use crate::args::Args;
use crate::number::parse_i64;
use crate::shard::Shard;

use flag::*;

const SERVER: Group = Group::Server;
const SLOWLOG: u32 = ADMIN | LOADING | STALE;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::container("slowlog", SERVER).doc(
        "2.2.12",
        "Depends on the subcommand.",
        "Reads the log of slow commands.",
        "",
    ),
    Command::home("slowlog|get", get, -2, SLOWLOG, SERVER).doc(
        "2.2.12",
        "O(N), N being the number of entries returned",
        "Returns the newest entries of the log.",
        "[count]",
    ),
    Command::home("slowlog|len", len, 2, SLOWLOG, SERVER).doc("2.2.12", "O(1)", "Counts the entries of the log.", ""),
    Command::home("slowlog|reset", reset, 2, SLOWLOG, SERVER).doc(
        "2.2.12",
        "O(N), N being the number of entries",
        "Empties the log.",
        "",
    ),
    Command::home("slowlog|help", slowlog_help, 2, LOADING | STALE, SERVER).doc(
        "6.2.0",
        "O(1)",
        "Lists the subcommands.",
        "",
    ),
];

/// Entries that `SLOWLOG GET` returns when none are asked for.
const DEFAULT_COUNT: usize = 10;

fn get(shard: &mut Shard, index: u32, args: Args<'_>) -> CommandResult {
    let count = match args.get(2) {
        None => DEFAULT_COUNT,
        Some(_) if args.len() > 3 => {
            let text = String::from_utf8_lossy(args.at(1));
            let text = format!("ERR unknown subcommand or wrong number of arguments for '{text}'. Try SLOWLOG HELP.");
            return Err(text.into());
        }
        Some(text) => match parse_i64(text) {
            Some(-1) => usize::MAX,
            Some(n) if n >= 0 => n as usize,
            _ => return Err("ERR count should be greater than or equal to -1".into()),
        },
    };
    let shared = shard.core.shared.clone();
    let log = shared.slowlog.lock().expect("no holder panics");
    let mut reply = shard.client(index).reply();
    reply.array(count.min(log.iter().len()));
    for entry in log.iter().take(count) {
        reply.array(6);
        reply.integer(entry.id as i64);
        reply.integer(entry.time);
        reply.integer(entry.duration_us as i64);
        reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| reply.bulk(arg));
        reply.bulk(entry.address.as_bytes());
        reply.bulk(&entry.name);
    }
    Ok(())
}

fn len(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    let len = shard.core.shared.slowlog.lock().expect("no holder panics").iter().len();
    shard.client(index).reply().integer(len as i64);
    Ok(())
}

fn reset(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    shard.core.shared.slowlog.lock().expect("no holder panics").reset();
    shard.client(index).reply().ok();
    Ok(())
}

fn slowlog_help(shard: &mut Shard, index: u32, _: Args<'_>) -> CommandResult {
    help(
        shard,
        index,
        "SLOWLOG",
        &[
            (
                "GET [<count>]",
                "Return the newest <count> entries (default: 10, -1 for all): number, Unix time, duration in µs, \
                 arguments, address and name of the client.",
            ),
            ("LEN", "Return how many entries there are."),
            ("RESET", "Empty the log."),
        ],
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_of_no_length_counts_nothing() {
        let mut t = crate::testing::Check::new();
        t.check("CONFIG SET slowlog-max-len 0 slowlog-log-slower-than 0", "OK");
        for _ in 0..5 {
            t.check("PING", "PONG");
        }
        t.check("CONFIG SET slowlog-max-len 10 slowlog-log-slower-than 10000000", "OK").check("SLOWLOG LEN", "0");
        t.check("CONFIG SET slowlog-log-slower-than 0", "OK").check("PING", "PONG");
        t.look("SLOWLOG GET -1", |v| assert_eq!(v.items().last().unwrap().items()[0].integer(), 0));
    }

    use crate::testing::Check;

    #[test]
    fn slow_commands_are_found_again() {
        let mut t = Check::new();
        t.check("SLOWLOG RESET", "OK").check("SLOWLOG GET", "[]").check("CLIENT SETNAME me", "OK");
        t.check("DEBUG SLEEP 0.2", "OK").check("SLOWLOG LEN", "1");
        t.look("SLOWLOG GET", |v| {
            let entry = v.items()[0].items();
            assert_eq!(entry[1].integer(), crate::testing::START_MS / 1000);
            assert!((200_000..201_000).contains(&entry[2].integer()), "{v}");
            assert_eq!(entry[3].to_string(), r#"["DEBUG" "SLEEP" "0.2"]"#);
            assert_eq!(entry[4].text(), "127.0.0.1:50000");
            assert_eq!(entry[5].text(), "me");
        });
    }

    /// A command that waits is in the log when it has been served, not while it waits.
    #[test]
    fn commands_that_wait_are_logged_once_served() {
        let mut t = Check::with_config(&[("slowlog-log-slower-than", "0")]);
        t.each(|world, conn| {
            for keys in [&["l"][..], &["l", "a", "b", "c"]] {
                let waiter = world.connect();
                let words = [&["BLPOP"][..], keys, &["0"]].concat();
                world.send(waiter, &crate::testing::request(&words));
                world.run(conn, "SLOWLOG RESET");
                assert!(!world.run(conn, "SLOWLOG GET").to_string().contains("BLPOP"));
                world.run(conn, "RPUSH l x");
                assert!(!world.received(waiter).is_empty());
                assert_eq!(world.run(conn, "SLOWLOG GET").to_string().matches("BLPOP").count(), 1, "{keys:?}");
            }
        });
    }

    #[test]
    fn the_log_is_of_all_shards_and_bounded() {
        let mut t = Check::with_config(&[("slowlog-log-slower-than", "0"), ("slowlog-max-len", "5")]);
        for key in ["a", "b", "c", "d", "e", "f"] {
            t.check(&format!("SET {key} 1"), "OK");
        }
        t.check("SLOWLOG LEN", "5");
        t.look("SLOWLOG GET 2", |v| {
            let names: Vec<String> = v.items().iter().map(|entry| entry.items()[3].to_string()).collect();
            assert_eq!(names, [r#"["SLOWLOG" "LEN"]"#, r#"["SET" "f" "1"]"#]);
        });
        t.look("SLOWLOG GET -1", |v| assert_eq!(v.items().len(), 5));
        t.check("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1");
        t.check("SLOWLOG GET x", "-ERR count should be greater than or equal to -1");
        t.check("SLOWLOG GET 1 2", "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.");
    }

    #[test]
    fn secrets_are_not_kept() {
        let mut t = Check::with_config(&[("slowlog-log-slower-than", "0")]);
        t.check("CONFIG SET hz 20 masterauth hidden tls-key-file-pass gone", "OK");
        t.look("SLOWLOG GET 1", |v| {
            let args = v.items()[0].items()[3].to_string();
            let kept = r#"["CONFIG" "SET" "hz" "20" "masterauth" "(redacted)" "tls-key-file-pass" "(redacted)"]"#;
            assert_eq!(args, kept);
        });
        t.look("AUTH user secret", |v| assert!(v.text().starts_with("WRONGPASS")));
        t.look("SLOWLOG GET 1", |v| {
            assert_eq!(v.items()[0].items()[3].to_string(), r#"["AUTH" "(redacted)" "(redacted)"]"#);
        });
        t.look("HELLO 3 AUTH default secret SETNAME x", |_| {});
        t.look("SLOWLOG GET 1", |v| {
            let args = v.items()[0].items()[3].to_string();
            assert_eq!(args, r#"["HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "x"]"#);
        });
    }
}
