//! `mmchat init`: creates the first config from the keys and servers it finds.
//!
//! Detects services, asks questions or uses the flags, and tries the models. The config is written last, so an
//! interruption at a question changes nothing.

use std::{path::Path, time::Duration};

use clap::Args;

mod default_models;
mod detection;
pub(crate) mod questions;

use detection::{DetectedService, ServiceStatus};

use super::ping::{collect_records, one_token_plan, record_state};
use crate::cli::{
    CliError, Context,
    support::{
        config_input,
        config_transaction::{ConfigTransaction, config_path},
        exit::Exit,
        key_uses::unused_key_file,
        recording::{RecordingArgs, RunRecorder},
        terminal_guard::TerminalGuard,
    },
};
use crate::{
    config::{
        self,
        template::{ConfigTemplate, TemplateEndpoint, TemplateKey},
        vendors,
    },
    render::{notice::format_reason, table::Table},
    store::{self, record::Continuation},
    term::{
        output::write_stderr,
        prompt::{can_prompt, choose_several, confirm},
    },
};

/// Time limit for listing the models of a service.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for one token from a model.
const TRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Create the first config: find keys and servers, choose models, test them
#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal, init asks for what the options do not specify. With --yes it uses what it finds. Keys \
    are never printed, and never written into the config.\n\n\
    Examples:\n  \
      mmchat init\n  \
      mmchat init --yes --fast openai/gpt-4o-mini --strong openai/gpt-4o\n  \
      mmchat init -y --endpoint box=http://gpu-box:8000/v1 --fast box/qwen3\n  \
      mmchat init -y --endpoint openai --key-env openai=WORK_OPENAI_KEY"
)]
pub(crate) struct InitArgs {
    /// Do not ask questions: use the options and what is found
    #[arg(short, long)]
    yes: bool,
    /// Replace an existing config; the old file is kept beside it
    #[arg(long)]
    force: bool,
    /// Do not test the models; each test requests one token, which is billed
    #[arg(long)]
    no_try: bool,
    /// Use this model first in the route `chat`
    #[arg(long, value_name = "ENDPOINT/ID", help_heading = "Models")]
    fast: Option<String>,
    /// Use this model first in the route `analysis`
    #[arg(long, value_name = "ENDPOINT/ID", help_heading = "Models")]
    strong: Option<String>,
    /// Use this model first in the route `simple`
    #[arg(long, value_name = "ENDPOINT/ID", help_heading = "Models")]
    cheap: Option<String>,
    /// Add more models, for comparisons
    #[arg(long, value_name = "ENDPOINT/ID", value_delimiter = ',', help_heading = "Models")]
    also: Vec<String>,
    /// Add an endpoint: the name of a known vendor, or NAME=URL
    #[arg(long = "endpoint", value_name = "NAME[=URL]", help_heading = "Endpoints")]
    endpoints: Vec<String>,
    /// Read the key of an endpoint from this environment variable
    #[arg(long = "key-env", value_name = "NAME=VARIABLE", help_heading = "Endpoints")]
    key_env: Vec<String>,
    /// Read the key of an endpoint from this file
    #[arg(long = "key-file", value_name = "NAME=FILE", help_heading = "Endpoints")]
    key_files: Vec<String>,
    /// Do not look for keys in the environment or for servers on this machine
    #[arg(long, help_heading = "Endpoints")]
    no_discover: bool,
}

pub(crate) fn run(args: &InitArgs, context: &Context) -> Result<Exit, CliError> {
    let path = config_path(context)?;
    // Checked before any question is asked.
    store::check_writable(&path)
        .map_err(|source| CliError::System { what: format!("cannot write {}", path.display()), source })?;
    let interactive = can_prompt() && !args.yes;
    let is_replaced = path.exists();
    if is_replaced && !args.force && !interactive {
        return Err(already_exists(&path));
    }
    if !interactive && !args.yes && args.fast.is_none() {
        return Err(CliError::usage(
            "cannot ask questions: not a terminal",
            "use --yes to accept what is found, or --endpoint, --key-env, --fast, --strong and --cheap",
        ));
    }
    let _guard = if interactive { Some(TerminalGuard::install()?) } else { None };
    if interactive && is_replaced && !args.force {
        let question = format!("{} already exists. Replace it (the old file is kept as .bak)", path.display());
        if !confirm(&question, false)? {
            write_stderr("nothing was changed\n");
            return Ok(Exit::Ok);
        }
    }
    let services = select_services(args, context, interactive)?;
    let template = default_models::build_template(args, services, interactive)?;
    let exit = if args.no_try { Exit::Ok } else { try_models(&template, context)? };
    if exit != Exit::Ok && interactive && !confirm("Some models failed. Write the config anyway", true)? {
        write_stderr("nothing was changed\n");
        return Ok(exit);
    }
    write_config(template, is_replaced || args.force, context)?;
    Ok(exit)
}

/// The services to use, each with the models it lists.
fn select_services(args: &InitArgs, context: &Context, interactive: bool) -> Result<Vec<DetectedService>, CliError> {
    let named = endpoints_from_args(args, context)?;
    let runtime = context.runtime()?;
    let mut candidates = named.clone();
    if !args.no_discover {
        write_stderr("looking for keys in the environment and servers on this machine …\n");
        let is_unnamed = |endpoint: &TemplateEndpoint| !named.iter().any(|other| other.name == endpoint.name);
        candidates.extend(detection::detectable_endpoints(&context.environment)?.into_iter().filter(is_unnamed));
    }
    let mut services = runtime.block_on(detection::list_models(context, candidates, LIST_TIMEOUT))?;
    let is_named = |service: &DetectedService| named.iter().any(|endpoint| endpoint.name == service.endpoint.name);
    // A default port without a server is not reported.
    services
        .retain(|service| is_named(service) || service.status() != ServiceStatus::Unreachable || !service.is_guess());
    for service in &services {
        write_stderr(&format!("  {}\n", service.summary()));
    }
    let is_usable = |service: &DetectedService| is_named(service) || service.status() == ServiceStatus::ListsModels;
    if !interactive {
        services.retain(is_usable);
        return if services.is_empty() { Err(nothing_found(args)) } else { Ok(services) };
    }
    if !services.is_empty() {
        let lines: Vec<String> = services.iter().map(DetectedService::summary).collect();
        let preselected: Vec<bool> = services.iter().map(is_usable).collect();
        let selected = choose_several("Endpoints to use (space selects, enter continues)", &lines, &preselected)?;
        let mut index = 0..;
        services.retain(|_| index.next().is_some_and(|index| selected.contains(&index)));
    }
    while confirm("Add another endpoint", services.is_empty())? {
        let taken: Vec<&str> = services.iter().map(|service| service.endpoint.name.as_str()).collect();
        let endpoint = questions::prompt_endpoint(&context.environment, &taken)?;
        let listed = runtime.block_on(detection::list_models(context, vec![endpoint], LIST_TIMEOUT))?;
        for service in listed {
            write_stderr(&format!("  {}\n", service.summary()));
            if service.status() == ServiceStatus::ListsModels
                || confirm("Its models cannot be listed. Use it anyway", true)?
            {
                services.push(service);
            }
        }
    }
    if services.is_empty() {
        return Err(CliError::usage("no endpoints selected", "run \"mmchat demo\" to see mmchat without one"));
    }
    Ok(services)
}

fn nothing_found(args: &InitArgs) -> CliError {
    if args.no_discover {
        return CliError::usage("no endpoints given", "add --endpoint NAME=URL, or remove --no-discover");
    }
    CliError::usage(
        "no API key in the environment, and no model server found on this machine",
        "set a key such as OPENAI_API_KEY (\"mmchat vendors\" lists the variables), or add --endpoint NAME=URL",
    )
}

/// Splits the values of an option such as `--key-env`. The error does not show the value, which may be a key.
fn parse_pairs(
    values: &[String],
    (option, form, example): (&str, &str, &str),
) -> Result<Vec<(String, String)>, CliError> {
    let parse_pair = |text: &String| {
        let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| {
            let message = format!("invalid value of {option}: expected {form}");
            CliError::usage(message, format!("write the name of the endpoint first, such as {option} {example}"))
        })
    };
    values.iter().map(parse_pair).collect()
}

/// The endpoints named by the flags.
fn endpoints_from_args(args: &InitArgs, context: &Context) -> Result<Vec<TemplateEndpoint>, CliError> {
    let variables = parse_pairs(&args.key_env, ("--key-env", "NAME=VARIABLE", "openai=WORK_OPENAI_KEY"))?;
    let files = parse_pairs(&args.key_files, ("--key-file", "NAME=FILE", "openai=openai.key"))?;
    let mut endpoints = Vec::<TemplateEndpoint>::new();
    for text in &args.endpoints {
        let (name, url) = text.split_once('=').map_or((text.as_str(), None), |(name, url)| (name, Some(url)));
        let value_for =
            |pairs: &[(String, String)]| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let key = match (value_for(&variables), value_for(&files)) {
            (Some(variable), _) => Some(config_input::key_from_variable(&variable)?),
            (None, Some(file)) => Some(TemplateKey::File(std::path::absolute(file)?.display().to_string())),
            (None, None) => None,
        };
        let url_hint = format!("write --endpoint {name}=URL");
        endpoints.push(config_input::build_endpoint(name, (url, url_hint.as_str()), key, &context.environment)?);
    }
    for (option, pairs) in [("--key-env", &variables), ("--key-file", &files)] {
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !endpoints.iter().any(|endpoint| endpoint.name == *name))
        {
            let message = format!("unknown endpoint \"{name}\" in {option}");
            let url = if vendors::by_name(name).is_some() { "" } else { "=URL" };
            return Err(CliError::usage(message, format!("add --endpoint {name}{url}")));
        }
    }
    Ok(endpoints)
}

/// Requests one token from every model; returns the exit code.
fn try_models(template: &ConfigTemplate, context: &Context) -> Result<Exit, CliError> {
    let config = config::resolve(&template.to_toml(true), &config_path(context)?)?;
    write_stderr(&format!(
        "trying {} …\n",
        config.models.iter().map(|model| model.id.0.as_str()).collect::<Vec<_>>().join(", ")
    ));
    let (engine, plan) = (context.stateless_engine(), one_token_plan(&config.models, TRY_TIMEOUT));
    // The requests are billed, so they are recorded like any call.
    let mut recorder = RunRecorder::new(
        context,
        &config,
        &engine,
        "init",
        (&RecordingArgs::metadata_only(), &plan, Continuation::New),
    );
    let records = context.runtime()?.block_on(collect_records(&engine, plan, |event| recorder.on_event(event)));
    recorder.close();
    let mut table = Table::new(&["model", "endpoint/id", "state", ">TTFT", "note"]);
    for (model, record) in config.models.iter().zip(&records) {
        let ttft = record.ttft.map(crate::render::notice::format_duration).unwrap_or_default();
        let (state, note) = (record_state(record), record.result.as_ref().err().map(format_reason).unwrap_or_default());
        let id = format!("{}/{}", model.endpoint.name, model.upstream_id);
        table.add_row(vec![model.id.0.clone(), id, state, ttft, note]);
    }
    write_stderr(
        &table.render(context.terminal_info(&context.settings(config::Flags::default())?).stdout_width, false),
    );
    Ok(Exit::from_records(records.iter().map(|record| &**record)))
}

fn already_exists(path: &Path) -> CliError {
    CliError::usage(
        format!("{} already exists", path.display()),
        "use --force to replace it (the old file is kept), or extend it with \"mmchat endpoint add\"",
    )
}

/// Writes the typed keys and the config, after saving the old config.
fn write_config(mut template: ConfigTemplate, may_replace: bool, context: &Context) -> Result<(), CliError> {
    let transaction = ConfigTransaction::begin(context)?;
    // Another process may have written it since the first check.
    if transaction.exists() && !may_replace {
        return Err(already_exists(transaction.path()));
    }
    let backup = transaction.back_up()?;
    for endpoint in &mut template.endpoints {
        if let TemplateKey::Typed(key) = &endpoint.key {
            let file = unused_key_file(&endpoint.name, &[], transaction.path(), key);
            endpoint.key = TemplateKey::File(transaction.write_key_file(&file, key)?);
        }
    }
    transaction.write(&template.to_toml(false))?;
    if let Some(backup) = backup {
        write_stderr(&format!("saved the old config as {}\n", backup.display()));
    }
    write_stderr(&format!(
        "wrote {}\n\n  mmchat ask \"hello\"            ask the route chat\n  \
         mmchat compare --all \"hello\"  ask all models at once\n  \
         mmchat models                 list models, routes and sets\n",
        transaction.path().display()
    ));
    Ok(())
}
