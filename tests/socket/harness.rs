//! Servers for tests: started on a free port in a directory of their own, watched through their log, and gone with
//! everything they made when the test drops them.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::wire::{Conn, Value};

/// How long a server may take to start or to stop: far more than it needs, for machines that are busy.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringshard");

/// Which loop a server runs on, and on how many shards.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub event_loop: &'static str,
    pub shards: u32,
}

impl Placement {
    /// How many threads the shards have: each its own, or one for several, so that either is tried on either loop.
    pub fn threads(&self) -> u32 {
        match (self.event_loop == "uring") == (self.shards < 8) {
            true => self.shards.div_ceil(2).min(2),
            false => self.shards,
        }
    }

    /// Directives that ask for it.
    pub fn args(&self) -> Vec<String> {
        let (shards, threads) = (self.shards.to_string(), self.threads().to_string());
        ["--event-loop", self.event_loop, "--shards", &shards, "--shard-threads", &threads].map(String::from).to_vec()
    }

    /// Starts a server with further directives.
    pub fn start(&self, more: &[&str]) -> Server {
        Server::start(&[self.args(), more.iter().map(|word| word.to_string()).collect()].concat())
    }

    /// Starts a server whose files are in `dir`, and which takes `DEBUG`.
    pub fn start_in(&self, dir: &Dir, more: &[&str]) -> Server {
        let files = ["--dir", dir.0.to_str().unwrap(), "--enable-debug-command", "yes"];
        self.start(&[&files[..], more].concat())
    }
}

/// The loops that this machine lets tests run on; says once why io_uring is not among them.
pub fn event_loops() -> &'static [&'static str] {
    static LOOPS: OnceLock<Vec<&'static str>> = OnceLock::new();
    LOOPS.get_or_init(|| match io_uring_refused() {
        None => vec!["uring", "epoll"],
        Some(reason) => {
            eprintln!("skipped: everything on the uring loop, for this machine refuses io_uring ({reason})");
            vec!["epoll"]
        }
    })
}

/// Why the kernel does not make the kind of ring that the server needs, asked of the kernel and not of the server.
pub fn io_uring_refused() -> Option<String> {
    const SINGLE_ISSUER: u32 = 1 << 12;
    const DEFER_TASKRUN: u32 = 1 << 13;
    // `struct io_uring_params`: 120 bytes, the flags are the third word.
    let mut params = [0u32; 30];
    params[2] = SINGLE_ISSUER | DEFER_TASKRUN;
    // SAFETY: the parameters are as long as the kernel's structure; the descriptor it returns is closed at once.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 4u32, params.as_mut_ptr());
        if fd < 0 {
            return Some(std::io::Error::last_os_error().to_string());
        }
        libc::close(fd as i32);
    }
    None
}

/// Runs `test` on each loop and with each number of shards.
pub fn everywhere(shards: &[u32], test: impl Fn(Placement)) {
    for event_loop in event_loops() {
        for shards in shards {
            let placement = Placement { event_loop, shards: *shards };
            eprintln!("-- {placement:?}");
            test(placement);
        }
    }
}

/// The digest of all that a server holds.
pub fn digest(conn: &mut Conn) -> String {
    match conn.cmd("DEBUG DIGEST") {
        Value::Simple(digest) => digest,
        other => panic!("no digest: {other:?}"),
    }
}

/// A field of `INFO persistence`.
pub fn field(conn: &mut Conn, name: &str) -> String {
    let info = conn.cmd("INFO persistence");
    let text = String::from_utf8_lossy(info.bytes()).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name} is in {text}")).to_string()
}

/// A port that nothing listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A directory that goes with its owner.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringshard-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub struct Server {
    child: Child,
    pub port: u16,
    _dir: Dir,
    log: PathBuf,
    exited: Option<ExitStatus>,
    /// The test has it crash, and looks at its report.
    crashes: bool,
}

/// How a server is to be started, where the usual way will not do.
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The configuration file, which must be the first argument.
    pub config_file: Option<PathBuf>,
    /// Run in the child before the program: as little as a forked process may do.
    #[allow(clippy::type_complexity)]
    pub before_exec: Option<Box<dyn FnMut() -> std::io::Result<()> + Send + Sync>>,
    pub dir: Dir,
}

impl Launch {
    pub fn new(args: &[String]) -> Launch {
        Launch { program: PROGRAM.into(), args: args.to_vec(), config_file: None, before_exec: None, dir: Dir::new() }
    }

    /// Starts the process, and leaves the rest to the caller.
    pub fn spawn(self, port: u16) -> Server {
        let log = self.dir.join("log");
        let mut command = Command::new(&self.program);
        command.args(&self.config_file);
        command.args(["--port", &port.to_string(), "--dir", self.dir.0.to_str().unwrap()]);
        command.args(&self.args).stdin(Stdio::null());
        command.stdout(File::create(&log).unwrap()).stderr(File::options().append(true).open(&log).unwrap());
        let mut before_exec = self.before_exec;
        // SAFETY: only system calls, which are allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // A test that is killed takes its servers along.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                before_exec.as_mut().map_or(Ok(()), |run| run())
            });
        }
        let mut spawned = command.spawn();
        // A program that was just copied is still open for writing in children that other tests fork meanwhile, until
        // these have become what they run.
        for _ in 0..200 {
            if !matches!(&spawned, Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            spawned = command.spawn();
        }
        let child = spawned.expect("the server's program runs");
        Server { child, port, _dir: self.dir, log, exited: None, crashes: false }
    }

    /// Starts a server and waits until it is ready.
    pub fn start(self) -> Server {
        let mut server = self.spawn(free_port());
        server.wait_until_ready();
        server
    }
}

impl Server {
    /// Starts a server with these directives and waits until it is ready.
    pub fn start(args: &[String]) -> Server {
        for _ in 0..5 {
            let mut server = Launch::new(args).spawn(free_port());
            if server.try_wait_until_ready() {
                return server;
            }
            // Between finding a free port and listening on it somebody else may have taken it.
            assert!(server.log().contains("Address already in use"), "{}", server.log());
        }
        panic!("no free port in five attempts");
    }

    /// Runs the program to its end with exactly these words; its exit code, and what it printed.
    pub fn run_to_end(args: &[String]) -> (Option<i32>, String) {
        let mut server = Launch::new(args).spawn(free_port());
        let status = server.wait_for_end();
        (status.code(), server.log())
    }

    /// Waits until the log says that connections are taken.
    pub fn wait_until_ready(&mut self) {
        assert!(self.try_wait_until_ready(), "the server ended at its start:\n{}", self.log());
    }

    /// Waits until the log says that connections are taken; false if the process ended instead.
    pub fn try_wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains("Ready to accept connections") {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.exited = Some(status);
                return false;
            }
            assert!(Instant::now() < deadline, "the server is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    pub fn connect(&self) -> Conn {
        self.connect_to("127.0.0.1")
    }

    pub fn connect_to(&self, address: &str) -> Conn {
        Conn::tcp(TcpStream::connect((address, self.port)).expect("the server takes connections"))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its number is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the process to end.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited {
                return status;
            }
            self.exited = self.child.try_wait().unwrap();
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A number from `/proc/<pid>/status`, such as `VmHWM` in KiB.
    pub fn status_field(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("the field is there");
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A crash report is what the test wants.
    pub fn expect_crash(&mut self) {
        self.crashes = true;
    }

    /// CPU time that the process has used, in clock ticks of 1/100 s.
    pub fn cpu_ticks(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The second field is the name, in parentheses; utime and stime are the 14th and 15th.
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = self.exited.is_none() && self.child.try_wait().is_ok_and(|status| status.is_some());
        if self.exited.is_none() && !died {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let log = self.log();
        let crashed = died || (!self.crashes && log.contains("BUG REPORT START"));
        if std::thread::panicking() || crashed {
            let from = log.len().saturating_sub(8000);
            eprintln!("the server's log ends:\n{}", log.get(from..).unwrap_or(&log));
        }
        if crashed && !std::thread::panicking() {
            panic!("the server died during the test");
        }
    }
}

/// Waits for a condition, patiently.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Debian's server, to compare with; `None` where it is not installed, after saying so.
pub struct Redis {
    child: Child,
    pub port: u16,
    _dir: Dir,
}

impl Redis {
    pub fn start(more: &[&str]) -> Option<Redis> {
        let (port, dir) = (free_port(), Dir::new());
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--dir", dir.0.to_str().unwrap()]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: one system call, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: redis-server cannot be started ({error})");
                return None;
            }
        };
        let redis = Redis { child, port, _dir: dir };
        wait_until("redis-server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(redis)
    }

    pub fn connect(&self) -> Conn {
        Conn::tcp(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program can be run at all; says what is skipped if not.
pub fn installed(program: &str, argument: &str, skipped: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => true,
        _ => {
            eprintln!("skipped: {skipped}, for {program} is not installed");
            false
        }
    }
}

/// Makes a file that any user can read and run.
pub fn copy_for_everyone(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The server's program.
pub fn program() -> &'static Path {
    Path::new(PROGRAM)
}
