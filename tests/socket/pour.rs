//! Clients that pour in requests without a pause: more than a loop takes of one client in a turn.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::harness::{Server, everywhere, wait_until};
use crate::wire::{Conn, Value, bulk, encode};

const REQUESTS: i64 = 20_000;

/// Every so many requests, one with a large argument stands between.
const LARGE_EVERY: i64 = 2_000;

fn large() -> String {
    "0123456789abcdef".repeat(20_000)
}

/// Sends it all from a thread of its own, so that nobody waits for the replies to be read.
fn pour(server: &Server, key: String, end: bool) -> (Conn, std::thread::JoinHandle<()>) {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
    let mut sender = stream.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        let large = encode(&["ECHO", &large()]);
        let mut bytes = Vec::new();
        for n in 1..=REQUESTS {
            bytes.extend(encode(&["INCR", &key]));
            if n % LARGE_EVERY == 0 {
                bytes.extend_from_slice(&large);
            }
        }
        sender.write_all(&bytes).expect("the server reads on");
        if end {
            sender.shutdown(Shutdown::Write).expect("an open connection");
        }
    });
    (Conn::tcp(stream), sending)
}

#[test]
fn all_of_it_is_answered_in_order_while_others_are_served() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let pours: Vec<_> = (0..3).map(|n| pour(&server, format!("poured{n}"), false)).collect();
        let mut other = server.connect();
        let large = bulk(large());
        let readers: Vec<_> = pours
            .into_iter()
            .map(|(mut conn, sending)| {
                let large = large.clone();
                std::thread::spawn(move || {
                    for n in 1..=REQUESTS {
                        assert_eq!(conn.read(), Value::Int(n));
                        if n % LARGE_EVERY == 0 {
                            assert_eq!(conn.read(), large);
                        }
                    }
                    sending.join().expect("all is sent");
                    assert_eq!(conn.cmd("PING"), Value::Simple("PONG".into()));
                })
            })
            .collect();
        for n in 1..=200 {
            assert_eq!(other.cmd("INCR beside"), Value::Int(n));
        }
        readers.into_iter().for_each(|reader| reader.join().expect("its replies are right"));
    });
}

#[test]
fn what_came_before_the_end_of_a_connection_is_run() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let pours: Vec<_> = (0..3).map(|n| pour(&server, format!("last{n}"), true)).collect();
        let numbers: usize = (1..=REQUESTS).map(|n| format!(":{n}\r\n").len()).sum();
        let echoes = (REQUESTS / LARGE_EVERY) as usize * (large().len() + "$320000\r\n\r\n".len());
        for (mut conn, sending) in pours {
            assert_eq!(conn.read_to_end().len(), numbers + echoes);
            sending.join().expect("all is sent");
        }
        let mut conn = server.connect();
        for n in 0..3 {
            let count = || server.connect().cmd(&format!("GET last{n}"));
            wait_until("all requests have run", || count() == bulk(REQUESTS.to_string()));
        }
        wait_until("the poured connections are gone", || server.connect().cmd("CLIENT LIST").bytes().len() < 1000);
        assert_eq!(conn.cmd("PING"), Value::Simple("PONG".into()));
    });
}
