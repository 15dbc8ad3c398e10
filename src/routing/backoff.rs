//! Chance: waits between tries, spread so that many clients do not come back at once, and places drawn among several.

use std::time::Duration;

/// A wait between `least` and `most`; `chance` is in 0..1.
#[must_use]
pub fn between(least: Duration, most: Duration, chance: f64) -> Duration {
    least + most.saturating_sub(least).mul_f64(chance.clamp(0.0, 1.0))
}

/// A place among `count`, of which there is at least one; `chance` is in 0..1.
#[must_use]
pub fn drawn(count: usize, chance: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among few"
    )]
    let drawn = (chance * count as f64) as usize;
    drawn.min(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_spreads_over_the_whole_range() {
        let (least, most) = (Duration::from_millis(300), Duration::from_secs(1));
        assert_eq!(between(least, most, 0.0), least);
        assert_eq!(between(least, most, 1.0), most);
        assert_eq!(between(least, most, 0.5), Duration::from_millis(650));
        assert_eq!([0.0, 0.5, 0.999, 1.0].map(|chance| drawn(3, chance)), [0, 1, 2, 2]);
    }
}
