//! mmchat: one command line for all your language models, and one OpenAI-compatible server in front of them.
//!
//! The library runs requests as the command line does: with failover, load balancing, keys, limits and health. Its API is
//! the list of items of this page, and small on purpose; the command line, the server and their formats are not part of
//! it.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use futures_util::StreamExt as _;
//! use mmchat::{
//!     ChatRequest, ConfigLayers, ConfigText, Engine, Environment, EventKind, HttpTransport, KeyRing, Message,
//!     ModelRequest, OnIncomplete, Plan, Role, resolve_call,
//! };
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let environment = Environment::from_process();
//! let file = ConfigText { path: "mmchat.toml".into(), text: std::fs::read_to_string("mmchat.toml")? };
//! let layers = ConfigLayers { user: Some(file), environment: environment.clone(), ..ConfigLayers::default() };
//! let config = layers.resolve()?;
//! let messages = vec![Message::text(Role::User, "Why is the sky blue?")];
//! let request = ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
//! // A model, a route or `endpoint/id`; `None`: `default` of the config, else its only route or model.
//! let call = resolve_call(&config, Some("fast"), &Arc::new(request), OnIncomplete::Error)?;
//! let engine = Arc::new(Engine::new(Arc::new(HttpTransport::new()), KeyRing::new(environment)));
//! let mut run = engine.run(Plan::single(call));
//! while let Some(event) = run.next().await {
//!     if let EventKind::Finished(record) = event.kind {
//!         println!("{} after {:?}", record.answer.content.text, record.total);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! A module imports only from lower layers; `tests/it/architecture.rs` enforces it.
//!
//! | layer | module | contains |
//! | --- | --- | --- |
//! | 1 | `model` | vendor-neutral types: requests, deltas, answers, error classes, API keys, endpoints, targets |
//! | 2 | `protocol` | wire formats: requests to bytes, response bytes to deltas |
//! | 3 | `transport` | HTTP client, decompression, key sources resolved to keys |
//! | 4 | `routing` | pure policies: candidate order, retry, cooldown, circuit breaker, hedging, spend limits |
//! | 5 | `config` | config file and settings, resolved and validated; known vendors |
//! | 6 | `engine` | plans and their calls: attempts, retry, failover, fan-in, cancellation |
//! | 7 | `store` | local files: the record of calls, the health of endpoints, caches; histograms |
//! | 8 | `analysis` | comparison of answers: equality, similarity, numbers, word diffs, votes |
//! | 8 | `conversation` | chat state machine |
//! | 8 | `gateway` | OpenAI-compatible server for everything in the config |
//! | 8 | `mock`, `doctor`, `import` | scripted models; diagnosis of endpoints; configs of other tools |
//! | 9 | `render` | events to text, without I/O |
//! | 10 | `term` | terminal, standard streams, signals |
//! | 11 | `cli` | `commands/`: one file or folder per subcommand; `support/`: what they share |
//!
//! # The life of a request
//!
//! `cli/commands/ask.rs` reads arguments, files and standard input into a `model::ModelRequest`. `engine::plan`
//! resolves the requested name to a call with its candidates. `engine::Engine::run` tries one candidate after the
//! other, as `routing::decision` decides. Each try is an `engine::attempt::Attempt`: it encodes the request with a
//! `protocol::Protocol` and sends it through a `transport::Transport`. The response bytes are framed and decoded
//! by a `protocol::reply_reader::ReplyReader` and leave the engine as `engine::Event`s. A view in `render` turns
//! the events into text, which `term::output` writes. In the other direction there are only `Run::stop`, `Run::stop_all`
//! and `Run::restart`; dropping the `Run` closes every connection below it.

mod analysis;
mod cli;
mod config;
#[cfg_attr(not(feature = "chat"), allow(dead_code, reason = "without `chat` only answers are collected"))]
mod conversation;
mod doctor;
mod engine;
#[cfg(feature = "serve")]
mod gateway;
#[cfg(feature = "import")]
mod import;
#[cfg(feature = "serve")]
mod mock;
mod model;
mod protocol;
mod render;
mod routing;
mod store;
mod term;
mod transport;

pub use config::{Config, ConfigError, ConfigLayers, ConfigText, Problem, Route};
pub use engine::{
    AccumulatedAnswer, AttemptRecord, CallRecord, Completion, Engine, Event, EventKind, NextStep, Notice, Run,
    plan::{Call, Plan, PlanError, resolve_call},
};
pub use model::{
    Answer, ChatRequest, Delta, DeltaKind, ErrorClass, FinishReason, Message, ModelRequest, ParamWorkaround, Params,
    Part, ProtocolId, RawRequest, Role, ToolCall, Usage,
    api_key::{ApiKey, KeySource},
    clock::Clock,
    endpoint::{ConnectOptions, Endpoint, Limits, Timeouts},
    environment::Environment,
    estimate::TokenCounter,
    target::{DecodeOptions, Price, Target, TargetId},
};
pub use protocol::{
    CallError, Frame, FrameKind, error::ErrorSource, reply_reader::DecodedBatch, retry_after::RetryAfter,
};
pub use routing::{OnFilter, OnIncomplete, RoutePolicy, policies, strategy::Strategy};
pub use transport::{
    ByteStream, Transport, TransportError, TransportErrorKind,
    http::HttpTransport,
    keys::{KeyError, KeyRing},
};

/// What the binary, the tests, the benchmarks and the fuzz targets of this package need beyond the API. It changes without
/// notice.
#[doc(hidden)]
pub mod internals {
    pub mod cli {
        pub use crate::cli::{CliError, Exit, command, main};
    }
    pub mod config {
        pub use crate::config::{Config, config_toml, config_toml_with_origins, edit, renamed_keys, resolve, vendors};
    }
    pub mod engine {
        pub use crate::engine::*;
    }
    #[cfg(feature = "serve")]
    pub mod gateway {
        pub use crate::gateway::{Gateway, GatewayDeps, GatewayLimits, Log, ServeError};
    }
    #[cfg(feature = "import")]
    pub mod import {
        pub use crate::import::ImportFormat;
    }
    #[cfg(feature = "serve")]
    pub mod mock {
        pub use crate::mock::{MockConfig, MockServer, Script, built_in_models};
    }
    pub mod model {
        pub use crate::model::*;
    }
    pub mod protocol {
        pub use crate::protocol::*;
    }
    pub mod render {
        pub use crate::render::{
            compare::{AnswerBlock, render_columns},
            notice, wrap,
        };
    }
    pub mod routing {
        pub use crate::routing::*;
    }
    pub mod store {
        pub use crate::store::record;
    }
    pub mod term {
        pub use crate::term::{input::InputError, output::WriteError, prompt::PromptError};
    }
    pub mod transport {
        pub use crate::transport::*;
    }
}
