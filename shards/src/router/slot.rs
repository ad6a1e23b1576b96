//! CRC16 slots, as in the Redis Cluster specification (CRC-16/XMODEM, polynomial 0x1021, of the key or its `{tag}`).
//!
//! Every key is asked for its slot where there is more than one shard, so this is on the hot path: with carry-less
//! multiplication, which every x86-64 processor of the last decade has, a 16-byte key costs 48 instructions, or 35 in a
//! loop over the keys of a command ([`super::place_keys`]); with tables, which serve the others, 122.

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

/// The CRC of a key, and not 0 if there is a `{` in it, which is rare: both from one look at each eight bytes.
#[inline]
fn crc16_and_brace(key: &[u8]) -> (u16, u64) {
    #[cfg(target_arch = "x86_64")]
    if has_clmul() {
        // SAFETY: the processor has just said that it can.
        return unsafe { clmul::crc16_and_brace(key) };
    }
    by_tables(key)
}

/// Whether the functions of [`clmul`] may be called.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn has_clmul() -> bool {
    std::arch::is_x86_feature_detected!("pclmulqdq")
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
pub(super) mod clmul {
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

    /// Moves a key's last eight bytes, and those before them, to where [`reduced`] wants them; and once more by one bit.
    const PAST_CRC: (i64, i64) = ((divide(80).1 << 1) as i64, (divide(16).1 << 1) as i64);

    /// Of Barrett's reduction.
    const QUOTIENT: i64 = divide(79).0 as i64;

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

    /// What is congruent to `high` times x^64 and `low`, both times x^16, in 16 bits (Barrett's reduction).
    ///
    /// All is kept one bit further up than it belongs, so that the quotient stands in the upper half of its product. The bit
    /// that this brings into the dividend from below is too low to reach it.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn reduced(high: __m128i, low: __m128i) -> u16 {
        let factors = _mm_set_epi64x(PAST_CRC.1, PAST_CRC.0);
        let high = _mm_clmulepi64_si128::<0x00>(high, factors);
        let sum = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x10>(low, factors));
        let divisors = _mm_set_epi64x((POLYNOMIAL << 1) as i64, QUOTIENT);
        let quotient = _mm_clmulepi64_si128::<0x00>(_mm_srli_si128::<2>(sum), divisors);
        let multiple = _mm_clmulepi64_si128::<0x11>(quotient, divisors);
        (_mm_cvtsi128_si32(_mm_xor_si128(sum, multiple)) >> 1) as u16
    }

    /// See [`super::crc16_and_brace`].
    #[target_feature(enable = "pclmulqdq")]
    pub(super) fn crc16_and_brace(key: &[u8]) -> (u16, u64) {
        of_two_words(key).unwrap_or_else(|| by_words(key))
    }

    /// The same for keys of eight to sixteen bytes, which most are: two words hold all of them.
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    fn of_two_words(key: &[u8]) -> Option<(u16, u64)> {
        let (first, rest) = key.split_first_chunk()?;
        // Of the first eight bytes those that are not among the last; no shift may be by a word's length.
        let twice = 4 * 8usize.checked_sub(rest.len())?;
        let high = _mm_cvtsi64_si128((u64::from_be_bytes(*first) >> twice >> twice) as i64);
        let low = _mm_cvtsi64_si128(i64::from_be_bytes(*key[rest.len()..].first_chunk()?));
        let both = _mm_unpacklo_epi64(high, low);
        let found = _mm_movemask_epi8(_mm_cmpeq_epi8(both, _mm_set1_epi8(b'{' as i8)));
        Some((reduced(high, low), found as u64))
    }

    #[inline(never)]
    #[target_feature(enable = "pclmulqdq")]
    fn by_words(key: &[u8]) -> (u16, u64) {
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
        (reduced(_mm_setzero_si128(), _mm_cvtsi64_si128(state as i64)), found)
    }

    /// See [`super::slot_of`].
    #[inline]
    #[target_feature(enable = "pclmulqdq")]
    pub(in super::super) fn slot_of(key: &[u8]) -> u16 {
        match of_two_words(key) {
            Some((crc, 0)) => super::slot(crc),
            _ => slot_of_other(key),
        }
    }

    // A call from the end of a function, which then has nothing to keep.
    #[inline(never)]
    #[target_feature(enable = "pclmulqdq")]
    fn slot_of_other(key: &[u8]) -> u16 {
        super::slot_from(key, crc16_and_brace(key))
    }
}

/// As [`crc16_and_brace`], on any processor.
fn by_tables(key: &[u8]) -> (u16, u64) {
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
    (crc, found)
}

/// The slot of `key`: of the part between the first `{` and the next `}` if that is not empty, else of the whole key.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if has_clmul() {
        // SAFETY: the processor has just said that it can.
        return unsafe { clmul::slot_of(key) };
    }
    slot_from(key, by_tables(key))
}

/// The slot of `key`, of which this is known.
fn slot_from(key: &[u8], (crc, braces): (u16, u64)) -> u16 {
    slot(if braces != 0 { crc16(tag_of(key)) } else { crc })
}

#[inline(always)]
fn slot(crc: u16) -> u16 {
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
            prop_assert_eq!(crc16_and_brace(&key).1 != 0, key.contains(&b'{'));
            prop_assert_eq!(by_tables(&key).1 != 0, key.contains(&b'{'));
            if !key.is_empty() {
                let at = at.index(key.len());
                key[at] = b'{';
                prop_assert!(crc16_and_brace(&key).1 != 0 && by_tables(&key).1 != 0);
            }
        }

        #[test]
        fn both_ways_agree_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), bitwise(&bytes));
            prop_assert_eq!(by_tables(&bytes).0, bitwise(&bytes));
        }
    }
}
