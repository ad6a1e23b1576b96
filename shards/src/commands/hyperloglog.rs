//! Estimates of how many different elements were seen: `PFADD`, `PFCOUNT`, `PFMERGE`. Counterpart: `hyperloglog.c`.
//!
//! What an estimate is and how it lies in a string is in `encodings/hll.rs`.

use super::{Command, CommandError, CommandResult, Ctx, Group, Key, KeySpec, Route, flag, key};
use crate::args::Args;
use crate::core::Event;
use crate::encodings::hll::{self, Corrupt, REGISTERS};
use crate::entry::{EntryPtr, Kind, StrRef};

use flag::*;

const HLL: Group = Group::HyperLogLog;

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("pfadd", pfadd, -2, WRITE | DENYOOM | FAST, HLL).keys(&[KeySpec::one(1, key::RW | key::INSERT)]).doc(
        "2.8.9",
        "O(1) for each element",
        "Adds elements to an estimate.",
        "key [element [element ...]]",
    ),
    // Counting writes too: it notes the result.
    Command::data("pfcount", pfcount, -2, READONLY | MAY_REPLICATE, HLL)
        .keys(&[KeySpec::range(1, -1, 1, key::RW | key::ACCESS)])
        .doc(
            "2.8.9",
            "O(N), N being the number of keys",
            "Estimates how many different elements were added.",
            "key [key ...]",
        ),
    Command::data("pfmerge", pfmerge, -2, WRITE | DENYOOM, HLL)
        .keys(&[KeySpec::one(1, key::RW | key::ACCESS | key::INSERT), KeySpec::range(2, -1, 1, key::RO | key::ACCESS)])
        .doc(
            "2.8.9",
            "O(N), N being the number of keys",
            "Makes an estimate of all elements that were added to any.",
            "destkey [sourcekey [sourcekey ...]]",
        ),
    Command::data("pfdebug", pfdebug, 3, WRITE | DENYOOM | ADMIN, HLL)
        .keys(&[KeySpec::one(2, key::RW | key::ACCESS)])
        .doc("2.8.9", "O(1)", "Shows an estimate's registers, runs or encoding.", "subcommand key"),
    Command::data("pfselftest", pfselftest, 1, ADMIN, HLL).route(Route::Home).doc(
        "2.8.9",
        "O(1)",
        "Compares estimates with what was added.",
        "",
    ),
];

impl From<Corrupt> for CommandError {
    fn from(_: Corrupt) -> Self {
        "INVALIDOBJ Corrupted HLL object detected".into()
    }
}

/// The estimate of an entry.
fn bytes_of(entry: &EntryPtr) -> Result<&[u8], CommandError> {
    match entry.string() {
        _ if entry.kind() != Kind::String => Err(CommandError::WrongType),
        Some(StrRef::Bytes(bytes)) if hll::is_hll(bytes) => Ok(bytes),
        _ => Err("WRONGTYPE Key is not a valid HyperLogLog string value.".into()),
    }
}

/// Puts `bytes` in the place of an entry's estimate; announces the change.
fn put(ctx: &mut Ctx<'_>, key: Key<'_>, entry: EntryPtr, bytes: &[u8]) {
    let db = ctx.keys.db(ctx.client.db, key.bytes);
    db.modify_string(key, entry, bytes.len(), |text| text.copy_from_slice(bytes));
}

fn pfadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 1);
    let max_bytes = ctx.core.config.hll_sparse_max_bytes;
    let found = ctx.keys.db(ctx.client.db, key.bytes).lookup_write(ctx.core, key);
    let places = args.iter_from(2).map(hll::place);
    let mut updated = 0;
    match found {
        Some(entry) if hll::is_dense(bytes_of(&entry)?) => {
            // What raises no register changes nothing, and is not announced.
            let bytes = bytes_of(&entry)?;
            let raises = |(index, value)| hll::would_raise_dense(bytes, index, value);
            if let Some(first) = places.clone().position(raises) {
                let len = bytes.len();
                let db = ctx.keys.db(ctx.client.db, key.bytes);
                updated = db.modify_string(key, entry, len, |bytes| {
                    hll::invalidate(bytes);
                    places.skip(first).filter(|(index, value)| hll::raise_dense(bytes, *index, *value)).count()
                });
            }
        }
        Some(entry) => {
            let mut bytes = bytes_of(&entry)?.to_vec();
            for (index, value) in places {
                updated += usize::from(hll::raise(&mut bytes, index, value, max_bytes)?);
            }
            if updated > 0 {
                hll::invalidate(&mut bytes);
                put(ctx, key, entry, &bytes);
            }
        }
        None => {
            let mut bytes = hll::empty();
            updated = 1;
            for (index, value) in places {
                updated += usize::from(hll::raise(&mut bytes, index, value, max_bytes)?);
            }
            hll::invalidate(&mut bytes);
            add(ctx, key, &bytes);
        }
    }
    if updated > 0 {
        ctx.dirty += updated as u64;
        ctx.core.notify(Event::STRING, "pfadd", key.bytes, ctx.client.db);
    }
    ctx.reply.integer((updated > 0) as i64);
    Ok(())
}

/// Adds an estimate under an absent key; announces the change.
fn add(ctx: &mut Ctx<'_>, key: Key<'_>, bytes: &[u8]) {
    ctx.keys.db(ctx.client.db, key.bytes).set_raw(ctx.core, key, bytes);
}

/// The highest of each register over the estimates at arguments `from` on, and whether one of them is dense.
fn union(ctx: &mut Ctx<'_>, args: Args<'_>, from: usize) -> Result<(Box<[u8; REGISTERS]>, bool), CommandError> {
    let (mut max, mut dense) = (Box::new([0; REGISTERS]), false);
    for name in args.iter_from(from) {
        let key = ctx.key_of(name);
        if let Some(entry) = ctx.keys.db(ctx.client.db, key.bytes).lookup_read(ctx.core, key) {
            let bytes = bytes_of(&entry)?;
            dense |= hll::is_dense(bytes);
            hll::merge_into(&mut max, bytes)?;
        }
    }
    Ok((max, dense))
}

fn pfcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    if args.len() > 2 {
        let (max, _) = union(ctx, args, 1)?;
        ctx.reply.integer(hll::count_registers(&max) as i64);
        return Ok(());
    }
    let key = ctx.key_of(args.at(1));
    let Some(entry) = ctx.keys.db(ctx.client.db, key.bytes).lookup_read(ctx.core, key) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    let bytes = bytes_of(&entry)?;
    let count = match hll::cached(bytes) {
        Some(count) => count,
        None => {
            let (count, len) = (hll::count(bytes)?, bytes.len());
            let db = ctx.keys.db(ctx.client.db, key.bytes);
            db.modify_string(key, entry, len, |bytes| hll::set_cached(bytes, count));
            // The note is a change like any other to whoever keeps a copy.
            ctx.dirty += 1;
            count
        }
    };
    ctx.reply.integer(count as i64);
    Ok(())
}

fn pfmerge(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let (max, dense) = union(ctx, args, 1)?;
    let key = ctx.key_of(args.at(1));
    let max_bytes = ctx.core.config.hll_sparse_max_bytes;
    let found = ctx.keys.db(ctx.client.db, key.bytes).lookup_write(ctx.core, key);
    let mut bytes = match &found {
        Some(entry) => bytes_of(entry)?.to_vec(),
        None => hll::empty(),
    };
    if dense && !hll::is_dense(&bytes) {
        hll::make_dense(&mut bytes)?;
    }
    for (index, value) in max.iter().enumerate().filter(|(_, value)| **value > 0) {
        hll::raise(&mut bytes, index, *value, max_bytes)?;
    }
    hll::invalidate(&mut bytes);
    match found {
        Some(entry) => put(ctx, key, entry, &bytes),
        None => add(ctx, key, &bytes),
    }
    ctx.changed(Event::STRING, "pfadd", key.bytes);
    ctx.reply.ok();
    Ok(())
}

fn pfdebug(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let key = ctx.key(args, 2);
    let found = ctx.keys.db(ctx.client.db, key.bytes).lookup_write(ctx.core, key);
    let entry = found.ok_or("ERR The specified key does not exist")?;
    let bytes = bytes_of(&entry)?;
    let dense = hll::is_dense(bytes);
    if args.is(1, "getreg") || args.is(1, "todense") {
        let registers = hll::registers(bytes)?;
        if !dense {
            let mut bytes = bytes.to_vec();
            hll::make_dense(&mut bytes)?;
            put(ctx, key, entry, &bytes);
            ctx.dirty += 1;
        }
        if args.is(1, "todense") {
            ctx.reply.integer(!dense as i64);
        } else {
            ctx.reply.array(REGISTERS);
            registers.iter().for_each(|value| ctx.reply.integer(i64::from(*value)));
        }
    } else if args.is(1, "encoding") {
        ctx.reply.simple(if dense { "dense" } else { "sparse" });
    } else if args.is(1, "decode") {
        if dense {
            return Err("ERR HLL encoding is not sparse".into());
        }
        let runs: Vec<String> = hll::runs(bytes)
            .map(|run| match (run.value, run.bytes) {
                (0, 1) => format!("z:{}", run.len),
                (0, _) => format!("Z:{}", run.len),
                (value, _) => format!("v:{value},{}", run.len),
            })
            .collect();
        ctx.reply.bulk(runs.join(" ").as_bytes());
    } else {
        return Err(format!("ERR Unknown PFDEBUG subcommand '{}'", String::from_utf8_lossy(args.at(1))).into());
    }
    Ok(())
}

/// Elements that the self-test adds: enough to see a bias, and over in a tenth of a second.
const TEST_ELEMENTS: u64 = 1_000_000;

fn pfselftest(ctx: &mut Ctx<'_>, _: Args<'_>) -> CommandResult {
    let seed = ctx.core.rng.next_u64();
    let max_bytes = ctx.core.config.hll_sparse_max_bytes;
    let (mut any, mut dense) = (hll::empty(), hll::empty());
    hll::make_dense(&mut dense)?;
    let mut checkpoint = 1;
    for n in 1..=TEST_ELEMENTS {
        let (index, value) = hll::place(&(n ^ seed).to_le_bytes());
        hll::raise_dense(&mut dense, index, value);
        hll::raise(&mut any, index, value, max_bytes)?;
        if n != checkpoint {
            continue;
        }
        if n < max_bytes as u64 / 2 && hll::is_dense(&any) {
            return Err("ERR TESTFAILED sparse encoding not used".into());
        }
        let count = hll::count(&dense)?;
        if count != hll::count(&any)? {
            return Err("ERR TESTFAILED dense/sparse disagree".into());
        }
        // Six times the standard error; with few elements two of one register are likely enough for one to go missing.
        let allowed = if n == 10 { 1 } else { (1.04 / 128.0 * 6.0 * n as f64).ceil() as u64 };
        if count.abs_diff(n) > allowed {
            return Err(format!("ERR TESTFAILED Too big error. card:{n} abserr:{}", count.abs_diff(n)).into());
        }
        checkpoint *= 10;
    }
    ctx.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::Check;

    #[test]
    fn elements_are_counted_once() {
        let mut t = Check::new();
        t.check("PFADD h a b c", "1").check("PFADD h a b", "0").check("PFCOUNT h", "3").check("PFCOUNT none", "0");
        t.check("PFADD h", "0").check("PFADD e", "1").check("PFCOUNT e", "0").check("PFADD i c d e", "1");
        t.check("PFCOUNT h i none", "5").check("PFMERGE m h i", "OK").check("PFCOUNT m", "5").check("PFMERGE n", "OK");
        t.check("PFDEBUG ENCODING m", "sparse").check("PFDEBUG TODENSE m", "1").check("PFDEBUG TODENSE m", "0");
        t.check("PFDEBUG ENCODING m", "dense")
            .check("PFCOUNT m", "5")
            .check("PFADD m a f", "1")
            .check("PFCOUNT m", "6");
        t.check("PFMERGE h m", "OK")
            .check("PFDEBUG ENCODING h", "dense")
            .check("PFCOUNT h", "6")
            .check("STRLEN h", "12304");
        t.check("PFSELFTEST", "OK").check("PFDEBUG FOO h", "-ERR Unknown PFDEBUG subcommand 'FOO'");
        t.check("PFDEBUG DECODE h", "-ERR HLL encoding is not sparse").check("PFDEBUG DECODE e", r#""Z:16384""#);
        t.check("PFDEBUG ENCODING none", "-ERR The specified key does not exist");
        t.look("PFDEBUG GETREG i", |v| assert_eq!(v.items().len(), 16384)).check("PFDEBUG ENCODING i", "dense");
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut t = Check::new();
        // GET of redis-server 7.0.15 after the same.
        t.check("PFADD h a b c", "1").check("PFDEBUG DECODE h", r#""Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603""#);
        t.check("GET h", r#""HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80`\xf3\x80P\xb1\x84K\xfb\x80BZ""#);
        t.check("PFCOUNT h", "3")
            .check("GET h", r#""HYLL\x01\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00`\xf3\x80P\xb1\x84K\xfb\x80BZ""#);
    }

    #[test]
    fn what_is_no_estimate_is_refused() {
        let mut t = Check::new();
        const INVALID: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.";
        const CORRUPT: &str = "-INVALIDOBJ Corrupted HLL object detected";
        t.check("SET s text", "OK")
            .check("PFADD s a", INVALID)
            .check("PFCOUNT s", INVALID)
            .check("PFMERGE d s", INVALID);
        t.check("SET n 12", "OK").check("PFADD n a", INVALID).check("RPUSH l a", "1").check("EXISTS d", "0");
        t.check("PFADD l a", "-WRONGTYPE Operation against a key holding the wrong kind of value");
        t.check("PFADD h a b c", "1").check("APPEND h hello", "32").check("PFCOUNT h", CORRUPT);
        t.check("PFMERGE d h", CORRUPT).check("PFCOUNT h h", CORRUPT).check("EXISTS d", "0");
        t.check("PFADD g a", "1").check("SETRANGE g 4 x", "21").check("PFCOUNT g", INVALID);
        t.check("PFADD f a", "1")
            .check("PFDEBUG TODENSE f", "1")
            .check("APPEND f x", "12305")
            .check("PFADD f b", INVALID);
    }
}
