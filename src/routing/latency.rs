//! Tracks a model's time to first token: a moving average and the most recent samples.
//!
//! `fastest` compares the average, which rises to a peak at once and falls gradually. The 95th percentile of the
//! samples raises the first-token timeout of slow models.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Time constant of the moving average, in seconds: after a pause much longer than this, the next sample replaces it.
const DECAY_SECS: f64 = 60.0;
/// Number of samples kept: enough for a percentile, and a small health file.
const MAX_SAMPLES: usize = 20;
/// Maximum value of a sample and of the average, in milliseconds.
const MAX_MS: f64 = 1e9;

/// Times to first token of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// The moving average, in milliseconds.
    average_ms: f64,
    updated_at: Option<Timestamp>,
    /// The most recent samples in milliseconds, newest last.
    samples_ms: VecDeque<u32>,
}

impl Latency {
    /// Records a time to first token.
    pub fn record(&mut self, ttft: Duration, now: Timestamp) {
        let sample = (ttft.as_secs_f64() * 1e3).min(MAX_MS);
        let elapsed = self.updated_at.map_or(f64::INFINITY, |at| now.duration_since(at).as_secs_f64().max(0.0));
        let weight = (-elapsed / DECAY_SECS).exp();
        self.average_ms =
            if sample > self.average_ms { sample } else { self.average_ms * weight + sample * (1.0 - weight) };
        self.updated_at = Some(now);
        self.samples_ms.push_back(u32::try_from(ttft.as_millis()).unwrap_or(u32::MAX));
        while self.samples_ms.len() > MAX_SAMPLES {
            self.samples_ms.pop_front();
        }
    }

    /// The moving average in milliseconds; `None` without samples.
    #[must_use]
    pub fn average(&self) -> Option<f64> {
        self.updated_at.map(|_| self.average_ms)
    }

    /// The 95th percentile of the samples.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<u32> = self.samples_ms.iter().copied().collect();
        sorted.sort_unstable();
        let index = (sorted.len() * 95).div_ceil(100).checked_sub(1)?;
        sorted.get(index).map(|&ms| Duration::from_millis(ms.into()))
    }

    /// Resets the samples and the average if the average from the health file is out of range.
    pub fn clear_invalid(&mut self) {
        if !(0.0..=MAX_MS).contains(&self.average_ms) {
            *self = Self::default();
        }
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.updated_at.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_average_is_cleared() {
        for average in ["-5.0", "1e30", "1e9"] {
            let text = format!(r#"{{"average_ms":{average},"updated_at":"2026-01-01T00:00:00Z","samples_ms":[5]}}"#);
            let mut latency: Latency = serde_json::from_str(&text).expect("valid JSON");
            latency.clear_invalid();
            assert_eq!(latency.average().is_some(), average == "1e9", "{average}");
        }
    }

    #[test]
    fn average_rises_at_once_and_falls_gradually() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid timestamp");
        let later = |seconds| super::super::breaker::saturating_add(now, Duration::from_secs(seconds));
        let mut latency = Latency::default();
        assert_eq!((latency.average(), latency.p95()), (None, None));
        latency.record(Duration::from_millis(100), now);
        latency.record(Duration::from_millis(900), later(1));
        assert_eq!(latency.average(), Some(900.0));
        latency.record(Duration::from_millis(100), later(2));
        assert!(latency.average().is_some_and(|average| average > 850.0 && average < 900.0));
        latency.record(Duration::from_millis(100), later(3600));
        assert!(latency.average().is_some_and(|average| (average - 100.0).abs() < 1.0));
        assert_eq!(latency.p95(), Some(Duration::from_millis(900)));
    }
}
