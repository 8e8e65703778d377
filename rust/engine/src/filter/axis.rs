//! Which rules a value belongs to, for any number of rules: one bisection gives them as a set of bits.
//!
//! The values (addresses of one family, or ports) fall into the intervals between the bounds of all rules' ranges; within
//! one of them every value belongs to the same rules. A packet is then judged by one set for each thing about it, and a
//! rule that is in all of them accepts it (the "bit vectors" of Lakshman and Stiliadis, SIGCOMM 1998).

use foldhash::fast::RandomState;
use std::collections::HashMap;

use super::headers::Number;

/// A set of rules, a bit each; sets that are compared have the same length.
pub type Set = [u64];

/// Whether some rule is in all of the sets.
#[inline]
pub fn meet<const N: usize>(sets: [&Set; N]) -> bool {
    let words = sets.iter().map(|set| set.len()).min().unwrap_or(0);
    (0..words).any(|word| sets.iter().fold(u64::MAX, |all, set| all & set[word]) != 0)
}

/// Put a rule into a set, or take it out.
pub fn flip(set: &mut Set, rule: usize) {
    set[rule >> 6] ^= 1 << (rule & 63);
}

/// Sets kept once each, back to back.
#[derive(Default)]
struct Pool {
    bits: Vec<u64>,
    known: HashMap<Box<Set>, u32, RandomState>,
}

impl Pool {
    fn keep(&mut self, set: &Set) -> u32 {
        if let Some(&number) = self.known.get(set) {
            return number;
        }
        let number = self.known.len() as u32;
        self.bits.extend_from_slice(set);
        self.known.insert(set.into(), number);
        number
    }
}

/// One thing about packets by which rules tell them apart.
#[derive(Default)]
pub struct Axis {
    words: usize,
    /// Where each interval begins; the first begins at 0.
    starts: Vec<Number>,
    /// The set of each interval, as its place in `bits` by sets.
    sets: Vec<u32>,
    bits: Vec<u64>,
}

impl Axis {
    /// From the ranges of each rule, `(rule, first, last)`; ranges of one rule do not overlap. `rules` is their number.
    pub fn new(rules: usize, ranges: impl Iterator<Item = (usize, Number, Number)>) -> Axis {
        let words = rules.div_ceil(64);
        let mut bounds: Vec<(Number, usize)> = Vec::new();
        for (rule, first, last) in ranges {
            bounds.push((first, rule));
            if let Some(after) = last.checked_add(1) {
                bounds.push((after, rule));
            }
        }
        bounds.sort_unstable();
        let mut pool = Pool::default();
        let mut now = vec![0u64; words];
        let (mut starts, mut sets) = (Vec::new(), Vec::new());
        if bounds.first().is_none_or(|&(at, _)| at > 0) {
            starts.push(0);
            sets.push(pool.keep(&now));
        }
        let mut left = bounds.as_slice();
        while let Some(&(at, _)) = left.first() {
            let here = left.iter().take_while(|bound| bound.0 == at).count();
            for &(_, rule) in &left[..here] {
                flip(&mut now, rule);
            }
            left = &left[here..];
            let set = pool.keep(&now);
            if sets.last() != Some(&set) {
                starts.push(at);
                sets.push(set);
            }
        }
        Axis { words, starts, sets, bits: pool.bits }
    }

    /// The rules that a value belongs to.
    #[inline]
    pub fn rules(&self, value: Number) -> &Set {
        let Some(interval) = self.starts.partition_point(|&start| start <= value).checked_sub(1) else {
            return &[];
        };
        let at = self.sets[interval] as usize * self.words;
        &self.bits[at..at + self.words]
    }
}
