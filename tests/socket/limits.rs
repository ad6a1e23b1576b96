//! Clients that ask for too much: too many of them, readers that never read, and idlers.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{everywhere, wait_until};
use crate::wire::{Conn, Value, bulk, encode, ok};

#[test]
fn a_client_that_never_reads_is_cut_while_others_go_on() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--client-output-buffer-limit", "normal 2mb 0 0"]);
        let mut bystander = server.connect();
        // Keys for every shard, so that replies come from home and over hops.
        for k in 0..8 {
            assert_eq!(bystander.call(&["SET", &format!("k{k}"), &"x".repeat(100_000)]), ok());
        }
        let mut greedy = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        greedy.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // 800 MB of replies if all of them were made.
        let requests: Vec<u8> = (0..8000).flat_map(|i| encode(&["GET", &format!("k{}", i % 8)])).collect();
        for part in requests.chunks(4096) {
            if greedy.write_all(part).is_err() {
                break;
            }
            assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()));
        }
        server.wait_for_log("overcoming of output buffer limits");
        let mut greedy = Conn::tcp(greedy);
        let got = greedy.read_to_end().len();
        // What was sent is what the kernel's buffers held, not all that was asked for.
        assert!(got < 100 << 20, "{got} bytes arrived");
        let most = server.status_field("VmHWM");
        assert!(most < 400 << 10, "{most} KiB were in use");
        assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn a_soft_limit_cuts_after_its_time() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--client-output-buffer-limit", "normal 0 1mb 1"]);
        let mut bystander = server.connect();
        assert_eq!(bystander.call(&["SET", "k", &"x".repeat(1 << 20)]), ok());
        let mut greedy = server.connect();
        greedy.send(&encode(&["GET", "k"]).repeat(40));
        server.wait_for_log("overcoming of output buffer limits");
        greedy.read_to_end();
        assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn a_query_beyond_its_limit_closes_the_client() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--client-query-buffer-limit", "1mb"]);
        let mut bystander = server.connect();
        let mut greedy = server.connect();
        let _ = greedy.try_send(b"*2\r\n$3\r\nGET\r\n$100000000\r\n");
        for _ in 0..64 {
            if greedy.try_send(&[b'x'; 64 * 1024]).is_err() {
                break;
            }
        }
        greedy.read_to_end();
        assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()));
    });
}

#[test]
fn clients_beyond_maxclients_are_turned_away() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--maxclients", "5"]);
        let mut clients: Vec<Conn> = (0..5).map(|_| server.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.cmd("PING"), Value::Simple("PONG".into()));
        }
        for _ in 0..3 {
            let mut extra = server.connect();
            assert_eq!(extra.read_to_end(), b"-ERR max number of clients reached\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.cmd("PING"), Value::Simple("PONG".into()));
        }
        // A place that was left is given away again.
        clients.pop();
        wait_until("a place is free", || {
            let mut conn = server.connect();
            let _ = conn.try_send(&encode(&["PING"]));
            conn.try_read().is_ok_and(|(reply, _)| reply == Value::Simple("PONG".into()))
        });
    });
}

#[test]
fn idle_clients_are_closed_after_timeout() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--timeout", "1"]);
        let started = Instant::now();
        let mut idle = server.connect();
        assert_eq!(idle.cmd("PING"), Value::Simple("PONG".into()));
        let mut busy = server.connect();
        let closed = std::thread::spawn(move || {
            idle.read_to_end();
            started.elapsed()
        });
        while !closed.is_finished() {
            assert_eq!(busy.cmd("PING"), Value::Simple("PONG".into()));
            std::thread::sleep(Duration::from_millis(100));
        }
        let after = closed.join().unwrap();
        assert!(after >= Duration::from_secs(1), "closed after {after:?}");
        assert_eq!(busy.cmd("PING"), Value::Simple("PONG".into()));
    });
}

/// The timer of a connected socket, as `/proc/net/tcp` shows it: its kind, and the time to its end in 1/100 s.
fn timer_of(server_port: u16, client_port: u16) -> (u8, u64) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = format!(" 0100007F:{server_port:04X} 0100007F:{client_port:04X} ");
    let line = table.lines().find(|line| line.contains(&ends)).expect("the connection is listed");
    let timer = line.split_ascii_whitespace().nth(5).unwrap();
    let (kind, when) = timer.split_once(':').unwrap();
    (u8::from_str_radix(kind, 16).unwrap(), u64::from_str_radix(when, 16).unwrap())
}

#[test]
fn tcp_keepalive_is_set_on_connections() {
    if !std::path::Path::new("/proc/net/tcp").exists() {
        eprintln!("skipped: tcp-keepalive, for there is no /proc/net/tcp to read sockets' timers from");
        return;
    }
    const KEEPALIVE: u8 = 2;
    everywhere(&[1, 4], |placement| {
        for (seconds, armed) in [(77u64, true), (0, false)] {
            let server = placement.start(&["--tcp-keepalive", &seconds.to_string()]);
            let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            let client_port = stream.local_addr().unwrap().port();
            let mut conn = Conn::tcp(stream);
            assert_eq!(conn.call(&["SET", "k", "v"]), ok());
            assert_eq!(conn.cmd("GET k"), bulk("v"));
            // A delayed acknowledgement is shown in the same place, until it has left.
            wait_until("the timer is as set", || {
                let (kind, when) = timer_of(server.port, client_port);
                match armed {
                    true => kind == KEEPALIVE && when > (seconds - 20) * 100 && when <= seconds * 100 + 100,
                    false => kind != KEEPALIVE || when == 0,
                }
            });
        }
    });
}
