//! Parses the retry delay that a service requests in headers and error bodies.
//!
//! Does not read a clock: a date becomes a delay only when the caller passes `now`.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

/// A retry delay requested by a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// The original value, for the record.
    pub raw: String,
    /// The parsed value.
    pub when: RetryWhen,
}

/// When to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWhen {
    /// This long after the response.
    After(Duration),
    /// At this time.
    At(Timestamp),
}

impl RetryAfter {
    /// A delay that mmchat has computed.
    #[must_use]
    pub fn after(delay: Duration) -> Self {
        Self::with_delay(&format!("{:.0}", delay.as_secs_f64().ceil()), delay)
    }

    /// The delay from `now`; zero when the time has passed.
    #[must_use]
    pub fn delay_from(&self, now: Timestamp) -> Duration {
        match self.when {
            RetryWhen::After(delay) => delay,
            RetryWhen::At(time) => Duration::try_from(time.duration_since(now)).unwrap_or_default(),
        }
    }

    /// The delay that is known without a clock: zero for a date.
    fn min_delay(&self) -> Duration {
        match self.when {
            RetryWhen::After(delay) => delay,
            RetryWhen::At(_) => Duration::ZERO,
        }
    }

    fn with_delay(raw: &str, delay: Duration) -> Self {
        Self { raw: raw.to_owned(), when: RetryWhen::After(delay) }
    }
}

/// Parses response headers, in this order: `retry-after-ms`, `x-ms-retry-after-ms`, `retry-after` (seconds with or
/// without a fraction, or an HTTP date), LiteLLM's forwarded copy, and the reset time of an exhausted limit.
#[must_use]
pub fn from_headers(headers: &HeaderMap) -> Option<RetryAfter> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
        if let Some(raw) = header(name)
            && let Some(delay) = parse_seconds(raw, 1e-3)
        {
            return Some(RetryAfter::with_delay(raw, delay));
        }
    }
    ["retry-after", "llm_provider-retry-after"]
        .into_iter()
        .find_map(|name| header(name).and_then(parse_value))
        .or_else(|| exhausted_limit_reset(headers))
}

/// Parses the value of `retryDelay` ("34s") or `retry_after` (seconds) in an error body.
#[must_use]
pub fn parse_delay(raw: &str) -> Option<RetryAfter> {
    parse_duration(raw).or_else(|| parse_seconds(raw, 1.0)).map(|delay| RetryAfter::with_delay(raw, delay))
}

fn parse_value(raw: &str) -> Option<RetryAfter> {
    if let Some(delay) = parse_seconds(raw, 1.0).or_else(|| parse_duration(raw)) {
        return Some(RetryAfter::with_delay(raw, delay));
    }
    let time = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(raw)
        .ok()
        .or_else(|| raw.parse::<Timestamp>().ok())?;
    Some(RetryAfter { raw: raw.to_owned(), when: RetryWhen::At(time) })
}

/// The longest `x-ratelimit-reset-X` of the limits whose `x-ratelimit-remaining-X` is zero.
fn exhausted_limit_reset(headers: &HeaderMap) -> Option<RetryAfter> {
    let is_exhausted = |suffix: &str| {
        let remaining = headers.get(format!("x-ratelimit-remaining{suffix}")).and_then(|value| value.to_str().ok());
        remaining.is_some_and(|value| value.trim().parse::<f64>().is_ok_and(|remaining| remaining <= 0.0))
    };
    headers
        .iter()
        .filter_map(|(name, reset)| {
            let suffix = name.as_str().strip_prefix("x-ratelimit-reset")?;
            is_exhausted(suffix).then(|| reset.to_str().ok()).flatten()
        })
        .filter_map(parse_reset)
        .max_by_key(RetryAfter::min_delay)
}

/// Parses a reset value: a duration, a date, a number of seconds, or a Unix time in seconds or milliseconds.
fn parse_reset(raw: &str) -> Option<RetryAfter> {
    const EPOCH_SECONDS: f64 = 1e9;
    const EPOCH_MILLISECONDS: f64 = 1e12;
    let at_time = |time| Some(RetryAfter { raw: raw.to_owned(), when: RetryWhen::At(time) });
    match raw.trim().parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "a time in this millennium")]
        Ok(number) if number >= EPOCH_MILLISECONDS => at_time(Timestamp::from_millisecond(number as i64).ok()?),
        #[expect(clippy::cast_possible_truncation, reason = "a time in this millennium")]
        Ok(number) if number >= EPOCH_SECONDS => at_time(Timestamp::from_second(number as i64).ok()?),
        _ => parse_value(raw.trim()),
    }
}

fn parse_seconds(raw: &str, unit: f64) -> Option<Duration> {
    let number: f64 = raw.parse().ok()?;
    if number.is_nan() { None } else { Duration::try_from_secs_f64((number * unit).clamp(0.0, 1e9)).ok() }
}

/// Parses a duration as Go prints it: `6m0s`, `21ms`, `1h2m`, `34s`.
fn parse_duration(raw: &str) -> Option<Duration> {
    let (mut remaining, mut total) = (raw.trim(), 0.0);
    if remaining.is_empty() {
        return None;
    }
    while !remaining.is_empty() {
        let number_len = remaining.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = remaining[..number_len].parse().ok()?;
        remaining = &remaining[number_len..];
        let unit_len = remaining.find(|c: char| c.is_ascii_digit()).unwrap_or(remaining.len());
        total += number
            * match &remaining[..unit_len] {
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        remaining = &remaining[unit_len..];
    }
    Duration::try_from_secs_f64(total.min(1e9)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay_secs(pairs: &[(&'static str, &'static str)]) -> Option<f64> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, http::HeaderValue::from_static(value));
        }
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid timestamp");
        from_headers(&headers).map(|after| after.delay_from(now).as_secs_f64())
    }

    #[test]
    fn all_header_forms_are_parsed() {
        assert_eq!(delay_secs(&[("retry-after", "2")]), Some(2.0));
        assert_eq!(delay_secs(&[("retry-after", "0.5")]), Some(0.5));
        assert_eq!(delay_secs(&[("retry-after-ms", "1500"), ("retry-after", "9")]), Some(1.5));
        assert_eq!(delay_secs(&[("x-ms-retry-after-ms", "250")]), Some(0.25));
        assert_eq!(delay_secs(&[("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT")]), Some(60.0));
        assert_eq!(delay_secs(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(0.0));
        assert_eq!(delay_secs(&[("retry-after", "86400")]), Some(86400.0));
        assert_eq!(delay_secs(&[("llm_provider-retry-after", "60")]), Some(60.0));
        assert_eq!(delay_secs(&[("retry-after", "-1")]), Some(0.0));
        assert_eq!(delay_secs(&[("retry-after", "soon")]), None);
        assert_eq!(delay_secs(&[("retry-after", "NaN")]), None);
        assert_eq!(delay_secs(&[]), None);
    }

    #[test]
    fn reset_is_ignored_unless_its_limit_is_exhausted() {
        let requests = ("x-ratelimit-remaining-requests", "0");
        let tokens = ("x-ratelimit-remaining-tokens", "500");
        let resets = [("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-reset-tokens", "21ms")];
        assert_eq!(delay_secs(&[requests, tokens, resets[0], resets[1]]), Some(360.0));
        assert_eq!(delay_secs(&[tokens, resets[0], resets[1]]), None);
        assert_eq!(delay_secs(&[requests, ("x-ratelimit-reset-requests", "2026-01-01T00:00:05Z")]), Some(5.0));
        assert_eq!(delay_secs(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1767225610")]), Some(10.0));
    }

    #[test]
    fn body_delays_are_parsed() {
        let seconds = |raw| parse_delay(raw).map(|after| after.min_delay().as_secs_f64());
        assert_eq!(seconds("34s"), Some(34.0));
        assert_eq!(seconds("1h2m"), Some(3720.0));
        assert_eq!(seconds("7"), Some(7.0));
        assert_eq!(seconds("x"), None);
    }
}
