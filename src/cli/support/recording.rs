//! Records the calls of a command and the health of the services, and limits its cost (`--no-log`, `--max-cost`).
//!
//! A failure to store something is a warning at the end of the command, never an error.

use std::{collections::HashSet, sync::Arc};

use clap::Args;

use crate::cli::{CliError, Context};
use crate::{
    config::Config,
    conversation::{Answer, AnswerCollector},
    engine::{
        Engine, Event, EventKind,
        plan::{
            Plan,
            cost::{self, Money},
        },
    },
    store::{
        self,
        record::{Continuation, Database, RecordWriter, RunCalls, RunPlacement, StoredRound},
    },
    term::output::write_stderr,
};

/// The options for recording and cost.
#[derive(Debug, Default, Args)]
pub(crate) struct RecordingArgs {
    /// Limit the cost to this amount, such as 0.05 (US dollars) or 0.3CNY; answers are shortened to fit, and nothing is
    /// sent if that is not enough
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true, help_heading = "Limits")]
    max_cost: Option<Money>,
    /// Do not store prompts and answers; times, tokens and cost are still recorded
    #[arg(long, help_heading = "Record")]
    no_log: bool,
}

impl RecordingArgs {
    /// Records metrics but no prompts and answers.
    pub(crate) fn metadata_only() -> Self {
        Self { no_log: true, max_cost: None }
    }

    /// Whether prompts and answers are stored.
    pub(crate) fn stores_content(&self, config: &Config) -> bool {
        config.history.store_content && !self.no_log
    }

    /// Whether `--max-cost` is set.
    pub(crate) fn has_cost_limit(&self) -> bool {
        self.max_cost.is_some()
    }

    /// Limits the answers of `plan` so that it costs at most `--max-cost`; an error if that is impossible.
    pub(crate) fn apply_cost_limit(&self, plan: &mut Plan) -> Result<(), CliError> {
        let Some(limit) = &self.max_cost else { return Ok(()) };
        let Money { amount, currency } = limit;
        let capped = cost::apply_max_cost(plan, limit).map_err(|minimum| CliError::Condition {
            // Rounded up, so that this amount suffices as --max-cost.
            message: format!(
                "this would cost at least {:.6} {currency}, but --max-cost is {amount} {currency}",
                (minimum * 1e6 - 1e-3).ceil() / 1e6
            ),
            hint: "shorten the prompt, choose cheaper models, or raise --max-cost".into(),
        })?;
        if !capped.uncovered.is_empty() {
            let names = capped.uncovered.join(", ");
            write_stderr(&format!(
                "warning: --max-cost does not cover {names}: the config has no price in {currency}\n"
            ));
        }
        if let Some(max_output_tokens) = capped.max_output_tokens {
            write_stderr(&format!(
                "--max-cost {amount} {currency}: answers are limited to {max_output_tokens} tokens\n"
            ));
        }
        Ok(())
    }
}

/// Records one run.
pub(crate) struct RunRecorder {
    engine: Arc<Engine>,
    calls: RunCalls,
    /// `None` if the system has no state folder.
    writer: Option<RecordWriter>,
    /// Collects the answers, if they are needed after the run.
    collector: Option<AnswerCollector>,
}

/// The results of a recorded run.
#[derive(Debug, Default)]
pub(crate) struct RunSummary {
    /// The ids of the stored prompts and answers, if they are stored.
    pub(crate) stored: Option<StoredRound>,
    /// The answers, if they were collected.
    #[cfg_attr(not(feature = "chat"), expect(dead_code, reason = "only `chat` needs them"))]
    pub(crate) answers: Vec<Answer>,
}

impl RunRecorder {
    /// A recorder for a run of `plan`, which continues a conversation as `continuation` says.
    pub(crate) fn new(
        context: &Context,
        config: &Config,
        engine: &Arc<Engine>,
        command: &'static str,
        (args, plan, continuation): (&RecordingArgs, &Plan, Continuation),
    ) -> Self {
        let placement = RunPlacement::new(continuation);
        let retention_days = config.history.retention_days;
        Self {
            engine: Arc::clone(engine),
            calls: RunCalls::new(command, args.stores_content(config), plan),
            writer: record_path(context).map(|path| RecordWriter::for_command(path, placement, retention_days)),
            collector: None,
        }
    }

    /// Also collects the answers.
    #[cfg(feature = "chat")]
    pub(crate) fn collecting_answers(mut self, plan: &Plan) -> Self {
        self.collector = Some(AnswerCollector::new(plan.calls.len()));
        self
    }

    /// Records an event.
    pub(crate) fn on_event(&mut self, event: &Event) {
        if let Some(writer) = &self.writer {
            match &event.kind {
                // Opening the database takes time: it starts before there is something to write.
                // An error is returned when the writer is closed.
                EventKind::Deltas(_) | EventKind::BufferedDeltas(_) => drop(writer.start()),
                _ => self.calls.stored_call(event).into_iter().for_each(|call| writer.submit(call)),
            }
        }
        if let Some(collector) = &mut self.collector {
            collector.on_event(event);
        }
    }

    /// Waits until everything is stored; failures are printed as warnings.
    pub(crate) fn close(self) -> RunSummary {
        close_all([self]).pop().unwrap_or_default()
    }
}

/// Closes the recorders of several runs; equal warnings are printed once.
pub(crate) fn close_all(recorders: impl IntoIterator<Item = RunRecorder>) -> Vec<RunSummary> {
    let (mut printed, mut summaries) = (HashSet::new(), Vec::new());
    let mut warn = |warning: String| {
        if printed.insert(warning.clone()) {
            write_stderr(&format!("warning: {warning}\n"));
        }
    };
    for RunRecorder { engine, calls: _, writer, collector } in recorders {
        let stored = writer.map_or(Ok(None), |writer| writer.close()).unwrap_or_else(|error| {
            warn(error.to_string());
            None
        });
        if let Some(error) = engine.persist_health() {
            warn(error.to_string());
        }
        let answers = collector.map(AnswerCollector::into_answers).unwrap_or_default();
        summaries.push(RunSummary { stored, answers });
    }
    summaries
}

/// The path of the record database.
pub(crate) fn record_path(context: &Context) -> Option<std::path::PathBuf> {
    store::state_folder(&context.environment).map(|state| Database::path_in(&state))
}

/// Opens the record database; `None` if nothing was recorded yet.
pub(crate) fn open_record(context: &Context) -> Result<Option<Database>, CliError> {
    record_path(context).map_or(Ok(None), |path| Ok(Database::open_existing(&path)?))
}
