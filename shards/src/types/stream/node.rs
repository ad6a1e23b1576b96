//! A node of a stream: entries in one listpack, in Redis's own layout, so that the payload of `DUMP` and of RDB files
//! is these bytes.
//!
//! ```text
//! master entry:  live | deleted | fields | field … field | 0
//! entry:         flags | ms | seq | value … value | elements before this            (the master's fields)
//!           or:  flags | ms | seq | fields | field | value … | elements before this
//! ```
//!
//! The first entry of a node gives the master entry its fields; entries with the same ones, which is the rule, repeat
//! only their values. `ms` and `seq` are differences to the node's own id, that of its first entry. A deleted entry
//! is marked in its flags and stays until its node goes. Counterpart: the layout that `streamAppendItem` of
//! `t_stream.c` describes.

use super::StreamId;
use crate::encodings::ListPack;
use crate::entry::StrRef;

/// The entry is deleted.
const DELETED: i64 = 1;
/// The entry has the master entry's fields.
const SAME_FIELDS: i64 = 2;

/// A node's listpack. See the head of the file.
#[derive(Clone, Debug)]
pub struct Node {
    pack: ListPack,
}

/// The integer at an offset. Texts are none here: a node that came from outside was checked.
fn int(pack: &ListPack, at: usize) -> i64 {
    match pack.get(at) {
        StrRef::Int(number) => number,
        StrRef::Bytes(_) => unreachable!("a node's counters are integers"),
    }
}

/// Where an entry lies: the offset of its flags.
pub type EntryAt = usize;

/// An entry's head, read.
#[derive(Clone, Copy, Debug)]
struct Head {
    flags: i64,
    id: StreamId,
    fields: usize,
    /// Offset of the first field or value, if it has any.
    texts: Option<usize>,
}

impl Head {
    fn same(&self) -> bool {
        self.flags & SAME_FIELDS != 0
    }

    /// Listpack elements of the entry before its own count of them.
    fn elements(&self) -> usize {
        if self.same() { 3 + self.fields } else { 4 + 2 * self.fields }
    }
}

/// An entry of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    pack: &'a ListPack,
    head: Head,
}

impl Entry<'_> {
    /// Number of fields.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.head.fields
    }

    /// Gives every field with its value to `f`.
    pub fn for_each(&self, mut f: impl FnMut(StrRef<'_>, StrRef<'_>)) {
        let pack = self.pack;
        let step = |at: Option<usize>| at.and_then(|at| pack.next(at));
        let mut field = if self.head.same() { pack.seek(3) } else { None };
        let mut at = self.head.texts;
        for _ in 0..self.head.fields {
            let here = at.expect("an entry has its values");
            if self.head.same() {
                f(pack.get(field.expect("the master entry has its fields")), pack.get(here));
                field = step(field);
                at = step(at);
            } else {
                let value = step(at);
                f(pack.get(here), pack.get(value.expect("a field has a value")));
                at = step(value);
            }
        }
    }
}

impl Node {
    /// A node whose master entry has these fields, and no entry yet.
    fn new<'a>(fields: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let mut pack = ListPack::new();
        pack.push_int(0);
        pack.push_int(0);
        pack.push_int(fields.len() as i64);
        fields.for_each(|field| pack.push(field));
        pack.push_int(0);
        Node { pack }
    }

    /// A node of one entry, of these fields and values by turns.
    pub fn with_entry<'a>(texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Self {
        let fields: Vec<&[u8]> = texts.clone().step_by(2).collect();
        let mut node = Node::new(fields.into_iter());
        node.push(StreamId::MIN, StreamId::MIN, texts);
        node
    }

    /// Takes over a listpack from outside if it is a sound node from end to end.
    pub fn from_pack(pack: ListPack) -> Option<Self> {
        let mut elements = pack.iter();
        let mut int = || match elements.next()? {
            StrRef::Int(number) => Some(number),
            StrRef::Bytes(_) => None,
        };
        let (live, deleted, fields) = (int()?, int()?, int()?);
        let master = usize::try_from(fields).ok().filter(|n| *n < pack.total_bytes())?;
        for _ in 0..master {
            elements.next()?;
        }
        let mut int = || match elements.next()? {
            StrRef::Int(number) => Some(number),
            StrRef::Bytes(_) => None,
        };
        if int()? != 0 || live < 0 || deleted < 0 {
            return None;
        }
        let (mut seen_live, mut seen_deleted) = (0, 0);
        loop {
            let flags = match elements.next() {
                None => break,
                Some(StrRef::Int(flags)) => flags,
                Some(StrRef::Bytes(_)) => return None,
            };
            let mut int = || match elements.next()? {
                StrRef::Int(number) => Some(number),
                StrRef::Bytes(_) => None,
            };
            int()?;
            int()?;
            let (texts, head) = if flags & SAME_FIELDS != 0 {
                (master, 3)
            } else {
                let fields = usize::try_from(int()?).ok().filter(|n| *n < pack.total_bytes())?;
                (2 * fields, 4)
            };
            for _ in 0..texts {
                elements.next()?;
            }
            let Some(StrRef::Int(count)) = elements.next() else { return None };
            if count != (head + texts) as i64 {
                return None;
            }
            if flags & DELETED != 0 { seen_deleted += 1 } else { seen_live += 1 }
        }
        (live == seen_live && deleted == seen_deleted).then_some(Node { pack })
    }

    /// The listpack, as RDB files hold it.
    pub fn pack(&self) -> &ListPack {
        &self.pack
    }

    /// Bytes of the listpack.
    pub fn bytes(&self) -> usize {
        self.pack.total_bytes()
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        self.pack.heap_bytes()
    }

    fn counter(&self, index: i64) -> i64 {
        int(&self.pack, self.pack.seek(index).expect("a master entry has its counters"))
    }

    /// Entries that are not deleted.
    pub fn live(&self) -> u64 {
        self.counter(0) as u64
    }

    /// Entries that are deleted and still here.
    pub fn deleted(&self) -> u64 {
        self.counter(1) as u64
    }

    fn count(&mut self, index: i64, change: i64) {
        let at = self.pack.seek(index).expect("a master entry has its counters");
        let value = int(&self.pack, at);
        self.pack.replace_int(at, value + change);
    }

    /// Whether the master entry has just these fields.
    fn has_fields<'a>(&self, fields: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
        let mut elements = self.pack.iter().skip(2);
        let Some(StrRef::Int(count)) = elements.next() else { return false };
        count == fields.len() as i64
            && elements.zip(fields).all(|(mine, field)| mine.as_bytes(&mut itoa::Buffer::new()) == field)
    }

    /// Appends an entry of these fields and values by turns; `master` is the node's own id.
    pub fn push<'a>(&mut self, master: StreamId, id: StreamId, texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone) {
        let fields = texts.len() / 2;
        let same = self.has_fields(texts.clone().step_by(2));
        self.count(0, 1);
        let pack = &mut self.pack;
        pack.push_int(if same { SAME_FIELDS } else { 0 });
        pack.push_int(id.ms.wrapping_sub(master.ms) as i64);
        pack.push_int(id.seq.wrapping_sub(master.seq) as i64);
        if same {
            texts.skip(1).step_by(2).for_each(|value| pack.push(value));
            pack.push_int(3 + fields as i64);
        } else {
            pack.push_int(fields as i64);
            texts.for_each(|text| pack.push(text));
            pack.push_int(4 + 2 * fields as i64);
        }
    }

    /// Reads the head of the entry at `at`.
    fn head(&self, master: StreamId, at: EntryAt) -> Head {
        let pack = &self.pack;
        let flags = int(pack, at);
        let ms_at = pack.next(at).expect("an entry has its ms");
        let seq_at = pack.next(ms_at).expect("an entry has its sequence");
        let id = StreamId {
            ms: master.ms.wrapping_add(int(pack, ms_at) as u64),
            seq: master.seq.wrapping_add(int(pack, seq_at) as u64),
        };
        let (fields, texts) = if flags & SAME_FIELDS != 0 {
            (self.counter(2) as usize, pack.next(seq_at))
        } else {
            let fields_at = pack.next(seq_at).expect("an entry has its number of fields");
            (int(pack, fields_at) as usize, pack.next(fields_at))
        };
        Head { flags, id, fields, texts }
    }

    /// The first entry, deleted ones included.
    pub fn first(&self) -> Option<EntryAt> {
        self.pack.seek(4 + self.counter(2))
    }

    /// Behind the last entry.
    pub fn end(&self) -> EntryAt {
        self.pack.end()
    }

    /// The entry behind the one at `at`.
    fn after(&self, at: EntryAt, head: &Head) -> Option<EntryAt> {
        (0..=head.elements()).try_fold(at, |at, _| self.pack.next(at))
    }

    /// The entry before the one at `at`, which may be the end.
    pub fn before(&self, at: EntryAt) -> Option<EntryAt> {
        let count_at = self.pack.prev(at)?;
        // The master entry ends with a 0 where others have their count.
        match int(&self.pack, count_at) {
            0 => None,
            count => (0..count).try_fold(count_at, |at, _| self.pack.prev(at)),
        }
    }

    /// The entry at `at`, or `None` if it is deleted, and the one behind it.
    pub fn read(&self, master: StreamId, at: EntryAt) -> (Option<Entry<'_>>, StreamId, Option<EntryAt>) {
        let head = self.head(master, at);
        (self.entry(head), head.id, self.after(at, &head))
    }

    /// The entry at `at`, or `None` if it is deleted, and its id.
    pub fn read_back(&self, master: StreamId, at: EntryAt) -> (Option<Entry<'_>>, StreamId) {
        let head = self.head(master, at);
        (self.entry(head), head.id)
    }

    fn entry(&self, head: Head) -> Option<Entry<'_>> {
        (head.flags & DELETED == 0).then_some(Entry { id: head.id, pack: &self.pack, head })
    }

    /// The id of the last entry, deleted ones included.
    pub fn last_id(&self, master: StreamId) -> Option<StreamId> {
        self.before(self.end()).map(|at| self.head(master, at).id)
    }

    /// The entry with this id, if it is here and not deleted.
    pub fn find(&self, master: StreamId, id: StreamId) -> Option<(EntryAt, Entry<'_>)> {
        let mut at = self.first();
        while let Some(here) = at {
            let (entry, its_id, next) = self.read(master, here);
            if its_id >= id {
                return entry.filter(|_| its_id == id).map(|entry| (here, entry));
            }
            at = next;
        }
        None
    }

    /// Marks the entry at `at`, which is not deleted, as such.
    pub fn delete(&mut self, at: EntryAt) {
        let flags = int(&self.pack, at) | DELETED;
        // One digit stays one digit: no offset behind it changes.
        self.pack.replace_int(at, flags);
        self.count(0, -1);
        self.count(1, 1);
    }

    /// Marks entries from the front on as deleted while `wanted` says so of the ids; returns how many there were.
    pub fn delete_front(&mut self, master: StreamId, mut wanted: impl FnMut(StreamId) -> bool) -> u64 {
        let (mut at, mut deleted) = (self.first(), 0);
        while let Some(here) = at {
            let head = self.head(master, here);
            at = self.after(here, &head);
            if head.flags & DELETED != 0 {
                // Redis asks of these as well, but what is decided by ids and by the length holds for the next too.
                continue;
            }
            if !wanted(head.id) {
                break;
            }
            self.pack.replace_int(here, head.flags | DELETED);
            deleted += 1;
        }
        self.count(0, -(deleted as i64));
        self.count(1, deleted as i64);
        deleted
    }
}
