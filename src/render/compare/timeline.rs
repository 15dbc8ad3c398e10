//! How one answer grew: tokens over time, in as many points as a picture can show.

use std::time::Duration;

/// As many points as a picture has room for, twice: at that many every second one goes.
const MOST: usize = 400;

/// Tokens over the time since the run began.
#[derive(Clone, Debug)]
pub struct Timeline {
    points: Vec<(Duration, u64)>,
    /// Only every so-many-th is taken.
    every: u32,
    seen: u32,
    last: Option<(Duration, u64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { points: Vec::new(), every: 1, seen: 0, last: None }
    }
}

impl Timeline {
    /// There were so many tokens at this time.
    pub(in crate::render) fn note(&mut self, at: Duration, tokens: u64) {
        self.last = Some((at, tokens));
        self.seen += 1;
        if !(self.seen - 1).is_multiple_of(self.every) {
            return;
        }
        self.points.push((at, tokens));
        if self.points.len() == MOST {
            let mut place = 0;
            self.points.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            self.every *= 2;
            self.seen = 0;
        }
    }

    /// The same, so that it ends with `tokens`: what is counted while an answer comes is our estimate.
    #[must_use]
    pub(super) fn ending_with(mut self, tokens: u64) -> Self {
        let Some((_, estimated)) = self.last.filter(|(_, estimated)| *estimated > 0) else { return self };
        let points = self.points.iter_mut().chain(self.last.as_mut());
        // In this order nothing is rounded away, and no count of tokens is too large for it.
        points.for_each(|(_, count)| *count = count.saturating_mul(tokens) / estimated);
        self
    }

    /// The points, the last one always among them.
    pub fn points(&self) -> impl Iterator<Item = (Duration, u64)> {
        let last = self.last.filter(|last| self.points.last() != Some(last));
        self.points.iter().copied().chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_points_than_a_picture_shows() {
        let mut timeline = Timeline::default();
        for n in 0..100_000 {
            timeline.note(Duration::from_millis(n), n);
        }
        let points: Vec<_> = timeline.points().collect();
        assert!((MOST / 2..=MOST + 1).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted());
        assert_eq!((points[0].1, points.last().map(|point| point.1)), (0, Some(99_999)));
        assert_eq!(timeline.ending_with(50_000).points().last().map(|point| point.1), Some(50_000));
    }
}
