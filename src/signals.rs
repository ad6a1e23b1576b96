//! Signals: SIGTERM and SIGINT end the server in good order, SIGPIPE does nothing, and a panic ends all of it.
//!
//! Every thread blocks the signals; the main thread waits for them with `sigwait`, so no handler runs in the midst of
//! a loop and nothing has to be safe for one.

use std::sync::atomic::{AtomicBool, Ordering::*};

static PANICKED: AtomicBool = AtomicBool::new(false);

fn set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: the set is initialised by `sigemptyset` before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

const WAITED: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR2, libc::SIGALRM];

/// Blocks the signals that [`wait`] waits for, in this thread and those it starts, and ignores SIGPIPE and SIGHUP.
pub fn block() {
    let set = set(&WAITED);
    // SAFETY: a valid set; ignoring a signal installs no handler.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// Why the main thread woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGALRM.
    Alarm,
    /// [`notify`].
    Notified,
}

/// Waits for a signal or for [`notify`].
pub fn wait() -> Wake {
    let set = set(&WAITED);
    let mut signal = 0;
    loop {
        // SAFETY: valid set and place for the result.
        if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
            return match signal {
                libc::SIGTERM => Wake::Term,
                libc::SIGINT => Wake::Int,
                libc::SIGALRM => Wake::Alarm,
                _ => Wake::Notified,
            };
        }
    }
}

/// Wakes the main thread.
pub fn notify() {
    // SAFETY: a signal to this process, which the main thread waits for and every thread blocks.
    unsafe { libc::kill(libc::getpid(), libc::SIGUSR2) };
}

/// Makes a panic in any thread stop the whole process with a report, as a crashed Redis does: half a server would
/// answer for some keys and hang for others.
pub fn die_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        if PANICKED.swap(true, SeqCst) {
            std::process::abort();
        }
        crate::crash::is_reported();
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::force_capture();
        crate::log::warning(format!(
            "=== RINGSHARD BUG REPORT START: Cut & paste starting from here ===\n\
             Ringshard {} crashed by a panic in thread '{}'\n{info}\n\n------ STACK TRACE ------\n{backtrace}\n\
             === RINGSHARD BUG REPORT END ===",
            env!("CARGO_PKG_VERSION"),
            thread.name().unwrap_or("?"),
        ));
        std::process::abort();
    }));
}
