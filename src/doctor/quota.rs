//! What a key of a One-API or new-api may still spend.
//!
//! Both tell it in the shape of OpenAI's old billing pages: `hard_limit_usd` is what was granted, `total_usage` what was
//! used, in hundredths. The unit is the status page's to say: dollars, yuan, or raw quota. An exhausted key is refused, and so
//! cannot read its own balance.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Finding, Recognised, Verdict, at_root, json};
use crate::{
    engine::{Engine, Fetched},
    model::endpoint::Endpoint,
};

const WHAT: &str = "quota";
/// What both grant a key without a limit.
const UNLIMITED: f64 = 100_000_000.0;

pub(super) async fn read(
    engine: &Arc<Engine>,
    endpoint: &Arc<Endpoint>,
    kind: &Recognised,
    limit: Duration,
) -> Finding {
    let page = async |path: &str| engine.fetch(endpoint, &at_root(endpoint, path), true, limit).await;
    let granted = page("/v1/dashboard/billing/subscription").await;
    let used = page("/v1/dashboard/billing/usage").await;
    let number = |page: &Fetched, field: &str| json(page)?.get(field)?.as_f64();
    let why = match (&granted, &used) {
        (Ok(granted), Ok(used)) => match (number(granted, "hard_limit_usd"), number(used, "total_usage")) {
            (Some(granted), Some(used)) => return of(granted, used / 100.0, unit(kind.status.as_ref())),
            _ if matches!(granted.status, 401 | 403) => "the key may not read it".to_owned(),
            _ => format!("its page says nothing of it (status {})", granted.status),
        },
        (Err(error), _) | (_, Err(error)) => format!("it could not be read: {error}"),
    };
    Finding::new(WHAT, Verdict::Unknown, why)
}

fn of(granted: f64, used: f64, unit: &str) -> Finding {
    if granted == UNLIMITED && unit != "quota" {
        return Finding::new(WHAT, Verdict::Good, format!("the key has no limit; {used:.2} {unit} used"));
    }
    let left = granted - used;
    let seen = format!("{left:.2} of {granted:.2} {unit} left to the key");
    if left <= granted / 20.0 {
        return Finding::new(WHAT, Verdict::Note, seen).advice("raise the key's quota, or it will be refused soon");
    }
    Finding::new(WHAT, Verdict::Good, seen)
}

/// What the figures are in.
fn unit(status: Option<&Value>) -> &'static str {
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
    fn the_unit_is_the_servers_and_a_key_that_is_almost_empty_is_told() {
        assert_eq!(unit(Some(&json!({"quota_display_type": "CNY"}))), "CNY");
        assert_eq!(unit(Some(&json!({"display_in_currency": false}))), "quota");
        assert_eq!(unit(None), "USD");
        assert_eq!(of(UNLIMITED, 3.0, "USD").verdict, Verdict::Good);
        assert_eq!(of(10.0, 9.9, "USD").verdict, Verdict::Note);
        assert_eq!(of(10.0, 1.0, "USD").seen, "9.00 of 10.00 USD left to the key");
    }
}
