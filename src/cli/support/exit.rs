//! The exit codes: one list, which `docs/exit-codes.md` repeats and a test compares.

use std::process::ExitCode;

use crate::cli::CliError;
use crate::{
    engine::{AttemptRecord, LaneOutcome},
    model::ErrorClass,
    term::signals::{Interruption, before_quit},
};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// An internal error, or stdout could not be written.
    Internal = 1,
    /// Wrong usage, or an unknown name on the command line.
    Usage = 2,
    /// The config is wrong.
    Config = 3,
    /// No usable key, or every candidate refused ours.
    Key = 4,
    /// Every candidate failed in some other way.
    Failed = 5,
    /// All were silent, or our deadline passed.
    Silent = 6,
    /// Some lanes failed.
    SomeFailed = 7,
    /// The answer was cut.
    Cut = 8,
    /// A condition was not met.
    Condition = 9,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// Every code with the words of its documentation.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Ok, "ok"),
        (Self::Internal, "internal error, or stdout could not be written"),
        (Self::Usage, "wrong usage, or an unknown name on the command line"),
        (Self::Config, "the config is wrong"),
        (Self::Key, "no usable key, or every candidate answered `auth`, `forbidden` or `quota`"),
        (Self::Failed, "every candidate failed in some other way"),
        (Self::Silent, "all were silent, or the deadline passed"),
        (Self::SomeFailed, "some lanes failed"),
        (Self::Cut, "the answer was cut; what arrived is on stdout"),
        (Self::Condition, "a condition was not met (spend limit, no majority)"),
        (Self::Interrupted, "interrupted"),
    ];

    /// Listens for Ctrl-C and its kin, whose code is this list's.
    pub(crate) fn on_interruption() -> Result<Interruption, CliError> {
        Self::interruption(|| {})
    }

    /// As `on_interruption`; a process that must be ended, or is made to quit, does `last` first.
    pub(crate) fn on_interruption_then(last: impl Fn() + Clone + Send + 'static) -> Result<Interruption, CliError> {
        before_quit(last.clone()).map_err(unheard)?;
        Self::interruption(last)
    }

    fn interruption(last: impl Fn() + Send + 'static) -> Result<Interruption, CliError> {
        Interruption::listen(i32::from(Self::Interrupted as u8), last).map_err(unheard)
    }

    /// The code for the ends of several lanes.
    #[must_use]
    pub fn of_lanes<'a>(outcomes: impl Iterator<Item = &'a LaneOutcome>) -> Self {
        Self::shared(outcomes.map(Self::of))
    }

    /// The code for several things of which each has its own.
    pub(crate) fn shared(codes: impl Iterator<Item = Self>) -> Self {
        let codes: Vec<Self> = codes.collect();
        match codes.as_slice() {
            codes if codes.iter().all(|code| *code == Self::Ok) => Self::Ok,
            codes if codes.contains(&Self::Ok) => Self::SomeFailed,
            [first, rest @ ..] if rest.iter().all(|code| code == first) => *first,
            _ => Self::Failed,
        }
    }

    /// The code for a lane's end.
    #[must_use]
    pub fn of(outcome: &LaneOutcome) -> Self {
        let Err(error) = &outcome.result else { return Self::Ok };
        if outcome.cut || error.class == ErrorClass::Cut {
            return Self::Cut;
        }
        if outcome.deadline_passed {
            return Self::Silent;
        }
        if error.class == ErrorClass::Spend {
            return Self::Condition;
        }
        Self::of_classes(&last_classes(&outcome.attempts))
    }

    /// The code for one failure.
    pub(crate) fn of_class(class: ErrorClass) -> Self {
        Self::of_classes(&[class])
    }

    /// The code for failures that are all there is.
    fn of_classes(classes: &[ErrorClass]) -> Self {
        let all = |wanted: &[ErrorClass]| !classes.is_empty() && classes.iter().all(|class| wanted.contains(class));
        if all(&[ErrorClass::Spend]) {
            Self::Condition
        } else if all(&[ErrorClass::Auth, ErrorClass::Forbidden, ErrorClass::Quota]) {
            Self::Key
        } else if all(&[ErrorClass::Silent]) {
            Self::Silent
        } else {
            Self::Failed
        }
    }
}

fn unheard(source: std::io::Error) -> CliError {
    CliError::System { what: "signals cannot be received".into(), source }
}

/// The class each candidate ended with: a repeat or a second key replaces what came before it.
fn last_classes(attempts: &[AttemptRecord]) -> Vec<ErrorClass> {
    let mut classes: Vec<(&crate::model::target::TargetId, ErrorClass)> = Vec::new();
    for record in attempts {
        let Some(class) = record.class() else { continue };
        match classes.iter_mut().find(|(id, _)| *id == &record.target.id) {
            Some((_, last)) => *last = class,
            None => classes.push((&record.target.id, class)),
        }
    }
    classes.into_iter().map(|(_, class)| class).collect()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
