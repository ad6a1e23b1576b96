//! Where io_uring is refused, or memory must not be locked: `event-loop auto` serves all the same and says why,
//! `event-loop uring` gives up with the reason.

use std::io;

use crate::harness::{Dir, Launch, Server, copy_for_everyone, free_port, io_uring_refused, program};
use crate::wire::{Value, bulk, ok};

fn args(event_loop: &str) -> Vec<String> {
    ["--event-loop", event_loop, "--shards", "4", "--maxclients", "100"].map(String::from).to_vec()
}

fn serves(server: &Server) {
    let mut conns: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for (i, conn) in conns.iter_mut().enumerate() {
        assert_eq!(conn.cmd(&format!("SET k{i} {i}")), ok());
        assert_eq!(conn.cmd("PING"), Value::Simple("PONG".into()));
    }
    let all = conns[0].cmd("MGET k0 k1 k2 k3 k4 k5 k6 k7");
    assert_eq!(all, Value::Array((0..8).map(|i| bulk(i.to_string())).collect()));
}

/// Makes `io_uring_setup` fail with EPERM in this process and those it becomes, as container runtimes do.
fn refuse_io_uring() -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // `struct seccomp_data` begins with the system call's number.
        step(LOAD_WORD, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live until the calls return, and the kernel copies them.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[test]
fn auto_falls_back_to_epoll_and_says_why() {
    let mut launch = Launch::new(&args("auto"));
    launch.before_exec = Some(Box::new(refuse_io_uring));
    let mut server = launch.start();
    let log = server.log();
    let why = log.lines().find(|line| line.contains("running on epoll")).unwrap_or_else(|| panic!("{log}"));
    assert!(why.contains("io_uring"), "{why}");
    assert!(log.contains("event-loop=epoll"), "{log}");
    serves(&server);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait_for_end().code(), Some(0));
}

#[test]
fn uring_gives_up_where_it_is_refused() {
    let mut launch = Launch::new(&args("uring"));
    launch.before_exec = Some(Box::new(refuse_io_uring));
    let mut server = launch.spawn(free_port());
    let status = server.wait_for_end();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let why =
        log.lines().find(|line| line.contains("Failed creating the event loop")).unwrap_or_else(|| panic!("{log}"));
    assert!(why.contains("io_uring"), "{why}");
    assert!(!log.contains("Ready to accept connections"), "{log}");
}

#[test]
fn epoll_does_not_care() {
    let mut launch = Launch::new(&args("epoll"));
    launch.before_exec = Some(Box::new(refuse_io_uring));
    let server = launch.start();
    assert!(!server.log().contains("io_uring"), "{}", server.log());
    serves(&server);
}

/// The user that owns nothing, and so much memory to lock; 64 KiB are the default of older systems' login shells.
fn poor_user(memlock_kib: u64) -> io::Result<()> {
    const NOBODY: u32 = 65534;
    let limit = libc::rlimit { rlim_cur: memlock_kib << 10, rlim_max: memlock_kib << 10 };
    // SAFETY: plain system calls with valid arguments.
    unsafe {
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getuid() == 0
            && (libc::setgroups(0, std::ptr::null()) != 0 || libc::setgid(NOBODY) != 0 || libc::setuid(NOBODY) != 0)
        {
            return Err(io::Error::last_os_error());
        }
        // A change of user takes this back.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    Ok(())
}

fn launch_as_poor_user(event_loop: &str, memlock_kib: u64) -> Launch {
    use std::os::unix::fs::PermissionsExt;
    let mut launch = Launch::new(&args(event_loop));
    launch.dir = Dir::new();
    std::fs::set_permissions(&launch.dir.0, std::fs::Permissions::from_mode(0o777)).unwrap();
    // The build directory may lie where only its owner can go.
    launch.program = launch.dir.join("ringshard");
    copy_for_everyone(program(), &launch.program);
    launch.before_exec = Some(Box::new(move || poor_user(memlock_kib)));
    launch
}

#[test]
fn a_user_who_may_lock_64_kib_is_served() {
    for event_loop in ["auto", "epoll"] {
        let server = launch_as_poor_user(event_loop, 64).start();
        let log = server.log();
        // Rings count as locked memory, so the limit may be too small for them. A fallback gives that reason.
        let fell_back = log.lines().any(|line| line.contains("RLIMIT_MEMLOCK") && line.contains("; running on epoll"));
        let allowed = io_uring_refused().is_some() || fell_back || log.contains("event-loop=uring");
        assert!(allowed || event_loop == "epoll", "{log}");
        serves(&server);
    }
}

/// Whether 64 KiB are enough for the rings depends on the kernel and on what else the user runs. Asked for `uring` alone,
/// the server either works or ends with the reason; it never starts on something else.
#[test]
fn uring_with_64_kib_works_or_names_the_limit() {
    if let Some(reason) = io_uring_refused() {
        eprintln!("skipped: io_uring for a user who may lock 64 KiB, for this machine refuses io_uring ({reason})");
        return;
    }
    if std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|text| text.trim() != "0") {
        eprintln!("skipped: io_uring for a plain user, for kernel.io_uring_disabled is set");
        return;
    }
    let mut server = launch_as_poor_user("uring", 64).spawn(free_port());
    if server.try_wait_until_ready() {
        assert!(server.log().contains("event-loop=uring"), "{}", server.log());
        serves(&server);
        return;
    }
    let log = server.log();
    assert_eq!(server.wait_for_end().code(), Some(1), "{log}");
    assert!(log.lines().any(|line| line.contains("Failed creating") && line.contains("RLIMIT_MEMLOCK")), "{log}");
}

/// Limits that have room for the rings of some shards and not of all: `auto` must not start half on one loop and then
/// give up.
#[test]
fn auto_serves_whatever_part_of_the_rings_fits() {
    for memlock_kib in [256, 512, 1024, 2048, 4096] {
        let server = launch_as_poor_user("auto", memlock_kib).start();
        serves(&server);
    }
}
