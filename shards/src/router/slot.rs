//! CRC16 slots, as in the Redis Cluster specification (CRC-16/XMODEM, polynomial 0x1021, of the key or its `{tag}`).
//!
//! Every key is asked for its slot where there is more than one shard, so this is on the hot path: with carry-less
//! multiplication, which every x86-64 processor of the last decade has, a 16-byte key costs 62 instructions, and with
//! tables, which serve the others, 122.

use memchr::memchr;

/// Eight bytes are folded at once by eight tables ("slicing by eight"): 16-byte keys cost two steps instead of 16.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[k - 1][byte];
            tables[k][byte] = (previous << 8) ^ tables[0][(previous >> 8) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// CRC-16/XMODEM of `bytes`.
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    crc16_and_brace(bytes).0
}

/// The CRC of a key, and whether there is a `{` in it, which is rare: both from one look at each eight bytes.
#[inline]
fn crc16_and_brace(key: &[u8]) -> (u16, bool) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the processor has just said that it can.
        return unsafe { clmul::crc16_and_brace(key) };
    }
    by_tables(key)
}

/// Bits where bytes of `word` are a `{`; none if none is.
#[inline(always)]
fn braces(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const BRACE: u64 = u64::from_ne_bytes([b'{'; 8]);
    // A byte of `x` is 0 where the key's is a brace; its high bit then remains.
    let x = word ^ BRACE;
    x.wrapping_sub(LOW) & !x & HIGH
}

/// The CRC as the remainder of a polynomial, by carry-less multiplication (Gopal and others, «Fast CRC Computation for
/// Generic Polynomials Using PCLMULQDQ», Intel 2009), cut down to what keys are: a few words.
#[cfg(target_arch = "x86_64")]
mod clmul {
    use std::arch::x86_64::*;

    /// x^16 + x^12 + x^5 + 1.
    const POLYNOMIAL: u128 = 0x1_1021;

    /// Quotient and remainder of `x^degree` by the polynomial; the quotient without its first term, if that is x^64.
    const fn divide(degree: u32) -> (u64, u64) {
        let (mut quotient, mut rest) = (0u128, 1u128 << degree);
        let mut at = degree;
        while at >= 16 {
            if rest >> at & 1 == 1 {
                quotient |= 1 << (at - 16);
                rest ^= POLYNOMIAL << (at - 16);
            }
            at -= 1;
        }
        (quotient as u64, rest as u64)
    }

    /// Moves what was read past eight more bytes.
    const PAST_WORD: i64 = divide(64).1 as i64;

    /// Of Barrett's reduction.
    const QUOTIENT: i64 = divide(80).0 as i64;

    /// What is congruent to `high` times x^64, in 64 bits.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn past_word(high: u64) -> u64 {
        let factor = _mm_cvtsi64_si128(PAST_WORD);
        let product = _mm_clmulepi64_si128::<0x00>(_mm_cvtsi64_si128(high as i64), factor);
        // At most 15 bits stand above the 64th.
        let folded = _mm_clmulepi64_si128::<0x01>(product, factor);
        _mm_cvtsi128_si64(_mm_xor_si128(product, folded)) as u64
    }

    /// What is congruent to a polynomial of 64 bits times x^16, in 16 bits (Barrett's reduction).
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn reduced(state: u64) -> u16 {
        let state = _mm_cvtsi64_si128(state as i64);
        let product = _mm_clmulepi64_si128::<0x00>(state, _mm_cvtsi64_si128(QUOTIENT));
        let quotient = _mm_xor_si128(_mm_unpackhi_epi64(product, product), state);
        let multiple = _mm_clmulepi64_si128::<0x00>(quotient, _mm_cvtsi64_si128(POLYNOMIAL as i64));
        _mm_cvtsi128_si64(multiple) as u16
    }

    /// See [`super::crc16_and_brace`]. Keys of eight to sixteen bytes, which most are, take no loop: two words that may
    /// overlap hold all of them.
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn crc16_and_brace(key: &[u8]) -> (u16, bool) {
        if let (Some(first), Some(last), ..=16) = (key.first_chunk(), key.last_chunk(), key.len()) {
            let (first, last) = (u64::from_be_bytes(*first), u64::from_be_bytes(*last));
            let both = _mm_set_epi64x(first as i64, last as i64);
            let found = _mm_movemask_epi8(_mm_cmpeq_epi8(both, _mm_set1_epi8(b'{' as i8)));
            let state = match key.len() {
                16 => past_word(first) ^ last,
                len => {
                    let bits = (len - 8) * 8;
                    let all = u128::from(first) << bits | u128::from(last & ((1 << bits) - 1));
                    past_word((all >> 64) as u64) ^ all as u64
                }
            };
            return (reduced(state), found != 0);
        }
        let (words, rest) = key.as_chunks::<8>();
        let (mut state, mut found) = (0u64, 0u64);
        for (i, word) in words.iter().enumerate() {
            let word = u64::from_be_bytes(*word);
            found |= super::braces(word);
            state = if i == 0 { word } else { past_word(state) ^ word };
        }
        if !rest.is_empty() {
            let word = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            found |= super::braces(word);
            let bits = rest.len() * 8;
            state = past_word(state >> (64 - bits)) ^ state << bits ^ word;
        }
        (reduced(state), found != 0)
    }
}

/// As [`crc16_and_brace`], on any processor.
fn by_tables(key: &[u8]) -> (u16, bool) {
    let (words, rest) = key.as_chunks::<8>();
    let (mut crc, mut found) = (0u16, 0u64);
    for word in words {
        let word = u64::from_le_bytes(*word);
        found |= braces(word);
        let c = (word ^ u64::from(crc.swap_bytes())).to_le_bytes();
        crc = TABLES[7][c[0] as usize]
            ^ TABLES[6][c[1] as usize]
            ^ TABLES[5][c[2] as usize]
            ^ TABLES[4][c[3] as usize]
            ^ TABLES[3][c[4] as usize]
            ^ TABLES[2][c[5] as usize]
            ^ TABLES[1][c[6] as usize]
            ^ TABLES[0][c[7] as usize];
    }
    for &byte in rest {
        found |= u64::from(byte == b'{');
        crc = (crc << 8) ^ TABLES[0][((crc >> 8) as u8 ^ byte) as usize];
    }
    (crc, found != 0)
}

/// The slot of `key`: of the part between the first `{` and the next `}` if that is not empty, else of the whole key.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    let (crc, brace) = crc16_and_brace(key);
    let crc = if brace { crc16(tag_of(key)) } else { crc };
    crc & (crate::limits::SLOTS - 1)
}

#[cold]
fn tag_of(key: &[u8]) -> &[u8] {
    let Some(open) = memchr(b'{', key) else { return key };
    match memchr(b'}', &key[open + 1..]) {
        Some(len) if len > 0 => &key[open + 1..open + 1 + len],
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bitwise(bytes: &[u8]) -> u16 {
        bytes.iter().fold(0u16, |crc, byte| {
            (0..8)
                .fold(crc ^ (*byte as u16) << 8, |crc, _| if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 })
        })
    }

    #[test]
    fn known_values() {
        // The check value of CRC-16/XMODEM, and slots that the cluster specification and its clients quote.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"bar"), 5061);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") & 16383);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
    }

    proptest! {
        #[test]
        fn a_brace_is_found_wherever_it_is(mut key in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>()) {
            prop_assert_eq!(crc16_and_brace(&key).1, key.contains(&b'{'));
            prop_assert_eq!(by_tables(&key).1, key.contains(&b'{'));
            if !key.is_empty() {
                let at = at.index(key.len());
                key[at] = b'{';
                prop_assert!(crc16_and_brace(&key).1 && by_tables(&key).1);
            }
        }

        #[test]
        fn both_ways_agree_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), bitwise(&bytes));
            prop_assert_eq!(by_tables(&bytes).0, bitwise(&bytes));
        }
    }
}
