//! `mmchat status`: shows which models, endpoints and keys are available, why the others are not and until when, and
//! their last errors.

use std::{sync::Arc, time::Duration};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{
    CliError, Context,
    support::{exit::Exit, list_format::ListArgs},
};
use crate::{
    config::{Config, Flags},
    model::{endpoint::Endpoint, sanitize::one_line, target::Target},
    render::{notice::format_duration, table::Table},
    routing::health::{
        Availability, HealthKey, HealthSnapshot, HealthState, HealthStore, KeyHash, LastError, TargetHealthKeys,
    },
    store::{self, health::HealthFile},
    term::output::write_stderr,
    transport::keys::KeyRing,
};

/// Show which models, endpoints and keys are available, when the others will be, and their last errors
#[derive(Debug, Args)]
#[command(
    after_help = "A route tries an unavailable model last. When the open time of its circuit breaker is over, one request \
    probes it; after a cooldown it gets requests as usual. mmchat reset NAME makes it available at once.\n\n\
    Examples:\n  \
      mmchat status\n  \
      mmchat status --format json"
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    list: ListArgs,
}

/// A row of the table: a model, an endpoint or a key.
struct StatusRow {
    name: String,
    kind: &'static str,
    availability: Availability,
    /// The health keys: its own and, for an endpoint without keys, that of requests without a key.
    health_keys: Vec<HealthKey>,
    /// Whether the row is shown even if nothing has failed.
    always_shown: bool,
}

impl StatusRow {
    /// The last error of the entry that opened the breaker, or its own.
    fn last_error<'s>(&self, snapshot: &'s HealthSnapshot) -> Option<&'s LastError> {
        let cause = self.availability.restriction().map(|restriction| restriction.cause);
        cause.iter().chain(&self.health_keys).find_map(|key| snapshot.entry(*key)?.last_error.as_ref())
    }
}

pub(crate) fn run(args: &StatusArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    let now = Timestamp::now();
    let mut snapshot = health_file(context)?.read().unwrap_or_else(|error| {
        write_stderr(&format!("warning: {error}\n"));
        HealthSnapshot::default()
    });
    snapshot.prune(&config.policies.health, now);
    let keys = KeyRing::new(context.environment.clone());
    let mut table = Table::new(&["name", "kind", "state", "remaining", ">TTFT", "last error", "when"]);
    let mut document = Vec::new();
    for line in status_rows(&config, &keys, &snapshot, now) {
        let (availability, error) = (line.availability, line.last_error(&snapshot));
        if !line.always_shown && availability == Availability::Available && error.is_none() {
            continue;
        }
        let latency = snapshot.entry(line.health_keys[0]).and_then(|entry| entry.latency.average());
        table.add_row(vec![
            line.name.clone(),
            line.kind.to_owned(),
            HealthState::of(availability).as_str().to_owned(),
            remaining_time(availability, now).map(format_duration).unwrap_or_default(),
            latency.map(|ms| format_duration(Duration::from_secs_f64(ms / 1e3))).unwrap_or_default(),
            error.map(|error| one_line(&error.to_string())).unwrap_or_default(),
            error.map(|error| format!("{} ago", ago(error.at, now))).unwrap_or_default(),
        ]);
        if availability != Availability::Available {
            table.highlight_last_row();
        }
        document.push(status_json(&line, &snapshot, latency, now));
    }
    args.list.print(context, &[table], &document.into())?;
    Ok(Exit::Ok)
}

/// The health file.
pub(crate) fn health_file(context: &Context) -> Result<HealthFile, CliError> {
    let state = store::state_folder(&context.environment);
    let state = state.ok_or_else(|| CliError::usage("no folder for the health file", "set XDG_STATE_HOME"))?;
    Ok(HealthFile::new(&state))
}

/// A line for every endpoint, model and key of the config, and for the models used as `endpoint/id`.
fn status_rows(config: &Config, keys: &KeyRing, snapshot: &HealthSnapshot, now: Timestamp) -> Vec<StatusRow> {
    let mut lines = Vec::new();
    // Requests without a key have only the line of their endpoint or model.
    let push_keys = |lines: &mut Vec<StatusRow>, name: &str, endpoint: &Endpoint, ids: Vec<HealthKey>| {
        for (number, id) in (1..).zip(ids).filter(|_| !endpoint.keys.is_empty()) {
            lines.push(StatusRow {
                name: format!("{name} key {number}"),
                kind: "key",
                availability: snapshot.entry_availability(id, now),
                health_keys: vec![id],
                always_shown: false,
            });
        }
    };
    for endpoint in &config.endpoints {
        let hashes = key_hashes(endpoint, keys, &snapshot.key_salt).into_iter();
        let key_ids: Vec<HealthKey> = hashes.map(|hash| HealthKey::key(endpoint, hash)).collect();
        let mut ids = vec![HealthKey::endpoint(endpoint)];
        ids.extend(key_ids.first().filter(|_| endpoint.keys.is_empty()));
        lines.push(StatusRow {
            name: endpoint.name.clone(),
            kind: "endpoint",
            availability: snapshot.worst_availability(&ids, now),
            health_keys: ids,
            always_shown: false,
        });
        push_keys(&mut lines, &endpoint.name, endpoint, key_ids);
    }
    let configured_count = configured_targets(config).len();
    for (index, target) in all_targets(config, snapshot).iter().enumerate() {
        let (name, endpoint) = (target.id.to_string(), &target.endpoint);
        let hashes = key_hashes(endpoint, keys, &snapshot.key_salt);
        let key_ids: Vec<HealthKey> = hashes.iter().map(|hash| HealthKey::key_for_model(target, *hash)).collect();
        let mut ids = vec![HealthKey::model(target)];
        ids.extend(key_ids.first().filter(|_| endpoint.keys.is_empty()));
        // The availability that a route sees includes the endpoint and its keys.
        let availability = snapshot.availability(&TargetHealthKeys::new(target, &hashes), now);
        lines.push(StatusRow {
            name: name.clone(),
            kind: "model",
            availability,
            health_keys: ids,
            always_shown: index < configured_count,
        });
        push_keys(&mut lines, &name, endpoint, key_ids);
    }
    lines
}

/// The models of the config, those that only routes name, and those used as `endpoint/id` with a health entry.
pub(crate) fn all_targets(config: &Config, snapshot: &HealthSnapshot) -> Vec<Arc<Target>> {
    let mut targets = configured_targets(config);
    let known: Vec<HealthKey> = targets.iter().map(|target| HealthKey::model(target)).collect();
    let others = snapshot.entries().filter(|(id, _)| !known.contains(id));
    let mut direct: Vec<Arc<Target>> = others
        .filter_map(|(id, entry)| config.direct_model(&entry.name).filter(|target| HealthKey::model(target) == id))
        .collect();
    direct.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    targets.extend(direct);
    targets
}

/// The models of the config, and those that only routes name.
pub(crate) fn configured_targets(config: &Config) -> Vec<Arc<Target>> {
    let mut targets = config.models.clone();
    for target in config.routes.iter().flat_map(|route| &route.models) {
        if !targets.iter().any(|known| known.id == target.id) {
            targets.push(Arc::clone(target));
        }
    }
    targets
}

/// The hashes of an endpoint's keys; one `KeyHash::NONE` for an endpoint without keys.
pub(crate) fn key_hashes(endpoint: &Endpoint, keys: &KeyRing, salt: &str) -> Vec<KeyHash> {
    let hash = |key| keys.hash(key, salt).map_or(KeyHash::NONE, KeyHash);
    if endpoint.keys.is_empty() { vec![KeyHash::NONE] } else { endpoint.keys.iter().map(hash).collect() }
}

/// The time until the state ends.
pub(crate) fn remaining_time(availability: Availability, now: Timestamp) -> Option<Duration> {
    Duration::try_from(availability.until()?.duration_since(now)).ok()
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn status_json(line: &StatusRow, snapshot: &HealthSnapshot, latency: Option<f64>, now: Timestamp) -> Value {
    let until = line.availability.until().map(|until| until.to_string());
    json!({
        "name": line.name,
        "kind": line.kind,
        "state": HealthState::of(line.availability).as_str(),
        "until": until,
        "cause": until.as_ref().and_then(|_| line.last_error(snapshot)).map(ToString::to_string),
        "seconds_left": remaining_time(line.availability, now).map(|remaining| remaining.as_secs_f64()),
        "ttft_ms": latency,
        "last_error": line.last_error(snapshot).map(|error| json!({
            "class": error.class, "status": error.http_status, "message": error.message, "at": error.at.to_string(),
        })),
    })
}

/// Updates the health file; prints a warning when a damaged file had to be replaced.
pub(crate) fn update_health(file: &HealthFile, change: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<(), CliError> {
    let (_, warning) = file.update(change)?;
    if let Some(warning) = warning {
        write_stderr(&format!("warning: {warning}\n"));
    }
    Ok(())
}
