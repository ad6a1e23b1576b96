//! What arrives on the wire in every shape: broken, in pieces, huge.

use std::time::Duration;

use crate::harness::{Placement, everywhere, wait_until};
use crate::wire::{Conn, Value, bulk, encode, ok};

/// What is sent, and all that comes back before the connection ends. The texts are those of Redis 7.
fn broken_inputs() -> Vec<(Vec<u8>, String)> {
    let error = |text: &str| format!("-ERR Protocol error: {text}\r\n");
    let digits = vec![b'1'; 70_000];
    let mut cases: Vec<(Vec<u8>, String)> = [
        ("*x\r\n", "invalid multibulk length"),
        ("*3x\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*1\r\n$9999999999\r\n", "invalid bulk length"),
        ("*1\r\n:3\r\n", "expected '$', got ':'"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("*2\r\n$3\r\nGET\r\nk\r\n", "expected '$', got 'k'"),
        ("set k \"a\r\n", "unbalanced quotes in request"),
        ("set k 'a\r\n", "unbalanced quotes in request"),
        ("set k \"a\"b\r\n", "unbalanced quotes in request"),
    ]
    .map(|(input, text)| (input.as_bytes().to_vec(), error(text)))
    .to_vec();
    cases.push(([&b"*"[..], &digits].concat(), error("too big mbulk count string")));
    cases.push(([&b"*1\r\n$"[..], &digits].concat(), error("too big bulk count string")));
    cases.push((digits, error("too big inline request")));
    // What stands before the broken part is answered, what stands behind it is not.
    let mut mixed = [encode(&["SET", "k", "v"]), encode(&["GET", "k"]), encode(&["GET", "other"])].concat();
    mixed.extend_from_slice(b"*1\r\n:\r\n*1\r\n$4\r\nPING\r\n");
    cases.push((mixed, format!("+OK\r\n$1\r\nv\r\n$-1\r\n{}", error("expected '$', got ':'"))));
    cases
}

#[test]
fn broken_input_closes_that_client_alone() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut bystander = server.connect();
        for (input, expected) in broken_inputs() {
            let shown = input[..input.len().min(60)].escape_ascii().to_string();
            assert_eq!(bystander.cmd("DEL k"), Value::Int((bystander.cmd("EXISTS k") == Value::Int(1)) as i64));
            let mut conn = server.connect();
            // The server may close before it has taken everything.
            let _ = conn.try_send(&input);
            let got = conn.read_to_end();
            assert_eq!(String::from_utf8_lossy(&got), expected, "for {shown}");
            assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()), "after {shown}");
        }
    });
}

#[test]
fn strangers_may_send_little() {
    everywhere(&[1], |placement| {
        let server = placement.start(&["--requirepass", "secret"]);
        for (input, text) in [
            ("*11\r\n", "unauthenticated multibulk length"),
            ("*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
        ] {
            let mut conn = server.connect();
            conn.send(input.as_bytes());
            assert_eq!(String::from_utf8_lossy(&conn.read_to_end()), format!("-ERR Protocol error: {text}\r\n"));
        }
        // The same lengths behind AUTH in one write are as good as any.
        let mut conn = server.connect();
        let keys: Vec<String> = (0..12).map(|i| format!("k{i}")).collect();
        let mget: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
        conn.send(&[encode(&["AUTH", "secret"]), encode(&mget)].concat());
        assert_eq!(conn.read(), ok());
        assert_eq!(conn.read(), Value::Array(vec![Value::Null; 12]));
    });
}

#[test]
fn empty_commands_are_skipped() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        conn.send(b"\r\n\n*0\r\n*-1\r\n  \r\nPING\r\n*1\r\n$4\r\nPING\r\n");
        assert_eq!(conn.read(), Value::Simple("PONG".into()));
        assert_eq!(conn.read(), Value::Simple("PONG".into()));
    });
}

#[test]
fn inline_commands_are_unquoted() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        conn.send(b"SET k \"a b\\x00\\n\\\"c\"\r\nGET k\n  ECHO  'it\\'s'  \r\nSET k2 \"\"\r\nGET k2\r\n");
        assert_eq!(conn.read(), ok());
        assert_eq!(conn.read(), bulk(b"a b\0\n\"c"));
        assert_eq!(conn.read(), bulk("it's"));
        assert_eq!(conn.read(), ok());
        assert_eq!(conn.read(), bulk(""));
    });
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        let mut bytes = Vec::new();
        for i in 0..6 {
            bytes.extend(encode(&["SET", &format!("k{i}"), &format!("value {i}")]));
            bytes.extend(format!("GET k{i}\r\n").into_bytes());
            bytes.extend(encode(&["MGET", "k0", &format!("k{i}"), "none"]));
        }
        for byte in bytes {
            conn.send(&[byte]);
        }
        for i in 0..6 {
            let value = bulk(format!("value {i}"));
            assert_eq!(conn.read(), ok());
            assert_eq!(conn.read(), value);
            assert_eq!(conn.read(), Value::Array(vec![bulk("value 0"), value, Value::Null]));
        }
    });
}

/// Bytes that differ from place to place, so that a misplaced piece shows.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect()
}

#[test]
fn long_values_pass_unharmed() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        let values: Vec<Vec<u8>> = (0..12).map(|i| pattern((1 << 20) + i * 37, i as u8)).collect();
        for (i, value) in values.iter().enumerate() {
            assert_eq!(conn.call(&[b"SET".as_slice(), format!("k{i}").as_bytes(), value]), ok());
        }
        // All of them at once, in several requests and in one.
        let lines: Vec<String> = (0..12).map(|i| format!("GET k{i}")).collect();
        for (got, value) in conn.pipeline(&lines).iter().zip(&values) {
            assert!(got.bytes() == value, "a value of {} bytes came back otherwise", value.len());
        }
        let mget = conn.cmd("MGET k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 k10 k11");
        assert!(mget.items().iter().zip(&values).all(|(got, value)| got.bytes() == value));
        // A command whose first part arrives with the one before it.
        let (first, second) = (pattern(3 << 20, 1), pattern(100, 2));
        let bytes = [encode(&[&b"SET"[..], b"x", &first]), encode(&[&b"APPEND"[..], b"x", &second])].concat();
        for part in bytes.chunks(100_001) {
            conn.send(part);
        }
        assert_eq!(conn.read(), ok());
        assert_eq!(conn.read(), Value::Int((first.len() + second.len()) as i64));
        assert!(conn.cmd("GET x").bytes() == [first, second].concat());
    });
}

/// The epoll loop read 16 KB of a client a turn, also when it knew that much more was to come: a value of 100 KB took seven
/// turns, and seven copies. What has arrived of a large argument is read at once, as Redis does.
#[test]
fn what_has_arrived_of_a_large_argument_is_read_at_once() {
    let server = Placement { event_loop: "epoll", shards: 1 }.start(&["--enable-debug-command", "yes"]);
    let (mut large, mut sleeper, mut asker) = (server.connect(), server.connect(), server.connect());
    assert_eq!(large.cmd("CLIENT SETNAME large"), ok());
    let read_so_far = |asker: &mut Conn| {
        let list = String::from_utf8_lossy(asker.cmd("CLIENT LIST").bytes()).into_owned();
        let line = list.lines().find(|line| line.contains("name=large")).expect("it is there");
        let field = line.split(' ').find_map(|field| field.strip_prefix("qbuf=")).expect("it is shown");
        field.parse::<usize>().unwrap()
    };
    let request = encode(&[b"SET", &b"k"[..], &pattern(100_000, 1)]);
    large.send(&request[..33_000]);
    wait_until("a part is read", || read_so_far(&mut server.connect()) > 32_000);
    // What comes while the server sleeps it finds together: first the rest of the argument, then the question.
    sleeper.send(&encode(&["DEBUG", "SLEEP", "0.5"]));
    std::thread::sleep(Duration::from_millis(100));
    large.send(&request[33_000..90_000]);
    let read = read_so_far(&mut asker);
    assert!(read > 33_000 + 40_000, "{read}");
    assert_eq!(sleeper.read(), ok());
    large.send(&request[90_000..]);
    assert_eq!(large.read(), ok());
    assert_eq!(large.cmd("GET k"), bulk(pattern(100_000, 1)));
}

#[test]
fn ten_thousand_commands_in_one_write() {
    everywhere(&[1, 4], |placement: Placement| {
        let server = placement.start(&[]);
        let mut conn = server.connect();
        let sets: Vec<String> = (0..10_000).map(|i| format!("SET key:{i} {i}")).collect();
        assert!(conn.pipeline(&sets).iter().all(|reply| *reply == ok()));
        let gets: Vec<String> = (0..10_000).map(|i| format!("GET key:{i}")).collect();
        for (i, reply) in conn.pipeline(&gets).iter().enumerate() {
            assert_eq!(*reply, bulk(i.to_string()));
        }
        assert_eq!(conn.cmd("DBSIZE"), Value::Int(10_000));
    });
}

/// A random mess of bytes must do no more than close the client that sent it.
#[test]
fn noise_harms_nobody() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut bystander = server.connect();
        let mut random = crate::wire::Random::new(7);
        let words: [&[u8]; 12] = [
            b"*",
            b"$",
            b"\r\n",
            b"3",
            b"SET",
            b"k",
            b"-1",
            b"GET k\r\n",
            b"\0",
            b"*3\r\n$3\r\nSET\r\n",
            b"$1\r\nk\r\n",
            b"\"",
        ];
        for _ in 0..150 {
            let mut conn = server.connect();
            let mut bytes = Vec::new();
            for _ in 0..1 + random.below(60) {
                match random.one_in(4) {
                    true => bytes.push(random.below(256) as u8),
                    false => bytes.extend_from_slice(random.pick(&words)),
                }
            }
            let _ = conn.try_send(&bytes);
            assert_eq!(bystander.cmd("PING"), Value::Simple("PONG".into()), "after {}", bytes.escape_ascii());
        }
    });
}
