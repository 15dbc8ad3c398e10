//! Deserializes the config file: every key, with its span.
//!
//! The types and their doc comments are also the published JSON schema (`mmchat config schema`). Does not check names;
//! `resolve` does.

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    policies::{AvailabilityEntry, RetryEntry},
    values::{DurationEntry, KeyEntry, MoneyEntry, OrderedTable, RouteMember, Spanned, nonzero_duration},
};

/// The config file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", schemars(title = "mmchat configuration"))]
pub(crate) struct ConfigFile {
    /// What `ask` uses when no model is given: a model, a route or `endpoint/id`.
    pub default: Option<Spanned<String>>,
    /// The set that `compare` uses when no models are given.
    pub compare: Option<Spanned<String>>,
    /// Which earlier answers each model gets when a comparison is continued: `separate` or `shared`.
    pub context: Option<Spanned<String>>,
    /// Endpoints, by name.
    pub endpoints: OrderedTable<EndpointEntry>,
    /// Models, by name.
    pub models: OrderedTable<ModelEntry>,
    /// Routes, by name: several models that give one answer.
    pub routes: OrderedTable<RouteEntry>,
    /// Sets, by name: several models that give one answer each.
    pub sets: OrderedTable<Vec<Spanned<String>>>,
    /// Reusable prompts, by name.
    pub presets: OrderedTable<PresetEntry>,
    /// Spend limits.
    pub spend: SpendEntry,
    /// Settings of `mmchat serve`.
    pub serve: ServeEntry,
    /// How often requests are repeated, and for how long.
    pub retry: RetryEntry,
    /// When models are tried last, and what requests without an available model do.
    pub availability: AvailabilityEntry,
    /// Maximum size of one answer, in MiB; default 32.
    pub max_answer_mb: Option<Spanned<u32>>,
    /// Store prompts and answers; default `true`. Metrics (times, tokens, cost) are always stored.
    pub history: Option<bool>,
    /// Days to keep prompts and answers; unlimited by default.
    pub history_days: Option<Spanned<u32>>,
}

/// Settings of `mmchat serve`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeEntry {
    /// Address and port to listen on; default `127.0.0.1:8484`.
    pub listen: Option<Spanned<String>>,
    /// How long the response headers of a stream are held back until the first chunk of an answer; default 15 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub hold: Option<DurationEntry>,
    /// How long running requests may take to finish when the server stops; default 30 s.
    pub drain: Option<DurationEntry>,
    /// How long a connection may be idle before it is closed; default 75 s.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub idle: Option<DurationEntry>,
    /// Request headers of clients that are passed on to services; none by default. A name may end in `*`.
    pub request_headers: Option<Vec<Spanned<String>>>,
    /// Response headers of services that are passed on to clients; default `x-ratelimit-*`. A name may end in `*`.
    pub response_headers: Option<Vec<Spanned<String>>>,
    /// Maximum size of a request body, in MiB; default 32.
    pub max_body_mb: Option<Spanned<u32>>,
    /// Memory for requests and answers, in MiB; default 512.
    pub memory_mb: Option<Spanned<u32>>,
    /// Maximum connections of one client address; unlimited by default.
    pub max_connections_per_address: Option<Spanned<u32>>,
    /// Additional host names that clients on this machine may use in URLs.
    pub hosts: Option<Vec<Spanned<String>>>,
    /// Origins of web pages that may send requests from a browser, as `https://host`; none by default.
    pub cors: Option<Vec<Spanned<String>>>,
    /// PEM file with the server's certificates; enables https.
    pub cert: Option<Spanned<String>>,
    /// PEM file with the private key of `cert`.
    pub key: Option<Spanned<String>>,
    /// Names that clients may send, and the models and routes they stand for. A name may have one `*` for any text, which
    /// a `*` in the model's name repeats.
    pub aliases: OrderedTable<Spanned<String>>,
    /// Client keys, by name; without any, all clients on this machine have access.
    pub keys: OrderedTable<ClientEntry>,
}

/// A client key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientEntry {
    /// The key, or its source.
    pub api_key: Spanned<KeyEntry>,
    /// The models and routes the client may use; all by default.
    #[serde(default)]
    pub models: Option<Vec<Spanned<String>>>,
    /// Maximum number of requests per minute.
    #[serde(default)]
    pub rpm: Option<Spanned<u32>>,
    /// Maximum number of concurrent requests.
    #[serde(default)]
    pub max_concurrency: Option<Spanned<u32>>,
    /// Spend limit per day, counted from midnight.
    #[serde(default)]
    pub spend: Option<Spanned<MoneyEntry>>,
    /// Whether this key may read `/metrics` and `/status`. Defaults to true for keys without a `models` list.
    #[serde(default)]
    pub metrics: Option<bool>,
}

/// Spend limits: in total, by endpoint and by model.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SpendEntry {
    /// Limit per day, counted from midnight.
    pub day: Option<Spanned<MoneyEntry>>,
    /// Limit per calendar month.
    pub month: Option<Spanned<MoneyEntry>>,
    /// Limits of single endpoints, by name.
    pub endpoints: OrderedTable<LimitsEntry>,
    /// Limits of single models, by name.
    pub models: OrderedTable<LimitsEntry>,
}

/// Spend limits of one endpoint or model.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsEntry {
    /// Limit per day, counted from midnight.
    pub day: Option<Spanned<MoneyEntry>>,
    /// Limit per calendar month.
    pub month: Option<Spanned<MoneyEntry>>,
}

/// An endpoint: a service that serves models.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EndpointEntry {
    /// Base URL, including `/v1`. Optional when the endpoint has the name of a known vendor.
    pub base_url: Option<Spanned<String>>,
    /// Wire format.
    pub protocol: Option<Spanned<String>>,
    /// API key.
    pub api_key: Option<Spanned<KeyEntry>>,
    /// Several API keys, used in turn; when one is rejected or out of quota, the next one is used.
    pub api_keys: Option<Vec<Spanned<KeyEntry>>>,
    /// Headers sent with every request; values may be key sources.
    pub headers: OrderedTable<Spanned<KeyEntry>>,
    /// Timeouts.
    pub timeouts: Option<TimeoutsEntry>,
    /// Maximum number of concurrent requests.
    pub max_concurrency: Option<Spanned<usize>>,
    /// Maximum number of requests per minute.
    pub rpm: Option<Spanned<u32>>,
    /// How long a request may wait for `rpm` and `max_concurrency`.
    pub queue: Option<DurationEntry>,
    /// Proxy for this endpoint only: `http://`, `https://`, `socks4://`, `socks4a://`, `socks5://` or `socks5h://`.
    pub proxy: Option<Spanned<String>>,
    /// PEM file of certificates to trust instead of the system's.
    pub ca_file: Option<Spanned<String>>,
    /// The endpoint is a gateway with its own retries, so mmchat does not retry it.
    pub gateway: Option<bool>,
    /// Request compressed responses.
    pub gzip: Option<bool>,
}

/// Timeouts of a request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimeoutsEntry {
    /// Time to connect.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub connect: Option<DurationEntry>,
    /// Time from sending the request to the first token (text, reasoning or tool call).
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub first_token: Option<DurationEntry>,
    /// Time between two reads of a stream that has started.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub idle: Option<DurationEntry>,
    /// Time for the complete answer.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub total: Option<DurationEntry>,
}

/// A model.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelEntry {
    /// The endpoint that serves it.
    pub endpoint: Spanned<String>,
    /// The model ID used by the endpoint.
    pub model: Spanned<String>,
    /// Default parameters; a request may override them.
    #[serde(default)]
    pub params: ParamsEntry,
    /// Additional request fields, sent unchanged.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "std::collections::BTreeMap<String, serde_json::Value>"))]
    pub extra: toml::Table,
    /// Price.
    #[serde(default)]
    pub price: Option<PriceEntry>,
    /// Context window: input and output tokens together.
    #[serde(default)]
    pub context: Option<u64>,
    /// Tags, for selecting models.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Capabilities besides text: `reasoning`, `images`, `tools`.
    #[serde(default)]
    pub capabilities: Vec<Spanned<String>>,
    /// Timeouts of this model; they override those of its endpoint.
    #[serde(default)]
    pub timeouts: Option<TimeoutsEntry>,
    /// The prompt template already opens `<think>`, so text up to `</think>` is reasoning.
    #[serde(default)]
    pub think_prefilled: bool,
    /// Each delta repeats the complete text so far.
    #[serde(default)]
    pub cumulative_deltas: bool,
    /// Request fields that are never sent to the model.
    #[serde(default)]
    pub drop: Vec<Spanned<String>>,
    /// Always ask for a stream (`true`) or for one object (`false`), whatever the client asks for.
    #[serde(default)]
    pub stream: Option<bool>,
    /// How the system prompt is sent: `system`, `developer` or `fold` (at the start of the user's first message).
    #[serde(default)]
    pub system: Option<Spanned<String>>,
}

/// Parameters of a request.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ParamsEntry {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling mass.
    pub top_p: Option<f64>,
    /// Maximum length of the answer, in tokens.
    pub max_tokens: Option<u64>,
    /// Seed for reproducible sampling.
    pub seed: Option<i64>,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// Reasoning effort, as a value that the service defines.
    pub reasoning_effort: Option<String>,
}

/// Price per million tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceEntry {
    /// Price of input.
    pub input: Spanned<f64>,
    /// Price of output.
    pub output: Spanned<f64>,
    /// Price of cached input.
    #[serde(default)]
    pub cached_input: Option<Spanned<f64>>,
    /// ISO 4217 code; default USD.
    #[serde(default)]
    pub currency: Option<Spanned<String>>,
}

/// A route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteEntry {
    /// How a model is selected; default `priority` (in order).
    #[serde(default)]
    pub strategy: Option<Spanned<String>>,
    /// Models: names of models, or `endpoint/id`.
    pub models: Vec<Spanned<RouteMember>>,
    /// What to do when an answer is incomplete after part of it was shown: `error`, `restart` or `buffer`.
    #[serde(default, alias = "on_cut")]
    pub on_incomplete: Option<Spanned<String>>,
    /// What to do when a content filter rejects the request or ends its answer: `stop` or `next`.
    #[serde(default)]
    pub on_filter: Option<Spanned<String>>,
    /// Session affinity: requests of one `user` or conversation go to the same model while it is available.
    #[serde(default)]
    pub sticky: bool,
    /// After this time without a token, the request is also sent to the next candidate; the answer that starts first is
    /// used. Both may be billed.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub hedge_after: Option<DurationEntry>,
    /// With `mmchat serve`: how long the response headers of a stream are held back until the first chunk of an answer.
    #[serde(default, deserialize_with = "nonzero_duration")]
    pub hold: Option<DurationEntry>,
}

/// A reusable prompt.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PresetEntry {
    /// System prompt, a template.
    pub system: Option<Spanned<String>>,
    /// The model or route to use.
    pub model: Option<Spanned<String>>,
    /// Request parameters; they override those of the model.
    pub params: ParamsEntry,
    /// Prompt template; `{{ input }}` is the user's input.
    pub prompt: Option<Spanned<String>>,
}
