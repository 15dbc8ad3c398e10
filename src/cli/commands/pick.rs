//! `mmchat pick`: picks one of several answers to continue with.

use clap::Args;
use jiff::Timestamp;

use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        recording::open_record,
        turn_ref::{LAST, StoredConversation, TurnRef},
    },
};
use crate::{
    store::record::{Database, StoredTurn},
    term::output::write_stderr,
};

/// Pick one of several answers, with which the conversation continues
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat compare -m fast,strong \"Why is the sky blue?\"\n  \
    mmchat pick @2\n  \
    mmchat ask --continue \"And at night?\"")]
pub(crate) struct PickArgs {
    /// The answer, such as 12@2, or @2 for the last comparison
    #[arg(value_name = "ID@N", default_value = LAST)]
    turn: String,
}

pub(crate) fn run(args: &PickArgs, context: &Context) -> Result<Exit, CliError> {
    pick_by_ref(&args.turn, context)?;
    Ok(Exit::Ok)
}

/// Picks the answer `reference`, and prints how to continue with it.
pub(crate) fn pick_by_ref(reference: &str, context: &Context) -> Result<(), CliError> {
    let turn: TurnRef = reference.parse()?;
    let nothing = || CliError::usage("no stored answers to pick from", "history may be off; run a comparison first");
    let mut database = open_record(context)?.ok_or_else(nothing)?;
    let conversation = StoredConversation::find(&database, turn)?.ok_or_else(nothing)?;
    let Some(exchange) = conversation.answer(turn)? else {
        let names: Vec<String> = conversation.round(turn)?.iter().map(StoredTurn::reference).collect();
        return Err(CliError::usage(
            "several answers can be picked",
            format!("name one of them: {}", names.join(", ")),
        ));
    };
    store_pick(&mut database, exchange)?;
    let model = exchange.model.as_ref().unwrap_or(&exchange.requested);
    write_stderr(&format!(
        "picked {} ({model}); continue with mmchat ask, chat or compare --context shared, and --continue\n",
        exchange.reference()
    ));
    Ok(())
}

/// Stores `exchange` as the picked answer, unless it failed without any text.
pub(crate) fn store_pick(database: &mut Database, exchange: &StoredTurn) -> Result<(), CliError> {
    let reference = exchange.reference();
    match &exchange.class {
        Some(class) if exchange.answer.trim().is_empty() => {
            return Err(CliError::usage(
                format!("{reference} has no answer to continue with: {} failed ({class})", exchange.requested),
                format!("pick another answer, or run \"mmchat retry {reference}\""),
            ));
        }
        Some(class) => write_stderr(&format!("warning: the answer {reference} is incomplete: {class}\n")),
        None => {}
    }
    Ok(database.pick(exchange.id, Timestamp::now())?)
}
