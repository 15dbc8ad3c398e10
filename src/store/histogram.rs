//! A log-linear histogram of durations: percentiles of a million values from a few hundred counts.
//!
//! Each bucket is less than 0.8 % wide, so its midpoint is within 0.4 % of every value in it. Encoded histograms are
//! merged without decoding them first: a year of hourly ones is read in one query, and reading the format of a common
//! histogram crate takes ten times as long.

use std::time::Duration;

/// Bits of a value kept below its highest bit.
const SUB_BUCKET_BITS: u32 = 7;
/// Buckets for each power of two.
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;
/// The number of buckets; covers durations up to about twelve days.
const MAX_BUCKETS: usize = (1 << SUB_BUCKET_BITS) * 34;

/// Counts of durations by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.increment(bucket_index(micros), 1);
    }

    /// Adds an encoded histogram. Returns false if it is invalid; the buckets before the error have been added.
    pub fn merge_encoded(&mut self, mut encoded: &[u8]) -> bool {
        let mut bucket = 0usize;
        while !encoded.is_empty() {
            let (Some(step), Some(count)) = (read_varint(&mut encoded), read_varint(&mut encoded)) else {
                return false;
            };
            bucket = bucket.saturating_add(usize::try_from(step).unwrap_or(usize::MAX));
            if bucket >= MAX_BUCKETS {
                return false;
            }
            self.increment(bucket, count);
        }
        true
    }

    /// The form stored in the database: for each used bucket, the distance from the previous one and its count.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (mut out, mut last) = (Vec::new(), 0);
        for (bucket, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            write_varint((bucket - last) as u64, &mut out);
            write_varint(count, &mut out);
            last = bucket;
        }
        out
    }

    /// The duration at quantile `q` (0..1); `None` if the histogram is empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank between 1 and the total count"
        )]
        let mut rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        for (bucket, &count) in self.counts.iter().enumerate() {
            if count >= rank {
                return Some(Duration::from_micros(bucket_midpoint(bucket)));
            }
            rank -= count;
        }
        None
    }

    /// The number of durations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether the histogram is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    fn increment(&mut self, bucket: usize, count: u64) {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }
}

fn bucket_index(micros: u64) -> usize {
    if micros < SUB_BUCKETS {
        return usize::try_from(micros).unwrap_or(0);
    }
    let doublings = micros.ilog2() - SUB_BUCKET_BITS;
    let within = (micros >> doublings) & (SUB_BUCKETS - 1);
    usize::try_from(u64::from(doublings + 1) * SUB_BUCKETS + within).unwrap_or(MAX_BUCKETS).min(MAX_BUCKETS - 1)
}

fn bucket_midpoint(bucket: usize) -> u64 {
    let (doublings, within) = (bucket as u64 / SUB_BUCKETS, bucket as u64 % SUB_BUCKETS);
    match doublings.checked_sub(1) {
        None => within,
        Some(doublings) => {
            let width = 1 << doublings;
            (SUB_BUCKETS + within) * width + width / 2
        }
    }
}

/// LEB128: seven bits in each byte, the lowest first; the eighth bit is set if more bytes follow.
fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn read_varint(encoded: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = encoded.split_first()?;
        *encoded = rest;
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

    fn histogram(times: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for &micros in times {
            histogram.add(Duration::from_micros(micros));
        }
        histogram
    }

    #[test]
    fn small_values_are_exact_and_invalid_encodings_are_rejected() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let single = histogram(&[100]);
        assert_eq!(single.quantile(0.99), Some(Duration::from_micros(100)));
        assert!(!Histogram::default().merge_encoded(&[0x80]));
        assert!(!Histogram::default().merge_encoded(&[0xff, 0xff, 0x7f, 1]));
    }

    proptest! {
        #[test]
        fn percentiles_are_within_one_percent(mut times in proptest::collection::vec(1u64..600_000_000, 1..300)) {
            let histogram = histogram(&times);
            times.sort_unstable();
            for q in [0.5, 0.95, 0.99] {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 300 values")]
                let exact = times[((times.len() as f64 * q).ceil() as usize).max(1) - 1] as f64;
                let estimate = histogram.quantile(q).expect("not empty").as_secs_f64() * 1e6;
                prop_assert!((estimate - exact).abs() <= exact * 0.01 + 0.5, "{estimate} for {exact}");
            }
        }

        #[test]
        fn merging_adds_all_values(a in proptest::collection::vec(0u64..9_000_000, 0..50), b in proptest::collection::vec(0u64..9_000_000, 0..50)) {
            let mut sum = Histogram::default();
            prop_assert!(sum.merge_encoded(&histogram(&a).encode()) && sum.merge_encoded(&histogram(&b).encode()));
            prop_assert_eq!(sum, histogram(&[a, b].concat()));
        }
    }
}
