//! Client libraries that others wrote, unmodified: redis-py, ioredis, and the `redis` crate.
//!
//! The first two are programs in `tests/clients`; `scripts/test` installs what they import and says where.

use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{Commands, Connection, Iter};

use crate::harness::{Server, everywhere};

/// A program of `tests/clients`.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The path in an environment variable, if what it names is there; else says what is skipped.
fn given(variable: &str, skipped: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {skipped}, for {variable} does not say where it is (scripts/test installs it)");
    }
    found
}

/// Runs a client's program against a server; it counts its own tests in its last line.
fn run(server: &Server, mut command: Command) {
    let out = command.arg(server.port.to_string()).output().expect("the client's program runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    assert!(
        out.status.success() && last.ends_with(" passed, 0 failed") && !last.starts_with("0 "),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    eprintln!("{last}");
}

#[test]
fn redis_py() {
    let Some(python) = given("RINGSHARD_TEST_PYTHON", "redis-py") else { return };
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut command = Command::new(&python);
        command.arg(script("redis_py.py"));
        run(&server, command);
    });
}

#[test]
fn ioredis() {
    let Some(modules) = given("RINGSHARD_TEST_NODE_MODULES", "ioredis") else { return };
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut command = Command::new("node");
        command.env("NODE_PATH", &modules).arg(script("ioredis.js"));
        run(&server, command);
    });
}

#[test]
fn redis_crate() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        for parameters in ["", "?protocol=resp3"] {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}/{parameters}", server.port)).unwrap();
            converse(&mut client.get_connection().unwrap()).unwrap();
        }
    });
}

fn converse(con: &mut Connection) -> redis::RedisResult<()> {
    redis::cmd("FLUSHALL").exec(con)?;
    con.set::<_, _, ()>("k", "v")?;
    assert_eq!(con.get::<_, String>("k")?, "v");
    assert_eq!(con.get::<_, Option<String>>("none")?, None);
    assert_eq!(con.incr::<_, _, i64>("n", 5)?, 5);
    assert!(con.incr::<_, _, i64>("k", 1).is_err());
    con.mset::<_, _, ()>(&[("a", 1), ("b", 2), ("c", 3)])?;
    assert_eq!(con.mget::<_, Vec<Option<i64>>>(&["a", "b", "none", "c"])?, [Some(1), Some(2), None, Some(3)]);
    assert_eq!(con.del::<_, i64>(&["a", "b", "none"])?, 2);
    assert!(con.expire::<_, bool>("c", 100)?);
    assert!((1..=100).contains(&con.ttl::<_, i64>("c")?));

    let mut pipe = redis::pipe();
    for i in 0..500 {
        pipe.set(format!("key:{i}"), i).ignore();
    }
    pipe.get("key:7").get("key:499");
    assert_eq!(pipe.query::<(i64, i64)>(con)?, (7, 499));
    let keys: Iter<'_, String> = con.scan_match("key:*")?;
    let keys: Vec<String> = keys.collect::<redis::RedisResult<_>>()?;
    let distinct: std::collections::HashSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), 500);

    let (first, all): (i64, Vec<i64>) =
        redis::pipe().atomic().incr("key:1", 10).mget(&["key:0", "key:1", "key:2"]).query(con)?;
    assert_eq!((first, all), (11, vec![0, 11, 2]));
    let sum: (i64,) = redis::transaction(con, &["key:1", "key:2"], |con, pipe| {
        let sum: i64 = con.get::<_, i64>("key:1")? + con.get::<_, i64>("key:2")?;
        pipe.set("sum", sum).ignore().get("sum").query(con)
    })?;
    assert_eq!(sum, (13,));
    Ok(())
}
