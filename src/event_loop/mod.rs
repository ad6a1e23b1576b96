//! The event loop of a thread: what Redis calls `ae`.
//!
//! [`EventLoop::ae_main`] is one turn after the other: `before_sleep` (mail, output, effects), a wait, file events,
//! time events. A loop has one shard, or several where there are more shards than cores: each has its [`Seat`], and all of
//! a thread wait together. How they wait and move bytes is a [`Poller`]'s: [`uring`] or [`epoll`]. Both are thin and
//! everything else is shared, so a comparison between them compares only the loops.

pub mod epoll;
pub mod mapping;
pub mod ring;
mod seat;
pub mod uring;

use std::io;

use ringshard_shards::shard::Shard;

use crate::clock;
use crate::mailbox::Mailbox;
use crate::net::{Accepted, Acceptor};

pub use seat::{FileWork, Seat, Turn};

/// How a shard waits and moves bytes.
pub trait Poller {
    /// Takes charge of a connection; returns its place.
    ///
    /// # Errors
    /// What the kernel answers; the connection is closed then.
    fn adopt(&mut self, accepted: Accepted) -> io::Result<u32>;
    /// Closes a connection that the machine has given up.
    fn close(&mut self, index: u32);
    /// Sends the output of every client on the shard's list, or begins to.
    fn flush(&mut self, shard: &mut Shard);
    /// Has what [`Poller::flush`] began leave now, not with the next wait.
    fn submit(&mut self) {}
    /// Prepares for a wait; whether that must end at once, because there is more to do then.
    ///
    /// # Errors
    /// Only what makes going on impossible.
    fn before_wait(&mut self) -> io::Result<bool> {
        Ok(false)
    }
    /// Waits up to `timeout_us` until something happens at any of the thread's seats.
    ///
    /// # Errors
    /// Only what makes going on impossible.
    fn wait(&mut self, timeout_us: u64) -> io::Result<()>;
    /// Hands what happened to the shard.
    ///
    /// # Errors
    /// Only what makes going on impossible.
    fn poll(&mut self, turn: &mut Turn<'_>) -> io::Result<()>;
    /// Wakes another thread's sleeping loop, at the latest when this one waits.
    fn ring(&mut self, sleeper: &Mailbox) {
        sleeper.ring();
    }
    /// Starts to report connections on the acceptor's sockets, and ends it for those that are its no more.
    ///
    /// # Errors
    /// What the kernel answers.
    fn listen(&mut self, acceptor: &Acceptor) -> io::Result<()>;
}

/// A loop that served this many commands in a turn yields its processor once before it sleeps, when there are other
/// shards.
///
/// Another shard, or a client on this machine, may be waiting for the processor with more work for this one. Letting
/// it run costs a switch; sleeping and being woken by it costs a signal and two switches, and brings less at once. On
/// two cores, 50 connections, 16-deep: 1.2 against 1.4 µs of CPU a request with two shards. A lone client's round trip must
/// not wait for whoever else wants the processor, so a quiet loop does not yield.
const BUSY_COMMANDS: u64 = 4;

/// One thread's loop.
pub struct EventLoop<P> {
    seats: Vec<Seat<P>>,
    /// When the last wait ended, in µs.
    woke_us: u64,
}

impl<P: Poller> EventLoop<P> {
    /// A loop of these shards, whose pollers wait together.
    pub fn new(seats: Vec<Seat<P>>) -> Self {
        EventLoop { seats, woke_us: clock::monotonic_us() }
    }

    /// Registers the accept handler.
    ///
    /// # Errors
    /// What the kernel answers; the server cannot serve then.
    pub fn register_accept_handler(&mut self) -> io::Result<()> {
        self.seats.iter_mut().try_for_each(Seat::register_accept_handler)
    }

    /// Turns until the server stops, or until the executor around the loop has work to do; true when it stops.
    ///
    /// # Errors
    /// What makes going on impossible.
    pub fn ae_main(&mut self) -> io::Result<bool> {
        while !self.seats.iter().all(|seat| seat.stop) {
            self.before_sleep();
            if self.seats.iter().any(|seat| !seat.file_work.is_empty()) {
                return Ok(false);
            }
            self.ae_process_events(false)?;
        }
        self.seats.iter().for_each(Seat::log_turns);
        Ok(true)
    }

    /// One turn that does not wait, for executors that have other work.
    ///
    /// # Errors
    /// What makes going on impossible.
    pub fn turn_without_waiting(&mut self) -> io::Result<()> {
        self.before_sleep();
        self.ae_process_events(true)
    }

    /// Takes the file operations that the executor is to do, each with its shard's seat.
    pub fn take_file_work(&mut self) -> Vec<(usize, FileWork)> {
        let seats = self.seats.iter_mut().enumerate();
        seats.flat_map(|(at, seat)| seat.file_work.drain(..).map(move |work| (at, work))).collect()
    }

    /// A file operation is done.
    pub fn work_done(&mut self, seat: usize, client: u32, result: Result<(), String>) {
        self.seats[seat].work_done(client, result);
    }

    fn before_sleep(&mut self) {
        match &mut self.seats[..] {
            [seat] => seat.before_sleep(),
            seats => {
                // While one works time goes on for the others.
                for seat in &mut *seats {
                    seat.update_cached_time();
                    seat.before_sleep();
                }
                // What they have sent each other needs no turn of its own: who comes later has answered already.
                for seat in seats {
                    seat.update_cached_time();
                    seat.take_further_mail();
                }
            }
        }
        self.seats.iter_mut().for_each(Seat::end_turn);
        let now = clock::monotonic_us();
        let worked_us = now.saturating_sub(self.woke_us);
        let seats = self.seats.len() as u64;
        self.seats.iter_mut().for_each(|seat| seat.count_turn(now, worked_us, seats));
    }

    fn ae_process_events(&mut self, no_wait: bool) -> io::Result<()> {
        let mut timeout_us = if no_wait { 0 } else { u64::MAX };
        let (mut served, mut mail) = (0, false);
        for seat in &mut self.seats {
            let at_once = seat.poller.before_wait()?;
            timeout_us = timeout_us.min(if at_once { 0 } else { seat.timeout_us() });
            served += seat.served();
            mail |= !seat.mailbox().is_empty();
        }
        let others = self.seats[0].shard.core.shards > self.seats.len();
        if served >= BUSY_COMMANDS && others && timeout_us > 0 && !mail {
            std::thread::yield_now();
        }
        let asleep = timeout_us > 0 && self.fall_asleep();
        self.seats[0].poller.wait(if asleep { timeout_us } else { 0 })?;
        if asleep {
            self.seats.iter().for_each(|seat| seat.mailbox().wake_up());
        }
        self.seats.iter_mut().try_for_each(Seat::process_events)?;
        self.woke_us = self.seats[0].shard.core.now_us;
        Ok(())
    }

    /// Has whoever sends mail to one of these shards ring; false if some is there already.
    fn fall_asleep(&self) -> bool {
        let awake = self.seats.iter().position(|seat| !seat.mailbox().fall_asleep(seat.shard.something_waits()));
        self.seats[..awake.unwrap_or(0)].iter().for_each(|seat| seat.mailbox().wake_up());
        awake.is_none()
    }
}
