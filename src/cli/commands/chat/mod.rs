//! `mmchat chat`: a conversation in the terminal with one or several models.
//!
//! Defines the options and starts or resumes the conversation; [`Driver`] runs it.

mod completion;
mod driver;
mod resume;
mod round;

use std::sync::Arc;

use clap::Args;

use resume::ResumedConversation;
use tokio::runtime::Runtime;

use super::{ask::build_call, compare::listen_for_interruption};

use crate::{
    cli::{
        CliError, Context,
        support::{
            completion::CompletionKind,
            exit::Exit,
            prompt,
            recording::{RecordingArgs, open_record},
            request::{OutputArgs, ParamArgs},
            turn_ref::LAST,
        },
    },
    config::{Config, ResolvedSettings, normalize_name},
    conversation::{ChatSession, Event, Member, ModelResolver},
    engine::{
        Engine,
        plan::{PlanError, check_name},
    },
    model::{ChatRequest, ModelRequest, Params, Part, plural, sanitize::one_line},
    render::wrap::truncate_to_width,
    routing::OnIncomplete,
    term::{self, editor::Editor, keyboard::TerminalModes, output::write_stderr, signals::InterruptHandler},
};

/// Maximum width of the last question and answers, which are printed when a conversation is resumed.
const EXCERPT_WIDTH: usize = 70;
/// Number of earlier prompts that the arrow keys recall.
const MAX_RECENT_PROMPTS: usize = 200;

/// Chat with one or several models; /help lists the commands of a chat
#[derive(Debug, Args)]
#[command(
    mut_arg("output", |arg| arg.hide(true)),
    after_help = "If standard input is not a terminal, each line is a question. Ctrl-C stops an answer and keeps its \
    text; a second Ctrl-C exits. Alt-Enter continues on a new line, and so does Enter inside an open code fence.\n\n\
    Examples:\n  \
    mmchat chat\n  \
    mmchat chat -m fast,strong\n  \
    mmchat chat --continue"
)]
pub(crate) struct ChatArgs {
    /// The first question; words are joined with spaces
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// Continue the last conversation, or the one with this ID, such as 12 or 12@2
    #[arg(
        long = "continue",
        value_name = "ID",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = LAST,
        help_heading = "Prompt"
    )]
    continue_from: Option<String>,
    /// Attach a text file or an image to the first question
    #[arg(short, long = "file", value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Prompt")]
    files: Vec<String>,
    /// Set the system prompt
    #[arg(short, long, value_name = "TEXT", help_heading = "Prompt")]
    system: Option<String>,
    /// Use these models, routes, sets or endpoint/id, joined with commas [env: MMCHAT_MODEL]
    #[arg(
        short,
        long = "model",
        value_name = "MODEL",
        value_delimiter = ',',
        add = CompletionKind::ModelsRoutesAndSets.completer(),
        help_heading = "Models"
    )]
    models: Vec<String>,
    #[command(flatten)]
    output_args: OutputArgs,
    #[command(flatten)]
    params: ParamArgs,
    #[command(flatten)]
    recording: RecordingArgs,
}

pub(crate) fn run(args: &ChatArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = TerminalModes::save();
    let interruption = listen_for_interruption(modes.as_ref())?.keep_process_running();
    let (config, settings) = context.config(context.settings(args.output_args.flags())?)?;
    OutputArgs::check(&settings)?;
    let params = args.params.params()?;
    if args.output_args.output.is_some() {
        return Err(CliError::usage("chat does not support --output", "use /save, or \"mmchat history export\""));
    }
    let config = Arc::new(config);
    context.warn_about_exposed_keys(&config.endpoints);
    let (runtime, engine) =
        (context.runtime()?, context.long_lived_engine_for(&config, args.recording.stores_content(&config)));
    let (mut conversation, events) = start_conversation(args, context, (&config, &settings), |settings, request| {
        runtime
            .block_on(build_call(&config, settings, Some(&engine), request, OnIncomplete::Error))
            .map(|call| call.name)
    })?;
    let terminal = context.terminal_info(&settings);
    let completer = completion::completer(&config);
    let plain = settings.plain.value || !term::supports_cursor(&context.environment);
    let editor = Editor::new(terminal.styled, plain, recent_prompts(context), Arc::new(completer));
    if editor.is_interactive() {
        greet(&conversation, args.continue_from.is_some());
    }
    let mut driver = Driver {
        context,
        config: &config,
        settings: &settings,
        runtime: &runtime,
        engine: &engine,
        recording: &args.recording,
        output_args: &args.output_args,
        params,
        modes,
        interruption: &interruption,
        editor,
        exit_codes: Vec::new(),
        conversation_id: None,
    };
    driver.run(&mut conversation, events)
}

/// The new or resumed conversation, and its first events. `default_model` returns the model to use if none is named.
fn start_conversation(
    args: &ChatArgs,
    context: &Context,
    (config, settings): (&Arc<Config>, &ResolvedSettings),
    default_model: impl Fn(&ResolvedSettings, &Arc<ModelRequest>) -> Result<String, CliError>,
) -> Result<(ChatSession, Vec<Event>), CliError> {
    let resumed = match &args.continue_from {
        Some(reference) => ResumedConversation::load(context, reference)?,
        None => ResumedConversation::default(),
    };
    let resolve = name_resolver(Arc::clone(config));
    let members = match (args.models.as_slice(), resumed.members.as_slice()) {
        ([], []) => {
            let request = Arc::new(ModelRequest::Chat(ChatRequest::default()));
            vec![Member { name: default_model(settings, &request)?, turns: Vec::new() }]
        }
        ([], _) => resumed.members,
        (names, resumed_members) => selected_members(&resolve, names, resumed_members)?,
    };
    let system = args.system.clone().or(resumed.system);
    let mut events = Vec::new();
    for file in &args.files {
        events.push(Event::Attached { name: file.clone(), part: prompt::read_attachment(file)? });
    }
    let words = args.words.join(" ");
    if !words.trim().is_empty() {
        // A leading slash on the command line is text, not a chat command.
        events.push(Event::Line(if words.starts_with('/') { format!("/{words}") } else { words }));
    }
    Ok((ChatSession::new(members, system, resumed.forks, resolve), events))
}

/// Resolves names to models; a set is replaced by its members.
fn name_resolver(config: Arc<Config>) -> Arc<ModelResolver> {
    let describe = |error: PlanError| (error.to_string(), error.hint());
    Arc::new(move |names: &[&str]| {
        let mut resolved: Vec<String> = Vec::new();
        for name in names.iter().map(|name| normalize_name(name)) {
            let members = config.set(&name).map_or_else(|| vec![name.clone()], |set| set.members.clone());
            for member in members {
                check_name(&config, &member).map_err(describe)?;
                if !resolved.contains(&member) {
                    resolved.push(member);
                }
            }
        }
        if resolved.is_empty() { Err(("missing model name".into(), "write /models a,b".into())) } else { Ok(resolved) }
    })
}

/// The models of the command line, each with the history it continues: its own, else that of the first model.
fn selected_members(
    resolve: &Arc<ModelResolver>,
    names: &[String],
    resumed: &[Member],
) -> Result<Vec<Member>, CliError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let names = resolve(&names).map_err(|(message, hint)| CliError::usage(message, hint))?;
    let source = |name: &String| resumed.iter().find(|member| member.name == *name).or(resumed.first());
    let turns = |name: &String| source(name).map(|member| member.turns.clone()).unwrap_or_default();
    Ok(names.into_iter().map(|name| Member { turns: turns(&name), name }).collect())
}

/// The last prompts, oldest first.
fn recent_prompts(context: &Context) -> Vec<String> {
    // If the database cannot be read, the write after the first round reports it.
    let database = open_record(context).ok().flatten();
    let mut prompts =
        database.and_then(|database| database.recent_prompts(MAX_RECENT_PROMPTS).ok()).unwrap_or_default();
    prompts.reverse();
    prompts
}

/// Prints the models and, for a resumed conversation, its last question and answers.
fn greet(conversation: &ChatSession, is_resumed: bool) {
    let names: Vec<&str> = conversation.names().collect();
    write_stderr(&format!("chat with {}; /help lists the commands, Ctrl-D leaves\n", names.join(", ")));
    let last = conversation.members().first().and_then(|member| member.turns.last());
    if let (true, Some(turn)) = (is_resumed, last) {
        let count = plural(conversation.members()[0].turns.len(), "question");
        write_stderr(&format!("continuing after {count}; the last one:\n"));
        for member in conversation.members() {
            if let Some(turn) = member.turns.last() {
                write_stderr(&format!(
                    "  {}: {}\n",
                    member.name,
                    truncate_to_width(&one_line(&turn.answer), EXCERPT_WIDTH)
                ));
            }
        }
        let question = turn.question.parts.iter().find_map(|part| match part {
            Part::Text(text) => Some(truncate_to_width(&one_line(text), EXCERPT_WIDTH)),
            Part::Image(_) => None,
        });
        write_stderr(&format!("  > {}\n", question.unwrap_or_default()));
    }
}

/// The environment in which a conversation runs.
pub(super) struct Driver<'a> {
    pub(super) context: &'a Context,
    pub(super) config: &'a Config,
    pub(super) settings: &'a ResolvedSettings,
    /// One runtime for all rounds, so that connections are reused.
    pub(super) runtime: &'a Runtime,
    pub(super) engine: &'a Arc<Engine>,
    pub(super) recording: &'a RecordingArgs,
    pub(super) output_args: &'a OutputArgs,
    pub(super) params: Params,
    pub(super) modes: Option<TerminalModes>,
    pub(super) interruption: &'a InterruptHandler,
    pub(super) editor: Editor,
    /// The exit code of each round.
    pub(super) exit_codes: Vec<Exit>,
    /// The id of the stored conversation.
    pub(super) conversation_id: Option<i64>,
}
