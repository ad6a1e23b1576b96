//! `Dict`: the hash table of every slice, and of large hashes, sets and sorted sets.
//!
//! The one idea: a hash is a *position*, and the table cuts the space of positions into equal
//! intervals, one cache-line bucket each (`bucket.rs`). A lookup is one multiplication, one line
//! for the bucket and one for the element whose tag byte matches. Everything else follows from
//! the mapping being monotone:
//!
//! - **Rehash** moves buckets in order, behind a `boundary`. Positions before it live in the table
//!   `next`, the others in `main`; so one place only is ever searched. Segments of `next` are
//!   allocated as the boundary reaches them, those of `main` freed as it leaves them.
//! - **Growth is continuous.** The next table is larger by a quarter to a seventh (`table.rs` says
//!   why, and how elements move without being touched), and the boundary advances
//!   only as fast as elements come, so that elements per bucket stay at one figure at *every*
//!   size: no sawtooth in memory, and about one bucket moved per insert. A growth that stands
//!   half-way is a state of rest, not work to be done; `is_rehashing` is false there.
//! - **Shrinking** begins under half load, straight to the size that fits. It is work to be done:
//!   inserts do some, the cron's `rehash_step` does the rest. `remove` never rehashes (it has no
//!   hasher), so an owner that only deletes calls `rehash_step` too.
//! - **`SCAN`** is a walk through positions: a step emits the bucket that owns the cursor and goes
//!   to the end of its interval. Whatever sizes the table takes meanwhile, an element keeps its
//!   position, so none that stays throughout is missed. (Redis walks reverse-binary because its
//!   sizes are powers of two; the guarantee is the same.)
//!
//! A `Dict` does not own its elements: whoever holds the dict frees them (`drain_step`).
//! Counterpart in Redis: `dict.c`; in Valkey: `hashtable.c`.

mod bucket;
mod hasher;
mod table;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::ptr::NonNull;

pub(crate) use bucket::prefetch_line;
use bucket::{Bucket, Mark, bits};
pub use hasher::Hasher;
pub use table::HASH_BITS;
use table::{DIRECT_MAX, SPACE, Table, next_size, size_for};

/// Elements per 16 buckets that the table aims at: 5.5 of 9 slots, locally 4.4 to 6.9 across a
/// growth. Measured from a thousand to 10 million keys, with directories and child buckets (5% of
/// the buckets have one): 12.3 to 13.5 bytes a key, above 10^6 never more than 12.4. At 83 it is
/// 12.7 to 14.0 with 4% of children.
const LOAD: u64 = 88;
/// Buckets an insert moves at most while it keeps pace with growth.
const GROW_MOVES: u32 = 4;
/// Buckets an insert moves at most when a shrink must end before the table fills again. They
/// hold few elements each, or there would be no shrink.
const SHRINK_MOVES: u64 = 32;
/// A bucket of a chain longer than this gets a smaller chance from `random`.
const FAIR_CHAIN: u64 = 16;
/// Draws after which `random` settles for any element near the last one.
const FAIR_DRAWS: u32 = 200;

/// A handle to one heap object that carries its own key.
///
/// # Safety
/// The address is 8-aligned and below 2^48, `from_ptr(e.to_ptr())` is `e`, and `key` of an
/// element in a dict never changes. An element in a dict belongs to whoever holds the dict and
/// follows it to another thread.
pub unsafe trait Element: Copy {
    /// The address of the object.
    fn to_ptr(self) -> NonNull<u8>;

    /// The handle again.
    ///
    /// # Safety
    /// `p` came from `to_ptr`, and the object still lives.
    unsafe fn from_ptr(p: NonNull<u8>) -> Self;

    /// The key it is found by.
    fn key(&self) -> &[u8];

    /// Asks for the line (or lines) that `key` reads.
    #[inline]
    fn prefetch(self) {
        prefetch_line(self.to_ptr().as_ptr());
    }
}

/// A hash table of elements that carry their keys. See the head of this file.
pub struct Dict<E: Element> {
    /// The table of positions from `boundary` on; the only one while `next` has no buckets.
    main: Table,
    /// The table of positions before `boundary`, when a rehash is under way.
    next: Table,
    /// Hashes below it live in `next`. Zero when no rehash is under way.
    boundary: u64,
    /// Buckets of `main` that were moved: `boundary` is where bucket `frontier` starts.
    frontier: u32,
    /// Buckets of `next` that were opened.
    ready: u32,
    len: u64,
    /// Child buckets alive in both tables.
    children: u64,
    elements: PhantomData<E>,
}

const _: () = assert!(size_of::<Dict<crate::entry::EntryPtr>>() == 64);

// SAFETY: the tables belong to the dict alone, and an `Element` follows its dict by contract.
unsafe impl<E: Element> Send for Dict<E> {}

impl<E: Element> Default for Dict<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Element> Dict<E> {
    /// An empty dict; it allocates with the first insert.
    pub const fn new() -> Self {
        Self {
            main: Table::none(),
            next: Table::none(),
            boundary: 0,
            frontier: 0,
            ready: 0,
            len: 0,
            children: 0,
            elements: PhantomData,
        }
    }

    /// Elements held.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for the bucket of a hash: the first stage of a lookup made ahead of time.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        prefetch_line(self.head(hash));
    }

    /// Asks for the elements that a lookup of this hash will compare: the second stage, to be
    /// called when the bucket is in the cache (some tens of nanoseconds after the first).
    #[inline]
    pub fn prefetch_element(&self, hash: u64) {
        let (bucket, mark) = self.bucket_and_mark(hash);
        for i in bits(bucket.candidates(mark)) {
            if let Some(p) = bucket.get_if(i, mark) {
                handle::<E>(p).prefetch();
            }
        }
        if let Some(child) = bucket.child() {
            prefetch_line(child.as_ptr());
        }
    }

    /// The element with this key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<E> {
        self.find_by(hash, |e| e.key() == key)
    }

    /// An element whose key has this hash: for who would rather not keep the key. There is hardly ever more than one.
    pub fn find_hash(&self, hasher: &Hasher, hash: u64) -> Option<E> {
        self.find_by(hash, |e| hasher.hash(e.key()) == hash)
    }

    #[inline(always)]
    fn find_by(&self, hash: u64, is: impl Fn(E) -> bool) -> Option<E> {
        let (mut bucket, mark) = self.bucket_and_mark(hash);
        loop {
            // The link's tag is 0, so a candidate is always an element.
            for i in bits(bucket.candidates(mark)) {
                if let Some(p) = bucket.get_if(i, mark) {
                    let e = handle::<E>(p);
                    if is(e) {
                        return Some(e);
                    }
                }
            }
            let child = bucket.child()?;
            // SAFETY: a child lives as long as its link.
            bucket = unsafe { child.as_ref() };
        }
    }

    /// Adds an element whose key is not in the dict. `hash` is `hasher`'s of its key.
    #[inline]
    pub fn insert(&mut self, hasher: &Hasher, hash: u64, e: E) {
        debug_assert!((hash ^ hasher.hash(e.key())) & HASH_BITS == 0);
        if self.len >= self.capacity() || self.next.n() != 0 {
            self.make_room(hasher);
        }
        let table = self.table(hash);
        let (head, mark) = (table.at(table.index(hash)), table.mark(hash));
        // SAFETY: `make_room` left a table that has buckets, so `head` is one of its own.
        unsafe { self.put(head, mark, e) };
        self.len += 1;
    }

    /// Makes the table as large as `n` elements will need, in one go: for who knows that as many come at once, and has no
    /// one waiting. Where fewer come than were announced the table is one that is to shrink.
    pub fn reserve(&mut self, hasher: &Hasher, n: u64) {
        let buckets = (n * 16).div_ceil(LOAD).clamp(1, 1 << 31) as u32;
        if n <= self.capacity().max(self.len) {
            return;
        }
        while self.next.n() != 0 {
            self.move_bucket(hasher);
        }
        if self.len == 0 && self.main.n() != 0 {
            self.release();
        }
        if self.main.n() == 0 {
            self.main = Table::new(size_for(buckets));
            (0..self.main.n()).for_each(|i| self.main.open(i));
        } else if size_for(buckets) > self.main.n() {
            self.begin_rehash(size_for(buckets));
            while self.next.n() != 0 {
                self.move_bucket(hasher);
            }
        }
    }

    /// Puts `new` where `old` is: the same key in a moved allocation. `old` is not looked at.
    #[inline]
    pub fn replace(&mut self, hash: u64, old: E, new: E) {
        let (bucket, i) = self.locate(hash, |e| e.to_ptr() == old.to_ptr()).expect("old is in it");
        let mark = self.table(hash).mark(hash);
        // SAFETY: `locate` gives a living bucket of ours, and nothing else refers to it.
        unsafe { (*bucket).set(i, mark, new.to_ptr().as_ptr()) };
    }

    /// Takes out the element with this key. The caller owns it now.
    #[inline]
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<E> {
        let (bucket, i) = self.locate(hash, |e| e.key() == key)?;
        // SAFETY: `locate` gives a living bucket of ours and a used slot.
        let e = handle::<E>(unsafe { (*bucket).get(i) });
        self.take_out(hash, bucket, i);
        Some(e)
    }

    /// Takes out this very element, compared by address (its key is not looked at). False when
    /// it is not there.
    #[inline]
    pub fn remove_ptr(&mut self, hash: u64, e: E) -> bool {
        let Some((bucket, i)) = self.locate(hash, |other| other.to_ptr() == e.to_ptr()) else {
            return false;
        };
        self.take_out(hash, bucket, i);
        true
    }

    /// One step of a `SCAN`: emits the elements of one bucket and returns the next cursor, below
    /// 2^48. A scan starts with 0 and is over when 0 comes back. Whatever stays in the dict from
    /// the first step to the last is emitted at least once; other elements perhaps, and some
    /// twice when the table changes its size meanwhile.
    pub fn scan(&self, cursor: u64, f: &mut dyn FnMut(E)) -> u64 {
        // A cursor comes back from the client, so any number is taken.
        let position = cursor % SPACE;
        if self.is_empty() {
            return 0;
        }
        for_chain(self.bucket(position << 16), f);
        self.end_of(position) % SPACE
    }

    /// A random element, each with (almost exactly) the same chance. It draws about three
    /// buckets; `rng` gives uniform 64-bit numbers.
    pub fn random(&self, rng: &mut impl FnMut() -> u64) -> Option<E> {
        if self.is_empty() {
            return None;
        }
        // A bucket is hit in proportion to its interval, so a hit is accepted in proportion to
        // its elements over its interval. A chain of more than 16 is not worth exactness.
        let finest = u64::from(self.main.n().max(self.next.n()));
        for _ in 0..FAIR_DRAWS {
            let hash = rng();
            let bucket = self.bucket(hash);
            let table = u64::from(self.table(hash).n());
            // In 1/65536 of an element, as the quotient is not a whole number.
            let pick = below(rng(), (FAIR_CHAIN << 16) * finest / table) >> 16;
            let mut count = 0;
            let mut found = None;
            for_chain(bucket, &mut |e| {
                if count == pick {
                    found = Some(e);
                }
                count += 1;
            });
            if found.is_some() {
                return found;
            }
        }
        // Almost empty for its size (a shrink is due): the next element from a random position.
        let mut found = None;
        self.sample(rng, 1, |e| found = Some(e));
        found
    }

    /// Emits up to `n` elements of neighbouring buckets from a random position on: cheap and not
    /// independent of each other, as eviction wants them.
    pub fn sample(&self, rng: &mut impl FnMut() -> u64, n: usize, mut f: impl FnMut(E)) {
        if self.is_empty() {
            return;
        }
        let first = rng() >> 16;
        let mut position = first;
        let mut wanted = n.min(self.len());
        let mut wrapped = false;
        while wanted > 0 {
            for_chain(self.bucket(position << 16), &mut |e| {
                if wanted > 0 {
                    wanted -= 1;
                    f(e);
                }
            });
            position = self.end_of(position) % SPACE;
            wrapped |= position == 0;
            if wrapped && position > first {
                break;
            }
        }
    }

    /// Emits every element.
    pub fn for_each(&self, mut f: impl FnMut(E)) {
        let mut position = 0;
        while position < SPACE && !self.is_empty() {
            for_chain(self.bucket(position << 16), &mut f);
            position = self.end_of(position);
        }
    }

    /// Takes out every element and frees the tables.
    pub fn drain(&mut self, mut f: impl FnMut(E)) {
        while self.drain_step(usize::MAX, &mut f) {}
    }

    /// Takes out the elements of up to `n` buckets, freeing the table behind it; the caller owns
    /// them now. True while there is more to take out; at the end nothing is allocated. Between
    /// the steps the dict is an ordinary dict of what is left.
    pub fn drain_step(&mut self, n: usize, mut f: impl FnMut(E)) -> bool {
        // A drain is a rehash that hands elements out instead of moving them. When a rehash was
        // half-way, the first pass empties `main`, a second one what had been moved to `next`.
        for _ in 0..n {
            if self.next.n() == 0 {
                if self.main.n() == 0 {
                    return false;
                }
                if self.len == 0 && self.main.n() <= DIRECT_MAX {
                    self.release();
                    return false;
                }
                // An eighth, and not one bucket: chains stay short should the dict be used again.
                self.begin_rehash(size_for(self.main.n() / 8));
            }
            let taken = self.pass_bucket(|_, e, _| f(e));
            self.len -= taken;
        }
        self.main.n() != 0
    }

    /// Moves up to `n` buckets of work that is due (a shrink); true while more is due.
    pub fn rehash_step(&mut self, hasher: &Hasher, n: usize) -> bool {
        for _ in 0..n {
            if !self.is_rehashing() {
                return false;
            }
            if self.next.n() == 0 {
                self.begin_shrink();
            }
            self.move_bucket(hasher);
        }
        self.is_rehashing()
    }

    /// True while `rehash_step` has work: the table is too large for what it holds.
    pub fn is_rehashing(&self) -> bool {
        if self.next.n() != 0 && self.next.n() < self.main.n() {
            return true;
        }
        self.buckets() > 1 && self.len < capacity(self.buckets()) / 2 || self.len == 0 && self.main.n() != 0
    }

    /// Bytes allocated for tables, directories and child buckets; not the elements.
    pub fn bytes(&self) -> usize {
        self.main.bytes(self.frontier, self.main.n())
            + self.next.bytes(0, self.ready)
            + self.children as usize * size_of::<Bucket>()
    }

    /// Buckets in use, children apart.
    #[inline]
    pub fn buckets(&self) -> u64 {
        u64::from(self.ready) + u64::from(self.main.n() - self.frontier)
    }

    /// What `DEBUG HTSTATS` says of it. Reads every bucket.
    pub fn stats(&self) -> String {
        let mut fill = [0u64; 32];
        let mut position = 0;
        while position < SPACE && self.main.n() != 0 {
            let mut count = 0;
            for_chain::<E>(self.bucket(position << 16), &mut |_| count += 1);
            fill[count.min(31)] += 1;
            position = self.end_of(position);
        }
        let mut text = String::new();
        let buckets = self.buckets().max(1) as f64;
        // Writing to a String cannot fail.
        let _ = writeln!(text, " table size: {}", self.buckets());
        let _ = writeln!(text, " number of elements: {}", self.len);
        let _ = writeln!(text, " child buckets: {}", self.children);
        let _ = writeln!(text, " bytes: {}", self.bytes());
        if self.next.n() != 0 {
            let (from, to) = (self.main.n(), self.next.n());
            let _ = writeln!(text, " rehash: {} of {from} buckets moved to {to}", self.frontier);
        }
        let _ = writeln!(text, " elements per bucket: {:.2}", self.len as f64 / buckets);
        let _ = writeln!(text, " Bucket fill distribution:");
        for (count, &number) in fill.iter().enumerate().filter(|(_, n)| **n != 0) {
            let more = if count == 31 { "+" } else { "" };
            let share = 100.0 * number as f64 / buckets;
            let _ = writeln!(text, "   {count}{more}: {number} ({share:.2}%)");
        }
        text
    }

    // ------------------------------------------------------------------ where a hash lives

    #[inline]
    fn table(&self, hash: u64) -> &Table {
        if hash < self.boundary { &self.next } else { &self.main }
    }

    #[inline]
    fn head(&self, hash: u64) -> *mut Bucket {
        let table = self.table(hash);
        // Below the boundary all of `next` that is asked for is open; from it on, `main` is.
        table.at(table.index(hash))
    }

    #[inline]
    fn bucket(&self, hash: u64) -> &Bucket {
        // SAFETY: a bucket that owns a hash is open, and only `&mut self` changes it.
        unsafe { &*self.head(hash) }
    }

    #[inline]
    fn bucket_and_mark(&self, hash: u64) -> (&Bucket, Mark) {
        let table = self.table(hash);
        // SAFETY: as in `bucket`.
        (unsafe { &*table.at(table.index(hash)) }, table.mark(hash))
    }

    /// The first position (48 bits) behind the interval of the bucket that owns this one.
    fn end_of(&self, position: u64) -> u64 {
        let hash = position << 16;
        let table = self.table(hash);
        let end = table.start(table.index(hash) + 1);
        // The last bucket of `next` may reach over the boundary; what lies there is in `main`.
        if hash < self.boundary { end.min(self.boundary >> 16) } else { end }
    }

    /// The slot of an element with this hash that `is` accepts.
    #[inline]
    fn locate(&self, hash: u64, is: impl Fn(E) -> bool) -> Option<(*mut Bucket, usize)> {
        let table = self.table(hash);
        let (mut at, mark) = (table.at(table.index(hash)), table.mark(hash));
        loop {
            // SAFETY: heads and children that are linked are alive.
            let bucket = unsafe { &*at };
            for i in bits(bucket.candidates(mark)) {
                if bucket.get_if(i, mark).is_some_and(|p| is(handle(p))) {
                    return Some((at, i));
                }
            }
            at = bucket.child()?.as_ptr();
        }
    }

    // ------------------------------------------------------------------ putting in and out

    /// Adds an element to the chain that begins at `at`.
    ///
    /// # Safety
    /// `at` is an open bucket of this dict.
    #[inline]
    unsafe fn put(&mut self, mut at: *mut Bucket, mark: Mark, e: E) {
        loop {
            // SAFETY: `at` is alive, and `&mut self` makes us the only ones to look at it.
            let bucket = unsafe { &mut *at };
            let free = bucket.free();
            if free != 0 {
                bucket.set(free.trailing_zeros() as usize, mark, e.to_ptr().as_ptr());
                return;
            }
            at = match bucket.child() {
                Some(child) => child.as_ptr(),
                None => {
                    self.children += 1;
                    bucket.grow_child().as_ptr()
                }
            };
        }
    }

    /// Frees slot `i` of `at`, in the chain of `hash`, and keeps the chain dense.
    #[inline]
    fn take_out(&mut self, hash: u64, at: *mut Bucket, i: usize) {
        let head = self.head(hash);
        // SAFETY: both are alive, and one reference at a time exists.
        unsafe {
            if !(*head).has_child() {
                (*head).clear(i);
            } else {
                self.take_out_of_chain(head, at, i);
            }
        }
        self.len -= 1;
        if self.len == 0 && self.next.n() == 0 && self.main.n() <= DIRECT_MAX {
            self.release();
        }
    }

    /// Fills the hole with the chain's last element; a last bucket of one element dissolves into
    /// its parent's slot 8.
    ///
    /// # Safety
    /// `at` is in the chain of `head`, slot `i` of it is used, and no reference to either exists.
    #[cold]
    unsafe fn take_out_of_chain(&mut self, head: *mut Bucket, at: *mut Bucket, i: usize) {
        // SAFETY: all pointers are to living buckets of one chain, distinct or compared first.
        unsafe {
            let mut parent = head;
            let mut last = (*head).child().expect("a chain").as_ptr();
            while let Some(child) = (*last).child() {
                parent = last;
                last = child.as_ptr();
            }
            let from = (*last).used().ilog2() as usize;
            let (mark, p) = ((*last).mark(from), (*last).get(from));
            (*last).clear(from);
            if (at, i) != (last, from) {
                (*at).set(i, mark, p);
            }
            let used = (*last).used();
            if used.count_ones() <= 1 {
                (*parent).cut_child();
                if used != 0 {
                    let from = used.ilog2() as usize;
                    (*parent).set(bucket::SLOTS - 1, (*last).mark(from), (*last).get(from));
                }
                Bucket::free_child(NonNull::new_unchecked(last));
                self.children -= 1;
            }
        }
    }

    // ------------------------------------------------------------------ rehash

    /// Elements that the buckets of now should hold.
    #[inline]
    fn capacity(&self) -> u64 {
        capacity(self.buckets())
    }

    /// The share of an insert in rehashing: at rest nothing, in growth what keeps the pace, in a
    /// shrink at least two buckets.
    fn make_room(&mut self, hasher: &Hasher) {
        if self.next.n() == 0 {
            if self.main.n() == 0 {
                self.main = Table::new(1);
                self.main.open(0);
                return;
            }
            assert!(self.main.n() < 1 << 31, "a dict of 10^10 elements is full");
            self.begin_rehash(next_size(self.main.n()));
        }
        if self.main.n() <= DIRECT_MAX {
            // Not worth two tables: at most some 90 elements.
            while self.next.n() != 0 {
                self.move_bucket(hasher);
            }
        } else if self.next.n() > self.main.n() {
            for _ in 0..GROW_MOVES {
                if self.len < self.capacity() || self.next.n() == 0 {
                    break;
                }
                self.move_bucket(hasher);
            }
        } else {
            let left = u64::from(self.main.n() - self.frontier);
            let room = capacity(u64::from(self.next.n())).saturating_sub(self.len);
            for _ in 0..(left / room.max(1) + 1).clamp(2, SHRINK_MOVES) {
                if self.next.n() != 0 {
                    self.move_bucket(hasher);
                }
            }
        }
        if self.main.n() == 0 {
            // The dict had run empty in the midst of a shrink, whose last move gave its buckets back.
            self.main = Table::new(1);
            self.main.open(0);
        }
    }

    fn begin_shrink(&mut self) {
        // A fifth of room, so that the next growth does not begin at once.
        let fitting = self.len * 6 / 5 * 16 / LOAD;
        self.begin_rehash(size_for(fitting as u32).min(self.main.n()));
    }

    fn begin_rehash(&mut self, n: u32) {
        debug_assert!(self.next.n() == 0 && self.frontier == 0 && self.ready == 0);
        self.next = Table::new(n);
    }

    /// Moves the bucket at the frontier, and asks for what the next moves will read.
    fn move_bucket(&mut self, hasher: &Hasher) {
        let marks_suffice = self.main.marks_suffice(&self.next);
        self.pass_bucket(|dict, e, mark| {
            let known = if marks_suffice { dict.main.moves_to(&dict.next, dict.frontier, mark) } else { None };
            let (i, mark) = known.unwrap_or_else(|| {
                let hash = hasher.hash(e.key());
                (dict.next.index(hash), dict.next.mark(hash))
            });
            // SAFETY: `pass_bucket` opened every bucket of `next` that the old one maps to.
            unsafe { dict.put(dict.next.at(i), mark, e) };
        });
        if self.next.n() == 0 {
            if self.len == 0 {
                self.release();
            }
            return;
        }
        // SAFETY: the bucket at the frontier is open while a rehash is under way.
        let bucket = unsafe { &*self.main.at(self.frontier) };
        for i in bits(bucket.used()) {
            let (next, mark) = (&self.next, bucket.mark(i));
            if !marks_suffice || self.main.moves_to(next, self.frontier, mark).is_none() {
                handle::<E>(bucket.get(i)).prefetch();
            }
        }
        // Its neighbours are next in memory, except at a segment's end, where a stray prefetch
        // does no harm.
        prefetch_line(std::ptr::from_ref(bucket).wrapping_add(1));
        prefetch_line(std::ptr::from_ref(bucket).wrapping_add(2));
        if self.ready > 0 {
            prefetch_line(self.next.at(self.ready - 1).wrapping_add(1));
            prefetch_line(self.next.at(self.ready - 1).wrapping_add(2));
        }
    }

    /// Gives the elements of the bucket at the frontier to `f` and moves the frontier past it.
    /// Returns how many there were. After the last one `next` becomes `main`.
    fn pass_bucket(&mut self, mut f: impl FnMut(&mut Self, E, Mark)) -> u64 {
        let end = self.main.start(self.frontier + 1);
        let last = self.next.index((end - 1) << 16);
        while self.ready <= last {
            self.next.open(self.ready);
            self.ready += 1;
        }
        let mut count = 0;
        // SAFETY: the bucket at the frontier is open, and `f` only writes to buckets of `next`.
        let head = unsafe { &*self.main.at(self.frontier) };
        for_slots(head, &mut |bucket, i| {
            f(self, handle(bucket.get(i)), bucket.mark(i));
            count += 1;
        });
        // The children go last, so that a panic in `f` leaves a whole chain behind.
        let mut child = head.child();
        while let Some(at) = child {
            self.children -= 1;
            // SAFETY: a linked child lives, and nobody follows the link again.
            unsafe {
                child = at.as_ref().child();
                Bucket::free_child(at);
            }
        }
        self.main.close(self.frontier);
        self.frontier += 1;
        // Zero when this was the last: `close` then left `main` without buckets.
        self.boundary = end << 16;
        if self.main.n() == 0 {
            self.main = std::mem::replace(&mut self.next, Table::none());
            (self.frontier, self.ready) = (0, 0);
        }
        count
    }

    /// Frees the one table of an empty dict.
    fn release(&mut self) {
        debug_assert!(self.len == 0 && self.children == 0 && self.next.n() == 0);
        self.main.free(0, self.main.n());
    }
}

impl<E: Element> Drop for Dict<E> {
    /// Frees the tables, not the elements. In one go: an owner of a large dict drains it first.
    fn drop(&mut self) {
        if self.children > 0 {
            self.drain(|_| {});
        }
        self.main.free(self.frontier, self.main.n());
        self.next.free(0, self.ready);
    }
}

fn capacity(buckets: u64) -> u64 {
    // The constant lets a single bucket fill up and small tables keep a little more than large.
    buckets * LOAD / 16 + if buckets == 0 { 0 } else { 4 }
}

/// A number below `n` from a uniform 64-bit one.
fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// The element behind a used slot's pointer.
#[inline]
fn handle<E: Element>(p: *mut u8) -> E {
    // SAFETY: used slots hold what `put` or `replace` took from `to_ptr`; the owner keeps the
    // object alive while it is in the dict.
    unsafe { E::from_ptr(NonNull::new_unchecked(p)) }
}

/// Emits the elements of a bucket and its children.
#[inline]
fn for_chain<E: Element>(bucket: &Bucket, f: &mut (impl FnMut(E) + ?Sized)) {
    for_slots(bucket, &mut |bucket, i| f(handle(bucket.get(i))));
}

/// Emits the used slots of a bucket and its children.
#[inline]
fn for_slots(mut bucket: &Bucket, f: &mut impl FnMut(&Bucket, usize)) {
    loop {
        for i in bits(bucket.used()) {
            f(bucket, i);
        }
        let Some(child) = bucket.child() else { return };
        // SAFETY: a child lives as long as its link.
        bucket = unsafe { child.as_ref() };
    }
}
