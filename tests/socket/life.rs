//! How the server ends, and what it does when there is nothing to do.

use std::ffi::CString;
use std::fs;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::harness::{Dir, Launch, Server, everywhere, wait_until};
use crate::wire::{Value, encode, ok};

#[test]
fn signals_end_it_in_good_order() {
    everywhere(&[1, 4], |placement| {
        for (signal, line) in [
            (libc::SIGTERM, "Received SIGTERM scheduling shutdown..."),
            (libc::SIGINT, "Received SIGINT scheduling shutdown..."),
        ] {
            let mut server = placement.start(&[]);
            // Clients in all states: idle, busy, and with half a request sent.
            let mut conns: Vec<_> = (0..8).map(|_| server.connect()).collect();
            for conn in &mut conns {
                assert_eq!(conn.cmd("MSET a 1 b 2 c 3 d 4"), ok());
            }
            conns[0].send(b"*2\r\n$3\r\nGE");
            server.signal(signal);
            assert_eq!(server.wait_for_end().code(), Some(0), "{}", server.log());
            let log = server.log();
            for text in [line, "User requested shutdown...", "is now ready to exit, bye bye..."] {
                assert!(log.contains(text), "{text} is not in the log:\n{log}");
            }
            for mut conn in conns {
                assert_eq!(conn.read_to_end(), b"");
            }
        }
    });
}

/// Redis closes what it listens on before it exits. Here clients' connections were closed first, and who came back at once
/// was let in by a server that had ended, and cut off.
#[test]
fn nobody_listens_when_connections_close_at_the_end() {
    everywhere(&[1, 4], |placement| {
        for script in [false, true] {
            let mut server = placement.start(&["--busy-reply-threshold", "10"]);
            let (mut conn, mut busy) = (server.connect(), server.connect());
            if script {
                busy.send(&encode(&["EVAL", "while true do end", "0"]));
                wait_until("the script is slow", || matches!(server.connect().cmd("PING"), Value::Error(_)));
            }
            conn.send(&encode(&["SHUTDOWN", "NOSAVE"]));
            conn.read_to_end();
            let late = TcpStream::connect(("127.0.0.1", server.port));
            assert!(late.is_err(), "it listens, {placement:?}");
            assert_eq!(server.wait_for_end().code(), Some(0), "{}", server.log());
        }
    });
}

#[test]
fn log_lines_have_the_form_of_redis() {
    let server = Server::start(&["--shards", "2"].map(String::from));
    let log = server.log();
    let line = log.lines().find(|line| line.contains("Ready to accept connections")).unwrap();
    // 1234:M 05 Jan 2026 12:34:56.789 * Ready to accept connections
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], format!("{}:M", server.pid()));
    let digits = |word: &str, count: usize| word.len() == count && word.bytes().all(|b| b.is_ascii_digit());
    assert!(digits(words[1], 2) && words[2].len() == 3 && digits(words[3], 4), "{line}");
    let form: String = words[4].chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(form, "99:99:99.999", "{line}");
    assert_eq!(words[5], "*", "{line}");
}

#[test]
fn sighup_and_broken_pipes_do_not_end_it() {
    everywhere(&[4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        server.signal(libc::SIGHUP);
        server.signal(libc::SIGPIPE);
        // Clients that ask for much and leave at once.
        for _ in 0..50 {
            let mut rude = server.connect();
            assert_eq!(rude.call(&["SET", "k", &"x".repeat(200_000)]), ok());
            rude.send(&b"GET k\r\n".repeat(20));
        }
        assert_eq!(conn.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn an_idle_server_leaves_the_cpu_alone() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let conns: Vec<_> = (0..4).map(|_| server.connect()).collect();
        std::thread::sleep(Duration::from_millis(300));
        let before = server.cpu_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let used = server.cpu_ticks() - before;
        // A loop that spins uses 100 of them on one core; time events ten times a second use none that shows.
        assert!(used <= 10, "{used}/100 s of CPU in one second of idling");
        drop(conns);
    });
}

#[test]
fn help_and_version_are_printed() {
    let run = |word: &str| {
        let out = std::process::Command::new(crate::harness::program()).arg(word).output().unwrap();
        assert!(out.status.success(), "{word}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(run("--version").contains(env!("CARGO_PKG_VERSION")));
    assert!(run("--help").contains("ringshard [/path/to/redis.conf] [--directive value ...] [-]"));
}

#[test]
fn a_bad_directive_is_named_with_its_line() {
    let (code, log) = Server::run_to_end(&["--no-such-directive", "1"].map(String::from));
    assert_eq!(code, Some(1), "{log}");
    for text in ["*** FATAL CONFIG FILE ERROR", "Reading the configuration file, at line", "no-such-directive"] {
        assert!(log.contains(text), "{log}");
    }
    assert!(log.contains("Bad directive or wrong number of arguments"), "{log}");
}

/// A file that takes its time: once every turn of the loop that waited for it kept a waker, and after a second or two
/// the count of them overflowed and ended the process.
#[test]
fn a_slow_file_holds_up_no_one_and_harms_nothing() {
    everywhere(&[1, 2], |placement| {
        let dir = Dir::new();
        let path = dir.join("slow.conf");
        fs::write(&path, "hz 11\n").unwrap();
        let server = Launch { config_file: Some(path.clone()), ..Launch::new(&placement.args()) }.start();
        // What reads a FIFO waits until somebody writes to it.
        fs::remove_file(&path).unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a plain system call with a string that ends.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut rewriting = server.connect();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            fs::write(&path, "hz 12\n").unwrap();
        });
        assert_eq!(rewriting.cmd("CONFIG REWRITE"), ok());
        writer.join().unwrap();
        assert_eq!(server.connect().cmd("PING"), Value::Simple("PONG".into()));
        assert!(fs::read_to_string(dir.join("slow.conf")).unwrap().contains("hz 11"));
    });
}

/// `ps` shows the template filled in; the environment, in whose place a long title lies, is still there.
#[test]
fn the_process_has_a_title() {
    let title = |server: &Server| {
        let bytes = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
        String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap()).into_owned()
    };
    let server = Server::start(&[]);
    let port = server.port;
    let shown = title(&server);
    assert!(shown.ends_with(&format!("ringshard *:{port}")), "{shown}");
    let mut conn = server.connect();
    let long = "x".repeat(200);
    for (template, expected) in
        [("{port} {config-file}", format!("{port} -")), (&long[..], long.clone()), ("t", "t".into())]
    {
        assert_eq!(conn.call(&["CONFIG", "SET", "proc-title-template", template]), ok());
        assert_eq!(title(&server), expected);
    }
    let refused = format!("{:?}", conn.call(&["CONFIG", "SET", "proc-title-template", "{none}"]));
    assert!(refused.contains("template format is invalid"), "{refused}");
    let plain = Server::start(&["--set-proc-title", "no"].map(String::from));
    assert!(title(&plain).ends_with("ringshard"));
}
