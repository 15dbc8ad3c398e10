//! `mmchat demo`: one question to three scripted models, without a key, a config or a network.

use std::net::{Ipv4Addr, TcpListener};

use clap::Args;
use tokio::time::Instant;

use super::compare::{Stage, drawable, interruption, live};
use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::{self, Flags},
    engine::plan::{Plan, Selection},
    mock::{Script, Settings, built_in, serve},
    model::{Call, ChatRequest, Message, Role},
    render::{
        Format,
        compare::{CompareView, Settings as ViewSettings, View},
    },
    routing::OnCut,
    term::{
        keyboard::Modes,
        output::{Streams, say},
    },
};

const PROMPT: &str = "What does mmchat do?";
const FAST: &str = "# One question, many answers\n\n\
    This text comes from a **scripted mock** on your own machine, not from a model. This one is *fast*: its first \
    token came at once.\n\n\
    - `mmchat compare` asks all of them at the same time\n\
    - one that fails hides, delays or breaks no other\n";
const SLOW: &str = "# Thinking first\n\n\
    Also a **scripted mock**: a *slow* one that thought for a while before it said a word. The table below tells \
    how long each took, how much it said and how fast.\n\n\
    - on a terminal each spoke in a column of its own\n\
    - in a pipe you get whole answers, in order\n";
const ROUTE: &str = "# Never just failing\n\n\
    The route `chat` asked a **scripted mock** that is down, was told 503, and went on to this one by itself: that is \
    the line above on stderr. 一个模型不可用时，会自动切换到下一个。\n\n\
    - a route is one name for several models\n\
    - what went wrong is said in one line, and in `--format json`\n";

const NEXT: &str = "\nThese were mocks. With models of your own:\n  \
    mmchat init                   finds keys and servers and writes a config\n  \
    mmchat ask \"hello\"            a key in OPENAI_API_KEY or so is enough for it\n  \
    mmchat compare --all \"hello\"  everybody at once\n  \
    mmchat mock --help            mocks with every kind of failure, to try out\n";

/// See it work: three scripted models on this machine, side by side; no key, no config, no network
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {}

pub(crate) fn run(_: &DemoArgs, context: &Context) -> Result<Exit, CliError> {
    let modes = Modes::save();
    let interruption = interruption(modes.as_ref())?;
    let layers = context.layers(Flags::default())?;
    let look = context.look(&layers);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    say(&format!(
        "demo: three scripted mocks on {address}, not real models\n$ mmchat compare -m fast,thinker,chat \"{PROMPT}\"\n"
    ));
    let config = config::resolve(&config_text(&address.to_string()), std::path::Path::new("demo.toml"))?;
    let messages = vec![Message::text(Role::User, PROMPT)];
    let call = Call::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() });
    let settings = ViewSettings {
        format: Format::Text,
        view: View::Auto,
        look,
        drawn: drawable(context, look, layers.plain.value),
        rendered: look.styled,
        verbose: layers.log.value,
        prompt_tokens: call.estimated_tokens(),
        whole: false,
        wrapped: false,
    };
    let models = ["fast", "thinker", "chat"].map(str::to_owned).to_vec();
    let selection = Selection { models, ..Selection::default() };
    let lanes = selection.lanes(&config, &call.into(), OnCut::Buffer)?.lanes;
    let live = live(context, &settings, false);
    let view = CompareView::new(settings, lanes.iter().map(|lane| lane.name.as_str()), Instant::now());
    let plan = Plan { lanes, at_once: None };
    let stage = Stage {
        runtime: &context.runtime()?,
        engine: context.engine(),
        plan,
        view,
        streams: Streams::stdout(),
        interruption: &interruption,
        live,
        modes,
        keeper: None,
    };
    let mocks = async move {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => serve(listener, mocks()).await,
            Err(error) => Err(error),
        };
        served.map_or_else(|error| error, |never| match never {})
    };
    let (exit, _) = stage.run(context, mocks)?.end()?;
    if exit == Exit::Ok {
        say(NEXT);
    }
    Ok(exit)
}

fn mocks() -> Settings {
    let base = Script::default();
    let text = |text: &str| Some(text.to_owned());
    let mut models = built_in(&base);
    models.push(("demo-fast".into(), Script { text: text(FAST), ..base.clone() }));
    let thinks = Script { ttft: std::time::Duration::from_millis(400), tps: 40.0, reasoning: 30, ..base.clone() };
    models.push(("demo-thinker".into(), Script { text: text(SLOW), ..thinks }));
    models.push(("demo-route".into(), Script { text: text(ROUTE), tps: 60.0, ..base }));
    Settings { models, ..Settings::default() }
}

/// The demo's config; the route's first model always answers 503, its prices are made up like everything else.
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
