//! Benchmark: many calls through the engine, `engine URL MODEL CALLS CONCURRENCY`.
//!
//! The server runs in another process, so that time and CPU of this process are the engine's. Prints the number of
//! successful and failed calls; `scripts/bench` runs and measures it.

use std::{path::Path, sync::Arc};

use futures_util::StreamExt;
use mmchat::internals::{
    config,
    engine::{
        Engine, EventKind,
        plan::{Plan, resolve_call},
    },
    model::{ChatRequest, Message, ModelRequest, Role, environment::Environment},
    routing::OnIncomplete,
    transport::{http::HttpTransport, keys::KeyRing},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    // `cargo bench` and `cargo test` start every benchmark without arguments: do nothing then.
    let [url, model, calls, concurrency] = arguments.as_slice() else { return };
    let (calls, concurrency) = (calls.parse().expect("number"), concurrency.parse().expect("number"));
    let text = format!("[endpoints.e]\nbase_url = \"{url}\"\n");
    let config = config::resolve(&text, Path::new("bench.toml")).expect("valid config");
    let messages = vec![Message::text(Role::User, "hi")];
    let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let call =
        resolve_call(&config, Some(&format!("e/{model}")), &request, OnIncomplete::Error).expect("configured endpoint");
    let plan = Plan { calls: vec![call; calls], max_concurrent: Some(concurrency) };
    let engine = Arc::new(Engine::new(Arc::new(HttpTransport::new()), KeyRing::new(Environment::default())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio runtime");
    let (mut succeeded, mut failed) = (0, 0);
    runtime.block_on(async {
        let mut events = Box::pin(engine.run(plan));
        while let Some(event) = events.next().await {
            if let EventKind::Finished(outcome) = event.kind {
                *if outcome.result.is_ok() { &mut succeeded } else { &mut failed } += 1;
            }
        }
    });
    #[expect(clippy::print_stdout, reason = "the result of the benchmark")]
    {
        println!("{succeeded} succeeded, {failed} failed");
    }
}
