//! Client libraries and job queues that others wrote, unmodified: redis-py, RQ, Celery, ioredis, node-redis, BullMQ,
//! Sidekiq, and the `redis` crate.
//!
//! All but the last are programs in `tests/clients`; `scripts/test` installs what they import and says where.

use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{AsyncCommands, Commands, Connection, Iter};

use crate::harness::{Placement, event_loops, everywhere, wait_until};
use crate::tls::Pki;

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
fn run(mut command: Command, words: &[&str]) {
    let out = command.args(words).output().expect("the client's program runs");
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().unwrap_or_default();
    assert!(
        out.status.success() && last.ends_with(" passed, 0 failed") && !last.starts_with("0 "),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    eprintln!("{last}");
}

/// One and four shards on the better loop; and, where asked for, four on the other.
fn placements(both_loops: bool) -> Vec<Placement> {
    let loops = event_loops();
    let mut all: Vec<Placement> = [1, 4].map(|shards| Placement { event_loop: loops[0], shards }).into();
    if both_loops {
        all.extend(loops[1..].iter().map(|event_loop| Placement { event_loop, shards: 4 }));
    }
    all
}

/// Runs a Python program on a server that speaks plain text, TLS and through a unix socket, and may stand between.
fn python(name: &str, first: impl Fn(Placement) -> Vec<&'static str>, both_loops: bool) {
    let Some(python) = given("RINGSHARD_TEST_PYTHON", name) else { return };
    on_all_sockets(both_loops, |placement, words| {
        let mut command = Command::new(&python);
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script(name)).args(first(placement));
        run(command, words);
    });
}

fn node(name: &str, both_loops: bool) {
    let Some(modules) = given("RINGSHARD_TEST_NODE_MODULES", name) else { return };
    on_all_sockets(both_loops, |_, words| {
        let mut command = Command::new("node");
        command.env("NODE_PATH", &modules).arg(script(name));
        run(command, words);
    });
}

/// Starts servers that speak plain text, TLS and through a unix socket, and says where: the words of a client's program.
fn on_all_sockets(both_loops: bool, test: impl Fn(Placement, &[&str])) {
    let pki = Pki::new();
    for placement in placements(both_loops) {
        eprintln!("-- {placement:?}");
        let unix = pki.path("socket");
        let (server, tls_port) = pki.start(placement, &["--unixsocket", &unix]);
        test(placement, &[&server.port.to_string(), &tls_port.to_string(), &pki.path(""), &unix]);
    }
}

/// With its parser in Python, and with hiredis.
#[test]
fn redis_py() {
    python("redis_py.py", |placement| vec![if placement.shards == 1 { "python" } else { "hiredis" }], true);
}

#[test]
fn ioredis() {
    node("ioredis.js", true);
}

#[test]
fn node_redis() {
    node("node_redis.js", true);
}

#[test]
fn bullmq() {
    node("bullmq.js", true);
}

#[test]
fn rq() {
    python("rq_jobs.py", |_| Vec::new(), false);
}

#[test]
fn celery() {
    python("celery_jobs.py", |_| Vec::new(), false);
}

#[test]
fn sidekiq() {
    // Later ones have other names for what the program uses; Debian 12 has the sixth.
    let sixth = ["-W0", "-e", "require 'sidekiq'; exit Sidekiq::VERSION.start_with?('6.')"];
    let found = Command::new("ruby").args(sixth).stderr(std::process::Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: Ruby with Sidekiq 6 is not here (scripts/test installs it where Debian has it)");
    }
    on_all_sockets(false, |_, words| {
        let mut command = Command::new("ruby");
        command.arg("-W0").arg(script("sidekiq_jobs.rb"));
        run(command, words);
    });
}

#[test]
fn redis_crate() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        for parameters in ["", "?protocol=resp3"] {
            let client = redis::Client::open(format!("redis://127.0.0.1:{}/{parameters}", server.port)).unwrap();
            converse(&mut client.get_connection().unwrap()).unwrap();
            listen(&client).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(converse_async(&client)).unwrap();
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

/// Scripts, streams and pub/sub.
fn listen(client: &redis::Client) -> redis::RedisResult<()> {
    let con = &mut client.get_connection()?;
    let script =
        redis::Script::new("redis.call('SET', KEYS[2], ARGV[1]) return redis.call('INCRBY', KEYS[1], ARGV[1])");
    for turn in 1..=3 {
        if turn == 3 {
            redis::cmd("SCRIPT").arg("FLUSH").exec(con)?;
        }
        assert_eq!(script.key("scripted").key("other").arg(5).invoke::<i64>(con)?, 5 * turn);
    }
    let id: String = con.xadd("stream", "*", &[("field", "value")])?;
    let entries: redis::streams::StreamRangeReply = con.xrange_all("stream")?;
    assert_eq!((entries.ids.len(), &entries.ids[0].id), (1, &id));
    con.xgroup_create::<_, _, _, ()>("stream", "group", "0")?;
    let options = redis::streams::StreamReadOptions::default().group("group", "me").count(10).block(1000);
    let read: Option<redis::streams::StreamReadReply> = con.xread_options(&["stream"], &[">"], &options)?;
    assert_eq!(read.expect("there is one").keys[0].ids[0].id, id);
    assert_eq!(con.xack::<_, _, _, i64>("stream", "group", &[&id])?, 1);

    let mut listener = client.get_connection()?;
    let mut listener = listener.as_pubsub();
    listener.subscribe(&["a", "b"])?;
    listener.psubscribe("c*")?;
    // With RESP3 the library does not wait until it has subscribed.
    let heard = |channels: [i64; 2], patterns: i64| {
        wait_until("all is subscribed", || {
            let mut con = client.get_connection().unwrap();
            let numbers: (String, i64, String, i64) =
                redis::cmd("PUBSUB").arg("NUMSUB").arg(&["a", "b"]).query(&mut con).unwrap();
            let pattern: i64 = redis::cmd("PUBSUB").arg("NUMPAT").query(&mut con).unwrap();
            ([numbers.1, numbers.3], pattern) == (channels, patterns)
        });
    };
    heard([1, 1], 1);
    for channel in ["a", "b", "cc"] {
        assert_eq!(con.publish::<_, _, i64>(channel, channel.to_uppercase())?, 1);
    }
    for channel in ["a", "b", "cc"] {
        let message = listener.get_message()?;
        assert_eq!(message.get_channel_name(), channel);
        assert_eq!(message.get_payload::<String>()?, channel.to_uppercase());
    }
    listener.unsubscribe(&["a", "b"])?;
    heard([0, 0], 1);
    assert_eq!(con.publish::<_, _, i64>("a", "unheard")?, 0);
    Ok(())
}

/// Many commands at once over one connection, and what waits beside them.
async fn converse_async(client: &redis::Client) -> redis::RedisResult<()> {
    let mut con = client.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHALL").exec_async(&mut con).await?;
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let mut con = con.clone();
            async move {
                con.set::<_, _, ()>(format!("key:{i}"), i).await?;
                con.incr::<_, _, i64>(format!("key:{i}"), 1).await
            }
        })
        .collect();
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    for (i, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.expect("it does not panic")?, i as i64 + 1);
    }
    let (sum, all): (i64, Vec<i64>) =
        redis::pipe().atomic().incr("key:1", 10).mget(&["key:0", "key:199"]).query_async(&mut con).await?;
    assert_eq!((sum, all), (12, vec![1, 200]));
    let script = redis::Script::new("return redis.call('MGET', unpack(KEYS))");
    let values: Vec<i64> = script.key("key:3").key("key:4").invoke_async(&mut con).await?;
    assert_eq!(values, [4, 5]);
    Ok(())
}
