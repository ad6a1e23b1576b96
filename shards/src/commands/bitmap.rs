//! Bitmaps: strings as arrays of bits, `SETBIT`, `BITCOUNT`, `BITOP`, `BITFIELD`. Counterpart: `bitops.c`.
//!
//! Bit 0 is the highest bit of the first byte. Long strings are counted, searched and combined by words of 64 bits.

use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::db::Ttl;
use crate::entry::{EntryPtr, Kind};
use crate::number::parse_i64;

use flag::*;

const BITMAP: Group = Group::Bitmap;
const READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("setbit", setbit, 4, WRITE | DENYOOM, BITMAP)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE)])
        .doc("2.2.0", "O(1)", "Sets or clears a bit of a string and returns what it was.", "key offset value"),
    Command::data("getbit", getbit, 3, READONLY | FAST, BITMAP).keys(READ).doc(
        "2.2.0",
        "O(1)",
        "Returns a bit of a string.",
        "key offset",
    ),
    Command::data("bitcount", bitcount, -2, READONLY, BITMAP).keys(READ).doc(
        "2.6.0",
        "O(N), N being the bytes of the range",
        "Counts the bits of a string that are set.",
        "key [start end [BYTE | BIT]]",
    ),
    Command::data("bitpos", bitpos, -3, READONLY, BITMAP).keys(READ).doc(
        "2.8.7",
        "O(N), N being the bytes of the range",
        "Finds the first bit of a string that is set, or that is clear.",
        "key bit [start [end [BYTE | BIT]]]",
    ),
    Command::data("bitop", bitop, -4, WRITE | DENYOOM, BITMAP)
        .keys(&[KeySpec::one(2, key::OW | key::UPDATE), KeySpec::range(3, -1, 1, key::RO | key::ACCESS)])
        .doc(
            "2.6.0",
            "O(N), N being the bytes of all strings",
            "Combines strings bit by bit and stores the result.",
            "<AND | OR | XOR | NOT> destkey key [key ...]",
        ),
    Command::data("bitfield", bitfield, -2, WRITE | DENYOOM, BITMAP)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::UPDATE | key::VARIABLE_FLAGS)])
        .flags_by(bitfield_flags)
        .doc(
            "3.2.0",
            "O(1) for each operation",
            "Reads and changes integers of any width in a string.",
            "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | INCRBY encoding \
             offset increment> [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | \
             INCRBY encoding offset increment> ...]]",
        ),
    Command::data("bitfield_ro", bitfield_ro, -2, READONLY | FAST, BITMAP).keys(READ).doc(
        "6.0.0",
        "O(1) for each operation",
        "Reads integers of any width in a string.",
        "key [GET encoding offset [GET encoding offset ...]]",
    ),
];

/// `BITFIELD` only reads where all its operations are `GET`; with operations that it will not understand, it is taken
/// for a write.
fn bitfield_flags(args: Args<'_>) -> u16 {
    let mut i = 2;
    while i < args.len() {
        let left = args.len() - i - 1;
        i += match () {
            _ if args.is(i, "get") && left >= 2 => 3,
            _ if args.is(i, "overflow") && left >= 1 => 2,
            _ => return key::RW | key::ACCESS | key::UPDATE,
        };
    }
    key::RO | key::ACCESS
}

/// Calls back with the text of the string at `key`, if there is one.
fn with_text<T>(ctx: &mut Ctx<'_>, key: Key<'_>, f: impl FnOnce(Option<&[u8]>) -> T) -> Result<T, CommandError> {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let found = db.lookup_read_kind(ctx.core, key, Kind::String)?;
    let mut digits = itoa::Buffer::new();
    let string = found.as_ref().and_then(EntryPtr::string);
    Ok(f(string.as_ref().map(|s| s.as_bytes(&mut digits))))
}

/// Gives the string at `key` at least `len` bytes, and lets `write` change them. It also tells whether the string
/// grew or was made.
fn with_text_mut<T>(
    ctx: &mut Ctx<'_>,
    key: Key<'_>,
    len: usize,
    write: impl FnOnce(&mut [u8], bool) -> T,
) -> Result<T, CommandError> {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    let (entry, old_len) = match db.lookup_write_kind(ctx.core, key, Kind::String)? {
        Some(entry) => (entry, entry.string().map_or(0, |s| s.len())),
        None => {
            db.set_string(ctx.core, key, b"", Ttl::Clear);
            (db.find(ctx.core, key).expect("it was just written"), 0)
        }
    };
    Ok(db.modify_string(key, entry, old_len.max(len), |bytes| write(bytes, len > old_len)))
}

const BAD_OFFSET: &str = "ERR bit offset is not an integer or out of range";

/// The offset of a bit; `#n` is the n-th integer of `bits` bits, where those are given.
fn offset_arg(ctx: &Ctx<'_>, text: &[u8], bits: Option<u32>) -> Result<u64, CommandError> {
    let (digits, unit) = match (text.strip_prefix(b"#"), bits) {
        (Some(digits), Some(bits)) => (digits, i64::from(bits)),
        _ => (text, 1),
    };
    let offset = parse_i64(digits).and_then(|n| n.checked_mul(unit)).and_then(|n| u64::try_from(n).ok());
    offset.filter(|offset| offset >> 3 < ctx.core.config.proto_max_bulk_len).ok_or(BAD_OFFSET.into())
}

fn setbit(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let offset = offset_arg(ctx, args.at(2), None)?;
    let on = match args.at(3) {
        b"0" => false,
        b"1" => true,
        _ => return Err("ERR bit is not an integer or out of range".into()),
    };
    let key = ctx.key(args, 1);
    let (byte, mask) = ((offset >> 3) as usize, 0x80 >> (offset & 7));
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    if let Some(entry) = db.lookup_write_kind(ctx.core, key, Kind::String)? {
        // A bit that is there already changes nothing, and is not announced.
        let mut digits = itoa::Buffer::new();
        let text = entry.string();
        let old = text.as_ref().and_then(|s| s.as_bytes(&mut digits).get(byte).copied());
        if old.is_some_and(|old| (old & mask != 0) == on) {
            db.make_raw(key, entry);
            ctx.reply.integer(on as i64);
            return Ok(());
        }
    }
    let was = with_text_mut(ctx, key, byte + 1, |bytes, _| {
        let was = bytes[byte] & mask != 0;
        bytes[byte] = if on { bytes[byte] | mask } else { bytes[byte] & !mask };
        was
    })?;
    ctx.changed(Event::STRING, "setbit", key.bytes);
    ctx.reply.integer(was as i64);
    Ok(())
}

fn getbit(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let offset = offset_arg(ctx, args.at(2), None)?;
    let key = ctx.key(args, 1);
    let byte = with_text(ctx, key, |text| text.and_then(|text| text.get((offset >> 3) as usize).copied()))?;
    ctx.reply.integer((byte.unwrap_or(0) >> (7 - (offset & 7)) & 1) as i64);
    Ok(())
}

/// Whether a range counts bits; the word stands at argument `index`, if there are so many.
fn in_bits(args: Args<'_>, index: usize) -> Result<bool, CommandError> {
    match args {
        _ if args.len() <= index => Ok(false),
        _ if args.is(index, "bit") => Ok(true),
        _ if args.is(index, "byte") => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}

/// The bits from `start` to `end` of `len` bytes, the end excluded; both count from the end when negative.
fn bit_range(start: i64, end: i64, len: usize, bits: bool) -> Option<(usize, usize)> {
    let unit = if bits { 1 } else { 8 };
    let total = len as i64 * 8 / unit;
    let from_end = |i: i64| if i < 0 { (i + total).max(0) } else { i };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    (start <= end).then(|| ((start * unit) as usize, ((end + 1) * unit) as usize))
}

/// Bits that are set in `bytes`.
fn count_ones(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    // Four sums, so that no addition waits for the one before.
    let (fours, ones) = words.as_chunks::<4>();
    let mut sums = [0u64; 4];
    for four in fours {
        for (sum, word) in sums.iter_mut().zip(four) {
            *sum += u64::from(u64::from_le_bytes(*word).count_ones());
        }
    }
    let ones: u64 = ones.iter().map(|word| u64::from(u64::from_le_bytes(*word).count_ones())).sum();
    let rest: u64 = rest.iter().map(|byte| u64::from(byte.count_ones())).sum();
    sums.iter().sum::<u64>() + ones + rest
}

/// A byte with the bits of it that lie outside `from..to` (bits of the whole) replaced by `fill`'s.
fn masked(bytes: &[u8], at: usize, from: usize, to: usize, fill: u8) -> u8 {
    let mut mask = 0xffu8;
    if from > at * 8 {
        mask &= 0xff >> (from - at * 8);
    }
    if to < at * 8 + 8 {
        mask &= !(0xff >> (to - at * 8));
    }
    bytes[at] & mask | fill & !mask
}

fn bitcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let range = match args.len() {
        2 => None,
        4 | 5 => {
            let start = parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
            Some((start, parse_i64(args.at(3)).ok_or(CommandError::NotInteger)?, in_bits(args, 4)?))
        }
        _ => return Err(CommandError::Syntax),
    };
    let key = ctx.key(args, 1);
    let count = with_text(ctx, key, |text| {
        let text = text.unwrap_or_default();
        let Some((start, end, bits)) = range else { return count_ones(text) };
        if start < 0 && end < 0 && start > end {
            return 0;
        }
        let Some((from, to)) = bit_range(start, end, text.len(), bits) else { return 0 };
        let (first, last) = (from / 8, (to - 1) / 8);
        if first == last {
            return u64::from(masked(text, first, from, to, 0).count_ones());
        }
        let edges = [masked(text, first, from, to, 0), masked(text, last, from, to, 0)];
        count_ones(&edges) + count_ones(&text[first + 1..last])
    })?;
    ctx.reply.integer(count as i64);
    Ok(())
}

/// The first bit of `bytes` that is `bit`.
fn find_bit(bytes: &[u8], bit: bool) -> Option<usize> {
    // What is looked for is turned into a one.
    let flip = if bit { 0 } else { u64::MAX };
    let (words, rest) = bytes.as_chunks::<8>();
    if let Some(at) = words.iter().position(|word| u64::from_ne_bytes(*word) != flip) {
        let word = u64::from_be_bytes(words[at]) ^ flip;
        return Some(at * 64 + word.leading_zeros() as usize);
    }
    let at = rest.iter().position(|byte| *byte != flip as u8)?;
    Some(words.len() * 64 + at * 8 + (rest[at] ^ flip as u8).leading_zeros() as usize)
}

fn bitpos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let bit = match parse_i64(args.at(2)).ok_or(CommandError::NotInteger)? {
        0 => false,
        1 => true,
        _ => return Err("ERR The bit argument must be 1 or 0.".into()),
    };
    if args.len() > 6 {
        return Err(CommandError::Syntax);
    }
    let start = args.get(3).map_or(Some(0), parse_i64).ok_or(CommandError::NotInteger)?;
    let bits = in_bits(args, 5)?;
    let end = args.get(4).map(|text| parse_i64(text).ok_or(CommandError::NotInteger)).transpose()?;
    let key = ctx.key(args, 1);
    let position = with_text(ctx, key, |text| {
        // A key that does not exist is clear without end.
        let Some(text) = text else { return if bit { -1 } else { 0 } };
        let Some((from, to)) = bit_range(start, end.unwrap_or(-1), text.len(), bits) else { return -1 };
        let (first, last) = (from / 8, (to - 1) / 8);
        let fill = if bit { 0 } else { 0xff };
        let edge = |at: usize| find_bit(&[masked(text, at, from, to, fill)], bit).map(|i| at * 8 + i);
        let inner = || find_bit(&text[(first + 1).min(last)..last], bit).map(|i| first * 8 + 8 + i);
        let found = edge(first).or_else(inner).or_else(|| edge(last));
        match found {
            Some(at) => at as i64,
            // Behind a string without a given end all bits are clear.
            None if !bit && end.is_none() => text.len() as i64 * 8,
            None => -1,
        }
    })?;
    ctx.reply.integer(position);
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    And,
    Or,
    Xor,
    Not,
}

/// Combines `source` into `result`, which is at least as long; what is missing of it is zeros.
fn combine(op: Op, result: &mut [u8], source: &[u8]) {
    let (over, beyond) = result.split_at_mut(source.len());
    // Plain loops over equally long slices, which the compiler turns into wide instructions.
    let pairs = over.iter_mut().zip(source);
    match op {
        Op::And => {
            pairs.for_each(|(byte, other)| *byte &= other);
            beyond.fill(0);
        }
        Op::Or => pairs.for_each(|(byte, other)| *byte |= other),
        Op::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
        Op::Not => pairs.for_each(|(byte, other)| *byte = !other),
    }
}

fn bitop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let op = match args {
        _ if args.is(1, "and") => Op::And,
        _ if args.is(1, "or") => Op::Or,
        _ if args.is(1, "xor") => Op::Xor,
        _ if args.is(1, "not") => Op::Not,
        _ => return Err(CommandError::Syntax),
    };
    if op == Op::Not && args.len() != 4 {
        return Err("ERR BITOP NOT must be called with a single source key.".into());
    }
    let mut sources = Vec::with_capacity(args.len() - 3);
    for name in args.iter_from(3) {
        let key = ctx.key_of(name);
        let db = ctx.keys.db(ctx.client.db, key.bytes);
        sources.push(db.lookup_read_kind(ctx.core, key, Kind::String)?);
    }
    let mut result: Vec<u8> = Vec::new();
    let longest = sources.iter().flatten().filter_map(|e| e.string().map(|s| s.len())).max().unwrap_or(0);
    result.resize(longest, 0);
    for (i, source) in sources.iter().enumerate() {
        let mut digits = itoa::Buffer::new();
        let string = source.as_ref().and_then(EntryPtr::string);
        let text = string.as_ref().map_or(&b""[..], |s| s.as_bytes(&mut digits));
        match (i, op) {
            (0, Op::And | Op::Or | Op::Xor) => result[..text.len()].copy_from_slice(text),
            _ => combine(op, &mut result, text),
        }
    }
    let target = ctx.key_of(args.at(2));
    let db = ctx.keys.db(ctx.client.db, target.bytes);
    if longest > 0 {
        db.set_raw(ctx.core, target, &result);
        ctx.changed(Event::STRING, "set", target.bytes);
    } else if db.find(ctx.core, target).is_some() {
        db.delete(target);
        ctx.changed(Event::GENERIC, "del", target.bytes);
    }
    ctx.reply.integer(longest as i64);
    Ok(())
}

/// What happens to a value that does not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer's width and sign: `i8`, `u63`.
#[derive(Clone, Copy)]
struct Width {
    signed: bool,
    bits: u32,
}

impl Width {
    fn parse(text: &[u8]) -> Result<Self, CommandError> {
        let signed = text.first() == Some(&b'i');
        let bits = match text {
            [b'i' | b'u', digits @ ..] => parse_i64(digits),
            _ => None,
        };
        let most = if signed { 64 } else { 63 };
        match bits {
            Some(bits) if (1..=most).contains(&bits) => Ok(Width { signed, bits: bits as u32 }),
            _ => {
                Err("ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
                    .into())
            }
        }
    }

    /// The least and the greatest value.
    fn range(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The value of the low bits of `raw`.
    fn value(self, raw: u64) -> i128 {
        let unused = 64 - self.bits;
        match self.signed {
            true => i128::from((raw << unused) as i64 >> unused),
            false => i128::from(raw << unused >> unused),
        }
    }

    /// `value` made to fit; `None` if it may not be, and whether it did by itself.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = self.range();
        if (min..=max).contains(&value) {
            return Some(value);
        }
        match overflow {
            Overflow::Wrap => Some(self.value(value as u64)),
            Overflow::Saturate => Some(value.clamp(min, max)),
            Overflow::Fail => None,
        }
    }
}

/// The `bits` bits at `offset`; those beyond the end are clear.
fn read_bits(bytes: &[u8], offset: u64, bits: u32) -> u64 {
    let mut window = [0u8; 16];
    let first = (offset / 8) as usize;
    if let Some(there) = bytes.get(first..) {
        let len = there.len().min(9);
        window[..len].copy_from_slice(&there[..len]);
    }
    let raw = u128::from_be_bytes(window) << (offset % 8) >> (128 - bits);
    raw as u64
}

/// Sets the `bits` bits at `offset`, which must lie within `bytes`.
fn write_bits(bytes: &mut [u8], offset: u64, bits: u32, value: u64) {
    let (first, shift) = ((offset / 8) as usize, 128 - bits - (offset % 8) as u32);
    let len = (bytes.len() - first).min(9);
    let mut window = [0u8; 16];
    window[..len].copy_from_slice(&bytes[first..first + len]);
    let mask = (u128::MAX >> (128 - bits)) << shift;
    let changed = u128::from_be_bytes(window) & !mask | (u128::from(value) << shift & mask);
    bytes[first..first + len].copy_from_slice(&changed.to_be_bytes()[..len]);
}

enum Change {
    Get,
    Set(i64),
    IncrBy(i64),
}

struct FieldOp {
    change: Change,
    width: Width,
    offset: u64,
    overflow: Overflow,
}

fn field_ops(ctx: &Ctx<'_>, args: Args<'_>) -> Result<Vec<FieldOp>, CommandError> {
    let (mut ops, mut overflow, mut i) = (Vec::new(), Overflow::Wrap, 2);
    while i < args.len() {
        let left = args.len() - i - 1;
        if args.is(i, "overflow") && left >= 1 {
            overflow = match args {
                _ if args.is(i + 1, "wrap") => Overflow::Wrap,
                _ if args.is(i + 1, "sat") => Overflow::Saturate,
                _ if args.is(i + 1, "fail") => Overflow::Fail,
                _ => return Err("ERR Invalid OVERFLOW type specified".into()),
            };
            i += 2;
            continue;
        }
        let (get, set) = (args.is(i, "get") && left >= 2, args.is(i, "set") && left >= 3);
        let incrby = args.is(i, "incrby") && left >= 3;
        if !(get || set || incrby) {
            return Err(CommandError::Syntax);
        }
        let width = Width::parse(args.at(i + 1))?;
        let offset = offset_arg(ctx, args.at(i + 2), Some(width.bits))?;
        let change = if get {
            Change::Get
        } else {
            let number = parse_i64(args.at(i + 3)).ok_or(CommandError::NotInteger)?;
            if set { Change::Set(number) } else { Change::IncrBy(number) }
        };
        ops.push(FieldOp { change, width, offset, overflow });
        i += if get { 3 } else { 4 };
    }
    Ok(ops)
}

fn bitfield(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    run_fields(ctx, args, false)
}

fn bitfield_ro(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    run_fields(ctx, args, true)
}

fn run_fields(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CommandResult {
    let ops = field_ops(ctx, args)?;
    let key = ctx.key(args, 1);
    let writes = ops.iter().filter(|op| !matches!(op.change, Change::Get));
    let Some(last) = writes.map(|op| op.offset + u64::from(op.width.bits) - 1).max() else {
        let values = with_text(ctx, key, |text| {
            let read = |op: &FieldOp| op.width.value(read_bits(text.unwrap_or_default(), op.offset, op.width.bits));
            ops.iter().map(read).collect::<Vec<_>>()
        })?;
        ctx.reply.array(values.len());
        values.into_iter().for_each(|value| ctx.reply.integer(value as i64));
        return Ok(());
    };
    if read_only {
        return Err("ERR BITFIELD_RO only supports the GET subcommand".into());
    }
    let (replies, changes) = with_text_mut(ctx, key, (last / 8) as usize + 1, |bytes, grew| {
        let mut changes = 0;
        let replies: Vec<Option<i64>> = ops
            .iter()
            .map(|op| {
                let old = op.width.value(read_bits(bytes, op.offset, op.width.bits));
                let (wanted, returns_old) = match op.change {
                    Change::Get => return Some(old as i64),
                    // An unsigned field takes a value as 64 bits without a sign.
                    Change::Set(value) if !op.width.signed => (i128::from(value as u64), true),
                    Change::Set(value) => (i128::from(value), true),
                    Change::IncrBy(by) => (old + i128::from(by), false),
                };
                let new = op.width.fit(wanted, op.overflow)?;
                write_bits(bytes, op.offset, op.width.bits, new as u64);
                changes += u64::from(grew || new != old);
                Some(if returns_old { old } else { new } as i64)
            })
            .collect();
        (replies, changes)
    })?;
    if changes > 0 {
        ctx.dirty += changes;
        ctx.core.notify(Event::STRING, "setbit", key.bytes, ctx.client.db);
    }
    ctx.reply.array(replies.len());
    for reply in replies {
        match reply {
            Some(value) => ctx.reply.integer(value),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
