//! Keys and values: which key a request names, how names and values are written, and how a value is known again.
//!
//! The one idea: everything a request needs follows from one 64-bit seed. The generator remembers the seed of a
//! request in flight, and when the reply comes it derives the same keys, and from them the same values, so that
//! every reply can be checked without a copy of what was written. Callers: `workload.rs` composes with it,
//! `lane.rs` draws the seeds.

/// Mixes 64 bits (the finaliser of SplitMix64): neighbouring inputs give unrelated outputs.
#[inline]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64: small, fast, and good enough to pick keys with.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Rng(mix(seed ^ 0x1234_5678_9abc_def0))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// Maps 64 random bits to `0..n` without a division.
#[inline]
pub fn below(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}

/// 64 random bits as a number in `0.0..1.0`.
#[inline]
pub fn unit(random: u64) -> f64 {
    (random >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Which keys are asked for how often.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    /// Each key as often as any other.
    Uniform,
    /// Rank r about as often as 1/r^theta; ranks are scattered over the names.
    Zipfian(Zipf),
    /// As zipfian, with the highest key (the latest insert) the most frequent.
    Latest(Zipf),
    /// One key after the other, each thread in its own stretch.
    Sequential,
    /// A share of the keys receives a share of the requests.
    Hot {
        /// How many of the keys are hot.
        keys: u64,
        /// Probability that a request goes to a hot key.
        share: f64,
    },
}

/// Constants of the zipfian draw by Gray et al., «Quickly generating billion-record synthetic databases» (1994),
/// the method that YCSB uses: one `powf` a draw, a sum over all keys once.
#[derive(Debug, Clone, PartialEq)]
pub struct Zipf {
    theta: f64,
    alpha: f64,
    zeta_n: f64,
    eta: f64,
    half: f64,
}

impl Zipf {
    /// Prepares draws from `n` ranks; `theta` lies in `0.0..1.0`, YCSB's is 0.99.
    pub fn new(n: u64, theta: f64) -> Self {
        // Past 10 million terms the rest of the sum is an integral: exact to nine digits, and instant.
        let terms = n.min(10_000_000);
        let mut zeta_n: f64 = (1..=terms).map(|i| (i as f64).powf(-theta)).sum();
        if n > terms {
            zeta_n += ((n as f64 + 0.5).powf(1.0 - theta) - (terms as f64 + 0.5).powf(1.0 - theta))
                / (1.0 - theta);
        }
        let zeta_2 = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / n as f64).powf(1.0 - theta)) / (1.0 - zeta_2 / zeta_n);
        Zipf {
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta_n,
            eta,
            half: 0.5f64.powf(theta),
        }
    }

    #[inline]
    fn rank(&self, u: f64, n: u64) -> u64 {
        let uz = u * self.zeta_n;
        if uz < 1.0 || n < 2 {
            return 0;
        }
        if uz < 1.0 + self.half {
            return 1;
        }
        ((n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64).min(n - 1)
    }
}

impl Distribution {
    /// Reads `uniform`, `zipfian[:THETA]`, `latest`, `sequential` or `hot:KEYS:SHARE` (for instance `hot:1:0.5`).
    pub fn parse(text: &str, keys: u64) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let args: Vec<f64> = parts
            .map(|p| {
                p.parse::<f64>()
                    .map_err(|_| format!("key distribution '{text}': '{p}' is no number"))
            })
            .collect::<Result<_, _>>()?;
        let theta = args.first().copied().unwrap_or(0.99);
        if name.starts_with("zipf") && !(0.0..1.0).contains(&theta) {
            return Err(format!(
                "key distribution '{text}': theta lies between 0 and 1 (YCSB's is 0.99)"
            ));
        }
        match (name, args.len()) {
            ("uniform", 0) => Ok(Distribution::Uniform),
            ("zipfian" | "zipf", 0 | 1) => Ok(Distribution::Zipfian(Zipf::new(keys, theta))),
            ("latest", 0) => Ok(Distribution::Latest(Zipf::new(keys, 0.99))),
            ("sequential" | "seq", 0) => Ok(Distribution::Sequential),
            ("hot", 2) if args[0] >= 1.0 && (0.0..=1.0).contains(&args[1]) => {
                Ok(Distribution::Hot {
                    keys: (args[0] as u64).min(keys),
                    share: args[1],
                })
            }
            _ => Err(format!(
                "key distribution '{text}': use uniform, zipfian[:THETA], latest, sequential or hot:KEYS:SHARE"
            )),
        }
    }

    /// The `j`th key of the request with this seed, in `0..n`.
    #[inline]
    pub fn key(&self, seed: u64, j: u64, n: u64) -> u64 {
        if let Distribution::Sequential = self {
            return (seed + j) % n;
        }
        let random = mix(seed.wrapping_add(j.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        match self {
            Distribution::Uniform | Distribution::Sequential => below(random, n),
            // Scattered, because hot names that lie side by side would all fall to one shard's range.
            Distribution::Zipfian(z) => below(mix(z.rank(unit(random), n)), n),
            Distribution::Latest(z) => n - 1 - z.rank(unit(random), n),
            Distribution::Hot { keys, share } => {
                let u = mix(random);
                if unit(u) < *share {
                    below(random, *keys)
                } else {
                    below(random, n)
                }
            }
        }
    }
}

/// Width of the number in a key's name; with a four-byte prefix (`key:`) a name has 16 bytes.
pub const DIGITS: usize = 12;

/// Writes `n` as twelve decimal digits with leading zeros; digits above the twelfth are lost.
#[inline]
pub fn write_digits(out: &mut [u8; DIGITS], n: u64) {
    // Two halves in 32 bits: their chains of divisions run side by side.
    let halves = [(n / 1_000_000 % 1_000_000) as u32, (n % 1_000_000) as u32];
    for (six, mut half) in out.as_chunks_mut::<6>().0.iter_mut().zip(halves) {
        for pair in six.as_chunks_mut::<2>().0.iter_mut().rev() {
            let two = (half % 100) as u8;
            half /= 100;
            *pair = [b'0' + two / 10, b'0' + two % 10];
        }
    }
}

/// How long values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueSize {
    /// All of this many bytes.
    Fixed(usize),
    /// Drawn by key, each length from the first to the last equally often.
    Uniform(usize, usize),
    /// Drawn by key, small ones far more often: each power of two in the range equally often.
    LogUniform(usize, usize),
}

impl ValueSize {
    /// Reads `32`, `uniform:16:1024`, `16-1024` or `log:16:65536`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad =
            || format!("value size '{text}': use BYTES, MIN-MAX or log:MIN:MAX (up to 64 MB)");
        let number = |s: &str| {
            s.parse::<usize>()
                .ok()
                .filter(|&n| n <= 64 << 20)
                .ok_or_else(bad)
        };
        if let Some(rest) = text.strip_prefix("log:") {
            let (a, b) = rest.split_once(':').ok_or_else(bad)?;
            let (a, b) = (number(a)?, number(b)?);
            return if a >= 1 && a <= b {
                Ok(ValueSize::LogUniform(a, b))
            } else {
                Err(bad())
            };
        }
        let rest = text.strip_prefix("uniform:").unwrap_or(text);
        match rest.split_once(['-', ':']) {
            None => Ok(ValueSize::Fixed(number(rest)?)),
            Some((a, b)) => {
                let (a, b) = (number(a)?, number(b)?);
                if a <= b {
                    Ok(ValueSize::Uniform(a, b))
                } else {
                    Err(bad())
                }
            }
        }
    }

    /// The longest value there can be.
    pub fn max(&self) -> usize {
        match *self {
            ValueSize::Fixed(n) | ValueSize::Uniform(_, n) | ValueSize::LogUniform(_, n) => n,
        }
    }
}

/// The values of all keys: each follows from its key, so any reply can be checked.
#[derive(Debug, Clone)]
pub struct Values {
    /// How long they are.
    pub size: ValueSize,
    filler: Vec<u8>,
}

/// Bytes at the start of a value that depend on the key; the rest is the same for all.
const OWN: usize = 16;

impl Values {
    /// Values of the given sizes.
    pub fn new(size: ValueSize) -> Self {
        let mut rng = Rng::new(7);
        let filler = (0..size.max().saturating_sub(OWN))
            .map(|_| b'!' + below(rng.next(), 94) as u8)
            .collect::<Vec<u8>>();
        Values { size, filler }
    }

    /// Length of the value of `key`.
    #[inline]
    pub fn len_of(&self, key: u64) -> usize {
        match self.size {
            ValueSize::Fixed(n) => n,
            ValueSize::Uniform(a, b) => a + below(mix(key ^ 0x5bd1), (b - a + 1) as u64) as usize,
            ValueSize::LogUniform(a, b) => {
                let (la, lb) = ((a as f64).ln(), (b as f64).ln());
                (la + unit(mix(key ^ 0x5bd1)) * (lb - la)).exp().round() as usize
            }
        }
    }

    #[inline]
    fn own(key: u64) -> [u8; OWN] {
        // Sixteen letters, four bits each, without a loop over a table.
        let h = mix(key);
        let spread = |half: u32| -> u64 {
            let mut x = u64::from(half);
            x = (x | (x << 16)) & 0x0000_ffff_0000_ffff;
            x = (x | (x << 8)) & 0x00ff_00ff_00ff_00ff;
            x = (x | (x << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
            x + 0x6161_6161_6161_6161
        };
        let mut own = [0; OWN];
        own[..8].copy_from_slice(&spread(h as u32).to_le_bytes());
        own[8..].copy_from_slice(&spread((h >> 32) as u32).to_le_bytes());
        own
    }

    /// Appends the value of `key`.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, key: u64) {
        let len = self.len_of(key);
        out.extend_from_slice(&Self::own(key)[..len.min(OWN)]);
        if len > OWN {
            out.extend_from_slice(&self.filler[..len - OWN]);
        }
    }

    /// Whether `bytes` is the value of `key`.
    #[inline]
    pub fn is_value(&self, bytes: &[u8], key: u64) -> bool {
        let len = self.len_of(key);
        if bytes.len() != len {
            return false;
        }
        match bytes.split_first_chunk::<OWN>() {
            // The usual case, spelled out: sixteen bytes compare as one number.
            Some((own, rest)) => *own == Self::own(key) && *rest == self.filler[..len - OWN],
            None => *bytes == Self::own(key)[..len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str, n: u64, draws: u64) -> Vec<u64> {
        let d = Distribution::parse(text, n).unwrap();
        let mut rng = Rng::new(1);
        let mut seen = vec![0; n as usize];
        for _ in 0..draws {
            seen[d.key(rng.next(), 0, n) as usize] += 1;
        }
        seen
    }

    #[test]
    fn uniform_is_flat() {
        // 100 draws a key expected: six standard deviations are 60.
        assert!(
            counts("uniform", 1000, 100_000)
                .iter()
                .all(|&c| (40..160).contains(&c))
        );
    }

    #[test]
    fn zipfian_follows_its_law() {
        let n = 10_000;
        let draws = 1_000_000;
        let z = Zipf::new(n, 0.99);
        let mut rng = Rng::new(2);
        let mut seen = vec![0u64; n as usize];
        for _ in 0..draws {
            seen[z.rank(unit(rng.next()), n) as usize] += 1;
        }
        let share = |rank: u64| (rank as f64).powf(-0.99) / z.zeta_n;
        for rank in [1u64, 2] {
            let (got, want) = (seen[rank as usize - 1] as f64 / draws as f64, share(rank));
            assert!(
                (got / want - 1.0).abs() < 0.03,
                "rank {rank}: {got} for {want}"
            );
        }
        // Gray's inversion is approximate past rank two: compare whole stretches.
        for (from, to) in [(3u64, 10u64), (11, 100), (101, 1000), (1001, 10_000)] {
            let want: f64 = (from..=to).map(share).sum();
            let got =
                seen[from as usize - 1..to as usize].iter().sum::<u64>() as f64 / draws as f64;
            assert!(
                (got / want - 1.0).abs() < 0.12,
                "ranks {from}..={to}: {got} for {want}"
            );
        }
    }

    #[test]
    fn zipfian_names_are_scattered_and_latest_are_not() {
        let seen = counts("zipfian", 1000, 100_000);
        let hottest = seen.iter().enumerate().max_by_key(|(_, c)| **c).unwrap();
        assert!(*hottest.1 > 10_000);
        let seen = counts("latest", 1000, 100_000);
        assert!(seen[999] > seen[990] && seen[990] > seen[10]);
    }

    #[test]
    fn a_large_zipf_is_prepared_by_the_integral() {
        let exact: f64 = (1..=20_000_000u64).map(|i| (i as f64).powf(-0.99)).sum();
        assert!((Zipf::new(20_000_000, 0.99).zeta_n / exact - 1.0).abs() < 1e-9);
    }

    #[test]
    fn hot_keys_take_their_share() {
        let seen = counts("hot:1:0.5", 1000, 100_000);
        assert!((49_000..51_500).contains(&seen[0]), "{}", seen[0]);
    }

    #[test]
    fn sequential_walks_and_wraps() {
        let d = Distribution::parse("sequential", 10).unwrap();
        assert_eq!(
            (0..4).map(|j| d.key(8, j, 10)).collect::<Vec<_>>(),
            [8, 9, 0, 1]
        );
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["zipfian:1.5", "hot", "hot:0:0.5", "gauss", "uniform:3"] {
            assert!(Distribution::parse(text, 10).is_err(), "{text}");
        }
        for text in ["x", "5-2", "log:0:5", "999999999999"] {
            assert!(ValueSize::parse(text).is_err(), "{text}");
        }
        assert_eq!(ValueSize::parse("16-64"), Ok(ValueSize::Uniform(16, 64)));
    }

    #[test]
    fn values_are_known_again_and_only_theirs() {
        for text in ["0", "3", "16", "17", "300", "1-100", "log:1:5000"] {
            let values = Values::new(ValueSize::parse(text).unwrap());
            for key in 0..200 {
                let mut v = Vec::new();
                values.write(&mut v, key);
                assert!(values.is_value(&v, key));
                if v.len() >= 16 {
                    assert!(!values.is_value(&v, key + 1));
                    *v.last_mut().unwrap() ^= 1;
                    assert!(!values.is_value(&v, key));
                }
            }
        }
    }

    #[test]
    fn digits_are_written_with_zeros() {
        let mut out = [0; DIGITS];
        write_digits(&mut out, 9_876_543);
        assert_eq!(&out, b"000009876543");
    }
}
