//! Users over the socket: who is let in, on which shard, and the files that hold them.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;

use crate::harness::{Dir, Launch, Server, everywhere};
use crate::wire::{Conn, Value, bulk, ok};

const KEY: &str = "NOPERM No permissions to access a key";

fn login(server: &Server, name: &str) -> Conn {
    let mut conn = server.connect();
    assert_eq!(conn.cmd(&format!("AUTH {name} pw")), ok());
    conn
}

#[test]
fn a_change_counts_for_every_connection_once_it_was_answered() {
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut admin = server.connect();
        assert_eq!(admin.cmd("ACL SETUSER u on >pw +@all ~*"), ok());
        // So many that every shard is home to some.
        let mut conns: Vec<Conn> = (0..16).map(|_| login(&server, "u")).collect();
        for turn in 0..20 {
            admin.cmd("ACL SETUSER u resetkeys ~mine");
            for conn in &mut conns {
                assert_eq!(conn.cmd("GET k").error(), KEY, "turn {turn}");
                assert_eq!(conn.cmd("MGET mine a b c d").error(), KEY, "turn {turn}");
            }
            admin.cmd("ACL SETUSER u allkeys");
            for conn in &mut conns {
                assert_eq!(conn.cmd("GET k"), Value::Null, "turn {turn}");
            }
        }
        // Refusals of all shards are in one log, and deleted users' connections go.
        let entries = admin.cmd("ACL LOG");
        assert_eq!(entries.items().len(), 2, "{entries:?}");
        assert_eq!(admin.cmd("ACL DELUSER u"), Value::Int(1));
        for conn in &mut conns {
            assert_eq!(conn.read_to_end(), b"");
        }
    });
}

#[test]
fn a_file_of_users_outlives_the_server() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let path = dir.join("users.acl");
        let text = path.to_str().unwrap().to_owned();
        fs::write(&path, "user default on nopass ~* &* +@all\nuser u on >pw ~a* +@all -keys\n").unwrap();
        let with_file = ["--aclfile", &text];
        {
            let server = placement.start(&with_file);
            let mut conn = login(&server, "u");
            assert_eq!(conn.cmd("SET a 1"), ok());
            assert_eq!(conn.cmd("SET b 1").error(), KEY);
            let mut admin = server.connect();
            assert_eq!(admin.cmd("ACL SETUSER v on >pw (+get %R~b) +ping"), ok());
            assert_eq!(admin.cmd("ACL SAVE"), ok());
            // A file that is wrong changes nothing; one that is right, everything at once.
            let saved = fs::read_to_string(&path).unwrap();
            assert!(!saved.contains("pw"), "{saved}");
            fs::write(&path, saved.clone() + "user w +nosuch\n").unwrap();
            assert!(admin.cmd("ACL LOAD").error().contains("no change to the previously active ACL rules"));
            assert_eq!(conn.cmd("SET a 1"), ok());
            fs::write(&path, &saved).unwrap();
            assert_eq!(admin.cmd("ACL LOAD"), ok());
            fs::remove_file(&path).unwrap();
            assert!(admin.cmd("ACL LOAD").error().contains("opening file"));
            fs::write(&path, saved).unwrap();
        }
        let server = placement.start(&with_file);
        let mut conn = login(&server, "v");
        assert_eq!(conn.cmd("GET b"), Value::Null);
        assert!(conn.cmd("GET a").error().starts_with("NOPERM"));
        drop(server);
        fs::write(&path, "user u on nopass ~* +@all\nuser u off\n").unwrap();
        let (code, log) = Server::run_to_end(&with_file.map(String::from));
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("Aborting startup because of ACL errors"), "{log}");
    });
}

#[test]
fn the_configuration_file_holds_users_and_other_names() {
    everywhere(&[1, 4], |placement| {
        let dir = Dir::new();
        let path = dir.join("r.conf");
        fs::write(&path, "requirepass secret\nrename-command FLUSHALL \"\"\nrename-command CONFIG cfg-a1\n").unwrap();
        let launch = || Launch { config_file: Some(path.clone()), ..Launch::new(&placement.args()) }.start();
        {
            let server = launch();
            let mut conn = server.connect();
            assert_eq!(conn.cmd("PING").error(), "NOAUTH Authentication required.");
            assert_eq!(conn.cmd("AUTH secret"), ok());
            assert!(conn.cmd("FLUSHALL").error().starts_with("ERR unknown command 'FLUSHALL'"));
            assert!(conn.cmd("CONFIG GET *").error().starts_with("ERR unknown command 'CONFIG'"));
            // Quotes would end a word of that file.
            assert_eq!(conn.call(&["ACL", "SETUSER", "u'\"", "on", ">pw", "~a\"'b", "+@all"]), ok());
            assert_eq!(conn.cmd("cfg-a1 REWRITE"), ok());
        }
        // The directory of the first went with it.
        let text = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("dir ")).collect();
        fs::write(&path, kept.join("\n")).unwrap();
        let server = launch();
        let mut conn = server.connect();
        assert_eq!(conn.call(&["AUTH", "u'\"", "pw"]), ok());
        assert_eq!(conn.call(&["GET", "a\"'b"]), Value::Null);
        assert_eq!(conn.cmd("GET k").error(), KEY);
        assert!(conn.cmd("FLUSHALL").error().starts_with("ERR unknown command"));
        let mut stranger = server.connect();
        assert_eq!(stranger.cmd("PING").error(), "NOAUTH Authentication required.");
    });
    for (line, reason) in [
        ("rename-command nosuch x", "No such command in rename-command"),
        ("rename-command get set", "Target command name already exists"),
        ("user a on zzz", "Error in user declaration 'zzz': Syntax error"),
    ] {
        let words: Vec<String> = format!("--{line}").split(' ').map(String::from).collect();
        let (code, log) = Server::run_to_end(&words);
        assert_eq!(code, Some(1), "{line}: {log}");
        assert!(log.contains(reason), "{line}: {log}");
    }
}

/// An address of this machine that is not the loopback's, if there is one.
fn outer_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string()).filter(|address| !address.starts_with("127."))
}

#[test]
fn doors_are_shut_until_somebody_says_who_may_enter() {
    everywhere(&[1], |placement| {
        let dir = Dir::new();
        let path = dir.join("sock");
        let mut options = vec!["--bind", "0.0.0.0", "--unixsocket", path.to_str().unwrap()];
        options.extend(["--protected-mode", "yes"]);
        let server = placement.start(&options);
        let mut local = Conn::unix(UnixStream::connect(&path).unwrap());
        assert_eq!(local.cmd("PING"), Value::Simple("PONG".into()));
        let outer = outer_address();
        if let Some(address) = &outer {
            let denied = server.connect_to(address).read();
            assert!(denied.error().starts_with("DENIED"), "{denied:?}");
        }
        // A user who has to log in is protection; others being there is none.
        assert_eq!(local.cmd("ACL SETUSER other on >pw +@all ~*"), ok());
        if let Some(address) = &outer {
            assert!(server.connect_to(address).read().error().starts_with("DENIED"));
        }
        assert_eq!(local.cmd("ACL SETUSER default resetpass >pw"), ok());
        if let Some(address) = &outer {
            let mut conn = server.connect_to(address);
            assert_eq!(conn.cmd("GET k").error(), "NOAUTH Authentication required.");
            assert_eq!(conn.cmd("AUTH pw"), ok());
        }
        // The socket file's clients are strangers like any other.
        let mut stranger = Conn::unix(UnixStream::connect(&path).unwrap());
        assert_eq!(stranger.cmd("GET k").error(), "NOAUTH Authentication required.");
        assert_eq!(stranger.cmd("ACL WHOAMI").error(), "NOAUTH Authentication required.");
        assert_eq!(stranger.cmd("HELLO 2 AUTH other pw").items().len(), 14);
        assert_eq!(stranger.cmd("ACL WHOAMI"), bulk("other"));
        assert_eq!(stranger.cmd("RESET"), Value::Simple("RESET".into()));
        assert_eq!(stranger.cmd("GET k").error(), "NOAUTH Authentication required.");
    });
}
