//! Runs one round of a chat: sends the question, shows the answers and records them.
//!
//! A single answer is shown as by `ask`, several answers as by `compare`.

use std::sync::Arc;

use tokio::time::Instant;

use super::Driver;
use crate::{
    cli::{
        CliError,
        commands::{
            ask::stream_answer,
            compare::{CompareDisplay, LiveRunner, live_region},
        },
        support::{
            exit::Exit,
            recording::{RunRecorder, RunSummary},
        },
    },
    conversation::{Event, Round},
    engine::plan::{self, Call, Plan},
    model::{ChatRequest, ModelRequest},
    render::{
        Format, Output,
        ask::{AskSettings, AskView},
        compare::CompareView,
    },
    routing::OnIncomplete,
    store::record::Continuation,
    term::output::Streams,
};

/// Sends the question to all models of the round and returns the resulting events.
pub(super) fn run_round(driver: &mut Driver<'_>, round: &Round) -> Result<Vec<Event>, CliError> {
    let display = CompareDisplay::new(driver.context, driver.settings, driver.output_args, "auto")?;
    let on_incomplete = match round.calls.len() {
        1 if display.terminal.stdout_width.is_some() => OnIncomplete::Restart,
        1 => OnIncomplete::Error,
        _ => display.on_incomplete(),
    };
    let calls = round.calls.iter().map(|(name, messages)| {
        let request = ChatRequest {
            messages: messages.clone(),
            params: driver.params.clone(),
            stream: !driver.output_args.no_stream,
            ..ChatRequest::default()
        };
        let call =
            plan::resolve_call(driver.config, Some(name), &Arc::new(ModelRequest::Chat(request)), on_incomplete)?;
        Ok(Call { deadline: driver.settings.timeout.value, ..call })
    });
    let mut plan =
        Plan { calls: calls.collect::<Result<_, CliError>>()?, max_concurrent: Some(plan::MAX_CONCURRENT_CALLS) };
    driver.recording.apply_cost_limit(&mut plan)?;
    let recorder = recorder_for(driver, &plan, round.continuation.clone());
    let (exit, summary, picked) = match plan.calls.as_slice() {
        [_] => run_single(driver, plan, &display, recorder)?,
        _ => run_comparison(driver, plan, &display, recorder)?,
    };
    driver.exit_codes.push(exit);
    let RunSummary { stored, answers } = summary;
    driver.conversation_id = stored.as_ref().map(|stored| stored.conversation).or(driver.conversation_id);
    let finished = Event::RoundFinished { answers, interrupted: exit == Exit::Interrupted, stored };
    let picked = picked.map(|index| Event::Line(format!("/pick {}", index + 1)));
    Ok(std::iter::once(finished).chain(picked).collect())
}

/// The exit code of a round, its summary, and the index of the answer that was picked while answers streamed.
type RoundEnd = (Exit, RunSummary, Option<usize>);

fn recorder_for(driver: &Driver<'_>, plan: &Plan, continuation: Continuation) -> RunRecorder {
    RunRecorder::new(driver.context, driver.config, driver.engine, "chat", (driver.recording, plan, continuation))
        .collecting_answers(plan)
}

/// Streams a single answer.
fn run_single(
    driver: &Driver<'_>,
    plan: Plan,
    display: &CompareDisplay,
    mut recorder: RunRecorder,
) -> Result<RoundEnd, CliError> {
    let call = &plan.calls[0];
    let view = AskView::new(AskSettings {
        name: call.name.clone(),
        format: display.format,
        terminal: display.terminal,
        render_markdown: display.terminal.styled && !driver.output_args.raw,
        show_stats: false,
        verbose: driver.settings.log.value,
    });
    let streaming = stream_answer(
        driver.engine,
        plan.retaining_text(),
        (view, Streams::stdout()),
        &mut recorder,
        driver.interruption,
    );
    let exit = driver.runtime.block_on(streaming);
    let summary = recorder.close();
    // On a pipe the next answer starts on a new line.
    let text = summary.answers.first().map_or("", |answer| answer.text.as_str());
    let lacks_newline = display.terminal.stdout_width.is_none()
        && display.format == Format::Text
        && !text.is_empty()
        && !text.ends_with('\n');
    if lacks_newline {
        Streams::stdout().write(&mut Output::data("\n".to_owned()))?;
    }
    Ok((exit?, summary, None))
}

/// Shows several answers side by side.
fn run_comparison(
    driver: &Driver<'_>,
    plan: Plan,
    display: &CompareDisplay,
    recorder: RunRecorder,
) -> Result<RoundEnd, CliError> {
    let settings = display.settings();
    let live = live_region(driver.context, &settings, false);
    let view = CompareView::new(settings, plan.calls.iter().map(Call::label), Instant::now());
    let runner = LiveRunner {
        runtime: driver.runtime,
        engine: Arc::clone(driver.engine),
        plan,
        view,
        streams: Streams::stdout(),
        interruption: driver.interruption,
        live,
        modes: driver.modes.clone(),
        recorder: Some(recorder),
    };
    let result = runner.run(driver.context, std::future::pending())?;
    let picked = result.view.picked();
    let (exit, summary) = result.close_streams()?;
    Ok((exit, summary, picked))
}
