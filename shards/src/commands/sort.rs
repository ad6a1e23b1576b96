//! `SORT` and `SORT_RO`: the elements of a list, a set or a sorted set in order, or what keys named after them hold.
//!
//! `BY` and `GET` with a pattern name keys that only the elements tell, so that such a command takes every slice
//! ([`needs_all`]); a plain one takes those of its keys. Counterpart: `sort.c`.

use std::cmp::Ordering;

use super::list::{add_list, list_of};
use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, acl, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::encodings::QuickList;
use crate::entry::{EntryPtr, Kind, StrRef};
use crate::number::{parse_f64, parse_i64};
use crate::object::ObjectRef;
use crate::types::list::{End, List, limits};

use super::spec::{Begin, Find};
use flag::*;

const GENERIC: Group = Group::Generic;
const CATEGORIES: u32 = acl::SET | acl::SORTEDSET | acl::LIST | acl::DANGEROUS;
/// Keys that the element or a word among the options names.
const HIDDEN_READ: KeySpec = KeySpec { begin: Begin::Unknown, find: Find::Unknown, flags: key::RO | key::ACCESS };
const HIDDEN_WRITE: KeySpec = KeySpec { begin: Begin::Unknown, find: Find::Unknown, flags: key::OW | key::UPDATE };

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("sort", sort, -2, WRITE | DENYOOM | MOVABLE_KEYS, GENERIC)
        .keys(&[KeySpec::one(1, key::RO | key::ACCESS), HIDDEN_READ, HIDDEN_WRITE])
        .keys_by(sort_keys)
        .all_slices_if(needs_all)
        .only_categories(CATEGORIES)
        .doc(
            "1.0.0",
            "O(N+M*log(M)), N being the elements and M those returned",
            "Sorts the elements of a list, a set or a sorted set, and may store the result.",
            "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE \
             destination]",
        ),
    Command::data("sort_ro", sort_ro, -2, READONLY | MOVABLE_KEYS, GENERIC)
        .keys(&[KeySpec::one(1, key::RO | key::ACCESS), HIDDEN_READ])
        .keys_by(|_, found| found(1, key::RO | key::ACCESS))
        .all_slices_if(needs_all)
        .only_categories(CATEGORIES)
        .doc(
            "7.0.0",
            "O(N+M*log(M)), N being the elements and M those returned",
            "Sorts the elements of a list, a set or a sorted set.",
            "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]",
        ),
];

/// The key that is sorted, and the last one behind a `STORE`.
fn sort_keys(args: Args<'_>, found: &mut dyn FnMut(usize, u16)) {
    found(1, key::RO | key::ACCESS);
    let (mut i, mut target) = (2, None);
    while i < args.len() {
        match args {
            _ if args.is(i, "limit") => i += 2,
            _ if args.is(i, "by") || args.is(i, "get") => i += 1,
            _ if args.is(i, "store") && i + 1 < args.len() => {
                target = Some(i + 1);
                i += 1;
            }
            _ => {}
        }
        i += 1;
    }
    if let Some(target) = target {
        found(target, key::OW | key::UPDATE);
    }
}

/// Whether elements name keys that are looked at.
fn needs_all(args: Args<'_>) -> bool {
    (2..args.len() - 1).any(|i| (args.is(i, "by") || args.is(i, "get")) && args.at(i + 1).contains(&b'*'))
}

#[derive(Default)]
struct Options<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    limit: Option<(i64, i64)>,
    desc: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(args: Args<'a>, read_only: bool) -> Result<Self, CommandError> {
        let mut options = Options::default();
        let mut i = 2;
        while i < args.len() {
            let left = args.len() - i - 1;
            if args.is(i, "asc") {
                options.desc = false;
            } else if args.is(i, "desc") {
                options.desc = true;
            } else if args.is(i, "alpha") {
                options.alpha = true;
            } else if args.is(i, "limit") && left >= 2 {
                let start = parse_i64(args.at(i + 1)).ok_or(CommandError::NotInteger)?;
                options.limit = Some((start, parse_i64(args.at(i + 2)).ok_or(CommandError::NotInteger)?));
                i += 2;
            } else if args.is(i, "store") && left >= 1 && !read_only {
                options.store = args.get(i + 1);
                i += 1;
            } else if args.is(i, "by") && left >= 1 {
                options.by = args.get(i + 1);
                i += 1;
            } else if args.is(i, "get") && left >= 1 {
                options.get.push(args.at(i + 1));
                i += 1;
            } else {
                return Err(CommandError::Syntax);
            }
            i += 1;
        }
        Ok(options)
    }

    /// The range of `len` elements that `LIMIT` leaves.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let (start, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(start.max(0)).unwrap_or(len).min(len);
        let count = if count < 0 { len } else { usize::try_from(count).unwrap_or(len) };
        start..start.saturating_add(count).min(len)
    }
}

/// One element with what it is sorted by.
struct Item {
    element: Vec<u8>,
    weight: Weight,
}

enum Weight {
    Score(f64),
    Text(Option<Vec<u8>>),
    Itself,
}

fn text(string: StrRef<'_>) -> Vec<u8> {
    string.as_bytes(&mut itoa::Buffer::new()).to_vec()
}

/// The elements of what is sorted, in their own order.
fn elements(entry: Option<&EntryPtr>) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut all = Vec::new();
    match entry.map(|entry| (entry.kind(), entry)) {
        None => {}
        Some((Kind::List, entry)) => {
            let list = list_of(entry);
            all.reserve(list.len());
            list.for_each(|element| all.push(text(element)));
        }
        Some((_, entry)) => match entry.object() {
            Some(ObjectRef::Set(set)) => set.for_each(|member| all.push(text(member))),
            Some(ObjectRef::ZSet(set)) => set.for_each(|member, _| all.push(text(member))),
            _ => return Err(CommandError::WrongType),
        },
    }
    Ok(all)
}

/// What the key that `pattern` names for `element` holds, or a field of it.
fn value_by(ctx: &mut Ctx<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|b| *b == b'*')?;
    let (before, behind) = (&pattern[..star], &pattern[star + 1..]);
    // An arrow with nothing behind it is part of the name.
    let arrow = behind.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < behind.len());
    let (behind, field) = match arrow {
        Some(at) => (&behind[..at], Some(&behind[at + 2..])),
        None => (behind, None),
    };
    let name = [before, element, behind].concat();
    let key = ctx.key_of(&name);
    let entry = ctx.keys.db(ctx.client.db, key.bytes).lookup_read(ctx.core, key)?;
    match field {
        None => entry.string().map(text),
        Some(field) => match entry.object() {
            Some(ObjectRef::Hash(hash)) => hash.get(field, |value| value.map(text)),
            _ => None,
        },
    }
}

fn sort(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, false)
}

fn sort_ro(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    run(ctx, args, true)
}

/// A number as the C library reads one: spaces may stand before it, a NUL ends it, and nothing at all is 0.
fn score(text: &[u8]) -> Result<f64, CommandError> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    if text.is_empty() {
        return Ok(0.0);
    }
    parse_f64(text.trim_ascii_start()).ok_or("ERR One or more scores can't be converted into double".into())
}

fn compare(a: &Item, b: &Item) -> Ordering {
    match (&a.weight, &b.weight) {
        // Equal scores are told apart by the elements, so that the order is one.
        (Weight::Score(x), Weight::Score(y)) => x.total_cmp(y).then_with(|| a.element.cmp(&b.element)),
        (Weight::Text(x), Weight::Text(y)) => x.cmp(y),
        _ => a.element.cmp(&b.element),
    }
}

/// What elements name may be read only by users who may read every key.
fn check_hidden_keys(ctx: &Ctx<'_>, args: Args<'_>, options: &Options<'_>) -> CommandResult {
    let by_names_keys = options.by.is_some_and(|by| by.contains(&b'*'));
    if !by_names_keys && options.get.is_empty() {
        return Ok(());
    }
    let allows = |user: &crate::acl::User| {
        user.is_unlimited() || user.allows_with_every_key(ctx.core.table.find(args.at(0)), args, key::ACCESS)
    };
    if ctx.core.users.get(ctx.client.user).is_some_and(|user| allows(user)) {
        return Ok(());
    }
    let option = if by_names_keys { "BY" } else { "GET" };
    Err(format!("ERR {option} option of SORT denied due to insufficient ACL permissions.").into())
}

fn run(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CommandResult {
    let options = Options::parse(args, read_only)?;
    check_hidden_keys(ctx, args, &options)?;
    let key = ctx.key_of(args.at(1));
    let found = ctx.keys.db(ctx.client.db, key.bytes).lookup_read(ctx.core, key);
    let all = elements(found.as_ref())?;
    let is_set = found.is_some_and(|entry| entry.kind() == Kind::Set);
    let (mut by, mut alpha) = (options.by, options.alpha);
    // A pattern that names one key for all elements asks for no order.
    let mut unsorted = by.is_some_and(|by| !by.contains(&b'*'));
    if unsorted && is_set && (options.store.is_some() || ctx.core.in_script) {
        // What is stored must not depend on a table's order.
        (unsorted, alpha, by) = (false, true, None);
    }
    let range = options.range(all.len());
    let sorted: Vec<Vec<u8>> = if unsorted {
        let reversed = options.desc && found.is_some_and(|entry| entry.kind() != Kind::Set);
        let skip = |all: std::vec::IntoIter<Vec<u8>>| all.skip(range.start).take(range.len()).collect();
        match reversed {
            false => skip(all.into_iter()),
            true => skip(all.into_iter().rev().collect::<Vec<_>>().into_iter()),
        }
    } else {
        let mut items = Vec::with_capacity(all.len());
        for element in all {
            let weight = match (alpha, by) {
                (true, None) => Weight::Itself,
                (true, Some(by)) => Weight::Text(value_by(ctx, by, &element)),
                (false, None) => Weight::Score(score(&element)?),
                (false, Some(by)) => match value_by(ctx, by, &element) {
                    Some(value) => Weight::Score(score(&value)?),
                    None => Weight::Score(0.0),
                },
            };
            items.push(Item { element, weight });
        }
        let order = |a: &Item, b: &Item| if options.desc { compare(b, a) } else { compare(a, b) };
        // Only the part that is asked for needs to be in order.
        if range.end < items.len() && range.end > 0 {
            items.select_nth_unstable_by(range.end - 1, order);
            items.truncate(range.end);
        }
        items.sort_by(order);
        items.into_iter().skip(range.start).take(range.len()).map(|item| item.element).collect()
    };
    let per_element = options.get.len().max(1);
    let outputs = sorted.len() * per_element;
    let Some(target) = options.store else {
        ctx.reply.array(outputs);
        for element in &sorted {
            if options.get.is_empty() {
                ctx.reply.bulk(element);
            }
            for pattern in &options.get {
                let value = value_by(ctx, pattern, element);
                ctx.reply.bulk_or_null(value.as_deref());
            }
        }
        return Ok(());
    };
    let limits = limits(ctx.core);
    let mut list = List::from(QuickList::default());
    for element in &sorted {
        if options.get.is_empty() {
            list.push(End::Back, element, &limits);
        }
        for pattern in &options.get {
            let value = value_by(ctx, pattern, element).unwrap_or_default();
            list.push(End::Back, &value, &limits);
        }
    }
    list.built(&limits);
    let target = ctx.key_of(target);
    let db = ctx.keys.db(ctx.client.db, target.bytes);
    let existed = db.find(ctx.core, target).is_some() && db.delete(target);
    if outputs > 0 {
        add_list(ctx, target, list);
        ctx.dirty += outputs as u64;
        ctx.core.notify(Event::LIST, "sortstore", target.bytes, ctx.client.db);
    } else if existed {
        ctx.changed(Event::GENERIC, "del", target.bytes);
    }
    if ctx.core.shards > 1 && (outputs > 0 || existed) {
        // What it was sorted by may lie anywhere.
        ctx.effect_state(ctx.client.db, target.bytes);
    }
    ctx.reply.integer(outputs as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Check;

    #[test]
    fn lists_and_sets_are_sorted() {
        let mut t = Check::new();
        t.check("RPUSH l 3 1 10 2", "4")
            .check("SORT l", r#"["1" "2" "3" "10"]"#)
            .check("SORT l DESC LIMIT 1 2", r#"["3" "2"]"#);
        t.check("SORT l ALPHA", r#"["1" "10" "2" "3"]"#).check("SORT_RO l ALPHA DESC", r#"["3" "2" "10" "1"]"#);
        t.check("SORT l BY nosort", r#"["3" "1" "10" "2"]"#).check("SORT l BY nosort DESC LIMIT 0 2", r#"["2" "10"]"#);
        t.check("SORT l LIMIT 9 1", "[]").check("SORT l LIMIT -5 1", r#"["1"]"#).check("SORT l LIMIT 0 0", "[]");
        t.check("SADD s 5 4", "2").check("SORT s", r#"["4" "5"]"#).check("SORT none", "[]");
        t.check("ZADD z 3 1 1 2 2 3", "3").check("SORT z", r#"["1" "2" "3"]"#);
        t.check("SORT z BY nosort", r#"["2" "3" "1"]"#).check("SORT z BY nosort DESC LIMIT 0 2", r#"["1" "3"]"#);
        t.check("SORT l STORE d", "4")
            .check("LRANGE d 0 -1", r#"["1" "2" "3" "10"]"#)
            .check("OBJECT ENCODING d", r#""listpack""#);
        t.check("SORT none STORE d", "0")
            .check("EXISTS d", "0")
            .check("SORT s BY x STORE d", "2")
            .check("TYPE d", "list");
        t.check("RPUSH w a b", "2").check("SORT w", "-ERR One or more scores can't be converted into double");
        t.check("SORT w ALPHA DESC", r#"["b" "a"]"#).check("SET t x", "OK").check("SORT w BY t* ALPHA", r#"["a" "b"]"#);
        t.check("SORT t", "-WRONGTYPE Operation against a key holding the wrong kind of value");
        t.check("SORT l LIMIT 0", "-ERR syntax error").check("SORT_RO l STORE d", "-ERR syntax error");
        t.check("SORT l LIMIT 0 x", "-ERR value is not an integer or out of range")
            .check("SORT l FOO", "-ERR syntax error");
    }

    #[test]
    fn patterns_name_keys_on_any_shard() {
        let mut t = Check::new();
        t.check("RPUSH l 1 2 3 4", "4").check("MSET w_1 30 w_2 20 w_3 10 n_1 one n_2 two", "OK");
        t.check("SORT l BY w_*", r#"["4" "3" "2" "1"]"#).check("SORT l BY w_* DESC LIMIT 0 2", r#"["1" "2"]"#);
        t.check("SORT l GET n_* GET #", r#"["one" "1" "two" "2" nil "3" nil "4"]"#);
        t.check("HSET h_1 f x v 2", "2")
            .check("HSET h_2 f y v 1", "2")
            .check("SORT l BY h_*->v GET h_*->f", r#"[nil nil "y" "x"]"#);
        t.check("SORT l GET n_* STORE d", "4").check("LRANGE d 0 -1", r#"["one" "two" "" ""]"#);
        t.check("SORT l BY n_* ALPHA", r#"["3" "4" "1" "2"]"#).check("SORT l GET fixed", "[nil nil nil nil]");
        t.check("SET o_1-> arrow", "OK").check("SORT l LIMIT 0 1 GET o_*->", r#"["arrow"]"#);
        t.check("COMMAND GETKEYS SORT abc BY x STORE d STORE e", r#"["abc" "e"]"#)
            .check("COMMAND GETKEYS SORT abc", r#"["abc"]"#);
        t.check("MULTI", "OK").check("SORT l BY w_* GET n_*", "QUEUED").look("EXEC", |v| {
            assert_eq!(v.to_string(), r#"[[nil nil "two" "one"]]"#);
        });
    }
}
