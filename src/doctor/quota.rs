//! Reads the remaining quota of a One-API or new-api key.
//!
//! Both use the format of OpenAI's former billing API: `hard_limit_usd` is the granted amount, `total_usage` the used
//! amount in hundredths. The unit comes from the status page: USD, CNY or raw quota. An exhausted key is rejected and
//! cannot read its own balance.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Finding, RecognizedServer, Verdict, parse_json, root_url};
use crate::{
    engine::{Engine, FetchResponse},
    model::endpoint::Endpoint,
};

const CHECK: &str = "quota";
/// Granted amount of a key without a limit.
const UNLIMITED_GRANT: f64 = 100_000_000.0;

pub(super) async fn check_quota(
    engine: &Arc<Engine>,
    endpoint: &Arc<Endpoint>,
    server: &RecognizedServer,
    timeout: Duration,
) -> Finding {
    let fetch = async |path: &str| engine.fetch(endpoint, &root_url(endpoint, path), true, timeout).await;
    let granted = fetch("/v1/dashboard/billing/subscription").await;
    let used = fetch("/v1/dashboard/billing/usage").await;
    let number = |response: &FetchResponse, field: &str| parse_json(response)?.get(field)?.as_f64();
    let reason = match (&granted, &used) {
        (Ok(granted), Ok(used)) => match (number(granted, "hard_limit_usd"), number(used, "total_usage")) {
            (Some(granted), Some(used)) => {
                return quota_finding(granted, used / 100.0, quota_unit(server.status.as_ref()));
            }
            _ if matches!(granted.status, 401 | 403) => "the key is not permitted to read its quota".to_owned(),
            _ => format!("no quota in the billing response (status {})", granted.status),
        },
        (Err(error), _) | (_, Err(error)) => format!("cannot read quota: {error}"),
    };
    Finding::new(CHECK, Verdict::Unknown, reason)
}

fn quota_finding(granted: f64, used: f64, unit: &str) -> Finding {
    if granted == UNLIMITED_GRANT && unit != "quota" {
        return Finding::new(CHECK, Verdict::Pass, format!("unlimited; {used:.2} {unit} used"));
    }
    let remaining = granted - used;
    let detail = format!("{remaining:.2} of {granted:.2} {unit} remaining");
    if remaining <= granted / 20.0 {
        return Finding::new(CHECK, Verdict::Note, detail).with_hint("raise the key's quota before it is exhausted");
    }
    Finding::new(CHECK, Verdict::Pass, detail)
}

/// Unit of the amounts.
fn quota_unit(status: Option<&Value>) -> &'static str {
    let field = |name: &str| status.and_then(|status| status.get(name));
    match field("quota_display_type").and_then(Value::as_str) {
        Some("CNY") => "CNY",
        Some("TOKENS") => "quota",
        _ if field("display_in_currency").and_then(Value::as_bool) == Some(false) => "quota",
        _ => "USD",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unit_comes_from_the_status_page_and_low_quota_is_a_note() {
        assert_eq!(quota_unit(Some(&json!({"quota_display_type": "CNY"}))), "CNY");
        assert_eq!(quota_unit(Some(&json!({"display_in_currency": false}))), "quota");
        assert_eq!(quota_unit(None), "USD");
        assert_eq!(quota_finding(UNLIMITED_GRANT, 3.0, "USD").verdict, Verdict::Pass);
        assert_eq!(quota_finding(10.0, 9.9, "USD").verdict, Verdict::Note);
        assert_eq!(quota_finding(10.0, 1.0, "USD").detail, "9.00 of 10.00 USD remaining");
    }
}
