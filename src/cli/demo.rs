//! `mmchat demo`: one question to a scripted model, without a key, a config or a network.

use std::net::Ipv4Addr;

use clap::Args;
use tokio::net::TcpListener;

use super::{CliError, Context, ask::stream, exit::Exit};
use crate::{
    chat::{Call, ChatRequest, Message, Role},
    config::{self, Flags},
    mock::{Script, Settings, built_in, serve},
    plan,
    render::{
        Format,
        ask::{AskView, Settings as ViewSettings},
    },
    route::OnCut,
    term::output::{Streams, say},
};

const PROMPT: &str = "What does mmchat do?";
const ANSWER: &str = "# mmchat, in short\n\n\
    This text comes from a **scripted mock** on your own machine, not from a model. The route `chat` asked a mock \
    that is down first, saw it fail, and went on to this one; that is the line on stderr above.\n\n\
    - `mmchat ask` streams one answer, in a pipe or on a terminal\n\
    - a route fails over when a model is down, silent or out of quota\n\
    - what went wrong is said in one line, and in the exit code\n";

/// See it work, against a scripted model on this machine: no key, no config, no network
#[derive(Debug, Args)]
pub(super) struct DemoArgs {}

pub(super) fn run(_: &DemoArgs, context: &Context) -> Result<Exit, CliError> {
    let interruption = Exit::on_interruption()?;
    let layers = context.layers(Flags::default())?;
    let look = context.look(&layers);
    let runtime = context.runtime()?;
    let engine = context.engine();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        say(&format!("demo: scripted mocks on {address}, not real models\n$ mmchat ask -m chat --stats \"{PROMPT}\"\n"));
        let text = config_text(&address.to_string());
        let config = config::resolve(&text, std::path::Path::new("demo.toml"))?;
        let messages = vec![Message::text(Role::User, PROMPT)];
        let call = Call::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
        let lane = plan::lane(&config, Some("chat"), &call, OnCut::Error)?;
        let view = AskView::new(ViewSettings {
            name: lane.name.clone(),
            format: Format::Text,
            look,
            rendered: look.styled,
            stats: true,
            verbose: layers.log.value,
            prompt_tokens: call.estimated_tokens(),
        });
        let exit = tokio::select! {
            exit = stream(&engine, lane, view, Streams::stdout(), &interruption) => exit?,
            served = serve(listener, mocks()) => served.map(|never| match never {})?,
        };
        say("\nwith a key of yours:  export OPENAI_API_KEY=…; mmchat ask \"hello\"\nall the faults:       mmchat mock --help\n");
        Ok(exit)
    })
}

fn mocks() -> Settings {
    let base = Script { tps: 60.0, ..Script::default() };
    let mut models = built_in(&base);
    models.push(("demo".into(), Script { text: Some(ANSWER.into()), ..base }));
    Settings { models, ..Settings::default() }
}

/// The demo's config; the route's first model always answers 503.
fn config_text(address: &str) -> String {
    format!(
        "[endpoints.mock]\nbase_url = \"http://{address}/v1\"\n\
         [models.down]\nendpoint = \"mock\"\nmodel = \"overloaded+retry-after=30\"\n\
         [models.demo]\nendpoint = \"mock\"\nmodel = \"demo\"\n\
         [routes.chat]\nmodels = [\"down\", \"demo\"]\n"
    )
}
