//! `mmchat compare`: sends one prompt to several models at once and shows their answers.

use std::{num::NonZeroUsize, sync::Arc};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use strum::VariantNames as _;
use tokio::time::Instant;

mod continuation;
mod live_runner;
mod post_processing;

use continuation::ContinuedComparison;
pub(crate) use live_runner::LiveRunner;
use post_processing::{PostProcessingArgs, PromptInfo};

use super::pick::pick_by_ref;
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        error::unknown_value,
        exit::Exit,
        recording::{RecordingArgs, RunRecorder},
        request::{OutputArgs, RequestArgs, parse_positive},
        turn_ref::LAST,
    },
};
use crate::{
    config::{Config, Preset, ResolvedSettings, RoundContext},
    engine::plan::{Call, MAX_CONCURRENT_CALLS, Plan, Selection},
    model::{ChatRequest, ModelRequest},
    render::{
        Format, TerminalInfo,
        compare::{CompareSettings, CompareView, View},
    },
    routing::OnIncomplete,
    store::record::Continuation,
    term::{
        self,
        keyboard::TerminalModes,
        live::LiveRegion,
        output::{WriteError, write_stderr, write_styled_stderr},
        signals::InterruptHandler,
    },
};

/// Send one prompt to several models, and show the answers side by side
#[derive(Debug, Args)]
#[command(
    after_help = "Without -m, --set, --tag or --all, the model of the preset is used, else the models of the continued \
    round, else the set named by compare in the config, else the only set; without a config, the default model of each \
    vendor whose key is set. On a terminal each answer streams in its own column; at the end the complete answers and \
    a table are printed. On a pipe the complete answers are printed in the requested order, and the table goes to \
    stderr.\n\n\
    Exit code 7: some calls failed.\n\n\
    Examples:\n  \
    mmchat compare -m fast,strong \"Why is the sky blue?\"\n  \
    mmchat compare -m fast -n 5 --vote \"7 * 8? Answer with the number only.\"\n  \
    mmchat compare --set panel --diff --out report.html < question.txt\n  \
    mmchat compare --continue \"And in one sentence?\"\n  \
    mmchat compare --all --format json < question.txt | jq '.[].content'"
)]
pub(crate) struct CompareArgs {
    /// Continue the last conversation, or the one with this ID, such as 12; with 12@2, all models continue that answer
    #[arg(
        long = "continue",
        value_name = "ID",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = LAST,
        help_heading = "Prompt"
    )]
    continue_from: Option<String>,
    /// Continue each model with its own answers (separate), or all with the picked answer (shared)
    #[arg(
        long,
        value_name = "CONTEXT",
        value_parser = PossibleValuesParser::new(RoundContext::VARIANTS).try_map(|name| name.parse::<RoundContext>()),
        help_heading = "Prompt"
    )]
    context: Option<RoundContext>,
    /// Use these models, routes, sets or endpoint/id, joined with commas
    #[arg(
        short,
        long = "model",
        value_name = "MODEL",
        value_delimiter = ',',
        add = CompletionKind::ModelsRoutesAndSets.completer(),
        help_heading = "Models"
    )]
    models: Vec<String>,
    /// Use all models of these sets
    #[arg(
        long = "set",
        value_name = "SET",
        value_delimiter = ',',
        add = CompletionKind::Sets.completer(),
        help_heading = "Models"
    )]
    sets: Vec<String>,
    /// Use all models with one of these tags
    #[arg(
        long = "tag",
        value_name = "TAG",
        value_delimiter = ',',
        add = CompletionKind::Tags.completer(),
        help_heading = "Models"
    )]
    tags: Vec<String>,
    /// Use all models of the config
    #[arg(long, help_heading = "Models")]
    all: bool,
    /// Request this many answers of each model
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        default_value_t = 1,
        allow_negative_numbers = true,
        value_parser = parse_samples,
        help_heading = "Models"
    )]
    samples: usize,
    /// Arrange the answers as auto, live, columns, stack, tagged (lines as they arrive) or quiet (only the table)
    #[arg(long, value_name = "VIEW", default_value = "auto", add = CompletionKind::Views.completer(), help_heading = "Output")]
    view: String,
    #[command(flatten)]
    post_processing: PostProcessingArgs,
    #[command(flatten)]
    request: RequestArgs,
    /// Limit the number of calls at the same time
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        value_parser = parse_positive::<NonZeroUsize>,
        help_heading = "Limits"
    )]
    max_concurrency: Option<NonZeroUsize>,
    #[command(flatten)]
    recording: RecordingArgs,
}

pub(crate) fn run(args: &CompareArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = TerminalModes::save();
    let interruption = listen_for_interruption(modes.as_ref())?;
    let (config, settings) = context.config(context.settings(args.request.flags())?)?;
    args.request.check(&settings)?;
    let display = CompareDisplay::new(context, &settings, args.request.output_args(), &args.view)?
        .with_post_processing(&args.post_processing);
    let preset = args.request.preset(context, &config, &settings)?;
    let continued = match &args.continue_from {
        Some(reference) => Some(ContinuedComparison::find(context, reference, (args.context, config.context))?),
        None if args.context.is_some() => {
            return Err(CliError::usage(
                "--context requires --continue",
                "add --continue to continue a stored round, or remove --context",
            ));
        }
        None => None,
    };
    // Report an unknown name before reading any input.
    let selection = args.selection(preset.as_ref());
    if continued.is_some() && selection.is_empty() && args.samples > 1 {
        return Err(CliError::usage("-n with --continue requires -m", "add -m, or remove -n"));
    }
    let calls = |request: &Arc<ModelRequest>, on_incomplete| match &continued {
        Some(continued) if selection.is_empty() => {
            Ok((continued.repeat_calls(&config, request, on_incomplete)?, Vec::new()))
        }
        _ => {
            let selected = selection.resolve(&config, request, on_incomplete)?;
            let calls: Vec<Call> =
                selected.calls.into_iter().flat_map(|call| call.into_samples(args.samples)).collect();
            Ok::<_, CliError>((calls, selected.warnings))
        }
    };
    calls(&Arc::new(ModelRequest::Chat(ChatRequest::default())), OnIncomplete::Error)?;
    let model_request = args.request.build_request(preset.as_ref(), &settings)?;
    let (mut calls, mut warnings) = calls(&model_request, display.on_incomplete())?;
    let mut continuation = Continuation::New;
    if let Some(continued) = &continued {
        continuation = continued.prepend_history(&mut calls, &mut warnings);
    }
    for warning in warnings {
        write_stderr(&format!("warning: {warning}\n"));
    }
    let max_concurrent = Some(args.max_concurrency.map_or(MAX_CONCURRENT_CALLS, NonZeroUsize::get));
    let comparison = CompareRun {
        context,
        config: &config,
        settings: &settings,
        request_args: &args.request,
        recording: &args.recording,
        display,
        modes,
        post_processing: Some(&args.post_processing),
    };
    comparison.run(Plan { calls, max_concurrent }, ("compare", continuation), &interruption)
}

/// Listens for Ctrl-C and the other termination signals; a process that is terminated by force restores the terminal.
pub(crate) fn listen_for_interruption(modes: Option<&TerminalModes>) -> Result<InterruptHandler, CliError> {
    let modes = modes.cloned();
    let cleanup = move || {
        if let Some(modes) = &modes {
            modes.restore();
        }
        term::signals::run_with_timeout(|| {
            term::live::shut_down();
            #[cfg(feature = "chat")]
            term::editor::disable_bracketed_paste();
        });
    };
    Exit::listen_for_interruption_with_cleanup(cleanup)
}

/// How answers are shown, as chosen by the options.
pub(crate) struct CompareDisplay {
    pub(crate) format: Format,
    view: View,
    pub(crate) terminal: TerminalInfo,
    can_draw: bool,
    raw: bool,
    verbose: bool,
    /// The complete answers are needed after they were shown.
    retain_answers: bool,
    /// Results of post-processing are printed besides the answers.
    has_extra_results: bool,
}

impl CompareDisplay {
    /// Validates the options, before any input is read or any request is sent.
    pub(crate) fn new(
        context: &Context,
        settings: &ResolvedSettings,
        output_args: &OutputArgs,
        view_name: &str,
    ) -> Result<Self, CliError> {
        let format = OutputArgs::check(settings)?;
        let terminal = context.terminal_info(settings);
        let stdout_width = terminal.stdout_width.filter(|_| output_args.file().is_none());
        let terminal = TerminalInfo { stdout_width, ..terminal };
        let can_draw = can_draw(context, terminal, settings.plain.value);
        let view = parse_view(view_name, format, terminal, can_draw)?;
        Ok(Self {
            format,
            view,
            terminal,
            can_draw,
            raw: output_args.raw,
            verbose: settings.log.value,
            retain_answers: false,
            has_extra_results: false,
        })
    }

    /// Adds what post-processing needs.
    fn with_post_processing(self, args: &PostProcessingArgs) -> Self {
        let (retain_answers, has_extra_results) = args.answer_needs();
        Self { retain_answers, has_extra_results, ..self }
    }

    /// What to do with an incomplete answer. Text that was already printed cannot be retracted.
    pub(crate) fn on_incomplete(&self) -> OnIncomplete {
        if self.settings().streams_output() { OnIncomplete::Error } else { OnIncomplete::Buffer }
    }

    pub(crate) fn settings(&self) -> CompareSettings {
        CompareSettings {
            format: self.format,
            view: self.view,
            terminal: self.terminal,
            has_live_region: self.can_draw,
            render_markdown: self.terminal.styled && !self.raw,
            verbose: self.verbose,
            keep_answers: self.retain_answers,
            answers_in_object: self.has_extra_results,
        }
    }
}

/// A run of several calls.
pub(crate) struct CompareRun<'a> {
    pub(crate) context: &'a Context,
    pub(crate) config: &'a Config,
    pub(crate) settings: &'a ResolvedSettings,
    pub(crate) request_args: &'a RequestArgs,
    pub(crate) recording: &'a RecordingArgs,
    pub(crate) display: CompareDisplay,
    /// The terminal modes, if keys can be read.
    pub(crate) modes: Option<TerminalModes>,
    /// The options for post-processing.
    pub(crate) post_processing: Option<&'a PostProcessingArgs>,
}

impl CompareRun<'_> {
    /// Runs the plan as `command`; `continuation` is how its turns continue a conversation.
    pub(crate) fn run(
        self,
        mut plan: Plan,
        (command, continuation): (&'static str, Continuation),
        interruption: &InterruptHandler,
    ) -> Result<Exit, CliError> {
        let Self { context, config, settings, request_args, recording, display, modes, post_processing } = self;
        // Validated before any request is sent.
        let post_processing =
            post_processing.map(|args| args.validate(&plan, request_args.output_args().file())).transpose()?;
        let prompt = PromptInfo::from_plan(&plan);
        let (format, styled) = (display.format, display.terminal.styled && display.terminal.stdout_width.is_some());
        for call in &mut plan.calls {
            call.deadline = settings.timeout.value;
        }
        recording.apply_cost_limit(&mut plan)?;
        let candidates = plan.calls.iter().flat_map(|call| &call.candidates);
        context.warn_about_exposed_keys(candidates.map(|target| &target.endpoint));
        let streams = request_args.streams()?;
        let view_settings = display.settings();
        let live = live_region(context, &view_settings, request_args.writes_to_file());
        let view = CompareView::new(view_settings, plan.calls.iter().map(Call::label), Instant::now());
        let view = if recording.has_cost_limit() { view.with_cost_limit() } else { view };
        let engine = context.engine_for(config, recording.stores_content(config));
        let recorder = Some(RunRecorder::new(context, config, &engine, command, (recording, &plan, continuation)));
        let runtime = &context.runtime()?;
        let runner = LiveRunner { runtime, engine, plan, view, streams, interruption, live, modes, recorder };
        let mut result = runner.run(context, std::future::pending())?;
        let (stored, picked) = (result.summary.stored.take(), result.view.picked());
        let run = stored.as_ref().map(|stored| stored.conversation);
        if let Some(post_processing) = post_processing {
            let prompt = PromptInfo { run, ..prompt };
            let written = post_processing.write_results(
                &result.view,
                (format, styled),
                &mut result.streams,
                (prompt, result.exit),
            );
            match written {
                Ok(exit) => result.exit = exit,
                // stdout is closed.
                Err(CliError::Write(WriteError::StdoutClosed)) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(stored) = &stored {
            write_styled_stderr(&result.view.record_hint(stored.conversation, &stored.answer_numbers));
        }
        let (exit, _) = result.close_streams()?;
        if let Some(call) = picked {
            match stored.as_ref().and_then(|stored| Some((stored, stored.answer_numbers.get(call).copied().flatten()?)))
            {
                Some((stored, answer)) => {
                    pick_by_ref(&format!("{}.{}@{answer}", stored.conversation, stored.round), context)?;
                }
                None => write_stderr("warning: cannot pick an answer: this run is not stored\n"),
            }
        }
        Ok(exit)
    }
}

impl CompareArgs {
    /// The models selected by the options, else the model of the preset.
    fn selection(&self, preset: Option<&Preset>) -> Selection {
        let selected =
            Selection { models: self.models.clone(), sets: self.sets.clone(), tags: self.tags.clone(), all: self.all };
        match preset.and_then(|preset| preset.model.clone()) {
            Some(model) if selected.is_empty() => Selection { models: vec![model], ..selected },
            _ => selected,
        }
    }
}

/// Parses the number of samples, at most 100: more answers of one model add no information.
fn parse_samples(text: &str) -> Result<usize, String> {
    let samples = text.parse().ok().filter(|samples| (1..=100).contains(samples));
    samples.ok_or_else(|| "expected a number from 1 to 100".to_owned())
}

fn parse_view(value: &str, format: Format, terminal: TerminalInfo, can_draw: bool) -> Result<View, CliError> {
    let view = value.parse().map_err(|_| unknown_value("view", value, View::VARIANTS))?;
    if view != View::Auto && format != Format::Text {
        return Err(CliError::usage("--view applies only to --format text", "remove --view, or add --format text"));
    }
    if view == View::Live && (terminal.stdout_width.is_none() || !can_draw) {
        return Err(CliError::usage(
            "--view live requires an interactive terminal",
            "remove it, or use stack or tagged",
        ));
    }
    Ok(view)
}

/// Whether a live region can be drawn: stderr is a terminal with cursor movement, and plain output is not requested.
pub(crate) fn can_draw(context: &Context, terminal: TerminalInfo, plain: bool) -> bool {
    terminal.stderr_is_terminal && !plain && term::supports_cursor(&context.environment)
}

/// The live region, if the output leaves a screen for it.
pub(crate) fn live_region(context: &Context, settings: &CompareSettings, writes_to_file: bool) -> Option<LiveRegion> {
    let has_screen = settings.terminal.stdout_width.is_some() || writes_to_file;
    // A drawing would overwrite data, or lines that are printed as they arrive, on the same screen.
    let scrolls = settings.streams_output() && !writes_to_file;
    let is_text = settings.format == Format::Text || writes_to_file;
    (settings.has_live_region && has_screen && !scrolls && is_text)
        .then(|| LiveRegion::new(term::columns_override(&context.environment)))
}
