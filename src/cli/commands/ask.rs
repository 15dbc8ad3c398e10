//! `mmchat ask`: one answer, streamed.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::ping::ping_all;
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        recording::{KeepArgs, Keeper},
        request::RequestArgs,
        turn_ref::{LAST, Thread},
    },
};
use crate::{
    config::{Config, Flags, Layers, Source},
    engine::{
        Engine, EventKind, Progress,
        plan::{self, Lane, Plan},
    },
    model::Call,
    render::{
        Output,
        ask::{AskView, Settings},
    },
    routing::OnCut,
    store::record::GoesOn,
    term::{
        output::{Streams, WriteError, say},
        signals::{Interruption, Suspension, stop_for_a_while, suspended},
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
    mmchat ask -m chat -f notes.md --format json \"What is open?\"\n\
    mmchat ask --continue \"And since when?\""
)]
pub(crate) struct AskArgs {
    /// A model, a route, or endpoint/upstream-id [env: MMCHAT_MODEL]
    #[arg(short, long, add = Offer::Askable.completer())]
    model: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Go on with the last conversation, or with this one
    #[arg(long = "continue", value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = LAST)]
    goes_on: Option<String>,
}

pub(crate) fn run(args: &AskArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::on_interruption()?;
    let flags = Flags { model: args.model.clone(), ..args.request.flags() };
    let (config, mut layers) = context.config(context.layers(flags)?)?;
    args.request.check(&layers)?;
    let preset = args.request.preset(context, &config, &layers)?;
    let thread = args.goes_on.as_deref().map(|place| Thread::find(context, place)).transpose()?;
    let model =
        preset.as_ref().and_then(|preset| preset.model.clone()).or_else(|| Some(thread.as_ref()?.asked().to_owned()));
    if let (Some(model), None) = (model, &args.model) {
        layers.model.value = Some(model);
        layers.model.source = Source::Flag("--preset, --continue");
    }
    // A wrong name is told before anything is read.
    if let Some(name) = &layers.model.value {
        plan::check(&config, name)?;
    }
    let mut call = args.request.call(preset.as_ref(), &layers)?;
    let mut goes_on = GoesOn::Anew;
    if let Some(thread) = thread {
        goes_on = thread.goes_on();
        thread.warn();
        thread.before(Arc::make_mut(&mut call));
    }
    let asking = Asking {
        context,
        config: &config,
        layers: &layers,
        request: &args.request,
        answer: &args.answer,
        command: "ask",
        goes_on,
    };
    asking.run(&call, &interruption)
}

/// How the answer is shown and kept.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Time, tokens, speed and cost on stderr, at the end
    #[arg(long)]
    stats: bool,
    /// Hold the answer until it is whole, so that a cut one can be started again elsewhere
    #[arg(long)]
    buffer: bool,
    /// Print the request as a curl command, whatever the format, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
}

/// One call that is to be answered.
pub(crate) struct Asking<'a> {
    pub(crate) context: &'a Context,
    pub(crate) config: &'a Config,
    pub(crate) layers: &'a Layers,
    pub(crate) request: &'a RequestArgs,
    pub(crate) answer: &'a AnswerArgs,
    pub(crate) command: &'static str,
    /// What is gone on with.
    pub(crate) goes_on: GoesOn,
}

impl Asking<'_> {
    /// Asks, and shows what comes.
    pub(crate) fn run(&self, call: &Arc<Call>, interruption: &Interruption) -> Result<Exit, CliError> {
        let Self { context, config, layers, request, answer, .. } = self;
        let format = request.check(layers)?;
        let look = context.look(layers);
        let (runtime, engine) = (context.runtime()?, context.engine_for(config, answer.keep.words(config)));
        let to_file = request.to_file();
        let on_cut = if answer.buffer {
            OnCut::Buffer
        } else if look.out_width.is_some() && !to_file {
            OnCut::Restart
        } else {
            OnCut::Error
        };
        let ask_around = !answer.dry_run;
        let mut lane = runtime.block_on(lane_for(config, layers, ask_around.then_some(&*engine), call, on_cut))?;
        if answer.buffer {
            lane.on_cut = OnCut::Buffer;
        }
        let mut plan = Plan::of(lane);
        answer.keep.cap(&mut plan)?;
        let lane = &plan.lanes[0];
        let streams = request.streams()?;
        if answer.dry_run {
            return dry_run::print(lane, streams);
        }
        let view = AskView::new(Settings {
            name: lane.name.clone(),
            format,
            look: crate::render::Look { out_width: look.out_width.filter(|_| !to_file), ..look },
            rendered: look.styled && !request.raw(),
            stats: answer.stats,
            verbose: layers.log.value,
            prompt_tokens: lane.prompt_tokens,
        });
        let mut keeper =
            Keeper::new(context, config, &engine, self.command, (&answer.keep, &plan, self.goes_on.clone()));
        let exit = runtime.block_on(stream(&engine, plan, (view, streams), &mut keeper, interruption));
        keeper.close();
        exit
    }
}

/// Shows what happens until the lane is over, or the person has had enough.
pub(crate) async fn stream(
    engine: &Arc<Engine>,
    plan: Plan,
    (mut view, mut streams): (AskView, Streams),
    keeper: &mut Keeper,
    interruption: &Interruption,
) -> Result<Exit, CliError> {
    let mut events = Box::pin(engine.run(plan));
    let mut interrupted = Box::pin(interruption.signalled());
    let mut output = Output::default();
    let mut progress = Progress::new(Instant::now());
    let mut suspension = Suspension::again();
    loop {
        let event = tokio::select! {
            biased;
            () = suspended(&mut suspension) => {
                stop_for_a_while();
                continue;
            }
            () = &mut interrupted => {
                let outcome = progress.interrupted(Instant::now());
                view.interrupted(&outcome, &mut output);
                let written = streams.put(&mut output);
                keeper.stop();
                return match written {
                    Ok(()) | Err(WriteError::Closed) => Ok(Exit::Interrupted),
                    Err(error) => Err(error.into()),
                };
            }
            event = events.next() => event.expect("a lane ends with `Finished`"),
        };
        progress.event(&event);
        view.event(&event, &mut output);
        let written = streams.put(&mut output);
        keeper.event(&event);
        if let (EventKind::Finished(outcome), Err(WriteError::Closed)) = (&event.kind, &written)
            && outcome.result.is_err()
        {
            // Nobody reads the rest, but what was to be told is no success.
            return Ok(Exit::of(outcome));
        }
        if let Err(error) = written {
            // Nobody takes the rest, but what came of it is paid for.
            keeper.stop();
            return Err(error.into());
        }
        if let EventKind::Finished(outcome) = &event.kind {
            streams.close(outcome.result.is_ok())?;
            return Ok(Exit::of(outcome));
        }
    }
}

/// The lane for the model that is in force; without any, `engine` looks for a server on this machine.
pub(crate) async fn lane_for(
    config: &Config,
    layers: &Layers,
    engine: Option<&Engine>,
    call: &Arc<Call>,
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
        Some((crate::model::api_key::KeySource::Env(variable), _)) => format!(" ({variable})"),
        _ => endpoint.map(|endpoint| format!(" ({})", endpoint.authority())).unwrap_or_default(),
    }
}

/// The first model of the first server that answers on this machine.
async fn loopback_model(config: &Config, engine: &Engine) -> Option<String> {
    let here = config.endpoints.iter().filter(|endpoint| endpoint.connect.loopback).cloned().collect();
    let pinged = ping_all(engine, here, LOOPBACK_LIST).await;
    pinged.into_iter().find_map(|pinged| {
        let model = pinged.listed.ok()?.into_iter().next()?;
        Some(format!("{}/{}", pinged.endpoint.name, model.id))
    })
}
