//! What outlives a command that asks: the record of its calls, and what was learned of the services.
//!
//! Owns the flags about it, and that what cannot be kept is a warning at the end. Refuses to know what is recorded.

use std::sync::Arc;

use clap::Args;
use tokio::time::Instant;

use crate::cli::{CliError, Context, commands::ping::is_new};
use crate::{
    config::Config,
    conversation::{Answer, Heard},
    engine::{
        Engine, Event,
        plan::{
            Plan,
            cost::{self, Money},
        },
    },
    store::{
        self,
        record::{Database, GoesOn, Kept, RecordOptions, Recorder},
    },
    term::output::say,
};

/// The flags.
#[derive(Debug, Default, Args)]
pub(crate) struct KeepArgs {
    /// Keep nothing of what is said: neither prompt nor answer; times, tokens and cost are recorded all the same
    #[arg(long)]
    no_log: bool,
    /// Send nothing that would cost more than this, such as 0.05 (US dollars) or 0.3CNY; answers are limited to what it buys
    #[arg(long, value_name = "SUM")]
    max_cost: Option<Money>,
}

impl KeepArgs {
    /// Nothing worth keeping is said.
    pub(crate) fn wordless() -> Self {
        Self { no_log: true, max_cost: None }
    }

    /// Whether what is said is kept.
    pub(crate) fn words(&self, config: &Config) -> bool {
        config.history.on && !self.no_log
    }

    /// Whether `--max-cost` limits what is asked.
    pub(crate) fn is_capped(&self) -> bool {
        self.max_cost.is_some()
    }

    /// Holds `plan` to `--max-cost`.
    pub(crate) fn cap(&self, plan: &mut Plan) -> Result<(), CliError> {
        let Some(most) = &self.max_cost else { return Ok(()) };
        let Money { amount, currency } = most;
        let capped = cost::cap(plan, most).map_err(|least| CliError::Condition {
            // Rounded up, so that it is enough.
            message: format!(
                "this would cost at least {:.6} {currency}, and --max-cost is {amount} {currency}",
                (least * 1e6 - 1e-3).ceil() / 1e6
            ),
            hint: "shorten the prompt, choose cheaper models, or raise --max-cost".into(),
        })?;
        if !capped.uncovered.is_empty() {
            let names = capped.uncovered.join(", ");
            say(&format!("warning: --max-cost says nothing about {names}: no price in {currency} in the config\n"));
        }
        if let Some(longest) = capped.longest {
            say(&format!("--max-cost {amount} {currency}: answers end at {longest} tokens\n"));
        }
        Ok(())
    }
}

/// Keeps what is to be kept of one run.
pub(crate) struct Keeper {
    engine: Arc<Engine>,
    recorder: Recorder,
    /// What is heard of the answers, where somebody wants it.
    heard: Option<Heard>,
}

/// What outlived a run.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// Where what was said is now, if it is kept.
    pub(crate) kept: Option<Kept>,
    /// The answers, where somebody listened.
    pub(crate) answers: Vec<Answer>,
}

impl Keeper {
    /// For a run of `plan` that goes on with this.
    pub(crate) fn new(
        context: &Context,
        config: &Config,
        engine: &Arc<Engine>,
        command: &'static str,
        (args, plan, goes_on): (&KeepArgs, &Plan, GoesOn),
    ) -> Self {
        let options = RecordOptions {
            place: record_place(context),
            command,
            words: args.words(config),
            days: config.history.days,
            goes_on,
        };
        Self { engine: Arc::clone(engine), recorder: Recorder::new(options, plan), heard: None }
    }

    /// Listens to the answers of `plan`, too.
    pub(crate) fn listening(mut self, plan: &Plan) -> Self {
        self.heard = Some(Heard::new(plan.lanes.iter().map(|lane| lane.prompt_tokens), Instant::now()));
        self
    }

    /// Takes notice of what happened.
    pub(crate) fn event(&mut self, event: &Event) {
        self.recorder.event(event);
        if let Some(heard) = &mut self.heard {
            heard.event(event);
        }
    }

    /// Nothing more comes, although not everybody is done.
    pub(crate) fn stop(&mut self) {
        self.recorder.stop();
    }

    /// Waits until all is kept; what could not be is told.
    pub(crate) fn close(self) -> Closed {
        close_all([self]).pop().unwrap_or_default()
    }
}

/// Waits until all of several runs is kept; what could not be is told once.
pub(crate) fn close_all(keepers: impl IntoIterator<Item = Keeper>) -> Vec<Closed> {
    let (mut told, mut all) = (Vec::new(), Vec::new());
    let mut tell = |warning: String| {
        if is_new(&mut told, warning.clone()) {
            say(&format!("warning: {warning}\n"));
        }
    };
    for Keeper { engine, recorder, heard } in keepers {
        let kept = recorder.close().unwrap_or_else(|error| {
            tell(error.to_string());
            None
        });
        if let Some(error) = engine.remember() {
            tell(error.to_string());
        }
        all.push(Closed { kept, answers: heard.map(|heard| heard.answers(Instant::now())).unwrap_or_default() });
    }
    all
}

/// Where the record is.
pub(crate) fn record_place(context: &Context) -> Option<std::path::PathBuf> {
    store::state_folder(&context.environment).map(|state| Database::place(&state))
}

/// The record, for reading; `None`: nothing was ever recorded.
pub(crate) fn record(context: &Context) -> Result<Option<Database>, CliError> {
    record_place(context).map_or(Ok(None), |place| Ok(Database::open_existing(&place)?))
}
