//! `mmchat chat`: a conversation in the terminal, with one model or several at once.
//!
//! Owns the flags, whom it begins with and what it goes on with. What happens then is [`Driver`]'s.

mod driver;
mod names;
mod resume;
mod round;

use std::sync::Arc;

use clap::Args;

use driver::Driver;
use resume::Begun;

use super::{ask::lane_for, compare::interruption};
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        prompt,
        recording::{KeepArgs, record},
        request::{HowArgs, ParamArgs},
        turn_ref::LAST,
    },
};
use crate::{
    config::{Config, Layers, normalised},
    conversation::{Conversation, Event, Member, Resolve},
    engine::plan::{PlanError, check},
    model::{Call, ChatRequest, Part, sanitize::one_line},
    render::wrap::shortened,
    routing::OnCut,
    term::{self, editor::Editor, keyboard::Modes, output::say},
};

/// As much of what was said last reminds a person of it.
const LAST_WORDS: usize = 70;
/// How many of the last prompts can be had again with the arrow keys.
const PROMPTS: usize = 200;

/// Talk with one model, or with several at once; /help lists what can be done
///
/// Where standard input is no terminal, each line is a question.
#[derive(Debug, Args)]
#[command(
    after_help = "Ctrl-C stops an answer and keeps what came; once more, it leaves. Alt-Enter, or \\ at the end, goes on to a\n\
    further line.\n\n\
    mmchat chat\n\
    mmchat chat -m fast,strong\n\
    mmchat chat --continue"
)]
pub(crate) struct ChatArgs {
    /// The first question; words are joined with spaces
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// Models, routes, endpoint/upstream-id or sets, joined with commas [env: MMCHAT_MODEL]
    #[arg(short, long = "model", value_name = "MODEL", value_delimiter = ',', add = Offer::Comparable.completer())]
    models: Vec<String>,
    /// The system text
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Attach a text file, or a picture, to the first question
    #[arg(short, long = "file", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<String>,
    /// Go on with the last conversation, or with this one: 12; or with one answer of it: 12@2
    #[arg(long = "continue", value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = LAST)]
    goes_on: Option<String>,
    #[command(flatten)]
    params: ParamArgs,
    #[command(flatten)]
    how: HowArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

pub(crate) fn run(args: &ChatArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = Modes::save();
    let interruption = interruption(modes.as_ref())?.going_on()?;
    let (config, layers) = context.config(context.layers(args.how.flags())?)?;
    HowArgs::check(&layers)?;
    let params = args.params.params()?;
    if args.how.output.is_some() {
        return Err(CliError::usage("a conversation has no --output", "use /save, or mmchat history export"));
    }
    let config = Arc::new(config);
    let (runtime, engine) = (context.runtime()?, context.resident_engine_for(&config, args.keep.words(&config)));
    let (mut conversation, first) = begun(args, context, (&config, &layers), |layers, call| {
        runtime.block_on(lane_for(&config, layers, Some(&engine), call, OnCut::Error)).map(|lane| lane.name)
    })?;
    let look = context.look(&layers);
    let choices = names::choices(&config);
    let plain = layers.plain.value || !term::can_move(&context.environment);
    let editor = Editor::new(look.styled, plain, prompts(context), Arc::new(choices));
    if editor.is_interactive() {
        greet(&conversation, args.goes_on.is_some());
    }
    let (keep, how, interruption) = (&args.keep, &args.how, &interruption);
    let mut driver = Driver {
        context,
        config: &config,
        layers: &layers,
        runtime: &runtime,
        engine: &engine,
        keep,
        how,
        params,
        modes,
        interruption,
        editor,
        exits: Vec::new(),
        kept: None,
    };
    driver.run(&mut conversation, first)
}

/// The conversation as it begins, and what is said in it first. `usual`: whom to talk with where nobody is named.
fn begun(
    args: &ChatArgs,
    context: &Context,
    (config, layers): (&Arc<Config>, &Layers),
    usual: impl Fn(&Layers, &Arc<Call>) -> Result<String, CliError>,
) -> Result<(Conversation, Vec<Event>), CliError> {
    let begun = match &args.goes_on {
        Some(place) => Begun::again(context, place)?,
        None => Begun::default(),
    };
    let resolve = resolver(Arc::clone(config));
    let members = match (args.models.as_slice(), begun.members.as_slice()) {
        ([], []) => {
            let call = Arc::new(Call::Chat(ChatRequest::default()));
            vec![Member { name: usual(layers, &call)?, turns: Vec::new() }]
        }
        ([], _) => begun.members,
        (names, before) => joined(&resolve, names, before)?,
    };
    let system = args.system.clone().or(begun.system);
    let mut first = Vec::new();
    for file in &args.files {
        first.push(Event::Attached { name: file.clone(), part: prompt::attached(file)? });
    }
    let words = args.words.join(" ");
    if !words.trim().is_empty() {
        // A word that is no command.
        first.push(Event::Line(if words.starts_with('/') { format!("/{words}") } else { words }));
    }
    Ok((Conversation::new(members, system, begun.apart, resolve), first))
}

/// Whom names stand for, or why they lead nowhere.
fn resolver(config: Arc<Config>) -> Arc<Resolve> {
    let told = |error: PlanError| (error.to_string(), error.hint());
    Arc::new(move |names: &[&str]| {
        let mut all: Vec<String> = Vec::new();
        for name in names.iter().map(|name| normalised(name)) {
            let members = config.set(&name).map_or_else(|| vec![name.clone()], |set| set.members.clone());
            for member in members {
                check(&config, &member).map_err(told)?;
                if !all.contains(&member) {
                    all.push(member);
                }
            }
        }
        if all.is_empty() { Err(("no model is named".into(), "write /models a,b".into())) } else { Ok(all) }
    })
}

/// The models of the command line, with what they know of what is gone on with.
fn joined(resolve: &Arc<Resolve>, names: &[String], before: &[Member]) -> Result<Vec<Member>, CliError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let names = resolve(&names).map_err(|(message, hint)| CliError::usage(message, hint))?;
    let known = |name: &String| before.iter().find(|member| member.name == *name).or(before.first());
    let turns = |name: &String| known(name).map(|member| member.turns.clone()).unwrap_or_default();
    Ok(names.into_iter().map(|name| Member { turns: turns(&name), name }).collect())
}

/// What was asked lately, the oldest first.
fn prompts(context: &Context) -> Vec<String> {
    // A record that cannot be read is told of when it is written.
    let database = record(context).ok().flatten();
    let mut prompts = database.and_then(|database| database.prompts(PROMPTS).ok()).unwrap_or_default();
    prompts.reverse();
    prompts
}

/// Where the conversation stands.
fn greet(conversation: &Conversation, goes_on: bool) {
    let names: Vec<&str> = conversation.names().collect();
    say(&format!("chat with {}; /help lists what can be done, Ctrl-D leaves\n", names.join(", ")));
    let last = conversation.members().first().and_then(|member| member.turns.last());
    if let (true, Some(turn)) = (goes_on, last) {
        let count = conversation.members()[0].turns.len();
        say(&format!("going on after {count} question(s); the last one:\n"));
        for member in conversation.members() {
            if let Some(turn) = member.turns.last() {
                say(&format!("  {}: {}\n", member.name, shortened(&one_line(&turn.answer), LAST_WORDS)));
            }
        }
        let asked = turn.question.parts.iter().find_map(|part| match part {
            Part::Text(text) => Some(shortened(&one_line(text), LAST_WORDS)),
            Part::Image(_) => None,
        });
        say(&format!("  > {}\n", asked.unwrap_or_default()));
    }
}
