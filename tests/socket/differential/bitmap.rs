//! Commands of bitmaps and of HyperLogLogs for the comparison with `redis-server`.

/// A line each, as in [`super::TEMPLATES`].
pub const TEMPLATES: &[&str] = &[
    "SETBIT {k} {n} 1",
    "SETBIT {k} {n} {n}",
    "GETBIT {k} {n}",
    "BITCOUNT {k}",
    "BITCOUNT {k} {n} {n}",
    "BITCOUNT {k} {n} {n} BIT",
    "BITPOS {k} 0",
    "BITPOS {k} 1 {n} {n}",
    "BITPOS {k} {n} {n} {n} BIT",
    "BITPOS {k} 0 {n} {n} BYTE",
    "BITOP AND {k} {k*}",
    "BITOP OR {k} {k*}",
    "BITOP XOR {k} {k*}",
    "BITOP NOT {k} {k}",
    "BITFIELD {k} GET i8 {n} SET u5 #{n} {i} INCRBY i64 {n} {i}",
    "BITFIELD {k} OVERFLOW SAT INCRBY u3 {n} {i} OVERFLOW FAIL INCRBY i7 {n} {i}",
    "BITFIELD_RO {k} GET u63 {n} GET {word} 0",
    "PFADD {k} {v} {v}",
    "PFADD {k} {i}",
    "PFCOUNT {k}",
    "PFCOUNT {k} {k}",
    "PFMERGE {k} {k} {k}",
    "PFDEBUG ENCODING {k}",
];
