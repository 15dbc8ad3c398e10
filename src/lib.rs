//! mmchat: one fast binary for all the models you have.
//!
//! # The house
//!
//! A module imports only from the floors below it; `tests/architecture.rs` holds it to that.
//!
//! | floor | module | owns |
//! | --- | --- | --- |
//! | 1 | [`chat`] | the nouns: requests, deltas, answers, error classes |
//! | 1 | [`secret`], [`environment`] | keys that cannot be printed; the environment's variables |
//! | 2 | [`endpoint`], [`target`] | one service; one way to ask one model |
//! | 3 | [`protocol`] | wire formats: requests to bytes, bytes to deltas |
//! | 4 | [`transport`], [`keys`] | bytes over the network; key sources to keys |
//! | 5 | [`attempt`] | one try at one target |
//! | 6 | [`route`] | whom to ask next, what to do about a failure, whom to leave alone: pure functions |
//! | 7 | [`config`] | the file, the layers over it, well-known vendors |
//! | 8 | [`plan`] | names to lanes |
//! | 9 | [`engine`] | running lanes: retry, failover, fan-in, cancellation |
//! | 10 | [`store`], [`metrics`] | files of our own: the record of calls, what is known of failing services; many times as a few figures |
//! | 11 | [`analysis`] | what several answers have in common: equal ones, likeness, numbers, words, votes |
//! | 11 | [`conversation`] | what each model of a conversation knows, and what comes of what a person types |
//! | 11 | [`gateway`] | one OpenAI-compatible address over everything that is configured |
//! | 11 | [`mock`], [`doctor`] | scripted models on loopback; what is wrong with an endpoint |
//! | 12 | [`render`] | events to text, without writing |
//! | 13 | [`term`] | the terminal, the streams, signals |
//! | 14 | [`cli`] | one file per command |
//!
//! # The life of a request
//!
//! `cli/ask.rs` reads arguments, files and standard input into a [`chat::Call`]; [`plan::lane`] turns the name that
//! was asked for into candidates; [`engine::Engine::run`] asks one after the other as [`route::classify`] decides;
//! each try is an [`attempt::Attempt`], which encodes with a [`protocol::Protocol`] and sends through a
//! [`transport::Transport`]. Bytes come back, are framed and decoded by a [`protocol::reply::ReplyReader`], and leave
//! the engine as [`engine::Event`]s; a view of [`render`] turns them into text, which [`term::output`] writes.
//! Nothing travels back up except dropping the stream, which cancels everything below it.

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
