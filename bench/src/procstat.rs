//! What a process cost: CPU time, context switches and memory, read from `/proc`.
//!
//! The one idea: differences of two samples. CPU time comes from `/proc/PID/stat`, which also counts threads that
//! ended meanwhile; the kernel scales its user and system parts to the scheduler's exact sum, so the total is good
//! to one tick (10 ms) and a window of a few seconds gives the cost of a request to a fraction of a percent.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;

/// One look at a process.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// User time of all threads, µs.
    pub user_us: u64,
    /// System time of all threads, µs.
    pub system_us: u64,
    /// Voluntary context switches of the living threads.
    pub voluntary: u64,
    /// Involuntary ones.
    pub involuntary: u64,
    /// Time that the living threads were ready to run and had no CPU, µs.
    pub waited_us: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// CPU time by thread id, µs.
    pub threads_us: HashMap<u32, u64>,
}

/// The cost of a window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
pub struct Cost {
    /// User time, µs.
    pub user_us: u64,
    /// System time, µs.
    pub system_us: u64,
    /// Voluntary context switches.
    pub voluntary_switches: u64,
    /// Involuntary context switches.
    pub involuntary_switches: u64,
    /// Time ready to run without a CPU, as a share of the window: what other processes took away.
    pub waited: f64,
    /// Resident memory at the end, bytes.
    pub rss_bytes: u64,
    /// The busiest thread's share of the window, 0 to 1.
    pub busiest_thread: f64,
    /// CPUs in use on average.
    pub cpus: f64,
    /// Threads at the end.
    pub threads: usize,
}

fn tick_us() -> u64 {
    // SAFETY: no pointers are passed.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000 / hz.max(1) as u64
}

/// User and system time out of a `stat` line, in ticks. The command's name may hold spaces and parentheses, so the
/// fields count from its last parenthesis.
fn times(stat: &str) -> Option<(u64, u64)> {
    let rest = &stat[stat.rfind(')')? + 2..];
    let mut fields = rest.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Looks at a process.
pub fn sample(pid: u32) -> Result<Sample, String> {
    let read =
        |path: String| fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"));
    let (user, system) =
        times(&read(format!("/proc/{pid}/stat"))?).ok_or("a stat line of an unknown shape")?;
    let tick = tick_us();
    let mut s = Sample {
        user_us: user * tick,
        system_us: system * tick,
        ..Sample::default()
    };
    s.rss_bytes = field(&read(format!("/proc/{pid}/status"))?, "VmRSS:") * 1024;
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .map_err(|e| format!("cannot read /proc/{pid}/task: {e}"))?;
    for task in tasks.flatten() {
        // A thread may end between the listing and the reading.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        s.voluntary += field(&status, "voluntary_ctxt_switches:");
        s.involuntary += field(&status, "nonvoluntary_ctxt_switches:");
        // On-CPU time, time waiting for a CPU (both ns), slices; zeros where the kernel does not keep it.
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let waited = schedstat.split(' ').nth(1);
        s.waited_us += waited.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1000;
        let id = task
            .file_name()
            .to_string_lossy()
            .parse::<u32>()
            .unwrap_or(0);
        if let Some((u, sys)) = fs::read_to_string(task.path().join("stat"))
            .ok()
            .as_deref()
            .and_then(times)
        {
            s.threads_us.insert(id, (u + sys) * tick);
        }
    }
    Ok(s)
}

impl Sample {
    /// What lies between an earlier sample and this one.
    pub fn since(&self, earlier: &Sample, window_s: f64) -> Cost {
        let window_us = (window_s * 1e6).max(1.0);
        let busiest = self
            .threads_us
            .iter()
            .map(|(id, us)| us.saturating_sub(earlier.threads_us.get(id).copied().unwrap_or(0)))
            .max()
            .unwrap_or(0);
        let user_us = self.user_us.saturating_sub(earlier.user_us);
        let system_us = self.system_us.saturating_sub(earlier.system_us);
        Cost {
            user_us,
            system_us,
            voluntary_switches: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary_switches: self.involuntary.saturating_sub(earlier.involuntary),
            waited: self.waited_us.saturating_sub(earlier.waited_us) as f64 / window_us,
            rss_bytes: self.rss_bytes,
            busiest_thread: busiest as f64 / window_us,
            cpus: (user_us + system_us) as f64 / window_us,
            threads: self.threads_us.len(),
        }
    }
}

impl Cost {
    /// User and system time together, µs.
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }
}

/// Pins the calling thread, or (with a pid) another process, to CPUs.
pub fn pin(pid: u32, cpus: &[usize]) -> std::io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&c| c < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index was checked against the set's size.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` lives through the call and its size is given.
    let done = unsafe { libc::sched_setaffinity(pid as i32, std::mem::size_of_val(&set), &set) };
    if done < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// CPUs that this process may use.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives through the call and its size is given.
    if unsafe { libc::sched_getaffinity(0, std::mem::size_of_val(&set), &mut set) } < 0 {
        return vec![0];
    }
    // SAFETY: the index stays below the set's size.
    (0..libc::CPU_SETSIZE as usize)
        .filter(|&c| unsafe { libc::CPU_ISSET(c, &set) })
        .collect()
}

/// Reads `0`, `0-3` or `0,2,4-5`.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    let bad = || format!("CPU list '{text}': use numbers and ranges, as in 0,2-3");
    let mut cpus = Vec::new();
    for part in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (usize, usize) = (
            a.trim().parse().map_err(|_| bad())?,
            b.trim().parse().map_err(|_| bad())?,
        );
        if a > b || b >= libc::CPU_SETSIZE as usize {
            return Err(bad());
        }
        cpus.extend(a..=b);
    }
    if cpus.is_empty() {
        Err(bad())
    } else {
        Ok(cpus)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let line = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 33 0 0 20";
        assert_eq!(times(line), Some((700, 33)));
    }

    #[test]
    fn own_cost_is_seen() {
        let me = std::process::id();
        let before = sample(me).unwrap();
        let start = std::time::Instant::now();
        let used_ms = || {
            let mut ts = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: `ts` is a valid place for the result.
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
            ts.tv_sec * 1000 + ts.tv_nsec / 1_000_000
        };
        let begin = used_ms();
        while used_ms() < begin + 120 {
            std::hint::spin_loop();
        }
        let cost = sample(me)
            .unwrap()
            .since(&before, start.elapsed().as_secs_f64());
        assert!(cost.cpu_us() >= 90_000, "{cost:?}");
        assert!(cost.rss_bytes > 100_000 && cost.busiest_thread > 0.0);
    }

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(parse_cpus("0,2-4"), Ok(vec![0, 2, 3, 4]));
        for bad in ["", "x", "4-2", "99999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
        assert!(!allowed_cpus().is_empty());
    }
}
