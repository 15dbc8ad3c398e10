//! `mmchat mock`: serves scripted models on loopback.

use std::{net::Ipv4Addr, time::Duration};

use clap::Args;
use strum::VariantNames as _;
use tokio::net::TcpListener;

use crate::cli::{
    CliError, Context,
    support::{error::unknown_value, exit::Exit},
};
use crate::{
    config::parse_duration,
    mock::{Fault, MockConfig, Script, built_in_models, serve},
    render::Output,
    term::output::{Streams, write_stderr},
};

/// Serve scripted models on loopback, with configurable speed, length and failures
#[derive(Debug, Args)]
#[command(
    after_help = "Built-in models are fast, strong, slow and instant, and one for each fault: rate, cut, silent and \
    others. A model name can carry settings: fast+ttft=2s+tps=10+tokens=300+reasoning=20+usage=off+cut, or \
    server+fail-first=1. The address is printed to stdout when the mock is ready.\n\n\
    Examples:\n  \
    mmchat mock --port 8999\n  \
    mmchat mock --ttft 500ms --tps 20 --tokens 300\n  \
    mmchat mock --model flaky=server+fail-first=1"
)]
pub(crate) struct MockArgs {
    /// Add a model; settings are joined with + as in a model name
    #[arg(long = "model", value_name = "NAME=SETTINGS", help_heading = "Models")]
    models: Vec<String>,
    /// Make every answer fail with this fault
    #[arg(long, value_name = "FAULT", help_heading = "Answers")]
    fault: Option<String>,
    /// Set the time to the first token
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Answers")]
    ttft: Option<Duration>,
    /// Set the tokens per second; 0 disables the delay
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Answers")]
    tps: Option<f64>,
    /// Set the number of tokens of an answer
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Answers")]
    tokens: Option<u64>,
    /// Set the number of reasoning tokens before the answer
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = "Answers")]
    reasoning: Option<u64>,
    /// Do not report token usage
    #[arg(long, help_heading = "Answers")]
    no_usage: bool,
    /// Seed the generated texts with this number
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, default_value_t = 0, help_heading = "Answers")]
    seed: u64,
    /// Listen on this port; 0 selects a free one
    #[arg(long, allow_negative_numbers = true, default_value_t = 0, help_heading = "Server")]
    port: u16,
    /// Require this key from clients
    #[arg(long, value_name = "KEY", help_heading = "Server")]
    key: Option<String>,
}

pub(crate) fn run(args: &MockArgs, context: &Context) -> Result<Exit, CliError> {
    let settings = settings(args)?;
    let interruption = Exit::listen_for_interruption()?;
    context.runtime()?.block_on(async {
        let address = (Ipv4Addr::LOCALHOST, args.port);
        let listener = TcpListener::bind(address).await.map_err(|source| CliError::System {
            what: format!("cannot listen on port {} of the loopback address", args.port),
            source,
        })?;
        let address = listener.local_addr()?;
        write_stderr("mmchat mock: scripted models, not real ones; stop with Ctrl-C\n");
        Streams::stdout().write(&mut Output::data(format!("http://{address}/v1\n")))?;
        tokio::select! {
            () = interruption.received() => Ok(Exit::Ok),
            result = serve(listener, settings) => result.map(|never| match never {}).map_err(CliError::from),
        }
    })
}

fn settings(args: &MockArgs) -> Result<MockConfig, CliError> {
    let invalid = |message: String| CliError::Usage { message, hint: None };
    let mut base = Script::default();
    let settings = [
        args.tps.map(|tps| format!("tps={tps}")),
        args.tokens.map(|tokens| format!("tokens={tokens}")),
        args.reasoning.map(|tokens| format!("reasoning={tokens}")),
    ];
    for setting in settings.into_iter().flatten() {
        base = base.with_settings(&setting).map_err(invalid)?;
    }
    base.ttft = args.ttft.unwrap_or(base.ttft);
    base.usage = !args.no_usage;
    let mut models = built_in_models(&base);
    for model in &args.models {
        let (name, settings) = model.split_once('=').unwrap_or((model, ""));
        models.retain(|(known, _)| known != name);
        models.push((name.to_owned(), base.with_settings(settings).map_err(invalid)?));
    }
    if let Some(fault) = &args.fault {
        let fault = fault.parse().map_err(|_| unknown_value("fault", fault, Fault::VARIANTS))?;
        for (_, script) in &mut models {
            script.fault = Some(fault);
        }
    }
    Ok(MockConfig { models, seed: args.seed, key: args.key.clone() })
}
