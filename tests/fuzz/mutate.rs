//! Makes new inputs from existing ones, reproducibly by the seed.

use crate::corpus::Input;
use crate::random::Random;

/// Long inputs are slow and find nothing more, in bytes.
const LENGTH_MAX: usize = 4096;

/// Bytes with a meaning in several grammars, or in none.
const BYTES: &[u8] = b"\0\x01\n\r \t#${}()[]:?=!<>,-/.\"'09azAZ\x7f\x80\xff";

/// One of the inputs with up to eight changes.
pub fn mutant(random: &mut Random, seeds: &[Input], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = any(random, seeds).to_vec();
    for _ in 0..=random.below(8) {
        change(random, &mut bytes, seeds, words);
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Input], words: &[Vec<u8>]) {
    let (start, end) = part(random, bytes.len());
    let replacement = match random.below(8) {
        0 => Vec::new(),
        1 => vec![random.byte()],
        2 => vec![random.pick(BYTES)],
        3 | 4 => one(random, words).clone(),
        5 => bytes[start..end].repeat(2),
        6 => bytes[start..end].iter().rev().copied().collect(),
        _ => {
            let other = any(random, seeds);
            let (start, end) = part(random, other.len());
            other[start..end].to_vec()
        }
    };
    // Half of all insertions replace nothing.
    let end = if random.coin() { start } else { end };
    bytes.splice(start..end, replacement);
}

fn any<'a>(random: &mut Random, seeds: &'a [Input]) -> &'a [u8] {
    let bytes = &one(random, seeds).bytes;
    &bytes[..bytes.len().min(LENGTH_MAX)]
}

fn one<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[random.below(of.len() as u32) as usize]
}

/// A random range of a text of this length, often a short one.
fn part(random: &mut Random, length: usize) -> (usize, usize) {
    let start = random.below(length as u32 + 1);
    let longest = random.pick(&[1, 2, 8, 64, 512]);
    let end = start + random.below(longest + 1);
    (start as usize, length.min(end as usize))
}
