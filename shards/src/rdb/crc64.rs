//! The checksum of snapshots: CRC-64 in the variant of Jones, reflected, starting from zero.

use crc_fast::CrcAlgorithm::Crc64Redis;
use crc_fast::Digest;

/// The checksum `sum` carried on over `bytes`; 0 begins.
pub fn update(sum: u64, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(Crc64Redis, sum);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_redis_s_and_goes_on_where_it_stopped() {
        // The value that redis-server's own test expects.
        assert_eq!(update(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(update(update(0, b"1234"), b"56789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(update(update(7, b""), b""), 7);
    }

    #[test]
    fn pieces_of_all_lengths_give_what_the_whole_does() {
        // By the definition: the polynomial 0xad93d23594c935a9, its bits and those of the bytes in reverse.
        let naive = |sum: u64, bytes: &[u8]| {
            bytes.iter().fold(sum, |sum, byte| {
                (0..8)
                    .fold(sum ^ *byte as u64, |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0x95ac_9329_ac4b_c9b5 } else { 0 })
            })
        };
        let bytes: Vec<u8> = (0..3000u32).map(|n| (n * n % 251) as u8).collect();
        for (from, to) in (0..600).map(|n| (n * 7 % 97, n * 5)).filter(|(from, to)| from < to) {
            let sum = naive(0, &bytes[..from]);
            assert_eq!(update(sum, &bytes[from..to]), naive(sum, &bytes[from..to]), "{from}..{to}");
        }
    }
}
