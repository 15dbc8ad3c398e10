//! `mmchat compare`: several answers to one prompt, at once.

use std::{num::NonZeroUsize, sync::Arc};

use clap::Args;
use tokio::time::Instant;

mod stage;

pub(super) use stage::Stage;

use super::{
    CliError, Context,
    complete::Offer,
    exit::Exit,
    keep::{KeepArgs, Keeper},
    request::{RequestArgs, unknown},
};
use crate::{
    chat::{Call, ChatRequest},
    config::{Config, Layers, Preset},
    plan::{AT_ONCE, Plan, Selection},
    render::{
        Format, Look,
        compare::{CompareView, Settings, VIEWS, View},
    },
    route::OnCut,
    term::{self, live::Live, output::say},
};

/// Ask several models the same at once, and see the answers side by side
#[derive(Debug, Args)]
#[command(
    after_help = "Without -m, --set, --tag or --all: the set that `compare` names in the config, else the only set.\n\
    On a terminal there is a row for each model while answers come, then the answers and a table; on a pipe whole\n\
    answers in the order asked for, the table on stderr. Exit code 7: some failed.\n\n\
    mmchat compare -m fast,strong \"Why is the sky blue?\"\n\
    mmchat compare --all --format json < question.txt | jq '.[].content'"
)]
pub(super) struct CompareArgs {
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
    #[command(flatten)]
    keep: KeepArgs,
}

pub(super) fn run(args: &CompareArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::on_interruption()?;
    let (config, layers) = context.config(context.layers(args.request.flags())?)?;
    let format = args.request.check(&layers)?;
    let look = context.look(&layers);
    let look = Look { out_width: look.out_width.filter(|_| !args.request.to_file()), ..look };
    let drawn = drawable(context, look, layers.plain.value);
    let view = view(&args.view, format, look, drawn)?;
    let preset = args.request.preset(context, &config, &layers)?;
    // A wrong name is told before anything is read.
    let selection = args.selection(preset.as_ref());
    args.plan(&selection, &config, &layers, &Arc::new(Call::Chat(ChatRequest::default())), OnCut::Error)?;
    let call = args.request.call(preset.as_ref(), &layers)?;
    let settings = Settings {
        format,
        view,
        look,
        drawn,
        rendered: look.styled && !args.request.raw(),
        verbose: layers.log.value,
        prompt_tokens: call.estimated_tokens(),
    };
    let on_cut = if settings.shows_as_it_comes() { OnCut::Error } else { OnCut::Buffer };
    let (mut plan, warnings) = args.plan(&selection, &config, &layers, &call, on_cut)?;
    args.keep.cap(&mut plan)?;
    let streams = args.request.streams()?;
    for warning in warnings {
        say(&format!("warning: {warning}\n"));
    }
    let live = live(context, &settings, args.request.to_file());
    let view = CompareView::new(settings, plan.lanes.iter().map(|lane| lane.name.as_str()), Instant::now());
    let engine = context.engine_for(&config, args.keep.words(&config));
    let keeper = Some(Keeper::new(context, &config, &engine, "compare", (&args.keep, &plan, None)));
    let stage = Stage { engine, plan, view, streams, interruption: &interruption, live, keeper };
    stage.run(context, std::future::pending())
}

impl CompareArgs {
    /// Whom the flags choose; without a choice the preset's model.
    fn selection(&self, preset: Option<&Preset>) -> Selection {
        let chosen =
            Selection { models: self.models.clone(), sets: self.sets.clone(), tags: self.tags.clone(), all: self.all };
        match preset.and_then(|preset| preset.model.clone()) {
            Some(model) if chosen.is_empty() => Selection { models: vec![model], ..chosen },
            _ => chosen,
        }
    }

    fn plan(
        &self,
        selection: &Selection,
        config: &Config,
        layers: &Layers,
        call: &Arc<Call>,
        on_cut: OnCut,
    ) -> Result<(Plan, Vec<String>), CliError> {
        let selected = selection.lanes(config, call, on_cut)?;
        let mut lanes = selected.lanes;
        for lane in &mut lanes {
            lane.deadline = layers.timeout.value;
        }
        let at_once = self.max_concurrency.map_or(AT_ONCE, NonZeroUsize::get);
        Ok((Plan { lanes, at_once: Some(at_once) }, selected.warnings))
    }
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
pub(super) fn drawable(context: &Context, look: Look, plain: bool) -> bool {
    look.err_is_terminal && !plain && term::can_move(&context.environment)
}

/// A live region where there is a screen for one and the data is not piped on.
pub(super) fn live(context: &Context, settings: &Settings, to_file: bool) -> Option<Live> {
    let seen = settings.look.out_width.is_some() || to_file;
    // Data, or lines as they come, would be drawn over again and again on the same screen.
    let scrolls = settings.shows_as_it_comes() && !to_file;
    let text = settings.format == Format::Text || to_file;
    (settings.drawn && seen && !scrolls && text).then(|| Live::new(term::wanted_width(&context.environment)))
}
