//! Collects and exports Prometheus metrics.
//!
//! Label values come from the config only, so that clients cannot create series: a model requested as `endpoint/id`
//! without an entry is counted as `endpoint/*`. Calls are counted from their `CallRecord`, as in `mmchat stats`.

use std::{sync::atomic::AtomicU64, time::Duration};

use parking_lot::Mutex;
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

use super::{GatewayDeps, log::result_class, request_context::RequestContext};
use crate::{
    config::Config,
    engine::CallRecord,
    model::{ErrorClass, target::Target},
    routing::health::Availability,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    /// Requested model or route; empty if it is unknown.
    name: String,
    key: String,
    class: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    endpoint: String,
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    endpoint: String,
    model: String,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TokenLabels {
    endpoint: String,
    model: String,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CostLabels {
    endpoint: String,
    model: String,
    currency: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    /// Held while counters are updated from the engine: two concurrent exports would add the same difference twice.
    export_lock: Mutex<()>,
    requests: Family<RequestLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    failovers: Family<RouteLabels, Counter>,
    ttft: HistogramFamily<ModelLabels>,
    total: HistogramFamily<ModelLabels>,
    chunk_gaps: HistogramFamily<ModelLabels>,
    overhead: Histogram,
    in_flight: Gauge,
    connections: Gauge,
    queue: Family<EndpointLabels, Gauge>,
    breaker_state: Family<ModelLabels, Gauge>,
    unavailable_count: Family<ModelLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    cost: Family<CostLabels, Counter<f64, AtomicU64>>,
    incomplete: Family<ModelLabels, Counter>,
    client_disconnects: Counter,
    reloads: Family<ReloadLabels, Counter>,
    record_lost: Gauge,
    memory_reserved: Gauge,
    malformed: Counter,
}

/// Buckets from 1 ms to about 130 s.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

/// Buckets from 0.1 ms to about 26 s.
fn gap_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 10))
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("mmchat"),
            export_lock: Mutex::default(),
            requests: Family::default(),
            attempts: Family::default(),
            failovers: Family::default(),
            ttft: Family::new_with_constructor(duration_histogram),
            total: Family::new_with_constructor(duration_histogram),
            chunk_gaps: Family::new_with_constructor(gap_histogram),
            // Buckets from 10 µs to about 0.3 s.
            overhead: Histogram::new(exponential_buckets(0.00001, 2.0, 16)),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            queue: Family::default(),
            breaker_state: Family::default(),
            unavailable_count: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            incomplete: Family::default(),
            client_disconnects: Counter::default(),
            reloads: Family::default(),
            record_lost: Gauge::default(),
            memory_reserved: Gauge::default(),
            malformed: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("build", "Version of mmchat", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register(
            "requests",
            "Client requests by requested name, client key and result",
            self.requests.clone(),
        );
        registry.register("attempts", "Attempts by result", self.attempts.clone());
        registry.register("failovers", "Failovers from one model to another", self.failovers.clone());
        registry.register("ttft_seconds", "Time to first token of attempts", self.ttft.clone());
        registry.register("total_seconds", "Duration of attempts with a complete answer", self.total.clone());
        registry.register("chunk_gap_seconds", "Time between two chunks of a streamed answer", self.chunk_gaps.clone());
        registry.register(
            "overhead_seconds",
            "Time added by mmchat: before the first upstream request, and after the first chunk of the answer",
            self.overhead.clone(),
        );
        registry.register("requests_in_flight", "Client requests in flight", self.in_flight.clone());
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register("queue", "Requests waiting for an endpoint that is at its limits", self.queue.clone());
        registry.register(
            "breaker_state",
            "Availability of a model: 0 available, 1 half-open, 2 unavailable",
            self.breaker_state.clone(),
        );
        registry.register("breaker_openings", "Times that a model became unavailable", self.unavailable_count.clone());
        registry.register("tokens", "Input and output tokens", self.tokens.clone());
        registry.register("cost", "Cost of calls by currency", self.cost.clone());
        registry.register("incomplete", "Incomplete answers", self.incomplete.clone());
        registry.register(
            "client_disconnects",
            "Clients that disconnected before their answer was complete",
            self.client_disconnects.clone(),
        );
        registry.register("reloads", "Config reloads by result", self.reloads.clone());
        registry.register("malformed", "Connections with an invalid or too large HTTP head", self.malformed.clone());
        registry.register(
            "memory_reserved_bytes",
            "Memory reserved for requests and answers",
            self.memory_reserved.clone(),
        );
        registry.register("record_lost", "Calls that could not be recorded", self.record_lost.clone());
    }

    /// Counts a connection with an invalid HTTP request.
    pub(super) fn count_malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn request_started(&self) {
        self.in_flight.inc();
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.dec();
    }

    pub(super) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(super) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(super) fn count_reload(&self, success: bool) {
        self.reloads.get_or_create(&ReloadLabels { result: if success { "ok" } else { "refused" } }).inc();
    }

    pub(super) fn observe_overhead(&self, overhead: Duration) {
        self.overhead.observe(overhead.as_secs_f64());
    }

    /// Histogram of the time between chunks of a model's answers.
    pub(super) fn chunk_gap_histogram(&self, config: &Config, target: &Target) -> Histogram {
        self.chunk_gaps.get_or_create(&model_labels(config, target)).clone()
    }

    /// Counts a rejected request.
    pub(super) fn count_rejected(&self, context: &RequestContext, config: &Config, code: &str) {
        let key = context.client.clone().unwrap_or_default();
        let name = context.requested_name.as_deref().map(|requested| name_label(config, requested)).unwrap_or_default();
        self.requests.get_or_create(&RequestLabels { name, key, class: code.to_owned() }).inc();
    }

    /// Counts a finished call.
    pub(super) fn observe_call(&self, context: &RequestContext, config: &Config, record: &CallRecord) {
        let name = name_label(config, &record.requested);
        let key = context.client.clone().unwrap_or_default();
        self.requests.get_or_create(&RequestLabels { name, key, class: result_class(record).to_owned() }).inc();
        if record.is_route && record.failovers() > 0 {
            self.failovers.get_or_create(&RouteLabels { route: record.requested.clone() }).inc_by(record.failovers());
        }
        if record.stopped {
            self.client_disconnects.inc();
        } else if record.class() == Some(ErrorClass::Incomplete)
            && let Some(target) = &record.target
        {
            self.incomplete.get_or_create(&model_labels(config, target)).inc();
        }
        for attempt in &record.attempts {
            let ModelLabels { endpoint, model } = model_labels(config, &attempt.target);
            if attempt.is_counted() {
                let class = attempt.class().map_or("ok", ErrorClass::as_str);
                self.attempts
                    .get_or_create(&AttemptLabels { endpoint: endpoint.clone(), model: model.clone(), class })
                    .inc();
            }
            let labels = ModelLabels { endpoint: endpoint.clone(), model: model.clone() };
            if let Some(ttft) = attempt.ttft {
                self.ttft.get_or_create(&labels).observe(ttft.as_secs_f64());
            }
            if attempt.error.is_none() {
                self.total.get_or_create(&labels).observe(attempt.took.as_secs_f64());
            }
            let Some(usage) = &attempt.usage else { continue };
            for (direction, count) in [("input", usage.input), ("output", usage.output)] {
                let labels = TokenLabels { endpoint: endpoint.clone(), model: model.clone(), direction };
                self.tokens.get_or_create(&labels).inc_by(count.unwrap_or_default());
            }
            if let Some((cost, currency)) = attempt.cost() {
                let currency = currency.to_owned();
                self.cost.get_or_create(&CostLabels { endpoint, model, currency }).inc_by(cost);
            }
        }
    }

    /// Exports all metrics as OpenMetrics text. `memory`: bytes reserved for requests and answers.
    pub(super) fn export(&self, config: &Config, deps: &GatewayDeps, memory: usize) -> String {
        let _guard = self.export_lock.lock();
        for (endpoint, queued) in deps.engine.queued_by_endpoint() {
            let queued = i64::try_from(queued).unwrap_or(i64::MAX);
            self.queue.get_or_create(&EndpointLabels { endpoint }).set(queued);
        }
        for target in &config.models {
            let state = match deps.engine.availability(target) {
                Availability::Available => 0,
                Availability::HalfOpen => 1,
                Availability::Restricted(_) => 2,
            };
            let labels = model_labels(config, target);
            self.breaker_state.get_or_create(&labels).set(state);
            let openings = self.unavailable_count.get_or_create(&labels);
            openings.inc_by(deps.engine.unavailable_count(&target.id).saturating_sub(openings.get()));
        }
        self.memory_reserved.set(i64::try_from(memory).unwrap_or(i64::MAX));
        let lost = deps.writer.as_ref().map_or(0, crate::store::record::RecordWriter::dropped);
        self.record_lost.set(i64::try_from(lost).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

/// `name` label of a requested name: an entry of the config, `endpoint/*` for a model without an entry, or empty.
fn name_label(config: &Config, requested: &str) -> String {
    if config.model(requested).is_some() || config.route(requested).is_some() {
        return requested.to_owned();
    }
    config.split_direct(requested).map(|(endpoint, _)| format!("{}/*", endpoint.name)).unwrap_or_default()
}

fn model_labels(config: &Config, target: &Target) -> ModelLabels {
    let endpoint = target.endpoint.name.clone();
    let model = if config.model(&target.id.0).is_some() { target.id.0.clone() } else { format!("{endpoint}/*") };
    ModelLabels { endpoint, model }
}
