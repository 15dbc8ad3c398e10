//! `mmchat retry`: what failed, asked once more, in its place.

use std::sync::Arc;

use clap::Args;

use super::{
    ask::{AnswerArgs, Asking},
    compare::{Comparison, Shown, interruption},
};
use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        request::{HowArgs, RequestArgs},
        turn_ref::{Conversation, LAST, Place, Thread},
    },
};
use crate::{
    engine::plan::{self, Plan},
    model::Call,
    store::record::{Exchange, GoesOn},
    term::{keyboard::Modes, output::say},
};

/// Ask once more what failed; the answer takes its place
///
/// The model, the prompt and what came before are the same; parameters are those of the model and of this command.
#[derive(Debug, Args)]
#[command(after_help = "mmchat retry         all that failed in the last comparison\n\
    mmchat retry 12@2    the second answer of conversation 12, even if it is whole")]
pub(crate) struct RetryArgs {
    /// A conversation, or one answer of it: 12, 12@2, @2; the last one unless given
    #[arg(value_name = "ID", default_value = LAST)]
    place: String,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    how: HowArgs,
}

pub(crate) fn run(args: &RetryArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = Modes::save();
    let interruption = interruption(modes.as_ref())?;
    let request = RequestArgs::with(&args.how);
    let (config, layers) = context.config(context.layers(request.flags())?)?;
    let shown = Shown::new(context, &layers, &args.how, "auto")?;
    let place: Place = args.place.parse()?;
    let conversation = Conversation::get(context, place)?;
    let chosen = chosen(&conversation, place)?;
    let threads: Vec<Thread> = chosen.iter().map(|exchange| Thread::new(&conversation, exchange)).collect();
    if let Some(warning) = threads.iter().find_map(Thread::lacking) {
        say(&format!("warning: {warning}\n"));
    }
    let calls: Vec<Arc<Call>> = threads.iter().map(|thread| Arc::new(thread.again(request.streamed()))).collect();
    let goes_on = GoesOn::Instead(chosen.iter().map(|exchange| exchange.id).collect());
    if let ([exchange], [call]) = (chosen.as_slice(), calls.as_slice()) {
        let mut layers = layers;
        layers.model.value = Some(exchange.asked.clone());
        let (context, config, layers, request) = (context, &config, &layers, &request);
        let asking = Asking { context, config, layers, request, answer: &args.answer, command: "retry", goes_on };
        return asking.run(call, &interruption);
    }
    if args.answer.dry_run {
        return Err(CliError::usage("--dry-run prints one request", format!("name one: {}", chosen[0].place())));
    }
    let lanes = chosen.iter().zip(&calls).map(|(exchange, call)| {
        plan::lane(&config, Some(&exchange.asked), call, shown.on_cut()).map_err(CliError::from)
    });
    let plan = Plan { lanes: lanes.collect::<Result<_, _>>()?, at_once: Some(plan::AT_ONCE) };
    let (config, layers, request) = (&config, &layers, &request);
    let comparison =
        Comparison { context, config, layers, request, keep: &args.answer.keep, shown, modes, extras: None };
    comparison.run(plan, ("retry", goes_on), &interruption)
}

/// The answer that is named, else those of the last round that are not whole.
fn chosen(conversation: &Conversation, place: Place) -> Result<Vec<&Exchange>, CliError> {
    if place.number.is_some() {
        return Ok(conversation.answer(place)?.into_iter().collect());
    }
    let round = conversation.round(place)?;
    let failed: Vec<&Exchange> = round.iter().filter(|exchange| exchange.class.is_some()).collect();
    if failed.is_empty() {
        return Err(CliError::usage(
            format!("nothing failed in conversation {}", conversation.number()),
            format!("name the answer that is to be had again: {}", round[0].place()),
        ));
    }
    Ok(failed)
}
