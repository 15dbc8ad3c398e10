//! `mmchat doctor`: what is wrong with an endpoint, and what to change.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ping::is_new;
use crate::cli::{
    CliError, Context,
    support::{
        complete::Offer,
        exit::Exit,
        list_format::ListArgs,
        recording::{KeepArgs, Keeper, close_all},
        request::unknown_name,
    },
};
use crate::{
    config::{Config, Flags, parse_duration},
    doctor::{Checkup, Finding, Told, Verdict},
    engine::{Engine, Event, plan::Plan},
    model::{ErrorClass, endpoint::Endpoint, sanitize::one_line, target::Target},
    render::table::Table,
    store::record::GoesOn,
    term::output::say,
};

/// Look for what is wrong with endpoints: address, key, model, streaming, usage, clock; and say what to change
#[derive(Debug, Args)]
#[command(
    after_help = "One-API, new-api, LiteLLM, Ollama, vLLM, Xinference and llama.cpp are recognised by their answers. One model of\n\
    each endpoint is asked for at most 120 tokens, which are billed; --no-ask asks nobody.\n\
    Exit code 0: nothing is wrong; 7: something is; else the code of what is wrong with all.\n\n\
    mmchat doctor\n\
    mmchat doctor one-api fast"
)]
pub(crate) struct DoctorArgs {
    /// Endpoints, or the models to ask; all endpoints unless named
    #[arg(value_name = "NAME", add = Offer::Reachable.completer())]
    names: Vec<String>,
    /// Ask no model anything, so that nothing is billed
    #[arg(long)]
    no_ask: bool,
    /// How long each step may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    list: ListArgs,
}

/// Puts what is asked on the record: it is billed.
struct Record<'a> {
    context: &'a Context,
    config: &'a Config,
    engine: &'a Arc<Engine>,
    /// One for each model that is asked, by its name.
    keepers: Mutex<Vec<(String, Keeper)>>,
}

impl Told for Record<'_> {
    fn begins(&self, plan: &Plan) {
        let keeper =
            Keeper::new(self.context, self.config, self.engine, "doctor", (&KeepArgs::wordless(), plan, GoesOn::Anew));
        let mut keepers = self.keepers.lock().expect("no code panics while it holds this lock");
        keepers.push((plan.lanes[0].name.clone(), keeper));
    }

    fn event(&self, plan: &Plan, event: &Event) {
        let mut keepers = self.keepers.lock().expect("no code panics while it holds this lock");
        let ours = keepers.iter_mut().find(|(name, _)| *name == plan.lanes[0].name);
        if let Some((_, keeper)) = ours {
            keeper.event(event);
        }
    }
}

impl Record<'_> {
    fn close(self) {
        let keepers = self.keepers.into_inner().expect("no code panics while it holds this lock");
        close_all(keepers.into_iter().map(|(_, keeper)| keeper));
    }
}

pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    let mut checkups = chosen(&config, args)?;
    if checkups.is_empty() && config.path.is_none() {
        return Err(crate::engine::plan::PlanError::NoKey.into());
    }
    if checkups.is_empty() {
        return Err(CliError::usage("the config has no endpoints", "add one: mmchat endpoint add"));
    }
    if args.no_ask {
        for checkup in &mut checkups {
            checkup.model = None;
            checkup.asks = false;
        }
    }
    let engine = context.engine_for(&config, config.history.on);
    let record = Record { context, config: &config, engine: &engine, keepers: Mutex::default() };
    let work = join_all(checkups.iter().map(|checkup| checkup.run(&engine, Timestamp::now(), &record)));
    let findings = context.runtime()?.block_on(work);
    record.close();
    let mut table = Table::new(&["endpoint", "what", "verdict", "seen"]);
    for (checkup, findings) in checkups.iter().zip(&findings) {
        for finding in findings {
            let seen = one_line(&finding.seen);
            let verdict = finding.verdict.as_str().to_owned();
            table.row(vec![checkup.endpoint.name.clone(), finding.what.to_owned(), verdict, seen]);
            if finding.verdict == Verdict::Bad {
                table.mark_bad();
            }
        }
    }
    let document: Vec<Value> =
        checkups.iter().zip(&findings).map(|(checkup, findings)| object(checkup, findings)).collect();
    args.list.print(context, &[table], &document.into())?;
    if args.list.is_text() {
        advise(&checkups, &findings);
    }
    Ok(Exit::shared(findings.iter().map(|findings| exit(findings))))
}

/// What is to be looked at: each endpoint once, with the model that is asked.
fn chosen(config: &Config, args: &DoctorArgs) -> Result<Vec<Checkup>, CliError> {
    let checkup = |endpoint: &Arc<Endpoint>, model: Option<Arc<Target>>| Checkup {
        endpoint: Arc::clone(endpoint),
        model: model.or_else(|| config.models.iter().find(|model| model.endpoint.name == endpoint.name).cloned()),
        asks: !args.no_ask,
        limit: args.timeout,
    };
    if args.names.is_empty() {
        // Without a config, servers on this machine are only guesses.
        let guess =
            |endpoint: &&Arc<Endpoint>| config.path.is_none() && endpoint.connect.loopback && endpoint.keys.is_empty();
        let endpoints = config.endpoints.iter().filter(|endpoint| !guess(endpoint));
        return Ok(endpoints.map(|endpoint| checkup(endpoint, None)).collect());
    }
    let mut checkups: Vec<Checkup> = Vec::new();
    for name in &args.names {
        if let Some(endpoint) = config.endpoint(name) {
            checkups.push(checkup(endpoint, None));
        } else if let Some(model) = config.model(name) {
            checkups.push(checkup(&model.endpoint, Some(Arc::clone(model))));
        } else if let Some(route) = config.route(name) {
            checkups.extend(route.models.iter().map(|model| checkup(&model.endpoint, Some(Arc::clone(model)))));
        } else if let Some(model) = config.direct(name) {
            checkups.push(checkup(&Arc::clone(&model.endpoint), Some(model)));
        } else {
            return Err(unknown_name(config, name));
        }
    }
    // Named twice, it is asked once: an endpoint and its first model are one checkup.
    let mut seen = Vec::new();
    checkups.retain(|checkup| {
        is_new(&mut seen, (checkup.endpoint.name.clone(), checkup.model.as_ref().map(|model| model.id.clone())))
    });
    Ok(checkups)
}

/// What to change, once for each.
fn advise(checkups: &[Checkup], findings: &[Vec<Finding>]) {
    let mut told = Vec::new();
    for (checkup, findings) in checkups.iter().zip(findings) {
        for finding in findings {
            let Some(advice) = &finding.advice else { continue };
            let line = format!("{} {}: {}\n", checkup.endpoint.name, finding.what, one_line(advice));
            if !told.contains(&line) {
                say(&line);
                told.push(line);
            }
        }
    }
    let bad = findings.iter().flatten().any(|finding| finding.verdict == Verdict::Bad);
    if told.is_empty() && !bad {
        say("nothing to change\n");
    }
}

fn object(checkup: &Checkup, findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "what": finding.what,
            "verdict": finding.verdict.as_str().to_lowercase(),
            "seen": finding.seen,
            "advice": finding.advice,
            "class": finding.class.map(ErrorClass::as_str),
        })
    };
    json!({
        "endpoint": checkup.endpoint.name,
        "model": checkup.model.as_ref().map(|model| model.id.0.as_str()),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// The code of the worst that was found.
fn exit(findings: &[Finding]) -> Exit {
    let bad = findings.iter().find(|finding| finding.verdict == Verdict::Bad);
    bad.map_or(Exit::Ok, |finding| finding.class.map_or(Exit::Failed, Exit::of_class))
}
