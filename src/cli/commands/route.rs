//! `mmchat route explain`: shows the candidates of a route in the order they would be tried, and why.

use std::{sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::remaining_time;
use crate::cli::{
    CliError, Context,
    support::{completion::CompletionKind, exit::Exit, list_format::ListArgs},
};
use crate::{
    config::Flags,
    engine::{ExplainedCandidate, plan},
    model::{ChatRequest, Message, ModelRequest, Role},
    render::{notice::format_duration, table::Table},
    routing::{OnIncomplete, RoutePolicy, health::Availability, strategy::Strategy},
    term::output::write_stderr,
};

/// Explain how a route chooses among its models
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat route explain chat\n  \
      mmchat route explain chat --tokens 100000")]
pub(crate) struct RouteArgs {
    #[command(subcommand)]
    command: RouteCommand,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    Explain(ExplainArgs),
}

/// Show which candidates would be tried, in which order, and why; no request is sent
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat route explain chat\n  \
      mmchat route explain chat --tokens 100000\n  \
      mmchat route explain chat --format json")]
struct ExplainArgs {
    /// Route or model
    #[arg(value_name = "NAME", add = CompletionKind::ModelsAndRoutes.completer())]
    name: String,
    /// Explain the route for a prompt of this many tokens
    #[arg(
        long,
        value_name = "TOKENS",
        allow_negative_numbers = true,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=2_000_000)
    )]
    tokens: u32,
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) fn run(args: &RouteArgs, context: &Context) -> Result<Exit, CliError> {
    let RouteCommand::Explain(args) = &args.command;
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    // The token estimate counts four letters as one token.
    let messages = vec![Message::text(Role::User, "four".repeat(args.tokens as usize))];
    let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, ..ChatRequest::default() }));
    let call = plan::resolve_call(&config, Some(&args.name), &request, OnIncomplete::Error)?;
    let engine = context.engine_for(&config, config.history.store_content);
    let explained = engine.explain(&call);
    let policy = call.route.clone().unwrap_or_default();
    let now = Timestamp::now();
    let mut table = Table::new(&["order", "model", "endpoint", "state", "reason"]);
    let tokens = u64::from(args.tokens);
    // A prompt that fits no candidate excludes none of them.
    let fits_any = explained.iter().any(|candidate| candidate.target.fits_context(tokens));
    let exclusion_of = |candidate: &ExplainedCandidate| exclusion_reason(candidate, tokens, fits_any);
    let mut positions = 1..;
    for candidate in &explained {
        let (availability, target) = (candidate.state.availability, &candidate.target);
        let exclusion = exclusion_of(candidate);
        let state = match remaining_time(availability, now) {
            Some(remaining) => format!("{} {}", candidate.health_state.as_str(), format_duration(remaining)),
            None => candidate.health_state.as_str().to_owned(),
        };
        let position = if exclusion.is_some() { String::new() } else { positions.next().unwrap_or(0).to_string() };
        let mut reason = exclusion.unwrap_or_else(|| order_reason(candidate, &policy, call.candidates.len()));
        if let Some(error) = &candidate.spend_check_error {
            reason = format!("{reason}; its spend limits cannot be checked: {error}");
        }
        table.add_row(vec![position, target.id.to_string(), target.endpoint.name.clone(), state, reason]);
        if availability != Availability::Available {
            table.highlight_last_row();
        }
    }
    let document = json!({
        "name": call.name,
        "strategy": policy.strategy.as_str(),
        "sticky": policy.sticky,
        "hedge_after_ms": policy.hedge_after.map(|after| after.as_secs_f64() * 1e3),
        "candidates": explained.iter().map(|candidate| candidate_json(candidate, &policy, exclusion_of(candidate).as_deref(), now)).collect::<Vec<_>>(),
    });
    args.list.print(context, &[table], &document)?;
    if args.list.is_text() {
        write_stderr(&format!("{}\n", describe_strategy(&policy, call.candidates.len())));
    }
    Ok(Exit::Ok)
}

/// Why a candidate would not be tried at all.
fn exclusion_reason(candidate: &ExplainedCandidate, tokens: u64, fits_any: bool) -> Option<String> {
    let too_small = candidate.target.context_window.filter(|_| fits_any && !candidate.target.fits_context(tokens));
    too_small
        .map(|context| format!("skipped: its context window is {context} tokens"))
        .or_else(|| candidate.spend_limit_reached.as_ref().map(|limit| format!("skipped: {limit}")))
}

fn order_reason(candidate: &ExplainedCandidate, policy: &RoutePolicy, count: usize) -> String {
    let state = &candidate.state;
    let rule = match policy.strategy {
        _ if count == 1 => "only candidate".to_owned(),
        _ if policy.sticky => "by hash of the affinity key".to_owned(),
        Strategy::Priority | Strategy::LeastBusy => "config order".to_owned(),
        Strategy::Weighted => format!("weight {}", state.weight),
        Strategy::Fastest => match state.latency_ms {
            Some(ms) => format!("recent TTFT {}", format_duration(Duration::from_secs_f64(ms / 1e3))),
            None => "no TTFT measured: ranked at the median".to_owned(),
        },
        Strategy::Cheapest => match state.cost {
            Some(cost) => format!("about {cost:.6} for this prompt and a typical answer"),
            None => "no price: after the candidates with one".to_owned(),
        },
    };
    match &candidate.last_error {
        Some(error) => format!("{rule}; last error: {error}"),
        None => rule,
    }
}

/// Describes the strategy in one line.
fn describe_strategy(policy: &RoutePolicy, count: usize) -> String {
    let rule = match policy.strategy {
        _ if count == 1 => "single model: always tried, whatever its state",
        _ if policy.sticky => "sticky: requests with the same affinity key go to the same model while it is available",
        Strategy::Priority => "priority: in config order, unavailable candidates last",
        Strategy::Weighted => "weighted: drawn by weight for each command; this is one draw",
        Strategy::LeastBusy => "least-busy: a single command uses config order",
        Strategy::Fastest => {
            "fastest: the faster of two random candidates, and any candidate in 1 of 20 cases; this is one draw"
        }
        Strategy::Cheapest => "cheapest: by price for this prompt",
    };
    match policy.hedge_after {
        Some(after) if count > 1 => {
            format!("{rule}; the next candidate is tried as a hedge after {}", format_duration(after))
        }
        _ => rule.to_owned(),
    }
}

fn candidate_json(
    candidate: &ExplainedCandidate,
    policy: &RoutePolicy,
    exclusion: Option<&str>,
    now: Timestamp,
) -> Value {
    let state = &candidate.state;
    let until = state.availability.until().map(|until| until.to_string());
    json!({
        "model": candidate.target.id.0,
        "endpoint": candidate.target.endpoint.name,
        "state": candidate.health_state.as_str(),
        "until": until,
        "cause": candidate.last_error,
        "seconds_left": remaining_time(state.availability, now).map(|remaining| remaining.as_secs_f64()),
        "weight": (policy.strategy == Strategy::Weighted).then_some(state.weight),
        "ttft_ms": state.latency_ms,
        "expected_cost": state.cost,
        "blame": candidate.last_error,
        "not_asked": exclusion,
        "unchecked": candidate.spend_check_error,
    })
}
