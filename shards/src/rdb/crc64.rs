//! The checksum of snapshots: CRC-64 in the variant of Jones, reflected, starting from zero.

use crc::{CRC_64_REDIS, Crc, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// The checksum `sum` carried on over `bytes`; 0 begins.
pub fn update(sum: u64, bytes: &[u8]) -> u64 {
    // The initial value is given as the register stands before it is reflected.
    let mut digest = CRC.digest_with_initial(sum.reverse_bits());
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
}
