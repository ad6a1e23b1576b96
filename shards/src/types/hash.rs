//! `Hash`: fields with values, in one listpack while small and in a table when not.
//!
//! The listpack alternates fields and values in the order in which they came. A hash becomes a table when it has more
//! than `hash-max-listpack-entries` fields or a field or value is longer than `hash-max-listpack-value`, and stays
//! one. Counterpart: the `hashType*` functions of `t_hash.c`.

use crate::config::Config;
use crate::core::Rng;
use crate::dict::{Dict, Hasher};
use crate::encodings::ListPack;
use crate::encodings::pack_or::{self, PackOr};
use crate::encodings::pair::PairPtr;
use crate::entry::{Encoding, StrRef};
use crate::types::are_distinct;
use crate::types::field_expire::FieldExpires;

/// A hash. See the head of the file.
#[derive(Clone)]
#[repr(transparent)]
pub struct Hash(PackOr<Large>);

/// A hash that is more than a listpack.
#[derive(Clone)]
struct Large {
    fields: Fields,
    /// When fields go; there once one was given a time.
    expires: Option<Box<FieldExpires>>,
}

#[derive(Clone)]
enum Fields {
    /// Of a hash with times for some of them.
    Pack(ListPack),
    Table(Box<Table>),
}

/// How fields and values lie in memory.
enum Form<'a> {
    Pack(&'a ListPack),
    Table(&'a Table),
}

/// The same, to be changed.
enum FormMut<'a> {
    Pack(&'a mut ListPack),
    Table(&'a mut Table),
}

/// The size up to which a hash is a listpack.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Fields.
    pub entries: usize,
    /// Bytes of the longest field or value.
    pub value: usize,
}

impl Limits {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        Limits { entries: config.hash_max_listpack_entries, value: config.hash_max_listpack_value }
    }
}

/// A dict that owns its pairs.
struct Table {
    dict: Dict<PairPtr>,
    /// A copy of the process's, so that removing and cloning need no other.
    hasher: Hasher,
    /// Bytes of the pairs.
    bytes: usize,
}

impl Table {
    fn new(hasher: &Hasher) -> Self {
        Table { dict: Dict::new(), hasher: hasher.clone(), bytes: 0 }
    }

    fn find(&self, field: &[u8]) -> Option<PairPtr> {
        self.dict.find(self.hasher.hash(field), field)
    }

    fn add(&mut self, hash: u64, field: &[u8], value: &[u8]) {
        let pair = PairPtr::new(field, value);
        self.bytes += pair.heap_bytes();
        self.dict.insert(&self.hasher, hash, pair);
    }

    fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let hash = self.hasher.hash(field);
        let Some(old) = self.dict.find(hash, field) else {
            self.add(hash, field, value);
            return true;
        };
        // SAFETY: `&mut self` leaves no reference into a pair alive.
        if !unsafe { old.overwrite(value) } {
            let new = PairPtr::new(field, value);
            self.dict.replace(hash, old, new);
            self.bytes = self.bytes + new.heap_bytes() - old.heap_bytes();
            // SAFETY: the dict held the only handle, and holds the new one now.
            unsafe { old.free() };
        }
        false
    }

    fn remove(&mut self, field: &[u8]) -> bool {
        let Some(pair) = self.dict.remove(self.hasher.hash(field), field) else { return false };
        self.bytes -= pair.heap_bytes();
        // SAFETY: the dict held the only handle.
        unsafe { pair.free() };
        // Removing alone never shrinks a table; a few buckets' work each time keeps it in proportion.
        self.dict.rehash_step(&self.hasher, 2);
        true
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        let mut copy = Table::new(&self.hasher);
        self.dict.for_each(|pair| copy.add(self.hasher.hash(pair.field()), pair.field(), pair.value()));
        copy
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: `drain` takes the only handle of each pair out of the dict.
        self.dict.drain(|pair| unsafe { pair.free() });
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// An empty hash.
    pub fn new() -> Self {
        Hash(ListPack::new().into())
    }

    /// An empty one for so many fields, with room for `room` of them where that makes it a table.
    pub fn for_fields(n: usize, room: usize, limits: Limits, hasher: &Hasher) -> Self {
        if n <= limits.entries {
            return Hash::new();
        }
        let mut table = Box::new(Table::new(hasher));
        table.dict.reserve(hasher, room as u64);
        Hash(Box::new(Large { fields: Fields::Table(table), expires: None }).into())
    }

    #[inline]
    fn form(&self) -> Form<'_> {
        match self.0.form() {
            pack_or::Form::Pack(pack) => Form::Pack(pack),
            pack_or::Form::Boxed(Large { fields: Fields::Pack(pack), .. }) => Form::Pack(pack),
            pack_or::Form::Boxed(Large { fields: Fields::Table(table), .. }) => Form::Table(table),
        }
    }

    #[inline]
    fn form_mut(&mut self) -> FormMut<'_> {
        match self.0.form_mut() {
            pack_or::FormMut::Pack(pack) => FormMut::Pack(pack),
            pack_or::FormMut::Boxed(Large { fields: Fields::Pack(pack), .. }) => FormMut::Pack(pack),
            pack_or::FormMut::Boxed(Large { fields: Fields::Table(table), .. }) => FormMut::Table(table),
        }
    }

    /// The larger form of it, for what a listpack alone has no place for.
    fn large(&mut self) -> &mut Large {
        if let pack_or::FormMut::Pack(pack) = self.0.form_mut() {
            let fields = Fields::Pack(std::mem::take(pack));
            self.0 = Box::new(Large { fields, expires: None }).into();
        }
        match self.0.form_mut() {
            pack_or::FormMut::Boxed(large) => large,
            pack_or::FormMut::Pack(_) => unreachable!("it was made another just now"),
        }
    }

    /// The listpack of a small one, as RDB files hold it.
    pub fn pack(&self) -> Option<&ListPack> {
        match self.form() {
            Form::Pack(pack) => Some(pack),
            Form::Table(_) => None,
        }
    }

    /// Takes over a listpack from outside if it is fields and values by turns and no field is there twice.
    pub fn from_pack(pack: ListPack, hasher: &Hasher) -> Option<Self> {
        let sound = pack.len().is_multiple_of(2) && are_distinct(pack.iter().step_by(2), hasher);
        sound.then(|| Hash(pack.into()))
    }

    /// Asks for what a search for this field will look at first, where it is a table.
    #[inline]
    pub fn prefetch(&self, field: &[u8]) {
        if let Form::Table(table) = self.form() {
            table.dict.prefetch_bucket(table.hasher.hash(field));
        }
    }

    /// Becomes a table if it is larger than the limits allow.
    pub fn fit(&mut self, limits: Limits, hasher: &Hasher) {
        if self.len() > limits.entries {
            self.make_table(hasher);
        }
    }

    /// How it lies in memory.
    pub fn encoding(&self) -> Encoding {
        match self.form() {
            Form::Pack(_) if self.expires().is_some() => Encoding::ListPackEx,
            Form::Pack(_) => Encoding::ListPack,
            Form::Table(_) => Encoding::HashTable,
        }
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        let large = match self.0.form() {
            pack_or::Form::Pack(_) => 0,
            pack_or::Form::Boxed(_) => size_of::<Large>(),
        };
        large
            + self.expires().map_or(0, FieldExpires::heap_bytes)
            + match self.form() {
                Form::Pack(pack) => pack.heap_bytes(),
                Form::Table(table) => size_of::<Table>() + table.dict.bytes() + table.bytes,
            }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match self.form() {
            Form::Pack(pack) => pack.len() / 2,
            Form::Table(table) => table.dict.len(),
        }
    }

    /// True when it has no field.
    pub fn is_empty(&self) -> bool {
        match self.form() {
            Form::Pack(pack) => pack.is_empty(),
            Form::Table(table) => table.dict.is_empty(),
        }
    }

    /// Gives the value of a field, or `None`, to `f`.
    #[inline]
    pub fn get<T>(&self, field: &[u8], f: impl FnOnce(Option<StrRef<'_>>) -> T) -> T {
        match self.form() {
            Form::Pack(pack) => f(find(pack, field).and_then(|at| pack.next(at)).map(|at| pack.get(at))),
            Form::Table(table) => f(table.find(field).as_ref().map(|pair| StrRef::Bytes(pair.value()))),
        }
    }

    /// Whether it has this field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field, |value| value.is_some())
    }

    /// Becomes a table if these fields and values, to be set, ask for one: by their number or by the length of one.
    pub fn prepare<'a>(
        &mut self,
        hasher: &Hasher,
        limits: Limits,
        texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) {
        let Form::Pack(pack) = self.form() else { return };
        let many = texts.len() / 2 > limits.entries;
        let long = texts.clone().any(|text| text.len() > limits.value);
        if many || long || !pack.has_room(texts.map(<[u8]>::len).fold(0, usize::saturating_add)) {
            self.make_table(hasher);
        }
    }

    /// Sets a field; says whether it is new.
    pub fn set(&mut self, hasher: &Hasher, limits: Limits, field: &[u8], value: &[u8]) -> bool {
        if let Form::Pack(pack) = self.form()
            && (field.len().max(value.len()) > limits.value || !pack.has_room(field.len() + value.len() + 32))
        {
            self.make_table(hasher);
        }
        let pack = match self.form_mut() {
            FormMut::Table(table) => return table.set(field, value),
            FormMut::Pack(pack) => pack,
        };
        let value_at = find(pack, field).and_then(|at| pack.next(at));
        match value_at {
            Some(at) => {
                pack.replace(at, value);
            }
            None => {
                pack.push(field);
                pack.push(value);
            }
        }
        if pack.len() / 2 > limits.entries {
            self.make_table(hasher);
        }
        value_at.is_none()
    }

    /// As [`Hash::set`], and the field does not go any more.
    pub fn replace(&mut self, hasher: &Hasher, limits: Limits, field: &[u8], value: &[u8]) -> bool {
        self.set_expire(field, None);
        self.set(hasher, limits, field, value)
    }

    /// Removes a field; says whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.set_expire(field, None);
        match self.form_mut() {
            FormMut::Table(table) => table.remove(field),
            FormMut::Pack(pack) => {
                let Some(at) = find(pack, field) else { return false };
                pack.delete_range(at, 2);
                true
            }
        }
    }

    /// When a field goes, if it does.
    pub fn expire_at(&self, field: &[u8]) -> Option<i64> {
        self.expires()?.get(field)
    }

    /// Sets, or with `None` removes, the time at which a field goes, which must be there.
    pub fn set_expire(&mut self, field: &[u8], at: Option<i64>) {
        if at.is_some() || self.expires().is_some() {
            self.large().expires.get_or_insert_default().set(field, at);
        }
    }

    /// The times at which fields go, if any was ever given one.
    pub fn expires(&self) -> Option<&FieldExpires> {
        match self.0.form() {
            pack_or::Form::Pack(_) => None,
            pack_or::Form::Boxed(large) => large.expires.as_deref(),
        }
    }

    /// When the first field goes.
    pub fn next_expire(&self) -> Option<i64> {
        self.expires()?.first()
    }

    /// Whether a field's time has come.
    pub fn is_expired(&self, field: &[u8], now_ms: i64) -> bool {
        self.expire_at(field).is_some_and(|at| at <= now_ms)
    }

    /// How many fields' time has not come.
    pub fn live_len(&self, now_ms: i64) -> usize {
        self.len() - self.expires().map_or(0, |expires| expires.due_len(now_ms))
    }

    /// Gives every field whose time has not come to `f`, with its value.
    pub fn for_each_live(&self, now_ms: i64, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) {
        let none_due = self.next_expire().is_none_or(|at| at > now_ms);
        self.for_each(|field, value| {
            if none_due || !self.is_expired(field.as_bytes(&mut itoa::Buffer::new()), now_ms) {
                f(field, value);
            }
        });
    }

    /// Gives every field with its value to `f`.
    pub fn for_each(&self, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) {
        match self.form() {
            Form::Table(table) => {
                table.dict.for_each(|pair| f(StrRef::Bytes(pair.field()), StrRef::Bytes(pair.value())));
            }
            Form::Pack(pack) => {
                let mut texts = pack.iter();
                while let (Some(field), Some(value)) = (texts.next(), texts.next()) {
                    f(field, value);
                }
            }
        }
    }

    /// One step of a scan: gives some fields with their values to `f` and returns the next cursor, 0 at the end.
    /// A listpack is given whole.
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) -> u64 {
        match self.form() {
            Form::Table(table) => {
                table.dict.scan(cursor, &mut |pair| f(StrRef::Bytes(pair.field()), StrRef::Bytes(pair.value())))
            }
            Form::Pack(_) => {
                self.for_each(f);
                0
            }
        }
    }

    /// Gives `count` random fields to `f`, each drawn from all. The hash must not be empty.
    pub fn random(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) {
        match self.form() {
            Form::Table(table) => {
                for _ in 0..count {
                    let pair = table.dict.random(&mut || rng.next_u64()).expect("a hash has fields");
                    f(StrRef::Bytes(pair.field()), StrRef::Bytes(pair.value()));
                }
            }
            Form::Pack(pack) => {
                // One walk for all the draws, as seeking each would take the square of the length.
                let texts: Vec<_> = pack.iter().collect();
                for _ in 0..count {
                    let at = 2 * rng.below(texts.len() as u64 / 2) as usize;
                    f(texts[at], texts[at + 1]);
                }
            }
        }
    }

    /// Gives `count` different random fields to `f`, or all if there are no more.
    pub fn random_distinct(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) {
        let len = self.len();
        if count >= len {
            return self.for_each(f);
        }
        if let Form::Table(table) = self.form()
            && count < len / 3
        {
            let mut seen = std::collections::HashSet::new();
            // Two draws of three are new, so this ends; the bound is for a table too sparse to draw from evenly.
            for _ in 0..64 + 16 * count {
                let pair = table.dict.random(&mut || rng.next_u64()).expect("a hash has fields");
                if seen.len() < count && seen.insert(pair.field().as_ptr()) {
                    f(StrRef::Bytes(pair.field()), StrRef::Bytes(pair.value()));
                }
                if seen.len() == count {
                    return;
                }
            }
            let mut missing = count - seen.len();
            table.dict.for_each(|pair| {
                if missing > 0 && seen.insert(pair.field().as_ptr()) {
                    missing -= 1;
                    f(StrRef::Bytes(pair.field()), StrRef::Bytes(pair.value()));
                }
            });
            return;
        }
        // Selection sampling (Knuth, algorithm S): one walk in which each field is taken with the chance that makes
        // every subset equally likely.
        let (mut left, mut wanted) = (len as u64, count as u64);
        self.for_each(|field, value| {
            if wanted > 0 && rng.below(left) < wanted {
                wanted -= 1;
                f(field, value);
            }
            left -= 1;
        });
    }

    fn make_table(&mut self, hasher: &Hasher) {
        if let Form::Table(_) = self.form() {
            return;
        }
        let mut table = Box::new(Table::new(hasher));
        self.for_each(|field, value| {
            let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
            table.set(field.as_bytes(&mut a), value.as_bytes(&mut b));
        });
        self.large().fields = Fields::Table(table);
    }
}

/// Offset of a field in a listpack of pairs.
fn find(pack: &ListPack, field: &[u8]) -> Option<usize> {
    pack.find(pack.first()?, field, 1)
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hash").field("encoding", &self.encoding().name()).field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::core::Rng;
    use proptest::prelude::*;

    fn text(value: StrRef<'_>) -> Vec<u8> {
        value.as_bytes(&mut itoa::Buffer::new()).to_vec()
    }

    fn all(hash: &Hash) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let (mut pairs, mut count) = (BTreeMap::new(), 0);
        hash.for_each(|field, value| {
            pairs.insert(text(field), text(value));
            count += 1;
        });
        assert_eq!((pairs.len(), hash.len(), hash.is_empty()), (count, count, count == 0));
        pairs
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn as_a_map(
            entries in prop::sample::select(vec![0, 4, 1000]),
            ops in prop::collection::vec((0..4u8, 0..60u32, prop_oneof!["[0-9]{1,3}", "[a-z]{0,12}"]), 1..200),
            seed in any::<u64>(),
        ) {
            let hasher = Hasher::new([seed, 7]);
            let limits = Limits { entries, value: 8 };
            let (mut hash, mut oracle) = (Hash::new(), BTreeMap::new());
            let mut table = false;
            for (op, field, value) in ops {
                let field = if field % 3 == 0 { format!("f{field}") } else { field.to_string() }.into_bytes();
                let value = value.into_bytes();
                if op == 3 {
                    prop_assert_eq!(hash.remove(&field), oracle.remove(&field).is_some());
                } else {
                    table |= value.len() > limits.value;
                    let new = hash.set(&hasher, limits, &field, &value);
                    prop_assert_eq!(new, oracle.insert(field.clone(), value).is_none());
                }
                table |= oracle.len() > entries;
                prop_assert_eq!(hash.encoding() == Encoding::HashTable, table);
                prop_assert_eq!(hash.get(&field, |v| v.map(text)), oracle.get(&field).cloned());
                prop_assert_eq!(hash.contains(&field), oracle.contains_key(&field));
            }
            prop_assert_eq!(&all(&hash), &oracle);
            let copy = hash.clone();
            prop_assert_eq!(&all(&copy), &oracle);
            let (mut scanned, mut cursor) = (BTreeMap::new(), 0);
            loop {
                cursor = hash.scan(cursor, |f, v| { scanned.insert(text(f), text(v)); });
                if cursor == 0 { break }
            }
            prop_assert_eq!(&scanned, &oracle);
            let mut rng = Rng::new(seed);
            for count in [0, 1, oracle.len() / 4, oracle.len() / 2, oracle.len(), oracle.len() + 3] {
                let mut seen = BTreeSet::new();
                let mut given = 0;
                hash.random_distinct(&mut rng, count, |f, v| {
                    assert_eq!(oracle.get(&text(f)), Some(&text(v)));
                    seen.insert(text(f));
                    given += 1;
                });
                prop_assert_eq!((seen.len(), given), (count.min(oracle.len()), count.min(oracle.len())));
                if !oracle.is_empty() {
                    let mut given = 0;
                    hash.random(&mut rng, count, |f, v| {
                        assert_eq!(oracle.get(&text(f)), Some(&text(v)));
                        given += 1;
                    });
                    prop_assert_eq!(given, count);
                }
            }
        }
    }

    #[test]
    fn draws_are_even() {
        let hasher = Hasher::new([1, 2]);
        for entries in [0, 100] {
            let mut hash = Hash::new();
            for n in 0..20 {
                hash.set(&hasher, Limits { entries, value: 64 }, n.to_string().as_bytes(), b"v");
            }
            let mut rng = Rng::new(5);
            for count in [1, 5, 15] {
                let mut hits = [0u32; 20];
                let rounds = 8000;
                for _ in 0..rounds {
                    let hit = &mut |f: StrRef<'_>, _: StrRef<'_>| {
                        hits[std::str::from_utf8(&text(f)).unwrap().parse::<usize>().unwrap()] += 1;
                    };
                    hash.random_distinct(&mut rng, count, hit);
                }
                let expected = rounds * count as u32 / 20;
                // Six standard deviations of a count of 400 and more, roughly.
                let even = |h: &u32| h.abs_diff(expected) < expected * 3 / 10;
                assert!(hits.iter().all(even), "{count} of 20, at most {entries} flat: {hits:?}");
            }
        }
    }
}
