//! Commands of sorted sets and of geo sets, for the comparison with `redis-server`.
//!
//! Scores are sums of a few powers of two: 7.0 writes all 17 digits of others, this server (like 7.2) the fewest that
//! read back. What is random is left out, and so is what 7.0 does not know (`ZRANK` with `WITHSCORE`).

/// Scores, good and bad.
pub const SCORES: &[&str] = &[
    "0", "1", "2", "3", "-1", "2.5", "-0.25", "1e3", "10", "100000", "inf", "-inf", "+inf", "nan", "x", "", "-0", "0.5",
];

/// Ends of ranges of scores.
pub const BOUNDS: &[&str] = &["(1", "(2", "(-inf", "(inf", "(2.5", "1", "3", "(", "((1", "(x"];

/// Members: few, so that they meet again; texts that are integers lie otherwise in a listpack.
pub const MEMBERS: &[&str] = &["a", "b", "c", "d", "aa", "ab", "1", "2", "10", "-5", "", "zz", "007"];

/// Ends of ranges of texts.
pub const LEX: &[&str] = &["-", "+", "[a", "(a", "[b", "(c", "[aa", "[", "(", "[10", "a", ""];

/// Longitudes and latitudes of some towns, and none.
pub const PLACES: &[&str] = &[
    "13.361389 38.115556",
    "15.087269 37.502669",
    "2.349014 48.864716",
    "-73.935242 40.73061",
    "0 0",
    "181 10",
    "1 x",
];

/// A line each, as in [`super::TEMPLATES`].
pub const TEMPLATES: &[&str] = &[
    "ZADD {k} {score} {m} {score} {m} {score} {m}",
    "ZADD {k} 1 a 2 b 3 c 4 d 5 aa",
    "ZADD {k} 0 a 0 b 0 c 0 aa 0 10",
    "ZADD {k} {score} {m}",
    "ZADD {k} {zadd} {score} {m} {score} {m}",
    "ZADD {k} {zadd} {zadd} {score} {m}",
    "ZADD {k} INCR {score} {m}",
    "ZINCRBY {k} {score} {m}",
    "ZREM {k} {m} {m} {m}",
    "ZCARD {k}",
    "ZSCORE {k} {m}",
    "ZMSCORE {k} {m} {m}",
    "ZRANK {k} {m}",
    "ZREVRANK {k} {m}",
    "ZCOUNT {k} {score} {score}",
    "ZCOUNT {k} {bound} {bound}",
    "ZLEXCOUNT {k} {lex} {lex}",
    "ZRANGE {k} {n} {n}",
    "ZRANGE {k} 0 -1 WITHSCORES",
    "ZRANGE {k} {score} {score} BYSCORE {zrange}",
    "ZRANGE {k} {lex} {lex} BYLEX {zrange}",
    "ZRANGE {k} {n} {n} {zrange} {zrange}",
    "ZREVRANGE {k} {n} {n} WITHSCORES",
    "ZRANGEBYSCORE {k} {bound} {score} LIMIT {n} {n}",
    "ZRANGEBYSCORE {k} -inf inf WITHSCORES",
    "ZREVRANGEBYSCORE {k} {score} {bound} WITHSCORES LIMIT {n} {n}",
    "ZREVRANGEBYSCORE {k} inf -inf {zrange}",
    "ZRANGEBYLEX {k} {lex} {lex} LIMIT {n} {n}",
    "ZRANGEBYLEX {k} {lex} {lex}",
    "ZREVRANGEBYLEX {k} {lex} {lex}",
    "ZRANGESTORE {k} {k} {n} {n} {zrange}",
    "ZRANGESTORE {k} {k} {score} {score} BYSCORE {zrange}",
    "ZREMRANGEBYRANK {k} {n} {n}",
    "ZREMRANGEBYSCORE {k} {score} {bound}",
    "ZREMRANGEBYLEX {k} {lex} {lex}",
    "ZPOPMIN {k}",
    "ZPOPMAX {k} {n}",
    "ZMPOP 2 {k} {k} MIN COUNT {n}",
    "ZMPOP {n} {k} {k} MAX",
    "BZPOPMIN {k} {k} 0.001",
    "BZMPOP 0.001 2 {k} {k} MAX COUNT {n}",
    "ZUNION 2 {k} {k} WITHSCORES",
    "ZUNION 2 {k} {k} WEIGHTS {score} {score} AGGREGATE {aggregate} WITHSCORES",
    "ZINTER 2 {k} {k} WEIGHTS 2 0.5 AGGREGATE {aggregate} WITHSCORES",
    "ZINTER {n} {k} {k}",
    "ZDIFF 2 {k} {k} WITHSCORES",
    "ZUNIONSTORE {k} 2 {k} {k} AGGREGATE {aggregate}",
    "ZINTERSTORE {k} 2 {k} {k} WEIGHTS {score} 2",
    "ZDIFFSTORE {k} 2 {k} {k}",
    "ZINTERCARD 2 {k} {k} LIMIT {n}",
    "SADD {k} 1 2 10",
    "GEOADD {k} {place} {m} {place} {m}",
    "GEOADD {k} CH {place} {m}",
    "GEODIST {k} {m} {m} {unit}",
    "GEOHASH {k} {m} {m}",
    "GEOPOS {k} {m} {m}",
    "GEOSEARCH {k} FROMMEMBER {m} BYRADIUS {i} {unit} ASC WITHDIST",
    "GEOSEARCH {k} FROMLONLAT {place} BYBOX 2000 1500 km ASC WITHHASH WITHCOORD",
    "GEOSEARCH {k} FROMLONLAT {place} BYRADIUS 3000 {unit} DESC COUNT {n}",
    "GEOSEARCHSTORE {k} {k} FROMLONLAT {place} BYRADIUS 500 km",
    "GEORADIUS {k} {place} 2000 km ASC",
    "GEORADIUS {k} {place} 2000 km STORE {k}",
    "GEORADIUSBYMEMBER {k} {m} 5000 km WITHDIST ASC COUNT {n}",
];
