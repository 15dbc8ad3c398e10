//! Jittered delays, so that many clients do not retry at the same time, and random index selection.

use std::time::Duration;

/// A delay between `min` and `max`; `random` is in 0..1.
#[must_use]
pub fn jittered(min: Duration, max: Duration, random: f64) -> Duration {
    min + max.saturating_sub(min).mul_f64(random.clamp(0.0, 1.0))
}

/// An index below `count`, which must not be 0; `random` is in 0..1.
#[must_use]
pub fn random_index(count: usize, random: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small index"
    )]
    let index = (random * count as f64) as usize;
    index.min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_cover_the_whole_range() {
        let (min, max) = (Duration::from_millis(300), Duration::from_secs(1));
        assert_eq!(jittered(min, max, 0.0), min);
        assert_eq!(jittered(min, max, 1.0), max);
        assert_eq!(jittered(min, max, 0.5), Duration::from_millis(650));
        assert_eq!([0.0, 0.5, 0.999, 1.0].map(|random| random_index(3, random)), [0, 1, 2, 2]);
    }
}
