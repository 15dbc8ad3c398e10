//! Splits response bodies into frames, and reads and edits JSON without a schema.
//!
//! `body` chooses the framing of a response, `sse` decodes server-sent events, `json_splice` changes single fields of a
//! JSON object and keeps every other byte, `lenient` reads fields that services send with varying types.

pub mod body;
pub(crate) mod json_splice;
pub(crate) mod lenient;
pub mod sse;
