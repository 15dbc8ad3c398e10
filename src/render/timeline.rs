//! Records the tokens of one answer over time, in a limited number of points.

use std::time::Duration;

/// Maximum number of points, twice what a chart can show. When it is reached, every second point is dropped.
const MAX_POINTS: usize = 400;

/// Tokens over the time since the start of the run.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    points: Vec<(Duration, u64)>,
    /// Only one sample in this many is stored.
    stride: u32,
    sample_count: u32,
    last: Option<(Duration, u64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { points: Vec::new(), stride: 1, sample_count: 0, last: None }
    }
}

impl Timeline {
    /// Records the number of tokens at this time.
    pub(crate) fn record(&mut self, at: Duration, tokens: u64) {
        self.last = Some((at, tokens));
        self.sample_count += 1;
        if !(self.sample_count - 1).is_multiple_of(self.stride) {
            return;
        }
        self.points.push((at, tokens));
        if self.points.len() == MAX_POINTS {
            let mut position = 0;
            self.points.retain(|_| {
                position += 1;
                position % 2 == 1
            });
            self.stride *= 2;
            self.sample_count = 0;
        }
    }

    /// Scales the counts so that the last one is `tokens`: counts recorded during streaming are estimates.
    #[must_use]
    pub(super) fn scaled_to(mut self, tokens: u64) -> Self {
        let Some((_, estimated)) = self.last.filter(|(_, estimated)| *estimated > 0) else { return self };
        let points = self.points.iter_mut().chain(self.last.as_mut());
        // Multiplies before dividing, so that precision is kept; realistic token counts do not overflow.
        points.for_each(|(_, count)| *count = count.saturating_mul(tokens) / estimated);
        self
    }

    /// The points, always including the last sample.
    pub(crate) fn points(&self) -> impl Iterator<Item = (Duration, u64)> {
        let last = self.last.filter(|last| self.points.last() != Some(last));
        self.points.iter().copied().chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_points_is_limited() {
        let mut timeline = Timeline::default();
        for n in 0..100_000 {
            timeline.record(Duration::from_millis(n), n);
        }
        let points: Vec<_> = timeline.points().collect();
        assert!((MAX_POINTS / 2..=MAX_POINTS + 1).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted());
        assert_eq!((points[0].1, points.last().map(|point| point.1)), (0, Some(99_999)));
        assert_eq!(timeline.scaled_to(50_000).points().last().map(|point| point.1), Some(50_000));
    }
}
