//! `MIGRATE` between real servers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{everywhere, free_port};
use crate::wire::{Conn, Value, bulk, ok};

fn field(conn: &mut Conn, name: &str) -> String {
    let info = String::from_utf8_lossy(conn.cmd("INFO").bytes()).into_owned();
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).map(str::to_string);
    line.unwrap_or_else(|| panic!("no {name} in {info}"))
}

#[test]
fn keys_go_to_another_server() {
    everywhere(&[1, 4], |placement| {
        let (from, to) = (placement.start(&[]), placement.start(&["--requirepass", "secret"]));
        let (mut here, mut there) = (from.connect(), to.connect());
        assert_eq!(there.cmd("AUTH secret"), ok());
        let target = format!("127.0.0.1 {}", to.port);
        let keys: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
        keys.iter().for_each(|key| assert_eq!(here.cmd(&format!("SET {key} of-{key}")), ok()));
        here.cmd("RPUSH list a b c");
        here.cmd("PEXPIRE list 100000");
        let refused = here.cmd(&format!("MIGRATE {target} k0 0 5000"));
        assert!(refused.error().starts_with("ERR Target instance replied with error: NOAUTH"), "{refused:?}");
        let all = format!("MIGRATE {target} {{}} 2 5000 AUTH secret KEYS list {}", keys.join(" "));
        let mut words: Vec<&str> = all.split(' ').collect();
        words[3] = "";
        assert_eq!(here.call(&words), ok());
        assert_eq!(here.cmd("DBSIZE"), Value::Int(0));
        assert_eq!(field(&mut here, "migrate_cached_sockets"), "1");
        there.cmd("SELECT 2");
        assert_eq!(there.cmd("DBSIZE"), Value::Int(41));
        assert_eq!(there.cmd("LRANGE list 0 -1").items().len(), 3);
        assert!((1..=100_000).contains(&there.cmd("PTTL list").int()));
        keys.iter().for_each(|key| assert_eq!(there.cmd(&format!("GET {key}")), bulk(format!("of-{key}"))));
        // A name that is taken there is an error, and only it stays.
        here.cmd("MSET k1 new k2 new fresh x");
        let busy = here.call(&["MIGRATE", "127.0.0.1", &to.port.to_string(), "", "2", "5000", "KEYS", "k1", "fresh"]);
        assert!(busy.error().starts_with("ERR Target instance replied with error: BUSYKEY"), "{busy:?}");
        assert_eq!(here.cmd("EXISTS k1 fresh"), Value::Int(1));
        assert_eq!(here.cmd(&format!("MIGRATE {target} k1 2 5000 REPLACE COPY AUTH2 default secret")), ok());
        assert_eq!([here.cmd("GET k1"), there.cmd("GET k1")], [bulk("new"), bulk("new")]);
        // The kept socket is closed by the other side: a new one is made.
        there.cmd("CLIENT KILL TYPE normal SKIPME yes");
        assert_eq!(here.cmd(&format!("MIGRATE {target} k2 2 5000 REPLACE AUTH secret")), ok());
        here.cmd("SET k3 x");
        assert_eq!(here.cmd("MULTI"), ok());
        here.cmd(&format!("MIGRATE {target} k3 0 5000 AUTH secret"));
        assert_eq!(here.cmd("EXEC"), Value::Array(vec![ok()]));
        assert_eq!(here.cmd("EXISTS k2 k3"), Value::Int(0));
    });
}

#[test]
fn a_target_that_is_not_there_or_says_nothing() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let (mut conn, mut other) = (server.connect(), server.connect());
        conn.cmd("MSET k v other w");
        let nowhere = conn.cmd(&format!("MIGRATE 127.0.0.1 {} k 0 1000", free_port()));
        assert_eq!(nowhere.error(), "IOERR error or timeout connecting to the client");
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let began = Instant::now();
        conn.send(format!("MIGRATE 127.0.0.1 {port} k 0 400\r\n").as_bytes());
        let (mut stream, _) = silent.accept().unwrap();
        // Other keys are served meanwhile.
        assert_eq!(other.cmd("GET other"), bulk("w"));
        assert_eq!(conn.read().error(), "IOERR error or timeout reading to target instance");
        assert!(began.elapsed() >= Duration::from_millis(400));
        assert_eq!(other.cmd("GET k"), bulk("v"));
        let mut heard = vec![0; 4096];
        let n = stream.read(&mut heard).unwrap();
        assert!(
            heard[..n].starts_with(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*4\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n")
        );
        // A target that breaks off in the midst: what it has taken is gone, and the rest is told as an error.
        let keys = ["MIGRATE", "127.0.0.1", &port.to_string(), "", "0", "5000", "KEYS", "k", "other"];
        conn.send(&crate::wire::encode(&keys));
        let (mut stream, _) = silent.accept().unwrap();
        stream.write_all(b"+OK\r\n+OK\r\n").unwrap();
        let mut rest = Vec::new();
        while !rest.windows(5).any(|window| window == b"other") {
            let n = stream.read(&mut heard).unwrap();
            rest.extend_from_slice(&heard[..n]);
        }
        drop(stream);
        assert_eq!(conn.read().error(), "IOERR error or timeout reading to target instance");
        assert_eq!([other.cmd("EXISTS k"), other.cmd("EXISTS other")], [Value::Int(0), Value::Int(1)]);
    });
}
