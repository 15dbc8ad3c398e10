//! Shared parts of the commands: argument groups, input, the process context, exit codes, recording.

pub(crate) mod completion;
pub(crate) mod completion_shells;
pub(crate) mod config_input;
pub(crate) mod config_transaction;
pub(crate) mod context;
pub(crate) mod error;
pub(crate) mod exit;
pub(crate) mod key_uses;
pub(crate) mod list_format;
pub(crate) mod prompt;
pub(crate) mod recording;
pub(crate) mod request;
pub(crate) mod shell_word;
pub(crate) mod terminal_guard;
pub(crate) mod turn_ref;
