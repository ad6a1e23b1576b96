//! The keyed hash of every `Dict`: `ahash` under one seed per process.
//!
//! All shards share the seed, so a hash computed by the shard that parsed a request stays valid
//! on the shard that owns the key. Redis's counterpart is `dictSetHashFunctionSeed` with SipHash.

use std::hash::{BuildHasher, Hasher as _};

/// Hashes keys under a secret seed; cheap to clone and the same on every shard.
#[derive(Clone)]
pub struct Hasher {
    state: ahash::RandomState,
}

impl Hasher {
    /// Makes the hasher of a process. The caller draws `seed` from real entropy once, at start;
    /// a guessable seed lets a client pile its keys into one chain.
    pub fn new(seed: [u64; 2]) -> Self {
        // The two other words are fixed: they only have to differ from each other.
        let state = ahash::RandomState::with_seeds(seed[0], seed[1], 0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f);
        Self { state }
    }

    /// The 64-bit hash of a key. Its high bits choose the bucket.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The seed is a secret and stays out of logs.
        f.write_str("Hasher")
    }
}
