//! The cores this process may use: how many shards to start by default, and where to pin them.

use std::io;
use std::thread;

/// How many shards `shards 0` means: as many as this process may keep busy, at least 1.
///
/// The standard library counts the CPUs of the affinity mask (`sched_getaffinity`) and lowers that
/// to the quota of the process's cgroup and those above it: `cpu.max` in version 2,
/// `cpu.cfs_quota_us` over `cpu.cfs_period_us` in version 1, each rounded down.
pub fn default_shards() -> u32 {
    match thread::available_parallelism() {
        Ok(cores) => u32::try_from(cores.get()).unwrap_or(u32::MAX),
        Err(_) => 1,
    }
}

/// The numbers of the CPUs this process may run on, in rising order.
///
/// # Errors
/// What the kernel answers, which on Linux is nothing a running process should meet.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // The kernel fills whole words and refuses a mask shorter than its own, so ask with a longer
    // one until it fits: machines beyond 1024 CPUs exist.
    const BITS: usize = usize::BITS as usize;
    let mut mask = vec![0usize; 1024 / BITS];
    loop {
        let bytes = mask.len() * size_of::<usize>();
        // SAFETY: `mask` is writable for `bytes`, and the call writes no more than that; `cpu_set_t`
        // is an array of words, for whose alignment a `usize` suffices.
        let done = unsafe { libc::sched_getaffinity(0, bytes, mask.as_mut_ptr().cast()) };
        if done == 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() >= 1 << 16 {
            return Err(error);
        }
        mask = vec![0; mask.len() * 2];
    }
    Ok((0..mask.len() * BITS).filter(|cpu| mask[cpu / BITS] >> (cpu % BITS) & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_core_and_no_more_shards_than_cores() {
        let cpus = allowed_cpus().unwrap();
        assert!(!cpus.is_empty());
        assert!(cpus.is_sorted());
        assert!((1..=cpus.len()).contains(&(default_shards() as usize)));
    }

    #[test]
    fn a_narrower_affinity_means_fewer_shards() {
        thread::spawn(|| {
            let first = allowed_cpus().unwrap()[0];
            // SAFETY: a zeroed `cpu_set_t` is an empty set, `first` is below its 1024 bits on any
            // machine these tests run on (`CPU_SET` ignores others), and only this thread changes.
            let done = unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(first, &mut set);
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
            };
            assert_eq!(done, 0);
            assert_eq!(allowed_cpus().unwrap(), [first]);
            assert_eq!(default_shards(), 1);
        })
        .join()
        .unwrap();
    }
}
