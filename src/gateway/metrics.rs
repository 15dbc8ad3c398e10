//! Figures for Prometheus.
//!
//! Owns which there are and their labels, whose values come from the config alone, so that no client can make new ones: a
//! model that was asked for as `endpoint/id` and has no entry is counted as `endpoint/*`. What a call adds is taken from its
//! record, of which `stats` is made, too. Refuses to keep anything else than sums.

use std::{
    sync::{Mutex, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};

use super::{Outside, exchange::Facts, log::class_of};
use crate::{
    config::Config,
    model::{ErrorClass, target::Target},
    routing::health::Standing,
    store::record::CallRecord,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    /// The model or route that was asked for; empty where nothing was understood.
    name: String,
    key: String,
    class: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Model {
    endpoint: String,
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attempt {
    endpoint: String,
    model: String,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tokens {
    endpoint: String,
    model: String,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Money {
    endpoint: String,
    model: String,
    currency: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Endpoint {
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// All figures.
pub(super) struct Metrics {
    registry: Registry,
    /// Who brings counters up to date: two at once would add the same.
    reading: Mutex<()>,
    requests: Family<Asked, Counter>,
    attempts: Family<Attempt, Counter>,
    failovers: Family<Route, Counter>,
    ttft: Times<Model>,
    total: Times<Model>,
    gaps: Times<Model>,
    overhead: Histogram,
    in_flight: Gauge,
    connections: Gauge,
    queue: Family<Endpoint, Gauge>,
    breaker: Family<Model, Gauge>,
    openings: Family<Model, Counter>,
    tokens: Family<Tokens, Counter>,
    cost: Family<Money, Counter<f64, AtomicU64>>,
    cuts: Family<Model, Counter>,
    disconnects: Counter,
    reloads: Family<Reload, Counter>,
    lost: Gauge,
    malformed: Counter,
}

/// From 1 ms to about 130 s.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

/// From 0.1 ms to about 26 s.
fn gaps() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut new = Self {
            registry: Registry::with_prefix("mmchat"),
            reading: Mutex::default(),
            requests: Family::default(),
            attempts: Family::default(),
            failovers: Family::default(),
            ttft: Family::new_with_constructor(times),
            total: Family::new_with_constructor(times),
            gaps: Family::new_with_constructor(gaps),
            // From 10 µs to about 0.3 s.
            overhead: Histogram::new(exponential_buckets(0.00001, 2.0, 16)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            queue: Family::default(),
            breaker: Family::default(),
            openings: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            cuts: Family::default(),
            disconnects: Counter::default(),
            reloads: Family::default(),
            lost: Gauge::default(),
            malformed: Counter::default(),
        };
        new.register();
        new
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("build", "Which mmchat it is", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        to.register(
            "requests",
            "Requests of clients, by what was asked for, by key and by how they ended",
            self.requests.clone(),
        );
        to.register("attempts", "Upstream requests, by how they ended", self.attempts.clone());
        to.register("failovers", "Times that another model was asked because one failed", self.failovers.clone());
        to.register("ttft_seconds", "Time of upstream requests to the first piece of an answer", self.ttft.clone());
        to.register("total_seconds", "Time of upstream requests that were answered whole", self.total.clone());
        to.register("chunk_gap_seconds", "Time between two pieces of a streamed answer", self.gaps.clone());
        to.register(
            "overhead_seconds",
            "Time to the first piece that was not spent waiting for upstreams",
            self.overhead.clone(),
        );
        to.register("requests_in_flight", "Requests of clients under way", self.in_flight.clone());
        to.register("connections", "Connections of clients", self.connections.clone());
        to.register("queue", "Requests that wait for a place at an endpoint with limits", self.queue.clone());
        to.register(
            "breaker_state",
            "0: asked as usual, 1: the next request finds out, 2: left alone",
            self.breaker.clone(),
        );
        to.register("breaker_openings", "Times that a model began to be left alone", self.openings.clone());
        to.register("tokens", "Tokens read and written", self.tokens.clone());
        to.register("cost", "What calls cost, by currency", self.cost.clone());
        to.register("cuts", "Answers that broke off", self.cuts.clone());
        to.register("client_disconnects", "Clients that left before their answer was whole", self.disconnects.clone());
        to.register("reloads", "Changes of the config", self.reloads.clone());
        to.register("malformed", "Connections that spoke no HTTP, or too much of it at once", self.malformed.clone());
        to.register("record_lost", "Calls that could not be recorded", self.lost.clone());
    }

    /// Somebody who speaks no HTTP.
    pub(super) fn malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn begun(&self) {
        self.in_flight.inc();
    }

    pub(super) fn ended(&self) {
        self.in_flight.dec();
    }

    pub(super) fn connected(&self) {
        self.connections.inc();
    }

    pub(super) fn disconnected(&self) {
        self.connections.dec();
    }

    pub(super) fn reload(&self, well: bool) {
        self.reloads.get_or_create(&Reload { result: if well { "ok" } else { "refused" } }).inc();
    }

    pub(super) fn overhead(&self, overhead: Duration) {
        self.overhead.observe(overhead.as_secs_f64());
    }

    /// Where the gaps between the pieces of this model's answers are counted.
    pub(super) fn gaps(&self, config: &Config, target: &Target) -> Histogram {
        self.gaps.get_or_create(&model(config, target)).clone()
    }

    /// A request that was refused before anybody was asked.
    pub(super) fn refused(&self, facts: &Facts, config: &Config, code: &str) {
        let key = facts.client.clone().unwrap_or_default();
        let name = facts.asked.as_deref().map(|asked| name(config, asked)).unwrap_or_default();
        self.requests.get_or_create(&Asked { name, key, class: code.to_owned() }).inc();
    }

    /// A request that somebody was asked about is over.
    pub(super) fn call(&self, facts: &Facts, config: &Config, call: &CallRecord) {
        let name = name(config, &call.asked);
        let key = facts.client.clone().unwrap_or_default();
        self.requests.get_or_create(&Asked { name, key, class: class_of(call).to_owned() }).inc();
        if call.is_route && call.failovers() > 0 {
            self.failovers.get_or_create(&Route { route: call.asked.clone() }).inc_by(call.failovers());
        }
        if call.outcome.stopped {
            self.disconnects.inc();
        } else if call.outcome.cut
            && let Some(target) = &call.outcome.target
        {
            self.cuts.get_or_create(&model(config, target)).inc();
        }
        for (attempt, used) in call.outcome.attempts.iter().zip(&call.used) {
            let Model { endpoint, model } = model(config, &attempt.target);
            if call.counts(attempt) {
                let class = attempt.class().map_or("ok", ErrorClass::as_str);
                self.attempts.get_or_create(&Attempt { endpoint: endpoint.clone(), model: model.clone(), class }).inc();
            }
            let times = Model { endpoint: endpoint.clone(), model: model.clone() };
            if let Some(ttft) = attempt.ttft {
                self.ttft.get_or_create(&times).observe(ttft.as_secs_f64());
            }
            if attempt.error.is_none() {
                self.total.get_or_create(&times).observe(attempt.took.as_secs_f64());
            }
            let Some(used) = used else { continue };
            for (direction, count) in [("input", used.input), ("output", used.output)] {
                let labels = Tokens { endpoint: endpoint.clone(), model: model.clone(), direction };
                self.tokens.get_or_create(&labels).inc_by(count.unwrap_or_default());
            }
            if let Some(price) = &attempt.target.price
                && let Some(cost) = price.cost(used)
            {
                let currency = price.currency.clone();
                self.cost.get_or_create(&Money { endpoint, model, currency }).inc_by(cost);
            }
        }
    }

    /// All figures as text.
    pub(super) fn text(&self, config: &Config, outside: &Outside) -> String {
        let _reading = self.reading.lock().expect("no code panics while it holds this lock");
        for (endpoint, waiting) in outside.engine.waiting() {
            let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
            self.queue.get_or_create(&Endpoint { endpoint }).set(waiting);
        }
        for target in &config.models {
            let state = match outside.engine.standing(target) {
                Standing::Free => 0,
                Standing::HalfOpen => 1,
                Standing::Aside(..) => 2,
            };
            let labels = model(config, target);
            self.breaker.get_or_create(&labels).set(state);
            let openings = self.openings.get_or_create(&labels);
            openings.inc_by(outside.engine.openings(&target.id).saturating_sub(openings.get()));
        }
        let lost = outside.scribe.as_ref().map_or(0, crate::store::record::Scribe::lost);
        self.lost.set(i64::try_from(lost).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}

/// What was asked for, as a label: an entry of the config, all of an endpoint's that have none, or nothing that is known.
fn name(config: &Config, asked: &str) -> String {
    if config.model(asked).is_some() || config.route(asked).is_some() {
        return asked.to_owned();
    }
    config.direct(asked).map(|direct| format!("{}/*", direct.endpoint.name)).unwrap_or_default()
}

fn model(config: &Config, target: &Target) -> Model {
    let endpoint = target.endpoint.name.clone();
    let model = if config.model(&target.id.0).is_some() { target.id.0.clone() } else { format!("{endpoint}/*") };
    Model { endpoint, model }
}
