//! `mmchat status`: who is left alone now, why, until when; and the last error of everybody.

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
    render::{notice::duration, table::Table},
    routing::health::{HealthError, HealthSnapshot, HealthStore, KeyHash, LastError, PlaceId, Places, Standing},
    store::{self, health::HealthFile},
    term::output::say,
    transport::keys::KeyRing,
};

/// Who is left alone now, why and until when; and everybody's last error
#[derive(Debug, Args)]
#[command(
    after_help = "What is left alone comes last in its routes, and is asked again by itself; mmchat reset NAME forgets it."
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    list: ListArgs,
}

/// One place, with what it is called.
struct Line {
    name: String,
    kind: &'static str,
    standing: Standing,
    /// Itself, and what it is called after where that has no line of its own.
    ids: Vec<PlaceId>,
    /// It is told of even when all is well.
    always: bool,
}

impl Line {
    /// Its last failure: of whatever keeps everybody off, or its own.
    fn error<'s>(&self, snapshot: &'s HealthSnapshot) -> Option<&'s LastError> {
        let blamed = if let Standing::Aside(_, id) = self.standing { Some(id) } else { None };
        blamed.iter().chain(&self.ids).find_map(|id| snapshot.place(*id)?.error.as_ref())
    }
}

pub(crate) fn run(args: &StatusArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    let now = Timestamp::now();
    let mut snapshot = file(context)?.read().unwrap_or_else(|error| {
        say(&format!("warning: {error}\n"));
        HealthSnapshot::default()
    });
    snapshot.tidy(now);
    let keys = KeyRing::new(context.environment.clone());
    let mut table = Table::new(&["name", "kind", "state", "for", ">TTFT", "last error", "when"]);
    let mut document = Vec::new();
    for line in lines(&config, &keys, &snapshot, now) {
        let (standing, error) = (line.standing, line.error(&snapshot));
        if !line.always && standing == Standing::Free && error.is_none() {
            continue;
        }
        let latency = snapshot.place(line.ids[0]).and_then(|place| place.latency.average());
        table.row(vec![
            line.name.clone(),
            line.kind.to_owned(),
            state(standing).to_owned(),
            left(standing, now).map(duration).unwrap_or_default(),
            latency.map(|ms| duration(Duration::from_secs_f64(ms / 1e3))).unwrap_or_default(),
            error.map(|error| one_line(&error.to_string())).unwrap_or_default(),
            error.map(|error| format!("{} ago", ago(error.at, now))).unwrap_or_default(),
        ]);
        if standing != Standing::Free {
            table.mark_bad();
        }
        document.push(object(&line, error, latency, now));
    }
    args.list.print(context, &[table], &document.into())?;
    Ok(Exit::Ok)
}

/// What is known of services, in its file.
pub(crate) fn file(context: &Context) -> Result<HealthFile, CliError> {
    let state = store::state_folder(&context.environment);
    let state =
        state.ok_or_else(|| CliError::usage("this system has no place for what is known", "set XDG_STATE_HOME"))?;
    Ok(HealthFile::new(&state))
}

/// Every place of the config. Keys, endpoints and models without a name are told of when there is something to tell.
fn lines(config: &Config, keys: &KeyRing, snapshot: &HealthSnapshot, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    // Requests without a key have nothing but the name of whom they ask.
    let keys_of = |lines: &mut Vec<Line>, name: &str, endpoint: &Endpoint, ids: Vec<PlaceId>| {
        for (number, id) in (1..).zip(ids).filter(|_| !endpoint.keys.is_empty()) {
            let (name, standing) = (format!("{name} key {number}"), snapshot.standing_of(id, now));
            lines.push(Line { name, kind: "key", standing, ids: vec![id], always: false });
        }
    };
    for endpoint in &config.endpoints {
        let hashes = hashes(endpoint, keys, &snapshot.salt).into_iter();
        let key_ids: Vec<PlaceId> = hashes.map(|hash| PlaceId::key(endpoint, hash)).collect();
        let mut ids = vec![PlaceId::endpoint(endpoint)];
        ids.extend(key_ids.first().filter(|_| endpoint.keys.is_empty()));
        let standing = snapshot.standing_of_all(&ids, now);
        lines.push(Line { name: endpoint.name.clone(), kind: "endpoint", standing, ids, always: false });
        keys_of(&mut lines, &endpoint.name, endpoint, key_ids);
    }
    let named = named(config);
    for (at, target) in targets(config, snapshot).iter().enumerate() {
        let (name, endpoint) = (target.id.to_string(), &target.endpoint);
        let hashes = hashes(endpoint, keys, &snapshot.salt);
        let key_ids: Vec<PlaceId> = hashes.iter().map(|hash| PlaceId::key_for_model(target, *hash)).collect();
        let mut ids = vec![PlaceId::model(target)];
        ids.extend(key_ids.first().filter(|_| endpoint.keys.is_empty()));
        // As a route sees it: its endpoint and its keys count, too.
        let standing = snapshot.standing(&Places::of(target, &hashes), now);
        lines.push(Line { name: name.clone(), kind: "model", standing, ids, always: at < named.len() });
        keys_of(&mut lines, &name, endpoint, key_ids);
    }
    lines
}

/// The models of the config, those that only routes name, and after them those that were asked as endpoint/id.
pub(crate) fn targets(config: &Config, snapshot: &HealthSnapshot) -> Vec<Arc<Target>> {
    let mut targets = named(config);
    let known: Vec<PlaceId> = targets.iter().map(|target| PlaceId::model(target)).collect();
    let asked = snapshot.places().filter(|(id, _)| !known.contains(id));
    let mut direct: Vec<Arc<Target>> = asked
        .filter_map(|(id, place)| config.direct(&place.name).filter(|target| PlaceId::model(target) == id))
        .collect();
    direct.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    targets.extend(direct);
    targets
}

/// The models of the config, and those that only routes name.
pub(crate) fn named(config: &Config) -> Vec<Arc<Target>> {
    let mut targets = config.models.clone();
    for target in config.routes.iter().flat_map(|route| &route.models) {
        if !targets.iter().any(|known| known.id == target.id) {
            targets.push(Arc::clone(target));
        }
    }
    targets
}

/// The hashes of an endpoint's keys.
pub(crate) fn hashes(endpoint: &Endpoint, keys: &KeyRing, salt: &str) -> Vec<KeyHash> {
    let hash = |key| keys.hash(key, salt).map_or(KeyHash::NONE, KeyHash);
    if endpoint.keys.is_empty() { vec![KeyHash::NONE] } else { endpoint.keys.iter().map(hash).collect() }
}

/// How somebody stands, in two words.
pub(crate) fn state(standing: Standing) -> &'static str {
    match standing {
        Standing::Free => "ok",
        Standing::HalfOpen => "to be tried",
        Standing::Aside(..) => "left alone",
    }
}

pub(crate) fn left(standing: Standing, now: Timestamp) -> Option<Duration> {
    match standing {
        Standing::Aside(until, _) => Duration::try_from(until.duration_since(now)).ok(),
        Standing::Free | Standing::HalfOpen => None,
    }
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

fn object(line: &Line, error: Option<&LastError>, latency: Option<f64>, now: Timestamp) -> Value {
    let until = if let Standing::Aside(until, _) = line.standing { Some(until.to_string()) } else { None };
    json!({
        "name": line.name,
        "kind": line.kind,
        "state": state(line.standing),
        "until": until,
        "seconds_left": left(line.standing, now).map(|left| left.as_secs_f64()),
        "ttft_ms": latency,
        "last_error": error.map(|error| json!({
            "class": error.class, "status": error.status, "message": error.message, "at": error.at.to_string(),
        })),
    })
}

/// Changes what is known of services; a file that had to be begun anew is told of.
pub(crate) fn update(file: &HealthFile, act: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<(), CliError> {
    let unkept = |error: HealthError| CliError::System {
        what: "what is known could not be changed".into(),
        source: std::io::Error::other(error.to_string()),
    };
    let (_, trouble) = file.update(act).map_err(unkept)?;
    if let Some(trouble) = trouble {
        say(&format!("warning: {trouble}\n"));
    }
    Ok(())
}
