//! What the log says when a signal ends the process: which, by whom, and where each thread of the server stood.
//!
//! A handler may interrupt anything, the allocator and the log's lock among it. So it takes no memory and no lock: lines
//! are put together on the stack and written with plain system calls, in the form that Redis's handlers use.
//! Counterpart: `sigsegvHandler` in `debug.c`.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI32, Ordering::*};

/// Signals that end the process with a report.
const FATAL: [libc::c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT];

/// The thread that writes a report, or has written it: another would say nothing new.
static REPORTER: AtomicI32 = AtomicI32::new(NOBODY);
const NOBODY: i32 = 0;
/// The report is written by other means.
const OTHERWISE: i32 = -1;

/// Installs the handlers, or takes them away, as `crash-log-enabled` says.
pub fn handle_signals(report: bool) {
    if report {
        // The first walk loads a library and takes memory for it.
        let mut frame = [std::ptr::null_mut(); 1];
        // SAFETY: room for as many frames as are asked for.
        unsafe { libc::backtrace(frame.as_mut_ptr(), 1) };
    }
    for signal in FATAL {
        if !report {
            // SAFETY: the default action needs nothing of this process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            continue;
        }
        // SAFETY: the action is whole before it is installed. It runs on the stack that the runtime has set aside for
        // threads that overflowed theirs, where there is one.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(_, _, _) as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// The report is written by other means: a signal that follows ends the process without one.
pub fn is_reported() {
    REPORTER.store(OTHERWISE, SeqCst);
}

/// A line of the log, on the stack; what does not fit is cut.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let n = text.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

fn say(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    // SAFETY: plain queries and a write from valid memory; all are safe in handlers.
    unsafe {
        let now = libc::time(std::ptr::null_mut());
        // Writing to a line cannot fail.
        let _ = writeln!(line, "{}:signal-handler ({now}) {text}", libc::getpid());
        libc::write(crate::log::descriptor(), line.bytes.as_ptr().cast(), line.len);
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: a plain query.
    let thread = unsafe { libc::gettid() };
    match REPORTER.compare_exchange(NOBODY, thread, SeqCst, SeqCst) {
        Ok(_) => report(signal, info),
        // The stack of what was interrupted cannot be walked to its end.
        Err(reporter) if reporter == thread => end_report(),
        Err(OTHERWISE) => {}
        // The other thread ends the process when it is done.
        // SAFETY: a plain system call.
        Err(_) => drop(unsafe { libc::sleep(1) }),
    }
    // SAFETY: the default action ends the process, as it would have without this handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn report(signal: libc::c_int, info: *mut libc::siginfo_t) {
    // SAFETY: the kernel hands a valid description.
    let (code, address, sender) = unsafe { ((*info).si_code, (*info).si_addr(), ((*info).si_pid(), (*info).si_uid())) };
    say(format_args!("=== RINGSHARD BUG REPORT START: Cut & paste starting from here ==="));
    let version = env!("CARGO_PKG_VERSION");
    say(format_args!("Ringshard {version} crashed by signal: {signal}, si_code: {code}"));
    if matches!(signal, libc::SIGSEGV | libc::SIGBUS) && code > 0 {
        say(format_args!("Accessing address: {address:p}"));
    }
    if code == libc::SI_USER {
        say(format_args!("Killed by PID: {}, UID: {}", sender.0, sender.1));
    }
    say(format_args!("------ STACK TRACE ------"));
    let mut frames = [std::ptr::null_mut(); 64];
    // SAFETY: room for as many frames as are asked for; their names go straight to the log, without memory.
    unsafe {
        let n = libc::backtrace(frames.as_mut_ptr(), frames.len() as libc::c_int);
        libc::backtrace_symbols_fd(frames.as_ptr(), n, crate::log::descriptor());
    }
    end_report();
}

fn end_report() {
    say(format_args!("------ STACK TRACE DONE ------"));
    say(format_args!("=== RINGSHARD BUG REPORT END ==="));
}

/// What SIGALRM asks for: a line for each thread, its name, what it waits in or that it runs, and the time it has had.
pub fn log_threads() {
    crate::log::warning("Received SIGALRM");
    let read = |path: &std::path::Path, file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten().map(|task| task.path()) {
        let stat = read(&task, "stat");
        // Behind the name, which may hold anything: the state first, user and system time as the twelfth and thirteenth.
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let field = |n: usize| fields.get(n).copied().unwrap_or("?");
        crate::log::warning(format!(
            "thread {} '{}': state {}, user ticks {}, system ticks {}, waits in {}",
            task.file_name().and_then(|name| name.to_str()).unwrap_or("?"),
            read(&task, "comm").trim(),
            field(0),
            field(11),
            field(12),
            match read(&task, "wchan").as_str() {
                "" | "0" => "nothing",
                place => place,
            }
        ));
    }
}
