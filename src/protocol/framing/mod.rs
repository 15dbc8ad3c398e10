//! Splits response bodies into frames, and reads and edits JSON without a schema.
//!
//! `body` detects the framing of a response, `sse` decodes server-sent events, `json_splice` replaces single fields of
//! a JSON object and preserves all others, `lenient` reads fields that services send with varying types, `value_reader` reads
//! values without keeping them.

pub mod body;
pub(crate) mod json_splice;
pub(crate) mod lenient;
pub mod sse;
pub(crate) mod value_reader;
