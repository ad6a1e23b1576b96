//! Where the server listens, and whom it lets in.

use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::{Dir, Launch, Server, everywhere};
use crate::wire::{Conn, Value, bulk, ok};

fn pong() -> Value {
    Value::Simple("PONG".into())
}

#[test]
fn a_unix_socket_with_its_permissions_and_no_tcp() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let path = dir.join("ringshard.sock");
        let text = path.to_str().unwrap();
        // The later `--port` counts.
        let mut server = placement.start(&["--port", "0", "--unixsocket", text, "--unixsocketperm", "740"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o740);
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "port 0 means no TCP");
        let mut conns: Vec<Conn> = (0..10).map(|_| Conn::unix(UnixStream::connect(&path).unwrap())).collect();
        for (i, conn) in conns.iter_mut().enumerate() {
            assert_eq!(conn.cmd(&format!("SET k{i} {i}")), ok());
        }
        for (i, conn) in conns.iter_mut().rev().enumerate() {
            assert_eq!(conn.cmd(&format!("GET k{i}")), bulk(i.to_string()));
        }
        server.signal(libc::SIGTERM);
        assert_eq!(server.wait_for_end().code(), Some(0));
        assert!(!path.exists(), "the socket's file goes with the server");
    });
}

#[test]
fn nowhere_to_listen_is_an_error() {
    let (code, log) = Server::run_to_end(&["--port", "0"].map(String::from));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("Configured to not listen anywhere, exiting."), "{log}");
}

fn has_ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        eprintln!("skipped: IPv6, for this machine has no ::1");
    }
    found
}

#[test]
fn several_addresses_of_both_families() {
    let ipv6 = has_ipv6();
    everywhere(&[1, 4], |placement| {
        let binds = if ipv6 { "127.0.0.1 127.0.0.2 ::1" } else { "127.0.0.1 127.0.0.2" };
        let server = placement.start(&["--bind", binds]);
        for address in binds.split(' ') {
            let mut conn = server.connect_to(address);
            assert_eq!(conn.cmd("PING"), pong(), "{address}");
            let info = conn.cmd("CLIENT INFO");
            let info = String::from_utf8_lossy(info.bytes()).into_owned();
            let shown = if address.contains(':') { format!("[{address}]") } else { address.into() };
            assert!(info.contains(&format!("laddr={shown}:{} ", server.port)), "{info}");
        }
        assert!(TcpStream::connect(("127.0.0.3", server.port)).is_err(), "an address that was not asked for");
    });
}

#[test]
fn a_dash_makes_an_address_optional() {
    // An address of a range for documentation, which no machine has.
    everywhere(&[1], |placement| {
        let server = placement.start(&["--bind", "127.0.0.1 -203.0.113.7"]);
        assert_eq!(server.connect().cmd("PING"), pong());
        let mut args = placement.args();
        args.extend(["--bind", "127.0.0.1 203.0.113.7"].map(String::from));
        let (code, log) = Server::run_to_end(&args);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("Could not create server TCP listening socket 203.0.113.7:"), "{log}");
        assert!(log.contains("Cannot assign requested address"), "{log}");
    });
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, log) = Server::run_to_end(&["--bind", "127.0.0.1", "--port", &port].map(String::from));
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("bind: Address already in use"), "{log}");
}

/// A server that was killed holds its port for a moment longer than it lives.
#[test]
fn a_port_that_is_soon_let_go_is_waited_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let args = ["--bind", "127.0.0.1"].map(String::from);
    let mut server = Launch::new(&args).spawn(port);
    std::thread::sleep(Duration::from_millis(50));
    drop(taken);
    assert!(server.try_wait_until_ready(), "{}", server.log());
    assert_eq!(server.connect().cmd("PING"), pong());
}

/// An address of this machine that is not a loopback one; no packet is sent to find it.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn protected_mode_turns_strangers_away() {
    let Some(ip) = own_address() else {
        eprintln!("skipped: protected mode, for this machine has no address but loopback");
        return;
    };
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--bind", "*"]);
        assert_eq!(server.connect().cmd("PING"), pong());
        let denied = server.connect_to(&ip.to_string()).read_to_end();
        let denied = String::from_utf8_lossy(&denied);
        assert!(denied.starts_with("-DENIED ") && denied.ends_with("\r\n"), "{denied}");
        drop(server);
        for allowed in [&["--protected-mode", "no"][..], &["--requirepass", "secret"]] {
            let server = placement.start(&[&["--bind", "*"], allowed].concat());
            let mut conn = server.connect_to(&ip.to_string());
            conn.send(b"AUTH default secret\r\nPING\r\n");
            assert_eq!(conn.read(), ok());
            assert_eq!(conn.read(), pong());
        }
    });
}

#[test]
fn requirepass_asks_for_the_password() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--requirepass", "secret"]);
        let mut conn = server.connect();
        let noauth = Value::Error("NOAUTH Authentication required.".into());
        for line in ["PING", "GET k", "SET k v", "MGET a b c d e", "FLUSHALL", "CLIENT ID", "MULTI", "KEYS *"] {
            assert_eq!(conn.cmd(line), noauth, "{line}");
        }
        let wrong = Value::Error("WRONGPASS invalid username-password pair or user is disabled.".into());
        assert_eq!(conn.cmd("AUTH wrong"), wrong);
        assert_eq!(conn.cmd("AUTH nobody secret"), wrong);
        assert_eq!(conn.cmd("GET k"), noauth);
        assert_eq!(conn.cmd("AUTH secret"), ok());
        assert_eq!(conn.cmd("GET k"), Value::Null);
        assert_eq!(conn.cmd("RESET"), Value::Simple("RESET".into()));
        assert_eq!(conn.cmd("GET k"), noauth);
        // HELLO brings the password along.
        assert!(conn.cmd("HELLO 3").error().starts_with("NOAUTH HELLO must be called"));
        assert!(matches!(conn.cmd("HELLO 3 AUTH default secret"), Value::Other(b'%', _)));
        assert_eq!(conn.cmd("GET k"), Value::Null);
    });
}

/// `CONFIG SET port` and `bind` take effect before they are answered, or not at all.
#[test]
fn the_places_to_listen_change_while_the_server_runs() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--bind", "127.0.0.1"]);
        let mut old = server.connect();
        let reach = |address: &str, port: u16| {
            TcpStream::connect((address, port)).is_ok_and(|stream| Conn::tcp(stream).cmd("PING") == pong())
        };
        let port = crate::harness::free_port();
        assert_eq!(old.cmd(&format!("CONFIG SET port {port}")), ok());
        assert!((0..10).all(|_| reach("127.0.0.1", port)), "at the new port");
        assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "no more at the old one");
        assert_eq!(old.cmd("PING"), pong(), "who is connected stays so");
        // A port that another has.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = taken.local_addr().unwrap().port();
        let refused = old.cmd(&format!("CONFIG SET maxmemory 1234567 port {busy}"));
        assert_eq!(
            refused.error(),
            "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check \
             server logs."
        );
        assert!(String::from_utf8_lossy(old.cmd("INFO server").bytes()).contains(&format!("tcp_port:{port}\r\n")));
        assert!((0..10).all(|_| reach("127.0.0.1", port)), "still at the port before");
        assert!(String::from_utf8_lossy(old.cmd("INFO memory").bytes()).contains("maxmemory:0\r\n"));
        // Addresses that overlap with those before, that no machine has, and none at all.
        assert_eq!(old.call(&["CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2"]), ok());
        assert!(reach("127.0.0.1", port) && reach("127.0.0.2", port));
        for wrong in ["203.0.113.7", "127.0.0.1 203.0.113.7"] {
            let refused = old.call(&["CONFIG", "SET", "bind", wrong]);
            assert_eq!(
                refused.error(),
                "ERR CONFIG SET failed (possibly related to argument 'bind') - Failed to bind to specified addresses."
            );
        }
        assert!(reach("127.0.0.1", port) && reach("127.0.0.2", port));
        assert_eq!(old.call(&["CONFIG", "SET", "bind", "*"]), ok());
        assert!(reach("127.0.0.1", port) && reach("127.0.0.3", port));
        assert_eq!(old.call(&["CONFIG", "SET", "bind", ""]), ok());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert_eq!(old.call(&["CONFIG", "SET", "bind", "127.0.0.1"]), ok());
        assert!(reach("127.0.0.1", port));
        assert_eq!(old.cmd("CONFIG SET port 0"), ok());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert_eq!(old.cmd("PING"), pong());
        server.signal(libc::SIGTERM);
    });
}
