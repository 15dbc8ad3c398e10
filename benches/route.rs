//! Benchmark: ordering the hundred candidates of a route, including their health lookup, as a call does it: with all
//! candidates available, and with all in a cooldown.

use std::{hint::black_box, path::Path, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use mmchat::internals::{
    config::{self, Config},
    engine::{
        Engine,
        plan::{self, Call},
    },
    model::{ChatRequest, ErrorClass, Message, ModelRequest, Role},
    protocol::{CallError, retry_after::RetryAfter},
    routing::{
        OnIncomplete,
        health::{AttemptHealthKeys, AttemptInfo, HealthError, HealthSnapshot, HealthStore, HealthUpdate, KeyHash},
        policies::HealthPolicy,
    },
    transport::{http::HttpTransport, keys::KeyRing},
};

/// How long the candidates are in a cooldown.
const COOLDOWN: std::time::Duration = std::time::Duration::from_secs(250);

/// A health store with a fixed snapshot.
struct FixedHealthStore(HealthSnapshot);

impl HealthStore for FixedHealthStore {
    fn read(&self) -> Result<HealthSnapshot, HealthError> {
        Ok(self.0.clone())
    }

    fn update(&self, change: &mut dyn FnMut(&mut HealthSnapshot)) -> Result<HealthUpdate, HealthError> {
        let mut snapshot = self.0.clone();
        change(&mut snapshot);
        Ok((snapshot, None))
    }
}

/// A route of a hundred models at as many endpoints, each with a key and a price.
fn hundred_model_config(strategy: &str) -> Config {
    let entry = |number: u32| {
        format!(
            "[endpoints.e{number}]\nbase_url = \"https://e{number}.example.com/v1\"\napi_key = \"sk-secret-of-{number}\"\n\
             [models.m{number}]\nendpoint = \"e{number}\"\nmodel = \"some-model\"\nprice = {{ input = {number}, output = 1 }}\n"
        )
    };
    let entries: Vec<String> = (0..100).map(entry).collect();
    let names: Vec<String> =
        (0..100).map(|number| format!("{{ name = \"m{number}\", weight = {} }}", number + 1)).collect();
    let route = format!("[routes.all]\nstrategy = \"{strategy}\"\nmodels = [{}]\n", names.join(", "));
    let text = entries.concat() + &route;
    config::resolve(&text, Path::new("hundred.toml")).expect("valid config")
}

fn route_call(config: &Config) -> Call {
    let messages = vec![Message::text(Role::User, "Why is the sky blue?")];
    let call = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    plan::resolve_call(config, Some("all"), &call, OnIncomplete::Error).expect("configured route")
}

/// An engine that knows the health of the candidates.
fn engine_with_health(call: &Call, in_cooldown: bool) -> Engine {
    let (now, policy) = (jiff::Timestamp::now(), HealthPolicy::default());
    let mut snapshot = HealthSnapshot::default();
    snapshot.key_salt = "0123456789abcdef".into();
    for (number, target) in (0u64..).zip(&call.candidates) {
        let attempt = AttemptInfo {
            target,
            key_index: Some(0),
            sent_at: now,
            probe: None,
            operation: None,
            health_keys: AttemptHealthKeys::WithKey(KeyHash(number)),
        };
        let ttft = Some(std::time::Duration::from_millis(100 + number));
        snapshot.record_first_delta(&policy, &attempt, ttft, now);
        if in_cooldown {
            // Counted for the model, whatever the key is.
            let error = CallError {
                retry_after: Some(RetryAfter::after(COOLDOWN)),
                ..CallError::new(ErrorClass::Overloaded, "busy")
            };
            snapshot.record_failure(&policy, &attempt, &error, now, 0.5);
        }
    }
    let engine = Engine::new(Arc::new(HttpTransport::new()), KeyRing::default());
    engine.with_health(Arc::new(FixedHealthStore(snapshot)), std::time::Duration::MAX).with_long_lived_process()
}

fn routing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for strategy in ["priority", "weighted", "least-busy", "fastest", "cheapest"] {
        let config = hundred_model_config(strategy);
        let call = route_call(&config);
        for (state, in_cooldown) in [("available", false), ("in cooldown", true)] {
            let engine = engine_with_health(&call, in_cooldown);
            // The first call reads the snapshot and hashes the keys, which is not measured.
            assert_eq!(engine.candidate_order(&call).len(), 100);
            let is_restricted = |target| engine.availability(target).restriction().is_some();
            assert!(call.candidates.iter().all(|target| is_restricted(target) == in_cooldown));
            group.bench_function(format!("{strategy}, {state}"), |bench| {
                bench.iter(|| black_box(engine.candidate_order(black_box(&call))));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, routing);
criterion_main!(benches);
