//! `mmchat pick`: one answer of several, to go on with.

use clap::Args;
use jiff::Timestamp;

use crate::cli::{
    CliError, Context,
    support::{
        exit::Exit,
        recording::record,
        turn_ref::{Conversation, LAST, Place},
    },
};
use crate::{
    store::record::{Database, Exchange},
    term::output::say,
};

/// Choose one of several answers: the conversation goes on with it
#[derive(Debug, Args)]
#[command(after_help = "mmchat compare -m fast,strong \"Why is the sky blue?\"\n\
    mmchat pick @2\n\
    mmchat ask --continue \"And at night?\"")]
pub(crate) struct PickArgs {
    /// An answer: 12@2, or @2 of the last comparison
    #[arg(value_name = "ID@N", default_value = LAST)]
    place: String,
}

pub(crate) fn run(args: &PickArgs, context: &Context) -> Result<Exit, CliError> {
    pick_at(&args.place, context)?;
    Ok(Exit::Ok)
}

/// Picks the answer written as `place`, and says how to go on.
pub(crate) fn pick_at(place: &str, context: &Context) -> Result<(), CliError> {
    let place: Place = place.parse()?;
    let nothing = || CliError::usage("nothing is kept to pick from", "history may be off; compare something first");
    let mut database = record(context)?.ok_or_else(nothing)?;
    let conversation = Conversation::find(&database, place)?.ok_or_else(nothing)?;
    let Some(exchange) = conversation.answer(place)? else {
        let names: Vec<String> = conversation.round(place)?.iter().map(Exchange::place).collect();
        return Err(CliError::usage(
            "there are several answers to pick from",
            format!("name one: {}", names.join(", ")),
        ));
    };
    pick(&mut database, exchange)?;
    let whose = exchange.model.as_ref().unwrap_or(&exchange.asked);
    say(&format!(
        "picked {} ({whose}); go on with it: mmchat ask --continue, chat --continue, or compare --continue --context shared\n",
        exchange.place()
    ));
    Ok(())
}

/// Chooses `exchange`, if there is anything in it to go on with.
pub(crate) fn pick(database: &mut Database, exchange: &Exchange) -> Result<(), CliError> {
    let place = exchange.place();
    match &exchange.class {
        Some(class) if exchange.answer.trim().is_empty() => {
            return Err(CliError::usage(
                format!("{place} has no answer to go on with: {} failed ({class})", exchange.asked),
                format!("pick another one, or ask it once more: mmchat retry {place}"),
            ));
        }
        Some(class) => say(&format!("warning: the answer {place} is not whole: {class}\n")),
        None => {}
    }
    Ok(database.pick(exchange.id, Timestamp::now())?)
}
