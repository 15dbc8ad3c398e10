//! `mmchat doctor`: diagnoses endpoints and prints what to change.

use std::{collections::HashSet, sync::Arc, time::Duration};

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use parking_lot::Mutex;
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
    Exit code 0: no problems; 7: some endpoints have problems. If all have: the exit code that they have in common, \
    else 5.\n\n\
    Examples:\n  \
      mmchat doctor\n  \
      mmchat doctor openai fast\n  \
      mmchat doctor --no-ask --format json"
)]
pub(crate) struct DoctorArgs {
    /// Endpoints, models or routes to diagnose [default: all endpoints]
    #[arg(value_name = "NAME", add = CompletionKind::EndpointsAndModels.completer())]
    names: Vec<String>,
    /// Skip the test request to a model, which is billed
    #[arg(long)]
    no_ask: bool,
    #[command(flatten)]
    list: ListArgs,
    /// Limit the time of each step
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration, help_heading = "Limits")]
    timeout: Duration,
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
        let recorder = RunRecorder::new(
            self.context,
            self.config,
            self.engine,
            "doctor",
            (&RecordingArgs::metadata_only(), plan, Continuation::New),
        );
        let mut recorders = self.recorders.lock();
        recorders.push((plan.calls[0].name.clone(), recorder));
    }

    fn on_event(&self, plan: &Plan, event: &Event) {
        let mut recorders = self.recorders.lock();
        let found = recorders.iter_mut().find(|(name, _)| *name == plan.calls[0].name);
        if let Some((_, recorder)) = found {
            recorder.on_event(event);
        }
    }
}

impl DiagnosisRecorder<'_> {
    fn close(self) {
        let recorders = self.recorders.into_inner();
        close_all(recorders.into_iter().map(|(_, recorder)| recorder));
    }
}

pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<Exit, CliError> {
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    let mut diagnoses = select_diagnoses(&config, args)?;
    if diagnoses.is_empty() && config.files.is_empty() {
        return Err(crate::engine::plan::PlanError::NoEndpoints.into());
    }
    if diagnoses.is_empty() {
        return Err(CliError::usage("no endpoints in the config", "run \"mmchat endpoint add\""));
    }
    if args.no_ask {
        for diagnosis in &mut diagnoses {
            diagnosis.model = None;
            diagnosis.sends_test_request = false;
        }
    }
    context.warn_about_exposed_keys(diagnoses.iter().map(|diagnosis| &diagnosis.endpoint));
    let engine = context.engine_for(&config, config.history.store_content);
    let recorder = DiagnosisRecorder { context, config: &config, engine: &engine, recorders: Mutex::default() };
    let running = join_all(diagnoses.iter().map(|diagnosis| diagnosis.run(&engine, Timestamp::now(), &recorder)));
    let findings = context.runtime()?.block_on(running);
    recorder.close();
    let mut table = Table::new(&["endpoint", "check", "verdict", "observed"]);
    for (diagnosis, findings) in diagnoses.iter().zip(&findings) {
        for finding in findings {
            let observed = one_line(&finding.detail);
            let verdict = finding.verdict.as_str().to_owned();
            table.add_row(vec![diagnosis.endpoint.name.clone(), finding.check.to_owned(), verdict, observed]);
            if finding.verdict == Verdict::Fail {
                table.highlight_last_row();
            }
        }
    }
    let document: Vec<Value> =
        diagnoses.iter().zip(&findings).map(|(diagnosis, findings)| diagnosis_json(diagnosis, findings)).collect();
    args.list.print(context, &[table], &document.into())?;
    if args.list.is_text() {
        print_advice(&diagnoses, &findings);
    }
    Ok(Exit::combine(findings.iter().map(|findings| exit_code(findings))))
}

/// The diagnoses to run: each endpoint once, with the model that gets the request.
fn select_diagnoses(config: &Config, args: &DoctorArgs) -> Result<Vec<Diagnosis>, CliError> {
    let diagnosis = |endpoint: &Arc<Endpoint>, model: Option<Arc<Target>>| Diagnosis {
        endpoint: Arc::clone(endpoint),
        model: model.or_else(|| config.models.iter().find(|model| model.endpoint.name == endpoint.name).cloned()),
        sends_test_request: !args.no_ask,
        step_timeout: args.timeout,
    };
    if args.names.is_empty() {
        // Without a config, keyless loopback endpoints are only default ports where a server may run.
        let is_guess = |endpoint: &&Arc<Endpoint>| {
            config.files.is_empty() && endpoint.connect.loopback && endpoint.keys.is_empty()
        };
        let endpoints = config.endpoints.iter().filter(|endpoint| !is_guess(endpoint));
        return Ok(endpoints.map(|endpoint| diagnosis(endpoint, None)).collect());
    }
    let mut diagnoses: Vec<Diagnosis> = Vec::new();
    for name in &args.names {
        if let Some(endpoint) = config.endpoint(name) {
            diagnoses.push(diagnosis(endpoint, None));
        } else if let Some(model) = config.model(name) {
            diagnoses.push(diagnosis(&model.endpoint, Some(Arc::clone(model))));
        } else if let Some(route) = config.route(name) {
            diagnoses.extend(route.models.iter().map(|model| diagnosis(&model.endpoint, Some(Arc::clone(model)))));
        } else if let Some(model) = config.direct_model(name) {
            diagnoses.push(diagnosis(&Arc::clone(&model.endpoint), Some(model)));
        } else {
            return Err(unknown_endpoint_or_model(config, name));
        }
    }
    // An endpoint and its first model are the same diagnosis: run it once when both are named.
    let mut known = HashSet::new();
    diagnoses.retain(|diagnosis| {
        known.insert((diagnosis.endpoint.name.clone(), diagnosis.model.as_ref().map(|model| model.id.clone())))
    });
    Ok(diagnoses)
}

/// Prints the advice for each endpoint; of several failures of one error class, only the first.
fn print_advice(diagnoses: &[Diagnosis], findings: &[Vec<Finding>]) {
    let mut printed = Vec::new();
    for (diagnosis, findings) in diagnoses.iter().zip(findings) {
        let mut explained: Vec<(&str, ErrorClass)> = Vec::new();
        for finding in findings {
            let Some(advice) = &finding.hint else { continue };
            if let Some(class) = finding.class {
                // Several keys of one endpoint are separate problems.
                if explained.iter().any(|(check, known)| *known == class && *check != finding.check) {
                    continue;
                }
                explained.push((finding.check, class));
            }
            let line = format!("{} {}: {}\n", diagnosis.endpoint.name, finding.check, one_line(advice));
            if !printed.contains(&line) {
                write_stderr(&line);
                printed.push(line);
            }
        }
    }
    let has_failed = findings.iter().flatten().any(|finding| finding.verdict == Verdict::Fail);
    if printed.is_empty() && !has_failed {
        write_stderr("nothing to change\n");
    }
}

fn diagnosis_json(diagnosis: &Diagnosis, findings: &[Finding]) -> Value {
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
        "endpoint": diagnosis.endpoint.name,
        "model": diagnosis.model.as_ref().map(|model| model.id.0.as_str()),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// The exit code of the first failed check.
fn exit_code(findings: &[Finding]) -> Exit {
    let failed = findings.iter().find(|finding| finding.verdict == Verdict::Fail);
    failed.map_or(Exit::Ok, |finding| finding.class.map_or(Exit::Failed, Exit::from_class))
}
