//! Snapshots as files: written, loaded, refused, and exchanged with redis-server.

use std::fs;
use std::process::Command;

use crate::harness::{Dir, Placement, Redis, Server, digest, everywhere, field, program, wait_until};
use crate::wire::{Conn, bulk, ok};

const GOLDEN: &[u8] = include_bytes!("../golden/redis-7.0.15.rdb");
const GOLDEN_DIGEST: &str = include_str!("../golden/redis-7.0.15.digest");

fn wait_until_saved(conn: &mut Conn) {
    let conn = std::cell::RefCell::new(conn);
    wait_until("the snapshot is written", || field(&mut conn.borrow_mut(), "rdb_bgsave_in_progress") == "0");
}

#[test]
fn a_file_of_redis_loads_into_any_number_of_shards() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        fs::write(dir.join("dump.rdb"), GOLDEN).unwrap();
        let server = placement.start_in(&dir, &[]);
        let mut conn = server.connect();
        assert_eq!(digest(&mut conn), GOLDEN_DIGEST.trim());
        assert_eq!(conn.cmd("OBJECT ENCODING set:small"), bulk("listpack"));
        assert_eq!(conn.cmd("PEXPIRETIME expires").int(), 4_102_444_800_000);
        assert_eq!(conn.cmd("XINFO GROUPS stream").items()[0].items()[1], bulk("group"));
        assert_eq!(conn.cmd("XPENDING stream group").items()[0].int(), 4);
        assert!(server.log().contains("Done loading RDB, keys loaded: 17, keys expired: 0, empty keys skipped: 0."));
    });
}

#[test]
fn what_was_saved_is_there_after_a_kill() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        fs::write(dir.join("dump.rdb"), GOLDEN).unwrap();
        let mut server = placement.start_in(&dir, &[]);
        let mut conn = server.connect();
        assert_eq!(conn.cmd("SET more 1"), ok());
        let saved = digest(&mut conn);
        conn.cmd("BGSAVE");
        assert_eq!(conn.cmd("SET later 1"), ok());
        wait_until_saved(&mut conn);
        assert_eq!(field(&mut conn, "rdb_last_bgsave_status"), "ok");
        server.signal(libc::SIGKILL);
        server.wait_for_end();
        // Whatever the number of shards that wrote it.
        let other = Placement { shards: 3, ..placement };
        let server = other.start_in(&dir, &[]);
        let mut conn = server.connect();
        assert_eq!(digest(&mut conn), saved);
        assert_eq!(conn.cmd("DEBUG RELOAD"), ok());
        assert_eq!(digest(&mut conn), saved);
        let names: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["dump.rdb"], "nothing temporary is left");
    });
}

#[test]
fn a_signal_saves_first_and_nosave_does_not() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        for (value, how) in [("1", "TERM"), ("2", "SHUTDOWN SAVE"), ("3", "SHUTDOWN NOSAVE")] {
            let mut server = placement.start_in(&dir, &["--save", "3600 1"]);
            let mut conn = server.connect();
            assert_eq!(conn.cmd(&format!("SET k {value}")), ok());
            match how {
                "TERM" => server.signal(libc::SIGTERM),
                line => conn.send(&crate::wire::encode(&crate::wire::words(line))),
            }
            assert_eq!(server.wait_for_end().code(), Some(0), "{how}: {}", server.log());
        }
        let server = placement.start_in(&dir, &[]);
        assert_eq!(server.connect().cmd("GET k"), bulk("2"));
    });
}

#[test]
fn redis_loads_what_is_written_here() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        fs::write(dir.join("dump.rdb"), GOLDEN).unwrap();
        let server = placement.start_in(&dir, &["--rdb-version", "10"]);
        assert_eq!(server.connect().cmd("SAVE"), ok());
        drop(server);
        let path = dir.0.to_str().unwrap();
        let Some(redis) = Redis::start(&["--dir", path, "--enable-debug-command", "yes"]) else { return };
        assert_eq!(digest(&mut redis.connect()), GOLDEN_DIGEST.trim());
    });
}

#[test]
fn dumps_are_exchanged_with_redis() {
    let Some(redis) = Redis::start(&["--enable-debug-command", "yes"]) else { return };
    everywhere(&[2], |placement| {
        let dir = Dir::new();
        fs::write(dir.join("dump.rdb"), GOLDEN).unwrap();
        let server = placement.start_in(&dir, &["--rdb-version", "10"]);
        let (mut here, mut there) = (server.connect(), redis.connect());
        let keys: Vec<Vec<u8>> = here.cmd("KEYS *").items().iter().map(|key| key.bytes().to_vec()).collect();
        assert_eq!(keys.len(), 16, "those of database 0");
        for key in keys {
            let value_of = |conn: &mut Conn| conn.call(&[b"DEBUG", &b"DIGEST-VALUE"[..], &key]);
            let payload = here.call(&[b"DUMP", &key[..]]);
            let ttl = if key == b"expires" { "1000000" } else { "0" };
            let restored = there.call(&[b"RESTORE", &key[..], ttl.as_bytes(), payload.bytes(), b"REPLACE"]);
            assert_eq!(restored, ok(), "{}", String::from_utf8_lossy(&key));
            assert_eq!(value_of(&mut here), value_of(&mut there), "{}", String::from_utf8_lossy(&key));
            let payload = there.call(&[b"DUMP", &key[..]]);
            let restored = here.call(&[b"RESTORE", &key[..], ttl.as_bytes(), payload.bytes(), b"REPLACE"]);
            assert_eq!(restored, ok());
            assert_eq!(value_of(&mut here), value_of(&mut there), "{}", String::from_utf8_lossy(&key));
        }
    });
}

#[test]
fn broken_files_are_refused_with_place_and_reason() {
    let dir = Dir::new();
    let mut checksum = GOLDEN.to_vec();
    *checksum.last_mut().unwrap() ^= 1;
    let mut newer = GOLDEN.to_vec();
    newer[5..9].copy_from_slice(b"0099");
    let cases: [(&[u8], &str); 4] = [
        (&checksum, "RDB CRC error"),
        (&newer, "Can't handle RDB format version 99"),
        (&GOLDEN[..GOLDEN.len() / 2], "Unexpected EOF reading RDB file"),
        (b"no snapshot at all", "Wrong signature trying to load DB from file"),
    ];
    for (bytes, reason) in cases {
        fs::write(dir.join("dump.rdb"), bytes).unwrap();
        let args = ["--dir", dir.0.to_str().unwrap(), "--shards", "2"].map(String::from);
        let (code, log) = Server::run_to_end(&args);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("Internal error in RDB reading offset ") && log.contains(reason), "{log}");
        assert!(log.trim_end().ends_with("Fatal error loading the DB, check server logs. Exiting."), "{log}");
        let check = Command::new(program()).args(["check", "rdb"]).arg(dir.join("dump.rdb")).output().unwrap();
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert_eq!(check.status.code(), Some(1));
        assert!(said.contains("--- RDB ERROR DETECTED ---") && said.contains(reason), "{said}");
    }
    fs::write(dir.join("dump.rdb"), GOLDEN).unwrap();
    let check = Command::new(program()).args(["check", "rdb"]).arg(dir.join("dump.rdb")).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && said.contains("RDB looks OK!") && said.contains("[info] 17 keys read"), "{said}");
}

#[test]
fn clients_are_told_that_the_data_is_being_loaded() {
    everywhere(&[2], |placement| {
        let dir = Dir::new();
        let server = placement.start_in(&dir, &[]);
        let mut conn = server.connect();
        conn.cmd("DEBUG POPULATE 20000 key 100");
        assert_eq!(conn.cmd("SAVE"), ok());
        drop((conn, server));
        let files = ["--dir", dir.0.to_str().unwrap(), "--key-load-delay", "100"].map(String::from);
        let port = crate::harness::free_port();
        let mut server = crate::harness::Launch::new(&[placement.args(), files.to_vec()].concat()).spawn(port);
        server.wait_for_log("Server initialized");
        wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut conn = server.connect();
        let reply = conn.cmd("GET key:1");
        assert_eq!(reply.error(), "LOADING Redis is loading the dataset in memory");
        assert_eq!(field(&mut conn, "loading"), "1");
        let total = || field(&mut server.connect(), "loading_total_bytes").parse::<u64>().unwrap();
        wait_until("the file is being read", || total() > 100_000);
        server.wait_until_ready();
        assert_eq!(conn.cmd("DBSIZE").int(), 20_000);
        assert_eq!(field(&mut conn, "loading"), "0");
    });
}

#[test]
fn a_directory_that_cannot_be_written_stops_writes_and_keeps_the_last_file() {
    everywhere(&[2], |placement| {
        let dir = Dir::new();
        let server = placement.start_in(&dir, &["--save", "3600 1"]);
        let mut conn = server.connect();
        assert_eq!(conn.cmd("SET k 1"), ok());
        fs::remove_dir(&dir.0).unwrap();
        conn.cmd("BGSAVE");
        wait_until_saved(&mut conn);
        assert_eq!(field(&mut conn, "rdb_last_bgsave_status"), "err");
        assert!(server.log().contains("Failed opening the temp RDB file"), "{}", server.log());
        wait_until("writes are refused", || {
            let reply = server.connect().cmd("SET k 2");
            reply != ok() && reply.error().starts_with("MISCONF")
        });
        assert_eq!(conn.cmd("GET k"), bulk("1"));
        assert_eq!(conn.cmd("SHUTDOWN").error(), "ERR Errors trying to SHUTDOWN. Check logs.");
        fs::create_dir(&dir.0).unwrap();
        conn.cmd("BGSAVE");
        wait_until_saved(&mut conn);
        wait_until("writes are taken", || server.connect().cmd("SET k 2") == ok());
    });
}
