//! The built-in workloads: one table, a row each, in the language of `workload.rs`.
//!
//! To add a workload, add a row; a test composes every row and the integration tests run it against a server.

/// A row of the table of built-in workloads. `N` in a line stands for the number after the name's colon.
pub struct Builtin {
    /// Before the colon.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Default of `N`.
    pub n: u64,
    /// Number of keys unless told otherwise.
    pub keys: u64,
    /// Value size unless told otherwise.
    pub size: usize,
    /// Commands that fill the keyspace.
    pub prefill: &'static [&'static str],
    /// Weight (`W` and `V`: N and 100 - N percent), command, reply. A weight of `+` follows the line before it,
    /// `!` marks an insert.
    pub ops: &'static [(&'static str, &'static str, &'static str)],
}

/// Strings have a million keys, as a cache would; collections fewer, since each is larger.
const fn row(
    name: &'static str,
    n: u64,
    about: &'static str,
    prefill: &'static [&'static str],
    ops: &'static [(&'static str, &'static str, &'static str)],
) -> Builtin {
    Builtin {
        name,
        about,
        n,
        keys: 1_000_000,
        size: 32,
        prefill,
        ops,
    }
}

/// A row for collections: a tenth of the keys.
const fn collection(
    name: &'static str,
    n: u64,
    about: &'static str,
    prefill: &'static [&'static str],
    ops: &'static [(&'static str, &'static str, &'static str)],
) -> Builtin {
    Builtin {
        name,
        about,
        n,
        keys: 100_000,
        size: 32,
        prefill,
        ops,
    }
}

/// A row of YCSB: records of ten fields of 100 bytes.
const fn ycsb(
    name: &'static str,
    about: &'static str,
    prefill: &'static [&'static str],
    ops: &'static [(&'static str, &'static str, &'static str)],
) -> Builtin {
    Builtin {
        name,
        about,
        n: 0,
        keys: 100_000,
        size: 100,
        prefill,
        ops,
    }
}

const TEN_MORE: &str = "RPUSH lsh:{id} {value} {value} {value} {value} {value} {value} {value} {value} {value} {value}";
const STRINGS: &[&str] = &["SET {key} {value}"];
const RECORD: &str = "HSET usr:{id} field0 {value} field1 {value} field2 {value} field3 {value} field4 {value} \
                      field5 {value} field6 {value} field7 {value} field8 {value} field9 {value}";
const READ: &str = "HGETALL usr:{id}";
const UPDATE: &str = "HSET usr:{id} field{digits:1} {value}";

/// All of them.
pub const BUILTIN: &[Builtin] = &[
    row("ping", 0, "PING", &[], &[("1", "PING", "pong")]),
    row(
        "get",
        0,
        "GET of a key that exists",
        STRINGS,
        &[("1", "GET {key}", "value")],
    ),
    row(
        "set",
        0,
        "SET over a key that exists",
        STRINGS,
        &[("1", "SET {key} {value}", "ok")],
    ),
    row(
        "mixed",
        90,
        "N percent GET, the rest SET",
        STRINGS,
        &[
            ("W", "GET {key}", "value"),
            ("V", "SET {key} {value}", "ok"),
        ],
    ),
    row(
        "mget",
        10,
        "MGET of N keys",
        STRINGS,
        &[("1", "MGET {keys:N}", "values:N")],
    ),
    row(
        "mset",
        10,
        "MSET of N keys",
        STRINGS,
        &[("1", "MSET {pairs:N}", "ok")],
    ),
    row("incr", 0, "INCR", &[], &[("1", "INCR ctr:{id}", "int")]),
    row(
        "expire",
        60,
        "SET with a time to live of N seconds",
        STRINGS,
        &[("1", "SET {key} {value} EX N", "ok")],
    ),
    row(
        "append",
        0,
        "APPEND and STRLEN",
        &["SET app:{id} {value}"],
        &[
            ("1", "APPEND app:{id} {digits:4}", "int"),
            ("1", "STRLEN app:{id}", "int"),
        ],
    ),
    row(
        "del",
        0,
        "DEL and SET again",
        STRINGS,
        &[("1", "DEL {key}", "int"), ("+", "SET {key} {value}", "ok")],
    ),
    collection(
        "lpush",
        0,
        "LPUSH and LPOP, half and half",
        &["RPUSH lst:{id} {value} {value} {value} {value}"],
        &[
            ("1", "LPUSH lst:{id} {value}", "int"),
            ("1", "LPOP lst:{id}", "bulk?"),
        ],
    ),
    Builtin {
        name: "lrange",
        about: "LRANGE of ten elements of a list of twenty",
        n: 0,
        keys: 10_000,
        size: 32,
        prefill: &[
            "RPUSH lsr:{id} {value} {value} {value} {value} {value} {value} {value} {value} {value} {value} \
                    {value} {value} {value} {value} {value} {value} {value} {value} {value} {value}",
        ],
        ops: &[("1", "LRANGE lsr:{id} 0 9", "array:10")],
    },
    Builtin {
        name: "lrange100",
        about: "LRANGE of a list of a hundred",
        n: 0,
        keys: 1_000,
        size: 32,
        prefill: &[
            TEN_MORE, TEN_MORE, TEN_MORE, TEN_MORE, TEN_MORE, TEN_MORE, TEN_MORE, TEN_MORE,
            TEN_MORE, TEN_MORE,
        ],
        ops: &[("1", "LRANGE lsh:{id} 0 99", "array:100")],
    },
    row(
        "lindex",
        0,
        "LINDEX near the head of one list of all the values",
        &["RPUSH big:list {value}"],
        &[("1", "LINDEX big:list {rand:0:99}", "bulk")],
    ),
    collection(
        "hset",
        0,
        "HSET of one field of ten",
        &["HSET hsh:{id} f{digits:1} {value}"],
        &[("1", "HSET hsh:{id} f{digits:1} {value}", "int")],
    ),
    collection(
        "hget",
        0,
        "HGET",
        &["HSET hsh:{id} f {value}"],
        &[("1", "HGET hsh:{id} f", "value")],
    ),
    row(
        "hget-big",
        0,
        "HGET of one hash of all the values",
        &["HSET big:hash f{id} {value}"],
        &[("1", "HGET big:hash f{id}", "value")],
    ),
    collection(
        "sadd",
        0,
        "SADD, SREM and SISMEMBER of numbers up to 999",
        &["SADD set:{id} {rand:0:999}"],
        &[
            ("1", "SADD set:{id} {rand:0:999}", "int"),
            ("1", "SREM set:{id} {rand:0:999}", "int"),
            ("1", "SISMEMBER set:{id} {rand:0:999}", "int"),
        ],
    ),
    row(
        "sismember",
        0,
        "SISMEMBER of one set of all the keys",
        &["SADD big:set m{id}"],
        &[("1", "SISMEMBER big:set m{id}", "int")],
    ),
    Builtin {
        name: "sinter",
        about: "SINTER of two sets of twice as many members as keys, half of which they share",
        n: 0,
        keys: 5_000,
        size: 32,
        prefill: &["SADD sin:a s{id} a{id}", "SADD sin:b s{id} b{id}"],
        ops: &[("1", "SINTER sin:a sin:b", "array")],
    },
    collection(
        "zadd",
        0,
        "ZADD, half of them new members of 10,000",
        &["ZADD zst:{id} {rand:0:9999} m{digits:4}"],
        &[("1", "ZADD zst:{id} {rand:0:9999} m{digits:4}", "int")],
    ),
    collection(
        "zrange",
        0,
        "ZRANGE of the ten lowest members",
        &[
            "ZADD zsr:{id} 1 m1 2 m2 3 m3 4 m4 5 m5 6 m6 7 m7 8 m8 9 m9 10 m10 11 m11 12 m12 13 m13 14 m14 15 m15",
        ],
        &[("1", "ZRANGE zsr:{id} 0 9", "array:10")],
    ),
    row(
        "zrank",
        0,
        "ZRANK in one sorted set of all the keys",
        &["ZADD big:zset {num} m{id}"],
        &[("1", "ZRANK big:zset m{id}", "int")],
    ),
    row(
        "zrangebyscore",
        0,
        "ZRANGEBYSCORE of ten members of one sorted set of all the keys",
        &["ZADD big:zset {num} m{id}"],
        &[("1", "ZRANGEBYSCORE big:zset {num} +inf LIMIT 0 10", "array")],
    ),
    Builtin {
        name: "zunionstore",
        about: "ZUNIONSTORE of two sorted sets of twice as many members as keys, half of which they share",
        n: 0,
        keys: 5_000,
        size: 32,
        prefill: &[
            "ZADD zun:a {num} s{id} {num} a{id}",
            "ZADD zun:b {num} s{id} {num} b{id}",
        ],
        ops: &[("1", "ZUNIONSTORE zun:c 2 zun:a zun:b", "int")],
    },
    collection(
        "xadd",
        100,
        "XADD to streams of about N entries",
        &[],
        &[("1", "XADD stm:{id} MAXLEN ~ N * f {value}", "bulk")],
    ),
    collection(
        "xread",
        10,
        "XREAD of N entries",
        &["XADD stm:{id} * f {value}"],
        &[("1", "XREAD COUNT N STREAMS stm:{id} 0", "array")],
    ),
    collection(
        "xreadgroup",
        0,
        "XADD, and XREADGROUP of one entry",
        &["XGROUP CREATE stg:{id} g 0 MKSTREAM"],
        &[
            ("1", "XADD stg:{id} MAXLEN ~ 100 * f {value}", "bulk"),
            (
                "+",
                "XREADGROUP GROUP g c COUNT 1 STREAMS stg:{id} >",
                "array",
            ),
        ],
    ),
    row(
        "xrange",
        0,
        "XRANGE of the ten first entries of one stream of all the values",
        &["XADD big:stream * f {value}"],
        &[("1", "XRANGE big:stream - + COUNT 10", "array:10")],
    ),
    row(
        "eval",
        0,
        "EVAL of a script with one GET",
        STRINGS,
        &[(
            "1",
            "EVAL \"return redis.call('GET', KEYS[1])\" 1 {key}",
            "value",
        )],
    ),
    row(
        "setbit",
        0,
        "SETBIT and GETBIT",
        &[],
        &[
            ("1", "SETBIT bit:{id} {rand:0:255} 1", "int"),
            ("1", "GETBIT bit:{id} {rand:0:255}", "int"),
        ],
    ),
    row(
        "pfadd",
        0,
        "PFADD",
        &[],
        &[("1", "PFADD hll:{id} {digits:8}", "int")],
    ),
    collection(
        "geo",
        0,
        "GEOADD",
        &[],
        &[(
            "1",
            "GEOADD geo:{id} {rand:0:179} {rand:0:84} m{digits:3}",
            "int",
        )],
    ),
    collection(
        "geosearch",
        0,
        "GEOSEARCH of the ten nearest within 50 km, of about 64 where there are 100,000 keys",
        &["GEOADD geo:all {digits:2}.{digits:4} {digits:1}.{digits:4} m{id}"],
        &[(
            "1",
            "GEOSEARCH geo:all FROMLONLAT {digits:2}.{digits:4} {digits:1}.{digits:4} BYRADIUS 50 km ASC COUNT 10",
            "array",
        )],
    ),
    Builtin {
        name: "publish",
        about: "PUBLISH to N channels; the delivery to each subscriber is measured",
        n: 16,
        keys: 16,
        size: 32,
        prefill: &[],
        ops: &[("1", "PUBLISH chn:{id} {now}", "int")],
    },
    ycsb(
        "ycsb-a",
        "half reads, half updates",
        &[RECORD],
        &[("50", READ, "array:20"), ("50", UPDATE, "int")],
    ),
    ycsb(
        "ycsb-b",
        "95 % reads, 5 % updates",
        &[RECORD],
        &[("95", READ, "array:20"), ("5", UPDATE, "int")],
    ),
    ycsb("ycsb-c", "reads", &[RECORD], &[("1", READ, "array:20")]),
    ycsb(
        "ycsb-d",
        "95 % reads of the latest, 5 % inserts",
        &[RECORD],
        &[("95", READ, "array"), ("!5", RECORD, "int")],
    ),
    ycsb(
        "ycsb-e",
        "95 % short ranges of the index, 5 % inserts (the records of a range are not read)",
        &[RECORD, "ZADD usr:index {num} usr:{id}"],
        &[
            (
                "95",
                "ZRANGEBYSCORE usr:index {num} +inf LIMIT 0 {rand:1:100}",
                "array",
            ),
            ("!5", RECORD, "int"),
            ("+", "ZADD usr:index {num} usr:{id}", "int"),
        ],
    ),
    ycsb(
        "ycsb-f",
        "half reads, half read-modify-writes",
        &[RECORD],
        &[
            ("50", READ, "array:20"),
            ("50", READ, "array:20"),
            ("+", UPDATE, "int"),
        ],
    ),
];
