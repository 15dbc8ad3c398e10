//! What one answer took: the line of `--stats`, and a row in the table of a comparison.
//!
//! Owns how each figure is written. Refuses to know where a row ends up: on a terminal, in Markdown, on a page.

use std::time::Duration;

use super::notice::duration;
use crate::{engine::LaneOutcome, model::Usage};

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

/// The columns of a comparison; a `>` in front: figures, which stand on the right.
pub const COLUMNS: [&str; 8] = ["#", "model", "state", ">TTFT", ">total", ">in / out", ">tok/s", ">cost"];

/// Whether a column stands on the right where tables have lines: the number of a lane does, too.
#[must_use]
pub fn is_figure(column: &str) -> bool {
    column.starts_with(['#', '>'])
}

/// How one answer of a comparison went.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// What it was asked for as.
    pub name: String,
    /// The model that answered.
    pub model: Option<String>,
    /// `ok`, or what went wrong, in a word.
    pub state: String,
    /// To the first token, from sending the request that was answered.
    pub ttft: Option<Duration>,
    /// In all.
    pub total: Option<Duration>,
    /// Its tokens.
    pub usage: Option<Usage>,
    /// After the first token.
    pub tokens_per_second: Option<f64>,
    /// What it cost, and the currency's code.
    pub cost: Option<(f64, String)>,
}

impl Figures {
    /// What stands in [`COLUMNS`] behind the number; `-`: nobody knows.
    #[must_use]
    pub fn cells(&self) -> [String; 7] {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let tokens = self.usage.map(|usage| {
            let star = if usage.estimated { "*" } else { "" };
            format!("{} / {}{star}", count(usage.input), count(usage.output))
        });
        [
            self.who(),
            self.state.clone(),
            or_none(self.ttft.map(duration)),
            or_none(self.total.map(duration)),
            or_none(tokens),
            or_none(self.tokens_per_second.map(|speed| format!("{speed:.0}"))),
            or_none(self.cost.as_ref().map(|(cost, currency)| money(*cost, currency))),
        ]
    }

    /// Its name; with a route also who answered.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.model {
            Some(model) if *model != self.name => format!("{} ({model})", self.name),
            _ => self.name.clone(),
        }
    }

    /// Nobody counted its tokens: there is a star, which wants to be explained.
    #[must_use]
    pub fn is_estimated(&self) -> bool {
        self.usage.is_some_and(|usage| usage.estimated)
    }
}

fn count(tokens: Option<u64>) -> String {
    tokens.map_or_else(|| "?".to_owned(), |tokens| tokens.to_string())
}

fn tokens(usage: &Usage) -> String {
    let beside = |count: Option<u64>, word: &str| {
        count.filter(|&count| count > 0).map(|count| format!(" ({count} {word})")).unwrap_or_default()
    };
    format!(
        "{} in{} / {} out{}{}",
        count(usage.input),
        beside(usage.cached, "cached"),
        count(usage.output),
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
