//! `ZSet`: distinct strings, each with a score, in order of score and then of text.
//!
//! The idea: a small one is one [`ListPack`] of members and scores by turns, in order, and everything is a walk. A
//! large one is a [`Table`]: each member is one allocation with its score ([`ScoredPtr`]), which a dict finds by its
//! text and a [`CountedTree`] by its place. Ranges of every kind (by rank, score and text) are turned into ranges of
//! ranks first ([`ZSet::ranks_of`]), so that reading, counting and removing are each written once.
//!
//! A set converts under the limits and at the sizes at which Redis does, and never back, but for results that are
//! built anew ([`Gathered`]). The commands are in `commands/zset.rs`. Counterpart: the `zset…` functions of `t_zset.c`.

use std::collections::HashSet;
use std::fmt;

use crate::config::Config;
use crate::core::Rng;
use crate::dict::{Dict, Hasher};
use crate::encodings::counted_tree::CountedTree;
use crate::encodings::listpack::ListPack;
use crate::encodings::pack_or::{Form, FormMut, PackOr};
use crate::encodings::scored::ScoredPtr;
use crate::entry::{Encoding, StrRef};
use crate::number::{format_f64, parse_f64};
use crate::types::are_distinct;

/// Up to which sizes a sorted set is flat.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `zset-max-listpack-entries`.
    pub entries: usize,
    /// `zset-max-listpack-value`.
    pub value: usize,
}

impl Limits {
    /// The limits of a configuration.
    pub fn of(config: &Config) -> Self {
        Limits { entries: config.zset_max_listpack_entries, value: config.zset_max_listpack_value }
    }
}

/// One end of a range of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreEnd {
    /// The score.
    pub score: f64,
    /// Whether members of just this score are outside.
    pub open: bool,
}

/// One end of a range of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexEnd<'a> {
    /// Before every text.
    Least,
    /// Behind every text.
    Greatest,
    /// At this text, which is inside.
    Closed(&'a [u8]),
    /// At this text, which is outside.
    Open(&'a [u8]),
}

/// A range of members; in none of its kinds need there be any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span<'a> {
    /// By rank, as in the arguments: negative ones count from the end, the last is inside.
    Rank(i64, i64),
    /// By score.
    Score(ScoreEnd, ScoreEnd),
    /// By text; the members should have one score.
    Lex(LexEnd<'a>, LexEnd<'a>),
}

/// A dict and a tree over the same members, which they own together.
struct Table {
    dict: Dict<ScoredPtr>,
    tree: CountedTree,
    hasher: Hasher,
    member_bytes: usize,
}

impl Table {
    fn new(hasher: &Hasher) -> Self {
        Table { dict: Dict::new(), tree: CountedTree::new(), hasher: hasher.clone(), member_bytes: 0 }
    }

    #[inline]
    fn find(&self, text: &[u8]) -> Option<ScoredPtr> {
        self.dict.find(self.hasher.hash(text), text)
    }

    fn insert_absent(&mut self, text: &[u8], score: f64) {
        self.insert_hashed(self.hasher.hash(text), text, score);
    }

    #[inline]
    fn insert_hashed(&mut self, hash: u64, text: &[u8], score: f64) {
        let member = ScoredPtr::new(text, score);
        self.dict.insert(&self.hasher, hash, member);
        self.tree.insert(member);
        self.member_bytes += ScoredPtr::heap_bytes(text.len());
    }

    fn remove(&mut self, text: &[u8]) -> bool {
        let Some(member) = self.dict.remove(self.hasher.hash(text), text) else { return false };
        let taken = self.tree.remove(member.score(), text);
        assert!(taken == Some(member), "the tree holds what the dict holds");
        self.member_bytes -= ScoredPtr::heap_bytes(text.len());
        // SAFETY: neither holds it any more, and `text` is the caller's, not the member's.
        unsafe { member.free() };
        // A removal has no hasher in the dict's own hands, so the shrink that it may call for is done from here.
        self.dict.rehash_step(&self.hasher, 2);
        true
    }

    fn cut(&mut self, from: usize, to: usize) {
        let Table { dict, tree, hasher, member_bytes } = self;
        tree.cut(from, to, &mut |member| {
            dict.remove_ptr(hasher.hash(member.text()), member);
            *member_bytes -= ScoredPtr::heap_bytes(member.text().len());
            // SAFETY: neither holds it any more.
            unsafe { member.free() };
            dict.rehash_step(hasher, 2);
        });
    }
}

impl Clone for Table {
    fn clone(&self) -> Self {
        let mut copy = Table::new(&self.hasher);
        self.tree.iter().for_each(|(score, member)| copy.insert_absent(member.text(), score));
        copy
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.dict.drain(|member| {
            // SAFETY: dict and tree are gone or about to be without another look at their members.
            unsafe { member.free() }
        });
    }
}

/// A sorted set. See the head of this file.
#[derive(Clone)]
#[repr(transparent)]
pub struct ZSet(PackOr<Table>);

impl fmt::Debug for ZSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ZSet of {} as {}", self.len(), self.encoding().name())
    }
}

fn score_of(value: StrRef<'_>) -> f64 {
    match value {
        StrRef::Int(number) => number as f64,
        StrRef::Bytes(text) => parse_f64(text).expect("a score was written as one"),
    }
}

/// Where a member stands in a listpack.
#[derive(Clone, Copy)]
struct Found {
    at: usize,
    score: f64,
}

/// Members and scores of a listpack, from its first.
fn pairs(pack: &ListPack) -> impl Iterator<Item = (StrRef<'_>, f64)> {
    let mut elements = pack.iter();
    std::iter::from_fn(move || Some((elements.next()?, score_of(elements.next()?))))
}

fn find_in(pack: &ListPack, text: &[u8]) -> Option<Found> {
    let at = pack.find(pack.first()?, text, 1)?;
    let score = score_of(pack.get(pack.next(at)?));
    Some(Found { at, score })
}

fn insert_in(pack: &mut ListPack, text: &[u8], score: f64) {
    let mut at = pack.first();
    while let Some(here) = at {
        let score_at = pack.next(here).expect("a score behind each member");
        let other = score_of(pack.get(score_at));
        let mut buf = itoa::Buffer::new();
        if other > score || other == score && pack.get(here).as_bytes(&mut buf) > text {
            break;
        }
        at = pack.next(score_at);
    }
    let at = pack.insert(at.unwrap_or(pack.end()), text);
    // As an integer where it is one and small enough to be exact, as in Redis;
    // the sign of a zero is lost there too.
    if score.fract() == 0.0 && score.abs() < (1u64 << 52) as f64 {
        pack.insert_int(at, score as i64);
    } else {
        pack.insert(at, format_f64(score).as_bytes());
    }
}

/// Bytes of a member with its score in a listpack, at most.
fn room_for(len: usize) -> usize {
    len + 64
}

impl ScoreEnd {
    fn is_passed(self, score: f64) -> bool {
        if self.open { score > self.score } else { score >= self.score }
    }
}

impl LexEnd<'_> {
    /// Whether a text is inside of this end as the least.
    fn is_passed(self, text: &[u8]) -> bool {
        match self {
            LexEnd::Least => true,
            LexEnd::Greatest => false,
            LexEnd::Closed(end) => text >= end,
            LexEnd::Open(end) => text > end,
        }
    }

    /// Whether a text is beyond this end as the greatest.
    fn is_exceeded(self, text: &[u8]) -> bool {
        match self {
            LexEnd::Least => true,
            LexEnd::Greatest => false,
            LexEnd::Closed(end) => text > end,
            LexEnd::Open(end) => text >= end,
        }
    }
}

impl ZSet {
    /// An empty one for about `hint` members of which the first is `len` long.
    pub fn for_members(hint: usize, len: usize, limits: Limits, hasher: &Hasher) -> Self {
        match hint <= limits.entries && len <= limits.value {
            true => ZSet(ListPack::new().into()),
            false => ZSet(Box::new(Table::new(hasher)).into()),
        }
    }

    /// Makes room for so many members at once, where it is a table.
    pub fn reserve(&mut self, n: usize) {
        if let FormMut::Boxed(table) = self.0.form_mut() {
            table.dict.reserve(&table.hasher, n as u64);
        }
    }

    /// The listpack of a small one, as RDB files hold it.
    pub fn pack(&self) -> Option<&ListPack> {
        match self.0.form() {
            Form::Pack(pack) => Some(pack),
            Form::Boxed(_) => None,
        }
    }

    /// Takes over a listpack from outside if it is members and scores by turns, in order, and no member is there twice.
    pub fn from_pack(pack: ListPack, hasher: &Hasher) -> Option<Self> {
        let mut elements = pack.iter();
        let mut last: Option<(f64, StrRef<'_>)> = None;
        while let Some(member) = elements.next() {
            let score = match elements.next()? {
                StrRef::Int(number) => number as f64,
                StrRef::Bytes(text) => parse_f64(text)?,
            };
            let ordered = last.is_none_or(|(before, text)| {
                let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
                before < score || before == score && text.as_bytes(&mut a) < member.as_bytes(&mut b)
            });
            if score.is_nan() || !ordered {
                return None;
            }
            last = Some((score, member));
        }
        are_distinct(pack.iter().step_by(2), hasher).then_some(ZSet(pack.into()))
    }

    /// Asks for what a search for this member will look at first, where it is a table.
    #[inline]
    pub fn prefetch(&self, text: &[u8]) {
        if let Form::Boxed(table) = self.0.form() {
            table.dict.prefetch_bucket(table.hasher.hash(text));
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
        match self.0.form() {
            Form::Pack(_) => Encoding::ListPack,
            Form::Boxed(_) => Encoding::SkipList,
        }
    }

    /// Bytes of the heap.
    pub fn heap_bytes(&self) -> usize {
        match self.0.form() {
            Form::Pack(pack) => pack.heap_bytes(),
            Form::Boxed(table) => size_of::<Table>() + table.dict.bytes() + table.tree.bytes() + table.member_bytes,
        }
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0.form() {
            Form::Pack(pack) => pack.len() / 2,
            Form::Boxed(table) => table.dict.len(),
        }
    }

    /// True when it has no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    #[inline]
    pub fn score(&self, text: &[u8]) -> Option<f64> {
        match self.0.form() {
            Form::Pack(pack) => find_in(pack, text).map(|found| found.score),
            Form::Boxed(table) => table.find(text).map(ScoredPtr::score),
        }
    }

    /// The rank of a member, from 0, and its score.
    pub fn rank(&self, text: &[u8]) -> Option<(usize, f64)> {
        match self.0.form() {
            Form::Pack(pack) => {
                let mut buf = itoa::Buffer::new();
                pairs(pack)
                    .enumerate()
                    .find(|(_, (member, _))| member.as_bytes(&mut buf) == text)
                    .map(|(rank, (_, score))| (rank, score))
            }
            Form::Boxed(table) => {
                let score = table.find(text)?.score();
                Some((table.tree.rank(score, text), score))
            }
        }
    }

    /// Becomes a table if so many members are to be added, as in Redis whether or not they are there already.
    pub fn expect(&mut self, count: usize, limits: Limits, hasher: &Hasher) {
        if count > limits.entries {
            self.make_table(hasher);
        }
    }

    /// Adds a member; false, and nothing is changed, if it is there.
    pub fn insert(&mut self, text: &[u8], score: f64, limits: Limits, hasher: &Hasher) -> bool {
        if let FormMut::Boxed(table) = self.0.form_mut() {
            let hash = table.hasher.hash(text);
            let absent = table.dict.find(hash, text).is_none();
            if absent {
                table.insert_hashed(hash, text, score);
            }
            return absent;
        }
        let absent = self.score(text).is_none();
        if absent {
            self.insert_absent(text, score, limits, hasher);
        }
        absent
    }

    /// Adds a member that is not there.
    pub fn insert_absent(&mut self, text: &[u8], score: f64, limits: Limits, hasher: &Hasher) {
        if let Form::Pack(pack) = self.0.form()
            && (text.len() > limits.value
                || pack.len() / 2 + 1 > limits.entries
                || !pack.has_room(room_for(text.len())))
        {
            self.make_table(hasher);
        }
        match self.0.form_mut() {
            FormMut::Pack(pack) => insert_in(pack, text, score),
            FormMut::Boxed(table) => table.insert_absent(text, score),
        }
    }

    /// Changes the score of a member that is there.
    pub fn set_score(&mut self, text: &[u8], score: f64) {
        match self.0.form_mut() {
            FormMut::Pack(pack) => {
                let found = find_in(pack, text).expect("the caller found it");
                pack.delete_range(found.at, 2);
                insert_in(pack, text, score);
            }
            FormMut::Boxed(table) => {
                let member = table.find(text).expect("the caller found it");
                table.tree.set_score(member, score);
            }
        }
    }

    /// Removes a member; says whether it was there.
    pub fn remove(&mut self, text: &[u8]) -> bool {
        match self.0.form_mut() {
            FormMut::Boxed(table) => table.remove(text),
            FormMut::Pack(pack) => match find_in(pack, text) {
                Some(found) => {
                    pack.delete_range(found.at, 2);
                    true
                }
                None => false,
            },
        }
    }

    /// How many members, from the first, `is_before` holds for.
    fn count_while(&self, is_before: impl Fn(f64, StrRef<'_>) -> bool) -> usize {
        match self.0.form() {
            Form::Pack(pack) => pairs(pack).take_while(|(member, score)| is_before(*score, *member)).count(),
            Form::Boxed(table) => {
                table.tree.count_while(|score, member| is_before(score, StrRef::Bytes(member.text())))
            }
        }
    }

    /// The ranks of the members in a range: the first, and the one behind the last. Equal if there are none.
    pub fn ranks_of(&self, span: Span<'_>) -> (usize, usize) {
        let (from, to) = match span {
            Span::Rank(first, last) => {
                let len = self.len() as i64;
                let place = |i: i64| if i < 0 { i.saturating_add(len).max(-1) } else { i.min(len) };
                (place(first).max(0) as usize, (place(last).min(len - 1) + 1) as usize)
            }
            Span::Score(min, max) => {
                // Each end alone may lie anywhere, so a range without sense comes out with its ends exchanged.
                let from = self.count_while(|score, _| !min.is_passed(score));
                let beyond = ScoreEnd { open: !max.open, ..max };
                (from, self.count_while(|score, _| !beyond.is_passed(score)))
            }
            Span::Lex(min, max) => {
                let with_text =
                    |member: StrRef<'_>, test: &dyn Fn(&[u8]) -> bool| test(member.as_bytes(&mut itoa::Buffer::new()));
                let from = self.count_while(|_, member| with_text(member, &|text| !min.is_passed(text)));
                (from, self.count_while(|_, member| with_text(member, &|text| !max.is_exceeded(text))))
            }
        };
        (from, to.max(from))
    }

    /// Gives the members of ranks `from` to `to` (that one excluded) with their scores to `f`; backwards if `reverse`.
    pub fn range(&self, from: usize, to: usize, reverse: bool, mut f: impl FnMut(StrRef<'_>, f64)) {
        if from >= to {
            return;
        }
        match self.0.form() {
            Form::Pack(pack) => {
                let step = |at: usize| if reverse { pack.prev(at) } else { pack.next(at) };
                let mut at = pack.seek(2 * if reverse { to as i64 - 1 } else { from as i64 });
                for _ in from..to {
                    let here = at.expect("ranks are below the length");
                    let score_at = pack.next(here).expect("a score behind each member");
                    f(pack.get(here), score_of(pack.get(score_at)));
                    at = step(if reverse { here } else { score_at });
                    if reverse {
                        at = at.and_then(|at| pack.prev(at));
                    }
                }
            }
            Form::Boxed(table) => {
                let members = table.tree.range(from, to);
                let give = |(score, member): (f64, &ScoredPtr)| f(StrRef::Bytes(member.text()), score);
                if reverse { members.rev().for_each(give) } else { members.for_each(give) }
            }
        }
    }

    /// Gives every member with its score to `f`, in order.
    pub fn for_each(&self, f: impl FnMut(StrRef<'_>, f64)) {
        self.range(0, self.len(), false, f);
    }

    /// Removes the members of ranks `from` to `to` (that one excluded).
    pub fn remove_range(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        match self.0.form_mut() {
            FormMut::Pack(pack) => {
                let at = pack.seek(2 * from as i64).expect("ranks are below the length");
                pack.delete_range(at, 2 * (to - from));
            }
            FormMut::Boxed(table) => table.cut(from, to),
        }
    }

    /// One step of a scan: gives some members to `f` and returns the next cursor, 0 at the end. A listpack is given
    /// whole.
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(StrRef<'_>, f64)) -> u64 {
        match self.0.form() {
            Form::Boxed(table) => {
                table.dict.scan(cursor, &mut |member| f(StrRef::Bytes(member.text()), member.score()))
            }
            Form::Pack(_) => {
                self.for_each(f);
                0
            }
        }
    }

    /// Gives `count` random members to `f`, each drawn from all. The set must not be empty.
    pub fn random(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(StrRef<'_>, f64)) {
        match self.0.form() {
            // By rank, which makes every member exactly as likely as another.
            Form::Boxed(table) => {
                for _ in 0..count {
                    let rank = rng.below(table.tree.len() as u64) as usize;
                    let (score, member) = table.tree.range(rank, rank + 1).next().expect("below the length");
                    f(StrRef::Bytes(member.text()), score);
                }
            }
            Form::Pack(pack) => {
                // One walk for all the draws, as seeking each would take the square of the length.
                let all: Vec<_> = pairs(pack).collect();
                for _ in 0..count {
                    let (member, score) = all[rng.below(all.len() as u64) as usize];
                    f(member, score);
                }
            }
        }
    }

    /// Gives `count` different random members to `f`, or all if there are no more.
    pub fn random_distinct(&self, rng: &mut Rng, count: usize, mut f: impl FnMut(StrRef<'_>, f64)) {
        let len = self.len();
        if count >= len {
            return self.for_each(f);
        }
        if let Form::Boxed(table) = self.0.form()
            && count < len / 3
        {
            let mut seen = HashSet::with_capacity(count);
            // Two draws of three are new, so this ends.
            while seen.len() < count {
                let rank = rng.below(len as u64) as usize;
                if seen.insert(rank) {
                    let (score, member) = table.tree.range(rank, rank + 1).next().expect("below the length");
                    f(StrRef::Bytes(member.text()), score);
                }
            }
            return;
        }
        // Selection sampling (Knuth, algorithm S): one walk in which each member is taken with the chance that makes
        // every subset equally likely.
        let (mut left, mut wanted) = (len as u64, count as u64);
        self.for_each(|member, score| {
            if wanted > 0 && rng.below(left) < wanted {
                wanted -= 1;
                f(member, score);
            }
            left -= 1;
        });
    }

    fn make_table(&mut self, hasher: &Hasher) {
        if let Form::Boxed(_) = self.0.form() {
            return;
        }
        let mut table = Box::new(Table::new(hasher));
        self.for_each(|member, score| table.insert_absent(member.as_bytes(&mut itoa::Buffer::new()), score));
        self.0 = table.into();
    }
}

/// The members of a result while it is put together, in no order yet: they are sorted once, at the end, and go into
/// the tree from its least to its greatest.
pub struct Gathered {
    dict: Dict<ScoredPtr>,
    hasher: Hasher,
    bytes: usize,
    longest: usize,
}

impl Gathered {
    /// Nothing yet.
    pub fn new(hasher: &Hasher) -> Self {
        Gathered { dict: Dict::new(), hasher: hasher.clone(), bytes: 0, longest: 0 }
    }

    /// Adds a member, or gives it the score that `change` makes of the one it has.
    pub fn merge(&mut self, text: &[u8], score: f64, change: impl FnOnce(f64) -> f64) {
        let hash = self.hasher.hash(text);
        match self.dict.find(hash, text) {
            Some(member) => member.set_score(change(member.score())),
            None => {
                self.dict.insert(&self.hasher, hash, ScoredPtr::new(text, score));
                self.bytes += text.len();
                self.longest = self.longest.max(text.len());
            }
        }
    }

    /// Makes a set of it, flat if the limits allow it.
    pub fn finish(mut self, limits: Limits) -> ZSet {
        let mut all = Vec::with_capacity(self.dict.len());
        self.dict.for_each(|member| all.push(member));
        all.sort_unstable_by(|a, b| {
            let by_score = a.score().partial_cmp(&b.score()).expect("scores are never NaN");
            by_score.then_with(|| a.text().cmp(b.text()))
        });
        let room = self.bytes.saturating_add(room_for(0).saturating_mul(all.len()));
        if all.len() <= limits.entries && self.longest <= limits.value && ListPack::new().has_room(room) {
            let mut pack = ListPack::new();
            all.iter().for_each(|member| insert_in(&mut pack, member.text(), member.score()));
            return ZSet(pack.into());
        }
        let mut table = Table::new(&self.hasher);
        table.dict = std::mem::take(&mut self.dict);
        for member in all {
            table.tree.insert(member);
            table.member_bytes += ScoredPtr::heap_bytes(member.text().len());
        }
        ZSet(Box::new(table).into())
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.dict.drain(|member| {
            // SAFETY: what was handed over is not in this dict any more, and the rest is in nothing else.
            unsafe { member.free() }
        });
    }
}

#[cfg(test)]
mod tests;
