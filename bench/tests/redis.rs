//! The program against a real server: Debian's `redis-server`, when it is installed.
//!
//! Each test starts its own server on a free port; without one it prints why it is skipped.

use serde_json::Value;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Redis {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Redis {
    /// Starts one, or says why not.
    fn start(more: &[&str]) -> Option<Redis> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let dir = std::env::temp_dir().join(format!(
            "ringshard-bench-test-{}-{port}",
            std::process::id()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let started = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--dir", dir.to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(e) => {
                eprintln!("skipped: redis-server cannot be started ({e})");
                return None;
            }
        };
        let redis = Redis { child, port, dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(redis)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no pointers are passed; the child is ours and not reaped.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringshard-bench"));
    command.args(args);
    command
}

/// Runs `load` and returns its JSON and whether it called the run good.
fn load(port: u16, args: &str) -> (Value, bool) {
    let port = port.to_string();
    let out = bench(&["load", "-p", &port, "--json", "-"])
        .args(args.split_whitespace())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let json = serde_json::from_str(&text).unwrap_or_else(|e| {
        panic!(
            "{args}: {e}: {text} {}",
            String::from_utf8_lossy(&out.stderr)
        )
    });
    (json, out.status.success())
}

#[test]
fn every_workload_runs_without_errors_on_both_loops() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let list = bench(&["workloads"]).output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    let names = list.lines().map(|l| l.split(['[', ' ']).next().unwrap());
    for (i, name) in names.enumerate() {
        let kind = if i % 2 == 0 { "uring" } else { "epoll" };
        let resp = if i % 3 == 0 { "--resp3" } else { "" };
        let keys = if name == "publish" { "" } else { "-k 1000" };
        let (json, good) = load(
            redis.port,
            &format!("-w {name} {keys} {resp} -c 5 -P 3 -n 2000 --warmup 0 --loop {kind}"),
        );
        assert!(good, "{name}: {json:#}");
        // Follow-ups come on top of the count, at most one per request in flight.
        let requests = json["requests"].as_u64().unwrap();
        assert!((2000..=2015).contains(&requests), "{name}: {requests}");
        let counted: u64 = json["by_op"]
            .as_array()
            .unwrap()
            .iter()
            .map(|op| op["count"].as_u64().unwrap())
            .sum();
        // Deliveries of published messages are counted on top.
        assert!(counted >= 2000, "{name}: {counted}");
        assert!(json["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn values_are_checked() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let (json, good) = load(redis.port, "-w get -k 100 -d 20 -n 1000 -c 2");
    assert!(good, "{json:#}");
    // The same keys hold values of another length now: every reply is wrong.
    let (json, good) = load(
        redis.port,
        "-w get -k 100 -d 21 -n 1000 -c 2 --warmup 0 --no-prefill",
    );
    assert!(!good);
    assert_eq!(json["errors"], 1000);
    assert!(
        json["error_samples"][0]
            .as_str()
            .unwrap()
            .contains("wrong reply to get"),
        "{json:#}"
    );
    // Keys that do not exist are errors, unless nil is allowed.
    assert!(!load(redis.port, "-w get -k 1000 -d 20 -n 1000 -c 2 --no-prefill").1);
    let (json, good) = load(
        redis.port,
        "-w get -k 1000000 --no-prefill --nil-ok -n 1000 -c 2 --distribution sequential",
    );
    assert!(!good, "the first hundred keys hold other values");
    assert!(json["misses"].as_u64().unwrap() >= 900);
    // Keys of another type.
    let (json, good) = load(redis.port, "-w incr -k 100 -n 500 -c 1");
    assert!(good, "{json:#}");
}

#[test]
fn odd_sizes_and_big_values_pass() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    for (size, kind) in [
        ("0", "uring"),
        ("1-2000", "epoll"),
        ("100000", "uring"),
        ("300000", "epoll"),
        ("log:1:50000", "uring"),
    ] {
        for workload in ["mixed:50", "mget:5"] {
            let args =
                format!("-w {workload} -k 50 -d {size} -n 1500 -c 3 -P 4 --warmup 0 --loop {kind}");
            let (json, good) = load(redis.port, &args);
            assert!(good, "{args}: {json:#}");
        }
    }
    // Several threads share keys and connections.
    let (json, good) = load(
        redis.port,
        "-w mixed:50 -k 1001 -n 3001 -c 7 -t 3 -P 2 --warmup 0 --distribution sequential",
    );
    assert!(good, "{json:#}");
    assert_eq!(
        (json["requests"].as_u64(), json["threads"].as_u64()),
        (Some(3001), Some(3))
    );
    // An open loop queues on connections whose output is under way.
    for kind in ["uring", "epoll"] {
        let args =
            format!("-w set -k 50 -d 200000 -r 4000 -s 1 --warmup 0.1 -c 2 -P 8 --loop {kind}");
        let (json, good) = load(redis.port, &args);
        assert!(good, "{args}: {json:#}");
    }
}

#[test]
fn the_server_s_cost_is_reported() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let pid = redis.child.id();
    let (json, good) = load(
        redis.port,
        &format!("-w get -k 1000 -c 10 -s 1 --warmup 0.2 --server-pid {pid}"),
    );
    assert!(good, "{json:#}");
    let cpu = json["server"]["cpu_us_per_request"].as_f64().unwrap();
    assert!((0.5..500.0).contains(&cpu), "{cpu}");
    assert!(json["server"]["rss_bytes"].as_u64().unwrap() > 1_000_000);
    assert!(json["client"]["cpu_us_per_request"].as_f64().unwrap() > 0.1);
}

#[test]
fn passwords_databases_and_socket_files_work() {
    let Some(redis) = Redis::start(&["--requirepass", "secret", "--unixsocket", "socket"]) else {
        return;
    };
    let out = bench(&[
        "load",
        "-p",
        &redis.port.to_string(),
        "-n",
        "10",
        "-w",
        "ping",
    ])
    .output()
    .unwrap();
    assert!(
        !out.status.success(),
        "without the password nothing is measured"
    );
    for resp in ["", "--resp3"] {
        let (json, good) = load(
            redis.port,
            &format!("-w set -k 10 -n 100 -c 2 -a secret --db 3 {resp}"),
        );
        assert!(good, "{json:#}");
    }
    let socket = redis.dir.join("socket");
    let (json, good) = load(
        1,
        &format!(
            "--unix {} -a secret -w get -k 10 -n 100 -c 2",
            socket.display()
        ),
    );
    assert!(good, "{json:#}");
    assert!(!load_fails("--unix /nonexistent/socket -w ping").is_empty());
}

fn load_fails(args: &str) -> String {
    let out = bench(&["load"])
        .args(args.split_whitespace())
        .output()
        .unwrap();
    assert!(!out.status.success());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn tls_is_spoken_and_checked() {
    let dir = std::env::temp_dir().join(format!("ringshard-bench-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ])
        // As its own authority, it must not claim to be one to pass for a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &file("key.pem"), "-out", &file("cert.pem")])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no openssl to make a certificate with");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let Some(redis) = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
        "--tls-auth-clients",
        "optional",
    ]) else {
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            eprintln!("skipped: this redis-server speaks no TLS");
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (i, trust) in ["--insecure".to_owned(), format!("--cacert {cert}")]
        .iter()
        .enumerate()
    {
        for kind in ["uring", "epoll"] {
            for more in [
                "-P 16 -n 3000",
                "-r 2000 -s 0.5",
                "-d 100000 -P 4 -n 300",
                "--resp3 -n 300",
            ] {
                let args = format!(
                    "--tls {trust} -w mixed:50 -k {} -c 3 {more} --warmup 0.1 --loop {kind}",
                    50 + i
                );
                let (json, good) = load(port, &args);
                assert!(good, "{args}: {json:#}");
            }
        }
    }
    let own = format!("--tls --cacert {cert} --cert {cert} --key {key} -w ping -n 10 -c 1");
    assert!(load(port, &own).1);
    // A certificate for another name, from no authority we know, or no TLS at all.
    assert!(
        load_fails(&format!(
            "-p {port} --tls --cacert {cert} --sni example.org -w ping"
        ))
        .contains("TLS")
    );
    assert!(load_fails(&format!("-p {port} --tls -w ping")).contains("--cacert"));
    assert!(load_fails(&format!("-p {} --tls --insecure -w ping", redis.port)).contains("TLS"));
    drop(redis);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The check against coordinated omission: the server stands still for 100 ms, and an open loop must show it at its
/// true size, in the maximum and in the share of requests that were due meanwhile.
#[test]
fn a_stall_shows_at_its_true_size_in_an_open_loop() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    for (kind, connections) in [("uring", 1), ("uring", 20), ("epoll", 20)] {
        let port = redis.port.to_string();
        let args =
            format!("-w get -k 100 -c {connections} -r 2000 -s 2.5 --warmup 0.3 --loop {kind}");
        let child = bench(&["load", "-p", &port, "--json", "-"])
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1300));
        redis.signal(libc::SIGSTOP);
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_millis(100));
        redis.signal(libc::SIGCONT);
        let stall_us = stopped.elapsed().as_micros() as f64;
        let out = child.wait_with_output().unwrap();
        let json: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(json["errors"], 0, "{json:#}");
        let at = |q: f64| {
            let points = json["curve"].as_array().unwrap();
            let point = points.iter().min_by(|a, b| {
                let d = |p: &Value| (p[0].as_f64().unwrap() - q).abs();
                d(a).total_cmp(&d(b))
            });
            point.unwrap()[1].as_f64().unwrap()
        };
        let max = json["latency"]["max_us"].as_f64().unwrap();
        // Not less than the stall. (More is the machine's business: other tests run beside this one.)
        assert!(
            max >= 0.97 * stall_us,
            "{args}: a stall of {stall_us} µs shows as {max}"
        );
        assert!(
            max <= stall_us + 400_000.0,
            "{args}: a stall of {stall_us} µs shows as {max}"
        );
        // Of 2.5 s, 100 ms are 4 %: the requests due in it waited from 100 ms down to nothing, so the upper half
        // of them, 2 % of all, waited at least 50 ms. A closed loop would show one request per connection.
        let p98 = at(0.98);
        assert!(p98 >= 35_000.0, "{args}: p98 is {p98} µs");
        let p995 = json["latency"]["p99_us"].as_f64().unwrap();
        assert!(p995 >= 60_000.0, "{args}: p99 is {p995} µs");
    }
}

#[test]
fn an_interrupt_ends_a_run_with_what_was_measured() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let port = redis.port.to_string();
    let child = bench(&[
        "load", "-p", &port, "-w", "ping", "-s", "60", "--warmup", "0.1", "--json", "-",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    // SAFETY: no pointers are passed; the child is ours and not reaped.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let began = Instant::now();
    let out = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["interrupted"], true);
    assert!(json["requests"].as_u64().unwrap() > 100);
}

#[test]
fn a_server_that_dies_fails_the_run() {
    let Some(mut redis) = Redis::start(&[]) else {
        return;
    };
    let port = redis.port.to_string();
    let child = bench(&[
        "load", "-p", &port, "-w", "ping", "-s", "20", "--warmup", "0.1", "--json", "-",
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    redis.child.kill().unwrap();
    redis.child.wait().unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(!out.status.success());
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["failed"], true);
    assert!(
        json["error_samples"][0]
            .as_str()
            .unwrap()
            .contains("connection lost"),
        "{json:#}"
    );
}

#[test]
fn cluster_mode_sends_keys_to_their_slots() {
    let Some(redis) = Redis::start(&["--cluster-enabled", "yes"]) else {
        return;
    };
    let ask = |args: &[&str]| {
        let out = Command::new("redis-cli")
            .args(["-p", &redis.port.to_string()])
            .args(args)
            .output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default()
    };
    if !ask(&["cluster", "addslotsrange", "0", "16383"]).contains("OK") {
        eprintln!("skipped: redis-cli is not installed");
        return;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ask(&["cluster", "info"]).contains("cluster_state:ok") {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    }
    let (json, good) = load(redis.port, "-w mixed -k 500 -n 2000 -c 4 --cluster");
    assert!(good, "{json:#}");
    assert!(
        load_fails(&format!("-p {} -w mget --cluster", redis.port))
            .contains("cluster mode refuses")
    );
}

#[test]
fn compare_measures_two_rows_and_names_what_is_missing() {
    if Redis::start(&[]).is_none() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("ringshard-bench-compare-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rows = dir.join("engines.toml");
    std::fs::write(
        &rows,
        "[[engine]]\nname='again'\nprogram='redis-server'\nargs=['--port','{port}','--save','','--dir','{dir}']\n\
         [[engine]]\nname='broken'\nprogram='redis-server'\nargs=['--port','{port}','--no-such-directive','1']\n\
         [[engine]]\nname='missing'\nprogram='no-such-server'\nargs=['{port}']\n",
    )
    .unwrap();
    let out = bench(&[
        "compare",
        "-e",
        "redis,again,broken,missing",
        "-w",
        "get,set",
        "-n",
        "2",
        "-s",
        "0.3",
        "-k",
        "1000",
    ])
    .args([
        "--warmup",
        "0.1",
        "--engine-file",
        rows.to_str().unwrap(),
        "-o",
        dir.join("out").to_str().unwrap(),
    ])
    .output()
    .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{stdout}\n{stderr}");
    assert!(stderr.contains("missing"), "{stderr}");
    assert!(stderr.contains("left out: broken"), "{stderr}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(dir.join("out/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["base"], "redis");
    let rows = summary["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4, "two steps on two engines");
    assert!(rows.iter().all(|r| r["rounds"] == 2 && r["errors"] == 0));
    let readme = std::fs::read_to_string(dir.join("out/README.md")).unwrap();
    assert!(
        readme.contains("Redis") && readme.contains("left out") && !readme.contains("/tmp/"),
        "{readme}"
    );
    assert_eq!(std::fs::read_dir(dir.join("out/raw")).unwrap().count(), 16);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn own_cost_is_measured_beside_redis_benchmark() {
    if Redis::start(&[]).is_none() {
        return;
    }
    let file = std::env::temp_dir().join(format!(
        "ringshard-bench-own-cost-{}.json",
        std::process::id()
    ));
    let out = bench(&[
        "own-cost",
        "-n",
        "1",
        "-s",
        "0.2",
        "-P",
        "16",
        "-k",
        "1000",
        "--json",
        file.to_str().unwrap(),
    ])
    .output()
    .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let runs: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let runs = runs.as_array().unwrap();
    assert_eq!(runs[0]["tool"], "ringshard-bench");
    for run in runs {
        assert!(
            run["client_us_per_request"].as_f64().unwrap() > 0.0,
            "{run:#}"
        );
        assert!(
            run["requests_per_second"].as_f64().unwrap() > 0.0,
            "{run:#}"
        );
    }
}

/// Two revisions of a stand-in for this project's server: a program called `ringshard` that turns into Redis.
#[test]
fn ab_builds_and_compares_two_revisions() {
    if Redis::start(&[]).is_none() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("ringshard-bench-ab-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("src")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    let git = |args: &[&str]| {
        let out = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"])
            .args(args)
            .current_dir(&dir)
            .output();
        out.is_ok_and(|o| o.status.success())
    };
    if !git(&["init", "-q"]) {
        eprintln!("skipped: git is not installed");
        return;
    }
    write(
        "Cargo.toml",
        "[package]\nname = 'ringshard'\nversion = '0.0.0'\nedition = '2021'\n[workspace]\n",
    );
    write(".gitignore", "target/\n");
    for revision in ["one", "two"] {
        let main = r#"
            use std::os::unix::process::CommandExt;
            fn main() {
                let args: Vec<String> = std::env::args().collect();
                let port = args.iter().position(|a| a == "--port").unwrap() + 1;
                let mut redis = std::process::Command::new("redis-server");
                panic!("{}", redis.args(["--port", &args[port], "--save", ""]).exec());
            }
            // REVISION
        "#;
        write("src/main.rs", &main.replace("REVISION", revision));
        assert!(git(&["add", "-A"]) && git(&["commit", "-qm", revision]));
    }
    let out = bench(&[
        "ab", "HEAD~1", "HEAD", "-w", "get", "-n", "2", "-s", "0.3", "-k", "1000", "--warmup",
        "0.1",
    ])
    .args(["-o", dir.join("out").to_str().unwrap()])
    .current_dir(&dir)
    .output()
    .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr.matches("building").count(), 2, "{stderr}");
    let summary: Value =
        serde_json::from_slice(&std::fs::read(dir.join("out/summary.json")).unwrap()).unwrap();
    let names: Vec<&str> = summary["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["engine"].as_str().unwrap())
        .collect();
    assert!(
        names.len() == 2 && names[0].starts_with("a-") && names[1].starts_with("b-"),
        "{names:?}"
    );
    // The checkouts are gone; the working copy is as it was.
    let list = Command::new("git")
        .args(["worktree", "list"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout).lines().count(), 1);
    std::fs::remove_dir_all(&dir).unwrap();
}
