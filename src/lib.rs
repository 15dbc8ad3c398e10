//! mmchat: one command line for all your language models, and one OpenAI-compatible server in front of them.
//!
//! # Layers
//!
//! A module imports only from lower layers; `tests/it/architecture.rs` enforces it.
//!
//! | layer | module | contains |
//! | --- | --- | --- |
//! | 1 | [`model`] | vendor-neutral types: requests, deltas, answers, error classes, API keys, endpoints, targets |
//! | 2 | [`protocol`] | wire formats: requests to bytes, response bytes to deltas |
//! | 3 | [`transport`] | HTTP client, decompression, key sources resolved to keys |
//! | 4 | [`routing`] | pure policies: candidate order, retry, cooldown, circuit breaker, hedging, spend limits |
//! | 5 | [`config`] | config file and settings, resolved and validated; known vendors |
//! | 6 | [`engine`] | plans and their calls: attempts, retry, failover, fan-in, cancellation |
//! | 7 | [`store`] | local files: the record of calls, the health of endpoints, caches; histograms |
//! | 8 | [`analysis`] | comparison of answers: equality, similarity, numbers, word diffs, votes |
//! | 8 | [`conversation`] | chat state machine |
//! | 8 | [`gateway`] | OpenAI-compatible server for everything in the config |
//! | 8 | [`mock`], [`doctor`], [`import`] | scripted models; diagnosis of endpoints; configs of other tools |
//! | 9 | [`render`] | events to text, without I/O |
//! | 10 | [`term`] | terminal, standard streams, signals |
//! | 11 | [`cli`] | `commands/`: one file or folder per subcommand; `support/`: what they share |
//!
//! # The life of a request
//!
//! `cli/commands/ask.rs` reads arguments, files and standard input into a [`model::ModelRequest`]. [`engine::plan`]
//! resolves the requested name to a call with its candidates. [`engine::Engine::run`] tries one candidate after the
//! other, as [`routing::classify`] decides. Each try is an [`engine::attempt::Attempt`]: it encodes the request with a
//! [`protocol::Protocol`] and sends it through a [`transport::Transport`]. The response bytes are framed and decoded
//! by a [`protocol::reply_reader::ReplyReader`] and leave the engine as [`engine::Event`]s. A view in [`render`] turns
//! the events into text, which [`term::output`] writes. The only signal in the other direction is dropping the stream,
//! which cancels everything below it.

pub mod analysis;
pub mod cli;
pub mod config;
pub mod conversation;
pub mod doctor;
pub mod engine;
pub mod gateway;
pub mod import;
pub mod mock;
pub mod model;
pub mod protocol;
pub mod render;
pub mod routing;
pub mod store;
pub mod term;
pub mod transport;
