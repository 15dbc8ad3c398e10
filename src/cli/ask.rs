//! `mmchat ask`: one answer, streamed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{CliError, Context, exit::Exit, prompt};
use crate::{
    chat::{Call, ChatRequest, Message, Params, Role},
    config::{Config, Flags, Layers, direct_target, nearest, parse_duration},
    engine::{Engine, EventKind, Progress},
    plan::{self, Lane, Plan},
    render::{FORMATS, Format, Output, ask::AskView, ask::Settings, format},
    route::OnCut,
    term::{
        output::{Streams, WriteError, say},
        signals::Interruption,
    },
};

mod dry_run;

/// How long a server on this machine may take to list its models, when nothing else is configured.
const LOOPBACK_LIST: Duration = Duration::from_secs(2);

/// Ask one model, or a route that fails over; the answer streams to stdout
#[derive(Debug, Args)]
#[command(
    after_help = "Piped standard input is appended to the prompt, after a blank line; `-` reads it without a limit.\n\n\
    mmchat ask \"Why is the sky blue?\"\n\
    git log -20 | mmchat ask summarise these commits\n\
    mmchat ask -m chat -f notes.md --format json \"What is open?\""
)]
pub(super) struct AskArgs {
    /// The prompt; words are joined with spaces
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]
    #[arg(short, long)]
    model: Option<String>,
    /// Attach a text file
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The system text
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Any parameter of the endpoint; the value is JSON, or text
    #[arg(short, long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Sampling temperature
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<f64>,
    /// Upper limit of the answer, in tokens
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
    /// What stdout holds: text, markdown, json or jsonl [env: MMCHAT_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Write the answer to a file instead of stdout; -: stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time, tokens, speed and cost on stderr, at the end
    #[arg(long)]
    stats: bool,
    /// For the whole answer, such as 90s or 5m [env: MMCHAT_TIMEOUT]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Show Markdown as it comes, even on a terminal
    #[arg(long)]
    raw: bool,
    /// Hold the answer until it is whole, so that a cut one can be started again elsewhere
    #[arg(long)]
    buffer: bool,
    /// Ask for the whole answer at once instead of a stream
    #[arg(long)]
    no_stream: bool,
    /// Print the request as a curl command, whatever the format, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not read standard input [env: MMCHAT_NO_STDIN]
    #[arg(long)]
    no_stdin: bool,
    /// The longest silence of standard input; 0: any
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    stdin_timeout: Duration,
}

pub(super) fn run(args: &AskArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::on_interruption()?;
    let flags = Flags {
        model: args.model.clone(),
        format: args.format.clone(),
        timeout: args.timeout,
        no_stdin: args.no_stdin,
        ..Flags::default()
    };
    let (config, layers) = context.config(context.layers(flags)?)?;
    let format = named_format(&layers.format.value)?;
    let params = params(args)?;
    if layers.timeout.value.is_some_and(|timeout| timeout.is_zero()) {
        return Err(CliError::usage(
            "a timeout of 0 leaves no time to ask",
            "leave it out for the default of 10 minutes",
        ));
    }
    // A wrong name is told before anything is read.
    if let Some(name) = &layers.model.value {
        plan::lane(&config, Some(name), &Call::Chat(ChatRequest::default()), OnCut::Error)?;
    }
    let prompt = prompt::read(&prompt::PromptArgs {
        words: &args.prompt,
        files: &args.files,
        no_stdin: layers.no_stdin.value,
        stdin_timeout: Some(args.stdin_timeout).filter(|limit| !limit.is_zero()),
    })?;
    let look = context.look(&layers);
    let call = call(args, prompt, params);
    let runtime = context.runtime()?;
    let engine = context.engine();
    let on_cut = if args.buffer {
        OnCut::Buffer
    } else if look.out_width.is_some() && args.output.is_none() {
        OnCut::Restart
    } else {
        OnCut::Error
    };
    let ask_around = !args.dry_run;
    let mut lane = runtime.block_on(lane(&config, &layers, ask_around.then_some(&*engine), &call, on_cut))?;
    if args.buffer {
        lane.on_cut = OnCut::Buffer;
    }
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let streams = match file {
        Some(path) => Streams::file(path)?,
        None => Streams::stdout(),
    };
    if args.dry_run {
        return dry_run::print(&lane, streams);
    }
    let to_file = file.is_some();
    let view = AskView::new(Settings {
        name: lane.name.clone(),
        format,
        look: crate::render::Look { out_width: look.out_width.filter(|_| !to_file), ..look },
        rendered: look.styled && !args.raw,
        stats: args.stats,
        verbose: layers.log.value,
        prompt_tokens: lane.call.estimated_tokens(),
    });
    runtime.block_on(stream(&engine, lane, view, streams, &interruption))
}

/// Shows what happens until the lane is over, or the person has had enough.
pub(super) async fn stream(
    engine: &Arc<Engine>,
    lane: Lane,
    mut view: AskView,
    mut streams: Streams,
    interruption: &Interruption,
) -> Result<Exit, CliError> {
    let mut events = Box::pin(engine.run(Plan { lanes: vec![lane] }));
    let mut interrupted = Box::pin(interruption.signalled());
    let mut output = Output::default();
    let mut progress = Progress::new(Instant::now());
    loop {
        let event = tokio::select! {
            biased;
            () = &mut interrupted => {
                view.interrupted(&progress.interrupted(Instant::now()), &mut output);
                return match streams.put(&mut output) {
                    Ok(()) | Err(WriteError::Closed) => Ok(Exit::Interrupted),
                    Err(error) => Err(error.into()),
                };
            }
            event = events.next() => event.expect("a lane ends with `Finished`"),
        };
        progress.event(&event);
        view.event(&event, &mut output);
        let written = streams.put(&mut output);
        if let (EventKind::Finished(outcome), Err(WriteError::Closed)) = (&event.kind, &written)
            && outcome.result.is_err()
        {
            // Nobody reads the rest, but what was to be told is no success.
            return Ok(Exit::of(outcome));
        }
        written?;
        if let EventKind::Finished(outcome) = &event.kind {
            streams.close(outcome.result.is_ok())?;
            return Ok(Exit::of(outcome));
        }
    }
}

/// The lane for the model that is in force; without any, `engine` looks for a server on this machine.
async fn lane(
    config: &Config,
    layers: &Layers,
    engine: Option<&Engine>,
    call: &Call,
    on_cut: OnCut,
) -> Result<Lane, CliError> {
    let mut name = layers.model.value.clone();
    if name.is_none() && config.path.is_none() {
        name = match &config.default {
            Some(default) => Some(default.clone()),
            None => match engine {
                Some(engine) => loopback_model(config, engine).await,
                None => None,
            },
        };
        if let Some(name) = &name {
            say(&format!("using {name}{}\n", source_of_key(config, name)));
        }
    }
    let lane = plan::lane(config, name.as_deref(), call, on_cut)?;
    Ok(Lane { deadline: layers.timeout.value, ..lane })
}

/// ` (DEEPSEEK_API_KEY)`, for the line that names a model nobody configured.
fn source_of_key(config: &Config, name: &str) -> String {
    let endpoint = name.split('/').next().and_then(|endpoint| config.endpoint(endpoint));
    match endpoint.and_then(|endpoint| endpoint.keys.first().map(|key| (key, endpoint))) {
        Some((crate::secret::KeySource::Env(variable), _)) => format!(" ({variable})"),
        _ => endpoint.map(|endpoint| format!(" ({})", endpoint.authority())).unwrap_or_default(),
    }
}

/// The first model of the first server that answers on this machine.
async fn loopback_model(config: &Config, engine: &Engine) -> Option<String> {
    for endpoint in config.endpoints.iter().filter(|endpoint| endpoint.connect.loopback) {
        let target = direct_target(endpoint, "");
        if let Ok(models) = engine.list_models(&target, LOOPBACK_LIST).await
            && let Some(model) = models.first()
        {
            return Some(format!("{}/{}", endpoint.name, model.id));
        }
    }
    None
}

fn call(args: &AskArgs, prompt: String, params: Params) -> Call {
    let system = args.system.as_ref().map(|text| Message::text(Role::System, text.as_str()));
    let messages = system.into_iter().chain([Message::text(Role::User, prompt)]).collect();
    Call::Chat(ChatRequest { messages, params, stream: !args.no_stream, ..ChatRequest::default() })
}

fn named_format(name: &str) -> Result<Format, CliError> {
    format(name).ok_or_else(|| {
        let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
        let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}? "));
        let hint = format!("{}known: {}", near.unwrap_or_default(), known.join(", "));
        CliError::usage(format!("unknown format `{name}`"), hint)
    })
}

/// The parameters of the flags. `-o` values are JSON where they read as JSON, else text.
fn params(args: &AskArgs) -> Result<Params, CliError> {
    let mut params = Params { temperature: args.temperature, max_tokens: args.max_tokens, ..Params::default() };
    if args.temperature.is_some_and(|temperature| !temperature.is_finite() || temperature < 0.0) {
        return Err(CliError::usage("--temperature is no number from 0 up", "most services take 0 to 2"));
    }
    for option in &args.options {
        let Some((key, value)) = option.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(CliError::usage(format!("`-o {option}` has no value"), "write -o key=value"));
        };
        if matches!(key, "messages" | "model" | "stream") {
            return Err(CliError::usage(
                format!("`-o {key}=…` would replace what ask itself sends"),
                "use -m, -s and --no-stream",
            ));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        params.extra.insert(key.to_owned(), value);
    }
    Ok(params)
}

impl From<io::Error> for CliError {
    fn from(source: io::Error) -> Self {
        Self::System { what: "the system refused".into(), source }
    }
}
