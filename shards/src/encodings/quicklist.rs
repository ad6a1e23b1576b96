//! `QuickList`: a long list as a chain of listpacks, quick at both ends.
//!
//! The idea: elements lie in nodes of a few KB each, so that a push or a pop moves at most one node's bytes, and an
//! index is found by adding up the nodes' counts. The chain is a ring buffer of nodes rather than linked ones: the
//! counts lie side by side, walking them misses no cache, and a node costs 32 bytes where Redis's takes 48. An element
//! too large to share a node stands alone in one ("plain"). Where a node is split, filled or merged follows Redis, for
//! a list becomes a single listpack again when one node is left.
//!
//! Nodes are never compressed: `list-compress-depth` is accepted and changes nothing.
//!
//! `types/list.rs` chooses between this and a listpack alone. Counterpart: `quicklist.c`.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::listpack::ListPack;
use crate::entry::StrRef;
use crate::number::parse_i64;
use crate::size_class::size_class;

/// Bytes of a node that is bounded by its number of elements.
const SAFE_NODE_BYTES: usize = 8192;
/// Node sizes of `list-max-listpack-size` -1 to -5.
const NODE_BYTES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// What a listpack may add to an element's text, as Redis estimates it.
const ELEMENT_OVERHEAD: usize = 8;
/// A listpack without elements.
const EMPTY_BYTES: usize = 7;
/// No element shares a node from this size on, whatever was set.
const SHARED_MAX: usize = 1 << 30;

/// How much a node holds.
#[derive(Clone, Copy, Debug)]
pub struct NodeLimits {
    /// Bytes of a node's listpack; `usize::MAX` when the count alone bounds it.
    pub bytes: usize,
    /// Elements of a node; `usize::MAX` when the bytes bound it.
    pub count: usize,
    /// The longest element that may share a node.
    pub shared: usize,
}

impl NodeLimits {
    /// The limits that `list-max-listpack-size` stands for, and `DEBUG QUICKLIST-PACKED-THRESHOLD` (0 when not set).
    pub fn new(fill: i64, packed_threshold: u64) -> Self {
        let (bytes, count, shared) = match fill {
            0.. => (usize::MAX, usize::try_from(fill).unwrap_or(usize::MAX).max(1), SAFE_NODE_BYTES),
            _ => {
                let level = usize::try_from(-1 - fill).unwrap_or(usize::MAX).min(NODE_BYTES.len() - 1);
                (NODE_BYTES[level], usize::MAX, NODE_BYTES[level])
            }
        };
        let shared = match packed_threshold {
            0 => shared,
            // Elements of the threshold's size stand alone themselves.
            threshold => (threshold as usize - 1).min(SHARED_MAX),
        };
        NodeLimits { bytes, count, shared }
    }

    /// Whether a listpack of this size outgrows a node.
    #[inline]
    pub fn exceeded(&self, bytes: usize, count: usize) -> bool {
        match self.bytes {
            usize::MAX => bytes > SAFE_NODE_BYTES || count > self.count,
            limit => bytes > limit,
        }
    }

    /// Whether an element of this length stands alone.
    #[inline]
    fn is_large(&self, len: usize) -> bool {
        len > self.shared
    }
}

/// A text to look for, its number known.
#[derive(Clone, Copy)]
pub struct Needle<'a> {
    text: &'a [u8],
    number: Option<i64>,
}

impl<'a> Needle<'a> {
    /// A text to look for.
    pub fn new(text: &'a [u8]) -> Self {
        Needle { text, number: parse_i64(text) }
    }

    /// Whether `element` is it.
    #[inline]
    pub fn is(&self, element: StrRef<'_>) -> bool {
        match element {
            StrRef::Bytes(text) => text == self.text,
            StrRef::Int(number) => self.number == Some(number),
        }
    }
}

#[derive(Clone)]
enum Body {
    Pack(ListPack),
    Plain(Box<[u8]>),
}

#[derive(Clone)]
struct Node {
    body: Body,
    count: u32,
}

const _: () = assert!(size_of::<Node>() == 24);

impl Node {
    fn pack(pack: ListPack) -> Self {
        let count = u32::try_from(pack.len()).expect("a listpack's elements are fewer than its bytes");
        Node { body: Body::Pack(pack), count }
    }

    fn packed(text: &[u8]) -> Self {
        let mut pack = ListPack::new();
        pack.push(text);
        Node { body: Body::Pack(pack), count: 1 }
    }

    fn plain(text: &[u8]) -> Self {
        Node { body: Body::Plain(text.into()), count: 1 }
    }

    fn new(text: &[u8], limits: &NodeLimits) -> Self {
        if limits.is_large(text.len()) { Self::plain(text) } else { Self::packed(text) }
    }

    /// Whether an element of `len` bytes may join it.
    #[inline]
    fn allows(&self, len: usize, limits: &NodeLimits) -> bool {
        match &self.body {
            Body::Pack(pack) if !limits.is_large(len) => {
                !limits.exceeded(pack.total_bytes() + len + ELEMENT_OVERHEAD, self.count as usize + 1)
            }
            _ => false,
        }
    }

    /// The listpack of a node that allowed an element, or was found to be packed.
    fn pack_mut(&mut self) -> &mut ListPack {
        match &mut self.body {
            Body::Pack(pack) => pack,
            Body::Plain(_) => unreachable!("the caller saw a packed node"),
        }
    }

    #[inline]
    fn get(&self, at: usize) -> StrRef<'_> {
        match &self.body {
            Body::Pack(pack) => pack.get(pack.seek(at as i64).expect("an index within the node")),
            Body::Plain(text) => StrRef::Bytes(text),
        }
    }

    fn insert(&mut self, at: usize, text: &[u8]) {
        let pack = self.pack_mut();
        let offset = pack.seek(at as i64).unwrap_or(pack.end());
        pack.insert(offset, text);
        self.count += 1;
    }

    /// Takes the elements from `at` on into a node of their own.
    fn split_off(&mut self, at: usize) -> Node {
        let pack = self.pack_mut();
        let offset = pack.seek(at as i64).expect("a split leaves elements on both sides");
        let tail = pack.split_off(offset);
        let moved = self.count - at as u32;
        self.count = at as u32;
        Node { body: Body::Pack(tail), count: moved }
    }

    fn delete_range(&mut self, at: usize, count: usize) {
        let pack = self.pack_mut();
        let offset = pack.seek(at as i64).expect("an index within the node");
        pack.delete_range(offset, count);
        self.count -= count as u32;
    }
}

/// A list in nodes. See the head of this file.
#[derive(Clone, Default)]
pub struct QuickList {
    nodes: VecDeque<Node>,
    len: usize,
}

impl QuickList {
    /// A list of one node that takes over `pack`, or of none if that is empty.
    pub fn from_pack(pack: ListPack) -> Self {
        let mut list = Self::default();
        if !pack.is_empty() {
            list.push_pack(pack);
        }
        list
    }

    /// Appends a whole node; it must not be empty.
    pub fn push_pack(&mut self, pack: ListPack) {
        let node = Node::pack(pack);
        self.len += node.count as usize;
        self.put(self.nodes.len(), node);
    }

    /// Appends an element in a node of its own.
    pub fn push_plain(&mut self, text: &[u8]) {
        self.put(self.nodes.len(), Node::plain(text));
        self.len += 1;
    }

    /// The listpack of the only node, if there is one node, it is packed, and it has no more than so many bytes and
    /// elements; the list is empty then.
    pub fn take_single(&mut self, bytes: usize, count: usize) -> Option<ListPack> {
        match self.nodes.front() {
            Some(Node { body: Body::Pack(pack), .. })
                if self.nodes.len() == 1 && pack.total_bytes() <= bytes && self.len <= count => {}
            _ => return None,
        }
        self.len = 0;
        match self.nodes.pop_front() {
            Some(Node { body: Body::Pack(pack), .. }) => Some(pack),
            _ => unreachable!("the only node was seen to be packed"),
        }
    }

    /// Elements held.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes of the chain: a listpack each, or a text that stands alone.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Result<&ListPack, &[u8]>> {
        self.nodes_from(0)
    }

    /// Those from the `first` on.
    pub fn nodes_from(&self, first: usize) -> impl ExactSizeIterator<Item = Result<&ListPack, &[u8]>> {
        self.nodes.range(first.min(self.nodes.len())..).map(|node| match &node.body {
            Body::Pack(pack) => Ok(pack),
            Body::Plain(text) => Err(&text[..]),
        })
    }

    /// Bytes of the heap it takes.
    pub fn heap_bytes(&self) -> usize {
        let bodies = self.nodes.iter().map(|node| match &node.body {
            Body::Pack(pack) => pack.heap_bytes(),
            Body::Plain(text) => text.len(),
        });
        self.nodes.capacity() * size_of::<Node>() + bodies.sum::<usize>()
    }

    /// The node that holds element `index`, and the element's place in it.
    fn locate(&self, index: usize) -> (usize, usize) {
        debug_assert!(index < self.len);
        if index < self.len / 2 {
            let mut left = index;
            for (n, node) in self.nodes.iter().enumerate() {
                match left.checked_sub(node.count as usize) {
                    Some(rest) => left = rest,
                    None => return (n, left),
                }
            }
        } else {
            let mut behind = self.len - index;
            for (n, node) in self.nodes.iter().enumerate().rev() {
                match (node.count as usize).checked_sub(behind) {
                    Some(at) => return (n, at),
                    None => behind -= node.count as usize,
                }
            }
        }
        unreachable!("the nodes' counts add up to the list's")
    }

    /// The element at `index`, which must be below the length.
    pub fn get(&self, index: usize) -> StrRef<'_> {
        let (n, at) = self.locate(index);
        self.nodes[n].get(at)
    }

    /// The first or the last element.
    #[inline]
    pub fn end(&self, front: bool) -> Option<StrRef<'_>> {
        let node = if front { self.nodes.front() } else { self.nodes.back() }?;
        Some(match &node.body {
            Body::Pack(pack) => {
                let at = if front { pack.first() } else { pack.last() };
                pack.get(at.expect("a node is never empty"))
            }
            Body::Plain(text) => StrRef::Bytes(text),
        })
    }

    /// Puts an element before the first or behind the last.
    #[inline]
    pub fn push(&mut self, front: bool, text: &[u8], limits: &NodeLimits) {
        let node = if front { self.nodes.front_mut() } else { self.nodes.back_mut() };
        self.len += 1;
        match node.filter(|node| node.allows(text.len(), limits)) {
            Some(node) => {
                node.count += 1;
                let pack = node.pack_mut();
                if front { pack.push_front(text) } else { pack.push(text) }
            }
            None => {
                let node = Node::new(text, limits);
                self.put(if front { 0 } else { self.nodes.len() }, node);
            }
        }
    }

    /// Removes the first or the last element, which must be there.
    #[inline]
    pub fn pop(&mut self, front: bool) {
        let node = if front { self.nodes.front_mut() } else { self.nodes.back_mut() };
        let node = node.expect("an element to remove");
        self.len -= 1;
        if node.count == 1 {
            if front {
                self.nodes.pop_front()
            } else {
                self.nodes.pop_back()
            };
            self.give_back();
            return;
        }
        node.count -= 1;
        let pack = node.pack_mut();
        let at = if front { pack.first() } else { pack.last() };
        pack.delete(at.expect("a node is never empty"));
    }

    /// Puts a node before the `n`th. Where there is no room, room for an eighth more is made, and what the allocator's
    /// class has beyond that: `VecDeque` would make it for twice as many.
    fn put(&mut self, n: usize, node: Node) {
        if self.nodes.len() == self.nodes.capacity() {
            let nodes = 1 + self.nodes.len() * 9 / 8;
            let room = size_class(nodes * size_of::<Node>()) / size_of::<Node>();
            self.nodes.reserve_exact(room - self.nodes.len());
        }
        self.nodes.insert(n, node);
    }

    /// Gives back the chain's own room when most of it is spare.
    fn give_back(&mut self) {
        if self.nodes.capacity() > 16 && self.nodes.len() < self.nodes.capacity() / 4 {
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
    }

    /// Calls back with the elements from `index` on, or from it backwards, until `f` breaks off.
    pub fn walk(
        &self,
        index: usize,
        backward: bool,
        mut f: impl FnMut(StrRef<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if index >= self.len {
            return ControlFlow::Continue(());
        }
        let (first, at) = self.locate(index);
        let mut at = Some(at);
        let mut n = first;
        loop {
            match &self.nodes[n].body {
                Body::Plain(text) => f(StrRef::Bytes(text))?,
                Body::Pack(pack) => {
                    // Only the node that the walk begins in is not taken whole.
                    let offset = at.map(|at| pack.seek(at as i64).expect("an index within the node"));
                    match backward {
                        false => pack.iter_from(offset.or(pack.first()).unwrap_or(pack.end())).try_for_each(&mut f)?,
                        true => {
                            let end = offset.map_or(pack.end(), |at| pack.next(at).unwrap_or(pack.end()));
                            pack.iter_to(end).rev().try_for_each(&mut f)?;
                        }
                    }
                }
            }
            at = None;
            let next = if backward { n.checked_sub(1) } else { Some(n + 1).filter(|n| *n < self.nodes.len()) };
            match next {
                Some(next) => n = next,
                None => return ControlFlow::Continue(()),
            }
        }
    }

    /// Puts `text` in the place of the element at `index`, which must be below the length.
    pub fn replace(&mut self, index: usize, text: &[u8], limits: &NodeLimits) {
        let (n, at) = self.locate(index);
        let large = limits.is_large(text.len());
        let node = &mut self.nodes[n];
        match &mut node.body {
            Body::Pack(pack) if !large => {
                let offset = pack.seek(at as i64).expect("an index within the node");
                pack.replace(offset, text);
            }
            Body::Plain(old) if large => *old = text.into(),
            Body::Plain(_) => {
                self.insert_at(n, at, true, text, limits);
                self.nodes.remove(n);
                self.len -= 1;
            }
            Body::Pack(_) => {
                // The element stands alone: what was behind the old one becomes a node of its own.
                let count = node.count as usize;
                let behind = (at + 1 < count).then(|| node.split_off(at + 1));
                self.put(n + 1, Node::plain(text));
                if let Some(behind) = behind {
                    self.put(n + 2, behind);
                }
                if at == 0 {
                    self.nodes.remove(n);
                } else {
                    self.nodes[n].delete_range(at, 1);
                    self.merge_around(n + 1, limits);
                }
            }
        }
    }

    /// Puts `text` before or behind the element at `index`, which must be below the length.
    pub fn insert(&mut self, index: usize, after: bool, text: &[u8], limits: &NodeLimits) {
        let (n, at) = self.locate(index);
        self.insert_at(n, at, after, text, limits);
    }

    fn insert_at(&mut self, n: usize, at: usize, after: bool, text: &[u8], limits: &NodeLimits) {
        let len = text.len();
        let place = at + usize::from(after);
        self.len += 1;
        if self.nodes[n].allows(len, limits) {
            return self.nodes[n].insert(place, text);
        }
        let count = self.nodes[n].count as usize;
        if place > 0 && place < count {
            let tail = self.nodes[n].split_off(place);
            self.put(n + 1, tail);
            if limits.is_large(len) {
                self.put(n + 1, Node::plain(text));
                return;
            }
            // The new element joins the part that does not hold the one it was put beside.
            let (part, place) = if after { (n + 1, 0) } else { (n, place) };
            self.nodes[part].insert(place, text);
            // Redis merges around the part that it calls the old node.
            return self.merge_around(if after { n } else { n + 1 }, limits);
        }
        let neighbour = if after { Some(n + 1) } else { n.checked_sub(1) };
        let neighbour = neighbour.and_then(|n| self.nodes.get_mut(n));
        match neighbour.filter(|node| node.allows(len, limits)) {
            Some(node) => {
                let place = if after { 0 } else { node.count as usize };
                node.insert(place, text);
            }
            None => self.put(n + usize::from(after), Node::new(text, limits)),
        }
    }

    /// Whether nodes `n` and `n + 1` are both there, packed, and fit into one.
    fn can_merge(&self, n: usize, limits: &NodeLimits) -> bool {
        let (Some(a), Some(b)) = (self.nodes.get(n), self.nodes.get(n + 1)) else { return false };
        match (&a.body, &b.body) {
            (Body::Pack(left), Body::Pack(right)) => {
                let bytes = left.total_bytes() + right.total_bytes() - EMPTY_BYTES;
                !limits.exceeded(bytes, a.count as usize + b.count as usize)
            }
            _ => false,
        }
    }

    fn merge(&mut self, n: usize) {
        let right = self.nodes.remove(n + 1).expect("the caller saw both");
        let left = &mut self.nodes[n];
        left.count += right.count;
        match right.body {
            Body::Pack(pack) => left.pack_mut().append(&pack),
            Body::Plain(_) => unreachable!("the caller saw both packed"),
        }
    }

    /// After a split: the two before node `n` become one if they fit, so do the two behind it, and then it joins what
    /// is beside it.
    fn merge_around(&mut self, mut n: usize, limits: &NodeLimits) {
        if n >= 2 && self.can_merge(n - 2, limits) {
            self.merge(n - 2);
            n -= 1;
        }
        if self.can_merge(n + 1, limits) {
            self.merge(n + 1);
        }
        if n >= 1 && self.can_merge(n - 1, limits) {
            self.merge(n - 1);
            n -= 1;
        }
        if self.can_merge(n, limits) {
            self.merge(n);
        }
    }

    /// Removes up to `count` elements from `index` on.
    pub fn delete_range(&mut self, index: usize, count: usize) {
        if index >= self.len || count == 0 {
            return;
        }
        let mut left = count.min(self.len - index);
        let (mut n, mut at) = self.locate(index);
        self.len -= left;
        while left > 0 {
            let here = self.nodes[n].count as usize;
            if at == 0 && left >= here {
                // All nodes that go as a whole go in one move.
                let mut end = n;
                while let Some(node) = self.nodes.get(end).filter(|node| left >= node.count as usize && left > 0) {
                    left -= node.count as usize;
                    end += 1;
                }
                self.nodes.drain(n..end);
            } else {
                let cut = left.min(here - at);
                self.nodes[n].delete_range(at, cut);
                left -= cut;
                n += 1;
            }
            at = 0;
        }
        self.give_back();
    }

    /// Removes up to `max` elements that are `needle`, from the front or from the back; says how many.
    pub fn remove(&mut self, needle: &Needle<'_>, max: usize, backward: bool) -> usize {
        let (mut removed, mut emptied) = (0, false);
        let mut take = |node: &mut Node| {
            let here = match &mut node.body {
                Body::Plain(text) => usize::from(needle.is(StrRef::Bytes(text))),
                Body::Pack(pack) => remove_matches(pack, needle, max - removed, backward),
            };
            node.count -= here as u32;
            removed += here;
            emptied |= node.count == 0;
            removed < max
        };
        match backward {
            false => self.nodes.iter_mut().all(&mut take),
            true => self.nodes.iter_mut().rev().all(&mut take),
        };
        if emptied {
            self.nodes.retain(|node| node.count > 0);
            self.give_back();
        }
        self.len -= removed;
        removed
    }
}

/// Removes up to `max` elements that are `needle` from a listpack, from its front or its back; says how many.
pub fn remove_matches(pack: &mut ListPack, needle: &Needle<'_>, max: usize, backward: bool) -> usize {
    let skip = match backward {
        false => 0,
        // The last ones are those that are left when as many as are too many are passed over.
        true => pack.iter().filter(|element| needle.is(*element)).count().saturating_sub(max),
    };
    let (mut seen, mut removed) = (0, 0);
    pack.retain(|element| {
        if removed == max || !needle.is(element) {
            return true;
        }
        seen += 1;
        removed += usize::from(seen > skip);
        seen <= skip
    });
    removed
}

#[cfg(test)]
mod tests;
