//! HyperLogLog: how many different elements were added, to about 0.81%, in at most 12 KB; in Redis's bytes.
//!
//! The idea: an element's hash chooses one of 16384 registers by its low 14 bits, and the register keeps the longest
//! run of zeros (plus one) seen in the rest. Many different elements make long runs likely, so the registers' histogram
//! tells how many there were (Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches",
//! arXiv:1702.01284). The value is a plain string, so `GET`, `DUMP` and files carry it unchanged:
//!
//! ```text
//! +--------+----------+--------+---------------------------+-----------+
//! | "HYLL" | encoding | unused | last estimate, 8 bytes LE | registers |
//! | 4      | 1        | 3      | top bit set: out of date  |           |
//! +--------+----------+--------+---------------------------+-----------+
//!
//! dense (0): 6 bits a register, from the low bits of each byte up
//! sparse (1): runs of registers
//!   00llllll            l+1 registers of 0
//!   01llllll llllllll   l+1 registers of 0
//!   1vvvvvll            l+1 registers of v+1
//! ```
//!
//! Sparse becomes dense when a register passes 32 or the bytes pass `hll-sparse-max-bytes`. Whoever may have written
//! the string, nothing here trusts its runs: [`Corrupt`] says that they do not add up. The commands are in
//! `commands/hyperloglog.rs`. Counterpart: `hyperloglog.c`.

/// Registers of an estimate.
pub const REGISTERS: usize = 1 << P;
/// Bytes before the registers.
pub const HEADER: usize = 16;
/// Bytes of a dense one.
pub const DENSE_BYTES: usize = HEADER + REGISTERS * 6 / 8;

const P: u32 = 14;
/// Bits of the hash that a run of zeros is looked for in.
const Q: usize = 64 - P as usize;
const MAGIC: &[u8] = b"HYLL";
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const SEED: u64 = 0xadc8_3b19;
/// The largest register that a run can have.
const RUN_VALUE_MAX: u8 = 32;
/// The longest run of equal registers that are not 0.
const RUN_MAX: usize = 4;
/// The longest run of zeros in one byte.
const ZEROS_MAX: usize = 64;
/// 0.5/ln(2).
const ALPHA_INF: f64 = 0.721_347_520_444_481_7;

/// The runs of registers do not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// An estimate of nothing: sparse, one run of zeros.
pub fn empty() -> Vec<u8> {
    let mut hll = vec![0; HEADER + 2];
    hll[..4].copy_from_slice(MAGIC);
    hll[4] = SPARSE;
    hll[HEADER..].copy_from_slice(&[0x7f, 0xff]);
    hll
}

/// Whether a string is an estimate, as far as its head and its length tell.
pub fn is_hll(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER
        && bytes.starts_with(MAGIC)
        && (bytes[4] == SPARSE || bytes[4] == DENSE && bytes.len() == DENSE_BYTES)
}

/// Whether it is dense.
#[inline]
pub fn is_dense(hll: &[u8]) -> bool {
    hll[4] == DENSE
}

/// The last estimate, unless registers have changed since.
pub fn cached(hll: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(hll[8..HEADER].try_into().expect("eight bytes"));
    (number >> 63 == 0).then_some(number)
}

/// Notes an estimate.
pub fn set_cached(hll: &mut [u8], number: u64) {
    hll[8..HEADER].copy_from_slice(&number.to_le_bytes());
}

/// Notes that the last estimate is out of date.
pub fn invalidate(hll: &mut [u8]) {
    hll[HEADER - 1] |= 0x80;
}

/// MurmurHash2 in its 64-bit form.
fn murmur(text: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut h = SEED ^ (text.len() as u64).wrapping_mul(M);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 47;
        h = (h ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        h = (h ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    h ^= h >> 47;
    h = h.wrapping_mul(M);
    h ^ h >> 47
}

/// The register of an element, and the length of its run.
#[inline]
pub fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let rest = hash >> P | 1 << Q;
    (hash as usize & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

/// The register at `index` of a dense one's.
#[inline]
fn dense_get(registers: &[u8], index: usize) -> u8 {
    let (byte, shift) = (index * 6 / 8, index * 6 % 8);
    let next = registers.get(byte + 1).copied().unwrap_or(0);
    ((u16::from(registers[byte]) | u16::from(next) << 8) >> shift) as u8 & 63
}

#[inline]
fn dense_put(registers: &mut [u8], index: usize, value: u8) {
    let (byte, shift) = (index * 6 / 8, index * 6 % 8);
    let (mask, bits) = (63u16 << shift, u16::from(value) << shift);
    registers[byte] = registers[byte] & !mask as u8 | bits as u8;
    if shift > 2 {
        registers[byte + 1] = registers[byte + 1] & !(mask >> 8) as u8 | (bits >> 8) as u8;
    }
}

/// Raises a register of a dense estimate to `value`; false if it was as high.
#[inline]
pub fn raise_dense(hll: &mut [u8], index: usize, value: u8) -> bool {
    let registers = &mut hll[HEADER..];
    let higher = value > dense_get(registers, index);
    if higher {
        dense_put(registers, index, value);
    }
    higher
}

/// Whether [`raise_dense`] would change something.
#[inline]
pub fn would_raise_dense(hll: &[u8], index: usize, value: u8) -> bool {
    value > dense_get(&hll[HEADER..], index)
}

/// A run of equal registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The registers' value.
    pub value: u8,
    /// How many.
    pub len: usize,
    /// Bytes that the run takes.
    pub bytes: usize,
}

/// The run at `at`; its bytes must be there.
fn run_at(hll: &[u8], at: usize) -> Option<Run> {
    let first = *hll.get(at)?;
    Some(match first >> 6 {
        0 => Run { value: 0, len: usize::from(first & 63) + 1, bytes: 1 },
        1 => {
            let len = usize::from(first & 63) << 8 | usize::from(*hll.get(at + 1)?);
            Run { value: 0, len: len + 1, bytes: 2 }
        }
        _ => Run { value: (first >> 2 & 31) + 1, len: usize::from(first & 3) + 1, bytes: 1 },
    })
}

fn value_run(value: u8, len: usize) -> u8 {
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

fn push_zeros(out: &mut Vec<u8>, len: usize) {
    match len {
        0 => {}
        1..=ZEROS_MAX => out.push(len as u8 - 1),
        _ => out.extend_from_slice(&(0x4000 | (len - 1) as u16).to_be_bytes()),
    }
}

/// The runs of a sparse estimate, as far as they make sense.
pub fn runs(hll: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = HEADER;
    std::iter::from_fn(move || {
        let run = run_at(hll, at)?;
        at += run.bytes;
        Some(run)
    })
}

/// Calls back with the first register and the run, of all that are not 0.
fn for_each_run(hll: &[u8], mut f: impl FnMut(usize, Run)) -> Result<(), Corrupt> {
    let (mut index, mut bytes) = (0, HEADER);
    for run in runs(hll) {
        if index + run.len > REGISTERS {
            return Err(Corrupt);
        }
        if run.value > 0 {
            f(index, run);
        }
        index += run.len;
        bytes += run.bytes;
    }
    if index == REGISTERS && bytes == hll.len() { Ok(()) } else { Err(Corrupt) }
}

/// Makes a sparse estimate dense.
///
/// # Errors
/// [`Corrupt`]; nothing is changed then.
pub fn make_dense(hll: &mut Vec<u8>) -> Result<(), Corrupt> {
    let mut dense = vec![0; DENSE_BYTES];
    dense[..HEADER].copy_from_slice(&hll[..HEADER]);
    dense[4] = DENSE;
    let registers = &mut dense[HEADER..];
    for_each_run(hll, |first, run| (first..first + run.len).for_each(|i| dense_put(registers, i, run.value)))?;
    *hll = dense;
    Ok(())
}

/// Raises a register of an estimate to `value`; false if it was as high. A sparse one may become dense.
///
/// # Errors
/// [`Corrupt`] when the runs end before the register.
pub fn raise(hll: &mut Vec<u8>, index: usize, value: u8, max_bytes: usize) -> Result<bool, Corrupt> {
    if is_dense(hll) {
        return Ok(raise_dense(hll, index, value));
    }
    if value > RUN_VALUE_MAX {
        make_dense(hll)?;
        return Ok(raise_dense(hll, index, value));
    }
    let (mut at, mut first, mut before) = (HEADER, 0, None);
    let run = loop {
        let run = run_at(hll, at).ok_or(Corrupt)?;
        if index < first + run.len {
            break run;
        }
        before = Some(at);
        at += run.bytes;
        first += run.len;
    };
    if run.value >= value {
        return Ok(false);
    }
    // The run is split about the register: what is before, itself, what is behind.
    let (left, right) = (index - first, first + run.len - 1 - index);
    let mut parts = Vec::with_capacity(5);
    let side = |parts: &mut Vec<u8>, len: usize| match run.value {
        0 => push_zeros(parts, len),
        value if len > 0 => parts.push(value_run(value, len)),
        _ => {}
    };
    side(&mut parts, left);
    parts.push(value_run(value, 1));
    side(&mut parts, right);
    if parts.len() > run.bytes && hll.len() + parts.len() - run.bytes > max_bytes {
        make_dense(hll)?;
        return Ok(raise_dense(hll, index, value));
    }
    hll.splice(at..at + run.bytes, parts);
    join(hll, before.unwrap_or(HEADER));
    Ok(true)
}

/// Joins neighbouring runs of the same value, looking at five from `at` on: a change makes no others joinable.
fn join(hll: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        let Some(run) = run_at(hll, at) else { return };
        if run.value > 0 {
            if let Some(next) = run_at(hll, at + 1).filter(|next| next.value == run.value) {
                if run.len + next.len <= RUN_MAX {
                    hll[at + 1] = value_run(run.value, run.len + next.len);
                    hll.remove(at);
                    continue;
                }
            }
        }
        at += run.bytes;
    }
}

/// Raises each of `max` to the register of an estimate.
///
/// # Errors
/// [`Corrupt`].
pub fn merge_into(max: &mut [u8; REGISTERS], hll: &[u8]) -> Result<(), Corrupt> {
    if !is_dense(hll) {
        return for_each_run(hll, |first, run| {
            max[first..first + run.len].iter_mut().for_each(|register| *register = (*register).max(run.value));
        });
    }
    let (threes, _) = hll[HEADER..].as_chunks::<3>();
    for (four, three) in max.as_chunks_mut::<4>().0.iter_mut().zip(threes) {
        for (register, value) in four.iter_mut().zip(unpack(*three)) {
            *register = (*register).max(value);
        }
    }
    Ok(())
}

/// Three bytes are four registers.
#[inline]
fn unpack(three: [u8; 3]) -> [u8; 4] {
    let word = u32::from_le_bytes([three[0], three[1], three[2], 0]);
    [0, 6, 12, 18].map(|shift| (word >> shift) as u8 & 63)
}

/// The registers of an estimate, one a byte.
///
/// # Errors
/// [`Corrupt`].
pub fn registers(hll: &[u8]) -> Result<Box<[u8; REGISTERS]>, Corrupt> {
    let mut all = Box::new([0; REGISTERS]);
    merge_into(&mut all, hll)?;
    Ok(all)
}

/// The estimate of how many different elements were added.
///
/// # Errors
/// [`Corrupt`].
pub fn count(hll: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0u32; 64];
    if is_dense(hll) {
        for three in hll[HEADER..].as_chunks::<3>().0 {
            unpack(*three).into_iter().for_each(|value| histogram[usize::from(value)] += 1);
        }
    } else {
        let mut others = 0;
        for_each_run(hll, |_, run| {
            histogram[usize::from(run.value)] += run.len as u32;
            others += run.len;
        })?;
        histogram[0] = (REGISTERS - others) as u32;
    }
    Ok(estimate(&histogram))
}

/// [`count`] of registers that lie one a byte.
pub fn count_registers(registers: &[u8; REGISTERS]) -> u64 {
    let mut histogram = [0u32; 64];
    registers.iter().for_each(|value| histogram[usize::from(value & 63)] += 1);
    estimate(&histogram)
}

fn estimate(histogram: &[u32; 64]) -> u64 {
    let m = REGISTERS as f64;
    let mut z = m * tau((m - f64::from(histogram[Q + 1])) / m);
    for count in histogram[1..=Q].iter().rev() {
        z = (z + f64::from(*count)) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA_INF * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn estimates_are_near() {
        let (mut sparse, mut dense) = (empty(), empty());
        make_dense(&mut dense).unwrap();
        assert_eq!((count(&sparse), count(&dense)), (Ok(0), Ok(0)));
        let mut next = 1;
        for n in 1..=100_000u32 {
            let (index, value) = place(&n.to_le_bytes());
            assert_eq!(raise(&mut sparse, index, value, 3000), Ok(raise_dense(&mut dense, index, value)));
            if n == next {
                assert_eq!(is_dense(&sparse), n > 1000, "{n}");
                assert_eq!(count(&sparse), count(&dense));
                let off = count(&dense).unwrap().abs_diff(u64::from(n));
                assert!(off <= (f64::from(n) * 0.05).ceil() as u64, "{n} differs by {off}");
                next *= 10;
            }
        }
    }

    proptest! {
        #[test]
        fn sparse_as_registers(raises in prop::collection::vec((0..REGISTERS, 1..34u8), 1..200), near in any::<bool>()) {
            let (mut hll, mut oracle) = (empty(), [0u8; REGISTERS]);
            for (index, value) in raises {
                let index = if near { index % 20 } else { index };
                prop_assert_eq!(raise(&mut hll, index, value, 300), Ok(value > oracle[index]));
                oracle[index] = oracle[index].max(value);
                prop_assert!(is_hll(&hll) && (is_dense(&hll) || hll.len() <= 300));
            }
            prop_assert_eq!(&registers(&hll).unwrap()[..], &oracle[..]);
            prop_assert_eq!(count(&hll), Ok(count_registers(&oracle)));
        }

        #[test]
        fn hostile_bytes(tail in prop::collection::vec(any::<u8>(), 0..40), (index, value) in (0..REGISTERS, 1..50u8)) {
            let mut hll = empty();
            hll.truncate(HEADER);
            hll.extend(tail);
            let sound = count(&hll).is_ok();
            prop_assert_eq!(registers(&hll).is_ok(), sound);
            prop_assert!(!sound || raise(&mut hll.clone(), index, value, 3000).is_ok());
            prop_assert_eq!(make_dense(&mut hll.clone()).is_ok(), sound);
            let _ = raise(&mut hll, index, value, 3000);
        }
    }
}
