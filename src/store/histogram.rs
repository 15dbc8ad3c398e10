//! Times, counted in buckets: percentiles of a million of them from a few hundred numbers.
//!
//! Owns the buckets (each less than 0.8 % wide, so that its middle is within 0.4 % of every time in it), their form in a
//! database, and adding one to another without unpacking. A common histogram's own form costs ten times as much to read,
//! and a year of hours is read at once.

use std::time::Duration;

/// Bits of a time that are kept below its first.
const KEPT: u32 = 7;
/// So many buckets for each doubling.
const STEP: u64 = 1 << KEPT;
/// A place for every time up to some twelve days.
const MOST: usize = (1 << KEPT) * 34;

/// How many times fell into each bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    counts: Vec<u64>,
}

impl Spread {
    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.count(bucket(micros), 1);
    }

    /// Adds all the times of a packed one; false when it is none, and nothing after the fault was added.
    pub fn add_packed(&mut self, mut packed: &[u8]) -> bool {
        let mut bucket = 0usize;
        while !packed.is_empty() {
            let (Some(step), Some(count)) = (number(&mut packed), number(&mut packed)) else { return false };
            bucket = bucket.saturating_add(usize::try_from(step).unwrap_or(usize::MAX));
            if bucket >= MOST {
                return false;
            }
            self.count(bucket, count);
        }
        true
    }

    /// The form for keeping: pairs of numbers, how far the next bucket is and what it counts.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), 0);
        for (bucket, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            put((bucket - last) as u64, &mut out);
            put(count, &mut out);
            last = bucket;
        }
        out
    }

    /// The time within which this share (0..1) of them fell; `None`: there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place among those counted"
        )]
        let mut place = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count >= place {
                return Some(Duration::from_micros(middle(bucket)));
            }
            place -= count;
        }
        None
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    fn count(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }
}

fn bucket(micros: u64) -> usize {
    if micros < STEP {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doublings = micros.ilog2() - KEPT;
    let within = (micros >> doublings) & (STEP - 1);
    usize::try_from(u64::from(doublings + 1) * STEP + within).unwrap_or(MOST).min(MOST - 1)
}

fn middle(bucket: usize) -> u64 {
    let (doublings, within) = (bucket as u64 / STEP, bucket as u64 % STEP);
    match doublings.checked_sub(1) {
        None => within,
        Some(doublings) => {
            let width = 1 << doublings;
            (STEP + within) * width + width / 2
        }
    }
}

/// Seven bits in each byte, the lowest first; the eighth says that more follow.
fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn number(packed: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = packed.split_first()?;
        *packed = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(times: &[u64]) -> Spread {
        let mut spread = Spread::default();
        for &micros in times {
            spread.add(Duration::from_micros(micros));
        }
        spread
    }

    #[test]
    fn few_times_are_told_as_they_were() {
        assert_eq!(Spread::default().quantile(0.5), None);
        let one = spread(&[100]);
        assert_eq!(one.quantile(0.99), Some(Duration::from_micros(100)));
        assert!(!Spread::default().add_packed(&[0x80]));
        assert!(!Spread::default().add_packed(&[0xff, 0xff, 0x7f, 1]));
    }

    proptest! {
        #[test]
        fn percentiles_are_within_one_percent(mut times in proptest::collection::vec(1u64..600_000_000, 1..300)) {
            let spread = spread(&times);
            times.sort_unstable();
            for share in [0.5, 0.95, 0.99] {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
                let exact = times[((times.len() as f64 * share).ceil() as usize).max(1) - 1] as f64;
                let told = spread.quantile(share).expect("some").as_secs_f64() * 1e6;
                prop_assert!((told - exact).abs() <= exact * 0.01 + 0.5, "{told} for {exact}");
            }
        }

        #[test]
        fn packed_ones_add_up(a in proptest::collection::vec(0u64..9_000_000, 0..50), b in proptest::collection::vec(0u64..9_000_000, 0..50)) {
            let mut sum = Spread::default();
            prop_assert!(sum.add_packed(&spread(&a).packed()) && sum.add_packed(&spread(&b).packed()));
            prop_assert_eq!(sum, spread(&[a, b].concat()));
        }
    }
}
