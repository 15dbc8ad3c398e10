//! What a run may cost: `--max-cost`.
//!
//! Owns the estimate before anything is sent, and the limit of each answer that follows from it. Refuses the record of what
//! was spent: that is `[spend]`'s.

use super::{Lane, Plan};
use crate::model::target::Target;

/// A sum of money.
#[derive(Clone, Debug, PartialEq)]
pub struct Money {
    /// How much.
    pub amount: f64,
    /// ISO 4217 code.
    pub currency: String,
}

impl std::str::FromStr for Money {
    type Err = String;

    /// Reads `0.05`, which is in US dollars, or `0.3 CNY`, with or without the space.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no sum: write it like 0.05 or 0.3CNY");
        let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.trim().len());
        let (amount, currency) = text.trim().split_at(digits);
        let amount: f64 = amount.parse().map_err(|_| wrong())?;
        let currency = currency.trim().to_uppercase();
        let is_code = currency.len() == 3 && currency.bytes().all(|c| c.is_ascii_uppercase());
        if !is_code && !currency.is_empty() {
            return Err(wrong());
        }
        Ok(Self { amount, currency: if currency.is_empty() { "USD".into() } else { currency } })
    }
}

/// What `--max-cost` made of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capped {
    /// Models it says nothing about: they have no price, or one in other money.
    pub uncovered: Vec<String>,
    /// The longest answer, in tokens, where one was limited.
    pub longest: Option<u64>,
}

/// What sums of floats may be off: the least that is told must be enough.
const ROUNDING: f64 = 1e-9;

/// As long as answers get where nobody says so; many models write no more.
const LONGEST: u64 = 16_384;

/// Limits the answers of `plan` so that it costs no more than `most`, or says what it would cost at least. Each lane gets
/// an equal share of what its prompts leave; a lane is as dear as its dearest candidate. Requests that fail and are billed
/// all the same are not counted.
pub fn cap(plan: &mut Plan, most: &Money) -> Result<Capped, f64> {
    let mut capped = Capped::default();
    // The prompts, and the dearest of the shortest answers there are.
    let (mut prompts, mut shortest, mut paid) = (0.0, 0.0f64, 0usize);
    for lane in &plan.lanes {
        let tokens = lane.prompt_tokens;
        let costs = lane.candidates.iter().filter_map(|target| prices(target, most));
        if let Some(dearest) = costs.map(|(input, _)| input).reduce(f64::max) {
            #[expect(clippy::cast_precision_loss, reason = "a prompt has fewer than 2^52 tokens")]
            let cost = dearest * tokens as f64;
            prompts += cost;
            paid += 1;
        }
        let costs = lane.candidates.iter().filter_map(|target| prices(target, most));
        shortest = costs.map(|(_, output)| output * choices(lane)).fold(shortest, f64::max);
        let uncovered = lane.candidates.iter().filter(|target| prices(target, most).is_none());
        capped.uncovered.extend(uncovered.map(|target| target.id.to_string()));
    }
    if paid == 0 {
        return Ok(capped);
    }
    #[expect(clippy::cast_precision_loss, reason = "few lanes")]
    let paid = paid as f64;
    let (share, least) = ((most.amount - prompts) / paid, prompts + shortest * paid);
    for lane in &mut plan.lanes {
        let costs = lane.candidates.iter().filter_map(|target| prices(target, most));
        let Some(dearest) = costs.map(|(_, output)| output).reduce(f64::max) else { continue };
        if share <= 0.0 {
            return Err(least);
        }
        if dearest <= 0.0 {
            continue;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let affordable = (share / (dearest * choices(lane)) * (1.0 + ROUNDING)) as u64;
        if affordable == 0 {
            return Err(least);
        }
        let limits = lane.candidates.iter().map(|target| lane.call.max_tokens().or(target.params.most_tokens()));
        let limits: Vec<Option<u64>> = limits.collect();
        let longest = limits.iter().flatten().max().copied();
        let wanted = longest.filter(|_| limits.iter().all(Option::is_some));
        // A limit beyond what models write is refused by their services.
        let limit = affordable.min(wanted.unwrap_or(LONGEST.max(longest.unwrap_or_default())));
        lane.change(|call| call.cap(limit));
        if wanted.is_none_or(|wanted| limit < wanted) {
            capped.longest = Some(capped.longest.map_or(limit, |longest| longest.min(limit)));
        }
    }
    Ok(capped)
}

/// How many answers a lane may ask for at once.
#[expect(clippy::cast_precision_loss, reason = "few answers")]
fn choices(lane: &Lane) -> f64 {
    let own = lane.candidates.iter().filter_map(|target| target.params.choices()).max();
    lane.call.choices().or(own).unwrap_or(1) as f64
}

/// What a token of input and of output costs, in the limit's money.
fn prices(target: &Target, most: &Money) -> Option<(f64, f64)> {
    let price = target.price.as_ref().filter(|price| price.currency == most.currency)?;
    Some((price.input / 1e6, price.output / 1e6))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Call, ChatRequest, Message, Params, Role,
        target::{Price, testing},
    };

    fn plan(prices: &[Option<f64>]) -> Plan {
        let messages = vec![Message::text(Role::User, "four".repeat(1000))];
        let lane = |price: &Option<f64>| {
            let price = price.map(|output| Price { input: 1.0, output, cached_input: None, currency: "USD".into() });
            let chat = ChatRequest { messages: messages.clone(), ..ChatRequest::default() };
            let target = Target { price, ..testing::target("a") };
            Lane::alone("a", Arc::new(Call::Chat(chat)), Arc::new(target))
        };
        Plan { lanes: prices.iter().map(lane).collect(), at_once: None }
    }

    fn longest(plan: &Plan) -> Vec<Option<u64>> {
        let limit = |lane: &Lane| lane.call.chat().and_then(|chat| chat.capped);
        plan.lanes.iter().map(limit).collect()
    }

    #[test]
    fn whatever_else_limits_the_answer_is_held_to_it_too() {
        let usd = Money { amount: 0.002, currency: "USD".into() };
        let with = |name: &str, value: u64| {
            let mut plan = plan(&[Some(10.0)]);
            let chat = Arc::make_mut(&mut plan.lanes[0].call).chat_mut().expect("a chat");
            chat.params.extra.insert(name.into(), value.into());
            cap(&mut plan, &usd).expect("enough");
            longest(&plan)[0]
        };
        assert_eq!((with("max_tokens", 100_000), with("max_completion_tokens", 100_000)), (Some(100), Some(100)));
        assert_eq!((with("n", 10), with("max_tokens", 7)), (Some(10), Some(7)));
        let mut several = plan(&[Some(10.0)]);
        let own = Params { extra: [("n".into(), 5.into())].into_iter().collect(), ..Params::default() };
        Arc::make_mut(&mut several.lanes[0].candidates[0]).params = own;
        assert_eq!((cap(&mut several, &usd).is_ok(), longest(&several)), (true, vec![Some(20)]));
        let tight = Money { amount: 0.00104, currency: "USD".into() };
        assert!(cap(&mut several, &tight).is_err_and(|least| (least - 0.00105).abs() < 1e-9), "five tokens at least");
    }

    #[test]
    fn a_candidates_own_limit_is_not_the_others() {
        let mut plan = plan(&[Some(10.0)]);
        let own = Params { max_tokens: Some(7), ..Params::default() };
        let short = Target { params: own, ..(*plan.lanes[0].candidates[0]).clone() };
        plan.lanes[0].candidates.push(Arc::new(short.clone()));
        let capped = cap(&mut plan, &Money { amount: 1000.0, currency: "USD".into() }).expect("enough");
        assert_eq!((longest(&plan), capped.longest), (vec![Some(LONGEST)], Some(LONGEST)));
        plan.lanes[0].candidates = vec![Arc::new(short)];
        let capped = cap(&mut plan, &Money { amount: 1000.0, currency: "USD".into() }).expect("enough");
        assert_eq!((longest(&plan), capped.longest), (vec![Some(7)], None));
    }

    #[test]
    fn sums_are_read_with_their_currency() {
        let read = |text: &str| text.parse::<Money>().map(|money| (money.amount, money.currency));
        assert_eq!(read("0.05"), Ok((0.05, "USD".into())));
        assert_eq!(read("3 cny"), Ok((3.0, "CNY".into())));
        for wrong in ["", "-1", "1 dollar", "NaN", "x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_as_long_as_the_money_lasts() {
        let usd = |amount| Money { amount, currency: "USD".into() };
        // The prompt of 1,000 tokens costs 0.001.
        let mut one = plan(&[Some(10.0)]);
        assert_eq!(cap(&mut one, &usd(0.002)).map(|capped| capped.longest), Ok(Some(100)));
        assert_eq!(longest(&one), [Some(100)]);
        let mut two = plan(&[Some(10.0), Some(5.0), None]);
        let capped = cap(&mut two, &usd(0.004)).expect("enough");
        assert_eq!((longest(&two), capped.uncovered.len()), (vec![Some(100), Some(200), None], 1));
        let mut rich = plan(&[Some(10.0)]);
        assert_eq!(cap(&mut rich, &usd(1000.0)).map(|capped| capped.longest), Ok(Some(LONGEST)));
        assert_eq!(cap(&mut plan(&[Some(10.0)]), &usd(0.0009)), Err(0.001 + 0.000_01));
        // What is told to be the least is enough, and nothing less is.
        for outputs in [&[Some(10.0), Some(100.0)][..], &[Some(0.3), None, Some(0.7)]] {
            let least = cap(&mut plan(outputs), &usd(0.0)).expect_err("nothing");
            assert!(
                cap(&mut plan(outputs), &usd(least)).is_ok() && cap(&mut plan(outputs), &usd(least * 0.999)).is_err()
            );
        }
        assert_eq!(cap(&mut plan(&[None]), &usd(0.0)).map(|capped| capped.longest), Ok(None));
    }
}
