//! Commands of streams, for the comparison with `redis-server`.
//!
//! What takes the clock's time for an id, or tells times, is left out, and so is what 7.0 does not know (`XREAD` with
//! `+`), counts otherwise (the lag of `XINFO GROUPS`) or lets pass (`XSETID` to before the last deleted id).

/// Ids, good and bad.
pub const IDS: &[&str] =
    &["1", "1-1", "1-2", "2-0", "3", "4-4", "5-0", "9", "12-3", "0", "0-0", "7-x", "", "3-18446744073709551615"];

/// A line each, as in [`super::TEMPLATES`].
pub const TEMPLATES: &[&str] = &[
    "XADD {k} {id} f {v}",
    "XADD {k} {id} f {v}",
    "XADD {k} {id} f {v} g {v}",
    "XADD {k} {id}-* {v} {v}",
    "XADD {k} 20-* f {i}",
    "XADD {k} 20-* f {i} f {v}",
    "XADD {k} NOMKSTREAM {id} f {v}",
    "XADD {k} MAXLEN {n} 30-* f {v}",
    "XADD {k} MINID = {id} 30-* f {v}",
    "XADD {k} MAXLEN ~ {n} LIMIT {n} 30-* f {v}",
    "XLEN {k}",
    "XRANGE {k} - +",
    "XRANGE {k} {id} {id}",
    "XRANGE {k} ({id} + COUNT {n}",
    "XREVRANGE {k} + -",
    "XREVRANGE {k} ({id} {id} COUNT {n}",
    "XREAD STREAMS {k} {k} {id} {id}",
    "XREAD COUNT {n} BLOCK 1 STREAMS {k} $",
    "XDEL {k} {id} {id}",
    "XDEL {k} 20-0 20-1 30-0",
    "XTRIM {k} MAXLEN {n}",
    "XTRIM {k} MINID {id} LIMIT {n}",
    "XTRIM {k} MINID ~ {id}",
    "XSETID {k} 40 ENTRIESADDED {i} MAXDELETEDID {id}",
    "XINFO STREAM {k}",
    "XINFO STREAM {k} {word}",
    "XGROUP CREATE {k} g {id} MKSTREAM",
    "XGROUP CREATE {k} g 0",
    "XGROUP CREATE {k} h $ ENTRIESREAD {i}",
    "XGROUP SETID {k} g {id}",
    "XGROUP DESTROY {k} h",
    "XGROUP CREATECONSUMER {k} g c",
    "XGROUP DELCONSUMER {k} g c",
    "XREADGROUP GROUP g c STREAMS {k} >",
    "XREADGROUP GROUP g d COUNT {n} STREAMS {k} >",
    "XREADGROUP GROUP g d NOACK STREAMS {k} >",
    "XREADGROUP GROUP g c COUNT {n} STREAMS {k} {id}",
    "XREADGROUP GROUP h c BLOCK 1 STREAMS {k} {k} > >",
    "XACK {k} g {id} 20-0 30-0",
    "XPENDING {k} g",
    "XCLAIM {k} g d 0 {id} 20-0 {id} RETRYCOUNT {n}",
    "XCLAIM {k} g e 0 {id} FORCE JUSTID LASTID {id}",
    "XAUTOCLAIM {k} g c 0 {id} COUNT {n}",
    "XAUTOCLAIM {k} g d 0 - JUSTID",
];
