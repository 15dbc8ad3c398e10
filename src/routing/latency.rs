//! How fast a model's first delta comes, as one figure and as a few.
//!
//! Owns the peak-sensitive moving average that `fastest` compares (a slow answer counts at once, a fast one by and by)
//! and the last times, of which the 95th percentile says how long silence is normal. Refuses to be the record: that is
//! `store`'s.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// After so long without an answer, the next one is the whole truth.
const DECAY: f64 = 60.0;
/// So many are enough for a percentile, and few enough for a small file.
const KEPT: usize = 20;
/// No answer begins after more milliseconds.
const MOST: f64 = 1e9;

/// The times of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// The moving average, in milliseconds.
    average: f64,
    at: Option<Timestamp>,
    /// The last ones, in milliseconds, newest last.
    last: VecDeque<u32>,
}

impl Latency {
    /// Takes notice of a time to first token.
    pub fn add(&mut self, ttft: Duration, now: Timestamp) {
        let sample = (ttft.as_secs_f64() * 1e3).min(MOST);
        let elapsed = self.at.map_or(f64::INFINITY, |at| now.duration_since(at).as_secs_f64().max(0.0));
        let weight = (-elapsed / DECAY).exp();
        self.average = if sample > self.average { sample } else { self.average * weight + sample * (1.0 - weight) };
        self.at = Some(now);
        self.last.push_back(u32::try_from(ttft.as_millis()).unwrap_or(u32::MAX));
        while self.last.len() > KEPT {
            self.last.pop_front();
        }
    }

    /// The moving average in milliseconds; `None`: nothing is known.
    #[must_use]
    pub fn average(&self) -> Option<f64> {
        self.at.map(|_| self.average)
    }

    /// Nineteen of twenty came within this time.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<u32> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let place = (sorted.len() * 95).div_ceil(100).checked_sub(1)?;
        sorted.get(place).map(|&ms| Duration::from_millis(ms.into()))
    }

    /// Nothing is known where a file says what no clock can.
    pub fn mend(&mut self) {
        if !(0.0..=MOST).contains(&self.average) {
            *self = Self::default();
        }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_can_say_is_not_believed() {
        for average in ["-5.0", "1e30", "1e9"] {
            let text = format!(r#"{{"average":{average},"at":"2026-01-01T00:00:00Z","last":[5]}}"#);
            let mut latency: Latency = serde_json::from_str(&text).expect("numbers");
            latency.mend();
            assert_eq!(latency.average().is_some(), average == "1e9", "{average}");
        }
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_fast_one_by_and_by() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a date");
        let later = |seconds| super::super::breaker::later(now, Duration::from_secs(seconds));
        let mut latency = Latency::default();
        assert_eq!((latency.average(), latency.p95()), (None, None));
        latency.add(Duration::from_millis(100), now);
        latency.add(Duration::from_millis(900), later(1));
        assert_eq!(latency.average(), Some(900.0));
        latency.add(Duration::from_millis(100), later(2));
        assert!(latency.average().is_some_and(|average| average > 850.0 && average < 900.0));
        latency.add(Duration::from_millis(100), later(3600));
        assert!(latency.average().is_some_and(|average| (average - 100.0).abs() < 1.0));
        assert_eq!(latency.p95(), Some(Duration::from_millis(900)));
    }
}
