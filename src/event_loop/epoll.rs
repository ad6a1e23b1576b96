//! The epoll loop: the baseline to compare with, and the fallback where io_uring is refused.
//!
//! Level-triggered, like Redis's own: each readable client is read once a turn, and what it is owed is written before
//! the loop waits. Only a client whose socket is full is watched for writing.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::rc::Rc;

use ringshard_shards::limits::{LARGE_INPUT_BYTES, LARGE_READ_BYTES, LARGE_READS_BYTES};
use ringshard_shards::shard::input::MAX_INPUTS;
use ringshard_shards::shard::{Event, Input, Shard};

use super::mapping::Mapping;
use super::{Poller, Turn};
use crate::net::{Accepted, Acceptor};
use crate::tls::{Handshakes, Session};

/// Bytes read from one client at once (Redis: 16 KiB, `PROTO_IOBUF_LEN`), but for the rest of a large argument, which is
/// read to its place.
const READ_BYTES: usize = LARGE_INPUT_BYTES;

/// Events taken from the kernel at once.
const MAX_EVENTS: usize = 1024;

/// A token is a connection's place and, above it, the seat; or one of these and what it says.
const BELL: u64 = 1 << 62;
/// With an id and a descriptor. Only the first seat has such.
const LISTENER: u64 = 1 << 63;

/// A thread's epoll set.
pub struct EpollSet {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// What has happened, by seat.
    arrived: Vec<Vec<libc::epoll_event>>,
}

impl EpollSet {
    /// An empty one for so many seats.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(seats: usize) -> io::Result<Self> {
        // SAFETY: the descriptor is new and no one else's.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(EpollSet { fd, events: Vec::with_capacity(MAX_EVENTS), arrived: vec![Vec::new(); seats] })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: valid descriptors and a valid event, which the kernel copies.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) }).map(|_| ())
    }

    /// Waits up to `timeout_us`, and gives each seat its own.
    fn wait(&mut self, timeout_us: u64) -> io::Result<()> {
        self.events.clear();
        // SAFETY: the vector has room for so many events, and its length is set to what was written.
        unsafe {
            let n = wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), timeout_us);
            self.events.set_len(n.max(0) as usize);
            if n < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
        for event in &self.events {
            let seat = if event.u64 & LISTENER != 0 { 0 } else { (event.u64 & !BELL) >> 32 };
            self.arrived[seat as usize].push(*event);
        }
        Ok(())
    }
}

struct Connection {
    fd: OwnedFd,
    /// Output that the socket would not take.
    unsent: Vec<u8>,
    sent: usize,
    watching_writes: bool,
    /// The last read brought all that it could: a large argument may have begun. Asked of the machine only then.
    filled: bool,
    /// The peer has sent all that it will.
    ended: bool,
    /// Where TLS is spoken; `unsent` is sealed then.
    tls: Option<Box<Session>>,
}

/// See the module's page.
pub struct Epoll {
    set: Rc<RefCell<EpollSet>>,
    seat: usize,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    events: Vec<libc::epoll_event>,
    /// Connections that have ended in this turn.
    ended: Vec<u32>,
    buffers: Mapping,
    handshakes: Handshakes,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl Epoll {
    /// A seat at `set` that wakes when `bell` rings.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(set: Rc<RefCell<EpollSet>>, seat: usize, bell: RawFd) -> io::Result<Self> {
        let poller = Epoll {
            set,
            seat,
            connections: Vec::new(),
            free: Vec::new(),
            events: Vec::new(),
            ended: Vec::new(),
            buffers: Mapping::new(READ_BYTES * MAX_INPUTS)?,
            handshakes: Handshakes::default(),
        };
        poller.control(libc::EPOLL_CTL_ADD, bell, libc::EPOLLIN as u32, BELL | poller.token(0))?;
        Ok(poller)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        self.set.borrow().control(operation, fd, events, token)
    }

    /// The token of the connection in this place.
    fn token(&self, index: u32) -> u64 {
        (self.seat as u64) << 32 | index as u64
    }

    fn watch_writes(&mut self, index: u32, on: bool) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        if connection.watching_writes == on {
            return;
        }
        connection.watching_writes = on;
        self.watch(index);
    }

    /// Has the set report what is waited for of a connection.
    fn watch(&self, index: u32) {
        let Some(Connection { fd, watching_writes, ended, .. }) = &self.connections[index as usize] else { return };
        let (fd, reads) = (fd.as_raw_fd(), if *ended { 0 } else { libc::EPOLLIN });
        let events = reads | if *watching_writes { libc::EPOLLOUT } else { 0 };
        // A failure here means that the connection is broken, which the next read or write reports.
        let _ = self.control(libc::EPOLL_CTL_MOD, fd, events as u32, self.token(index));
    }

    /// Writes what waits; true when nothing is left.
    fn write_unsent(&mut self, shard: &mut Shard, index: u32) -> bool {
        let Some(connection) = self.connections[index as usize].as_mut() else { return true };
        let (mut sent_now, mut broken) = (0, false);
        while connection.sent < connection.unsent.len() {
            match send(connection.fd.as_raw_fd(), &connection.unsent[connection.sent..]) {
                Ok(n) => {
                    connection.sent += n;
                    sent_now += n;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    broken = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        let done = connection.sent == connection.unsent.len();
        let mut buffer = Vec::new();
        if done || broken {
            connection.sent = 0;
            buffer = std::mem::take(&mut connection.unsent);
        }
        if broken {
            self.lost(shard, index);
            return true;
        }
        match connection.tls.as_deref_mut() {
            None => {
                shard.recycle(buffer);
                if sent_now > 0 {
                    shard.step(Event::Sent(index, sent_now));
                }
            }
            Some(session) if done => session.sent(shard, index, buffer),
            Some(_) => {}
        }
        done
    }

    /// The peer has sent all that it will; told of it again, it is gone altogether.
    fn ended(&mut self, shard: &mut Shard, index: u32) {
        match self.connections[index as usize].as_mut() {
            Some(connection) if !connection.ended => {
                connection.ended = true;
                self.ended.push(index);
                shard.step(Event::Ended(index));
            }
            _ => self.lost(shard, index),
        }
    }

    /// The connection broke.
    fn lost(&mut self, shard: &mut Shard, index: u32) {
        shard.step(Event::Disconnected(index));
        self.close(index);
    }

    /// Gives a session what was read into the buffer `at`.
    fn open_sealed(&mut self, turn: &mut Turn<'_>, index: u32, at: usize, n: usize) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        let Some(session) = connection.tls.as_deref_mut() else { return };
        turn.take_mail();
        let bytes = &self.buffers[at * READ_BYTES..at * READ_BYTES + n];
        if let Err(end) = session.receive(turn.shard, index, bytes) {
            session.note_end(&end);
            self.lost(turn.shard, index);
        }
    }

    /// Reads the rest of a large argument to its place, up to `most` bytes, if the client has begun one: as many as were
    /// read (Redis's `big_arg` in `readQueryFromClient`). In reads of 16 KB, one a turn, a value of 100 KB took half as
    /// long again.
    fn read_large(&mut self, turn: &mut Turn<'_>, index: u32, most: usize) -> Option<usize> {
        let connection = self.connections[index as usize].as_mut()?;
        connection.filled = false;
        let most = most.min(LARGE_READ_BYTES);
        let mut buffer = turn.shard.lend_query(index, most)?;
        let room = buffer.spare_capacity_mut();
        let len = room.len().min(most);
        // SAFETY: the kernel writes no more than there is room for.
        let n = unsafe { libc::recv(connection.fd.as_raw_fd(), room.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
        let kind = io::Error::last_os_error().kind();
        let bytes = n.max(0) as usize;
        // SAFETY: so many bytes behind the old ones were just written.
        unsafe { buffer.set_len(buffer.len() + bytes) };
        connection.filled = true;
        turn.take_mail();
        turn.shard.step(Event::Filled(index, buffer, bytes));
        if n == 0 {
            self.ended(turn.shard, index);
        } else if n < 0 && !matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
            self.lost(turn.shard, index);
        }
        Some(bytes)
    }

    fn end_late_handshakes(&mut self, shard: &mut Shard) {
        let connections = &self.connections;
        let session = |index: u32| connections.get(index as usize)?.as_ref()?.tls.as_deref();
        let mut late = Vec::new();
        while let Some(index) = self.handshakes.overdue(shard.core.now_us, session) {
            late.push(index);
        }
        late.into_iter().for_each(|index| self.lost(shard, index));
    }

    fn hand_over(&self, turn: &mut Turn<'_>, filled: &[(u32, usize)]) {
        turn.take_mail();
        let mut inputs = [Input { client: 0, bytes: &[] }; MAX_INPUTS];
        for (i, (client, n)) in filled.iter().enumerate() {
            inputs[i] = Input { client: *client, bytes: &self.buffers[i * READ_BYTES..i * READ_BYTES + n] };
        }
        turn.shard.step(Event::Received(&inputs[..filled.len()]));
    }
}

fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: a valid slice, which the kernel only reads.
    let n = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

impl Poller for Epoll {
    fn adopt(&mut self, accepted: Accepted) -> io::Result<u32> {
        let index = self.free.pop().unwrap_or(self.connections.len() as u32);
        if index as usize == self.connections.len() {
            self.connections.push(None);
        }
        let fd = accepted.fd.as_raw_fd();
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN as u32, self.token(index)) {
            self.free.push(index);
            return Err(error);
        }
        if let Some(session) = &accepted.tls {
            self.handshakes.expect(index, session);
        }
        self.connections[index as usize] = Some(Connection {
            fd: accepted.fd,
            unsent: Vec::new(),
            sent: 0,
            watching_writes: false,
            filled: false,
            ended: false,
            tls: accepted.tls,
        });
        Ok(index)
    }

    fn close(&mut self, index: u32) {
        // Closing the last descriptor takes it out of the epoll set.
        if let Some(connection) = self.connections[index as usize].take() {
            if let Some(mut session) = connection.tls.filter(|_| connection.unsent.is_empty()) {
                session.farewell(connection.fd.as_raw_fd());
            }
            self.free.push(index);
        }
    }

    fn flush(&mut self, shard: &mut Shard) {
        while let Some(index) = shard.flush.pop() {
            let buffer = match self.connections.get_mut(index as usize) {
                // Later output goes behind what the socket has not taken yet, when that is out.
                Some(Some(connection)) if connection.unsent.is_empty() => match connection.tls.as_deref_mut() {
                    None => shard.take_output(index),
                    Some(session) => session.output(shard, index),
                },
                _ => continue,
            };
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            if !buffer.is_empty() {
                connection.unsent = buffer;
                if !self.write_unsent(shard, index) {
                    self.watch_writes(index, true);
                }
            }
        }
    }

    fn before_wait(&mut self) -> io::Result<bool> {
        // Most have gone since; of the others the end would be reported again and again.
        std::mem::take(&mut self.ended).into_iter().for_each(|index| self.watch(index));
        Ok(false)
    }

    fn wait(&mut self, timeout_us: u64) -> io::Result<()> {
        self.set.borrow_mut().wait(timeout_us)
    }

    fn poll(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        std::mem::swap(&mut events, &mut self.set.borrow_mut().arrived[self.seat]);
        turn.active = !events.is_empty();
        self.end_late_handshakes(turn.shard);
        let mut inputs: [(u32, usize); MAX_INPUTS] = [(0, 0); MAX_INPUTS];
        let mut filled = 0;
        let mut large_left = LARGE_READS_BYTES;
        for event in &events {
            let (token, bits) = (event.u64, event.events as i32);
            if token & LISTENER != 0 {
                accept_all(((token & !LISTENER) >> 32) as u32, token as u32 as RawFd, turn);
                continue;
            }
            if token & BELL != 0 {
                turn.mailbox.silence();
                continue;
            }
            let index = token as u32;
            if bits & libc::EPOLLOUT != 0 && self.write_unsent(turn.shard, index) {
                self.watch_writes(index, false);
                turn.shard.flush.push(index);
            }
            let Some(Some(connection)) = self.connections.get(index as usize) else { continue };
            if bits & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) == 0 {
                continue;
            }
            if connection.filled
                && let Some(bytes) = self.read_large(turn, index, large_left)
            {
                large_left -= bytes;
                continue;
            }
            let Some(Some(connection)) = self.connections.get_mut(index as usize) else { continue };
            let room = &mut self.buffers[filled * READ_BYTES..(filled + 1) * READ_BYTES];
            // SAFETY: the buffer has READ_BYTES bytes of room.
            let n = unsafe {
                libc::recv(connection.fd.as_raw_fd(), room.as_mut_ptr().cast(), READ_BYTES, libc::MSG_DONTWAIT)
            };
            if n > 0 {
                if connection.tls.is_some() {
                    self.open_sealed(turn, index, filled, n as usize);
                    continue;
                }
                connection.filled = n as usize == READ_BYTES;
                inputs[filled] = (index, n as usize);
                filled += 1;
                if filled == MAX_INPUTS {
                    self.hand_over(turn, &inputs[..filled]);
                    filled = 0;
                }
                continue;
            }
            let kind = io::Error::last_os_error().kind();
            if n == 0 {
                self.ended(turn.shard, index);
            } else if !matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                self.lost(turn.shard, index);
            }
        }
        if filled > 0 {
            self.hand_over(turn, &inputs[..filled]);
        }
        events.clear();
        self.events = events;
        Ok(())
    }

    fn listen(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        // Those that are gone have left the set as they were closed.
        for listener in &acceptor.listeners {
            let token = LISTENER | (listener.id as u64) << 32 | listener.fd() as u64;
            match self.control(libc::EPOLL_CTL_ADD, listener.fd(), libc::EPOLLIN as u32, token) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// Accepts what has arrived on a listening socket, up to 1000 connections at once, as Redis does.
fn accept_all(which: u32, listener: RawFd, turn: &mut Turn<'_>) {
    for _ in 0..1000 {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no address is asked for; the new descriptor is handed on.
        let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            // EINVAL: it is being exchanged for another, which is told by mail.
            let exchanged = error.raw_os_error() == Some(libc::EINVAL);
            if !exchanged && !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                crate::log::warning(format!("Accepting client connection: {}", crate::net::os_text(&error)));
            }
            return;
        }
        turn.accepted.push((which, fd));
    }
}

/// Waits for up to [`MAX_EVENTS`] events. Less than a ms can be waited for since Linux 5.11 only; before that it is a ms.
///
/// # Safety
/// There is room for so many events.
unsafe fn wait(fd: RawFd, events: *mut libc::epoll_event, timeout_us: u64) -> libc::c_int {
    // SAFETY: by the caller's word; the time lives as long as the call.
    unsafe {
        if (1..1000).contains(&timeout_us) {
            let time = libc::timespec { tv_sec: 0, tv_nsec: timeout_us as i64 * 1000 };
            let n =
                libc::syscall(libc::SYS_epoll_pwait2, fd, events, MAX_EVENTS, &time, ptr::null::<libc::sigset_t>(), 0);
            if n >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
                return n as libc::c_int;
            }
        }
        let timeout_ms = timeout_us.div_ceil(1000).min(i32::MAX as u64) as i32;
        libc::epoll_wait(fd, events, MAX_EVENTS as libc::c_int, timeout_ms)
    }
}
