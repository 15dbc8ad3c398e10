//! `mmchat demo`: compares three scripted models, without a key, a config or a network.

use std::net::{Ipv4Addr, TcpListener};

use clap::Args;
use tokio::time::Instant;

use super::compare::{LiveRunner, can_draw, listen_for_interruption, live_region};
use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::{self, Flags},
    engine::plan::{Plan, Selection},
    mock::{MockConfig, Script, built_in_models, serve},
    model::{ChatRequest, Message, ModelRequest, Role},
    render::{
        Format,
        compare::{CompareSettings, CompareView, View},
    },
    routing::OnIncomplete,
    term::{
        keyboard::TerminalModes,
        output::{Streams, write_stderr},
    },
};

const PROMPT: &str = "What does mmchat do?";
const FAST_ANSWER: &str = "# One question, many answers\n\n\
    This text comes from a **scripted mock** on your machine, not from a model. This one is *fast*: its first \
    token arrived immediately.\n\n\
    - `mmchat compare` asks several models at the same time\n\
    - a failed call does not affect the others\n";
const SLOW_ANSWER: &str = "# Thinking first\n\n\
    Also a **scripted mock**: a *slow* one that thinks for a while before it answers. The table below shows the time, \
    the length and the speed of each answer.\n\n\
    - on a terminal, each answer streams in its own column\n\
    - on a pipe, complete answers are printed in order\n";
const ROUTE_ANSWER: &str = "# Automatic failover\n\n\
    The route `chat` first tried a **scripted mock** that is down, got status 503, and failed over to this one: see \
    the line above on stderr. 一个模型不可用时，会自动切换到下一个。\n\n\
    - a route is one name for several models\n\
    - each failure is reported in one line, and in `--format json`\n";

const NEXT_STEPS: &str = "\nThese were mocks. To use real models:\n  \
    mmchat init                   find keys and servers, and write a config\n  \
    mmchat ask \"hello\"            needs only a key, such as in OPENAI_API_KEY\n  \
    mmchat compare --all \"hello\"  ask all models at once\n  \
    mmchat mock --help            mocks for every kind of failure\n";

/// Compare three scripted models on this machine, without a key, a config or a network
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    mmchat demo\n  \
    mmchat demo | less")]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_: &DemoArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = TerminalModes::save();
    let interruption = listen_for_interruption(modes.as_ref())?;
    let settings = context.settings(Flags::default())?;
    let terminal = context.terminal_info(&settings);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    write_stderr(&format!(
        "demo: three scripted mocks on {address}, not real models\n$ mmchat compare -m fast,thinker,chat \"{PROMPT}\"\n"
    ));
    let config = config::resolve(&config_text(&address.to_string()), std::path::Path::new("demo.toml"))?;
    let messages = vec![Message::text(Role::User, PROMPT)];
    let request = ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
    let view_settings = CompareSettings {
        format: Format::Text,
        view: View::Auto,
        terminal,
        has_live_region: can_draw(context, terminal, settings.plain.value),
        render_markdown: terminal.styled,
        verbose: settings.log.value,
        keep_answers: false,
        answers_in_object: false,
    };
    let models = ["fast", "thinker", "chat"].map(str::to_owned).to_vec();
    let selection = Selection { models, ..Selection::default() };
    let calls = selection.resolve(&config, &request.into(), OnIncomplete::Buffer)?.calls;
    let live = live_region(context, &view_settings, false);
    let view = CompareView::new(view_settings, calls.iter().map(|call| call.name.as_str()), Instant::now());
    let plan = Plan { calls, max_concurrent: None };
    let runner = LiveRunner {
        runtime: &context.runtime()?,
        engine: context.stateless_engine(),
        plan,
        view,
        streams: Streams::stdout(),
        interruption: &interruption,
        live,
        modes,
        recorder: None,
    };
    let mocks = async move {
        let result = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => serve(listener, mock_settings()).await,
            Err(error) => Err(error),
        };
        result.map_or_else(|error| error, |never| match never {})
    };
    let (exit, _) = runner.run(context, mocks)?.close_streams()?;
    if exit == Exit::Ok {
        write_stderr(NEXT_STEPS);
    }
    Ok(exit)
}

fn mock_settings() -> MockConfig {
    let base = Script::default();
    let text = |text: &str| Some(text.to_owned());
    let mut models = built_in_models(&base);
    models.push(("demo-fast".into(), Script { text: text(FAST_ANSWER), ..base.clone() }));
    let thinks = Script { ttft: std::time::Duration::from_millis(400), tps: 40.0, reasoning: 30, ..base.clone() };
    models.push(("demo-thinker".into(), Script { text: text(SLOW_ANSWER), ..thinks }));
    models.push(("demo-route".into(), Script { text: text(ROUTE_ANSWER), tps: 60.0, ..base }));
    MockConfig { models, ..MockConfig::default() }
}

/// The config of the demo. The first model of the route always responds with status 503; the prices are made up.
fn config_text(address: &str) -> String {
    format!(
        "[endpoints.mock]\nbase_url = \"http://{address}/v1\"\n\
         [models.fast]\nendpoint = \"mock\"\nmodel = \"demo-fast\"\nprice = {{ input = 0.15, output = 0.6 }}\n\
         [models.thinker]\nendpoint = \"mock\"\nmodel = \"demo-thinker\"\nprice = {{ input = 3, output = 15 }}\n\
         [models.down]\nendpoint = \"mock\"\nmodel = \"overloaded+retry-after=30\"\n\
         [models.backup]\nendpoint = \"mock\"\nmodel = \"demo-route\"\n\
         [routes.chat]\nmodels = [\"down\", \"backup\"]\n"
    )
}
