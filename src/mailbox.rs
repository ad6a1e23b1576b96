//! Mail between shards' threads: a lock-free stack that its owner takes whole, and a bell that rings only sleepers.
//!
//! A sender pushes with one compare-and-swap, whatever the number of senders; the owner takes everything with one
//! swap and reverses it, which restores each sender's order. Before it sleeps the owner raises a flag and looks once
//! more; a sender that finds the flag up lowers it and has to ring. So a shard that is awake is never signalled: the
//! signal and the wake-up are what make a hop dear, not the queue.
//!
//! Whoever the senders are, what was put in first comes out first; transactions count on that, and on the owner looking in
//! between reading a client's input and running it (`ringshard_shards::transaction`, `Turn::take_mail`).
//!
//! A sleeper for whom nothing waits is not woken either by mail that only lets go of keys: whatever could meet those
//! keys wakes it first, and finds the mail. That is one of three wake-ups of a command that splits.
//!
//! A loop on io_uring rings by a message from its ring to the sleeper's, submitted with the output of its turn and
//! needing no system call of its own; all others write to an eventfd.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering::*};

use ringshard_shards::commands::migrate::Migrated;
use ringshard_shards::message::Parcel;
use ringshard_shards::shard::Shutdown;
use ringshard_shards::snapshot::LoadBatch;

use crate::net::Accepted;

/// What one thread can send another.
pub enum Mail {
    /// Messages of the machine.
    Parcel(Box<Parcel>),
    /// A connection whose home this shard is.
    Adopt(Accepted),
    /// Keys of the file that is being loaded.
    Load(Box<LoadBatch>),
    /// A part of a log, for the first shard to run with all slices.
    LoadWithAll(Box<LoadBatch>),
    /// `CONFIG SET` has exchanged the listening sockets: for the shard that accepts.
    Listen,
    /// More of the log is on disk, or a full sync's snapshot is whole: the end of the turn looks.
    LogSynced,
    /// Keys of the receiver's client have been to another server, or not.
    Migrated(u32, Migrated),
    /// A signal asks for the end.
    Shutdown(Shutdown),
    /// The server ends: stop the loop.
    Stop,
}

/// How deep a shard sleeps.
mod sleep {
    /// It is awake, or being woken.
    pub const AWAKE: u8 = 0;
    /// Any mail wakes it: something of its waits.
    pub const LIGHT: u8 = 1;
    /// Urgent mail wakes it.
    pub const DEEP: u8 = 2;
}

struct Node {
    mail: Mail,
    next: *mut Node,
}

/// One shard's mailbox.
pub struct Mailbox {
    head: AtomicPtr<Node>,
    /// A [`sleep`] state.
    asleep: AtomicU8,
    bell: OwnedFd,
    /// The owner's ring, or -1: where a message can ring instead.
    ring: AtomicI32,
}

// SAFETY: nodes are owned by the stack, and each is taken out by one thread only.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: a plain system call; the descriptor it returns belongs to no one else.
        let bell = unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => return Err(std::io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Mailbox {
            head: AtomicPtr::new(ptr::null_mut()),
            asleep: AtomicU8::new(sleep::AWAKE),
            bell,
            ring: AtomicI32::new(-1),
        })
    }

    /// Puts mail in, and rings if the owner sleeps.
    pub fn push(&self, mail: Mail) {
        if self.push_quietly(mail) {
            self.ring();
        }
    }

    /// Puts mail in; true when the owner is to be woken by it and the caller has to ring.
    #[must_use]
    pub fn push_quietly(&self, mail: Mail) -> bool {
        let urgent = !matches!(&mail, Mail::Parcel(parcel) if parcel.only_releases());
        let node = Box::into_raw(Box::new(Node { mail, next: ptr::null_mut() }));
        let mut head = self.head.load(Relaxed);
        loop {
            // SAFETY: the node is still this thread's alone.
            unsafe { (*node).next = head };
            match self.head.compare_exchange_weak(head, node, SeqCst, Relaxed) {
                Ok(_) => break,
                Err(seen) => head = seen,
            }
        }
        let wakes = match self.asleep.load(SeqCst) {
            sleep::AWAKE => false,
            sleep::DEEP => urgent,
            _ => true,
        };
        wakes && self.asleep.swap(sleep::AWAKE, SeqCst) != sleep::AWAKE
    }

    /// Says that a message to this ring wakes the owner.
    pub fn set_ring(&self, fd: RawFd) {
        self.ring.store(fd, Release);
    }

    /// The owner's ring, if it has one.
    pub fn ring_fd(&self) -> Option<RawFd> {
        Some(self.ring.load(Acquire)).filter(|fd| *fd >= 0)
    }

    /// Whether there is no mail.
    pub fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// Takes all mail, each sender's in its order.
    pub fn take(&self) -> Taken {
        let mut taken = Taken { first: ptr::null_mut() };
        if self.head.load(Relaxed).is_null() {
            return taken;
        }
        let mut node = self.head.swap(ptr::null_mut(), Acquire);
        while !node.is_null() {
            // SAFETY: the swap made the whole list this thread's.
            let here = unsafe { &mut *node };
            if let Mail::Parcel(parcel) = &here.mail {
                parcel.fetch_head();
            }
            node = std::mem::replace(&mut here.next, std::mem::replace(&mut taken.first, node));
        }
        taken
    }

    /// Raises the flag that asks senders to ring, for all mail if something `waits`; false if there is mail already, and
    /// then the flag is down.
    pub fn fall_asleep(&self, waits: bool) -> bool {
        self.asleep.store(if waits { sleep::LIGHT } else { sleep::DEEP }, SeqCst);
        if self.head.load(SeqCst).is_null() {
            return true;
        }
        self.asleep.store(sleep::AWAKE, SeqCst);
        false
    }

    /// Lowers the flag: the owner is awake.
    pub fn wake_up(&self) {
        self.asleep.store(sleep::AWAKE, Relaxed);
    }

    /// The descriptor that becomes readable when a sleeper is rung.
    pub fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Wakes the owner through its eventfd.
    pub fn ring(&self) {
        ring_bell(self.bell());
    }

    /// Empties the bell after it rang.
    pub fn silence(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes of a local; not blocking, so an empty bell is no harm.
        unsafe { libc::read(self.bell.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

/// Mail that was taken out of a box, oldest first.
pub struct Taken {
    first: *mut Node,
}

impl Taken {
    /// The parcel among the first pieces of mail that is the `nth`, if that is one.
    pub fn parcel(&self, nth: usize) -> Option<&Parcel> {
        let mut node = self.first;
        for _ in 0..nth {
            // SAFETY: the nodes are this list's alone.
            node = unsafe { node.as_ref()?.next };
        }
        // SAFETY: as above; and none is freed while the list is borrowed.
        match unsafe { &node.as_ref()?.mail } {
            Mail::Parcel(parcel) => Some(parcel),
            _ => None,
        }
    }
}

impl Iterator for Taken {
    type Item = Mail;

    fn next(&mut self) -> Option<Mail> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: each node came from `Box::into_raw`, and is this list's alone.
        let node = *unsafe { Box::from_raw(self.first) };
        self.first = node.next;
        Some(node.mail)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

/// Makes an eventfd readable.
pub fn ring_bell(bell: RawFd) {
    let one = 1u64;
    // SAFETY: eight bytes of a local; the counter cannot overflow with one writer per sleep.
    unsafe { libc::write(bell, (&raw const one).cast(), 8) };
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// All shards' mailboxes.
pub struct Mailboxes {
    boxes: Vec<Mailbox>,
    /// Held while parcels that ask for slices are handed out, so that all receivers see them in one order.
    order: Mutex<()>,
}

impl Mailboxes {
    /// Empty mailboxes for so many shards.
    pub fn new(shards: usize) -> std::io::Result<Self> {
        Ok(Mailboxes { boxes: (0..shards).map(|_| Mailbox::new()).collect::<Result<_, _>>()?, order: Mutex::new(()) })
    }

    /// The mailbox of one shard.
    pub fn of(&self, shard: usize) -> &Mailbox {
        &self.boxes[shard]
    }

    /// Runs `send` while no other thread sends under the same lock.
    pub fn ordered(&self, send: impl FnOnce()) {
        let _held = self.order.lock().unwrap_or_else(|e| e.into_inner());
        send();
    }

    /// Sends to every shard.
    pub fn broadcast(&self, make: impl Fn() -> Mail) {
        self.boxes.iter().for_each(|mailbox| mailbox.push(make()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringshard_shards::message::ReplyHead;

    fn parcel(from: u16) -> Mail {
        Mail::Parcel(Box::new(Parcel { from, ..Parcel::default() }))
    }

    #[test]
    fn each_senders_order_is_kept_and_nothing_is_lost() {
        let mailbox = Mailbox::new().unwrap();
        const EACH: u16 = if cfg!(miri) { 50 } else { 5000 };
        std::thread::scope(|scope| {
            for sender in 0..3u16 {
                let mailbox = &mailbox;
                scope.spawn(move || (0..EACH).for_each(|n| mailbox.push(parcel(sender * 10_000 + n))));
            }
            let mut next = [0u16; 3];
            while next.iter().map(|n| *n as u32).sum::<u32>() < 3 * EACH as u32 {
                for mail in mailbox.take() {
                    let Mail::Parcel(parcel) = mail else { unreachable!() };
                    let sender = (parcel.from / 10_000) as usize;
                    assert_eq!(parcel.from % 10_000, next[sender]);
                    next[sender] += 1;
                }
            }
        });
    }

    #[test]
    fn a_sleeper_is_rung_once_and_mail_before_sleep_is_seen() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.push(parcel(0));
        assert!(!mailbox.fall_asleep(true));
        mailbox.take();
        assert!(mailbox.fall_asleep(true));
        mailbox.push(parcel(1));
        mailbox.push(parcel(2));
        let mut count = 0u64;
        // SAFETY: eight bytes of a local.
        let n = unsafe { libc::read(mailbox.bell(), (&raw mut count).cast(), 8) };
        assert_eq!((n, count), (8, 1));
        assert_eq!(mailbox.take().count(), 2);
    }

    #[test]
    fn keys_let_go_wake_only_those_for_whom_something_waits() {
        let releases = || Mail::Parcel(Box::new(Parcel { releases: vec![1], ..Parcel::default() }));
        let mut replies = Parcel { releases: vec![1], ..Parcel::default() };
        replies.replies.heads.push(ReplyHead { index: 0, id: 0, sequence: 0, len: 0 });
        let mailbox = Mailbox::new().unwrap();
        assert!(mailbox.fall_asleep(true));
        assert!(mailbox.push_quietly(releases()));
        mailbox.take();
        assert!(mailbox.fall_asleep(false));
        assert!(!mailbox.push_quietly(releases()));
        assert!(mailbox.push_quietly(Mail::Parcel(Box::new(replies))));
        assert!(!mailbox.push_quietly(releases()), "it is being woken");
        assert_eq!(mailbox.take().count(), 3);
    }
}
