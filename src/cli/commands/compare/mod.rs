//! `mmchat compare`: several answers to one prompt, at once.

use std::{num::NonZeroUsize, sync::Arc};

use clap::Args;
use tokio::time::Instant;

mod continuation;
mod live_runner;
mod post_processing;

use continuation::Going;
pub(crate) use live_runner::Stage;
use post_processing::{Asked, ExtraArgs};

use super::pick::pick_at;
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        recording::{KeepArgs, Keeper},
        request::{HowArgs, RequestArgs, unknown},
        turn_ref::LAST,
    },
};
use crate::{
    config::{Config, Layers, Preset, RoundContext},
    engine::plan::{AT_ONCE, Lane, Plan, Selection},
    model::{Call, ChatRequest},
    render::{
        Format, Look,
        compare::{CompareView, Settings, VIEWS, View},
    },
    routing::OnCut,
    store::record::GoesOn,
    term::{
        self,
        keyboard::Modes,
        live::Live,
        output::{WriteError, say},
        signals::Interruption,
    },
};

/// Ask several models the same at once, and see the answers side by side
#[derive(Debug, Args)]
#[command(
    after_help = "Without -m, --set, --tag or --all: the set that `compare` names in the config, else the only set.\n\
    On a terminal each answer has a column while it comes, then the answers and a table are left; on a pipe whole\n\
    answers in the order asked for, the table on stderr. Exit code 7: some failed.\n\n\
    mmchat compare -m fast,strong \"Why is the sky blue?\"\n\
    mmchat compare -m fast -n 5 --vote \"How many primes are below 100? Only the number.\"\n\
    mmchat compare --set panel --diff --out report.html < question.txt\n\
    mmchat compare --continue \"And in one sentence?\"\n\
    mmchat compare --all --format json < question.txt | jq '.[].content'"
)]
pub(crate) struct CompareArgs {
    /// Models, routes, endpoint/upstream-id or sets, joined with commas
    #[arg(short, long = "model", value_name = "MODEL", value_delimiter = ',', add = Offer::Comparable.completer())]
    models: Vec<String>,
    /// Everybody in these sets
    #[arg(long = "set", value_name = "SET", value_delimiter = ',', add = Offer::Sets.completer())]
    sets: Vec<String>,
    /// Every model with this tag
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', add = Offer::Tags.completer())]
    tags: Vec<String>,
    /// Every model of the config
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    request: RequestArgs,
    /// How text is arranged: auto, live, columns, stack, tagged (lines as they come) or quiet (the table alone)
    #[arg(long, value_name = "VIEW", default_value = "auto", add = Offer::Views.completer())]
    view: String,
    /// How many are asked at once
    #[arg(long, value_name = "NUMBER")]
    max_concurrency: Option<NonZeroUsize>,
    /// So many answers of each model
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 1, value_parser = samples)]
    samples: usize,
    /// Go on with the last comparison, or with this one: 12; or all with one of its answers: 12@2
    #[arg(long = "continue", value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = LAST)]
    goes_on: Option<String>,
    /// What each model sees of what came before: its own answers, or the one that was picked
    #[arg(long, value_name = "WHOSE", value_parser = RoundContext::NAMES.map(|(name, _)| name))]
    context: Option<String>,
    #[command(flatten)]
    extras: ExtraArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

pub(crate) fn run(args: &CompareArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = Modes::save();
    let interruption = interruption(modes.as_ref())?;
    let (config, layers) = context.config(context.layers(args.request.flags())?)?;
    args.request.check(&layers)?;
    let shown = Shown::new(context, &layers, args.request.how(), &args.view)?.with(&args.extras);
    let preset = args.request.preset(context, &config, &layers)?;
    let going = match &args.goes_on {
        Some(place) => Some(Going::find(context, place, (args.context(), config.context))?),
        None if args.context.is_some() => {
            return Err(CliError::usage("--context is about a comparison that goes on", "add --continue"));
        }
        None => None,
    };
    // A wrong name is told before anything is read.
    let selection = args.selection(preset.as_ref());
    if going.is_some() && selection.is_empty() && args.samples > 1 {
        return Err(CliError::usage("-n is about models that are named", "add -m, or leave out -n"));
    }
    let lanes = |call: &Arc<Call>, on_cut| match &going {
        Some(going) if selection.is_empty() => Ok((going.lanes(&config, call, on_cut)?, Vec::new())),
        _ => {
            let selected = selection.lanes(&config, call, on_cut)?;
            let lanes: Vec<Lane> = selected.lanes.into_iter().flat_map(|lane| lane.sampled(args.samples)).collect();
            Ok::<_, CliError>((lanes, selected.warnings))
        }
    };
    lanes(&Arc::new(Call::Chat(ChatRequest::default())), OnCut::Error)?;
    let call = args.request.call(preset.as_ref(), &layers)?;
    let (mut lanes, mut warnings) = lanes(&call, shown.on_cut())?;
    let mut goes_on = GoesOn::Anew;
    if let Some(going) = &going {
        goes_on = going.before(&mut lanes, &mut warnings);
    }
    for warning in warnings {
        say(&format!("warning: {warning}\n"));
    }
    let at_once = args.max_concurrency.map_or(AT_ONCE, NonZeroUsize::get);
    let (config, layers, request, keep) = (&config, &layers, &args.request, &args.keep);
    let extras = Some(&args.extras);
    let comparison = Comparison { context, config, layers, request, keep, shown, modes, extras };
    comparison.run(Plan { lanes, at_once: Some(at_once) }, ("compare", goes_on), &interruption)
}

/// Listens for Ctrl-C and its kin; a process that must be ended leaves the terminal as it was.
pub(crate) fn interruption(modes: Option<&Modes>) -> Result<Interruption, CliError> {
    let modes = modes.cloned();
    let last = move || {
        if let Some(modes) = &modes {
            modes.leave();
        }
        term::signals::in_time(|| {
            term::live::end();
            term::editor::leave();
        });
    };
    Exit::on_interruption_then(last)
}

/// How answers are to be shown, as the flags have it.
pub(crate) struct Shown {
    pub(crate) format: Format,
    view: View,
    pub(crate) look: Look,
    drawn: bool,
    raw: bool,
    verbose: bool,
    /// The answers are needed after they were shown.
    whole: bool,
    /// More than they is told.
    wrapped: bool,
}

impl Shown {
    /// Checked before anything is read or sent.
    pub(crate) fn new(context: &Context, layers: &Layers, how: &HowArgs, word: &str) -> Result<Self, CliError> {
        let format = HowArgs::check(layers)?;
        let look = context.look(layers);
        let look = Look { out_width: look.out_width.filter(|_| how.file().is_none()), ..look };
        let drawn = drawable(context, look, layers.plain.value);
        let view = view(word, format, look, drawn)?;
        let verbose = layers.log.value;
        Ok(Self { format, view, look, drawn, raw: how.raw, verbose, whole: false, wrapped: false })
    }

    /// With what is told beside the answers.
    fn with(self, extras: &ExtraArgs) -> Self {
        let (whole, wrapped) = extras.wants();
        Self { whole, wrapped, ..self }
    }

    /// Text that was shown before its answer is whole cannot be taken back.
    pub(crate) fn on_cut(&self) -> OnCut {
        if self.settings(0).shows_as_it_comes() { OnCut::Error } else { OnCut::Buffer }
    }

    pub(crate) fn settings(&self, prompt_tokens: u64) -> Settings {
        Settings {
            format: self.format,
            view: self.view,
            look: self.look,
            drawn: self.drawn,
            rendered: self.look.styled && !self.raw,
            verbose: self.verbose,
            prompt_tokens,
            whole: self.whole,
            wrapped: self.wrapped,
        }
    }
}

/// Several answers that are to be had at once, and shown.
pub(crate) struct Comparison<'a> {
    pub(crate) context: &'a Context,
    pub(crate) config: &'a Config,
    pub(crate) layers: &'a Layers,
    pub(crate) request: &'a RequestArgs,
    pub(crate) keep: &'a KeepArgs,
    pub(crate) shown: Shown,
    /// The terminal's modes, where keys can be listened to.
    pub(crate) modes: Option<Modes>,
    /// What is told beside the answers.
    pub(crate) extras: Option<&'a ExtraArgs>,
}

impl Comparison<'_> {
    /// Runs the plan, whose lanes go on with what they do.
    pub(crate) fn run(
        self,
        mut plan: Plan,
        (command, goes_on): (&'static str, GoesOn),
        interruption: &Interruption,
    ) -> Result<Exit, CliError> {
        let Self { context, config, layers, request, keep, shown, modes, extras } = self;
        // Checked before anything is sent.
        let extras = extras.map(|extras| extras.checked(&plan, request.how().file())).transpose()?;
        let asked = Asked::of(&plan);
        let (format, styled) = (shown.format, shown.look.styled && shown.look.out_width.is_some());
        for lane in &mut plan.lanes {
            lane.deadline = layers.timeout.value;
        }
        keep.cap(&mut plan)?;
        let streams = request.streams()?;
        let tokens = plan.lanes.first().map_or(0, |lane| lane.prompt_tokens);
        let settings = shown.settings(tokens);
        let live = live(context, &settings, request.to_file());
        let view = CompareView::new(settings, plan.lanes.iter().map(Lane::label), Instant::now());
        let view = if keep.is_capped() { view.capped() } else { view };
        let engine = context.engine_for(config, keep.words(config));
        let keeper = Some(Keeper::new(context, config, &engine, command, (keep, &plan, goes_on)));
        let runtime = &context.runtime()?;
        let stage = Stage { runtime, engine, plan, view, streams, interruption, live, modes, keeper };
        let mut staged = stage.run(context, std::future::pending())?;
        let (kept, picked) = (staged.closed.kept.take(), staged.view.picked());
        let run = kept.as_ref().map(|kept| kept.conversation);
        if let Some(extras) = extras {
            let asked = Asked { run, ..asked };
            let told = extras.tell(&staged.view, (format, styled), &mut staged.streams, (asked, staged.exit));
            match told {
                Ok(exit) => staged.exit = exit,
                // Nobody reads on.
                Err(CliError::Write(WriteError::Closed)) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(kept) = &kept {
            say(&staged.view.kept(kept.conversation, &kept.lanes));
        }
        let (exit, _) = staged.end()?;
        if let Some(lane) = picked {
            match kept.as_ref().and_then(|kept| Some((kept, kept.lanes.get(lane).copied().flatten()?))) {
                Some((kept, lane)) => pick_at(&format!("{}.{}@{lane}", kept.conversation, kept.round), context)?,
                None => say("warning: this run is not kept, so that nothing of it can be picked\n"),
            }
        }
        Ok(exit)
    }
}

impl CompareArgs {
    /// What `--context` says.
    fn context(&self) -> Option<RoundContext> {
        let wanted = self.context.as_deref()?;
        RoundContext::NAMES.into_iter().find(|(name, _)| *name == wanted).map(|(_, context)| context)
    }

    /// Whom the flags choose; without a choice the preset's model.
    fn selection(&self, preset: Option<&Preset>) -> Selection {
        let chosen =
            Selection { models: self.models.clone(), sets: self.sets.clone(), tags: self.tags.clone(), all: self.all };
        match preset.and_then(|preset| preset.model.clone()) {
            Some(model) if chosen.is_empty() => Selection { models: vec![model], ..chosen },
            _ => chosen,
        }
    }
}

/// More than a hundred answers of one model tell nothing more.
fn samples(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|samples| (1..=100).contains(samples)).ok_or_else(|| "a number from 1 to 100".to_owned())
}

fn view(word: &str, format: Format, look: Look, drawable: bool) -> Result<View, CliError> {
    let Some(&(_, view)) = VIEWS.iter().find(|(name, _)| *name == word) else {
        return Err(unknown("view", word, &VIEWS.iter().map(|(name, _)| *name).collect::<Vec<_>>()));
    };
    if view != View::Auto && format != Format::Text {
        return Err(CliError::usage(
            "`--view` arranges text, and another format was asked for",
            "leave one of them out",
        ));
    }
    if view == View::Live && (look.out_width.is_none() || !drawable) {
        return Err(CliError::usage(
            "`--view live` needs a terminal that may be drawn on",
            "leave it out, or take stack or tagged",
        ));
    }
    Ok(view)
}

/// Whether rows can be drawn: there is a terminal for them, and nobody asked for plain text.
pub(crate) fn drawable(context: &Context, look: Look, plain: bool) -> bool {
    look.err_is_terminal && !plain && term::can_move(&context.environment)
}

/// A live region where there is a screen for one and the data is not piped on.
pub(crate) fn live(context: &Context, settings: &Settings, to_file: bool) -> Option<Live> {
    let seen = settings.look.out_width.is_some() || to_file;
    // Data, or lines as they come, would be drawn over again and again on the same screen.
    let scrolls = settings.shows_as_it_comes() && !to_file;
    let text = settings.format == Format::Text || to_file;
    (settings.drawn && seen && !scrolls && text).then(|| Live::new(term::wanted_width(&context.environment)))
}
