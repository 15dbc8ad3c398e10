//! Implements `--max-cost`: estimates the cost of a plan before anything is sent, and limits its answers accordingly.
//!
//! Does not count what was spent; `[spend]` does.

use super::{Call, Plan};
use crate::model::target::Target;

/// An amount of money.
#[derive(Clone, Debug, PartialEq)]
pub struct Money {
    /// The amount, in units of `currency`.
    pub amount: f64,
    /// The ISO 4217 code.
    pub currency: String,
}

impl std::str::FromStr for Money {
    type Err = String;

    /// Parses `0.05` (US dollars) or `0.3 CNY`, with or without the space. The error says what is expected.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || "expected a number such as 0.05 or 0.3CNY".to_owned();
        let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.trim().len());
        let (amount, currency) = text.trim().split_at(digits);
        let amount: f64 = amount.parse().map_err(|_| invalid())?;
        let currency = currency.trim().to_uppercase();
        let is_code = currency.len() == 3 && currency.bytes().all(|c| c.is_ascii_uppercase());
        if !is_code && !currency.is_empty() {
            return Err(invalid());
        }
        Ok(Self { amount, currency: if currency.is_empty() { "USD".into() } else { currency } })
    }
}

/// The effect of `--max-cost` on a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaxCostResult {
    /// Models it does not cover: they have no price, or one in another currency.
    pub uncovered: Vec<String>,
    /// The lowest limit set on an answer, in tokens; `None`: no answer was limited.
    pub max_output_tokens: Option<u64>,
}

/// Relative tolerance for rounding errors: the minimum that [`apply_max_cost`] returns must be accepted as a limit.
const ROUNDING_TOLERANCE: f64 = 1e-9;

/// The limit of an answer without another limit, in tokens; many models accept no more.
const DEFAULT_MAX_OUTPUT_TOKENS: u64 = 16_384;

/// Limits the answers of `plan` so that it costs at most `max_cost`; `Err`: the minimum cost, which is higher.
/// Each call gets an equal share of what is left after the prompts, at the price of its most expensive candidate.
/// Failed requests that are billed are not counted.
pub fn apply_max_cost(plan: &mut Plan, max_cost: &Money) -> Result<MaxCostResult, f64> {
    let mut result = MaxCostResult::default();
    // The cost of all prompts, the highest cost of a one-token answer, and the number of calls with a price.
    let (mut prompt_cost, mut min_answer_cost, mut priced_calls) = (0.0, 0.0f64, 0usize);
    for call in &plan.calls {
        let tokens = call.estimated_prompt_tokens;
        let candidate_prices = call.candidates.iter().filter_map(|target| prices(target, max_cost));
        if let Some(highest) = candidate_prices.map(|(input, _)| input).reduce(f64::max) {
            #[expect(clippy::cast_precision_loss, reason = "a prompt has fewer than 2^52 tokens")]
            let cost = highest * tokens as f64;
            prompt_cost += cost;
            priced_calls += 1;
        }
        let candidate_prices = call.candidates.iter().filter_map(|target| prices(target, max_cost));
        min_answer_cost = candidate_prices.map(|(_, output)| output * choices(call)).fold(min_answer_cost, f64::max);
        let uncovered = call.candidates.iter().filter(|target| prices(target, max_cost).is_none());
        result.uncovered.extend(uncovered.map(|target| target.id.to_string()));
    }
    if priced_calls == 0 {
        return Ok(result);
    }
    #[expect(clippy::cast_precision_loss, reason = "few calls")]
    let priced_calls = priced_calls as f64;
    let (share, minimum) =
        ((max_cost.amount - prompt_cost) / priced_calls, prompt_cost + min_answer_cost * priced_calls);
    for call in &mut plan.calls {
        let candidate_prices = call.candidates.iter().filter_map(|target| prices(target, max_cost));
        let Some(highest) = candidate_prices.map(|(_, output)| output).reduce(f64::max) else { continue };
        if share <= 0.0 {
            return Err(minimum);
        }
        if highest <= 0.0 {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let affordable = (share / (highest * choices(call)) * (1.0 + ROUNDING_TOLERANCE)) as u64;
        if affordable == 0 {
            return Err(minimum);
        }
        let limits =
            call.candidates.iter().map(|target| call.request.max_tokens().or(target.params.max_output_tokens()));
        let limits: Vec<Option<u64>> = limits.collect();
        let max_limit = limits.iter().flatten().max().copied();
        let requested_limit = max_limit.filter(|_| limits.iter().all(Option::is_some));
        // Services reject a limit above what the model can write.
        let limit =
            affordable.min(requested_limit.unwrap_or(DEFAULT_MAX_OUTPUT_TOKENS.max(max_limit.unwrap_or_default())));
        call.update_request(|request| request.set_budget_max_tokens(limit));
        if requested_limit.is_none_or(|requested_limit| limit < requested_limit) {
            result.max_output_tokens = Some(result.max_output_tokens.map_or(limit, |lowest| lowest.min(limit)));
        }
    }
    Ok(result)
}

/// How many choices a call requests (`n`).
#[expect(clippy::cast_precision_loss, reason = "few answers")]
fn choices(call: &Call) -> f64 {
    let configured = call.candidates.iter().filter_map(|target| target.params.choice_count()).max();
    call.request.choice_count().or(configured).unwrap_or(1) as f64
}

/// The price of an input token and an output token, if it is in the currency of the limit.
fn prices(target: &Target, max_cost: &Money) -> Option<(f64, f64)> {
    let price = target.price.as_ref().filter(|price| price.currency == max_cost.currency)?;
    Some((price.input / 1e6, price.output / 1e6))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        ChatRequest, Message, ModelRequest, Params, Role,
        target::{Price, testing},
    };

    fn plan(prices: &[Option<f64>]) -> Plan {
        let messages = vec![Message::text(Role::User, "four".repeat(1000))];
        let call = |price: &Option<f64>| {
            let price = price.map(|output| Price { input: 1.0, output, cached_input: None, currency: "USD".into() });
            let chat = ChatRequest { messages: messages.clone(), ..ChatRequest::default() };
            let target = Target { price, ..testing::target("a") };
            Call::single("a", Arc::new(ModelRequest::Chat(chat)), Arc::new(target))
        };
        Plan { calls: prices.iter().map(call).collect(), max_concurrent: None }
    }

    fn token_limits(plan: &Plan) -> Vec<Option<u64>> {
        let limit = |call: &Call| call.request.as_chat().and_then(|chat| chat.budget_max_tokens);
        plan.calls.iter().map(limit).collect()
    }

    #[test]
    fn requested_limits_above_the_cost_limit_are_lowered() {
        let usd = Money { amount: 0.002, currency: "USD".into() };
        let with = |name: &str, value: u64| {
            let mut plan = plan(&[Some(10.0)]);
            let chat = Arc::make_mut(&mut plan.calls[0].request).as_chat_mut().expect("the plan has chat requests");
            chat.params.extra.insert(name.into(), value.into());
            apply_max_cost(&mut plan, &usd).expect("the prompt costs half of it");
            token_limits(&plan)[0]
        };
        assert_eq!((with("max_tokens", 100_000), with("max_completion_tokens", 100_000)), (Some(100), Some(100)));
        assert_eq!((with("n", 10), with("max_tokens", 7)), (Some(10), Some(7)));
        let mut several = plan(&[Some(10.0)]);
        let own = Params { extra: [("n".into(), 5.into())].into_iter().collect(), ..Params::default() };
        Arc::make_mut(&mut several.calls[0].candidates[0]).params = own;
        assert_eq!((apply_max_cost(&mut several, &usd).is_ok(), token_limits(&several)), (true, vec![Some(20)]));
        let tight = Money { amount: 0.00104, currency: "USD".into() };
        assert!(
            apply_max_cost(&mut several, &tight).is_err_and(|minimum| (minimum - 0.00105).abs() < 1e-9),
            "at least five tokens"
        );
    }

    #[test]
    fn limit_of_one_candidate_does_not_apply_to_the_others() {
        let mut plan = plan(&[Some(10.0)]);
        let own = Params { max_tokens: Some(7), ..Params::default() };
        let short = Target { params: own, ..(*plan.calls[0].candidates[0]).clone() };
        plan.calls[0].candidates.push(Arc::new(short.clone()));
        let capped =
            apply_max_cost(&mut plan, &Money { amount: 1000.0, currency: "USD".into() }).expect("far above the cost");
        assert_eq!(
            (token_limits(&plan), capped.max_output_tokens),
            (vec![Some(DEFAULT_MAX_OUTPUT_TOKENS)], Some(DEFAULT_MAX_OUTPUT_TOKENS))
        );
        plan.calls[0].candidates = vec![Arc::new(short)];
        let capped =
            apply_max_cost(&mut plan, &Money { amount: 1000.0, currency: "USD".into() }).expect("far above the cost");
        assert_eq!((token_limits(&plan), capped.max_output_tokens), (vec![Some(7)], None));
    }

    #[test]
    fn amount_is_parsed_with_its_currency() {
        let parse = |text: &str| text.parse::<Money>().map(|money| (money.amount, money.currency));
        assert_eq!(parse("0.05"), Ok((0.05, "USD".into())));
        assert_eq!(parse("3 cny"), Ok((3.0, "CNY".into())));
        for invalid in ["", "-1", "1 dollar", "NaN", "x"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn answers_are_limited_to_what_the_budget_allows() {
        let usd = |amount| Money { amount, currency: "USD".into() };
        // The prompt of 1,000 tokens costs 0.001.
        let mut one = plan(&[Some(10.0)]);
        assert_eq!(apply_max_cost(&mut one, &usd(0.002)).map(|capped| capped.max_output_tokens), Ok(Some(100)));
        assert_eq!(token_limits(&one), [Some(100)]);
        let mut two = plan(&[Some(10.0), Some(5.0), None]);
        let capped = apply_max_cost(&mut two, &usd(0.004)).expect("the prompts cost half of it");
        assert_eq!((token_limits(&two), capped.uncovered.len()), (vec![Some(100), Some(200), None], 1));
        let mut rich = plan(&[Some(10.0)]);
        assert_eq!(
            apply_max_cost(&mut rich, &usd(1000.0)).map(|capped| capped.max_output_tokens),
            Ok(Some(DEFAULT_MAX_OUTPUT_TOKENS))
        );
        assert_eq!(apply_max_cost(&mut plan(&[Some(10.0)]), &usd(0.0009)), Err(0.001 + 0.000_01));
        // The returned minimum is accepted, and anything less is not.
        for outputs in [&[Some(10.0), Some(100.0)][..], &[Some(0.3), None, Some(0.7)]] {
            let minimum = apply_max_cost(&mut plan(outputs), &usd(0.0)).expect_err("prompts cost more than nothing");
            assert!(
                apply_max_cost(&mut plan(outputs), &usd(minimum)).is_ok()
                    && apply_max_cost(&mut plan(outputs), &usd(minimum * 0.999)).is_err()
            );
        }
        assert_eq!(apply_max_cost(&mut plan(&[None]), &usd(0.0)).map(|capped| capped.max_output_tokens), Ok(None));
    }
}
