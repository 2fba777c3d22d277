//! A secret that nobody can guess: from the processor's generators, or said to be weak.

use core::arch::asm;
use sha2::{Digest, Sha256};

use super::cpu::{Features, in8, time_stamp};

/// 32 bytes, and what they are from.
#[derive(Debug)]
pub struct Seed {
    /// The secret.
    pub bytes: [u8; 32],
    /// Where it is from.
    pub origin: Origin,
}

/// What a secret is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// RDSEED.
    Seed,
    /// RDRAND.
    Random,
    /// How long reading a port takes, time and again. Who runs the machine may be able to guess it, and others who know it well.
    Jitter,
}

/// Words taken of a generator: 512 bits, twice what is wanted.
const WORDS: usize = 8;
/// How often a generator that has nothing at the moment is asked again (Intel SDM volume 1, 7.3.17).
const TRIES: usize = 10;
/// Readings of the jitter.
const READINGS: usize = 256;

/// Makes a secret; `salt` is mixed in, whatever it is worth.
pub fn seed(features: Features, salt: &[u8]) -> Seed {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(time_stamp().to_le_bytes());
    let generators =
        [(features.rdseed, rdseed as fn() -> Option<u64>, Origin::Seed), (features.rdrand, rdrand, Origin::Random)];
    let mut origin = Origin::Jitter;
    for (is_there, generator, name) in generators {
        if is_there && origin == Origin::Jitter && take(&mut hash, generator) {
            origin = name;
        }
    }
    if origin == Origin::Jitter {
        for _ in 0..READINGS {
            const SYSTEM_CONTROL: u16 = 0x61;
            // SAFETY: reading the port has no effect.
            let state = unsafe { in8(SYSTEM_CONTROL) };
            hash.update([state]);
            hash.update(time_stamp().to_le_bytes());
        }
    }
    Seed { bytes: hash.finalize().into(), origin }
}

/// True if the generator gave all words, and they are not all the same, as those of a broken one are.
fn take(hash: &mut Sha256, generator: fn() -> Option<u64>) -> bool {
    let mut words = [0; WORDS];
    for word in &mut words {
        let Some(random) = (0..TRIES).find_map(|_| generator()) else { return false };
        *word = random;
    }
    words.iter().for_each(|word| hash.update(word.to_le_bytes()));
    words.iter().any(|word| *word != words[0])
}

fn rdrand() -> Option<u64> {
    let (word, is_good): (u64, u8);
    // SAFETY: called only where the processor has the instruction; it touches no memory.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) word, out(reg_byte) is_good, options(nomem, nostack)) };
    (is_good != 0).then_some(word)
}

fn rdseed() -> Option<u64> {
    let (word, is_good): (u64, u8);
    // SAFETY: as for `rdrand`.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) word, out(reg_byte) is_good, options(nomem, nostack)) };
    (is_good != 0).then_some(word)
}
