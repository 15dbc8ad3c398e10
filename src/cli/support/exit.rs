//! Defines the exit codes. A test compares the list with `docs/exit-codes.md`.

use std::process::ExitCode;

use crate::cli::CliError;
use crate::{
    engine::{AttemptRecord, CallRecord},
    model::ErrorClass,
    term::signals::{InterruptHandler, on_sigquit},
};

/// An exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// An internal error, or stdout could not be written.
    Internal = 1,
    /// A usage error, or an unknown name on the command line.
    Usage = 2,
    /// The config is invalid.
    Config = 3,
    /// No usable key, or every candidate failed with class `auth`, `forbidden` or `quota`.
    Key = 4,
    /// Every candidate failed in some other way.
    Failed = 5,
    /// Every candidate timed out, or the deadline passed.
    Timeout = 6,
    /// Some calls failed.
    SomeFailed = 7,
    /// The answer is incomplete.
    Incomplete = 8,
    /// A condition was not met.
    Condition = 9,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Every code with its description in the documentation.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Ok, "ok"),
        (Self::Internal, "internal error, or stdout could not be written"),
        (Self::Usage, "usage error, or an unknown name on the command line"),
        (Self::Config, "the config is invalid"),
        (Self::Key, "no usable key, or every candidate failed with `auth`, `forbidden` or `quota`"),
        (Self::Failed, "every candidate failed in another way"),
        (Self::Timeout, "every candidate timed out, or the deadline passed"),
        (Self::SomeFailed, "some calls failed"),
        (Self::Incomplete, "the answer is incomplete; stdout has the partial answer"),
        (Self::Condition, "a condition was not met (spend limit, no majority)"),
        (Self::Interrupted, "interrupted"),
    ];

    /// Listens for Ctrl-C and the other termination signals; their exit code is [`Exit::Interrupted`].
    pub(crate) fn listen_for_interruption() -> Result<InterruptHandler, CliError> {
        Self::listen(|| {})
    }

    /// Like [`Exit::listen_for_interruption`]; runs `cleanup` before the process is terminated by force or by SIGQUIT.
    pub(crate) fn listen_for_interruption_with_cleanup(
        cleanup: impl Fn() + Clone + Send + 'static,
    ) -> Result<InterruptHandler, CliError> {
        on_sigquit(cleanup.clone()).map_err(signal_error)?;
        Self::listen(cleanup)
    }

    fn listen(cleanup: impl Fn() + Send + 'static) -> Result<InterruptHandler, CliError> {
        InterruptHandler::listen(i32::from(Self::Interrupted as u8), cleanup).map_err(signal_error)
    }

    /// The exit code of several calls.
    #[must_use]
    pub fn from_records<'a>(records: impl Iterator<Item = &'a CallRecord>) -> Self {
        Self::combine(records.map(Self::from_record))
    }

    /// Combines several exit codes: all ok, some ok, one common code, or failed.
    pub(crate) fn combine(codes: impl Iterator<Item = Self>) -> Self {
        let codes: Vec<Self> = codes.collect();
        match codes.as_slice() {
            codes if codes.iter().all(|code| *code == Self::Ok) => Self::Ok,
            codes if codes.contains(&Self::Ok) => Self::SomeFailed,
            [first, rest @ ..] if rest.iter().all(|code| code == first) => *first,
            _ => Self::Failed,
        }
    }

    /// The exit code of one call.
    #[must_use]
    pub fn from_record(record: &CallRecord) -> Self {
        let Err(error) = &record.result else { return Self::Ok };
        if record.incomplete || error.class == ErrorClass::Incomplete {
            return Self::Incomplete;
        }
        if record.deadline_passed {
            return Self::Timeout;
        }
        if error.class == ErrorClass::Spend {
            return Self::Condition;
        }
        Self::from_classes(&final_classes(&record.attempts))
    }

    /// The exit code of one failure.
    pub(crate) fn from_class(class: ErrorClass) -> Self {
        Self::from_classes(&[class])
    }

    /// The exit code of a call whose candidates failed with these classes.
    fn from_classes(classes: &[ErrorClass]) -> Self {
        let all_in = |set: &[ErrorClass]| !classes.is_empty() && classes.iter().all(|class| set.contains(class));
        if all_in(&[ErrorClass::Spend]) {
            Self::Condition
        } else if all_in(&[ErrorClass::Auth, ErrorClass::Forbidden, ErrorClass::Quota]) {
            Self::Key
        } else if all_in(&[ErrorClass::Timeout]) {
            Self::Timeout
        } else {
            Self::Failed
        }
    }
}

fn signal_error(source: std::io::Error) -> CliError {
    CliError::System { what: "cannot listen for signals".into(), source }
}

/// The last error class of each candidate: that of a retry or of a second key replaces the earlier one.
fn final_classes(attempts: &[AttemptRecord]) -> Vec<ErrorClass> {
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
