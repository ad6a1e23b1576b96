//! What signals do: reports of crashes, threads on SIGALRM, the kernel's score.

use std::fs;

use crate::harness::everywhere;
use crate::wire::ok;

#[test]
fn a_fatal_signal_leaves_a_report() {
    everywhere(&[1, 4], |placement| {
        for signal in [libc::SIGABRT, libc::SIGSEGV] {
            let mut server = placement.start(&[]);
            server.expect_crash();
            server.signal(signal);
            assert_eq!(server.wait_for_end().code(), None, "it ends by the signal");
            let log = server.log();
            assert!(log.contains(&format!("crashed by signal: {signal}, si_code: 0")), "{log}");
            assert!(log.contains(&format!("Killed by PID: {}, UID: ", std::process::id())), "{log}");
            assert!(log.contains("STACK TRACE DONE") && log.matches("BUG REPORT START").count() == 1, "{log}");
        }
        let mut server = placement.start(&["--crash-log-enabled", "no"]);
        server.signal(libc::SIGABRT);
        assert_eq!(server.wait_for_end().code(), None);
        assert!(!server.log().contains("crashed by signal"));
    });
}

#[test]
fn sigalrm_lists_threads_and_ends_nothing() {
    everywhere(&[4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        server.signal(libc::SIGALRM);
        server.wait_for_log("Received SIGALRM");
        (0..placement.threads()).for_each(|shard| server.wait_for_log(&format!("'shard-{shard}': state ")));
        assert_eq!(conn.cmd("SET k v"), ok());
    });
}

#[test]
fn the_kernels_score_follows_the_directives() {
    everywhere(&[1], |placement| {
        let server = placement.start(&["--oom-score-adj-values", "7 20 30"]);
        let mut conn = server.connect();
        let path = format!("/proc/{}/oom_score_adj", server.pid());
        let score = || fs::read_to_string(&path).unwrap().trim().parse::<i32>().unwrap();
        let base = score();
        for (value, expected) in [("yes", (base + 7).min(1000)), ("absolute", 7.max(base)), ("no", base)] {
            // Without privileges it can only be raised.
            let reply = conn.call(&["CONFIG", "SET", "oom-score-adj", value]);
            if value == "absolute" && base > 7 {
                continue;
            }
            assert_eq!(reply, ok(), "{value}");
            assert_eq!(score(), expected, "{value}");
        }
    });
}

#[test]
fn what_a_signal_does_can_be_changed_while_the_server_runs() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--shutdown-on-sigterm", "force"]);
        let mut conn = server.connect();
        conn.cmd("CONFIG SET shutdown-on-sigterm default rdb-key-save-delay 10000000");
        (0..10).for_each(|i| drop(conn.cmd(&format!("SET key{i} v"))));
        assert_eq!(conn.cmd("CONFIG SET appendonly yes"), ok());
        server.wait_for_log("Background append only file rewriting started");
        server.signal(libc::SIGTERM);
        server.wait_for_log("Writing initial AOF, can't exit");
        assert_eq!(conn.cmd("SET k v"), ok());
        conn.cmd("CONFIG SET rdb-key-save-delay 0");
    });
}
