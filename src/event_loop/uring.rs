//! The io_uring loop.
//!
//! Reading is one multishot receive per connection into provided buffers; all output of a turn is one batch of sends;
//! and one `io_uring_enter` a turn submits, works off what the kernel deferred, and waits.
//!
//! **Sends complete while they are submitted.** They are sent without waiting (`MSG_DONTWAIT`) and whole
//! (`MSG_WAITALL`), so when `enter` returns each has either succeeded, which makes no completion
//! (`CQE_SKIP_SUCCESS`), or has a completion that says how far it came. So a wait for one completion is never ended
//! by the loop's own sends, which would cost a second `enter` each turn. What a full socket did not take is sent
//! again with a send that waits for room; that one completes in its own time.
//!
//! **A turn takes one buffer of each client**, as Redis reads each once: a client that pours in requests would hold up the
//! others for as long as all buffers last (some 18,000 `SET`s of it, 6 ms and more). What else has come of it is kept for
//! the next turns, and where that grows its receive is ended until it is worked off. Only the rest of a large argument,
//! which is merely copied, is taken at once.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use io_uring::types::{self, CancelBuilder};
use io_uring::{cqueue, opcode, squeue};
use ringshard_shards::limits::LARGE_READ_BYTES;
use ringshard_shards::shard::input::MAX_INPUTS;
use ringshard_shards::shard::{Event, Input, Shard};

use super::ring::{Completion, GROUP, Ring, seat_bits};
use super::{Poller, Turn};
use crate::mailbox::Mailbox;
use crate::net::{Accepted, Acceptor};
use crate::tls::{Handshakes, Session};

/// What a completion belongs to: the low byte of its token.
mod kind {
    pub const BELL: u64 = 0;
    pub const ACCEPT: u64 = 1;
    pub const RECEIVE: u64 = 2;
    /// A send that does not wait.
    pub const SEND: u64 = 3;
    /// A send that waits for room.
    pub const RESEND: u64 = 4;
    pub const CANCEL: u64 = 5;
    /// A message of another shard's ring: there is mail.
    pub const MAIL: u64 = 6;
    /// Such a message of this ring's has failed.
    pub const UNRUNG: u64 = 7;
}

/// Kind, generation (24 bits) and place (22 bits) of a connection; a completion of an earlier connection in the same place
/// is told by its generation. The seat's bits stand above.
fn token(kind: u64, generation: u32, index: u32) -> u64 {
    debug_assert!(index < 1 << 22);
    kind | ((generation & 0xff_ffff) as u64) << 8 | (index as u64) << 32
}

/// The place in a token.
fn place(token: u64) -> u32 {
    (token >> 32) as u32 & 0x3f_ffff
}

/// A connection whose input fills so many buffers ahead of its turns is not read on until they are worked off.
const HELD_BUFFERS: u32 = 8;

/// How far a connection's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// There is none.
    Idle,
    /// In a send that does not wait, which is over when `enter` returns.
    Submitted,
    /// In a send that waits for room.
    Waiting,
}

struct Connection {
    fd: OwnedFd,
    generation: u32,
    /// Output handed to the kernel, and how much of it was sent and reported to the machine.
    output: Vec<u8>,
    sent: usize,
    sending: Sending,
    /// Whether a multishot receive is under way, and whether it is being ended.
    receiving: bool,
    ending: bool,
    /// How many of its receives are kept for later turns.
    held: u32,
    /// The turns in which input of it was last taken, and last kept.
    taken: u64,
    kept: u64,
    /// Whether the peer has sent all that it will.
    ended: bool,
    /// Whether the machine has given it up; it goes when nothing of it is under way.
    closing: bool,
    /// The batch of inputs in which bytes of it last were.
    seen: u64,
    /// Where TLS is spoken; `output` is sealed then.
    tls: Option<Box<Session>>,
}

/// See the module's page.
pub struct Uring {
    ring: Rc<RefCell<Ring>>,
    seat: usize,
    bell: RawFd,
    bell_count: Box<u64>,
    bell_armed: bool,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    next_generation: u32,
    /// Connections whose sends were submitted since the last `enter`.
    submitted: Vec<u32>,
    /// Ids and descriptors.
    listeners: Vec<(u32, RawFd)>,
    rearm_accept: Vec<u32>,
    completions: Vec<Completion>,
    /// Receives of clients that have had their turn, in the order they came.
    later: Vec<Completion>,
    /// Counts turns, and the bytes of large arguments that may be taken in this one.
    turn: u64,
    large_left: usize,
    /// Inputs being gathered: place, provided buffer, length.
    inputs: Vec<(u32, u16, usize)>,
    /// Counts batches of inputs.
    batch: u64,
    handshakes: Handshakes,
    /// A session has more to send when what was submitted is sent, which makes no completion to wait for.
    unsealed: bool,
}

impl Uring {
    /// A seat at `ring` that wakes when `bell` rings.
    pub fn new(ring: Rc<RefCell<Ring>>, seat: usize, bell: RawFd) -> Self {
        Uring {
            ring,
            seat,
            bell,
            bell_count: Box::new(0),
            bell_armed: false,
            connections: Vec::new(),
            free: Vec::new(),
            next_generation: 0,
            submitted: Vec::new(),
            listeners: Vec::new(),
            rearm_accept: Vec::new(),
            completions: Vec::new(),
            later: Vec::new(),
            turn: 0,
            large_left: 0,
            inputs: Vec::with_capacity(MAX_INPUTS),
            batch: 1,
            handshakes: Handshakes::default(),
            unsealed: false,
        }
    }

    /// Adds a submission with this token.
    fn push(&mut self, entry: squeue::Entry, token: u64) -> io::Result<()> {
        let entry = entry.user_data(token | seat_bits(self.seat));
        // SAFETY: entries point to a connection's output, which is kept until its completion (or, for sends that do
        // not wait, until `enter` has returned), or to the boxed counter of the bell; these outlive the ring (`Ring::end`).
        unsafe { self.ring.borrow_mut().push(&entry) }
    }

    fn arm_bell(&mut self) -> io::Result<()> {
        if !self.bell_armed {
            let count = (&raw mut *self.bell_count).cast::<u8>();
            let read = opcode::Read::new(types::Fd(self.bell), count, 8).build();
            self.push(read, kind::BELL)?;
            self.bell_armed = true;
        }
        Ok(())
    }

    fn arm_receive(&mut self, index: u32) -> io::Result<()> {
        let connection = self.connections[index as usize].as_mut().expect("the caller saw it");
        (connection.receiving, connection.ending) = (true, false);
        let token = token(kind::RECEIVE, connection.generation, index);
        let entry = opcode::RecvMulti::new(types::Fd(connection.fd.as_raw_fd()), GROUP).build();
        self.push(entry, token)
    }

    /// Reports connections of a listener, unless it is one no more.
    fn arm_accept(&mut self, which: u32) -> io::Result<()> {
        let Some((_, fd)) = self.listeners.iter().find(|(id, _)| *id == which) else { return Ok(()) };
        let entry = opcode::AcceptMulti::new(types::Fd(*fd)).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, token(kind::ACCEPT, 0, which))
    }

    /// Submits the rest of a connection's output; `waiting` for a full socket.
    fn send_rest(&mut self, index: u32, waiting: bool) -> io::Result<()> {
        let connection = self.connections[index as usize].as_mut().expect("the caller saw it");
        let rest = &connection.output[connection.sent..];
        let fd = types::Fd(connection.fd.as_raw_fd());
        let send = opcode::Send::new(fd, rest.as_ptr(), rest.len().min(u32::MAX as usize) as u32);
        let generation = connection.generation;
        let (entry, kind) = match waiting {
            false => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
                (send.flags(flags).build().flags(squeue::Flags::SKIP_SUCCESS), kind::SEND)
            }
            true => (send.flags(libc::MSG_NOSIGNAL).build(), kind::RESEND),
        };
        self.push(entry, token(kind, generation, index))
    }

    /// The connection that a token names, if it is still that one.
    fn find(&mut self, token: u64) -> Option<(u32, &mut Connection)> {
        let index = place(token);
        let generation = (token >> 8) as u32 & 0xff_ffff;
        let connection = self.connections.get_mut(index as usize)?.as_mut()?;
        (connection.generation & 0xff_ffff == generation).then_some((index, connection))
    }

    /// Lets a closing connection go when nothing of it is under way.
    fn try_free(&mut self, index: u32) {
        let done = self.connections[index as usize]
            .as_ref()
            .is_some_and(|c| c.closing && !c.receiving && c.sending == Sending::Idle);
        if done {
            self.connections[index as usize] = None;
            self.free.push(index);
            self.ring.borrow_mut().left();
        }
    }

    /// The connection broke.
    fn lost(&mut self, shard: &mut Shard, index: u32) {
        let closing = self.connections[index as usize].as_ref().is_none_or(|c| c.closing);
        if !closing {
            shard.step(Event::Disconnected(index));
            self.close(index);
        }
    }

    /// Sends that were submitted before `enter`, and made no completion, have succeeded.
    fn finish_sends(&mut self, shard: &mut Shard) {
        let mut submitted = std::mem::take(&mut self.submitted);
        for index in submitted.drain(..) {
            if self.connections[index as usize].as_ref().is_some_and(|c| c.sending == Sending::Submitted) {
                self.output_done(shard, index);
            }
        }
        self.submitted = submitted;
    }

    /// All of a connection's output is sent.
    fn output_done(&mut self, shard: &mut Shard, index: u32) {
        let connection = self.connections[index as usize].as_mut().expect("the caller saw it");
        let output = std::mem::take(&mut connection.output);
        let unreported = output.len() - std::mem::take(&mut connection.sent);
        connection.sending = Sending::Idle;
        if connection.closing {
            shard.recycle(output);
            return self.try_free(index);
        }
        if let Some(session) = connection.tls.as_deref_mut() {
            return session.sent(shard, index, output);
        }
        shard.recycle(output);
        shard.step(Event::Sent(index, unreported));
        if shard.output_bytes(index) > 0 {
            // Output that came while this was being sent.
            shard.flush.push(index);
        }
    }

    /// A send came less far than asked, or waited and came to its end, or failed.
    fn send_completed(&mut self, shard: &mut Shard, token: u64, result: i32) -> io::Result<()> {
        let Some((index, connection)) = self.find(token) else { return Ok(()) };
        if result > 0 {
            if connection.sent + result as usize == connection.output.len() {
                self.output_done(shard, index);
                return Ok(());
            }
            connection.sent += result as usize;
            if !connection.closing && connection.tls.is_none() {
                shard.step(Event::Sent(index, result as usize));
            }
        }
        let again = result > 0 || matches!(-result, libc::EAGAIN | libc::EINTR);
        let Some(connection) = self.connections[index as usize].as_mut() else { return Ok(()) };
        if again && !connection.closing {
            connection.sending = Sending::Waiting;
            return self.send_rest(index, true);
        }
        connection.sending = Sending::Idle;
        connection.output = Vec::new();
        connection.sent = 0;
        match connection.closing {
            true => self.try_free(index),
            false => self.lost(shard, index),
        }
        Ok(())
    }

    /// Gives the gathered inputs to the machine, and their buffers back to the kernel.
    fn hand_over(&mut self, turn: &mut Turn<'_>) {
        if self.inputs.is_empty() {
            return;
        }
        turn.take_mail();
        let ring = self.ring.borrow();
        let mut list = [Input { client: 0, bytes: &[] }; MAX_INPUTS];
        for (slot, (client, buffer, len)) in list.iter_mut().zip(&self.inputs) {
            *slot = Input { client: *client, bytes: ring.buffer(*buffer, *len) };
        }
        turn.shard.step(Event::Received(&list[..self.inputs.len()]));
        drop(ring);
        let mut ring = self.ring.borrow_mut();
        self.inputs.drain(..).for_each(|(_, buffer, _)| ring.put(buffer));
        ring.publish();
        self.batch += 1;
    }

    fn put_back(&mut self, buffer: Option<u16>) {
        if let Some(buffer) = buffer {
            let mut ring = self.ring.borrow_mut();
            ring.put(buffer);
            ring.publish();
        }
    }

    /// Gives a session what was received; says whether the connection goes on.
    fn open_sealed(&mut self, turn: &mut Turn<'_>, index: u32, buffer: u16, len: usize) -> bool {
        turn.take_mail();
        let connection = self.connections[index as usize].as_mut().expect("the caller saw it");
        let session = connection.tls.as_deref_mut().expect("the caller saw it");
        let end = session.receive(turn.shard, index, self.ring.borrow().buffer(buffer, len)).err();
        end.iter().for_each(|end| session.note_end(end));
        self.put_back(Some(buffer));
        if end.is_some() {
            self.lost(turn.shard, index);
        }
        end.is_none()
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

    /// A receive has completed: takes in what it brought, unless its client has had its turn.
    fn receive_completed(&mut self, turn: &mut Turn<'_>, completion: Completion) -> io::Result<()> {
        let (token, result, flags) = completion;
        let Some((index, connection)) = self.find(token) else {
            self.put_back(cqueue::buffer_select(flags));
            return Ok(());
        };
        connection.receiving = cqueue::more(flags);
        if connection.held == 0 {
            return self.take_received(turn, completion);
        }
        if is_passing(result) {
            return Ok(());
        }
        self.keep(index, completion)
    }

    /// Keeps what a receive brought for a later turn, and ends the receive where enough is kept.
    fn keep(&mut self, index: u32, completion: Completion) -> io::Result<()> {
        let connection = self.connections[index as usize].as_mut().expect("the caller saw it");
        connection.held += 1;
        connection.kept = self.turn;
        self.later.push(completion);
        if connection.held < HELD_BUFFERS || !connection.receiving || connection.ending {
            return Ok(());
        }
        connection.ending = true;
        let token = token(kind::RECEIVE, connection.generation, index);
        self.cancel(token)
    }

    /// Takes in what has been kept of earlier turns, as far as its clients have one now.
    fn take_kept(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        for completion in std::mem::take(&mut self.later) {
            if let Some((_, connection)) = self.find(completion.0) {
                connection.held -= 1;
            }
            self.take_received(turn, completion)?;
        }
        Ok(())
    }

    /// Whether a client's turn goes on though input of it was taken: what comes now is the midst of a large argument.
    fn goes_on(&mut self, turn: &mut Turn<'_>, index: u32, bytes: usize) -> bool {
        if self.large_left < bytes {
            return false;
        }
        // The machine must have seen what came before.
        self.hand_over(turn);
        let goes_on = turn.shard.awaits_large(index);
        self.large_left -= if goes_on { bytes } else { 0 };
        goes_on
    }

    fn cancel(&mut self, token: u64) -> io::Result<()> {
        let builder = CancelBuilder::user_data(token | seat_bits(self.seat));
        self.push(opcode::AsyncCancel2::new(builder).build(), kind::CANCEL)
    }

    /// Takes in what a receive brought, or keeps it.
    fn take_received(&mut self, turn: &mut Turn<'_>, completion: Completion) -> io::Result<()> {
        let (token, result, flags) = completion;
        let buffer = cqueue::buffer_select(flags);
        let this_turn = self.turn;
        let Some((index, connection)) = self.find(token) else {
            self.put_back(buffer);
            return Ok(());
        };
        let (taken, kept) = (connection.taken == this_turn, connection.kept == this_turn);
        if !connection.closing && (kept || taken && result > 0 && !self.goes_on(turn, index, result as usize)) {
            return self.keep(index, completion);
        }
        let batch = self.batch;
        let Some(connection) = self.connections[index as usize].as_mut().filter(|connection| !connection.closing)
        else {
            self.put_back(buffer);
            self.try_free(index);
            return Ok(());
        };
        if result > 0 {
            connection.taken = this_turn;
        }
        if result > 0 && connection.tls.is_some() {
            let buffer = buffer.expect("received bytes are in a provided buffer");
            if !self.open_sealed(turn, index, buffer, result as usize) {
                return Ok(());
            }
        } else if result > 0 {
            let again = connection.seen == batch;
            if again || self.inputs.len() == MAX_INPUTS {
                // The machine takes each client's bytes once at a time.
                self.hand_over(turn);
            }
            let buffer = buffer.expect("received bytes are in a provided buffer");
            self.inputs.push((index, buffer, result as usize));
            if let Some(connection) = self.connections[index as usize].as_mut() {
                connection.seen = self.batch;
            }
        } else if !is_passing(result) {
            self.put_back(buffer);
            // What the peer sent before it went is run first.
            self.hand_over(turn);
            if result < 0 {
                self.lost(turn.shard, index);
            } else if let Some(connection) = self.connections[index as usize].as_mut() {
                connection.ended = true;
                turn.shard.step(Event::Ended(index));
            }
            return Ok(());
        }
        match self.connections[index as usize].as_ref() {
            Some(connection) if !connection.receiving && !connection.closing && connection.held == 0 => {
                self.arm_receive(index)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a receive ended without input, only to be begun again: for want of a buffer, or because it was to end.
fn is_passing(result: i32) -> bool {
    matches!(-result, libc::ENOBUFS | libc::EAGAIN | libc::EINTR | libc::ECANCELED)
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The seats of a ring go together.
        self.ring.borrow_mut().end();
    }
}

impl Poller for Uring {
    fn adopt(&mut self, accepted: Accepted) -> io::Result<u32> {
        let index = self.free.pop().unwrap_or(self.connections.len() as u32);
        if index as usize == self.connections.len() {
            self.connections.push(None);
        }
        self.next_generation = self.next_generation.wrapping_add(1);
        if let Some(session) = &accepted.tls {
            self.handshakes.expect(index, session);
        }
        self.connections[index as usize] = Some(Connection {
            fd: accepted.fd,
            generation: self.next_generation,
            output: Vec::new(),
            sent: 0,
            sending: Sending::Idle,
            receiving: false,
            ending: false,
            held: 0,
            taken: 0,
            kept: 0,
            ended: false,
            closing: false,
            seen: 0,
            tls: accepted.tls,
        });
        self.ring.borrow_mut().joined();
        self.arm_receive(index)?;
        Ok(index)
    }

    fn close(&mut self, index: u32) {
        let Some(connection) = self.connections[index as usize].as_mut() else { return };
        if connection.closing {
            return;
        }
        connection.closing = true;
        let (fd, generation) = (connection.fd.as_raw_fd(), connection.generation);
        if let Some(session) = connection.tls.as_deref_mut().filter(|_| connection.sending == Sending::Idle) {
            session.farewell(fd);
        }
        // The peer hears of it at once, though the descriptor lives until the kernel lets go of it.
        // SAFETY: a valid descriptor.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
        if connection.receiving || connection.sending == Sending::Waiting {
            for kind in [kind::RECEIVE, kind::RESEND] {
                if let Err(error) = self.cancel(token(kind, generation, index)) {
                    crate::log::warning(format!("Cannot cancel operations of a closed client: {error}"));
                }
            }
        }
        self.try_free(index);
    }

    fn flush(&mut self, shard: &mut Shard) {
        while let Some(index) = shard.flush.pop() {
            let output = match self.connections.get_mut(index as usize) {
                // Later output goes behind what is being sent, when that is out.
                Some(Some(connection)) if connection.sending == Sending::Idle && !connection.closing => {
                    match connection.tls.as_deref_mut() {
                        None => shard.take_output(index),
                        Some(session) => session.output(shard, index),
                    }
                }
                _ => continue,
            };
            let Some(connection) = self.connections[index as usize].as_mut() else { continue };
            if output.is_empty() {
                continue;
            }
            self.unsealed |= connection.tls.as_ref().is_some_and(|session| session.has_more());
            connection.output = output;
            connection.sent = 0;
            connection.sending = Sending::Submitted;
            self.submitted.push(index);
            if let Err(error) = self.send_rest(index, false) {
                crate::log::warning(format!("Cannot submit a send: {error}"));
            }
        }
    }

    fn submit(&mut self) {
        self.ring.borrow_mut().submit();
    }

    fn before_wait(&mut self) -> io::Result<bool> {
        self.arm_bell()?;
        for which in std::mem::take(&mut self.rearm_accept) {
            self.arm_accept(which)?;
        }
        Ok(std::mem::take(&mut self.unsealed) | !self.later.is_empty())
    }

    fn wait(&mut self, timeout_us: u64) -> io::Result<()> {
        self.ring.borrow_mut().enter(timeout_us)
    }

    fn poll(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.borrow_mut().completions(self.seat, &mut completions);
        turn.active = !completions.is_empty() || !self.later.is_empty();
        self.turn += 1;
        self.large_left = LARGE_READ_BYTES;
        // Sends that did not succeed have a completion; after these, the others have succeeded.
        for &(token, result, _) in completions.iter().filter(|(token, ..)| token & 0xff == kind::SEND) {
            self.send_completed(turn.shard, token, result)?;
        }
        self.finish_sends(turn.shard);
        self.take_kept(turn)?;
        for &completion in &completions {
            let (token, result, flags) = completion;
            match token & 0xff {
                kind::BELL => self.bell_armed = false,
                kind::ACCEPT => {
                    let which = place(token);
                    if result >= 0 {
                        turn.accepted.push((which, result));
                    } else if !matches!(-result, libc::EAGAIN | libc::EINTR | libc::ECONNABORTED | libc::EINVAL) {
                        // EINVAL: it is being exchanged for another, which is told by mail.
                        let error = io::Error::from_raw_os_error(-result);
                        crate::log::warning(format!("Accepting client connection: {}", crate::net::os_text(&error)));
                    }
                    if !cqueue::more(flags) {
                        self.rearm_accept.push(which);
                    }
                }
                kind::RECEIVE => self.receive_completed(turn, completion)?,
                // The sleeper must not sleep on: its eventfd always works.
                kind::UNRUNG => crate::mailbox::ring_bell(place(token) as RawFd),
                kind::RESEND => self.send_completed(turn.shard, token, result)?,
                _ => {}
            }
        }
        self.hand_over(turn);
        self.end_late_handshakes(turn.shard);
        completions.clear();
        self.completions = completions;
        Ok(())
    }

    fn ring(&mut self, sleeper: &Mailbox) {
        let Some(fd) = sleeper.ring_fd() else { return sleeper.ring() };
        let entry = opcode::MsgRingData::new(types::Fd(fd), 0, kind::MAIL, None).build();
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        if self.push(entry, token(kind::UNRUNG, 0, sleeper.bell() as u32)).is_err() {
            sleeper.ring();
        }
    }

    fn listen(&mut self, acceptor: &Acceptor) -> io::Result<()> {
        let now: Vec<(u32, RawFd)> = acceptor.listeners.iter().map(|listener| (listener.id, listener.fd())).collect();
        let before = std::mem::replace(&mut self.listeners, now.clone());
        now.into_iter().filter(|new| !before.contains(new)).try_for_each(|(which, _)| self.arm_accept(which))
    }
}
