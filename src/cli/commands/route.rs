//! `mmchat route explain`: who would be asked, in which order, and why.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{left, state};
use crate::cli::{
    CliError, Context,
    support::{complete::Offer, exit::Exit, list_format::ListArgs},
};
use crate::{
    config::Flags,
    engine::{Explained, plan},
    model::{Call, ChatRequest, Message, Role},
    render::{notice::duration, table::Table},
    routing::{OnCut, Policy, health::Standing, strategy::Strategy},
    term::output::say,
};

/// Routes of the config
#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    Explain(ExplainArgs),
}

/// Who would be asked, in which order, and why; nobody is asked
#[derive(Debug, Args)]
struct ExplainArgs {
    /// A route; a model is a route of one
    #[arg(value_name = "NAME", add = Offer::Askable.completer())]
    name: String,
    /// For a prompt of so many tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=2_000_000))]
    tokens: u32,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) fn run(args: &RouteArgs, context: &Context) -> Result<Exit, CliError> {
    let RouteCommand::Explain(args) = &args.command;
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    // Four letters are a token.
    let messages = vec![Message::text(Role::User, "four".repeat(args.tokens as usize))];
    let call = Arc::new(Call::Chat(ChatRequest { messages, ..ChatRequest::default() }));
    let lane = plan::lane(&config, Some(&args.name), &call, OnCut::Error)?;
    let engine = context.engine_for(&config, config.history.on);
    let explained = engine.explain(&lane);
    let policy = lane.route.clone().unwrap_or_default();
    let now = Timestamp::now();
    let mut table = Table::new(&["turn", "model", "endpoint", "state", "why here"]);
    let tokens = u64::from(args.tokens);
    // When it is too long for everybody, everybody is asked all the same.
    let fits_somebody = explained.iter().any(|candidate| candidate.target.fits(tokens));
    let (cannot, mut turns) = (|candidate: &Explained| cannot(candidate, tokens, fits_somebody), 1..);
    for candidate in &explained {
        let (standing, target) = (candidate.seat.standing, &candidate.target);
        let cannot = cannot(candidate);
        let shown = match left(standing, now) {
            Some(left) => format!("{} {}", state(standing), duration(left)),
            None => state(standing).to_owned(),
        };
        let turn = if cannot.is_some() { String::new() } else { turns.next().unwrap_or(0).to_string() };
        let mut why = cannot.unwrap_or_else(|| why(candidate, &policy, lane.candidates.len()));
        if let Some(trouble) = &candidate.unchecked {
            why = format!("{why}; its spend limits cannot be checked: {trouble}");
        }
        table.row(vec![turn, target.id.to_string(), target.endpoint.name.clone(), shown, why]);
        if standing != Standing::Free {
            table.mark_bad();
        }
    }
    let document = json!({
        "name": lane.name,
        "strategy": policy.strategy.as_str(),
        "sticky": policy.sticky,
        "hedge_after_ms": policy.hedge_after.map(|after| after.as_secs_f64() * 1e3),
        "candidates": explained.iter().map(|candidate| object(candidate, &policy, cannot(candidate).as_deref(), now)).collect::<Vec<_>>(),
    });
    args.list.print(context, &[table], &document)?;
    if args.list.is_text() {
        say(&format!("{}\n", rule(&policy, lane.candidates.len())));
    }
    Ok(Exit::Ok)
}

/// Why a candidate is not asked at all.
fn cannot(candidate: &Explained, tokens: u64, fits_somebody: bool) -> Option<String> {
    let small = candidate.target.context.filter(|_| fits_somebody && !candidate.target.fits(tokens));
    small
        .map(|context| format!("not asked: its context is {context} tokens"))
        .or_else(|| candidate.spent.as_ref().map(|spent| format!("not asked: {spent}")))
}

fn why(candidate: &Explained, policy: &Policy, count: usize) -> String {
    let seat = &candidate.seat;
    let rule = match policy.strategy {
        _ if count == 1 => "the only one".to_owned(),
        _ if policy.sticky => "by the hash of who asks".to_owned(),
        Strategy::Priority | Strategy::LeastBusy => "in the order of the config".to_owned(),
        Strategy::Weighted => format!("weight {}", seat.weight),
        Strategy::Fastest => match seat.latency {
            Some(ms) => format!("began after {} lately", duration(Duration::from_secs_f64(ms / 1e3))),
            None => "never timed: taken for one in the middle".to_owned(),
        },
        Strategy::Cheapest => match seat.cost {
            Some(cost) => format!("about {cost:.6} for this prompt and a common answer"),
            None => "no price: after those with one".to_owned(),
        },
    };
    match &candidate.blame {
        Some(blame) => format!("{rule}; after {blame}"),
        None => rule,
    }
}

/// The rule in words.
fn rule(policy: &Policy, count: usize) -> String {
    let rule = match policy.strategy {
        _ if count == 1 => "one model: it is asked whatever is known of it",
        _ if policy.sticky => "sticky: what belongs together goes to one model while it is well",
        Strategy::Priority => "priority: in order, those that are left alone last",
        Strategy::Weighted => "weighted: drawn by weight for each command, this time so",
        Strategy::LeastBusy => "least-busy: a command asks in order",
        Strategy::Fastest => "fastest: the better of two drawn by chance, this time so; anybody once in twenty",
        Strategy::Cheapest => "cheapest: by price for the prompt",
    };
    match policy.hedge_after {
        Some(after) if count > 1 => format!("{rule}; the next one is asked as well after {}", duration(after)),
        _ => rule.to_owned(),
    }
}

fn object(candidate: &Explained, policy: &Policy, cannot: Option<&str>, now: Timestamp) -> Value {
    let seat = &candidate.seat;
    json!({
        "model": candidate.target.id.0,
        "endpoint": candidate.target.endpoint.name,
        "state": state(seat.standing),
        "seconds_left": left(seat.standing, now).map(|left| left.as_secs_f64()),
        "weight": (policy.strategy == Strategy::Weighted).then_some(seat.weight),
        "ttft_ms": seat.latency,
        "expected_cost": seat.cost,
        "blame": candidate.blame,
        "not_asked": cannot,
        "unchecked": candidate.unchecked,
    })
}
