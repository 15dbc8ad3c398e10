//! What is remembered of one answer while it comes.
//!
//! Owns the adding up of its pieces, the figures nobody reported (estimated from the text, and marked), and what an
//! answer cost that was begun again elsewhere. Refuses to know where anything is shown or kept.

use super::LaneOutcome;
use crate::model::{Answer, Delta, DeltaKind, Usage, estimate::Counter, target::Target};

/// One answer so far.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// With the text only where it is wanted.
    pub answer: Answer,
    /// The estimate of its tokens, thinking included.
    pub tokens: Counter,
    /// Some of it is more than thinking.
    pub any_content: bool,
    /// There was more than one choice, of which the first is shown.
    pub other_choices: bool,
    /// What each request cost that broke off before this one, with its currency.
    wasted: Vec<Option<(String, f64)>>,
    /// What broke off and was begun again elsewhere, until that says something.
    earlier: Option<Box<Account>>,
}

impl Account {
    /// Remembers a delta; its text only `with_text`.
    pub fn add(&mut self, delta: &Delta, with_text: bool) {
        if delta.choice != 0 && delta.kind.is_output() {
            self.other_choices = true;
            return;
        }
        self.any_content |= matches!(delta.kind, DeltaKind::Text(_) | DeltaKind::Refusal(_));
        match &delta.kind {
            DeltaKind::Text(text) | DeltaKind::Refusal(text) | DeltaKind::Reasoning(text) => {
                self.tokens.add(text);
                if with_text {
                    self.answer.add(delta);
                }
            }
            _ => self.answer.add(delta),
        }
    }

    /// Another request begins, since the one to `target` failed: what that said is no part of the answer, and what it cost
    /// is kept in mind.
    pub fn begin_again(&mut self, target: &Target, prompt_tokens: u64) {
        let mut broken_off = std::mem::take(self);
        self.wasted.clone_from(&broken_off.wasted);
        self.wasted.push(broken_off.own_cost(target, prompt_tokens));
        let before = broken_off.earlier.take();
        self.earlier = if broken_off.any_content { Some(Box::new(broken_off)) } else { before };
    }

    /// The person wants it asked once more: what `target` said is no part of the answer, and was paid for.
    pub fn ask_again(&mut self, target: Option<&Target>, prompt_tokens: u64) {
        let before = std::mem::take(self);
        self.wasted.clone_from(&before.wasted);
        self.wasted.push(target.and_then(|target| before.own_cost(target, prompt_tokens)));
    }

    /// The answer is over: where its last request failed and said nothing, what broke off before it stands for the answer.
    pub fn close(&mut self, outcome: &LaneOutcome, prompt_tokens: u64) {
        if outcome.result.is_ok() || !self.is_empty() {
            return;
        }
        let Some(earlier) = self.earlier.take() else { return };
        let last = outcome.attempts.last().and_then(|attempt| self.own_cost(&attempt.target, prompt_tokens));
        let mut wasted = std::mem::replace(self, *earlier).wasted;
        // Its own cost is that of its usage.
        wasted.remove(self.wasted.len());
        wasted.push(last);
        self.wasted = wasted;
    }

    fn own_cost(&self, target: &Target, prompt_tokens: u64) -> Option<(String, f64)> {
        let price = target.price.as_ref()?;
        Some((price.currency.clone(), price.cost(&self.used(prompt_tokens)?)?))
    }

    /// What a request that said something used, thinking included; as reported, or as estimated.
    #[must_use]
    pub fn used(&self, prompt_tokens: u64) -> Option<Usage> {
        let spoke = self.tokens.tokens() > 0;
        self.reported().or_else(|| spoke.then(|| self.estimated(prompt_tokens)))
    }

    /// What the answer cost that used this, with the requests that broke off before it, in the money of whoever answered.
    #[must_use]
    pub fn cost<'o>(&self, usage: Option<&Usage>, outcome: &'o LaneOutcome) -> Option<(f64, &'o str)> {
        let price = outcome.target.as_ref()?.price.as_ref()?;
        let own = usage.and_then(|usage| price.cost(usage));
        let wasted =
            self.wasted.iter().flatten().filter(|(currency, _)| *currency == price.currency).map(|(_, cost)| *cost);
        let sum = own.into_iter().chain(wasted).reduce(|one, other| one + other)?;
        Some((sum, &price.currency))
    }

    /// The usage reported, or ours, marked. Nothing when there was no answer at all, not even thoughts.
    #[must_use]
    pub fn usage(&self, outcome: &LaneOutcome, prompt_tokens: u64) -> Option<Usage> {
        let answered = outcome.result.is_ok() || outcome.cut;
        self.used(prompt_tokens).or_else(|| answered.then(|| self.estimated(prompt_tokens)))
    }

    /// Our own estimate of the usage, marked.
    #[must_use]
    pub fn estimated(&self, prompt_tokens: u64) -> Usage {
        Usage { input: Some(prompt_tokens), output: Some(self.tokens.tokens()), estimated: true, ..Usage::default() }
    }

    /// The usage reported, if it can be so.
    #[must_use]
    pub fn reported(&self) -> Option<Usage> {
        self.answer.usage.filter(Usage::is_believable)
    }

    /// Whether there is nothing to read, not even a call of a tool.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any_content && self.answer.tool_calls.is_empty()
    }
}
