//! The server is killed in the midst of writes, again and again: what it has acknowledged under `appendfsync always` is
//! there afterwards, and nothing of a command over several keys is there without the rest.
//!
//! | to do | set |
//! | --- | --- |
//! | many more rounds | `RINGSHARD_CRASH_ROUNDS=1000` |

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::*};
use std::time::Duration;

use crate::harness::{Dir, Placement, Server, everywhere};
use crate::wire::{Conn, Random, Value, encode, words};

/// Names that lie on different shards, of up to eight.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// What one writer does, n for the first to last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// One key.
    Set,
    /// Keys on several shards at once.
    Mset,
    /// The same as a transaction.
    Exec,
    /// A name that goes from shard to shard.
    Rename,
    /// A script over several keys.
    Script,
    /// Many writes at once, each on one shard.
    Pipeline,
}

const MANNERS: [Manner; 6] =
    [Manner::Set, Manner::Mset, Manner::Exec, Manner::Rename, Manner::Script, Manner::Pipeline];

impl Manner {
    /// Does it for the n-th time; an error when the server is gone.
    fn write(self, conn: &mut Conn, n: i64) -> std::io::Result<()> {
        let mut replies = 1;
        let bytes = match self {
            Manner::Set => encode(&words(&format!("SET set:a {n}"))),
            Manner::Mset => {
                let pairs: Vec<String> = NAMES.iter().map(|name| format!("mset:{name} {n}")).collect();
                encode(&words(&format!("MSET {}", pairs.join(" "))))
            }
            Manner::Exec => {
                let lines: Vec<String> = std::iter::once("MULTI".to_string())
                    .chain(NAMES.iter().map(|name| format!("INCR exec:{name}")))
                    .chain(std::iter::once("EXEC".to_string()))
                    .collect();
                replies = lines.len();
                lines.iter().flat_map(|line| encode(&words(line))).collect()
            }
            Manner::Rename => encode(&words(&format!("RENAME rename:{} rename:{n}", n - 1))),
            Manner::Script => {
                let code = "for i = 1, #KEYS do redis.call('RPUSH', KEYS[i], ARGV[1]) end";
                let keys: Vec<String> = NAMES[..4].iter().map(|name| format!("script:{name}")).collect();
                let mut args = vec!["EVAL".to_string(), code.to_string(), "4".to_string()];
                args.extend(keys);
                args.push(n.to_string());
                encode(&args)
            }
            Manner::Pipeline => {
                replies = NAMES.len();
                NAMES.iter().flat_map(|name| encode(&words(&format!("SET pipeline:{name} {n}")))).collect()
            }
        };
        conn.try_send(&bytes)?;
        for _ in 0..replies {
            let (value, _) = conn.try_read()?;
            assert!(!matches!(value, Value::Error(_)), "{self:?} {n}: {value:?}");
        }
        Ok(())
    }

    /// How often it was done, as the server has it; fails when that is not one answer.
    fn read(self, conn: &mut Conn) -> i64 {
        let number = |value: &Value| match value {
            Value::Bulk(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
            _ => 0,
        };
        let all = |conn: &mut Conn, kind: &str| -> Vec<i64> {
            let keys: Vec<String> = NAMES.iter().map(|name| format!("{kind}:{name}")).collect();
            conn.cmd(&format!("MGET {}", keys.join(" "))).items().iter().map(number).collect()
        };
        match self {
            Manner::Set => number(&conn.cmd("GET set:a")),
            Manner::Pipeline => *all(conn, "pipeline").iter().min().unwrap(),
            Manner::Mset | Manner::Exec => {
                let values = all(conn, if self == Manner::Mset { "mset" } else { "exec" });
                assert!(values.iter().all(|value| *value == values[0]), "half of a {self:?}: {values:?}");
                values[0]
            }
            Manner::Rename => {
                let keys = conn.cmd("KEYS rename:*");
                assert_eq!(keys.items().len(), 1, "one key under one name: {keys:?}");
                std::str::from_utf8(keys.items()[0].bytes()).unwrap()["rename:".len()..].parse().unwrap()
            }
            Manner::Script => {
                let lists: Vec<Value> =
                    NAMES[..4].iter().map(|name| conn.cmd(&format!("LRANGE script:{name} 0 -1"))).collect();
                assert!(lists.iter().all(|list| *list == lists[0]), "half of a script: {lists:?}");
                lists[0].items().last().map_or(0, number)
            }
        }
    }
}

/// What a writer has asked for, what was acknowledged, and what was seen of it by another.
#[derive(Default)]
struct Progress {
    asked: AtomicI64,
    acknowledged: AtomicI64,
    seen: AtomicI64,
}

/// Writes and reads until the server is killed.
fn write_until_killed(server: &mut Server, progress: &[Progress], life: Duration) {
    let stop = AtomicBool::new(false);
    let conns = |n: usize| (0..n).map(|_| server.connect()).collect::<Vec<_>>();
    let (writers, readers) = (conns(MANNERS.len()), conns(2));
    let pid = server.pid() as i32;
    std::thread::scope(|scope| {
        for ((manner, progress), mut conn) in MANNERS.iter().zip(progress).zip(writers) {
            scope.spawn(move || {
                loop {
                    let n = progress.acknowledged.load(SeqCst).max(progress.asked.load(SeqCst)) + 1;
                    progress.asked.store(n, SeqCst);
                    if manner.write(&mut conn, n).is_err() {
                        return;
                    }
                    progress.acknowledged.store(n, SeqCst);
                }
            });
        }
        for mut conn in readers {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let read = conn.try_send(&encode(&words("GET set:a"))).and_then(|()| conn.try_read());
                    let Ok((value, _)) = read else { return };
                    if let Value::Bulk(bytes) = value {
                        let n: i64 = std::str::from_utf8(&bytes).unwrap().parse().unwrap();
                        progress[0].seen.fetch_max(n, SeqCst);
                    }
                }
            });
        }
        std::thread::sleep(life);
        stop.store(true, SeqCst);
        // SAFETY: the child has not been waited for, so its number is its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
    });
    server.wait_for_end();
}

/// Reads what is there after a crash, and goes on from it.
fn check(conn: &mut Conn, progress: &[Progress]) {
    for (manner, progress) in MANNERS.iter().zip(progress) {
        let there = manner.read(conn);
        let (asked, acknowledged) = (progress.asked.load(SeqCst), progress.acknowledged.load(SeqCst));
        assert!(there >= acknowledged, "{manner:?}: {acknowledged} was acknowledged, {there} is there");
        assert!(there >= progress.seen.load(SeqCst), "{manner:?}: what a reader saw is gone");
        assert!(there <= asked, "{manner:?}: {there} is there, and only {asked} was asked for");
        progress.acknowledged.store(there, SeqCst);
        progress.asked.store(there, SeqCst);
    }
}

fn start(placement: Placement, dir: &Dir) -> Server {
    let path = dir.0.to_str().unwrap();
    placement.start(&["--dir", path, "--appendonly", "yes", "--appendfsync", "always", "--save", ""])
}

#[test]
fn what_was_acknowledged_survives_and_nothing_is_there_by_half() {
    let rounds: usize = std::env::var("RINGSHARD_CRASH_ROUNDS").map_or(7, |rounds| rounds.parse().unwrap());
    let mut random = Random::new(std::process::id() as u64);
    let life = std::cell::RefCell::new(&mut random);
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let progress: Vec<Progress> = MANNERS.iter().map(|_| Progress::default()).collect();
        for round in 0..rounds {
            let mut server = start(placement, &dir);
            let mut conn = server.connect();
            if round == 0 {
                assert_eq!(conn.cmd("SET rename:0 here"), crate::wire::ok());
            }
            check(&mut conn, &progress);
            if round % 3 == 1 {
                // Files change under the writers.
                conn.cmd("BGREWRITEAOF");
            }
            let ms = 20 + life.borrow_mut().below(150) as u64;
            write_until_killed(&mut server, &progress, Duration::from_millis(ms));
        }
        // Another number of shards finds the same.
        let other = Placement { shards: 5 - placement.shards, ..placement };
        let server = start(other, &dir);
        check(&mut server.connect(), &progress);
        let written: i64 = progress.iter().map(|progress| progress.acknowledged.load(SeqCst)).sum();
        eprintln!("{written} writes in {rounds} rounds");
        assert!(written > 0);
    });
}
