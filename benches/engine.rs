//! Many calls through the engine: `engine ADDRESS MODEL CALLS AT_ONCE`, against a server that runs elsewhere, so that
//! the time and the CPU of this process are the engine's alone. Prints what came of it; `scripts/bench` measures it.

use std::{path::Path, sync::Arc};

use futures_util::StreamExt;
use mmchat::{
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
    // `cargo bench` and `cargo test` start every bench without arguments: there is nothing to measure then.
    let [address, model, calls, at_once] = arguments.as_slice() else { return };
    let (calls, at_once) = (calls.parse().expect("a number"), at_once.parse().expect("a number"));
    let text = format!("[endpoints.e]\nbase_url = \"{address}\"\n");
    let config = config::resolve(&text, Path::new("bench.toml")).expect("a config");
    let messages = vec![Message::text(Role::User, "hi")];
    let call = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let one = resolve_call(&config, Some(&format!("e/{model}")), &call, OnIncomplete::Error).expect("a lane");
    let plan = Plan { calls: vec![one; calls], max_concurrent: Some(at_once) };
    let engine = Arc::new(Engine::new(Arc::new(HttpTransport::new()), KeyRing::new(Environment::default())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut good, mut bad) = (0, 0);
    runtime.block_on(async {
        let mut events = Box::pin(engine.run(plan));
        while let Some(event) = events.next().await {
            if let EventKind::Finished(outcome) = event.kind {
                *if outcome.result.is_ok() { &mut good } else { &mut bad } += 1;
            }
        }
    });
    #[expect(clippy::print_stdout, reason = "what a benchmark is for")]
    {
        println!("{good} good, {bad} bad");
    }
}
