//! Validates `[retry]`, `[availability]` and `max_answer_mb`.

use std::time::Duration;

use super::{Resolver, bytes_of_mebibytes};
use crate::{
    config::{
        file::ConfigFile,
        policies::{AvailabilityEntry, RetryEntry},
        values::{DurationEntry, Spanned},
    },
    routing::{
        breaker::MAX_RECENT,
        policies::{CooldownDuration, HealthPolicy, Policies},
    },
};

impl Resolver {
    pub(super) fn resolve_policies(&mut self, file: &ConfigFile) {
        let mut policies = Policies::default();
        self.resolve_retry(&file.retry, &mut policies);
        self.resolve_availability(&file.availability, &mut policies);
        let max_answer = self.at_least_one("max_answer_mb", file.max_answer_mb.as_ref());
        set(&mut policies.answer.max_bytes, max_answer.map(bytes_of_mebibytes));
        self.config.policies = policies;
    }

    fn resolve_retry(&mut self, entry: &RetryEntry, policies: &mut Policies) {
        set(
            &mut policies.attempts.max_candidates,
            self.at_least_one("max_candidates", entry.max_candidates.as_ref()).map(|number| number as usize),
        );
        set(&mut policies.attempts.retries, value(entry.retries.as_ref()).map(|number| number as usize));
        set(
            &mut policies.attempts.further_attempts,
            value(entry.further_attempts.as_ref()).map(|number| number as usize),
        );
        let restricted_attempts = self.at_least_one("restricted_attempts", entry.restricted_attempts.as_ref());
        set(&mut policies.attempts.restricted_attempts, restricted_attempts.map(|number| number as usize));
        set(&mut policies.attempts.workarounds, value(entry.workarounds.as_ref()).map(|number| number as usize));
        set(&mut policies.retry.backoff, time(entry.backoff));
        set(&mut policies.retry_budget.max_percent, self.percent("budget_percent", entry.budget_percent.as_ref()));
        set(&mut policies.retry_budget.min_retries, value(entry.budget_min.as_ref()).map(|number| number as usize));
        set(&mut policies.hedge.percent, self.percent("hedge_percent", entry.hedge_percent.as_ref()));
        set(&mut policies.timeouts.first_token, time(entry.first_token));
        set(&mut policies.timeouts.slow_first_token, time(entry.slow_first_token));
        set(&mut policies.timeouts.one_piece, time(entry.one_piece).map(Some));
        set(&mut policies.timeouts.usage, time(entry.usage));
        set(&mut policies.timeouts.search, time(entry.search));
        set(&mut policies.last_resort.max_wait, time(entry.max_wait).map(Some));
        set(&mut policies.last_resort.max_waiting, value(entry.max_waiting.as_ref()).map(|number| number as usize));
    }

    fn resolve_availability(&mut self, entry: &AvailabilityEntry, policies: &mut Policies) {
        set(
            &mut policies.health.breaker.model.consecutive_failures,
            self.at_least_one("failures", entry.failures.as_ref()),
        );
        let window_failures = self.at_least_one("window_failures", entry.window_failures.as_ref());
        if let Some(number) = entry.window_failures.as_ref().filter(|number| number.value as usize > MAX_RECENT) {
            self.add_problem(format!("window_failures must be at most {MAX_RECENT}"), &number.span).help =
                Some("only so many calls are remembered".into());
        }
        set(&mut policies.health.breaker.model.window_failures, window_failures.map(Some));
        set(&mut policies.health.breaker.window, time(entry.window));
        set(
            &mut policies.health.breaker.endpoint.consecutive_failures,
            self.at_least_one("endpoint_failures", entry.endpoint_failures.as_ref()),
        );
        set(&mut policies.health.breaker.initial_open, time(entry.open));
        set(&mut policies.health.breaker.max_open, time(entry.max_open));
        set(&mut policies.health.probe.hedge_after, time(entry.probe_hedge_after));
        set(
            &mut policies.health.stall.requests,
            self.at_least_one("stalled_requests", entry.stalled_requests.as_ref()).map(|number| number as usize),
        );
        set(&mut policies.health.stall.min_wait, time(entry.stalled_after));
        set(&mut policies.health.cooldown.rate.initial, time(entry.rate_cooldown));
        set(&mut policies.health.cooldown.rate.max, time(entry.max_rate_cooldown));
        set(&mut policies.health.cooldown.quota.initial, time(entry.quota_cooldown));
        set(&mut policies.health.cooldown.quota.max, time(entry.max_quota_cooldown));
        set(&mut policies.health.cooldown.auth, time(entry.auth_cooldown).map(CooldownDuration::fixed));
        set(&mut policies.health.cooldown.access, time(entry.access_cooldown).map(CooldownDuration::fixed));
        set(&mut policies.health.cooldown.path.initial, time(entry.path_cooldown));
        set(&mut policies.health.cooldown.path.max, time(entry.max_path_cooldown));
        set(&mut policies.health.cooldown.redirect, time(entry.redirect_cooldown).map(CooldownDuration::fixed));
        set(&mut policies.health.cooldown.max_retry_after, time(entry.max_retry_after));
        raise_maximums(&mut policies.health);
        set(&mut policies.last_resort.rate_interval, time(entry.rate_interval));
        set(&mut policies.last_resort.hard_interval, time(entry.hard_interval));
        set(&mut policies.last_resort.retry_after_interval, time(entry.retry_after_interval));
    }

    fn percent(&mut self, key: &str, percent: Option<&Spanned<u32>>) -> Option<u32> {
        let percent = percent?;
        if percent.value > 100 {
            self.add_problem(format!("{key} must be from 0 to 100"), &percent.span);
        }
        Some(percent.value)
    }
}

/// A maximum is at least the first value: who sets only that does not want less.
fn raise_maximums(health: &mut HealthPolicy) {
    let (breaker, cooldown) = (&mut health.breaker, &mut health.cooldown);
    breaker.max_open = breaker.max_open.max(breaker.initial_open);
    for duration in [&mut cooldown.rate, &mut cooldown.quota, &mut cooldown.path] {
        duration.max = duration.max.max(duration.initial);
    }
    let all = [cooldown.rate, cooldown.quota, cooldown.path, cooldown.auth, cooldown.access, cooldown.redirect];
    let longest = all.iter().map(|duration| duration.max).chain([cooldown.max_retry_after]).max();
    cooldown.max = cooldown.max.max(longest.unwrap_or_default());
}

fn set<T>(policy: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *policy = value;
    }
}

fn value(number: Option<&Spanned<u32>>) -> Option<u32> {
    number.map(|number| number.value)
}

fn time(entry: Option<DurationEntry>) -> Option<Duration> {
    entry.map(|entry| entry.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn first_values_raise_their_maximums() {
        let text = "[availability]\nrate_cooldown = \"2m\"\nopen = \"5m\"\nauth_cooldown = \"3h\"\nmax_path_cooldown = \"4h\"\n";
        let health = crate::config::resolve(text, Path::new("c.toml")).expect("valid config").policies.health;
        let minutes = |count: u64| Duration::from_secs(count * 60);
        assert_eq!((health.cooldown.rate.initial, health.cooldown.rate.max), (minutes(2), minutes(2)));
        assert_eq!(health.breaker.max_open, minutes(5));
        assert_eq!((health.cooldown.auth.max, health.cooldown.max), (minutes(180), minutes(240)));
    }

    /// Every key with another value, and the field that it sets.
    #[test]
    fn each_key_sets_its_policy() {
        type Get = fn(&Policies) -> u64;
        let retry: [(&str, bool, Get); 16] = [
            ("max_candidates", false, |p| p.attempts.max_candidates as u64),
            ("retries", false, |p| p.attempts.retries as u64),
            ("further_attempts", false, |p| p.attempts.further_attempts as u64),
            ("restricted_attempts", false, |p| p.attempts.restricted_attempts as u64),
            ("workarounds", false, |p| p.attempts.workarounds as u64),
            ("backoff", true, |p| p.retry.backoff.as_secs()),
            ("budget_percent", false, |p| p.retry_budget.max_percent.into()),
            ("budget_min", false, |p| p.retry_budget.min_retries as u64),
            ("hedge_percent", false, |p| p.hedge.percent.into()),
            ("first_token", true, |p| p.timeouts.first_token.as_secs()),
            ("slow_first_token", true, |p| p.timeouts.slow_first_token.as_secs()),
            ("one_piece", true, |p| p.timeouts.one_piece.unwrap_or_default().as_secs()),
            ("usage", true, |p| p.timeouts.usage.as_secs()),
            ("search", true, |p| p.timeouts.search.as_secs()),
            ("max_wait", true, |p| p.last_resort.max_wait.unwrap_or_default().as_secs()),
            ("max_waiting", false, |p| p.last_resort.max_waiting as u64),
        ];
        let availability: [(&str, bool, Get); 22] = [
            ("failures", false, |p| p.health.breaker.model.consecutive_failures.into()),
            ("window_failures", false, |p| p.health.breaker.model.window_failures.unwrap_or_default().into()),
            ("window", true, |p| p.health.breaker.window.as_secs()),
            ("endpoint_failures", false, |p| p.health.breaker.endpoint.consecutive_failures.into()),
            ("open", true, |p| p.health.breaker.initial_open.as_secs()),
            ("max_open", true, |p| p.health.breaker.max_open.as_secs()),
            ("probe_hedge_after", true, |p| p.health.probe.hedge_after.as_secs()),
            ("stalled_requests", false, |p| p.health.stall.requests as u64),
            ("stalled_after", true, |p| p.health.stall.min_wait.as_secs()),
            ("rate_cooldown", true, |p| p.health.cooldown.rate.initial.as_secs()),
            ("max_rate_cooldown", true, |p| p.health.cooldown.rate.max.as_secs()),
            ("quota_cooldown", true, |p| p.health.cooldown.quota.initial.as_secs()),
            ("max_quota_cooldown", true, |p| p.health.cooldown.quota.max.as_secs()),
            ("auth_cooldown", true, |p| p.health.cooldown.auth.initial.as_secs()),
            ("access_cooldown", true, |p| p.health.cooldown.access.initial.as_secs()),
            ("path_cooldown", true, |p| p.health.cooldown.path.initial.as_secs()),
            ("max_path_cooldown", true, |p| p.health.cooldown.path.max.as_secs()),
            ("redirect_cooldown", true, |p| p.health.cooldown.redirect.initial.as_secs()),
            ("max_retry_after", true, |p| p.health.cooldown.max_retry_after.as_secs()),
            ("rate_interval", true, |p| p.last_resort.rate_interval.as_secs()),
            ("hard_interval", true, |p| p.last_resort.hard_interval.as_secs()),
            ("retry_after_interval", true, |p| p.last_resort.retry_after_interval.as_secs()),
        ];
        for (table, keys) in [("retry", retry.as_slice()), ("availability", availability.as_slice())] {
            let lines = (1u64..).zip(keys).map(|(number, (key, is_time, _))| {
                if *is_time { format!("{key} = \"{number}s\"\n") } else { format!("{key} = {number}\n") }
            });
            let text = format!("[{table}]\n{}", lines.collect::<String>());
            let policies = crate::config::resolve(&text, Path::new("c.toml")).expect("valid config").policies;
            for (number, (key, _, get)) in (1u64..).zip(keys) {
                assert_eq!(get(&policies), number, "{key}");
            }
        }
    }

    #[test]
    fn breaker_counts_at_most_the_calls_that_it_remembers() {
        let resolve = |number: usize| {
            let text = format!("[availability]\nwindow_failures = {number}\n");
            crate::config::resolve(&text, Path::new("c.toml"))
        };
        assert!(resolve(MAX_RECENT).is_ok());
        assert!(resolve(MAX_RECENT + 1).is_err());
    }
}
