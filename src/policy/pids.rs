//! What is kept by pid.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Pid;

/// Something for each of some processes. A pid is looked up several times with every event, which
/// hashing for keys that strangers choose would make half of the work: the kernel chooses these.
pub type ByPid<T> = HashMap<Pid, T, BuildHasherDefault<PidHasher>>;

/// Spreads numbers by multiplication (Knuth, The Art of Computer Programming, volume 3, 6.4).
#[derive(Debug, Default)]
pub struct PidHasher(u64);

impl PidHasher {
    /// 2^64 divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
}

impl Hasher for PidHasher {
    fn write_i32(&mut self, pid: i32) {
        let product = u64::from(pid as u32).wrapping_mul(Self::FACTOR);
        // The table goes by the lowest bits, and the upper ones are mixed best.
        self.0 = product.rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::FACTOR);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn hash(pid: Pid) -> u64 {
        let mut hasher = PidHasher::default();
        hasher.write_i32(pid);
        hasher.finish()
    }

    #[test]
    fn neighbours_and_those_far_apart_find_places_of_their_own() {
        for step in [1, 2, 7, 64, 1000, 1024, 4096] {
            let places = (0..1000).map(|n| hash(n * step) % 1024);
            let places: HashSet<_> = places.collect();
            // At random it were 1024 (1 - 1/e), which is 638.
            assert!(places.len() > 580, "{} for steps of {step}", places.len());
        }
    }
}
