//! `redis-cli`, the client that everybody has: at a terminal, where it hints and prompts, and with each of its modes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Dir, Server, everywhere, installed, wait_until};
use crate::wire::{bulk, ok};

fn have_cli() -> bool {
    installed("redis-cli", "--version", "what redis-cli asks for")
}

fn cli(server: &Server) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &server.port.to_string()]).stdin(Stdio::null());
    command
}

/// What one run prints; it must end well.
fn says(server: &Server, words: &[&str], input: &[u8]) -> String {
    let mut command = cli(server);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let out = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{words:?}: {text}\n{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// A program at a terminal of its own.
struct Terminal {
    screen: File,
    child: Child,
    /// What it has shown since somebody last looked, without the terminal's commands.
    shown: String,
    /// What it shows when it wants a line.
    prompt: String,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptors and the size are this function's own; no name and no settings are asked for.
        let status = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: both were just made and belong to nobody else.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        // SAFETY: a flag of a descriptor of this function; without it the child would hold its own terminal open.
        unsafe { libc::fcntl(master.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        let clone = || Stdio::from(slave.try_clone().expect("a descriptor is free"));
        command.env("TERM", "xterm").stdin(clone()).stdout(clone()).stderr(clone());
        // SAFETY: only system calls, which are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("it is installed");
        drop(command);
        Terminal { screen: File::from(master), child, shown: String::new(), prompt: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until it has shown `text`, and looks away from all up to there.
    fn sees(&mut self, text: &str) {
        self.sees_one_of(&[text]);
    }

    /// As [`Terminal::sees`], for the first of several texts that is there.
    fn sees_one_of(&mut self, texts: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(end) = texts.iter().find_map(|text| Some(self.shown.find(text)? + text.len())) {
                self.shown.drain(..end);
                return;
            }
            assert!(Instant::now() < deadline, "none of {texts:?} in {:?}", self.shown);
            let mut wait = libc::pollfd { fd: self.screen.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one structure of this function's own, and a descriptor that is open.
            if unsafe { libc::poll(&mut wait, 1, 1000) } > 0 {
                let mut bytes = [0; 4096];
                let read = self.screen.read(&mut bytes).unwrap_or(0);
                assert!(read > 0, "it has ended; none of {texts:?} in {:?}", self.shown);
                self.shown.push_str(&without_commands(&bytes[..read]));
            }
        }
    }

    /// Types a line and waits for what it says.
    fn ask(&mut self, line: &str, answer: &str) {
        self.wants_a_line();
        self.press(&format!("{line}\r"));
        // The line is shown as it is typed, with hints behind it, and once more when it is sent.
        self.sees(&format!("{line}\r\r\n"));
        self.sees(answer);
    }

    /// Keys that come before it reads them are shown otherwise.
    fn wants_a_line(&mut self) {
        let prompt = self.prompt.clone();
        self.sees(&prompt);
    }

    fn ends(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait().expect("it is a child").is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text without colours and movements of the cursor.
fn without_commands(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (mut plain, mut rest) = (String::new(), text.chars());
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => {
                // Up to the letter that says what it does.
                while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            }
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn it_converses_at_a_terminal() {
    if !have_cli() {
        return;
    }
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let home = Dir::new();
        let start = |words: &[&str]| {
            let mut command = cli(&server);
            command.args(words).env("HOME", &home.0);
            Terminal::start(command)
        };
        let prompt = format!("127.0.0.1:{}", server.port);
        let mut terminal = start(&[]);
        terminal.prompt = format!("{prompt}> ");
        terminal.ask("SET k v", "OK\r\n");
        terminal.ask("get k", "\"v\"\r\n");
        terminal.ask("INCR k", "(error) ERR value is not an integer or out of range\r\n");
        terminal.ask("LRANGE none 0 -1", "(empty array)\r\n");
        terminal.ask("RPUSH l a \"b c\"", "(integer) 2\r\n");
        terminal.ask("LRANGE l 0 -1", "1) \"a\"\r\n2) \"b c\"\r\n");
        terminal.ask("HELLO 3", "1# \"server\" => \"redis\"\r\n");
        terminal.ask("ZADD z 1.5 m", "(integer) 1\r\n");
        terminal.ask("ZSCORE z m", "(double) 1.5\r\n");
        // Hints while a line is typed, names that are completed, and help.
        terminal.wants_a_line();
        terminal.press("GETRANGE");
        terminal.press(" ");
        terminal.sees("key start end");
        terminal.press("k 0 0\r");
        terminal.sees("\r\r\n\"v\"\r\n");
        terminal.wants_a_line();
        terminal.press("GETDE\t");
        terminal.sees("GETDEL");
        terminal.press(" k\r");
        terminal.sees("\r\r\n\"v\"\r\n");
        terminal.ask("help lpos", "summary: ");
        terminal.sees("since: 6.0.6");
        terminal.ask("help @list", "RPOPLPUSH");
        // The prompt says what the connection is in.
        terminal.ask("SELECT 3", "OK\r\n");
        terminal.prompt = format!("{prompt}[3]> ");
        terminal.ask("MULTI", "OK\r\n");
        terminal.prompt = format!("{prompt}[3](TX)> ");
        terminal.ask("INCR n", "QUEUED\r\n");
        terminal.ask("MGET n none", "QUEUED\r\n");
        terminal.ask("EXEC", "1) (integer) 1\r\n2) 1) \"1\"\r\n   2) (nil)\r\n");
        terminal.prompt = format!("{prompt}[3]> ");
        terminal.ask("MULTI", "OK\r\n");
        terminal.prompt = format!("{prompt}[3](TX)> ");
        terminal.ask("DISCARD", "OK\r\n");
        terminal.prompt = format!("{prompt}[3]> ");
        terminal.ask("NOSUCH a", "(error) ERR unknown command 'NOSUCH', with args beginning with: 'a'");
        terminal.ask("3 INCR n", "(integer) 2\r\n(integer) 3\r\n(integer) 4\r\n");
        // It says when its connection was cut, and connects again.
        terminal.wants_a_line();
        let mut other = server.connect();
        assert_eq!(other.cmd("CLIENT KILL TYPE normal SKIPME yes").int(), 1);
        terminal.press("GET n\r");
        // Which of the two it meets is a matter of when it looks.
        terminal.sees_one_of(&["Error: Server closed the connection\r\n", "Error: Connection reset by peer\r\n"]);
        terminal.prompt = "not connected> ".into();
        terminal.ask("PING", "PONG\r\n");
        terminal.prompt = format!("{prompt}[3]> ");
        terminal.ask("quit", "");
        terminal.ends();

        let mut subscriber = start(&[]);
        subscriber.prompt = format!("{prompt}> ");
        subscriber.ask("SUBSCRIBE ch", "Reading messages... (press Ctrl-C to quit)\r\n");
        subscriber.sees("3) (integer) 1\r\n");
        assert_eq!(other.cmd("PUBLISH ch hello").int(), 1);
        subscriber.sees("1) \"message\"\r\n2) \"ch\"\r\n3) \"hello\"\r\n");
        // It leaves the channel by connecting anew.
        subscriber.press("\x03");
        subscriber.ask("PING", "PONG\r\n");
        wait_until("it is gone", || server.connect().cmd("PUBLISH ch x").int() == 0);

        let mut monitor = start(&["monitor"]);
        monitor.sees("OK\r\n");
        assert_eq!(other.call(&["SET", "seen", "by all"]), ok());
        monitor.sees("\"SET\" \"seen\" \"by all\"\r\n");
        monitor.press("\x03");
        monitor.ends();
    });
}

#[test]
fn its_looks_at_the_whole_keyspace_find_all() {
    if !have_cli() {
        return;
    }
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&["--enable-debug-command", "yes"]);
        let mut conn = server.connect();
        conn.cmd("DEBUG POPULATE 3000 key 10");
        conn.call(&["SET", "large", &"x".repeat(100_000)]);
        let list = [vec!["RPUSH", "long"], vec!["e"; 5000]].concat();
        conn.call(&list);
        conn.cmd("HSET hash a 1 b 2 c 3");
        conn.cmd("ZADD sorted 1 a 2 b");
        conn.cmd("SADD set a b c d");
        conn.cmd("XADD stream * f v");
        let big = says(&server, &["--bigkeys"], b"");
        for line in [
            "Sampled 3006 keys in the keyspace!",
            "Biggest string found \"large\" has 100000 bytes",
            "Biggest   list found \"long\" has 5000 items",
            "Biggest   hash found \"hash\" has 3 fields",
            "Biggest   zset found \"sorted\" has 2 members",
            "Biggest    set found \"set\" has 4 members",
            "Biggest stream found \"stream\" has 1 entries",
        ] {
            let line = line.replace(" \"", " '\"").replace("\" ", "\"' ");
            assert!(big.contains(&line), "{line} not in {big}");
        }
        let memory = says(&server, &["--memkeys"], b"");
        assert!(memory.contains("Sampled 3006 keys") && memory.contains("found '\"large\"' has 1"), "{memory}");
        let scanned = says(&server, &["--scan", "--pattern", "key:1??"], b"");
        let mut keys: Vec<&str> = scanned.lines().collect();
        keys.sort_unstable();
        assert_eq!(keys, (100..200).map(|i| format!("key:{i}")).collect::<Vec<_>>());
        assert_eq!(says(&server, &["--scan"], b"").lines().count(), 3006);
        assert_eq!(conn.cmd("CONFIG SET maxmemory-policy allkeys-lfu"), ok());
        (0..50).for_each(|_| assert_eq!(conn.cmd("GET key:7").bytes().len(), 10));
        let hot = says(&server, &["--hotkeys"], b"");
        assert!(hot.contains("Sampled 3006 keys") && hot.contains("\"key:7\""), "{hot}");
    });
}

#[test]
fn it_pipes_and_evaluates() {
    if !have_cli() {
        return;
    }
    everywhere(&[1, 4], |placement| {
        let server = placement.start(&[]);
        let mut input = Vec::new();
        for i in 0..20_000 {
            let (key, value) = (format!("k{}", i % 5000), format!("v{i}"));
            input.extend(
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len()).bytes(),
            );
        }
        let piped = says(&server, &["--pipe"], &input);
        assert!(piped.contains("errors: 0, replies: 20000"), "{piped}");
        let mut conn = server.connect();
        assert_eq!(conn.cmd("DBSIZE").int(), 5000);
        assert_eq!(conn.cmd("GET k4999"), bulk("v19999"));
        // Plain lines, as most files have them.
        let lines: String = (0..3000).map(|i| format!("RPUSH list {i}\r\n")).collect();
        let piped = says(&server, &["--pipe"], lines.as_bytes());
        assert!(piped.contains("errors: 0, replies: 3000"), "{piped}");
        let last: Vec<String> = (2998..3000).map(|i| i.to_string()).collect();
        assert_eq!(says(&server, &["LRANGE", "list", "-2", "-1"], b""), format!("{}\n", last.join("\n")));

        let dir = Dir::new();
        let script = dir.join("script.lua");
        fs::write(&script, "redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], KEYS[2], ARGV[1]}").unwrap();
        let script = script.to_str().unwrap();
        assert_eq!(says(&server, &["--eval", script, "a", "b", ",", "x"], b""), "a\nb\nx\n");
        assert_eq!(says(&server, &["-x", "SET", "from stdin"], b"text\n"), "OK\n");
        assert_eq!(says(&server, &["--csv", "MGET", "from stdin", "a", "none"], b""), "\"text\\n\",\"x\",NULL\n");
        assert_eq!(says(&server, &["-r", "3", "INCR", "n"], b""), "1\n2\n3\n");
        assert_eq!(says(&server, &["-n", "5", "INCR", "n"], b""), "1\n");
        assert_eq!(
            says(&server, &["--no-raw", "-3", "CONFIG", "GET", "maxmemory"], b""),
            "1# \"maxmemory\" => \"0\"\n"
        );
        let commands = says(&server, &[], b"SET a 1\nINCR a\nGET a\n");
        assert_eq!(commands, "OK\n2\n2\n");
        let out = cli(&server).args(["-e", "NOSUCH"]).output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        let latency: Vec<f64> =
            says(&server, &["--latency"], b"").split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert!(latency.len() == 4 && latency[3] > 10.0, "least, most, mean and count: {latency:?}");
    });
}

#[test]
fn it_shows_statistics_as_they_go() {
    if !have_cli() {
        return;
    }
    everywhere(&[4], |placement| {
        let server = placement.start(&["--enable-debug-command", "yes"]);
        server.connect().cmd("DEBUG POPULATE 1234");
        let mut command = cli(&server);
        command.args(["--stat", "-i", "0.05"]);
        let mut stat = Terminal::start(command);
        stat.sees("keys       mem      clients blocked requests            connections");
        for _ in 0..3 {
            // Keys, then memory with its unit, then clients.
            stat.sees("\r\n1234 ");
        }
    });
}
