//! The io_uring loop of a lane: multishot receives into a ring of provided buffers, all sends of a turn in one
//! system call.
//!
//! The one idea: per turn one `io_uring_enter` submits every send and collects every reply. A send asks for no
//! completion when it succeeds (`CQE_SKIP_SUCCESS`): in a closed loop the replies prove that it left, and half of
//! the completions disappear. `MSG_WAITALL` makes the kernel finish short sends itself. Sends of more than a page
//! may wait in the kernel for room, so those are watched to their end.

use super::lane::{Lane, Pace};
use super::measure::{Board, Control, now_ns};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

/// A ring of receive buffers shared with the kernel.
///
/// Memory: one page-aligned mapping, first `COUNT` entries of 16 bytes, then the buffers.
struct Buffers {
    base: *mut u8,
    total: usize,
    count: u16,
    size: usize,
    tail: u16,
}

const GROUP: u16 = 1;
const ENTRY: usize = std::mem::size_of::<types::BufRingEntry>();
const _: () = assert!(ENTRY == 16);

impl Buffers {
    fn new(count: u16, size: usize) -> io::Result<Buffers> {
        let total = count as usize * (ENTRY + size);
        // SAFETY: a fresh anonymous mapping; no address is asked for.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                total,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Buffers {
            base: base.cast(),
            total,
            count,
            size,
            tail: 0,
        })
    }

    fn buffer(&self, id: u16) -> *mut u8 {
        debug_assert!(id < self.count);
        // SAFETY: `id` is below `count`, so the result lies inside the mapping.
        unsafe {
            self.base
                .add(self.count as usize * ENTRY + id as usize * self.size)
        }
    }

    /// Gives a buffer to the kernel; visible to it after [`Buffers::publish`].
    fn give(&mut self, id: u16) {
        let slot = (self.tail & (self.count - 1)) as usize;
        let addr = self.buffer(id) as u64;
        // SAFETY: the slot lies inside the ring, and the kernel reads it only once the tail passes it.
        let entry = unsafe { &mut *self.base.cast::<types::BufRingEntry>().add(slot) };
        entry.set_addr(addr);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is a u16 inside the mapping that only this thread writes; the kernel reads it, hence
        // the atomic store.
        let tail =
            unsafe { AtomicU16::from_ptr(types::BufRingEntry::tail(self.base.cast()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The bytes that the kernel put into a buffer.
    fn bytes(&self, id: u16, len: usize) -> &[u8] {
        // SAFETY: the kernel filled `len` bytes of this buffer (at most its size) and will not touch it until it
        // is given back; the mapping is zeroed, so every byte is initialised.
        unsafe { std::slice::from_raw_parts(self.buffer(id), len.min(self.size)) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; the ring that used it is gone by now (see the order in `Uring`).
        unsafe { libc::munmap(self.base.cast(), self.total) };
    }
}

/// A ring with its buffers. Fields drop in order: the ring first.
pub struct Uring {
    ring: IoUring,
    buffers: Buffers,
}

/// The longest send that asks for no completion: the kernel copies it while it is submitted, as long as the socket
/// has room for a page, and it has when all former requests are answered.
const UNWATCHED: u32 = 4096;

const RECV: u64 = 0;
const SEND: u64 = 1;

impl Uring {
    /// Creates the ring; must be called on the thread that will run it. `buffer` is the size of one receive buffer.
    pub fn new(connections: usize, buffer: usize) -> io::Result<Uring> {
        let entries = (2 * connections).clamp(64, 4096).next_power_of_two() as u32;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(entries * 4)
            .build(entries)?;
        // Few buffers stay in the cache; running out only costs a new receive request.
        let count = (2 * connections).clamp(64, 1024).next_power_of_two() as u16;
        let mut buffers = Buffers::new(count, buffer)?;
        // SAFETY: the mapping holds `count` entries and outlives the ring.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(buffers.base as u64, count, GROUP, 0)?
        };
        for id in 0..count {
            buffers.give(id);
        }
        buffers.publish();
        Ok(Uring { ring, buffers })
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: send entries point into `Conn::out`, which stays untouched until the replies or the
            // completion prove that it left; receive entries name registered buffers.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn arm(&mut self, lane: &Lane, c: usize, fixed: bool) -> io::Result<()> {
        let data = (c as u64) << 1 | RECV;
        let entry = if fixed {
            opcode::RecvMulti::new(types::Fixed(c as u32), GROUP).build()
        } else {
            opcode::RecvMulti::new(types::Fd(lane.conns[c].fd.as_raw_fd()), GROUP).build()
        };
        self.push(&entry.user_data(data))
    }

    /// Runs the lane to its end. `spin_ns`: instead of sleeping for less than this, poll.
    pub fn run(
        mut self,
        lane: &mut Lane,
        control: &Control,
        board: &Board,
        spin_ns: u64,
    ) -> io::Result<()> {
        // Registered files save the lookup of each descriptor; without them the loop works all the same.
        let fds: Vec<i32> = lane.conns.iter().map(|c| c.fd.as_raw_fd()).collect();
        let fixed = self.ring.submitter().register_files(&fds).is_ok();
        for c in 0..lane.conns.len() {
            self.arm(lane, c, fixed)?;
        }
        let closed = matches!(lane.pace, Pace::Closed);
        let mut sends = Vec::new();
        let mut events: Vec<(u64, i32, u32)> = Vec::new();
        let mut now = now_ns();
        while lane.turn(control, board, now) {
            lane.fill(now);
            std::mem::swap(&mut sends, &mut lane.to_send);
            for c in sends.drain(..) {
                let c = c as usize;
                let conn = &mut lane.conns[c];
                let (ptr, len) = (conn.out.as_ptr(), conn.out.len() as u32);
                // In a closed loop nothing is composed before the replies are in, so `out` is free again then.
                let watched = !closed || len > UNWATCHED;
                conn.sending = watched;
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                let entry = if fixed {
                    opcode::Send::new(types::Fixed(c as u32), ptr, len)
                        .flags(flags)
                        .build()
                } else {
                    opcode::Send::new(types::Fd(conn.fd.as_raw_fd()), ptr, len)
                        .flags(flags)
                        .build()
                };
                let skip = if watched {
                    squeue::Flags::empty()
                } else {
                    squeue::Flags::SKIP_SUCCESS
                };
                self.push(&entry.user_data((c as u64) << 1 | SEND).flags(skip))?;
            }
            self.wait(lane.wake_at(), spin_ns)?;
            now = now_ns();
            events.clear();
            events.extend(
                self.ring
                    .completion()
                    .map(|e| (e.user_data(), e.result(), e.flags())),
            );
            for &(data, result, flags) in &events {
                let c = (data >> 1) as usize;
                if data & 1 == SEND {
                    if result < 0 {
                        lane.closed(
                            c,
                            &format!("send: {}", io::Error::from_raw_os_error(-result)),
                        );
                    } else if (result as usize) < lane.conns[c].out.len() {
                        lane.closed(c, "send: the kernel took only a part");
                    } else {
                        lane.sent(c);
                    }
                    continue;
                }
                if let Some(id) = cqueue::buffer_select(flags) {
                    if result > 0 && !lane.conns[c].dead {
                        lane.on_data(c, self.buffers.bytes(id, result as usize), now);
                        if closed {
                            recycle_out(lane, c);
                        }
                    }
                    self.buffers.give(id);
                }
                if result == 0 {
                    lane.closed(c, "the server closed it");
                } else if result < 0 && result != -libc::ENOBUFS {
                    lane.closed(
                        c,
                        &format!("receive: {}", io::Error::from_raw_os_error(-result)),
                    );
                } else if !cqueue::more(flags) && !lane.conns[c].dead {
                    // Out of buffers, or the kernel's own limit: ask again.
                    self.buffers.publish();
                    self.arm(lane, c, fixed)?;
                }
            }
            self.buffers.publish();
        }
        lane.recorder.hand_over(board);
        Ok(())
    }

    /// One `io_uring_enter`: submits, runs what the kernel deferred to us, and sleeps until the first completion,
    /// `wake_at`, or a twentieth of a second has passed.
    fn wait(&mut self, wake_at: Option<u64>, spin_ns: u64) -> io::Result<()> {
        const NAP_NS: u64 = 50_000_000;
        let nap = match wake_at {
            None => NAP_NS,
            Some(at) => at.saturating_sub(now_ns()).min(NAP_NS),
        };
        if nap <= spin_ns && wake_at.is_some() {
            let submit = self.ring.submission().len() as u32;
            // The flag makes the kernel run deferred work although nothing is waited for.
            const GETEVENTS: u32 = 1;
            // SAFETY: no argument is passed, and all entries were pushed by `push`.
            let got = unsafe {
                self.ring
                    .submitter()
                    .enter::<libc::sigset_t>(submit, 0, GETEVENTS, None)
            };
            return tolerate(got);
        }
        // Wake early by as much as waking takes, then poll the rest.
        let nap = if wake_at.is_some() {
            nap - spin_ns
        } else {
            nap
        };
        let timespec = types::Timespec::new().sec(0).nsec(nap as u32);
        let args = types::SubmitArgs::new().timespec(&timespec);
        tolerate(self.ring.submitter().submit_with_args(1, &args))
    }
}

/// In a closed loop the replies of a batch show that its bytes left.
fn recycle_out(lane: &mut Lane, c: usize) {
    if lane.idle(c) && !lane.conns[c].sending {
        lane.conns[c].out.clear();
    }
}

fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(e),
    }
}
