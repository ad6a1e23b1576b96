//! A thread's network ring: an io_uring with its ring of provided buffers.
//!
//! Created on the loop's own thread with `SINGLE_ISSUER` and `DEFER_TASKRUN`, so that completions are worked off only
//! when this thread asks for them. One `io_uring_enter` submits, runs the deferred work and waits.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, SubmitArgs, Timespec};
use io_uring::{IoUring, squeue};

use super::mapping::Mapping;

/// Bytes of one provided buffer: a 64-deep pipeline of small requests fits.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// Places in the ring of buffers; a power of two.
const BUFFER_SLOTS: u16 = 1024;

/// Buffers provided while there are few clients. The kernel takes them in turn, so fewer buffers mean that what is
/// read lands in lines that are still in the cache.
const FIRST_BUFFERS: u16 = 64;

/// Submissions held before they are handed over early.
const SUBMISSIONS: u32 = 1024;

/// Group of the provided buffers.
pub const GROUP: u16 = 0;

/// See the module's page.
pub struct Ring {
    ring: ManuallyDrop<IoUring>,
    ended: bool,
    /// The ring of buffers, shared with the kernel: one page-aligned array of entries.
    entries: Mapping,
    /// The buffers' memory.
    memory: Mapping,
    tail: u16,
    provided: u16,
    /// Connections that are read.
    live: usize,
    /// What has completed, by seat.
    arrived: Vec<Vec<Completion>>,
}

/// Token, result and flags.
pub type Completion = (u64, i32, u32);

/// Seats of one ring: ten bits of a token, the highest.
pub const MAX_SEATS: usize = 1 << 10;

/// The seat that a completion is for.
fn seat_of(token: u64) -> usize {
    (token >> 54) as usize
}

/// The highest bits of a seat's tokens.
pub fn seat_bits(seat: usize) -> u64 {
    debug_assert!(seat < MAX_SEATS);
    (seat as u64) << 54
}

impl Ring {
    /// A ring for the calling thread, and so many seats.
    ///
    /// # Errors
    /// What the kernel answers; [`explain`] says what that means for the user.
    pub fn new(seats: usize) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(8 * SUBMISSIONS)
            .build(SUBMISSIONS)?;
        let entries = Mapping::new(BUFFER_SLOTS as usize * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(BUFFER_SLOTS as usize * BUFFER_BYTES)?;
        // SAFETY: the array is page-aligned, large enough for so many entries, and outlives the ring (`Ring::end`).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.start() as u64, BUFFER_SLOTS, GROUP, 0)?;
        }
        let arrived = vec![Vec::new(); seats];
        let ring = ManuallyDrop::new(ring);
        let mut ring = Ring { ring, ended: false, entries, memory, tail: 0, provided: 0, live: 0, arrived };
        ring.provide(FIRST_BUFFERS);
        Ok(ring)
    }

    /// Ends the ring, and with it whatever is under way, before the first of its seats frees what the kernel may write to.
    /// Nothing may be asked of it then.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            // SAFETY: dropped here only, once, and not used behind that.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }

    /// Counts one more connection that is read, and sees that there are buffers.
    pub fn joined(&mut self) {
        self.live += 1;
        if self.live > self.provided as usize {
            self.provide(self.live.next_power_of_two().min(BUFFER_SLOTS as usize) as u16);
        }
    }

    /// Counts one less.
    pub fn left(&mut self) {
        self.live -= 1;
    }

    /// Provides up to `wanted` buffers in all.
    fn provide(&mut self, wanted: u16) {
        while self.provided < wanted {
            let id = self.provided;
            self.provided += 1;
            self.put(id);
        }
        self.publish();
    }

    fn buffer_start(&self, id: u16) -> *mut u8 {
        debug_assert!(id < BUFFER_SLOTS);
        // SAFETY: ids are below BUFFER_SLOTS, so the address lies within the mapping.
        unsafe { self.memory.start().add(id as usize * BUFFER_BYTES) }
    }

    /// The first `len` bytes of a buffer that the kernel has filled.
    pub fn buffer(&self, id: u16, len: usize) -> &[u8] {
        assert!(len <= BUFFER_BYTES && id < BUFFER_SLOTS);
        // SAFETY: within the mapping; the kernel does not write to it until it is put back.
        unsafe { std::slice::from_raw_parts(self.buffer_start(id), len) }
    }

    /// Puts a buffer back; [`Ring::publish`] lets the kernel see it.
    pub fn put(&mut self, id: u16) {
        let slot = (self.tail & (BUFFER_SLOTS - 1)) as usize;
        // SAFETY: the slot lies within the array and, being behind the tail, is not read by the kernel. Only the
        // three fields are written: the first entry's last two bytes are the ring's tail.
        unsafe {
            let entry = &mut *self.entries.start().cast::<BufRingEntry>().add(slot);
            entry.set_addr(self.buffer_start(id) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers put back.
    pub fn publish(&mut self) {
        // SAFETY: the tail lies inside the first entry; the kernel reads it, and the release order makes the entries
        // written before visible with it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start().cast::<BufRingEntry>());
            (*tail.cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    /// Adds a submission; hands the earlier ones over when the queue is full.
    ///
    /// # Safety
    /// What the entry points to must stay until its completion.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: by the caller's word.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }

    /// Submits, waits for a completion up to `timeout_us` (0: not at all), and gives each seat its own.
    pub fn enter(&mut self, timeout_us: u64) -> io::Result<()> {
        let result = match timeout_us {
            // With nothing to wait for the kernel still runs deferred work, as long as events are asked for.
            0 => self.get_events(),
            us => {
                let time = Timespec::new().sec(us / 1_000_000).nsec((us % 1_000_000 * 1000) as u32);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        for c in self.ring.completion() {
            self.arrived[seat_of(c.user_data())].push((c.user_data(), c.result(), c.flags()));
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the completion queue has to be emptied first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    fn get_events(&mut self) -> io::Result<usize> {
        let pending = self.ring.submission().len() as u32;
        const GETEVENTS: u32 = 1;
        // SAFETY: no argument points anywhere.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(pending, 0, GETEVENTS, None) }
    }

    /// Submits what was added, and waits for nothing. What the kernel refuses is submitted again with the next wait.
    pub fn submit(&mut self) {
        let _ = self.ring.submit();
    }

    /// Exchanges a seat's completions for an empty list.
    pub fn completions(&mut self, seat: usize, out: &mut Vec<Completion>) {
        debug_assert!(out.is_empty());
        std::mem::swap(out, &mut self.arrived[seat]);
    }

    /// The ring's descriptor.
    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a refusal of the ring means, and what helps.
pub fn explain(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring".to_string(),
        Some(libc::EPERM) => {
            "io_uring is not permitted, see kernel.io_uring_disabled and the container's seccomp profile".to_string()
        }
        Some(libc::EINVAL) => "this kernel is older than 6.1".to_string(),
        Some(libc::ENOMEM) => "RLIMIT_MEMLOCK is too small, see 'ulimit -l'".to_string(),
        _ => error.to_string(),
    };
    format!("cannot create the network ring: {why}")
}
