//! Asks a route of two models and prints what happens: `cargo run --example failover -- config.toml ROUTE "prompt"`.

use std::{error::Error, io::Write, path::Path, sync::Arc};

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, route, prompt] = arguments.as_slice() else { return Err("usage: failover CONFIG ROUTE PROMPT".into()) };
    let config = config::resolve(&std::fs::read_to_string(file)?, Path::new(file))?;
    let messages = vec![Message::text(Role::User, prompt)];
    let request = ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
    let call = resolve_call(&config, Some(route), &Arc::new(request), OnIncomplete::Restart)?;
    let keys = KeyRing::new(Environment::from_process());
    let engine = Arc::new(Engine::new(Arc::new(HttpTransport::new()), keys));
    // The record of a call has its text only if the plan retains it.
    let mut run = engine.run(Plan::single(call).retaining_text());
    let mut stdout = std::io::stdout();
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::Started(target) => writeln!(stdout, "trying {}", target.id)?,
            EventKind::Failed { record, .. } => {
                let reason = record.error.map(|error| error.to_string()).unwrap_or_default();
                writeln!(stdout, "{} failed: {reason}", record.target.id)?;
            }
            EventKind::Finished(record) => {
                writeln!(stdout, "{}", record.answer.answer.text)?;
                writeln!(stdout, "{} attempts in {:.1} s", record.attempts.len(), record.total.as_secs_f64())?;
            }
            _ => {}
        }
    }
    Ok(())
}
