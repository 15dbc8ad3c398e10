//! The line of `--stats`: what one answer took.

use std::time::Duration;

use super::notice::duration;
use crate::{chat::Usage, engine::LaneOutcome};

/// Less than this between the first delta and the last says more of the network's pieces than of the model.
const SHORTEST: Duration = Duration::from_millis(10);

/// Tokens a second after the first; `None` when there are too few, or too little time, to tell.
#[must_use]
pub fn tokens_per_second(usage: &Usage, outcome: &LaneOutcome) -> Option<f64> {
    let seconds = outcome.generating.as_secs_f64();
    let output = usage.output.filter(|&output| output > 1)?;
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    let speed = (output - 1) as f64 / seconds;
    (outcome.generating >= SHORTEST).then_some(speed)
}

/// `fast  ttft 52 ms  total 1.2 s  14 in (8 cached) / 60 out  49 tok/s  $0.0004`
#[must_use]
pub fn line(name: &str, usage: Option<&Usage>, cost: Option<(f64, &str)>, outcome: &LaneOutcome) -> String {
    let mut parts = vec![name.to_owned()];
    if let Some(ttft) = outcome.ttft {
        parts.push(format!("ttft {}", duration(ttft)));
    }
    parts.push(format!("total {}", duration(outcome.total)));
    if let Some(usage) = usage {
        parts.push(tokens(usage));
        parts.extend(tokens_per_second(usage, outcome).map(|speed| format!("{speed:.0} tok/s")));
    }
    parts.extend(cost.map(|(cost, currency)| money(cost, currency)));
    if outcome.attempts.len() > 1 {
        parts.push(format!("{} attempts", outcome.attempts.len()));
    }
    parts.join("  ")
}

fn tokens(usage: &Usage) -> String {
    let figure = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let beside = |count: Option<u64>, word: &str| {
        count.filter(|&count| count > 0).map(|count| format!(" ({count} {word})")).unwrap_or_default()
    };
    format!(
        "{} in{} / {} out{}{}",
        figure(usage.input),
        beside(usage.cached, "cached"),
        figure(usage.output),
        beside(usage.reasoning, "reasoning"),
        if usage.estimated { " estimated" } else { "" },
    )
}

/// `$0.000400`, `0.012000 CNY`.
#[must_use]
pub fn money(amount: f64, currency: &str) -> String {
    match currency {
        "USD" => format!("${amount:.6}"),
        currency => format!("{amount:.6} {currency}"),
    }
}
