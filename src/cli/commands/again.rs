//! `mmchat again`: repeats a stored prompt, with the same or another model.

use std::sync::Arc;

use clap::Args;

use super::ask::{AnswerArgs, AskRun};
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        exit::Exit,
        request::{OutputArgs, RequestArgs},
        turn_ref::{HistoryPrefix, LAST},
    },
};
use crate::{config::Flags, engine::plan};

/// Send the last prompt, or an earlier one, again
#[derive(Debug, Args)]
#[command(
    after_help = "The prompt, the system prompt and the history are the same, and so is the model unless -m is given. \
    Parameters such as the temperature are those of the config, not those of the earlier call.\n\n\
    Examples:\n  \
    mmchat again                   Send the last prompt again\n  \
    mmchat again -m strong         Send the last prompt to another model\n  \
    mmchat again -m strong 12@2    Send the prompt of answer 12@2 to strong"
)]
pub(crate) struct AgainArgs {
    /// A conversation, or one answer of it, such as 12 or 12@2
    #[arg(value_name = "ID", default_value = LAST)]
    turn: String,
    /// Use this model, route or endpoint/id
    #[arg(short, long, add = CompletionKind::ModelsAndRoutes.completer(), help_heading = "Models")]
    model: Option<String>,
    #[command(flatten)]
    output_args: OutputArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

pub(crate) fn run(args: &AgainArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::listen_for_interruption()?;
    let request_args = RequestArgs::from_output_args(&args.output_args);
    let flags = Flags { model: args.model.clone(), ..request_args.flags() };
    let (config, mut settings) = context.config(context.settings(flags)?)?;
    let history = HistoryPrefix::find_any(context, &args.turn)?;
    settings.model.value = args.model.clone().or_else(|| Some(history.requested_name().to_owned()));
    if let Some(name) = &settings.model.value {
        plan::check_name(&config, name)?;
    }
    history.warn_missing();
    let model_request = Arc::new(history.repeat_request(request_args.is_streaming()));
    let run = AskRun {
        context,
        config: &config,
        settings: &settings,
        request_args: &request_args,
        answer_args: &args.answer,
        command: "again",
        continuation: history.continuation_before_last(),
    };
    run.run(&model_request, &interruption)
}
