//! `MIGRATE`'s way to another server: sockets that are kept for a while, and threads that wait on them.
//!
//! A migration is spoken out on a thread of its own, so that no shard waits for the target. A socket is taken out of the
//! store while it is in use, so that two migrations to one target never share one.
//! Counterpart: `migrateGetSocket` and what follows it in `cluster.c`.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringshard_shards::commands::migrate::{Migrated, Migration};
use ringshard_shards::resp::Reply;

/// Sockets that are kept (Redis: `MIGRATE_SOCKET_CACHE_ITEMS`).
const KEPT_SOCKETS: usize = 64;

/// How long one is kept unused (Redis: `MIGRATE_SOCKET_CACHE_TTL`).
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Migrations at once; more wait their turn.
const THREADS: usize = 16;

/// Longest line of a reply; what is longer is cut.
const LINE_BYTES: usize = 1024;

/// A connection to a target.
struct Socket {
    stream: TcpStream,
    /// Bytes read, of which `at` are used up.
    read: Vec<u8>,
    at: usize,
    /// The database selected there, if that is known.
    db: Option<i64>,
    used: Instant,
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    threads: usize,
}

/// See the module's page.
#[derive(Default)]
pub struct Migrations {
    kept: Mutex<HashMap<(String, String), Vec<Socket>>>,
    queue: Arc<Mutex<Queue>>,
}

/// Where a migration went wrong.
enum Failure {
    Connecting,
    Writing(io::Error),
    /// Before the first answer to a key came, or later.
    Reading(io::Error, Vec<bool>),
}

impl Migrations {
    /// Sockets that are kept.
    pub fn kept(&self) -> usize {
        self.kept.lock().expect("no holder panics").values().map(Vec::len).sum()
    }

    /// Closes what has not been used for long.
    pub fn close_idle(&self) {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.retain(|_, sockets| {
            sockets.retain(|socket| socket.used.elapsed() <= KEPT_FOR);
            !sockets.is_empty()
        });
    }

    /// Has `work` done on a thread, as soon as there is one.
    pub fn on_a_thread(&self, work: Work) {
        let mut queue = self.queue.lock().expect("no holder panics");
        queue.waiting.push_back(work);
        if queue.threads == THREADS {
            return;
        }
        let shared = self.queue.clone();
        let run = move || {
            loop {
                let next = {
                    let mut queue = shared.lock().expect("no holder panics");
                    let next = queue.waiting.pop_front();
                    queue.threads -= next.is_none() as usize;
                    next
                };
                match next {
                    Some(work) => work(),
                    None => return,
                }
            }
        };
        match std::thread::Builder::new().name("migrate".into()).spawn(run) {
            Ok(_) => queue.threads += 1,
            // One of those that there are will come to it; where there is none, it is done here.
            Err(_) if queue.threads > 0 => {}
            Err(_) => {
                let work = queue.waiting.pop_front();
                drop(queue);
                if let Some(work) = work {
                    work();
                }
            }
        }
    }

    /// Takes keys to their target. A kept socket may have been closed by the other side: then, and whenever nothing can
    /// have been done there yet, a new one is tried, unless time has run out.
    pub fn run(&self, migration: &Migration) -> Migrated {
        let mut may_retry = true;
        loop {
            let failure = match self.attempt(migration) {
                Ok(migrated) => return migrated,
                Err(failure) => failure,
            };
            let (error, what, done) = match failure {
                Failure::Connecting => {
                    let text = "IOERR error or timeout connecting to the client";
                    return Migrated { done: Vec::new(), result: Err(text.into()) };
                }
                Failure::Writing(error) => (error, "writing", Vec::new()),
                Failure::Reading(error, done) => (error, "reading", done),
            };
            if may_retry && done.is_empty() && !ran_out(&error) {
                may_retry = false;
                continue;
            }
            return Migrated { done, result: Err(format!("IOERR error or timeout {what} to target instance")) };
        }
    }

    fn attempt(&self, migration: &Migration) -> Result<Migrated, Failure> {
        let timeout = Duration::from_millis(migration.timeout_ms);
        let target = (migration.host.clone(), migration.port.clone());
        let mut socket = match self.take(&target) {
            Some(socket) => socket,
            None => Socket::connect(&target, timeout).map_err(|_| Failure::Connecting)?,
        };
        let selects = socket.db != Some(migration.db);
        let preamble = preamble(migration, selects);
        socket.write(&preamble, timeout).map_err(Failure::Writing)?;
        socket.write(&migration.restores, timeout).map_err(Failure::Writing)?;
        let mut refused = None;
        for _ in 0..migration.auth.is_some() as usize + selects as usize {
            let line = socket.read_line(timeout).map_err(|error| Failure::Reading(error, Vec::new()))?;
            refused = refused.or(line.strip_prefix(b"-").map(<[u8]>::to_vec));
        }
        let preamble_refused = refused.is_some();
        let mut done = Vec::with_capacity(migration.count);
        for _ in 0..migration.count {
            let line = match socket.read_line(timeout) {
                Ok(line) => line,
                // What the target said of others comes before this.
                Err(_) if refused.is_some() => return Ok(migrated(done, refused)),
                Err(error) => return Err(Failure::Reading(error, done)),
            };
            let error = line.strip_prefix(b"-");
            done.push(error.is_none() && !preamble_refused);
            refused = refused.or(error.map(<[u8]>::to_vec));
        }
        socket.db = refused.is_none().then_some(migration.db);
        socket.used = Instant::now();
        self.keep(target, socket);
        Ok(migrated(done, refused))
    }

    fn take(&self, target: &(String, String)) -> Option<Socket> {
        let mut kept = self.kept.lock().expect("no holder panics");
        let sockets = kept.get_mut(target)?;
        let socket = sockets.pop();
        if sockets.is_empty() {
            kept.remove(target);
        }
        socket
    }

    fn keep(&self, target: (String, String), socket: Socket) {
        let mut kept = self.kept.lock().expect("no holder panics");
        if kept.values().map(Vec::len).sum::<usize>() >= KEPT_SOCKETS {
            // Any will do.
            let other = kept.keys().next().cloned();
            other.map(|other| kept.remove(&other));
        }
        kept.entry(target).or_default().push(socket);
    }
}

/// What comes before the keys.
fn preamble(migration: &Migration, selects: bool) -> Vec<u8> {
    let mut commands: Vec<Vec<&[u8]>> = Vec::new();
    let db = migration.db.to_string();
    if let Some((user, password)) = &migration.auth {
        let mut words: Vec<&[u8]> = vec![b"AUTH"];
        words.extend(user.as_deref());
        words.push(password);
        commands.push(words);
    }
    if selects {
        commands.push(vec![b"SELECT", db.as_bytes()]);
    }
    let mut bytes = Vec::new();
    for words in commands {
        let mut reply = Reply::new(&mut bytes, 2);
        reply.array(words.len());
        words.iter().for_each(|word| reply.bulk(word));
    }
    bytes
}

fn migrated(done: Vec<bool>, refused: Option<Vec<u8>>) -> Migrated {
    let text = |line: Vec<u8>| format!("ERR Target instance replied with error: {}", String::from_utf8_lossy(&line));
    Migrated { done, result: refused.map_or(Ok(()), |line| Err(text(line))) }
}

fn ran_out(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What is left of a time that began then; an error when nothing is.
fn left(began: Instant, timeout: Duration) -> io::Result<Duration> {
    timeout.checked_sub(began.elapsed()).filter(|left| !left.is_zero()).ok_or(ErrorKind::TimedOut.into())
}

impl Socket {
    fn connect((host, port): &(String, String), timeout: Duration) -> io::Result<Socket> {
        let began = Instant::now();
        let port: u16 = port.trim().parse().map_err(|_| ErrorKind::InvalidInput)?;
        let mut last = ErrorKind::NotFound.into();
        for address in (host.as_str(), port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(began, timeout)?) {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(Socket { stream, read: Vec::new(), at: 0, db: None, used: Instant::now() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes all of it, each piece within the time.
    fn write(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(timeout))?;
        bytes.chunks(64 * 1024).try_for_each(|piece| self.stream.write_all(piece))
    }

    /// The next line, without its end, and cut where it is too long.
    fn read_line(&mut self, timeout: Duration) -> io::Result<Vec<u8>> {
        let began = Instant::now();
        let mut line = Vec::new();
        loop {
            let rest = &self.read[self.at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            line.extend_from_slice(&piece[..piece.len().min(LINE_BYTES - line.len())]);
            match end {
                Some(end) => {
                    self.at += end + 1;
                    if line.ends_with(b"\r") {
                        line.pop();
                    }
                    return Ok(line);
                }
                None => (self.at, self.read) = (0, Vec::new()),
            }
            self.stream.set_read_timeout(Some(left(began, timeout)?))?;
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.read.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
