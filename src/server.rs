//! The server's life: configuration, databases, listeners, loops, and its end. Counterpart: `server.c`.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::*};
use std::sync::{Arc, OnceLock};

use glommio::{LocalExecutorBuilder, Placement};
use ringshard_shards::acl::Users;
use ringshard_shards::aof::State as LogState;
use ringshard_shards::config::{AppendFsync, Config, EventLoop as Choice};
use ringshard_shards::router::ShardId;
use ringshard_shards::shard::{Shard, Shutdown};
use ringshard_shards::shared::Shared;

use crate::config::{self, Startup};
use crate::event_loop::epoll::{Epoll, EpollSet};
use crate::event_loop::ring::{self, Ring};
use crate::event_loop::uring::Uring;
use crate::event_loop::{EventLoop, FileWork, Poller, Seat};
use crate::host::{Background, LoopCounters, Process};
use crate::mailbox::{Mail, Mailboxes};
use crate::migrate::Migrations;
use crate::net::{Acceptor, Listening};
use crate::oom_score::OomScore;
use crate::persistence::aof::{self, Log};
use crate::persistence::disk::{Disk, RealDisk};
use crate::persistence::rdb::BackgroundSave;
use crate::persistence::{check, load};
use crate::signals::{self, Wake};
use crate::tls::Tls;
use crate::{clock, log, net};

/// Memory that glommio registers for each executor's file I/O. Its default of 10 MiB does not fit the usual memlock
/// limit of 8 MiB.
const GLOMMIO_IO_MEMORY: usize = 64 * 1024;

/// Entries of glommio's rings; the network has its own.
const GLOMMIO_RING_DEPTH: usize = 16;

/// What all threads share beside the machine's own [`Shared`].
pub struct Server {
    /// The machine's shared part.
    pub shared: Arc<Shared>,
    /// Every shard's mailbox.
    pub mailboxes: Arc<Mailboxes>,
    /// Where pieces of snapshots go.
    pub snapshots: BackgroundSave,
    /// Where the log goes.
    pub log: Arc<Log>,
    config_file: Option<PathBuf>,
    shutdown: AtomicBool,
    exit_code: AtomicU8,
    loops: Arc<LoopCounters>,
    /// What takes keys to other servers.
    pub migrations: Arc<Migrations>,
    /// The listening sockets.
    pub listening: Arc<Listening>,
}

impl Server {
    /// A client asked for the end.
    pub fn request_shutdown(&self, _save: bool, _now: bool) {
        self.shutdown.store(true, SeqCst);
        signals::notify();
    }

    /// A signal's shutdown failed, since the data could not be saved.
    pub fn shutdown_failed(&self) {
        log::warning("Signal received but errors trying to shut down the server, check the logs for more information");
    }

    /// Writes the configuration in force to its file, with `all` what is as by default too.
    ///
    /// # Errors
    /// The reply's text.
    pub fn rewrite_config(&self, all: bool) -> Result<(), String> {
        let Some(path) = &self.config_file else {
            return Err("ERR The server is running without a config file".into());
        };
        let users = self.shared.users().config_lines();
        match config::rewrite_file(path, &self.shared.config(), Some(&users), all) {
            Ok(()) => {
                log::notice("CONFIG REWRITE executed with success.");
                Ok(())
            }
            Err(error) => {
                let text = net::os_text(&error);
                log::warning(format!("CONFIG REWRITE failed: {text}"));
                Err(format!("ERR Rewriting config file: {text}"))
            }
        }
    }

    /// Takes the users of the `aclfile` over.
    ///
    /// # Errors
    /// The reply's text.
    pub fn load_users(&self) -> Result<(), String> {
        let config = self.shared.config();
        let text = config::read_users(&config.aclfile).map_err(|text| format!("ERR {text}"))?;
        self.shared.load_users(&text, &config).map_err(|text| format!("ERR {text}"))
    }

    /// Writes the users to the `aclfile`.
    ///
    /// # Errors
    /// The reply's text.
    pub fn save_users(&self) -> Result<(), String> {
        let path = PathBuf::from(&self.shared.config().aclfile);
        config::write_users(&path, &self.shared.users().file_text()).map_err(|error| {
            log::warning(format!("Writing ACL file for ACL SAVE: {}", net::os_text(&error)));
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information".into()
        })
    }

    /// Puts changed directives in force that live outside the machine.
    pub fn config_changed(&self, names: &[&'static str]) {
        for name in names {
            match *name {
                "appendfsync" if self.shared.config().appendfsync == AppendFsync::Always => self.log.sync_soon(),
                "crash-log-enabled" => crate::crash::handle_signals(self.shared.config().crash_log_enabled),
                "loglevel" => log::set_level(self.shared.config().loglevel as u8),
                "proc-title-template" => crate::proc_title::set(&self.shared.config(), &self.shared.config_file),
                _ => {}
            }
        }
    }

    /// Counts a turn of a loop, how long it worked, and the commands it ran.
    pub fn note_turn(&self, shard: usize, worked_us: u64, commands: u64) {
        self.loops.note(shard, worked_us, commands);
    }

    /// Counts time that time events took.
    pub fn note_cron(&self, shard: usize, us: u64) {
        self.loops.note_cron(shard, us);
    }
}

/// Entry point.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(code) = check::run(&words) {
        return code;
    }
    crate::proc_title::init();
    signals::block();
    signals::die_on_panic();
    let startup = init_server_config();
    match run(startup) {
        Ok(code) => code,
        Err(text) => {
            log::warning(text);
            ExitCode::FAILURE
        }
    }
}

/// Defaults, then the file, then the command line; ends the process with Redis's report when they make no sense.
fn init_server_config() -> Startup {
    match config::load_from_env() {
        Ok(startup) => startup,
        Err(error) => error.exit(),
    }
}

/// All that `init_server` makes.
struct Built {
    server: Arc<Server>,
    tls: Arc<Tls>,
    seeds: Vec<u64>,
    choice: &'static str,
}

/// Raises the limit of open files for `maxclients`, or says how many clients there can be. Counterpart:
/// `adjustOpenFilesLimit`.
pub fn adjust_open_files(maxclients: u32) -> u32 {
    /// Descriptors the server needs for itself.
    const RESERVED: u64 = 32;
    let wanted = maxclients as u64 + RESERVED;
    // SAFETY: a valid place for the result, then a valid argument.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            log::warning(format!(
                "Unable to obtain the current NOFILE limit ({}), assuming 1024 and setting the max clients configuration accordingly.",
                io::Error::last_os_error()
            ));
            return maxclients.min((1024 - RESERVED) as u32);
        }
        let old = limit.rlim_cur;
        if old >= wanted {
            return maxclients;
        }
        let mut best = wanted;
        while best > old {
            let try_limit = libc::rlimit { rlim_cur: best, rlim_max: limit.rlim_max.max(best) };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &try_limit) == 0 {
                break;
            }
            best = best.saturating_sub(16);
        }
        let best = best.max(old);
        if best >= wanted {
            log::notice(format!("Increased maximum number of open files to {best} (it was originally set to {old})."));
            return maxclients;
        }
        let possible = best.saturating_sub(RESERVED) as u32;
        log::warning(format!(
            "You requested maxclients of {maxclients} requiring at least {wanted} max file descriptors."
        ));
        log::warning(format!(
            "Server can't set maximum open files to {wanted} because of OS error: {}.",
            net::os_text(&io::Error::last_os_error())
        ));
        log::warning(format!(
            "Current maximum open files is {best}. maxclients has been reduced to {possible} to compensate for low ulimit. If you need higher maxclients increase 'ulimit -n'."
        ));
        possible
    }
}

/// Databases, loops and listeners. Counterpart: `initServer`.
fn init_server(startup: &Startup) -> Result<Built, String> {
    let mut values = startup.config.clone();
    values.maxclients = adjust_open_files(values.maxclients);
    let shards = startup.shards() as usize;
    let choice = choose_event_loop(values.event_loop, startup.threads())?;
    let users = users_at_start(&values)?;
    let tls = Arc::new(Tls::default());
    if values.tls_port != 0 {
        tls.load(&values).map_err(|text| {
            log::warning(text);
            "Failed to configure TLS. Check logs for more info."
        })?;
    }
    let listening = Arc::new(Listening::new(net::listen(&values)?));
    let seed = || {
        let mut bytes = [0u8; 8];
        // SAFETY: eight bytes of a local. The call cannot fail for so few once the system is up.
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), 8, 0) };
        u64::from_ne_bytes(bytes)
    };
    let loops = Arc::new(LoopCounters::new(shards));
    let migrations = Arc::new(Migrations::default());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let host = Arc::new(Process {
        event_loop: choice,
        loops: loops.clone(),
        background: Background::default(),
        disk: disk.clone(),
        log: OnceLock::new(),
        tls: tls.clone(),
        migrations: migrations.clone(),
        oom_score: OomScore::default(),
        listening: listening.clone(),
        listen_anew: OnceLock::new(),
        syncs: Arc::default(),
        wake_shard: OnceLock::new(),
    });
    if let Err(text) = host.oom_score.apply(&values) {
        log::warning(text);
    }
    let mut shared = Shared::new(values, shards, [seed(), seed()], clock::now().0, host.clone());
    shared.set_users(users);
    shared.process_id = std::process::id();
    shared.executable = std::env::current_exe().map(|p| p.display().to_string()).unwrap_or_default();
    shared.config_file = startup.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    crate::proc_title::set(&shared.config(), &shared.config_file);
    let mailboxes =
        Mailboxes::new(shards).map_err(|e| format!("Failed creating the event loop. Error message: '{e}'"))?;
    let shared = Arc::new(shared);
    // Loops that turn before the data is there must not serve it.
    shared.persistence.loading.store(true, SeqCst);
    shared.persistence.loading_since_ms.store(clock::now().0, Relaxed);
    let snapshots = BackgroundSave::start(shared.clone()).map_err(|error| format!("Can't start a thread: {error}"))?;
    let mailboxes = Arc::new(mailboxes);
    let bells = mailboxes.clone();
    let wake = Box::new(move |shard: usize| bells.of(shard).push(Mail::LogSynced));
    let log = Log::start(shared.clone(), disk, wake, Box::new(|| std::process::exit(1)));
    let log = log.map_err(|error| format!("Can't start a thread: {error}"))?;
    let _ = host.log.set(log.clone());
    let acceptor = mailboxes.clone();
    let bells = mailboxes.clone();
    let _ = host.wake_shard.set(Box::new(move |shard| bells.of(shard as usize).push(Mail::LogSynced)));
    let _ = host.listen_anew.set(Box::new(move || acceptor.of(0).push(Mail::Listen)));
    let server = Arc::new(Server {
        shared,
        snapshots,
        log,
        mailboxes,
        config_file: startup.config_file.clone(),
        shutdown: AtomicBool::new(false),
        exit_code: AtomicU8::new(0),
        loops,
        migrations,
        listening,
    });
    Ok(Built { server, tls, seeds: (0..shards).map(|_| seed()).collect(), choice })
}

/// The users of the configuration's `user` lines, or of its `aclfile`. Counterpart: `ACLLoadUsersAtStartup`.
fn users_at_start(config: &Config) -> Result<Users, String> {
    let aclfile = match config.aclfile.is_empty() {
        true => None,
        false => Some(
            config::read_users(&config.aclfile)
                .map_err(|text| format!("Aborting startup because of ACL errors: {text}"))?,
        ),
    };
    let users = Users::at_start(config, aclfile.as_deref())?;
    for user in users.iter().filter(|user| !user.enabled) {
        log::notice(format!(
            "The user '{}' is disabled (there is no 'on' modifier in the user description). Make sure this is not a \
             configuration error.",
            String::from_utf8_lossy(&user.name)
        ));
    }
    Ok(users)
}

/// The loop to use: what was asked for, or what works.
fn choose_event_loop(asked: Choice, threads: usize) -> Result<&'static str, String> {
    if asked == Choice::Epoll {
        return Ok("epoll");
    }
    match try_uring(threads) {
        Ok(()) => Ok("uring"),
        Err(reason) if asked == Choice::Uring => Err(format!("Failed creating the event loop: {reason}")),
        Err(reason) => {
            log::warning(format!("{reason}; running on epoll"));
            Ok("epoll")
        }
    }
}

/// Makes all that the loops need on io_uring, all of it at once as they will hold it, and drops it: rings count as
/// locked memory, so a limit may have room for some and not for all.
fn try_uring(threads: usize) -> Result<(), String> {
    let mut held = Vec::with_capacity(threads);
    for _ in 0..threads {
        let ring = Ring::new(1).map_err(|error| ring::explain(&error))?;
        let executor = executor("probe", None).make();
        held.push((ring, executor.map_err(|error| format!("cannot create the executor: {error}"))?));
    }
    Ok(())
}

/// Tries again for up to two seconds: the kernel gives the locked memory of a ring back some time after the ring was
/// dropped, so what the probe held may still be counted when a loop makes its own.
fn patiently<T, E>(mut make: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..100 {
        if let Ok(made) = make() {
            return Ok(made);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    make()
}

fn executor(name: &str, cpu: Option<usize>) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .io_memory(GLOMMIO_IO_MEMORY)
        .ring_depth(GLOMMIO_RING_DEPTH)
}

fn run(startup: Startup) -> Result<ExitCode, String> {
    log::open(&startup.config.logfile, startup.config.loglevel as u8)
        .map_err(|error| format!("Can't open the log file: {}", net::os_text(&error)))?;
    log::notice("oO0OoO0OoO0Oo Ringshard is starting oO0OoO0OoO0Oo");
    log::notice(format!(
        "Ringshard version={}, bits=64, commit={}, modified=0, pid={}, just started",
        env!("CARGO_PKG_VERSION"),
        option_env!("RINGSHARD_GIT_SHA").unwrap_or("00000000"),
        std::process::id()
    ));
    match startup.any_arguments {
        true => log::notice("Configuration loaded"),
        false => log::warning(
            "Warning: no config file specified, using the default config. In order to specify a config file use \
             ringshard /path/to/redis.conf",
        ),
    }
    for warning in &startup.warnings {
        log::warning(warning.to_string());
    }
    crate::crash::handle_signals(startup.config.crash_log_enabled);
    let built = init_server(&startup)?;
    let server = built.server.clone();
    let shards = server.shared.shards;
    log::notice(format!(
        "Running mode=standalone, port={}, shards={shards}, event-loop={}",
        startup.config.port, built.choice
    ));
    log::notice(format!(" PID: {}", std::process::id()));
    log::notice("Server initialized");
    server.shared.startup_memory.store(crate::alloc::used_memory(), Relaxed);
    let unix_paths: Vec<String> = server.listening.all().iter().filter_map(|l| l.unix_path.clone()).collect();
    // As it was at the start: clients are let in before all is loaded, and may turn the log on or off for afterwards.
    let from_log = server.shared.config().appendonly;
    let threads = start_loops(&startup, built)?;
    start_loading(&server, from_log)?;
    supervise(&server);
    // Whoever sees its connection close finds nobody at the address, as with Redis (`closeListeningSockets`).
    server.listening.stop();
    server.mailboxes.broadcast(|| Mail::Stop);
    for thread in threads {
        thread.join().map_err(|_| "A shard's thread panicked".to_string())?;
    }
    if server.shared.aof.state() != LogState::Off {
        log::notice("Calling fsync() on the AOF file.");
    }
    server.log.stop();
    for path in unix_paths {
        log::notice("Removing the unix socket file.");
        let _ = std::fs::remove_file(path);
    }
    log::warning("Ringshard is now ready to exit, bye bye...");
    Ok(ExitCode::from(server.exit_code.load(SeqCst)))
}

/// Loads the data on a thread of its own, so that signals are heeded meanwhile; then clients are served.
fn start_loading(server: &Arc<Server>, from_log: bool) -> Result<(), String> {
    let server = server.clone();
    let load = move || {
        let loaded = match from_log {
            true => aof::load::load(&server.log, &server.mailboxes),
            false => load::load(&server),
        };
        if let Err(text) = loaded {
            log::warning(text);
            // As Redis ends: nothing that runs could do more with half of the data.
            std::process::exit(1);
        }
        if server.shared.aof.state() == LogState::Off {
            // It may have been turned on while the snapshot was loaded; without a log there is none to be written anew.
            let wanted = server.shared.config().appendonly;
            if wanted {
                server.shared.aof.set_state(LogState::Waiting);
            }
            server.shared.aof.scheduled.store(wanted, SeqCst);
        }
        server.shared.persistence.loading.store(false, SeqCst);
        server.shared.bump_epoch();
        log::notice("Ready to accept connections");
    };
    std::thread::Builder::new()
        .name("load".into())
        .spawn(load)
        .map_err(|error| format!("Can't start a thread: {error}"))?;
    Ok(())
}

/// Waits for the end. A signal asks the first shard for it, which saves the data first if it is to be saved.
fn supervise(server: &Server) {
    let mut interrupts = 0;
    loop {
        let woken_by = signals::wait();
        // As it is now: the directives may have changed while the server ran.
        let config = server.shared.config();
        let flags = match woken_by {
            Wake::Term => {
                log::notice("Received SIGTERM scheduling shutdown...");
                config.shutdown_on_sigterm
            }
            Wake::Int => {
                interrupts += 1;
                if interrupts > 1 {
                    log::warning("You insist... exiting now.");
                    crate::persistence::rdb::remove_temporary(&config);
                    std::process::exit(1);
                }
                log::notice("Received SIGINT scheduling shutdown...");
                config.shutdown_on_sigint
            }
            Wake::Alarm => {
                crate::crash::log_threads();
                continue;
            }
            Wake::Notified if server.shutdown.load(SeqCst) => return,
            Wake::Notified => continue,
        };
        let save = match () {
            () if flags.nosave => Some(false),
            () => flags.save.then_some(true),
        };
        let how = Shutdown { save, now: flags.now, force: flags.force };
        server.mailboxes.of(0).push(Mail::Shutdown(how));
    }
}

/// The loops, each on its thread; the shards sit at them in turn, and the first accepts for all.
fn start_loops(startup: &Startup, built: Built) -> Result<Vec<std::thread::JoinHandle<()>>, String> {
    let Built { server, tls, seeds, choice } = built;
    let cpus = config::allowed_cpus().unwrap_or_default();
    let count = startup.threads();
    let mut acceptor = Some(Acceptor::new(server.listening.all(), tls));
    let (ready, all_ready) = std::sync::mpsc::channel::<Result<(), String>>();
    let mut threads = Vec::new();
    for thread in 0..count {
        let cpu = match startup.config.pin_threads && !cpus.is_empty() {
            true => Some(cpus[thread % cpus.len()]),
            false => None,
        };
        let seeds: Vec<(usize, u64)> = seeds.iter().copied().enumerate().skip(thread).step_by(count).collect();
        let (server, acceptor, ready) = (server.clone(), acceptor.take(), ready.clone());
        let name = format!("shard-{thread}");
        let started = std::thread::Builder::new().name(name.clone()).spawn(move || {
            let mut shards: Vec<Shard> =
                seeds.iter().map(|(id, seed)| Shard::new(*id as ShardId, server.shared.clone(), *seed)).collect();
            let sharers = shards.len() as u32;
            shards.iter_mut().for_each(|shard| shard.sharers = sharers);
            match choice {
                "uring" => run_on_uring(&name, shards, server, acceptor, cpu, &ready),
                _ => run_on_epoll(shards, server, acceptor, cpu, &ready),
            }
        });
        threads.push(started.map_err(|error| format!("Can't start a thread: {error}"))?);
    }
    drop(ready);
    for _ in 0..threads.len() {
        all_ready.recv().map_err(|_| "A shard did not start".to_string())??;
    }
    Ok(threads)
}

type Ready = std::sync::mpsc::Sender<Result<(), String>>;

/// A loop of these shards with their pollers, of which the first gets the acceptor.
fn seat<P: Poller>(
    shards: Vec<Shard>,
    server: &Arc<Server>,
    mut acceptor: Option<Acceptor>,
    mut poller: impl FnMut(usize, &Shard) -> io::Result<P>,
) -> io::Result<EventLoop<P>> {
    let mut seats = Vec::with_capacity(shards.len());
    for (at, shard) in shards.into_iter().enumerate() {
        let poller = poller(at, &shard)?;
        seats.push(Seat::new(shard, poller, server.clone(), acceptor.take()));
    }
    Ok(EventLoop::new(seats))
}

fn run_on_epoll(
    shards: Vec<Shard>,
    server: Arc<Server>,
    acceptor: Option<Acceptor>,
    cpu: Option<usize>,
    ready: &Ready,
) {
    if let Some(cpu) = cpu {
        pin_to(cpu);
    }
    let made = EpollSet::new(shards.len()).and_then(|set| {
        let set = Rc::new(RefCell::new(set));
        let bell = |shard: &Shard| server.mailboxes.of(shard.core.id as usize).bell();
        seat(shards, &server, acceptor, |at, shard| Epoll::new(set.clone(), at, bell(shard)))
    });
    let mut event_loop = match made {
        Ok(event_loop) => event_loop,
        Err(error) => {
            let _ = ready.send(Err(format!("Failed creating the event loop. Error message: '{error}'")));
            return;
        }
    };
    if !register(&mut event_loop, ready) {
        return;
    }
    loop {
        match event_loop.ae_main() {
            Ok(true) => return,
            Ok(false) => {
                for (seat, FileWork { client, run }) in event_loop.take_file_work() {
                    event_loop.work_done(seat, client, run());
                }
            }
            Err(error) => panic!("the event loop failed: {error}"),
        }
    }
}

fn run_on_uring(
    name: &str,
    shards: Vec<Shard>,
    server: Arc<Server>,
    acceptor: Option<Acceptor>,
    cpu: Option<usize>,
    ready: &Ready,
) {
    let executor = match patiently(|| executor(name, cpu).make()) {
        Ok(executor) => executor,
        Err(error) => {
            let _ = ready.send(Err(format!("Failed creating the event loop: cannot create the executor: {error}")));
            return;
        }
    };
    executor.run(async move {
        let made = patiently(|| Ring::new(shards.len())).and_then(|ring| {
            let fd = ring.fd();
            let ring = Rc::new(RefCell::new(ring));
            seat(shards, &server, acceptor, |at, shard| {
                let mailbox = server.mailboxes.of(shard.core.id as usize);
                mailbox.set_ring(fd);
                Ok(Uring::new(ring.clone(), at, mailbox.bell()))
            })
        });
        let mut event_loop = match made {
            Ok(event_loop) => event_loop,
            Err(error) => {
                let _ = ready.send(Err(format!("Failed creating the event loop: {}", ring::explain(&error))));
                return;
            }
        };
        if !register(&mut event_loop, ready) {
            return;
        }
        loop {
            match event_loop.ae_main() {
                Ok(true) => return,
                Ok(false) => run_file_work(&mut event_loop).await,
                Err(error) => panic!("the event loop failed: {error}"),
            }
        }
    });
}

/// Lets glommio run blocking file work on its own thread while the loop goes on turning.
async fn run_file_work<P: Poller>(event_loop: &mut EventLoop<P>) {
    for (seat, FileWork { client, run }) in event_loop.take_file_work() {
        // A task of its own awaits the work, and this one asks the task. Asked once a turn, the work itself would keep a
        // waker each time; after some thirty thousand turns, which is no long time for a disk, glommio's count of them
        // overflows and the process ends.
        let mut work = glommio::spawn_local(async move { glommio::executor().spawn_blocking(run).await });
        loop {
            match futures_lite::future::poll_once(&mut work).await {
                Some(result) => {
                    event_loop.work_done(seat, client, result);
                    break;
                }
                None => {
                    if let Err(error) = event_loop.turn_without_waiting() {
                        panic!("the event loop failed: {error}");
                    }
                    glommio::executor().yield_task_queue_now().await;
                }
            }
        }
    }
}

fn register<P: Poller>(event_loop: &mut EventLoop<P>, ready: &Ready) -> bool {
    let registered = event_loop
        .register_accept_handler()
        .map_err(|error| format!("Unrecoverable error creating TCP socket accept handler: {error}"));
    let ok = registered.is_ok();
    ready.send(registered).is_ok() && ok
}

fn pin_to(cpu: usize) {
    // SAFETY: a valid set; a processor that has gone away makes the call fail, which leaves the thread unpinned.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
