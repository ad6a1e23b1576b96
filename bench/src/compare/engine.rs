//! Engines: servers that can be compared, and one of them running.
//!
//! The one idea: an engine is a row of a file (`engines.toml` is built in), so that all are started, pinned, probed
//! and stopped the same way. A running one that is not being measured is halted with SIGSTOP: it keeps its data and
//! takes no CPU, which lets measurements of several engines alternate within seconds.

use crate::load::connect::{Client, Endpoint, Greeting};
use crate::load::reply::{Head, head};
use crate::procstat;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The built-in rows.
pub const BUILTIN: &str = include_str!("engines.toml");

/// A row.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// As on the command line.
    pub name: String,
    /// As in tables.
    #[serde(default)]
    pub label: String,
    /// What to run.
    pub program: String,
    /// With these arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Further environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Part of these suites only.
    #[serde(default)]
    pub suites: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    engine: Vec<Engine>,
}

/// Reads rows; names must differ.
pub fn parse(text: &str) -> Result<Vec<Engine>, String> {
    let rows: Rows = toml::from_str(text).map_err(|e| format!("engine file: {e}"))?;
    let mut engines = rows.engine;
    for (i, engine) in engines.iter().enumerate() {
        if engine.name.is_empty() || engine.program.is_empty() {
            return Err(format!(
                "engine file: row {} lacks a name or a program",
                i + 1
            ));
        }
        if engine
            .name
            .contains(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        {
            return Err(format!(
                "engine file: '{}': a name has letters, digits, '-', '_' and '.'",
                engine.name
            ));
        }
        if engines[..i].iter().any(|e| e.name == engine.name) {
            return Err(format!("engine file: '{}' stands there twice", engine.name));
        }
        if !engine.args.iter().any(|a| a.contains("{port}")) {
            return Err(format!(
                "engine file: '{}': no argument names {{port}}",
                engine.name
            ));
        }
    }
    for engine in &mut engines {
        if engine.label.is_empty() {
            engine.label = engine.name.clone();
        }
    }
    Ok(engines)
}

impl Engine {
    /// Finds the program; `None` if it is not installed.
    pub fn locate(&self, ringshard: Option<&Path>) -> Option<PathBuf> {
        if self.program == "{ringshard}" {
            let beside = || Some(std::env::current_exe().ok()?.with_file_name("ringshard"));
            return ringshard
                .map(Path::to_owned)
                .or_else(beside)
                .filter(|p| p.is_file());
        }
        if self.program.contains('/') {
            return Some(PathBuf::from(&self.program)).filter(|p| p.is_file());
        }
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|d| d.join(&self.program))
            .find(|p| p.is_file())
    }

    /// The command line with its placeholders, as it may stand in a report.
    pub fn command_line(&self) -> String {
        let program = if self.program == "{ringshard}" {
            "ringshard"
        } else {
            &self.program
        };
        let quoted = self.args.iter().map(|a| {
            if a.is_empty() {
                "\"\"".to_owned()
            } else {
                a.clone()
            }
        });
        std::iter::once(program.to_owned())
            .chain(quoted)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub endpoint: Endpoint,
    dir: PathBuf,
    halted: bool,
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: no pointers are passed; the child is not reaped yet, so the pid is its.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

impl Server {
    /// Starts an engine on these CPUs and waits until it answers.
    pub fn start(
        engine: &Engine,
        program: &Path,
        cpus: &[usize],
        threads: usize,
    ) -> Result<Server, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ringshard-bench-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .map_err(|e| format!("cannot create {}: {e}", dir.display()))?;
        let io = |e: std::io::Error| format!("{}: {e}", engine.name);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(io)?
            .port();
        let fill = |arg: &String| {
            arg.replace("{port}", &port.to_string())
                .replace("{threads}", &threads.to_string())
                .replace("{cpus}", &cpus.len().to_string())
                .replace("{dir}", &dir.to_string_lossy())
        };
        let log = File::create(dir.join("log")).map_err(io)?;
        let mut command = Command::new(program);
        command
            .args(engine.args.iter().map(fill))
            .envs(&engine.env)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log)
            // Out of the terminal's group: Ctrl-C is ours, and it ends servers in order.
            .process_group(0);
        let cpus = cpus.to_vec();
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                procstat::pin(0, &cpus)?;
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let child = command
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", engine.name))?;
        let endpoint = Endpoint::tcp("127.0.0.1", port)?;
        let mut server = Server {
            child,
            endpoint,
            dir,
            halted: false,
        };
        server
            .probe()
            .map_err(|e| format!("{}: {e}", engine.name))?;
        Ok(server)
    }

    fn probe(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let mut last: Vec<&str> = log.lines().rev().take(3).collect();
                last.reverse();
                return Err(format!("ended at once ({status}): {}", last.join(" / ")));
            }
            if let Ok(mut client) = Client::dial(&self.endpoint)
                && client.ask(&["PING"]).is_ok_and(|r| r == b"+PONG\r\n")
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("does not answer PING within 20 s".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection for questions.
    pub fn client(&self) -> Result<Client, String> {
        Client::connect(&self.endpoint, &Greeting::default())
    }

    /// A number out of `INFO`.
    pub fn info(&self, field: &str) -> Option<u64> {
        let raw = self.client().ok()?.ask(&["INFO"]).ok()?;
        let (Head::Bulk(text), _) = head(&raw)? else {
            return None;
        };
        let text = String::from_utf8_lossy(text);
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    }

    /// What it says of its version.
    pub fn version(&self) -> Option<String> {
        let raw = self.client().ok()?.ask(&["INFO", "server"]).ok()?;
        let (Head::Bulk(text), _) = head(&raw)? else {
            return None;
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let field = |name: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
        };
        [
            "ringshard_version",
            "valkey_version",
            "dragonfly_version",
            "garnet_version",
            "redis_version",
        ]
        .iter()
        .find_map(|f| field(f))
    }

    /// Halts it, or lets it go on.
    pub fn halt(&mut self, halt: bool) {
        if halt != self.halted {
            signal(self.pid(), if halt { libc::SIGSTOP } else { libc::SIGCONT });
            self.halted = halt;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.halt(false);
        signal(self.pid(), libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It was asked.
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_rows_are_sound() {
        let engines = parse(BUILTIN).unwrap();
        for name in [
            "ringshard-uring",
            "ringshard-epoll",
            "redis",
            "valkey",
            "dragonfly",
            "keydb",
            "garnet",
        ] {
            assert!(engines.iter().any(|e| e.name == name), "{name}");
        }
        assert!(engines[0].command_line().contains("--save \"\""));
    }

    #[test]
    fn bad_rows_are_named() {
        let good = "[[engine]]\nname='a'\nprogram='p'\nargs=['{port}']\n";
        assert_eq!(parse(good).unwrap()[0].label, "a");
        for (bad, word) in [
            (good.repeat(2), "twice"),
            (good.replace("'a'", "'a/b'"), "letters"),
            (good.replace("{port}", "x"), "{port}"),
            (good.replace("name='a'\n", ""), "name"),
            (format!("{good}colour='red'\n"), "colour"),
        ] {
            let e = parse(&bad).unwrap_err();
            assert!(e.contains(word), "{e}");
        }
    }

    #[test]
    fn what_is_not_installed_is_not_found() {
        let mut engine = parse(BUILTIN).unwrap().remove(0);
        assert_eq!(
            engine.locate(Some(Path::new("/nonexistent/ringshard"))),
            None
        );
        engine.program = "no-such-server-anywhere".to_owned();
        assert_eq!(engine.locate(None), None);
        engine.program = "sh".to_owned();
        assert!(engine.locate(None).is_some());
    }
}
