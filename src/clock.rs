//! Time: Unix time and monotonic time for turns of a loop, and a quick counter for durations of commands.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::time::Instant;

/// Unix time in ms and monotonic time in µs.
#[inline]
pub fn now() -> (i64, u64) {
    (read(libc::CLOCK_REALTIME).as_millis() as i64, monotonic_us())
}

/// Monotonic time in µs.
#[inline]
pub fn monotonic_us() -> u64 {
    read(libc::CLOCK_MONOTONIC).as_micros() as u64
}

/// For how long one thread had work to do: the time for which it used a processor, and that for which it waited for one
/// that others had.
#[derive(Default)]
pub struct WorkTime {
    /// The scheduler's figures of the thread, which not every kernel keeps.
    schedstat: Option<File>,
}

impl WorkTime {
    /// Of the calling thread.
    pub fn of_this_thread() -> Self {
        WorkTime { schedstat: File::open("/proc/thread-self/schedstat").ok() }
    }

    /// In µs, since the thread began; one or two system calls of the thread itself.
    pub fn us(&self) -> u64 {
        let told = self.schedstat.as_ref().and_then(|file| {
            let mut bytes = [0; 64];
            let len = file.read_at(&mut bytes, 0).ok()?;
            let mut words = std::str::from_utf8(&bytes[..len]).ok()?.split_ascii_whitespace();
            let mut ns = || words.next()?.parse::<u64>().ok();
            Some((ns()? + ns()?) / 1000)
        });
        told.unwrap_or_else(|| read(libc::CLOCK_THREAD_CPUTIME_ID).as_micros() as u64)
    }
}

#[inline]
fn read(clock: libc::clockid_t) -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result, and the clocks asked for always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor's own counter where it runs at a constant rate (about 8 ns to read), else the monotonic clock (25 to
/// 50 ns): two readings a command would otherwise be a tenth of a pipelined request.
#[inline]
pub fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if *TSC_IS_STEADY {
        // SAFETY: every x86-64 processor has the counter; it reads no memory.
        return unsafe { std::arch::x86_64::_rdtsc() };
    }
    read(libc::CLOCK_MONOTONIC).as_nanos() as u64
}

#[cfg(target_arch = "x86_64")]
static TSC_IS_STEADY: LazyLock<bool> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| {
        let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or("");
        flags.contains(" constant_tsc") && flags.contains(" nonstop_tsc")
    })
});

/// How many [`ticks`] make a µs, measured once over 10 ms.
pub static TICKS_PER_US: LazyLock<f64> = LazyLock::new(|| {
    let (started, first) = (Instant::now(), ticks());
    std::thread::sleep(std::time::Duration::from_millis(10));
    let (elapsed, last) = (started.elapsed(), ticks());
    (last.wrapping_sub(first) as f64 / (elapsed.as_nanos() as f64 / 1000.0)).max(1.0)
});

#[cfg(test)]
mod tests {
    use super::*;

    /// Work is told of, with and without the scheduler's figures; and never more than there was time for.
    #[test]
    fn work_is_told_of() {
        for time in [WorkTime::of_this_thread(), WorkTime::default()] {
            let (began, before) = (monotonic_us(), time.us());
            while time.us() < before + 20_000 {
                assert!(monotonic_us() - began < 60_000_000, "it works and works, and nothing tells of it");
            }
            assert!(time.us() - before <= monotonic_us() - began + 20_000);
        }
    }

    #[test]
    fn ticks_follow_the_clock() {
        let (started, first) = (monotonic_us(), ticks());
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (us, ticked) = (monotonic_us() - started, ticks() - first);
        let ratio = ticked as f64 / *TICKS_PER_US / us as f64;
        assert!((0.8..1.25).contains(&ratio), "{ratio}");
    }
}
