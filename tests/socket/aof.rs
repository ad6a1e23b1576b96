//! The append-only log: written, loaded, rewritten, refused, and exchanged with redis-server.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Dir, Launch, Placement, Redis, Server, digest, everywhere, field, program, wait_until};
use crate::wire::{Conn, Value, bulk, ok};

/// Starts a server with a log in `dir`.
fn start(placement: Placement, dir: &Dir, more: &[&str]) -> Server {
    let words = ["--appendonly", "yes", "--save", "", "--rdb-version", "10"];
    placement.start_in(dir, &[&words[..], more].concat())
}

fn redis(dir: &Dir) -> Option<Redis> {
    let path = dir.0.to_str().unwrap();
    let redis = Redis::start(&["--dir", path, "--appendonly", "yes", "--enable-debug-command", "yes"])?;
    // It takes connections, and some commands, while it loads.
    wait_until("redis-server has loaded", || redis.connect().cmd("PING") == Value::Simple("PONG".into()));
    Some(redis)
}

fn rewrite(conn: &mut Conn) {
    let reply = conn.cmd("BGREWRITEAOF");
    assert_eq!(reply, Value::Simple("Background append only file rewriting started".into()));
    wait_until_rewritten(conn);
    assert_eq!(field(conn, "aof_last_bgrewrite_status"), "ok");
}

fn wait_until_rewritten(conn: &mut Conn) {
    let conn = std::cell::RefCell::new(conn);
    wait_until("the log is rewritten", || field(&mut conn.borrow_mut(), "aof_rewrite_in_progress") == "0");
}

fn stop(mut server: Server) {
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_for_end().code(), Some(0), "{}", server.log());
}

/// Ends Redis, its log written.
fn end_redis(redis: Redis) {
    let mut conn = redis.connect();
    conn.send(b"SHUTDOWN NOSAVE\r\n");
    conn.read_to_end();
}

fn manifest(dir: &Dir) -> String {
    fs::read_to_string(dir.join("appendonlydir/appendonly.aof.manifest")).unwrap()
}

/// Values of all types and sizes, in several databases, by commands of one key and of many; `round` makes them differ.
fn write(conn: &mut Conn, round: usize) {
    let long = "x".repeat(300);
    let lines = [
        format!("MSET a{round} 1 b{round} 2 c{round} {long} d{round} 4"),
        format!("RPUSH list{round} 1 2 3 {long}"),
        format!("RPOPLPUSH list{round} other{round}"),
        format!("SADD ints{round} 1 2 3"),
        format!("SADD set{round} a b {long}"),
        format!("SUNIONSTORE union{round} ints{round} set{round}"),
        format!("HSET hash{round} f 1 g {long}"),
        format!("HINCRBY hash{round} f 5"),
        format!("ZADD zset{round} 1.5 a -2 b 1e300 c"),
        format!("ZINCRBY zset{round} 0.1 a"),
        format!("XADD stream{round} 5-1 f v"),
        format!("XGROUP CREATE stream{round} g 0"),
        format!("XREADGROUP GROUP g me STREAMS stream{round} >"),
        format!("PFADD hll{round} a b c"),
        format!("SETBIT bits{round} 100 1"),
        format!("INCR count{round}"),
        format!("APPEND count{round} 5"),
        format!("RENAME a{round} moved{round}"),
        format!("SET gone{round} 1"),
        format!("DEL gone{round} b{round}"),
        format!("SET later{round} 1 EX 100000"),
        format!("EXPIRE d{round} 200000"),
        "MULTI".into(),
        format!("INCR t{round}"),
        format!("SADD u{round} x y"),
        format!("SPOP u{round}"),
        "EXEC".into(),
        format!("COPY c{round} copy{round} DB 3"),
        "SELECT 3".into(),
        format!("SET three{round} 3"),
        format!("MOVE three{round} 4"),
        "SELECT 0".into(),
    ];
    for line in lines {
        let reply = conn.cmd(&line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    let code = "redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], ARGV[1]) return 1";
    let keys = [format!("script:a{round}"), format!("script:b{round}")];
    assert_eq!(conn.call(&["EVAL", code, "2", &keys[0], &keys[1], "7"]).int(), 1);
}

#[test]
fn directories_are_exchanged_with_redis() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        write(&mut conn, 0);
        rewrite(&mut conn);
        write(&mut conn, 1);
        let written = digest(&mut conn);
        stop(server);
        let path = dir.join("appendonlydir/appendonly.aof.manifest");
        // Debian has it in a package of its own.
        if let Ok(checked) = Command::new("redis-check-aof").arg(&path).output() {
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(said.contains("All AOF files and manifest are valid"), "{said}");
        }
        let Some(redis) = redis(&dir) else { return };
        let mut there = redis.connect();
        assert_eq!(digest(&mut there), written);
        // Redis goes on in the last of the files, whoever owns the keys.
        write(&mut there, 2);
        let written = digest(&mut there);
        end_redis(redis);
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!(digest(&mut conn), written);
        write(&mut conn, 3);
        let written = digest(&mut conn);
        if placement.shards > 1 {
            server.wait_for_log("Background AOF rewrite finished successfully");
        }
        stop(server);
        // And with another number of shards.
        let server = start(Placement { shards: 3, ..placement }, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!(digest(&mut conn), written);
        assert_eq!(conn.cmd("DEBUG LOADAOF"), ok());
        assert_eq!(digest(&mut conn), written);
        server.wait_for_log("Background AOF rewrite finished successfully");
        drop(server);
        let Some(redis) = self::redis(&dir) else { return };
        assert_eq!(digest(&mut redis.connect()), written);
    });
}

#[test]
fn a_log_of_commands_alone_is_exchanged_too() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &["--aof-use-rdb-preamble", "no", "--aof-timestamp-enabled", "yes"]);
        let mut conn = server.connect();
        write(&mut conn, 0);
        for n in 0..300 {
            conn.cmd(&format!("RPUSH biglist {n}"));
            conn.cmd(&format!("ZADD bigzset {n}.25 m{n}"));
            conn.cmd(&format!("HSET bighash f{n} {n}"));
        }
        rewrite(&mut conn);
        let written = digest(&mut conn);
        let pending = conn.cmd("XPENDING stream0 g");
        stop(server);
        assert!(manifest(&dir).contains(".base.aof seq "), "{}", manifest(&dir));
        {
            let server = start(placement, &dir, &[]);
            let mut conn = server.connect();
            assert_eq!(digest(&mut conn), written);
            assert_eq!(conn.cmd("XPENDING stream0 g"), pending);
            let ttl = conn.cmd("TTL d0").int();
            assert!((100_000..=200_000).contains(&ttl), "{ttl}");
            stop(server);
        }
        let Some(redis) = redis(&dir) else { return };
        assert_eq!(digest(&mut redis.connect()), written);
    });
}

#[test]
fn an_old_file_is_moved_to_where_files_are_now() {
    everywhere(&[1, 2], |placement| {
        let dir = Dir::new();
        fs::write(dir.join("appendonly.aof"), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n").unwrap();
        let server = start(placement, &dir, &[]);
        assert_eq!(server.connect().cmd("GET k"), bulk("v"));
        assert!(server.log().contains("Successfully migrated an old-style AOF file"), "{}", server.log());
        assert!(manifest(&dir).starts_with("file appendonly.aof seq 1 type b\n"));
        stop(server);
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!(conn.cmd("GET k"), bulk("v"));
        rewrite(&mut conn);
        assert!(!dir.join("appendonlydir/appendonly.aof").exists(), "it counts no more");
    });
}

#[test]
fn what_redis_would_apply_wrongly_it_refuses() {
    let placement = Placement { event_loop: "epoll", shards: 4 };
    for line in ["FLUSHALL", "FLUSHDB", "SWAPDB 0 1"] {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        conn.cmd("MSET a 1 b 2 c 3 d 4 e 5");
        assert_eq!(conn.cmd(line), ok());
        conn.cmd("MSET f 1 g 2 h 3 i 4");
        let written = digest(&mut conn);
        stop(server);
        // Here it loads, with any number of shards.
        for shards in [4, 2] {
            let server = start(Placement { shards, ..placement }, &dir, &["--auto-aof-rewrite-percentage", "0"]);
            let mut conn = server.connect();
            assert_eq!(digest(&mut conn), written, "{line} with {shards} shards");
            if shards == 4 {
                let path = dir.0.to_str().unwrap();
                let copy = Dir::new();
                let copied = Command::new("cp").args(["-r", path, copy.0.to_str().unwrap()]).status().unwrap();
                assert!(copied.success());
                let inner = copy.0.join(dir.0.file_name().unwrap());
                let port = crate::harness::free_port().to_string();
                let args = ["--port", &port, "--save", "", "--appendonly", "yes", "--dir", inner.to_str().unwrap()];
                let Ok(output) = Command::new("redis-server").args(args).output() else { return };
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(said.contains("Unknown command 'RINGSHARD'"), "{said}");
            }
            stop(server);
        }
    }
}

#[test]
fn functions_come_back() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conns: Vec<Conn> = (0..6).map(|_| server.connect()).collect();
        for (n, conn) in conns.iter_mut().enumerate() {
            let code = format!("#!lua name=lib{n}\nredis.register_function('f{n}', function() return {n} end)");
            assert_eq!(conn.call(&["FUNCTION", "LOAD", &code]), bulk(format!("lib{n}")));
        }
        assert_eq!(conns[5].cmd("FUNCTION DELETE lib2"), ok());
        stop(server);
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!(conn.cmd("FUNCTION LIST").items().len(), 5);
        assert_eq!(conn.cmd("FCALL f5 0").int(), 5);
        assert!(matches!(conn.cmd("FCALL f2 0"), Value::Error(_)));
    });
}

/// The log of one shard, torn `bytes` before its end.
fn tear(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - bytes).unwrap();
}

#[test]
fn a_torn_log_is_cut_off_refused_or_repaired() {
    let dir = Dir::new();
    let placement = Placement { event_loop: "epoll", shards: 1 };
    let server = start(placement, &dir, &[]);
    let mut conn = server.connect();
    conn.pipeline(&["SET a 1".into(), "SET b 2".into()]);
    stop(server);
    let log = dir.join("appendonlydir/appendonly.aof.1.incr.aof");
    tear(&log, 3);
    let args = |more: &[&str]| -> Vec<String> {
        let words = ["--dir", dir.0.to_str().unwrap(), "--appendonly", "yes"];
        [&words[..], more].concat().into_iter().map(String::from).collect()
    };
    let (code, said) = Server::run_to_end(&args(&["--aof-load-truncated", "no"]));
    assert_eq!(code, Some(1));
    assert!(said.contains("Unexpected end of file reading the append only file"), "{said}");
    let check = |more: &[&str]| {
        use std::io::Write;
        let mut command = Command::new(program());
        command.args(["check", "aof"]).args(more).arg(dir.join("appendonlydir/appendonly.aof.manifest"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that asks nothing may have ended already.
        let _ = child.stdin.take().unwrap().write_all(b"y\n");
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, said) = check(&[]);
    assert!(!good && said.contains("is not valid. Use the --fix option to try fixing it."), "{said}");
    let (good, said) = check(&["--fix"]);
    assert!(good && said.contains("Successfully truncated AOF appendonly.aof.1.incr.aof"), "{said}");
    let (good, said) = check(&[]);
    assert!(good && said.contains("All AOF files and manifest are valid"), "{said}");
    let server = start(placement, &dir, &["--aof-load-truncated", "no"]);
    let mut conn = server.connect();
    assert_eq!((conn.cmd("GET a"), conn.cmd("EXISTS b").int()), (bulk("1"), 0));
    stop(server);
    // A log that is none is never loaded.
    fs::write(&log, "*1\r\n$3\r\nabcd\r\n").unwrap();
    let (code, said) = Server::run_to_end(&args(&[]));
    assert_eq!(code, Some(1));
    assert!(said.contains("Bad file format reading the append only file"), "{said}");
}

#[test]
fn a_command_over_shards_that_one_log_lacks_is_dropped_from_all() {
    everywhere(&[4], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
        let pairs = |n: usize| names.iter().map(|name| format!("{name} {n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(conn.cmd(&format!("MSET {}", pairs(1))), ok());
        assert_eq!(conn.cmd("SET alone 1"), ok());
        assert_eq!(conn.cmd(&format!("MSET {}", pairs(2))), ok());
        assert_eq!(conn.cmd("SET alone 2"), ok());
        stop(server);
        tear(&dir.join("appendonlydir/appendonly.aof.2.incr.aof"), 1);
        let server = start(placement, &dir, &[]);
        assert!(server.log().contains("another log has lost its part"), "{}", server.log());
        let mut conn = server.connect();
        let values = conn.cmd(&format!("MGET {}", names.join(" ")));
        assert!(values.items().iter().all(|value| *value == bulk("1")), "{values:?}");
        assert_eq!(conn.cmd("GET alone"), bulk("1"), "what stood behind it went too");
        // What was cut off is gone from the files as well.
        drop(server);
        let server = start(placement, &dir, &["--aof-load-truncated", "no"]);
        assert_eq!(server.connect().cmd("GET k0"), bulk("1"));
    });
}

#[test]
fn the_log_is_turned_on_and_off() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let path = dir.0.to_str().unwrap();
        let words = ["--dir", path, "--save", "", "--enable-debug-command", "yes"];
        let server = placement.start(&words);
        let mut conn = server.connect();
        write(&mut conn, 0);
        assert_eq!(conn.cmd("WAITAOF 0 0 0").items().len(), 2);
        assert!(matches!(conn.cmd("WAITAOF 1 0 0"), Value::Error(_)));
        assert_eq!(conn.cmd("CONFIG SET appendonly yes"), ok());
        wait_until_rewritten(&mut conn);
        assert_eq!(field(&mut conn, "aof_enabled"), "1");
        write(&mut conn, 1);
        assert_eq!(conn.cmd("WAITAOF 1 0 0").items()[0].int(), 1);
        // Under `no` nothing is synced before the time is out.
        assert_eq!(conn.cmd("CONFIG SET appendfsync no"), ok());
        conn.cmd("SET unsynced 1");
        assert_eq!(conn.cmd("WAITAOF 1 0 10").items()[0].int(), 0);
        assert_eq!(conn.cmd("CONFIG SET appendfsync always"), ok());
        conn.cmd("SET synced 1");
        assert_eq!(conn.cmd("WAITAOF 1 0 0").items()[0].int(), 1);
        let written = digest(&mut conn);
        assert_eq!(conn.cmd("CONFIG SET appendonly no"), ok());
        let mut conn = server.connect();
        wait_until("the log is off", || field(&mut server.connect(), "aof_enabled") == "0");
        conn.cmd("SET unlogged 1");
        drop(server);
        let server = start(placement, &dir, &[]);
        assert_eq!(digest(&mut server.connect()), written);
    });
}

/// What is said while data is loaded counts when all is loaded: the log ends, or begins with what was loaded.
#[test]
fn the_log_is_turned_on_and_off_while_data_is_loaded() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        conn.cmd("DEBUG POPULATE 20000 key 100");
        rewrite(&mut conn);
        assert_eq!(conn.cmd("SAVE"), ok());
        stop(server);
        for (before, after) in [("yes", "no"), ("no", "yes")] {
            let words =
                ["--dir", dir.0.to_str().unwrap(), "--save", "", "--key-load-delay", "50", "--appendonly", before];
            let port = crate::harness::free_port();
            let mut server = Launch::new(&[placement.args(), words.map(String::from).to_vec()].concat()).spawn(port);
            server.wait_for_log("Server initialized");
            wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            let mut conn = server.connect();
            assert_eq!(field(&mut conn, "loading"), "1");
            assert_eq!(conn.cmd(&format!("CONFIG SET appendonly {after}")), ok());
            assert_eq!(field(&mut conn, "loading"), "1");
            server.wait_until_ready();
            assert_eq!(conn.cmd("DBSIZE").int(), 20_000);
            assert_eq!(field(&mut conn, "aof_enabled"), if after == "yes" { "1" } else { "0" });
            assert_eq!(conn.cmd("SET written after"), ok());
            if after == "yes" {
                // It begins with the next time event, and before its end the server does not go.
                server.wait_for_log("Background AOF rewrite terminated with success");
            }
            stop(server);
        }
        let server = start(placement, &dir, &[]);
        assert_eq!(server.connect().cmd("GET written"), bulk("after"));
        assert_eq!(server.connect().cmd("DBSIZE").int(), 20_001);
    });
}

/// Lets a server's files grow to so many bytes.
fn limit_files(pid: u32, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid argument; the old limit is not asked for.
    assert_eq!(unsafe { libc::prlimit(pid as i32, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) }, 0);
}

fn start_limited(placement: Placement, dir: &Dir, fsync: &str) -> Server {
    let words = ["--dir", dir.0.to_str().unwrap(), "--appendonly", "yes", "--appendfsync", fsync, "--save", ""];
    let mut launch = Launch::new(&[placement.args(), words.map(String::from).to_vec()].concat());
    // A write beyond the limit is to fail, and not to kill.
    launch.before_exec = Some(Box::new(|| {
        // SAFETY: one system call.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(())
    }));
    launch.start()
}

#[test]
fn a_full_disk_stops_writes_until_there_is_room() {
    everywhere(&[1, 2], |placement| {
        let dir = Dir::new();
        let server = start_limited(placement, &dir, "everysec");
        let mut conn = server.connect();
        assert_eq!(conn.cmd("SET a 1"), ok());
        // The log that comes to the console has to fit too.
        limit_files(server.pid(), 20_000);
        let value = "x".repeat(30_000);
        conn.call(&["SET", "a", &value]);
        conn.call(&["SET", "b", &value]);
        wait_until("writes are refused", || {
            let reply = server.connect().cmd("SET c 1");
            reply != ok() && reply.error().starts_with("MISCONF Errors writing to the AOF file: ")
        });
        assert_eq!(conn.call(&["GET", "a"]), bulk(&value));
        assert_eq!(field(&mut conn, "aof_last_write_status"), "err");
        limit_files(server.pid(), libc::RLIM_INFINITY);
        wait_until("writes are taken", || server.connect().cmd("SET c 2") == ok());
        assert_eq!(field(&mut conn, "aof_last_write_status"), "ok");
        assert_eq!(conn.cmd("WAITAOF 1 0 0").items()[0].int(), 1);
        drop(server);
        let server = start(placement, &dir, &["--aof-load-truncated", "no"]);
        let mut conn = server.connect();
        assert_eq!((conn.cmd("GET a"), conn.cmd("GET c")), (bulk(&value), bulk("2")));
    });
}

#[test]
fn under_always_a_write_that_fails_ends_the_server_before_its_reply() {
    everywhere(&[1, 2], |placement| {
        let dir = Dir::new();
        let mut server = start_limited(placement, &dir, "always");
        let mut conn = server.connect();
        assert_eq!(conn.cmd("SET a 1"), ok());
        limit_files(server.pid(), 20_000);
        conn.send(&crate::wire::encode(&["SET", "a", &"x".repeat(30_000)]));
        assert_eq!(conn.read_to_end(), b"", "nothing was acknowledged");
        assert_eq!(server.wait_for_end().code(), Some(1));
        assert!(server.log().contains("AOF fsync policy is 'always'. Exiting..."), "{}", server.log());
        let server = start(placement, &dir, &[]);
        assert_eq!(server.connect().cmd("GET a"), bulk("1"));
    });
}

#[test]
fn a_directory_that_is_gone_fails_a_rewrite_and_nothing_else() {
    everywhere(&[2], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!(conn.cmd("SET a 1"), ok());
        let (there, away) = (dir.join("appendonlydir"), dir.join("away"));
        fs::rename(&there, &away).unwrap();
        let reply = conn.cmd("BGREWRITEAOF");
        assert!(reply.error().starts_with("ERR Can't execute an AOF background rewriting."), "{reply:?}");
        assert_eq!(field(&mut conn, "aof_last_bgrewrite_status"), "err");
        assert_eq!(conn.cmd("SET b 2"), ok());
        fs::rename(&away, &there).unwrap();
        rewrite(&mut conn);
        drop(server);
        let server = start(placement, &dir, &[]);
        let mut conn = server.connect();
        assert_eq!((conn.cmd("GET a"), conn.cmd("GET b")), (bulk("1"), bulk("2")));
    });
}

#[test]
fn a_log_that_has_grown_is_rewritten_by_itself() {
    everywhere(&[2], |placement| {
        let dir = Dir::new();
        let server = start(placement, &dir, &["--auto-aof-rewrite-min-size", "20kb"]);
        let mut conn = server.connect();
        let value = "x".repeat(100);
        for n in 0..1000 {
            conn.call(&["SET", &format!("k{}", n % 7), &value]);
        }
        server.wait_for_log("Starting automatic rewriting of AOF on ");
        server.wait_for_log("Background AOF rewrite finished successfully");
        assert!(field(&mut conn, "aof_base_size").parse::<u64>().unwrap() > 0);
    });
}
