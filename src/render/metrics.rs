//! Formats the metrics of one call: the line of `--stats`, and the cells of a row in the table of a comparison.

use std::time::Duration;

use super::notice::format_duration;
use crate::{engine::CallRecord, model::Usage};

/// Minimum time between the first and the last delta: below it, speed reflects network chunks rather than the model.
const MIN_OUTPUT_DURATION: Duration = Duration::from_millis(10);

/// Tokens per second after the first; `None` with fewer than 2 tokens or less than 10 ms.
#[must_use]
pub(crate) fn tokens_per_second(usage: &Usage, record: &CallRecord) -> Option<f64> {
    let seconds = record.output_duration.as_secs_f64();
    let output = usage.output.filter(|&output| output > 1)?;
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    let speed = (output - 1) as f64 / seconds;
    (record.output_duration >= MIN_OUTPUT_DURATION).then_some(speed)
}

/// `fast  ttft 52 ms  total 1.2 s  14 in (8 cached) / 60 out  49 tok/s  $0.0004`
#[must_use]
pub(crate) fn summary_line(
    name: &str,
    usage: Option<&Usage>,
    cost: Option<(f64, &str)>,
    record: &CallRecord,
) -> String {
    let mut parts = vec![name.to_owned()];
    if let Some(ttft) = record.ttft {
        parts.push(format!("ttft {}", format_duration(ttft)));
    }
    parts.push(format!("total {}", format_duration(record.total)));
    if let Some(usage) = usage {
        parts.push(format_tokens(usage));
        parts.extend(tokens_per_second(usage, record).map(|speed| format!("{speed:.0} tok/s")));
    }
    parts.extend(cost.map(|(cost, currency)| format_money(cost, currency)));
    if record.attempts.len() > 1 {
        parts.push(format!("{} attempts", record.attempts.len()));
    }
    parts.join("  ")
}

/// The columns of a comparison; a leading `>` marks numbers, which are right-aligned.
pub(crate) const COLUMNS: [&str; 8] = ["#", "model", "state", ">TTFT", ">total", ">in / out", ">tok/s", ">cost"];

/// Whether a column is right-aligned in HTML and Markdown reports; includes the number of the answer.
#[must_use]
pub(crate) fn is_right_aligned(column: &str) -> bool {
    column.starts_with(['#', '>'])
}

/// The metrics of one call of a comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallMetrics {
    /// The requested name.
    pub name: String,
    /// The model that answered.
    pub model: Option<String>,
    /// The state in a word: `ok`, or what went wrong.
    pub state: String,
    /// Time to first token, from sending the request that was answered.
    pub ttft: Option<Duration>,
    /// Duration of the call.
    pub total: Option<Duration>,
    /// Token counts.
    pub usage: Option<Usage>,
    /// Output speed after the first token.
    pub tokens_per_second: Option<f64>,
    /// The cost, and the currency code.
    pub cost: Option<(f64, String)>,
}

impl CallMetrics {
    /// The cells of [`COLUMNS`] after the number; `-` for unknown values.
    #[must_use]
    pub(crate) fn to_cells(&self) -> [String; 7] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let tokens = self.usage.map(|usage| {
            let star = if usage.estimated { "*" } else { "" };
            format!("{} / {}{star}", format_count(usage.input), format_count(usage.output))
        });
        [
            self.label(),
            self.state.clone(),
            or_dash(self.ttft.map(format_duration)),
            or_dash(self.total.map(format_duration)),
            or_dash(tokens),
            or_dash(self.tokens_per_second.map(|speed| format!("{speed:.0}"))),
            or_dash(self.cost.as_ref().map(|(cost, currency)| format_money(*cost, currency))),
        ]
    }

    /// The requested name; for a route also the model that answered.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        match &self.model {
            Some(model) if *model != self.name => format!("{} ({model})", self.name),
            _ => self.name.clone(),
        }
    }

    /// Whether its tokens are estimated; they are marked with a star.
    #[must_use]
    pub(crate) fn is_estimated(&self) -> bool {
        self.usage.is_some_and(|usage| usage.estimated)
    }
}

fn format_count(tokens: Option<u64>) -> String {
    tokens.map_or_else(|| "?".to_owned(), |tokens| tokens.to_string())
}

fn format_tokens(usage: &Usage) -> String {
    let detail = |count: Option<u64>, word: &str| {
        count.filter(|&count| count > 0).map(|count| format!(" ({count} {word})")).unwrap_or_default()
    };
    format!(
        "{} in{} / {} out{}{}",
        format_count(usage.input),
        detail(usage.cached, "cached"),
        format_count(usage.output),
        detail(usage.reasoning, "reasoning"),
        if usage.estimated { " estimated" } else { "" },
    )
}

/// `$0.000400`, `0.012000 CNY`.
#[must_use]
pub(crate) fn format_money(amount: f64, currency: &str) -> String {
    match currency {
        "USD" => format!("${amount:.6}"),
        currency => format!("{amount:.6} {currency}"),
    }
}
