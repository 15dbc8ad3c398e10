//! What several commands share: argument groups, reading input, the context of a process, exit codes, recording.

pub(crate) mod complete;
pub(crate) mod config_input;
pub(crate) mod config_transaction;
pub(crate) mod context;
pub(crate) mod exit;
pub(crate) mod list_format;
pub(crate) mod prompt;
pub(crate) mod recording;
pub(crate) mod request;
pub(crate) mod turn_ref;
