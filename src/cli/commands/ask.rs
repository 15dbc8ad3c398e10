//! `mmchat ask`: streams one answer.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::ping::check_endpoints;
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        exit::Exit,
        recording::{RecordingArgs, RunRecorder},
        request::RequestArgs,
        turn_ref::{HistoryPrefix, LAST},
    },
};
use crate::{
    config::{Config, Flags, ResolvedSettings, SettingSource},
    engine::{
        CallProgress, Engine, EventKind,
        plan::{self, Call, Plan},
    },
    model::ModelRequest,
    render::{
        Output,
        ask::{AskSettings, AskView},
    },
    routing::OnIncomplete,
    store::record::Continuation,
    term::{
        output::{Streams, WriteError, write_stderr},
        signals::{InterruptHandler, SuspendSignal, suspend_process, suspend_requested},
    },
};

mod dry_run;

/// Timeout for the model list of a server on this machine, which is tried when nothing else is configured.
const LOOPBACK_LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// Ask one model, or a route that fails over, and stream the answer
#[derive(Debug, Args)]
#[command(
    after_help = "Piped standard input is appended to the prompt after a blank line. With -, it is read without a time \
    limit.\n\n\
    Examples:\n  \
    mmchat ask \"Why is the sky blue?\"\n  \
    git log -20 | mmchat ask \"Summarize these commits\"\n  \
    mmchat ask -m chat -f notes.md --format json \"What is open?\"\n  \
    mmchat ask --continue \"And since when?\""
)]
pub(crate) struct AskArgs {
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
    /// Use this model, route, or endpoint/upstream-id [env: MMCHAT_MODEL]
    #[arg(short, long, add = CompletionKind::ModelsAndRoutes.completer(), help_heading = "Models")]
    model: Option<String>,
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

pub(crate) fn run(args: &AskArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::listen_for_interruption()?;
    let flags = Flags { model: args.model.clone(), ..args.request.flags() };
    let (config, mut layers) = context.config(context.layers(flags)?)?;
    args.request.check(&layers)?;
    let preset = args.request.preset(context, &config, &layers)?;
    let history = args.continue_from.as_deref().map(|reference| HistoryPrefix::find(context, reference)).transpose()?;
    let model = preset
        .as_ref()
        .and_then(|preset| preset.model.clone())
        .or_else(|| Some(history.as_ref()?.requested_name().to_owned()));
    if let (Some(model), None) = (model, &args.model) {
        layers.model.value = Some(model);
        layers.model.source = SettingSource::Flag("--preset, --continue");
    }
    // Report an unknown name before reading any input.
    if let Some(name) = &layers.model.value {
        plan::check_name(&config, name)?;
    }
    let mut request = args.request.build_request(preset.as_ref(), &layers)?;
    let mut continuation = Continuation::New;
    if let Some(history) = history {
        continuation = history.continuation();
        history.warn_missing();
        history.prepend_to(Arc::make_mut(&mut request));
    }
    let run = AskRun {
        context,
        config: &config,
        layers: &layers,
        request_args: &args.request,
        answer_args: &args.answer,
        command: "ask",
        continuation,
    };
    run.run(&request, &interruption)
}

/// The options for how one answer is shown and recorded.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Print time, tokens, speed and cost to stderr at the end
    #[arg(long, help_heading = "Output")]
    stats: bool,
    /// Print the answer only when it is complete, so that an incomplete one can be restarted on another model
    #[arg(long, help_heading = "Output")]
    buffer: bool,
    /// Print the request as a curl command, regardless of --format, and send nothing
    #[arg(long, help_heading = "Output")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) recording: RecordingArgs,
}

/// A run of one call.
pub(crate) struct AskRun<'a> {
    pub(crate) context: &'a Context,
    pub(crate) config: &'a Config,
    pub(crate) layers: &'a ResolvedSettings,
    pub(crate) request_args: &'a RequestArgs,
    pub(crate) answer_args: &'a AnswerArgs,
    pub(crate) command: &'static str,
    /// How the turn continues a conversation.
    pub(crate) continuation: Continuation,
}

impl AskRun<'_> {
    /// Sends the request and prints the answer.
    pub(crate) fn run(
        &self,
        model_request: &Arc<ModelRequest>,
        interruption: &InterruptHandler,
    ) -> Result<Exit, CliError> {
        let Self { context, config, layers, request_args: request, answer_args: answer, .. } = self;
        let format = request.check(layers)?;
        let look = context.look(layers);
        let (runtime, engine) =
            (context.runtime()?, context.engine_for(config, answer.recording.stores_content(config)));
        let to_file = request.writes_to_file();
        let on_incomplete = if answer.buffer {
            OnIncomplete::Buffer
        } else if look.stdout_width.is_some() && !to_file {
            OnIncomplete::Restart
        } else {
            OnIncomplete::Error
        };
        let may_send = !answer.dry_run;
        let mut call =
            runtime.block_on(build_call(config, layers, may_send.then_some(&*engine), model_request, on_incomplete))?;
        if answer.buffer {
            call.on_incomplete = OnIncomplete::Buffer;
        }
        let mut plan = Plan::single(call);
        answer.recording.apply_cost_limit(&mut plan)?;
        let call = &plan.calls[0];
        let streams = request.streams()?;
        if answer.dry_run {
            return dry_run::print(call, streams);
        }
        let view = AskView::new(AskSettings {
            name: call.name.clone(),
            format,
            terminal: crate::render::TerminalInfo { stdout_width: look.stdout_width.filter(|_| !to_file), ..look },
            render_markdown: look.styled && !request.raw(),
            show_stats: answer.stats,
            verbose: layers.log.value,
            prompt_tokens: call.prompt_tokens,
        });
        let mut recorder = RunRecorder::new(
            context,
            config,
            &engine,
            self.command,
            (&answer.recording, &plan, self.continuation.clone()),
        );
        let exit = runtime.block_on(stream_answer(&engine, plan, (view, streams), &mut recorder, interruption));
        recorder.close();
        exit
    }
}

/// Prints the events of a single call until it ends, is interrupted, or stdout is closed.
pub(crate) async fn stream_answer(
    engine: &Arc<Engine>,
    plan: Plan,
    (mut view, mut streams): (AskView, Streams),
    recorder: &mut RunRecorder,
    interruption: &InterruptHandler,
) -> Result<Exit, CliError> {
    let mut events = Box::pin(engine.run(plan));
    let mut interrupted = Box::pin(interruption.received());
    let mut output = Output::default();
    let mut progress = CallProgress::new(Instant::now());
    let mut suspension = SuspendSignal::listen_if_handled();
    loop {
        let event = tokio::select! {
            biased;
            () = suspend_requested(&mut suspension) => {
                suspend_process();
                continue;
            }
            () = &mut interrupted => {
                let outcome = progress.into_interrupted_outcome(Instant::now());
                view.on_interrupt(&outcome, &mut output);
                let written = streams.write(&mut output);
                recorder.stop();
                return match written {
                    Ok(()) | Err(WriteError::StdoutClosed) => Ok(Exit::Interrupted),
                    Err(error) => Err(error.into()),
                };
            }
            event = events.next() => event.expect("a call ends with `Finished`"),
        };
        progress.apply(&event);
        view.on_event(&event, &mut output);
        let written = streams.write(&mut output);
        recorder.event(&event);
        if let (EventKind::Finished(outcome), Err(WriteError::StdoutClosed)) = (&event.kind, &written)
            && outcome.result.is_err()
        {
            // stdout is closed, but the failure still determines the exit code.
            return Ok(Exit::from_outcome(outcome));
        }
        if let Err(error) = written {
            // stdout is closed or failed; the answer so far is recorded, because it is billed.
            recorder.stop();
            return Err(error.into());
        }
        if let EventKind::Finished(outcome) = &event.kind {
            streams.finish(outcome.result.is_ok())?;
            return Ok(Exit::from_outcome(outcome));
        }
    }
}

/// The call for the selected model. Without one, uses the default model or, through `engine`, a server on this machine.
pub(crate) async fn build_call(
    config: &Config,
    layers: &ResolvedSettings,
    engine: Option<&Engine>,
    request: &Arc<ModelRequest>,
    on_incomplete: OnIncomplete,
) -> Result<Call, CliError> {
    let mut name = layers.model.value.clone();
    if name.is_none() && config.path.is_none() {
        name = match &config.default {
            Some(default) => Some(default.clone()),
            None => match engine {
                Some(engine) => find_loopback_model(config, engine).await,
                None => None,
            },
        };
        if let Some(name) = &name {
            write_stderr(&format!("using {name}{}\n", key_source_suffix(config, name)));
        }
    }
    let call = plan::resolve_call(config, name.as_deref(), request, on_incomplete)?;
    Ok(Call { deadline: layers.timeout.value, ..call })
}

/// ` (DEEPSEEK_API_KEY)`: the origin of the key of a model that was selected without a config.
fn key_source_suffix(config: &Config, name: &str) -> String {
    let endpoint = name.split('/').next().and_then(|endpoint| config.endpoint(endpoint));
    match endpoint.and_then(|endpoint| endpoint.keys.first().map(|key| (key, endpoint))) {
        Some((crate::model::api_key::KeySource::Env(variable), _)) => format!(" ({variable})"),
        _ => endpoint.map(|endpoint| format!(" ({})", endpoint.authority())).unwrap_or_default(),
    }
}

/// The first model of the first server on this machine that responds.
async fn find_loopback_model(config: &Config, engine: &Engine) -> Option<String> {
    let local = config.endpoints.iter().filter(|endpoint| endpoint.connect.loopback).cloned().collect();
    let pinged = check_endpoints(engine, local, LOOPBACK_LIST_TIMEOUT).await;
    pinged.into_iter().find_map(|pinged| {
        let model = pinged.listed.ok()?.into_iter().next()?;
        Some(format!("{}/{}", pinged.endpoint.name, model.id))
    })
}
