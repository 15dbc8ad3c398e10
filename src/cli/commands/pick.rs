//! `mmchat pick`: picks one of several answers to continue with.

use clap::Args;
use jiff::Timestamp;

use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        recording::open_record,
        turn_ref::{LAST, StoredConversation, TurnRef, incomplete_reason, nothing_stored},
    },
};
use crate::{
    store::record::{Database, StoredTurn},
    term::output::write_stderr,
};

/// Pick the answer with which the conversation continues
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat compare -m fast,strong \"Why is the sky blue?\"\n  \
    mmchat pick @2\n  \
    mmchat ask --continue \"And at night?\"")]
pub(crate) struct PickArgs {
    /// The answer, such as 12@2, or @2 in the last conversation
    #[arg(value_name = "ID@N", default_value = LAST)]
    turn: String,
}

pub(crate) fn run(args: &PickArgs, context: &Context) -> Result<Exit, CliError> {
    pick_by_ref(&args.turn, context)?;
    Ok(Exit::Ok)
}

/// Picks the answer that `reference` refers to, and prints how to continue with it.
pub(crate) fn pick_by_ref(reference: &str, context: &Context) -> Result<(), CliError> {
    let turn_ref: TurnRef = reference.parse()?;
    let nothing = || nothing_stored("no stored answers to pick from");
    let mut database = open_record(context)?.ok_or_else(nothing)?;
    let conversation = StoredConversation::find(&database, turn_ref)?.ok_or_else(nothing)?;
    let Some(turn) = conversation.answer(turn_ref)? else {
        let names: Vec<String> = conversation.round(turn_ref)?.iter().map(StoredTurn::reference).collect();
        return Err(CliError::usage(
            format!("conversation {} has {} parallel answers", conversation.conversation_id(), names.len()),
            format!("name one of them: {}", names.join(", ")),
        ));
    };
    store_pick(&mut database, turn)?;
    let model = turn.model.as_ref().unwrap_or(&turn.requested);
    write_stderr(&format!(
        "picked {} ({model}); continue with \"mmchat ask --continue\", \"mmchat chat --continue\" or \"mmchat compare \
         --continue --context shared\"\n",
        turn.reference()
    ));
    Ok(())
}

/// Stores the answer of `turn` as the picked one; an error if it failed without any text.
pub(crate) fn store_pick(database: &mut Database, turn: &StoredTurn) -> Result<(), CliError> {
    if let Some(reason) = incomplete_reason(turn) {
        if turn.answer.trim().is_empty() {
            let hint = format!("pick another answer, or run \"mmchat retry {}\"", turn.reference());
            return Err(CliError::usage(reason, hint));
        }
        write_stderr(&format!("warning: {reason}\n"));
    }
    Ok(database.pick(turn.id, Timestamp::now())?)
}
