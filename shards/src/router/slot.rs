//! CRC16 slots, as in the Redis Cluster specification (CRC-16/XMODEM, polynomial 0x1021, of the key or its `{tag}`).

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
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const BRACE: u64 = u64::from_ne_bytes([b'{'; 8]);
    let (words, rest) = key.as_chunks::<8>();
    let (mut crc, mut found) = (0u16, 0u64);
    for word in words {
        let word = u64::from_le_bytes(*word);
        // A byte of `x` is 0 where the key's is a brace; its high bit then remains, and no bit if there is none.
        let x = word ^ BRACE;
        found |= x.wrapping_sub(LOW) & !x & HIGH;
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
            if !key.is_empty() {
                let at = at.index(key.len());
                key[at] = b'{';
                prop_assert!(crc16_and_brace(&key).1);
            }
        }

        #[test]
        fn tables_agree_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc16(&bytes), bitwise(&bytes));
        }
    }
}
