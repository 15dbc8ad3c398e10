//! Asks one model through the library: `cargo run --example ask -- http://127.0.0.1:8080/v1 MODEL "prompt"`.

use std::{error::Error, io::Write, sync::Arc};

use futures_util::StreamExt;
use mmchat::{
    ChatRequest, ConfigLayers, ConfigText, DeltaKind, Engine, Environment, EventKind, HttpTransport, KeyRing, Message,
    ModelRequest, OnIncomplete, Plan, Role, resolve_call,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base_url, model, prompt] = arguments.as_slice() else { return Err("usage: ask BASE_URL MODEL PROMPT".into()) };
    // A config can also be read from a file; names are resolved as on the command line.
    let text = format!("[endpoints.e]\nbase_url = {base_url:?}\n");
    let environment = Environment::from_process();
    let user = Some(ConfigText { path: "example.toml".into(), text });
    let layers = ConfigLayers { user, environment: environment.clone(), ..ConfigLayers::default() };
    let config = layers.resolve()?;
    let messages = vec![Message::text(Role::User, prompt)];
    let request = ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
    let call = resolve_call(&config, Some(&format!("e/{model}")), &Arc::new(request), OnIncomplete::Error)?;
    let keys = KeyRing::new(environment);
    let engine = Arc::new(Engine::new(Arc::new(HttpTransport::new()), keys));
    let mut run = engine.run(Plan::single(call));
    let mut stdout = std::io::stdout();
    while let Some(event) = run.next().await {
        match event.kind {
            EventKind::Deltas(batch) => {
                for delta in &batch.deltas {
                    if let DeltaKind::Text(text) = &delta.kind {
                        stdout.write_all(text.as_bytes())?;
                        stdout.flush()?;
                    }
                }
            }
            EventKind::Finished(record) => {
                writeln!(stdout)?;
                record.result.as_ref().map_err(ToString::to_string)?;
            }
            _ => {}
        }
    }
    Ok(())
}
