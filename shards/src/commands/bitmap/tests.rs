//! The commands of bitmaps on one shard and on four, in both protocols, and their kernels against bits one by one.

use proptest::prelude::*;

use super::*;
use crate::testing::Check;

const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[test]
fn single_bits() {
    let mut t = Check::new();
    t.check("SETBIT k 7 1", "0").check("GET k", r#""\x01""#).check("SETBIT k 7 1", "1").check("SETBIT k 0 1", "0");
    t.check("GET k", r#""\x81""#).check("GETBIT k 0", "1").check("GETBIT k 1", "0").check("GETBIT k 100", "0");
    t.check("GETBIT none 1", "0").check("SET n 1", "OK").check("SETBIT n 6 1", "0").check("GET n", r#""3""#);
    t.check("SETBIT new 20 0", "0").check("STRLEN new", "3");
    for offset in ["-1", "x", "4294967296", "#1"] {
        t.check(&format!("SETBIT k {offset} 1"), "-ERR bit offset is not an integer or out of range");
        t.check(&format!("GETBIT k {offset}"), "-ERR bit offset is not an integer or out of range");
    }
    t.check("SETBIT k 1 2", "-ERR bit is not an integer or out of range").check("SADD s 1", "1");
    t.check("SETBIT s 1 1", WRONG).check("GETBIT s 1", WRONG).check("BITCOUNT s", WRONG).check("BITPOS s 1", WRONG);
    t.check("BITOP OR d k s", WRONG).check("BITFIELD s GET u1 0", WRONG).check("BITFIELD s SET u1 0 1", WRONG);
}

#[test]
fn bits_are_counted_in_ranges() {
    let mut t = Check::new();
    t.check("SET k foobar", "OK").check("BITCOUNT k", "26").check("BITCOUNT k 0 0", "4").check("BITCOUNT k 1 1", "6");
    t.check("BITCOUNT k 0 -5", "10").check("BITCOUNT k 5 30 BIT", "17").check("BITCOUNT k 5 5 bit", "1");
    t.check("BITCOUNT k -1 -2", "0").check("BITCOUNT k 9 10", "0").check("BITCOUNT k 0 -1 BYTE", "26");
    t.check("BITCOUNT none", "0").check("BITCOUNT none 0 1", "0").check("BITCOUNT k 0", "-ERR syntax error");
    t.check("BITCOUNT k 0 1 FOO", "-ERR syntax error")
        .check("BITCOUNT k 0 x", "-ERR value is not an integer or out of range");
}

#[test]
fn bits_are_found_in_ranges() {
    let mut t = Check::new();
    t.check(r#"SET k "\xff\xf0\x00""#, "OK")
        .check("BITPOS k 0", "12")
        .check("BITPOS k 1", "0")
        .check("BITPOS k 1 2", "-1");
    t.check("BITPOS k 0 0 0", "-1").check("BITPOS k 0 8 11 BIT", "-1").check("BITPOS k 0 8 12 BIT", "12");
    t.check("BITPOS k 1 9 9 BIT", "9")
        .check("BITPOS k 0 -1", "16")
        .check("BITPOS k 1 5", "-1")
        .check("BITPOS none 0", "0");
    t.check("BITPOS none 1", "-1")
        .check(r#"SET f "\xff\xff""#, "OK")
        .check("BITPOS f 0", "16")
        .check("BITPOS f 0 1", "16");
    t.check("BITPOS f 0 0 -1", "-1")
        .check("BITPOS f 0 2", "-1")
        .check("BITPOS k 2", "-ERR The bit argument must be 1 or 0.");
    t.check("BITPOS k 1 0 1 FOO", "-ERR syntax error")
        .check("BITPOS k x", "-ERR value is not an integer or out of range");
}

#[test]
fn strings_combine_across_shards() {
    let mut t = Check::new();
    t.check(r#"SET a "\xff\x0f\x01""#, "OK").check(r#"SET b "\x0f""#, "OK");
    t.check("BITOP AND d a b", "3").check("GET d", r#""\x0f\x00\x00""#);
    t.check("BITOP OR d a b", "3").check("GET d", r#""\xff\x0f\x01""#);
    t.check("BITOP XOR d a b", "3").check("GET d", r#""\xf0\x0f\x01""#).check("BITOP NOT d a", "3");
    t.check("GET d", r#""\x00\xf0\xfe""#).check("BITOP AND d b none", "1").check("GET d", r#""\x00""#);
    t.check("EXPIRE d 100", "1").check("BITOP OR d b", "1").check("TTL d", "-1");
    t.check("BITOP XOR d none other", "0")
        .check("EXISTS d", "0")
        .check("BITOP NOT a a", "3")
        .check("GET a", r#""\x00\xf0\xfe""#);
    t.check("BITOP NOT d a b", "-ERR BITOP NOT must be called with a single source key.");
    t.check("BITOP NAND d a b", "-ERR syntax error");
}

#[test]
fn fields_of_any_width() {
    let mut t = Check::new();
    t.check("BITFIELD k SET u8 0 255 GET i8 0 GET u4 #1 INCRBY u8 0 1", "[0 -1 15 0]");
    t.check("BITFIELD k OVERFLOW SAT INCRBY i8 8 200 INCRBY i8 8 -400 OVERFLOW FAIL INCRBY i8 8 -1", "[127 -128 nil]");
    t.check("BITFIELD k SET i64 3 -9223372036854775808 GET i64 3", "[288230376151711744 -9223372036854775808]");
    t.check("BITFIELD k SET u63 0 -1 GET u63 0", "[576460752303423488 9223372036854775807]");
    t.check("BITFIELD_RO k GET u8 0 GET u8 1000", "[255 0]").check("BITFIELD none GET u8 0", "[0]");
    t.check("BITFIELD k", "[]").check("EXISTS none", "0");
    t.check("BITFIELD_RO k SET u8 0 1", "-ERR BITFIELD_RO only supports the GET subcommand");
    for width in ["u64", "i65", "u0", "x8", "i", "u-1"] {
        t.look(&format!("BITFIELD k GET {width} 0"), |v| assert!(v.text().starts_with("ERR Invalid bitfield type.")));
    }
    t.check("BITFIELD k GET u8 -1", "-ERR bit offset is not an integer or out of range");
    t.check("BITFIELD k GET u8", "-ERR syntax error")
        .check("BITFIELD k OVERFLOW X", "-ERR Invalid OVERFLOW type specified");
    t.check("BITFIELD k SET u8 0 x", "-ERR value is not an integer or out of range");
}

fn bit(bytes: &[u8], at: usize) -> bool {
    bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

proptest! {
    #[test]
    fn kernels_as_bit_by_bit(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 3 => Just(255), 2 => any::<u8>()], 0..80),
        other in prop::collection::vec(any::<u8>(), 0..80),
        (offset, bits, value) in (0..600usize, 1..65u32, any::<u64>()),
        (start, end, in_bits) in (-700i64..700, -700i64..700, any::<bool>()),
    ) {
        let total = bytes.len() * 8;
        prop_assert_eq!(count_ones(&bytes), (0..total).filter(|i| bit(&bytes, *i)).count() as u64);
        for wanted in [false, true] {
            prop_assert_eq!(find_bit(&bytes, wanted), (0..total).find(|i| bit(&bytes, *i) == wanted));
        }
        if let Some((from, to)) = bit_range(start, end, bytes.len(), in_bits) {
            prop_assert!(from < to && to <= total);
            for at in from / 8..to.div_ceil(8) {
                let wanted = (at * 8..at * 8 + 8).map(|i| if (from..to).contains(&i) { bit(&bytes, i) } else { true });
                let wanted = wanted.fold(0u8, |byte, bit| byte << 1 | u8::from(bit));
                prop_assert_eq!(masked(&bytes, at, from, to, 0xff), wanted);
            }
        }
        let raw = (0..bits as usize).fold(0u64, |raw, i| raw << 1 | u64::from(bit(&bytes, offset + i)));
        prop_assert_eq!(read_bits(&bytes, offset as u64, bits), raw);
        let mut grown = bytes.clone();
        grown.resize(bytes.len().max((offset + bits as usize).div_ceil(8)), 0);
        let before = grown.clone();
        write_bits(&mut grown, offset as u64, bits, value);
        for i in 0..grown.len() * 8 {
            let wanted = match i.checked_sub(offset) {
                Some(place) if place < bits as usize => value >> (bits as usize - 1 - place) & 1 == 1,
                _ => bit(&before, i),
            };
            prop_assert_eq!(bit(&grown, i), wanted);
        }
        for op in [Op::And, Op::Or, Op::Xor] {
            let mut result = bytes.clone();
            result.resize(bytes.len().max(other.len()), 0);
            combine(op, &mut result, &other);
            for i in 0..result.len() * 8 {
                let (a, b) = (bit(&bytes, i), bit(&other, i));
                prop_assert_eq!(bit(&result, i), match op { Op::And => a & b, Op::Or => a | b, _ => a ^ b });
            }
        }
    }
}
