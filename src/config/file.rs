//! The file as it is written: every key there is, with its place.
//!
//! Owns the shape, which is also the published schema (`mmchat config schema`). Refuses to check names: that is
//! `resolve`'s work.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{AmountEntry, At, KeyEntry, Member, Table, Time, some_time};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "mmchat configuration")]
pub struct ConfigFile {
    /// What `ask` uses when no model is named: a model, a route or `endpoint/id`.
    pub default: Option<At<String>>,
    /// What a bare `compare` uses: a set.
    pub compare: Option<At<String>>,
    /// What each model sees of the rounds before when a comparison goes on: `separate` or `shared`.
    pub context: Option<At<String>>,
    /// Services, by name.
    pub endpoints: Table<EndpointEntry>,
    /// Models, by name.
    pub models: Table<ModelEntry>,
    /// Routes, by name: several models, one answer.
    pub routes: Table<RouteEntry>,
    /// Sets, by name: several models, several answers.
    pub sets: Table<Vec<At<String>>>,
    /// Reusable prompts, by name.
    pub presets: Table<PresetEntry>,
    /// What may be spent.
    pub spend: SpendEntry,
    /// How `mmchat serve` serves all of it to other programs.
    pub serve: ServeEntry,
    /// Prompts and answers are kept; `true` unless set. Figures (times, tokens, cost) always are.
    pub history: Option<bool>,
    /// For how many days prompts and answers are kept; for good unless set.
    pub history_days: Option<At<u32>>,
}

/// How all of it is served to other programs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServeEntry {
    /// The address and port to listen at; `127.0.0.1:8484` unless set.
    pub listen: Option<At<String>>,
    /// How long a stream's headers are held back for the first piece of an answer; 15 s unless set.
    #[serde(default, deserialize_with = "some_time")]
    pub hold: Option<Time>,
    /// How long requests under way may take to end when the server is stopped; 30 s unless set.
    pub drain: Option<Time>,
    /// The largest body that is read, in megabytes; 32 unless set.
    pub max_body_mb: Option<At<u32>>,
    /// Further names in addresses by which clients on this machine may reach it.
    pub hosts: Vec<At<String>>,
    /// Web pages that may use it from a browser, as `https://host`; none unless set.
    pub cors: Vec<At<String>>,
    /// A PEM file with the server's certificates: it then speaks https.
    pub cert: Option<At<String>>,
    /// A PEM file with the private key to `cert`.
    pub key: Option<At<String>>,
    /// Who may use it, by name; without any, whoever is on this machine.
    pub keys: Table<ClientEntry>,
}

/// A key that a client brings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    /// The key, or where it is read.
    pub api_key: At<KeyEntry>,
    /// The models and routes it may use; all unless set.
    #[serde(default)]
    pub models: Option<Vec<At<String>>>,
    /// Requests begun in a minute, at most.
    #[serde(default)]
    pub rpm: Option<At<u32>>,
    /// Requests under way at once, at most.
    #[serde(default)]
    pub max_concurrency: Option<At<u32>>,
    /// What may be spent with it from midnight on.
    #[serde(default)]
    pub spend: Option<At<AmountEntry>>,
    /// It may read `/metrics` and `/status`; as a rule those may that may use all models.
    #[serde(default)]
    pub metrics: Option<bool>,
}

/// What may be spent, in all; and by endpoint and model.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpendEntry {
    /// From midnight on.
    pub day: Option<At<AmountEntry>>,
    /// From the first of the month on.
    pub month: Option<At<AmountEntry>>,
    /// For one endpoint, by its name.
    pub endpoints: Table<LimitsEntry>,
    /// For one model, by its name.
    pub models: Table<LimitsEntry>,
}

/// What may be spent on one thing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// From midnight on.
    pub day: Option<At<AmountEntry>>,
    /// From the first of the month on.
    pub month: Option<At<AmountEntry>>,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointEntry {
    /// Where it is, up to and with `/v1`. May be left out when the endpoint's name is a known vendor's.
    pub base_url: Option<At<String>>,
    /// Its wire format.
    pub protocol: Option<At<String>>,
    /// Its key.
    pub api_key: Option<At<KeyEntry>>,
    /// Several keys: used in turn, and the next one when one is refused or out of quota.
    pub api_keys: Option<Vec<At<KeyEntry>>>,
    /// Headers sent with every request; the values may be key sources.
    pub headers: Table<At<KeyEntry>>,
    /// How long each step may take.
    pub timeouts: Option<TimeoutsEntry>,
    /// Requests under way at once, at most.
    pub max_concurrency: Option<At<usize>>,
    /// Requests begun in a minute, at most.
    pub rpm: Option<At<u32>>,
    /// How long a request may wait for its turn under the two limits above.
    pub queue: Option<Time>,
    /// A proxy for this endpoint alone: `http://`, `https://`, `socks5://` or `socks5h://`.
    pub proxy: Option<At<String>>,
    /// A PEM file of certificates to trust in place of the system's.
    pub ca_file: Option<At<String>>,
    /// It is itself a gateway that retries: it is asked once.
    pub gateway: Option<bool>,
    /// Ask for compressed replies.
    pub gzip: Option<bool>,
}

/// How long each step may take.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsEntry {
    /// To connect.
    #[serde(default, deserialize_with = "some_time")]
    pub connect: Option<Time>,
    /// From sending to the first content.
    #[serde(default, deserialize_with = "some_time")]
    pub first_token: Option<Time>,
    /// Between two reads of a stream that has begun.
    #[serde(default, deserialize_with = "some_time")]
    pub idle: Option<Time>,
    /// For the whole answer.
    #[serde(default, deserialize_with = "some_time")]
    pub total: Option<Time>,
}

/// A model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// The endpoint that serves it.
    pub endpoint: At<String>,
    /// What the endpoint calls it.
    pub model: At<String>,
    /// Parameters sent unless the request sets them.
    #[serde(default)]
    pub params: ParamsEntry,
    /// Anything else the endpoint takes, sent as it is.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub extra: toml::Table,
    /// What it costs.
    #[serde(default)]
    pub price: Option<PriceEntry>,
    /// How many tokens it reads and writes together.
    #[serde(default)]
    pub context: Option<u64>,
    /// Your labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What it can do beside text: `reasoning`, `images`, `tools`.
    #[serde(default)]
    pub capabilities: Vec<At<String>>,
    /// Timeouts of this model, over its endpoint's.
    #[serde(default)]
    pub timeouts: Option<TimeoutsEntry>,
    /// Its prompt template already opens `<think>`: text up to `</think>` is reasoning.
    #[serde(default)]
    pub think_prefilled: bool,
    /// Each of its deltas repeats the whole text so far.
    #[serde(default)]
    pub cumulative_deltas: bool,
}

/// Parameters of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ParamsEntry {
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling mass.
    pub top_p: Option<f64>,
    /// Upper limit of the answer, in tokens.
    pub max_tokens: Option<u64>,
    /// Seed for reproducible sampling.
    pub seed: Option<i64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How long a reasoning model thinks: the service's own word.
    pub reasoning_effort: Option<String>,
}

/// Price per million tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceEntry {
    /// Of input.
    pub input: At<f64>,
    /// Of output.
    pub output: At<f64>,
    /// Of input read from a cache.
    #[serde(default)]
    pub cached_input: Option<At<f64>>,
    /// ISO 4217 code; USD unless set.
    #[serde(default)]
    pub currency: Option<At<String>>,
}

/// A route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// How it chooses among its models; `priority` (in order) unless set.
    #[serde(default)]
    pub strategy: Option<At<String>>,
    /// Its models: names of models, or `endpoint/id`.
    pub models: Vec<At<Member>>,
    /// When an answer breaks off after some was shown: `error`, `restart` or `buffer`.
    #[serde(default)]
    pub on_cut: Option<At<String>>,
    /// When a content filter refuses: `stop` or `next`.
    #[serde(default)]
    pub on_filter: Option<At<String>>,
    /// Requests that belong together (one `user`, one conversation) go to one model while it is well.
    #[serde(default)]
    pub sticky: bool,
    /// When nothing came for so long, the next model is asked as well, and the first to answer counts. Both may be billed.
    #[serde(default, deserialize_with = "some_time")]
    pub hedge_after: Option<Time>,
    /// When it is served: how long a stream's headers are held back for the first piece of an answer.
    #[serde(default, deserialize_with = "some_time")]
    pub hold: Option<Time>,
}

/// A reusable prompt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PresetEntry {
    /// Its system text, a template.
    pub system: Option<At<String>>,
    /// The model or route it asks.
    pub model: Option<At<String>>,
    /// Parameters of its requests, over the model's.
    pub params: ParamsEntry,
    /// Its template; `{{ input }}` is what the user gives.
    pub prompt: Option<At<String>>,
}
