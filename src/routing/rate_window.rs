//! A limit of requests per minute: a sliding window of the start times of requests.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The period to which a limit of requests per minute applies.
const WINDOW: Duration = Duration::from_secs(60);

/// The start times of the requests of the last minute, the oldest first.
#[derive(Debug, Default)]
pub struct RateWindow(VecDeque<Instant>);

impl RateWindow {
    /// The time until a request may start; `None`: now.
    #[must_use]
    pub fn wait(&mut self, limit: u32, now: Instant) -> Option<Duration> {
        while self.0.front().is_some_and(|&started_at| now.saturating_duration_since(started_at) >= WINDOW) {
            self.0.pop_front();
        }
        if self.0.len() < limit as usize {
            return None;
        }
        let oldest = self.0.front().copied().unwrap_or(now);
        Some(WINDOW.saturating_sub(now.saturating_duration_since(oldest)))
    }

    /// Counts a request that starts now.
    pub fn start(&mut self, now: Instant) {
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_waits_until_the_oldest_one_is_a_minute_old() {
        let (mut window, start) = (RateWindow::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(window.wait(2, at(0)), None);
        window.start(at(0));
        window.start(at(10));
        assert_eq!(window.wait(2, at(30)), Some(Duration::from_secs(30)));
        assert_eq!(window.wait(3, at(30)), None);
        assert_eq!(window.wait(2, at(60)), None);
        window.start(at(60));
        assert_eq!(window.wait(2, at(60)), Some(Duration::from_secs(10)));
    }
}
