//! `mmchat again`: what was asked last, of another model.

use std::sync::Arc;

use clap::Args;

use super::ask::{AnswerArgs, Asking};
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        request::RequestArgs,
        turn_ref::{LAST, Thread},
    },
};
use crate::{config::Flags, engine::plan};

/// Ask the last prompt once more, of another model; or that of an earlier answer
///
/// The prompt and the system prompt are the same; parameters are those of the model and of this command.
#[derive(Debug, Args)]
#[command(after_help = "mmchat again -m strong\nmmchat again -m strong 12@2    the second question of conversation 12")]
pub(crate) struct AgainArgs {
    /// A conversation, or an exchange in it: 12, 12@2; the last one unless given
    #[arg(value_name = "ID", default_value = LAST)]
    place: String,
    /// A model, a route, or endpoint/upstream-id
    #[arg(short, long, add = Offer::Askable.completer())]
    model: Option<String>,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    how: crate::cli::support::request::HowArgs,
}

pub(crate) fn run(args: &AgainArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::on_interruption()?;
    let request = RequestArgs::with(&args.how);
    let flags = Flags { model: args.model.clone(), ..request.flags() };
    let (config, mut layers) = context.config(context.layers(flags)?)?;
    let thread = Thread::find_any(context, &args.place)?;
    layers.model.value = args.model.clone().or_else(|| Some(thread.asked().to_owned()));
    if let Some(name) = &layers.model.value {
        plan::check(&config, name)?;
    }
    thread.warn();
    let call = Arc::new(thread.again(request.streamed()));
    let asking = Asking {
        context,
        config: &config,
        layers: &layers,
        request: &request,
        answer: &args.answer,
        command: "again",
        goes_on: thread.before_last(),
    };
    asking.run(&call, &interruption)
}
