//! `Set`: distinct strings without order, in one of three encodings.
//!
//! The idea: small sets are one flat allocation, an [`IntSet`] while all members are integers and a [`ListPack`]
//! otherwise; what outgrows them is a [`Table`]. A set only ever moves towards the table, under the limits and at the
//! sizes at which Redis converts, so that `OBJECT ENCODING` says the same. Members come in and go out as [`StrRef`],
//! so that integers need not be spelt out between two sets that hold them as integers.
//!
//! The commands are in `commands/set.rs`. Counterpart: the `setType…` functions of `t_set.c`.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;

use super::member::Member;
use crate::config::Config;
use crate::core::Rng;
use crate::dict::{Dict, Hasher};
use crate::encodings::intset::IntSet;
use crate::encodings::listpack::ListPack;
use crate::encodings::pack_or::{self, PackOr};
use crate::entry::{Encoding, StrRef, canonical_i64};

/// Redis's own limit for the members of an array of integers, whatever the configuration says.
const INTSET_MAX: usize = 1 << 30;
/// `SPOP` of so many times what remains builds the remainder anew instead of taking members out.
const REBUILD_FACTOR: usize = 5;
/// A sample of more than a third of a set is drawn from a list of all members.
const SAMPLE_FACTOR: usize = 3;

/// Up to which sizes a set is flat.
#[derive(Clone, Copy, Debug)]
pub struct SetLimits {
    /// `set-max-intset-entries`.
    pub intset_entries: usize,
    /// `set-max-listpack-entries`.
    pub listpack_entries: usize,
    /// `set-max-listpack-value`.
    pub listpack_value: usize,
}

impl SetLimits {
    /// The limits of a configuration.
    pub fn of(config: &Config) -> Self {
        SetLimits {
            intset_entries: config.set_max_intset_entries.min(INTSET_MAX),
            listpack_entries: config.set_max_listpack_entries,
            listpack_value: config.set_max_listpack_value,
        }
    }
}

/// A hash table of members, which it owns.
pub struct Table {
    dict: Dict<Member>,
    hasher: Hasher,
    member_bytes: usize,
}

impl Table {
    fn new(hasher: &Hasher) -> Self {
        Table { dict: Dict::new(), hasher: hasher.clone(), member_bytes: 0 }
    }

    #[inline]
    fn contains(&self, text: &[u8]) -> bool {
        self.dict.find(self.hasher.hash(text), text).is_some()
    }

    fn insert(&mut self, text: &[u8]) -> bool {
        let hash = self.hasher.hash(text);
        let absent = self.dict.find(hash, text).is_none();
        if absent {
            self.insert_hashed(hash, text);
        }
        absent
    }

    fn insert_absent(&mut self, text: &[u8]) {
        let hash = self.hasher.hash(text);
        self.insert_hashed(hash, text);
    }

    fn insert_hashed(&mut self, hash: u64, text: &[u8]) {
        self.dict.insert(&self.hasher, hash, Member::new(text));
        self.member_bytes += Member::heap_bytes(text.len());
    }

    fn remove(&mut self, text: &[u8]) -> bool {
        let Some(member) = self.dict.remove(self.hasher.hash(text), text) else { return false };
        self.member_bytes -= Member::heap_bytes(text.len());
        // SAFETY: the table does not hold it any more, and `text` is the caller's, not the member's.
        unsafe { member.free() };
        // A removal has no hasher in the dict's own hands, so the shrink that it may call for is done from here.
        self.dict.rehash_step(&self.hasher, 2);
        true
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        let mut copy = Table::new(&self.hasher);
        self.dict.for_each(|member| copy.insert_absent(member.bytes()));
        copy
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.dict.drain(|member| {
            // SAFETY: the table is gone, and it alone held the member.
            unsafe { member.free() }
        });
    }
}

/// A set. See the head of this file.
#[derive(Clone)]
#[repr(transparent)]
pub struct Set(PackOr<Other>);

/// A set that is no listpack.
#[derive(Clone)]
enum Other {
    Ints(IntSet),
    Table(Box<Table>),
}

/// How a set lies in memory.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// Integers only.
    Ints(&'a IntSet),
    /// Few members, and short.
    List(&'a ListPack),
    /// Any others.
    Table(&'a Table),
}

/// The same, to be changed.
enum FormMut<'a> {
    Ints(&'a mut IntSet),
    List(&'a mut ListPack),
    Table(&'a mut Table),
}

impl From<IntSet> for Set {
    fn from(ints: IntSet) -> Self {
        Set(Box::new(Other::Ints(ints)).into())
    }
}

impl From<ListPack> for Set {
    fn from(list: ListPack) -> Self {
        Set(list.into())
    }
}

impl From<Table> for Set {
    fn from(table: Table) -> Self {
        Set(Box::new(Other::Table(Box::new(table))).into())
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Set of {} as {}", self.len(), self.encoding().name())
    }
}

/// Digits of a number, its sign included.
fn digits(number: i64) -> usize {
    StrRef::Int(number).len()
}

impl Set {
    /// How it lies in memory.
    #[inline]
    pub fn form(&self) -> Form<'_> {
        match self.0.form() {
            pack_or::Form::Pack(list) => Form::List(list),
            pack_or::Form::Boxed(Other::Ints(ints)) => Form::Ints(ints),
            pack_or::Form::Boxed(Other::Table(table)) => Form::Table(table),
        }
    }

    #[inline]
    fn form_mut(&mut self) -> FormMut<'_> {
        match self.0.form_mut() {
            pack_or::FormMut::Pack(list) => FormMut::List(list),
            pack_or::FormMut::Boxed(Other::Ints(ints)) => FormMut::Ints(ints),
            pack_or::FormMut::Boxed(Other::Table(table)) => FormMut::Table(table),
        }
    }

    /// An empty set of integers.
    pub fn ints() -> Self {
        IntSet::new().into()
    }

    /// An empty flat set.
    pub fn list() -> Self {
        ListPack::new().into()
    }

    /// An empty table.
    pub fn table(hasher: &Hasher) -> Self {
        Table::new(hasher).into()
    }

    /// An empty set for a first member and about `hint` altogether.
    pub fn for_members(first: &[u8], hint: usize, limits: &SetLimits, hasher: &Hasher) -> Self {
        if hint <= limits.intset_entries && canonical_i64(first).is_some() {
            Set::ints()
        } else if hint <= limits.listpack_entries {
            Set::list()
        } else {
            Set::table(hasher)
        }
    }

    /// Makes room for so many members at once, where it is a table.
    pub fn reserve(&mut self, n: usize) {
        if let FormMut::Table(table) = self.form_mut() {
            table.dict.reserve(&table.hasher, n as u64);
        }
    }

    /// Asks for what a search for this member will look at first, where it is a table.
    #[inline]
    pub fn prefetch(&self, member: &[u8]) {
        if let Form::Table(table) = self.form() {
            table.dict.prefetch_bucket(table.hasher.hash(member));
        }
    }

    /// Its encoding.
    pub fn encoding(&self) -> Encoding {
        match self.form() {
            Form::Ints(_) => Encoding::IntSet,
            Form::List(_) => Encoding::ListPack,
            Form::Table(_) => Encoding::HashTable,
        }
    }

    /// Members held.
    #[inline]
    pub fn len(&self) -> usize {
        match self.form() {
            Form::Ints(ints) => ints.len(),
            Form::List(list) => list.len(),
            Form::Table(table) => table.dict.len(),
        }
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the heap it takes.
    pub fn heap_bytes(&self) -> usize {
        match self.form() {
            Form::Ints(ints) => size_of::<Other>() + ints.heap_bytes(),
            Form::List(list) => list.heap_bytes(),
            Form::Table(table) => size_of::<Other>() + size_of::<Table>() + table.dict.bytes() + table.member_bytes,
        }
    }

    /// Makes a table of a flat set that `hint` more members will outgrow.
    pub fn expect(&mut self, hint: usize, limits: &SetLimits, hasher: &Hasher) {
        match self.form() {
            Form::Ints(_) if hint > limits.intset_entries => self.become_table(hasher),
            Form::List(_) if hint > limits.listpack_entries => self.become_table(hasher),
            _ => {}
        }
    }

    /// Whether `member` is in it.
    #[inline]
    pub fn contains(&self, member: StrRef<'_>) -> bool {
        match self.form() {
            Form::Ints(ints) => match member {
                StrRef::Int(number) => ints.contains(number),
                StrRef::Bytes(text) => canonical_i64(text).is_some_and(|number| ints.contains(number)),
            },
            Form::List(list) => {
                let mut buf = itoa::Buffer::new();
                list.first().is_some_and(|at| list.find(at, member.as_bytes(&mut buf), 0).is_some())
            }
            Form::Table(table) => table.contains(member.as_bytes(&mut itoa::Buffer::new())),
        }
    }

    /// Adds `member`; false if it was there.
    pub fn insert(&mut self, member: StrRef<'_>, limits: &SetLimits, hasher: &Hasher) -> bool {
        match self.form_mut() {
            FormMut::Table(table) => table.insert(member.as_bytes(&mut itoa::Buffer::new())),
            _ => {
                let absent = !self.contains(member);
                if absent {
                    self.insert_absent(member, limits, hasher);
                }
                absent
            }
        }
    }

    /// Adds `member`, which must not be in it.
    pub fn insert_absent(&mut self, member: StrRef<'_>, limits: &SetLimits, hasher: &Hasher) {
        let mut buf = itoa::Buffer::new();
        match self.form_mut() {
            FormMut::Ints(ints) => {
                let number = match member {
                    StrRef::Int(number) => Some(number),
                    StrRef::Bytes(text) => canonical_i64(text),
                };
                if let Some(number) = number {
                    ints.insert(number);
                    if ints.len() > limits.intset_entries {
                        self.become_table(hasher);
                    }
                    return;
                }
                let widest = ints.first().into_iter().chain(ints.last()).map(digits).max().unwrap_or(0);
                let text = member.as_bytes(&mut buf);
                let flat = ints.len() < limits.listpack_entries
                    && text.len() <= limits.listpack_value
                    && widest <= limits.listpack_value;
                if flat {
                    let mut list = ListPack::new();
                    ints.iter().for_each(|number| list.push_int(number));
                    if list.has_room(text.len()) {
                        list.push(text);
                        *self = list.into();
                        return;
                    }
                }
                self.become_table(hasher);
                self.insert_absent(member, limits, hasher);
            }
            FormMut::List(list) => {
                let text = member.as_bytes(&mut buf);
                let flat = list.len() < limits.listpack_entries
                    && text.len() <= limits.listpack_value
                    && list.has_room(text.len());
                if flat {
                    match member {
                        StrRef::Int(number) => list.push_int(number),
                        StrRef::Bytes(text) => list.push(text),
                    }
                    return;
                }
                self.become_table(hasher);
                self.insert_absent(member, limits, hasher);
            }
            FormMut::Table(table) => table.insert_absent(member.as_bytes(&mut buf)),
        }
    }

    /// Removes `member`; false if it was not there.
    pub fn remove(&mut self, member: StrRef<'_>) -> bool {
        let mut buf = itoa::Buffer::new();
        match self.form_mut() {
            FormMut::Ints(ints) => match member {
                StrRef::Int(number) => ints.remove(number),
                StrRef::Bytes(text) => canonical_i64(text).is_some_and(|number| ints.remove(number)),
            },
            FormMut::List(list) => {
                let found = list.first().and_then(|at| list.find(at, member.as_bytes(&mut buf), 0));
                if let Some(at) = found {
                    list.delete(at);
                }
                found.is_some()
            }
            FormMut::Table(table) => table.remove(member.as_bytes(&mut buf)),
        }
    }

    /// Makes an array of integers of a set that holds nothing else, unless it is too large for one.
    pub fn become_ints(&mut self, limits: &SetLimits) {
        if matches!(self.form(), Form::Ints(_)) || self.len() > limits.intset_entries {
            return;
        }
        let mut numbers = Vec::with_capacity(self.len());
        self.for_each(|member| {
            numbers.extend(match member {
                StrRef::Int(number) => Some(number),
                StrRef::Bytes(text) => canonical_i64(text),
            });
        });
        assert_eq!(numbers.len(), self.len(), "only integers");
        numbers.sort_unstable();
        let mut ints = IntSet::new();
        numbers.into_iter().for_each(|number| {
            ints.insert(number);
        });
        *self = ints.into();
    }

    /// Becomes a table if it is larger than the limits allow.
    pub fn fit(&mut self, limits: &SetLimits, hasher: &Hasher) {
        let too_many = match self.form() {
            Form::Ints(ints) => ints.len() > limits.intset_entries,
            Form::List(list) => list.len() > limits.listpack_entries,
            Form::Table(_) => false,
        };
        if too_many {
            self.become_table(hasher);
        }
    }

    fn become_table(&mut self, hasher: &Hasher) {
        let mut table = Table::new(hasher);
        self.for_each(|member| table.insert_absent(member.as_bytes(&mut itoa::Buffer::new())));
        *self = table.into();
    }

    /// Calls back with every member: integers in ascending order, a flat set's in the order they came.
    pub fn for_each(&self, mut f: impl FnMut(StrRef<'_>)) {
        match self.form() {
            Form::Ints(ints) => ints.iter().for_each(|number| f(StrRef::Int(number))),
            Form::List(list) => list.iter().for_each(f),
            Form::Table(table) => table.dict.for_each(|member| f(StrRef::Bytes(member.bytes()))),
        }
    }

    /// As [`Set::for_each`], until `f` breaks off.
    pub fn walk(&self, mut f: impl FnMut(StrRef<'_>) -> ControlFlow<()>) {
        match self.form() {
            Form::Ints(ints) => {
                let _ = ints.iter().try_for_each(|number| f(StrRef::Int(number)));
            }
            Form::List(list) => {
                let _ = list.iter().try_for_each(f);
            }
            Form::Table(table) => {
                let (mut cursor, mut flow) = (0, ControlFlow::Continue(()));
                loop {
                    cursor = table.dict.scan(cursor, &mut |member| {
                        if flow.is_continue() {
                            flow = f(StrRef::Bytes(member.bytes()));
                        }
                    });
                    if cursor == 0 || flow.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// One step of `SSCAN`: about `count` members, and the next cursor. A flat set comes whole.
    pub fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(StrRef<'_>)) -> u64 {
        let Form::Table(table) = self.form() else {
            self.for_each(f);
            return 0;
        };
        let (mut cursor, mut found) = (cursor, 0);
        // Ten buckets a wanted member at most: a sparse table must not hold up the shard.
        for _ in 0..count.saturating_mul(10) {
            cursor = table.dict.scan(cursor, &mut |member| {
                found += 1;
                f(StrRef::Bytes(member.bytes()));
            });
            if cursor == 0 || found >= count {
                break;
            }
        }
        cursor
    }

    /// A random member of a set that is not empty.
    pub fn random<T>(&self, rng: &mut Rng, f: impl FnOnce(StrRef<'_>) -> T) -> T {
        match self.form() {
            Form::Ints(ints) => f(StrRef::Int(ints.at(rng.below(ints.len() as u64) as usize))),
            Form::List(list) => {
                let index = rng.below(list.len() as u64) as i64;
                f(list.get(list.seek(index).expect("below the length")))
            }
            Form::Table(table) => {
                let member = table.dict.random(&mut || rng.next_u64()).expect("a set is not empty");
                f(StrRef::Bytes(member.bytes()))
            }
        }
    }

    /// `count` different members, chosen at random; all of them when there are no more.
    pub fn sample(&self, count: usize, rng: &mut Rng, mut f: impl FnMut(StrRef<'_>)) {
        if count >= self.len() {
            return self.for_each(f);
        }
        match self.form() {
            Form::Ints(ints) => {
                distinct(count, ints.len(), rng).into_iter().for_each(|index| f(StrRef::Int(ints.at(index))));
            }
            Form::List(list) => {
                let chosen: HashSet<usize> = distinct(count, list.len(), rng).into_iter().collect();
                list.iter().enumerate().filter(|(i, _)| chosen.contains(i)).for_each(|(_, member)| f(member));
            }
            Form::Table(table) if count * SAMPLE_FACTOR > table.dict.len() => {
                let mut all = Vec::with_capacity(table.dict.len());
                table.dict.for_each(|member| all.push(member));
                shuffle(&mut all, count, rng);
                all[..count].iter().for_each(|member| f(StrRef::Bytes(member.bytes())));
            }
            Form::Table(table) => {
                let mut chosen = HashSet::with_capacity(count);
                while chosen.len() < count {
                    let member = table.dict.random(&mut || rng.next_u64()).expect("a set is not empty");
                    if chosen.insert(member) {
                        f(StrRef::Bytes(member.bytes()));
                    }
                }
            }
        }
    }

    /// Takes out `count` random members, fewer than there are.
    pub fn pop(
        &mut self,
        count: usize,
        rng: &mut Rng,
        limits: &SetLimits,
        hasher: &Hasher,
        mut f: impl FnMut(StrRef<'_>),
    ) {
        let left = self.len() - count;
        match self.form_mut() {
            FormMut::Ints(ints) => {
                let mut chosen = distinct(count, ints.len(), rng);
                chosen.iter().for_each(|index| f(StrRef::Int(ints.at(*index))));
                chosen.sort_unstable();
                if count == 1 {
                    ints.remove(ints.at(chosen[0]));
                    return;
                }
                let mut chosen = chosen.into_iter().peekable();
                let mut kept = IntSet::new();
                for (index, number) in ints.iter().enumerate() {
                    if chosen.next_if_eq(&index).is_none() {
                        kept.insert(number);
                    }
                }
                *ints = kept;
            }
            FormMut::List(list) => {
                let mut chosen = distinct(count, list.len(), rng);
                chosen.sort_unstable();
                let mut at = list.first();
                // Each removal brings the next element to the same place.
                let mut passed = 0;
                for index in chosen {
                    while passed < index {
                        at = at.and_then(|at| list.next(at));
                        passed += 1;
                    }
                    let here = at.expect("below the length");
                    f(list.get(here));
                    list.delete(here);
                    passed += 1;
                }
            }
            FormMut::Table(table) if left * REBUILD_FACTOR <= count => {
                // What stays is little: it is drawn, and makes a new set, flat if it can be.
                let mut kept = Set::list();
                for _ in 0..left {
                    let member = table.dict.random(&mut || rng.next_u64()).expect("a set is not empty");
                    let text = member.bytes().to_vec();
                    kept.insert_absent(StrRef::Bytes(&text), limits, hasher);
                    table.remove(&text);
                }
                table.dict.for_each(|member| f(StrRef::Bytes(member.bytes())));
                *self = kept;
            }
            FormMut::Table(table) => {
                for _ in 0..count {
                    let member = table.dict.random(&mut || rng.next_u64()).expect("a set is not empty");
                    f(StrRef::Bytes(member.bytes()));
                    let text = member.bytes().to_vec();
                    table.remove(&text);
                }
            }
        }
    }
}

/// Brings a random choice of `count` items to the front, in random order.
fn shuffle<T>(items: &mut [T], count: usize, rng: &mut Rng) {
    for i in 0..count {
        let j = i + rng.below((items.len() - i) as u64) as usize;
        items.swap(i, j);
    }
}

/// `count` different numbers below `n`, of which there are more.
fn distinct(count: usize, n: usize, rng: &mut Rng) -> Vec<usize> {
    if count * SAMPLE_FACTOR > n {
        let mut all: Vec<usize> = (0..n).collect();
        shuffle(&mut all, count, rng);
        all.truncate(count);
        return all;
    }
    let mut seen = HashSet::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let number = rng.below(n as u64) as usize;
        if seen.insert(number) {
            chosen.push(number);
        }
    }
    chosen
}
