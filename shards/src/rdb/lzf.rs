//! LZF, the compression of long strings in snapshots: copies of what came before, found through a small table.
//!
//! The format is a sequence of runs. A first byte below 32 is followed by that many bytes and one more, as they are.
//! Any other is a copy: three bits of length, five bits of distance, one more byte of length when the three are all
//! set, and eight more bits of distance. Copies are 3 to 264 bytes long and reach back 8192. Written here rather than
//! taken from a crate: the ones there are wrap the C library. Counterpart: `lzf_c.c` and `lzf_d.c`.

/// A table of places for texts of up to so many bytes; each fits the stack but for the last. Clearing the table must not
/// cost more than going through the text does, as 64 KiB did for the 32 bytes of a short value.
const SHORT_MAX: usize = 1 << 9;
const SHORT_BITS: u32 = 8;
/// As [`SHORT_MAX`]; a node of a list fits.
const MIDDLE_MAX: usize = 1 << 13;
const MIDDLE_BITS: u32 = 11;
/// 2^14 places of four bytes stay in the first two caches.
const TABLE_BITS: u32 = 14;
/// Longest run of bytes as they are.
const RUN_MAX: usize = 32;
/// Farthest that a copy reaches back.
const REACH: usize = 1 << 13;
/// Longest copy.
const COPY_MAX: usize = 264;
/// After 2^5 places without a copy the search looks at every second one, after as many more at every third,
const PATIENCE_BITS: usize = 5;
/// and then at every fourth.
const STRIDE_MAX: usize = 4;
/// Most bytes that one compressed byte can stand for.
const EXPANSION_MAX: usize = COPY_MAX / 3 + 1;

/// A place in a text.
trait Place: Copy {
    fn new(at: usize) -> Self;
    fn at(self) -> usize;
}

impl Place for u16 {
    fn new(at: usize) -> Self {
        at as u16
    }
    fn at(self) -> usize {
        self as usize
    }
}

impl Place for u32 {
    fn new(at: usize) -> Self {
        at as u32
    }
    fn at(self) -> usize {
        self as usize
    }
}

/// Compresses `input` to the end of `out` if that takes at most `limit` bytes; otherwise `out` is as it was.
pub fn compress(input: &[u8], out: &mut Vec<u8>, limit: usize) -> bool {
    if input.len() <= SHORT_MAX {
        return compress_by::<u16, SHORT_BITS>(input, out, limit, &mut [0; 1 << SHORT_BITS]);
    }
    if input.len() <= MIDDLE_MAX {
        return compress_by::<u16, MIDDLE_BITS>(input, out, limit, &mut [0; 1 << MIDDLE_BITS]);
    }
    compress_by::<u32, TABLE_BITS>(input, out, limit, &mut vec![0; 1 << TABLE_BITS])
}

/// `places` says for a hash of three bytes where they were seen last, 2^`BITS` places. What was not seen is said to be
/// at the start, where a look finds that it is not, or that it is: so no place has to say nowhere, and the search has
/// one branch for each byte, which is hardly ever taken in a text that does not compress; and through such a text it
/// takes longer steps, for it is unlikely to become one that does.
fn compress_by<P: Place, const BITS: u32>(input: &[u8], out: &mut Vec<u8>, limit: usize, places: &mut [P]) -> bool {
    let places: &mut [P] = &mut places[..1 << BITS];
    let start = out.len();
    let (mut at, mut run, mut misses) = (1, 0, 0);
    while at + 4 <= input.len() {
        let three = three_at(input, at);
        let slot = (three.wrapping_mul(0x9E37_79B1) >> (32 - BITS)) as usize;
        let from = std::mem::replace(&mut places[slot], P::new(at)).at();
        let too_far = BITS == TABLE_BITS && at - from > REACH;
        if three_at(input, from) != three || too_far {
            misses += 1;
            at += (1 + (misses >> PATIENCE_BITS)).min(STRIDE_MAX);
            continue;
        }
        misses = 0;
        let longest = COPY_MAX.min(input.len() - at);
        let len = 3 + common(&input[from + 3..], &input[at + 3..at + longest]);
        push_run(out, &input[run..at]);
        let (distance, code) = (at - from - 1, len - 2);
        if code < 7 {
            out.push((code << 5 | distance >> 8) as u8);
        } else {
            out.push((7 << 5 | distance >> 8) as u8);
            out.push((code - 7) as u8);
        }
        out.push(distance as u8);
        at += len;
        run = at;
        if out.len() - start > limit {
            break;
        }
    }
    let rest = &input[run.min(input.len())..];
    // It need not be copied to see that it is too much.
    let fits = out.len() - start + rest.len() + rest.len().div_ceil(RUN_MAX) <= limit;
    match fits {
        true => push_run(out, rest),
        false => out.truncate(start),
    }
    fits
}

/// Three bytes of a text, read as four, of which the last is dropped: one instruction, where three are several. So the
/// search is blind for the last three bytes of a text.
#[inline(always)]
fn three_at(input: &[u8], at: usize) -> u32 {
    let four: [u8; 4] = input[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(four) << 8
}

/// With how many bytes of `text` the longer `earlier` begins.
fn common(earlier: &[u8], text: &[u8]) -> usize {
    let words = text.chunks_exact(8).zip(earlier.chunks_exact(8));
    let mut len = 0;
    for (a, b) in words {
        let differ =
            u64::from_le_bytes(a.try_into().expect("8 bytes")) ^ u64::from_le_bytes(b.try_into().expect("8 bytes"));
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len + text[len..].iter().zip(&earlier[len..]).take_while(|(a, b)| a == b).count()
}

fn push_run(out: &mut Vec<u8>, run: &[u8]) {
    for part in run.chunks(RUN_MAX) {
        out.push(part.len() as u8 - 1);
        out.extend_from_slice(part);
    }
}

/// What `input` stands for, if it is sound and that is exactly `len` bytes.
pub fn decompress(input: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > input.len().checked_mul(EXPANSION_MAX)? {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut at = 0;
    while at < input.len() {
        let head = usize::from(input[at]);
        at += 1;
        if head < RUN_MAX {
            let run = input.get(at..at + head + 1)?;
            if out.len() + run.len() > len {
                return None;
            }
            out.extend_from_slice(run);
            at += run.len();
            continue;
        }
        let mut count = head >> 5;
        if count == 7 {
            count += usize::from(*input.get(at)?);
            at += 1;
        }
        let distance = (head & 31) << 8 | usize::from(*input.get(at)?);
        at += 1;
        let from = out.len().checked_sub(distance + 1)?;
        let count = count + 2;
        if out.len() + count > len {
            return None;
        }
        if distance + 1 >= count {
            out.extend_from_within(from..from + count);
        } else {
            // The copy reads what it writes.
            (from..from + count).for_each(|i| out.push(out[i]));
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(input: &[u8]) -> usize {
        let mut packed = b"before".to_vec();
        assert!(compress(input, &mut packed, input.len() * 2 + 16));
        assert_eq!(decompress(&packed[6..], input.len()).as_deref(), Some(input));
        packed.len() - 6
    }

    #[test]
    fn texts_shrink_and_come_back() {
        assert!(round_trip(&[b'x'; 10_000]) < 150);
        assert!(round_trip(&b"the quick brown fox ".repeat(50)) < 100);
        round_trip(b"");
        round_trip(b"ab");
        let far: Vec<u8> = (0..40_000u32).flat_map(|n| (n % 9000).to_le_bytes()).collect();
        round_trip(&far);
        let mut out = b"kept".to_vec();
        assert!(!compress(b"no two bytes alike: 0123456789", &mut out, 20));
        assert_eq!(out, b"kept");
    }

    #[test]
    fn what_redis_compressed_comes_back() {
        // SET k aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa of redis-server 7.0.15, from DUMP.
        assert_eq!(decompress(&[1, b'a', b'a', 0xe0, 29, 0, 1, b'a', b'a'], 42), Some(vec![b'a'; 42]));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(input in prop::collection::vec(0u8..6, 0..3000)) {
            round_trip(&input);
        }

        #[test]
        fn hostile_bytes_are_refused_or_of_the_length_asked_for(
            input in prop::collection::vec(any::<u8>(), 0..300),
            len in 0usize..5000,
        ) {
            if let Some(out) = decompress(&input, len) {
                prop_assert_eq!(out.len(), len);
            }
        }
    }
}
