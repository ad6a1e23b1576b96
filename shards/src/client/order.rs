//! Replies in request order, however the shards answer.
//!
//! A pipeline's commands run on several shards at once. Each awaited reply has a slot; replies that come before their
//! turn, those of the home shard included, are held in one buffer and copied out when everything before them is
//! there. A client that only ever talks to its home shard never has a [`ReplyOrder`].

use std::collections::VecDeque;

/// Held bytes that are kept for the next pipeline, or not given up for a while.
const KEPT_BYTES: usize = 16 * 1024;

/// One reply: where its bytes are held, once they are.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    len: usize,
    ready: bool,
    /// The client has turned its replies off: nothing is kept of this one.
    muted: bool,
}

/// Shards that have a bit of their own.
pub const BITS: usize = 127;

/// A shard's bit in a set of shards. Those past [`BITS`] share one, so that a set with it says nothing for certain.
#[inline]
pub fn bit(owner: u16) -> u128 {
    1 << owner.min(BITS as u16)
}

/// Whether a shard is in a set, or may be.
#[inline]
pub fn has(set: u128, owner: u16) -> bool {
    let bit = owner.min(BITS as u16) as u32;
    // Of one word: a shift of two takes three times as long.
    let word = if bit < u64::BITS { set as u64 } else { (set >> u64::BITS) as u64 };
    word >> (bit % u64::BITS) & 1 != 0
}

/// The bits of several shards, of so many in all.
#[inline]
pub fn bits(owners: impl Iterator<Item = u16>, shards: usize) -> u128 {
    match shards <= u64::BITS as usize {
        true => owners.fold(0u64, |mask, owner| mask | 1 << owner).into(),
        false => owners.fold(0, |mask, owner| mask | bit(owner)),
    }
}

/// Appends a reply, unless nobody wants it.
#[inline]
fn append(out: &mut Vec<u8>, muted: bool, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    if muted {
        out.truncate(start);
    }
}

/// The replies of a client from the first awaited one on.
#[derive(Debug, Default)]
pub struct ReplyOrder {
    /// Number of the first slot.
    base: u64,
    slots: VecDeque<Slot>,
    held: Vec<u8>,
    /// How much of `held` has not been moved on.
    live: usize,
    /// The shards that awaited replies come from, a [`bit`] each, since the last time that none was awaited.
    owners: u128,
}

impl ReplyOrder {
    /// Whether nothing is awaited.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The shards that awaited replies come from; 0 when none is awaited.
    pub fn owners(&self) -> u128 {
        if self.slots.is_empty() { 0 } else { self.owners }
    }

    /// Opens a slot for a reply to come, and returns its number.
    pub fn expect(&mut self, owner: u16) -> u64 {
        self.expect_several(bit(owner), false)
    }

    /// As [`ReplyOrder::expect`], for a reply that takes several shards, and may be one that nobody wants.
    #[inline]
    pub fn expect_several(&mut self, owners: u128, muted: bool) -> u64 {
        self.owners = if self.slots.is_empty() { owners } else { self.owners | owners };
        self.slots.push_back(Slot { start: 0, len: 0, ready: false, muted });
        self.base + self.slots.len() as u64 - 1
    }

    /// The last of the replies to come takes these shards too.
    #[inline]
    pub fn expect_more(&mut self, owners: u128) {
        self.owners |= owners;
    }

    /// The number of the last slot, of which there is one.
    pub fn last(&self) -> u64 {
        self.base + self.slots.len() as u64 - 1
    }

    /// The buffer for a reply that is written now but has to wait; [`ReplyOrder::close_ready`] ends it.
    pub fn open_ready(&mut self) -> (&mut Vec<u8>, usize) {
        let start = self.held.len();
        (&mut self.held, start)
    }

    /// Ends a reply that began at `start`.
    pub fn close_ready(&mut self, start: usize) {
        let len = self.held.len() - start;
        self.live += len;
        self.slots.push_back(Slot { start, len, ready: true, muted: false });
    }

    /// Takes an awaited reply: what `write` appends. If it is in turn it goes to `out`, with all that it held up.
    #[inline]
    pub fn fulfil(&mut self, number: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let at = number.checked_sub(self.base).expect("a reply answers an awaited request") as usize;
        let slot = self.slots.get_mut(at).expect("a reply answers an awaited request");
        assert!(!slot.ready, "a request is answered once");
        let muted = slot.muted;
        if at == 0 {
            self.slots.pop_front();
            self.base += 1;
            append(out, muted, write);
            if self.slots.front().is_some_and(|slot| slot.ready) {
                self.drain(out);
            }
            return;
        }
        let start = self.held.len();
        append(&mut self.held, muted, write);
        *slot = Slot { start, len: self.held.len() - start, ready: true, muted: false };
        self.live += slot.len;
    }

    /// Moves what is in turn to `out`.
    fn drain(&mut self, out: &mut Vec<u8>) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.ready) {
            out.extend_from_slice(&self.held[slot.start..slot.start + slot.len]);
            self.live -= slot.len;
            self.slots.pop_front();
            self.base += 1;
        }
        if self.live == 0 {
            match self.held.capacity() > KEPT_BYTES {
                true => self.held = Vec::new(),
                false => self.held.clear(),
            }
        } else if self.held.len() > 2 * self.live + KEPT_BYTES {
            self.pack();
        }
    }

    /// Forgets what has been moved on: a client that always awaits something never leaves `held` empty.
    #[cold]
    fn pack(&mut self) {
        let mut packed = Vec::with_capacity(self.live);
        for slot in self.slots.iter_mut().filter(|slot| slot.ready) {
            let start = packed.len();
            packed.extend_from_slice(&self.held[slot.start..slot.start + slot.len]);
            slot.start = start;
        }
        self.held = packed;
    }

    /// Bytes held back.
    pub fn held_bytes(&self) -> usize {
        self.live
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.held.capacity() + self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of arrival, replies leave in the order of their requests.
        #[test]
        fn order_is_kept(local in prop::collection::vec(any::<bool>(), 1..50), picks in prop::collection::vec(any::<u32>(), 50)) {
            let (mut order, mut out, mut awaited) = (ReplyOrder::default(), Vec::new(), Vec::new());
            let mut picks = picks.into_iter();
            for (n, local) in local.iter().enumerate() {
                if *local && !order.is_empty() {
                    let (buffer, start) = order.open_ready();
                    buffer.push(n as u8);
                    order.close_ready(start);
                } else if *local {
                    out.push(n as u8);
                } else {
                    awaited.push((order.expect(1), n as u8));
                }
                if let Some(pick) = picks.next().filter(|p| p % 3 == 0 && !awaited.is_empty()) {
                    let (number, byte) = awaited.remove(pick as usize % awaited.len());
                    order.fulfil(number, &mut out, |out| out.push(byte));
                }
            }
            while let Some((number, byte)) = awaited.pop() {
                order.fulfil(number, &mut out, |out| out.push(byte));
            }
            prop_assert!(order.is_empty());
            prop_assert_eq!(out, (0..local.len() as u8).collect::<Vec<_>>());
        }

        /// A client that always awaits something holds no more than what is still owed.
        #[test]
        fn held_replies_do_not_pile_up(picks in prop::collection::vec(0usize..8, 2000..3000)) {
            let (mut order, mut out, mut awaited) = (ReplyOrder::default(), Vec::new(), Vec::new());
            let mut next = 0u32;
            for pick in picks {
                while awaited.len() < 8 {
                    awaited.push((order.expect(1), next));
                    next += 1;
                }
                let (number, n) = awaited.remove(pick);
                order.fulfil(number, &mut out, |out| out.resize(out.len() + 100, n as u8));
                prop_assert!(order.memory() < 64 * 1024, "{} bytes for {} owed", order.memory(), order.held_bytes());
            }
            while let Some((number, n)) = awaited.pop() {
                order.fulfil(number, &mut out, |out| out.resize(out.len() + 100, n as u8));
            }
            let expected: Vec<u8> = (0..next).flat_map(|n| [n as u8; 100]).collect();
            prop_assert!(order.is_empty() && out == expected);
        }
    }
}
