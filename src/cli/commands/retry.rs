//! `mmchat retry`: repeats failed calls and replaces their stored answers.

use std::sync::Arc;

use clap::Args;

use super::{
    ask::{AnswerArgs, AskRun},
    compare::{CompareDisplay, CompareRun, listen_for_interruption},
};
use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        request::{OutputArgs, RequestArgs},
        turn_ref::{HistoryPrefix, LAST, StoredConversation, TurnRef},
    },
};
use crate::{
    engine::plan::{self, Plan},
    model::ModelRequest,
    store::record::{Continuation, StoredTurn},
    term::{keyboard::TerminalModes, output::write_stderr},
};

/// Repeat failed calls, and replace their answers in the history
#[derive(Debug, Args)]
#[command(
    after_help = "The model, the prompt and the history are the same. Parameters such as the temperature are those of \
    the config, not those of the earlier call.\n\n\
    Examples:\n  \
    mmchat retry         Repeat the failed calls of the last round\n  \
    mmchat retry 12@2    Repeat this answer, even if it is complete"
)]
pub(crate) struct RetryArgs {
    /// A conversation, or one answer of it, such as 12, 12@2 or @2
    #[arg(value_name = "ID", default_value = LAST)]
    turn: String,
    #[command(flatten)]
    output_args: OutputArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

pub(crate) fn run(args: &RetryArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = TerminalModes::save();
    let interruption = listen_for_interruption(modes.as_ref())?;
    let request_args = RequestArgs::from_output_args(&args.output_args);
    let (config, mut settings) = context.config(context.settings(request_args.flags())?)?;
    let display = CompareDisplay::new(context, &settings, &args.output_args, "auto")?;
    let turn_ref: TurnRef = args.turn.parse()?;
    let conversation = StoredConversation::find_required(context, turn_ref, "no stored calls to repeat")?;
    let turns = select_answers(&conversation, turn_ref)?;
    let histories: Vec<HistoryPrefix> = turns.iter().map(|turn| HistoryPrefix::new(&conversation, turn)).collect();
    if let Some(warning) = histories.iter().find_map(HistoryPrefix::missing_warning) {
        write_stderr(&format!("warning: {warning}\n"));
    }
    let model_requests: Vec<Arc<ModelRequest>> =
        histories.iter().map(|history| Arc::new(history.repeat_request(request_args.is_streaming()))).collect();
    let continuation = Continuation::Replace(turns.iter().map(|turn| turn.id).collect());
    if let ([turn], [model_request]) = (turns.as_slice(), model_requests.as_slice()) {
        settings.model.value = Some(turn.requested.clone());
        let run = AskRun {
            context,
            config: &config,
            settings: &settings,
            request_args: &request_args,
            answer_args: &args.answer,
            command: "retry",
            continuation,
        };
        return run.run(model_request, &interruption);
    }
    if args.answer.dry_run {
        return Err(CliError::usage(
            "--dry-run prints one request",
            format!("name one answer: run \"mmchat retry {} --dry-run\"", turns[0].reference()),
        ));
    }
    let calls = turns.iter().zip(&model_requests).map(|(turn, model_request)| {
        plan::resolve_call(&config, Some(&turn.requested), model_request, display.on_incomplete())
            .map_err(CliError::from)
    });
    let plan = Plan { calls: calls.collect::<Result<_, _>>()?, max_concurrent: Some(plan::MAX_CONCURRENT_CALLS) };
    let comparison = CompareRun {
        context,
        config: &config,
        settings: &settings,
        request_args: &request_args,
        recording: &args.answer.recording,
        display,
        modes,
        post_processing: None,
    };
    comparison.run(plan, ("retry", continuation), &interruption)
}

/// The referenced answer, else the failed and incomplete answers of the round.
fn select_answers(conversation: &StoredConversation, turn_ref: TurnRef) -> Result<Vec<&StoredTurn>, CliError> {
    if turn_ref.answer.is_some() {
        return Ok(conversation.answer(turn_ref)?.into_iter().collect());
    }
    let round = conversation.round(turn_ref)?;
    let failed: Vec<&StoredTurn> = round.iter().filter(|turn| turn.class.is_some()).collect();
    if failed.is_empty() {
        return Err(CliError::usage(
            format!("nothing failed in conversation {}", conversation.conversation_id()),
            format!("name the answer to repeat: run \"mmchat retry {}\"", round[0].reference()),
        ));
    }
    Ok(failed)
}
