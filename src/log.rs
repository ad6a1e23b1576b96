//! The log, in Redis's form: `pid:role day month year hour:minute:second.ms level text`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering::Relaxed};

pub use ringshard_shards::shard::LogLevel;

static LEVEL: AtomicU8 = AtomicU8::new(2);
static FILE: Mutex<Option<File>> = Mutex::new(None);
static DESCRIPTOR: AtomicI32 = AtomicI32::new(1);

/// Sends the log to `logfile` (standard output when empty), from `level` on.
pub fn open(logfile: &str, level: u8) -> std::io::Result<()> {
    LEVEL.store(level, Relaxed);
    let file = match logfile {
        "" => None,
        path => Some(OpenOptions::new().append(true).create(true).open(path)?),
    };
    DESCRIPTOR.store(file.as_ref().map_or(1, AsRawFd::as_raw_fd), Relaxed);
    *FILE.lock().unwrap_or_else(|e| e.into_inner()) = file;
    Ok(())
}

/// Where the log goes, for those who may take no lock.
pub fn descriptor() -> i32 {
    DESCRIPTOR.load(Relaxed)
}

/// Sets the least level that is written.
pub fn set_level(level: u8) {
    LEVEL.store(level, Relaxed);
}

/// Writes one line.
pub fn write(level: LogLevel, text: &str) {
    if (level as u8) < LEVEL.load(Relaxed) {
        return;
    }
    let sign = ['.', '-', '*', '#'][level as usize];
    let line = format!("{}:M {} {} {}\n", std::process::id(), timestamp(), sign, text);
    let mut file = FILE.lock().unwrap_or_else(|e| e.into_inner());
    // A log that cannot be written is no reason to stop serving.
    let _ = match file.as_mut() {
        Some(file) => file.write_all(line.as_bytes()),
        None => std::io::stdout().lock().write_all(line.as_bytes()),
    };
}

/// Writes one line at the level that is always of interest.
pub fn notice(text: impl AsRef<str>) {
    write(LogLevel::Notice, text.as_ref());
}

/// Writes one line at the highest level.
pub fn warning(text: impl AsRef<str>) {
    write(LogLevel::Warning, text.as_ref());
}

fn timestamp() -> String {
    let (ms, _) = crate::clock::now();
    let seconds = (ms / 1000) as libc::time_t;
    // SAFETY: both pointers are valid; `localtime_r` writes only to the second.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut local);
        local
    };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    format!(
        "{:02} {} {} {:02}:{:02}:{:02}.{:03}",
        local.tm_mday,
        MONTHS[local.tm_mon.clamp(0, 11) as usize],
        local.tm_year + 1900,
        local.tm_hour,
        local.tm_min,
        local.tm_sec,
        ms % 1000
    )
}
