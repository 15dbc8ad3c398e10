//! Waits between tries, spread by chance so that many clients do not come back at once.

use std::time::Duration;

/// A wait between `least` and `most`; `chance` is in 0..1.
#[must_use]
pub fn between(least: Duration, most: Duration, chance: f64) -> Duration {
    least + most.saturating_sub(least).mul_f64(chance.clamp(0.0, 1.0))
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
    }
}
