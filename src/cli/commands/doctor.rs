//! `mmchat doctor`: diagnoses endpoints and prints what to change.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        error::unknown_endpoint_or_model,
        exit::Exit,
        list_format::ListArgs,
        recording::{RecordingArgs, RunRecorder, close_all},
    },
};
use crate::{
    config::{Config, Flags, parse_duration},
    doctor::{Diagnosis, DoctorObserver, Finding, Verdict},
    engine::{Engine, Event, plan::Plan},
    model::{ErrorClass, endpoint::Endpoint, sanitize::one_line, target::Target},
    render::table::Table,
    store::record::Continuation,
    term::output::write_stderr,
};

/// Diagnose endpoints and print what to change
#[derive(Debug, Args)]
#[command(
    after_help = "Checks the address, key, model, streaming, usage and clock of each endpoint. Recognizes One-API, \
    new-api, LiteLLM, Ollama, vLLM, Xinference and llama.cpp by their responses. Sends one request of at most \
    120 tokens to one model of each endpoint, which is billed, unless --no-ask is given.\n\n\
    Exit code 0: no problems; 7: some endpoints have problems; otherwise their code, or 5 if they differ.\n\n\
    Examples:\n  \
      mmchat doctor\n  \
      mmchat doctor openai fast\n  \
      mmchat doctor --no-ask --format json"
)]
pub(crate) struct DoctorArgs {
    /// Endpoints, models or routes to diagnose [default: all endpoints]
    #[arg(value_name = "NAME", add = CompletionKind::EndpointsAndModels.completer())]
    names: Vec<String>,
    /// Send no request to a model, so that nothing is billed
    #[arg(long)]
    no_ask: bool,
    /// Limit the time of each step
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    list: ListArgs,
}

/// Records the requests of the diagnosis, because they are billed.
struct DiagnosisRecorder<'a> {
    context: &'a Context,
    config: &'a Config,
    engine: &'a Arc<Engine>,
    /// One run recorder for each model that gets a request, by model name.
    recorders: Mutex<Vec<(String, RunRecorder)>>,
}

impl DoctorObserver for DiagnosisRecorder<'_> {
    fn on_start(&self, plan: &Plan) {
        let keeper = RunRecorder::new(
            self.context,
            self.config,
            self.engine,
            "doctor",
            (&RecordingArgs::metadata_only(), plan, Continuation::New),
        );
        let mut keepers = self.recorders.lock().expect("no code panics while holding this lock");
        keepers.push((plan.calls[0].name.clone(), keeper));
    }

    fn on_event(&self, plan: &Plan, event: &Event) {
        let mut keepers = self.recorders.lock().expect("no code panics while holding this lock");
        let ours = keepers.iter_mut().find(|(name, _)| *name == plan.calls[0].name);
        if let Some((_, keeper)) = ours {
            keeper.event(event);
        }
    }
}

impl DiagnosisRecorder<'_> {
    fn close(self) {
        let keepers = self.recorders.into_inner().expect("no code panics while holding this lock");
        close_all(keepers.into_iter().map(|(_, keeper)| keeper));
    }
}

pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    let mut checkups = select_diagnoses(&config, args)?;
    if checkups.is_empty() && config.path.is_none() {
        return Err(crate::engine::plan::PlanError::NoEndpoints.into());
    }
    if checkups.is_empty() {
        return Err(CliError::usage("no endpoints in the config", "run \"mmchat endpoint add\""));
    }
    if args.no_ask {
        for checkup in &mut checkups {
            checkup.model = None;
            checkup.sends_test_request = false;
        }
    }
    let engine = context.engine_for(&config, config.history.store_content);
    let record = DiagnosisRecorder { context, config: &config, engine: &engine, recorders: Mutex::default() };
    let work = join_all(checkups.iter().map(|checkup| checkup.run(&engine, Timestamp::now(), &record)));
    let findings = context.runtime()?.block_on(work);
    record.close();
    let mut table = Table::new(&["endpoint", "check", "verdict", "observed"]);
    for (checkup, findings) in checkups.iter().zip(&findings) {
        for finding in findings {
            let observed = one_line(&finding.detail);
            let verdict = finding.verdict.as_str().to_owned();
            table.add_row(vec![checkup.endpoint.name.clone(), finding.check.to_owned(), verdict, observed]);
            if finding.verdict == Verdict::Fail {
                table.highlight_last_row();
            }
        }
    }
    let document: Vec<Value> =
        checkups.iter().zip(&findings).map(|(checkup, findings)| diagnosis_json(checkup, findings)).collect();
    args.list.print(context, &[table], &document.into())?;
    if args.list.is_text() {
        print_advice(&checkups, &findings);
    }
    Ok(Exit::combine(findings.iter().map(|findings| exit_code(findings))))
}

/// The diagnoses to run: each endpoint once, with the model that gets the request.
fn select_diagnoses(config: &Config, args: &DoctorArgs) -> Result<Vec<Diagnosis>, CliError> {
    let checkup = |endpoint: &Arc<Endpoint>, model: Option<Arc<Target>>| Diagnosis {
        endpoint: Arc::clone(endpoint),
        model: model.or_else(|| config.models.iter().find(|model| model.endpoint.name == endpoint.name).cloned()),
        sends_test_request: !args.no_ask,
        step_timeout: args.timeout,
    };
    if args.names.is_empty() {
        // Without a config, keyless loopback endpoints are only default ports where a server may run.
        let is_guess =
            |endpoint: &&Arc<Endpoint>| config.path.is_none() && endpoint.connect.loopback && endpoint.keys.is_empty();
        let endpoints = config.endpoints.iter().filter(|endpoint| !is_guess(endpoint));
        return Ok(endpoints.map(|endpoint| checkup(endpoint, None)).collect());
    }
    let mut checkups: Vec<Diagnosis> = Vec::new();
    for name in &args.names {
        if let Some(endpoint) = config.endpoint(name) {
            checkups.push(checkup(endpoint, None));
        } else if let Some(model) = config.model(name) {
            checkups.push(checkup(&model.endpoint, Some(Arc::clone(model))));
        } else if let Some(route) = config.route(name) {
            checkups.extend(route.models.iter().map(|model| checkup(&model.endpoint, Some(Arc::clone(model)))));
        } else if let Some(model) = config.direct_model(name) {
            checkups.push(checkup(&Arc::clone(&model.endpoint), Some(model)));
        } else {
            return Err(unknown_endpoint_or_model(config, name));
        }
    }
    // An endpoint and its first model are the same diagnosis: run it once when both are named.
    let mut seen = HashSet::new();
    checkups.retain(|checkup| {
        seen.insert((checkup.endpoint.name.clone(), checkup.model.as_ref().map(|model| model.id.clone())))
    });
    Ok(checkups)
}

/// Prints each piece of advice once.
fn print_advice(checkups: &[Diagnosis], findings: &[Vec<Finding>]) {
    let mut printed = Vec::new();
    for (checkup, findings) in checkups.iter().zip(findings) {
        for finding in findings {
            let Some(advice) = &finding.hint else { continue };
            let line = format!("{} {}: {}\n", checkup.endpoint.name, finding.check, one_line(advice));
            if !printed.contains(&line) {
                write_stderr(&line);
                printed.push(line);
            }
        }
    }
    let has_bad = findings.iter().flatten().any(|finding| finding.verdict == Verdict::Fail);
    if printed.is_empty() && !has_bad {
        write_stderr("nothing to change\n");
    }
}

fn diagnosis_json(checkup: &Diagnosis, findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "what": finding.check,
            "verdict": finding.verdict.as_str().to_lowercase(),
            "seen": finding.detail,
            "advice": finding.hint,
            "class": finding.class.map(ErrorClass::as_str),
        })
    };
    json!({
        "endpoint": checkup.endpoint.name,
        "model": checkup.model.as_ref().map(|model| model.id.0.as_str()),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// The exit code of the first bad finding.
fn exit_code(findings: &[Finding]) -> Exit {
    let bad = findings.iter().find(|finding| finding.verdict == Verdict::Fail);
    bad.map_or(Exit::Ok, |finding| finding.class.map_or(Exit::Failed, Exit::from_class))
}
