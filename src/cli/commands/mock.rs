//! `mmchat mock`: scripted models on loopback.

use std::{net::Ipv4Addr, time::Duration};

use clap::Args;
use tokio::net::TcpListener;

use crate::cli::{CliError, Context, support::exit::Exit};
use crate::{
    config::parse_duration,
    mock::{Fault, Script, Settings, built_in, serve},
    render::Output,
    term::output::{Streams, say},
};

/// Serve scripted models on loopback, to try things out and to test: speed, length and every kind of failure
#[derive(Debug, Args)]
#[command(
    after_help = "Built in are fast, strong, slow and instant, and one model for each fault (rate, cut, silent, …).\n\
    A name can carry changes: fast+ttft=2s+tps=10+tokens=300+reasoning=20+usage=off+cut, or server+fail-first=1.\n\
    The address is printed on stdout when the mock is ready."
)]
pub(crate) struct MockArgs {
    /// The port; 0: one that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Time to the first token
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttft: Option<Duration>,
    /// Tokens a second; 0: no delay
    #[arg(long, value_name = "NUMBER")]
    tps: Option<f64>,
    /// Tokens of an answer
    #[arg(long, value_name = "NUMBER")]
    tokens: Option<u64>,
    /// Tokens of thinking before it
    #[arg(long, value_name = "NUMBER")]
    reasoning: Option<u64>,
    /// Report no usage
    #[arg(long)]
    no_usage: bool,
    /// Every answer fails so
    #[arg(long, value_name = "FAULT")]
    fault: Option<String>,
    /// A further model: NAME=WORDS, words joined with `+` as in a name
    #[arg(long = "model", value_name = "NAME=WORDS")]
    models: Vec<String>,
    /// The key that clients must bring
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// What the texts are made from
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &MockArgs, context: &Context) -> Result<Exit, CliError> {
    let settings = settings(args)?;
    let interruption = Exit::on_interruption()?;
    context.runtime()?.block_on(async {
        let address = (Ipv4Addr::LOCALHOST, args.port);
        let listener = TcpListener::bind(address).await.map_err(|source| CliError::System {
            what: format!("port {} on loopback cannot be opened", args.port),
            source,
        })?;
        let address = listener.local_addr()?;
        say("mmchat mock: scripted models, not real ones; stop with Ctrl-C\n");
        Streams::stdout().put(&mut Output::data(format!("http://{address}/v1\n")))?;
        tokio::select! {
            () = interruption.signalled() => Ok(Exit::Ok),
            served = serve(listener, settings) => served.map(|never| match never {}).map_err(CliError::from),
        }
    })
}

fn settings(args: &MockArgs) -> Result<Settings, CliError> {
    let wrong = |message: String| CliError::Usage { message, hint: None };
    let mut base = Script::default();
    let words = [
        args.tps.map(|tps| format!("tps={tps}")),
        args.tokens.map(|tokens| format!("tokens={tokens}")),
        args.reasoning.map(|tokens| format!("reasoning={tokens}")),
    ];
    for word in words.into_iter().flatten() {
        base = base.changed(&word).map_err(wrong)?;
    }
    base.ttft = args.ttft.unwrap_or(base.ttft);
    base.usage = !args.no_usage;
    let mut models = built_in(&base);
    for model in &args.models {
        let (name, words) = model.split_once('=').unwrap_or((model, ""));
        models.retain(|(known, _)| known != name);
        models.push((name.to_owned(), base.changed(words).map_err(wrong)?));
    }
    if let Some(fault) = &args.fault {
        let fault = Fault::named(fault).ok_or_else(|| {
            let known: Vec<_> = Fault::NAMES.iter().map(|(name, _)| *name).collect();
            CliError::usage(format!("unknown fault `{fault}`"), format!("known: {}", known.join(", ")))
        })?;
        for (_, script) in &mut models {
            script.fault = Some(fault);
        }
    }
    Ok(Settings { models, seed: args.seed, key: args.key.clone() })
}
