//! A limit of requests per minute: a sliding window of the start times of requests.
//!
//! The times are those of the wall clock, so that the time in which a machine is suspended counts.

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};

/// The period to which a limit of requests per minute applies.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// The start times of the requests of the last minute, the oldest first.
#[derive(Debug, Default)]
pub struct RateWindow(VecDeque<Timestamp>);

impl RateWindow {
    /// The time until a request may start; `None`: now.
    #[must_use]
    pub fn wait(&mut self, limit: u32, now: Timestamp) -> Option<Duration> {
        // After the clock was set back, earlier requests count as if they had started now.
        for started_at in self.0.iter_mut().rev().take_while(|started_at| **started_at > now) {
            *started_at = now;
        }
        while self.0.front().is_some_and(|&started_at| now.duration_since(started_at) >= WINDOW) {
            self.0.pop_front();
        }
        if self.0.len() < limit as usize {
            return None;
        }
        let oldest = self.0.front().copied().unwrap_or(now);
        Some(Duration::try_from(WINDOW - now.duration_since(oldest)).unwrap_or_default())
    }

    /// Counts a request that starts now.
    pub fn start(&mut self, now: Timestamp) {
        self.0.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("valid timestamp")
    }

    #[test]
    fn request_waits_until_the_oldest_one_is_a_minute_old() {
        let mut window = RateWindow::default();
        assert_eq!(window.wait(2, at(0)), None);
        window.start(at(0));
        window.start(at(10));
        assert_eq!(window.wait(2, at(30)), Some(Duration::from_secs(30)));
        assert_eq!(window.wait(3, at(30)), None);
        assert_eq!(window.wait(2, at(60)), None);
        window.start(at(60));
        assert_eq!(window.wait(2, at(60)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn clock_that_is_set_back_delays_no_request_by_more_than_a_minute() {
        let mut window = RateWindow::default();
        window.start(at(0));
        window.start(at(86_400));
        assert_eq!(window.wait(1, at(-3600)), Some(Duration::from_secs(60)));
        assert_eq!(window.wait(1, at(-3600 + 60)), None);
    }
}
