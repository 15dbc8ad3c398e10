//! `mmchat ask`: streams one answer.

use std::{sync::Arc, time::Duration};

use clap::Args;
use futures_util::StreamExt;

use super::ping::check_endpoints;

use crate::{
    cli::{
        CliError, Context,
        support::{
            completion::CompletionKind,
            exit::Exit,
            recording::{RecordingArgs, RunRecorder},
            request::RequestArgs,
            turn_ref::{HistoryPrefix, LAST},
        },
    },
    config::{Config, Flags, ResolvedSettings, SettingSource},
    engine::{
        Engine, EventKind,
        plan::{self, Call, Plan},
    },
    model::{ModelRequest, key_mask::mask_key_shapes},
    render::{
        Format, Output, TerminalInfo,
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
    /// Use this model, route or endpoint/id [env: MMCHAT_MODEL]
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
    let (config, mut settings) = context.config(context.settings(flags)?)?;
    args.request.check(&settings)?;
    let preset = args.request.preset(context, &config, &settings)?;
    let history = args.continue_from.as_deref().map(|reference| HistoryPrefix::find(context, reference)).transpose()?;
    let model = preset
        .as_ref()
        .and_then(|preset| preset.model.clone())
        .or_else(|| Some(history.as_ref()?.requested_name().to_owned()));
    if let (Some(model), None) = (model, &args.model) {
        settings.model.value = Some(model);
        settings.model.source = SettingSource::Flag("--preset, --continue");
    }
    // Report an unknown name before reading any input.
    if let Some(name) = &settings.model.value {
        plan::check_name(&config, name)?;
    }
    let mut request = args.request.build_request(preset.as_ref(), &settings)?;
    let mut continuation = Continuation::New;
    if let Some(history) = history {
        continuation = history.continuation();
        history.warn_missing();
        history.prepend_to(Arc::make_mut(&mut request));
    }
    let run = AskRun {
        context,
        config: &config,
        settings: &settings,
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
    pub(crate) settings: &'a ResolvedSettings,
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
        let Self { context, config, settings, request_args, answer_args, .. } = self;
        let format = request_args.check(settings)?;
        let terminal = context.terminal_info(settings);
        let (runtime, engine) =
            (context.runtime()?, context.engine_for(config, answer_args.recording.stores_content(config)));
        let writes_to_file = request_args.writes_to_file();
        let on_incomplete = if answer_args.buffer {
            OnIncomplete::Buffer
        } else if terminal.stdout_width.is_some() && !writes_to_file {
            OnIncomplete::Restart
        } else {
            OnIncomplete::Error
        };
        let may_send = !answer_args.dry_run;
        let mut call = runtime.block_on(build_call(
            config,
            settings,
            may_send.then_some(&*engine),
            model_request,
            on_incomplete,
        ))?;
        if answer_args.buffer {
            call.on_incomplete = OnIncomplete::Buffer;
        }
        call.retain_text =
            answer_args.recording.stores_content(config) || matches!(format, Format::Json | Format::Jsonl);
        let mut plan = Plan::single(call);
        answer_args.recording.apply_cost_limit(&mut plan)?;
        let call = &plan.calls[0];
        let streams = request_args.streams()?;
        if answer_args.dry_run {
            return dry_run::print(call, streams);
        }
        context.warn_about_exposed_keys(call.candidates.iter().map(|target| &target.endpoint));
        let view = AskView::new(AskSettings {
            name: call.name.clone(),
            format,
            terminal: TerminalInfo { stdout_width: terminal.stdout_width.filter(|_| !writes_to_file), ..terminal },
            render_markdown: terminal.styled && !request_args.raw(),
            show_stats: answer_args.stats,
            verbose: settings.log.value,
        });
        let mut recorder = RunRecorder::new(
            context,
            config,
            &engine,
            self.command,
            (&answer_args.recording, &plan, self.continuation.clone()),
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
    let mut run = engine.run(plan);
    let mut interrupted = Box::pin(interruption.received());
    let mut output = Output::default();
    let mut suspension = SuspendSignal::listen_if_handled();
    loop {
        let event = tokio::select! {
            biased;
            () = suspend_requested(&mut suspension) => {
                suspend_process();
                continue;
            }
            () = &mut interrupted => {
                let ended = run.stop_all();
                for event in &ended {
                    view.on_event(event, &mut output);
                }
                let written = streams.write(&mut output);
                for event in &ended {
                    recorder.on_event(event);
                }
                return match written {
                    Ok(()) | Err(WriteError::StdoutClosed) => Ok(Exit::Interrupted),
                    Err(error) => Err(error.into()),
                };
            }
            event = run.next() => event.expect("a call ends with `Finished`"),
        };
        view.on_event(&event, &mut output);
        let written = streams.write(&mut output);
        recorder.on_event(&event);
        if let (EventKind::Finished(outcome), Err(WriteError::StdoutClosed)) = (&event.kind, &written)
            && outcome.result.is_err()
        {
            // stdout is closed, but the failure still determines the exit code.
            return Ok(Exit::from_record(outcome));
        }
        if let Err(error) = written {
            // stdout is closed or failed; the answer so far is recorded, because it is billed.
            run.stop_all().iter().for_each(|event| recorder.on_event(event));
            return Err(error.into());
        }
        if let EventKind::Finished(outcome) = &event.kind {
            streams.finish(outcome.result.is_ok())?;
            return Ok(Exit::from_record(outcome));
        }
    }
}

/// The call for the selected model. Without one and without a config, uses the default model, else through `engine` a
/// server on this machine.
pub(crate) async fn build_call(
    config: &Config,
    settings: &ResolvedSettings,
    engine: Option<&Engine>,
    request: &Arc<ModelRequest>,
    on_incomplete: OnIncomplete,
) -> Result<Call, CliError> {
    let mut name = settings.model.value.clone();
    if name.is_none() && config.files.is_empty() {
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
    Ok(Call { deadline: settings.timeout.value, ..call })
}

/// ` (DEEPSEEK_API_KEY)`: the origin of the key of a model that was selected without a config.
fn key_source_suffix(config: &Config, name: &str) -> String {
    let endpoint = name.split('/').next().and_then(|endpoint| config.endpoint(endpoint));
    match endpoint.and_then(|endpoint| endpoint.keys.first().map(|key| (key, endpoint))) {
        Some((crate::model::api_key::KeySource::Env(variable), _)) => format!(" ({})", mask_key_shapes(variable)),
        _ => endpoint.map(|endpoint| format!(" ({})", endpoint.authority())).unwrap_or_default(),
    }
}

/// The first model of the first server on this machine that responds.
async fn find_loopback_model(config: &Config, engine: &Engine) -> Option<String> {
    let endpoints = config.endpoints.iter().filter(|endpoint| endpoint.connect.loopback).cloned().collect();
    let checks = check_endpoints(engine, endpoints, LOOPBACK_LIST_TIMEOUT).await;
    checks.into_iter().find_map(|check| {
        let model = check.model_list.ok()?.into_iter().next()?;
        Some(format!("{}/{}", check.endpoint.name, model.id))
    })
}
