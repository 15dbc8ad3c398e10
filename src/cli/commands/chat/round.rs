//! One question of a conversation: asked, shown and kept.
//!
//! Owns which view it is shown with: one answer as `ask` shows it, several as `compare` does.

use std::sync::Arc;

use tokio::time::Instant;

use super::driver::Driver;
use crate::{
    cli::{
        CliError,
        commands::{
            ask::stream,
            compare::{Shown, Stage, live},
        },
        support::{
            exit::Exit,
            recording::{Closed, Keeper},
        },
    },
    conversation::{Event, Round},
    engine::plan::{self, Lane, Plan},
    model::{Call, ChatRequest},
    render::{
        Format, Output,
        ask::{AskView, Settings},
        compare::CompareView,
    },
    routing::OnCut,
    store::record::GoesOn,
    term::output::Streams,
};

/// Asks everybody at once: what came of it.
pub(super) fn ask(driver: &mut Driver<'_>, round: &Round) -> Result<Vec<Event>, CliError> {
    let shown = Shown::new(driver.context, driver.layers, driver.how, "auto")?;
    let on_cut = match round.lanes.len() {
        1 if shown.look.out_width.is_some() => OnCut::Restart,
        1 => OnCut::Error,
        _ => shown.on_cut(),
    };
    let lanes = round.lanes.iter().map(|(name, messages)| {
        let request = ChatRequest {
            messages: messages.clone(),
            params: driver.params.clone(),
            stream: !driver.how.no_stream,
            ..ChatRequest::default()
        };
        let lane = plan::lane(driver.config, Some(name), &Arc::new(Call::Chat(request)), on_cut)?;
        Ok(Lane { deadline: driver.layers.timeout.value, ..lane })
    });
    let mut plan = Plan { lanes: lanes.collect::<Result<_, CliError>>()?, at_once: Some(plan::AT_ONCE) };
    driver.keep.cap(&mut plan)?;
    let keeper = keeper(driver, &plan, round.goes_on.clone());
    let (exit, closed, picked) = match plan.lanes.as_slice() {
        [_] => one(driver, plan, &shown, keeper)?,
        _ => several(driver, plan, &shown, keeper)?,
    };
    driver.exits.push(exit);
    let Closed { kept, answers } = closed;
    driver.kept = kept.as_ref().map(|kept| kept.conversation).or(driver.kept);
    let answered = Event::Answered { answers, interrupted: exit == Exit::Interrupted, kept };
    let picked = picked.map(|lane| Event::Line(format!("/pick {}", lane + 1)));
    Ok(std::iter::once(answered).chain(picked).collect())
}

/// How a round ended, what came of it, and which lane the person picked while it came.
type Ended = (Exit, Closed, Option<usize>);

fn keeper(driver: &Driver<'_>, plan: &Plan, goes_on: GoesOn) -> Keeper {
    Keeper::new(driver.context, driver.config, driver.engine, "chat", (driver.keep, plan, goes_on)).listening(plan)
}

/// One answer, streamed.
fn one(driver: &Driver<'_>, plan: Plan, shown: &Shown, mut keeper: Keeper) -> Result<Ended, CliError> {
    let lane = &plan.lanes[0];
    let view = AskView::new(Settings {
        name: lane.name.clone(),
        format: shown.format,
        look: shown.look,
        rendered: shown.look.styled && !driver.how.raw,
        stats: false,
        verbose: driver.layers.log.value,
        prompt_tokens: lane.prompt_tokens,
    });
    let streamed = stream(driver.engine, plan, (view, Streams::stdout()), &mut keeper, driver.interruption);
    let exit = driver.runtime.block_on(streamed);
    let closed = keeper.close();
    // The next answer begins on a line of its own.
    let text = closed.answers.first().map_or("", |answer| answer.text.as_str());
    let open =
        shown.look.out_width.is_none() && shown.format == Format::Text && !text.is_empty() && !text.ends_with('\n');
    if open {
        Streams::stdout().put(&mut Output::data("\n".to_owned()))?;
    }
    Ok((exit?, closed, None))
}

/// Several answers, side by side.
fn several(driver: &Driver<'_>, plan: Plan, shown: &Shown, keeper: Keeper) -> Result<Ended, CliError> {
    let tokens = plan.lanes.first().map_or(0, |lane| lane.prompt_tokens);
    let settings = shown.settings(tokens);
    let live = live(driver.context, &settings, false);
    let view = CompareView::new(settings, plan.lanes.iter().map(Lane::label), Instant::now());
    let stage = Stage {
        runtime: driver.runtime,
        engine: Arc::clone(driver.engine),
        plan,
        view,
        streams: Streams::stdout(),
        interruption: driver.interruption,
        live,
        modes: driver.modes.clone(),
        keeper: Some(keeper),
    };
    let staged = stage.run(driver.context, std::future::pending())?;
    let picked = staged.view.picked();
    let (exit, closed) = staged.end()?;
    Ok((exit, closed, picked))
}
