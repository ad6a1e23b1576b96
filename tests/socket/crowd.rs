//! Ten thousand connections at once, each of them answered.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::everywhere;
use crate::wire::{Value, encode};

const WANTED: u64 = 10_000;

/// Raises this process's limit of open files, and returns how many connections fit.
fn connections_possible() -> u64 {
    /// What the test's process needs beside them, other tests' servers and connections included.
    const OTHERS: u64 = 500;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid places for the result and the argument.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
    }
    let possible = limit.rlim_cur.saturating_sub(OTHERS).min(WANTED);
    if possible < WANTED {
        eprintln!(
            "scaled down: {possible} connections instead of {WANTED}, for the limit of open files is {}",
            limit.rlim_cur
        );
    }
    possible
}

#[test]
fn ten_thousand_connections_are_all_answered() {
    let count = connections_possible();
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--maxclients", &(count + 10).to_string(), "--tcp-backlog", "4096"]);
        assert_eq!(server.connect().cmd("SET shared v"), Value::Simple("OK".into()));
        let mut streams: Vec<TcpStream> = (0..count)
            .map(|i| match TcpStream::connect(("127.0.0.1", server.port)) {
                Ok(stream) => stream,
                Err(error) => panic!("connection {i}: {error}"),
            })
            .collect();
        // All of them ask before any is read, so that all replies are under way at once; twice, so that a connection
        // is known to go on.
        for round in 0..2 {
            for (i, stream) in streams.iter_mut().enumerate() {
                let key = format!("k{}", i % 100);
                let request = [encode(&["SET", &key, "w"]), encode(&["GET", "shared"])].concat();
                stream.write_all(&request).unwrap_or_else(|error| panic!("connection {i}, round {round}: {error}"));
            }
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
                let mut reply = [0; 12];
                stream.read_exact(&mut reply).unwrap_or_else(|error| panic!("connection {i}, round {round}: {error}"));
                assert_eq!(&reply, b"+OK\r\n$1\r\nv\r\n", "connection {i}, round {round}");
            }
        }
        let clients = server.connect().cmd("CLIENT LIST");
        let lines = clients.bytes().iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!(lines, count + 1);
    });
}
