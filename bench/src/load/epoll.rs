//! The epoll loop of a lane: the fallback where io_uring is refused, and a second opinion on what a server costs
//! its client. Plain `read` and `write` per connection, as most clients do.

use super::lane::Lane;
use super::measure::{Board, Control, now_ns};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An epoll instance.
pub struct Epoll {
    fd: OwnedFd,
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

impl Epoll {
    /// Creates it.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers are passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a fresh descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd })
    }

    fn watch(&self, op: i32, fd: RawFd, c: usize, write: bool) -> io::Result<()> {
        let events = libc::EPOLLIN as u32 | if write { libc::EPOLLOUT as u32 } else { 0 };
        let mut event = libc::epoll_event {
            events,
            u64: c as u64,
        };
        // SAFETY: `event` lives through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd, &mut event) })?;
        Ok(())
    }

    /// Runs the lane to its end. `spin_ns`: instead of sleeping for less than this, poll.
    pub fn run(
        self,
        lane: &mut Lane,
        control: &Control,
        board: &Board,
        spin_ns: u64,
    ) -> io::Result<()> {
        for c in 0..lane.conns.len() {
            self.watch(libc::EPOLL_CTL_ADD, lane.conns[c].fd.as_raw_fd(), c, false)?;
        }
        let mut buf = vec![0u8; 64 * 1024];
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
        // How much of each connection's `out` is written.
        let mut written = vec![0usize; lane.conns.len()];
        let mut now = now_ns();
        while lane.turn(control, board, now) {
            lane.fill(now);
            while let Some(c) = lane.to_send.pop() {
                self.write(lane, c as usize, &mut written)?;
            }
            let timeout = match lane.wake_at() {
                None => 50_000_000,
                Some(at) => at
                    .saturating_sub(now_ns())
                    .min(50_000_000)
                    .saturating_sub(spin_ns),
            };
            let timespec = libc::timespec {
                tv_sec: 0,
                tv_nsec: timeout as i64,
            };
            // SAFETY: `events` has room for as many as named; the timespec lives through the call.
            let n = unsafe {
                libc::epoll_pwait2(
                    self.fd.as_raw_fd(),
                    events.as_mut_ptr(),
                    events.len() as i32,
                    &timespec,
                    std::ptr::null(),
                )
            };
            let n = match check(n) {
                Ok(n) => n as usize,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(e) => return Err(e),
            };
            now = now_ns();
            for event in &events[..n] {
                let c = event.u64 as usize;
                let flags = event.events;
                if lane.conns[c].dead {
                    continue;
                }
                if flags & libc::EPOLLOUT as u32 != 0 {
                    self.write(lane, c, &mut written)?;
                }
                if flags & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
                    let fd = lane.conns[c].fd.as_raw_fd();
                    // SAFETY: `buf` is writable for its whole length.
                    let got = unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) };
                    match got {
                        0 => lane.closed(c, "the server closed it"),
                        n if n > 0 => lane.on_data(c, &buf[..n as usize], now),
                        _ => {
                            let e = io::Error::last_os_error();
                            if !matches!(
                                e.kind(),
                                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                            ) {
                                lane.closed(c, &format!("receive: {e}"));
                            }
                        }
                    }
                    if lane.conns[c].dead {
                        let fd = lane.conns[c].fd.as_raw_fd();
                        self.watch(libc::EPOLL_CTL_DEL, fd, c, false)?;
                    }
                }
            }
        }
        lane.recorder.hand_over(board);
        Ok(())
    }

    fn write(&self, lane: &mut Lane, c: usize, written: &mut [usize]) -> io::Result<()> {
        loop {
            let conn = &mut lane.conns[c];
            let rest = &conn.out[written[c]..];
            if rest.is_empty() {
                let waited = conn.sending;
                let fd = conn.fd.as_raw_fd();
                written[c] = 0;
                lane.sent(c);
                // What was queued meanwhile is in `out` now; this loop writes it.
                lane.to_send.retain(|&s| s as usize != c);
                if lane.conns[c].out.is_empty() {
                    if waited {
                        self.watch(libc::EPOLL_CTL_MOD, fd, c, false)?;
                    }
                    return Ok(());
                }
                continue;
            }
            let fd = conn.fd.as_raw_fd();
            // SAFETY: `rest` is readable for its whole length.
            let n = unsafe { libc::send(fd, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
            if n >= 0 {
                written[c] += n as usize;
                continue;
            }
            let e = io::Error::last_os_error();
            match e.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    if !conn.sending {
                        conn.sending = true;
                        self.watch(libc::EPOLL_CTL_MOD, fd, c, true)?;
                    }
                    return Ok(());
                }
                _ => {
                    lane.closed(c, &format!("send: {e}"));
                    return Ok(());
                }
            }
        }
    }
}
