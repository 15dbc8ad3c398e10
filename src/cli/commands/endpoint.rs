//! `mmchat endpoint`: adds, removes and lists the endpoints of the config.

use std::{collections::HashSet, path::PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use super::{init::questions, models::find_endpoint};
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        config_input,
        config_transaction::ConfigTransaction,
        exit::Exit,
        key_uses::{KeyUse, KeyUser, is_same_source, key_file_names, key_uses, unused_key_file},
        list_format::ListArgs,
        terminal_guard::TerminalGuard,
    },
};
use crate::{
    config::{
        Config, Flags,
        edit::NewEndpoint,
        normalize_name,
        template::{TemplateEndpoint, TemplateKey},
        vendors,
    },
    model::api_key::{ApiKey, KeySource, redact_url},
    render::table::Table,
    term::{input, output::write_stderr, prompt::can_prompt},
};

/// Add, remove or list endpoints
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat endpoint add deepseek --key-env DEEPSEEK_API_KEY\n  \
      mmchat endpoint list\n  \
      mmchat endpoint remove deepseek --with-models")]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    /// List the endpoints with the sources of their keys
    #[command(after_help = "Examples:\n  \
      mmchat endpoint list\n  \
      mmchat endpoint list --format json")]
    List(ListArgs),
}

/// Add an endpoint, with questions if NAME is omitted
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("key")))]
#[command(after_help = "A vendor known to `mmchat vendors` needs no --url. Without a key option its environment \
    variable is used.\n\n\
    Examples:\n  \
      mmchat endpoint add\n  \
      mmchat endpoint add deepseek --key-env DEEPSEEK_API_KEY\n  \
      mmchat endpoint add local --url http://127.0.0.1:8080/v1\n  \
      pass show openai | mmchat endpoint add openai --key-stdin")]
struct AddArgs {
    /// Name of the new endpoint
    #[arg(value_name = "NAME", add = CompletionKind::Vendors.completer())]
    name: Option<String>,
    /// Set the base URL, including /v1
    #[arg(long, value_name = "URL", requires = "name")]
    url: Option<String>,
    /// Read the key from this environment variable
    #[arg(long, value_name = "VARIABLE", group = "key", requires = "name", help_heading = "Key")]
    key_env: Option<String>,
    /// Read the key from this file, which other users must not be able to read
    #[arg(
        long,
        value_name = "FILE",
        group = "key",
        value_hint = clap::ValueHint::FilePath,
        requires = "name",
        help_heading = "Key"
    )]
    key_file: Option<PathBuf>,
    /// Read the key from the output of this shell command
    #[arg(long, value_name = "COMMAND", group = "key", requires = "name", help_heading = "Key")]
    key_command: Option<String>,
    /// Read the key from standard input and store it in a file beside the config
    #[arg(long, group = "key", requires = "name", help_heading = "Key")]
    key_stdin: bool,
    /// Send requests without a key
    #[arg(long, group = "key", requires = "name", help_heading = "Key")]
    no_key: bool,
}

/// Remove an endpoint
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat endpoint remove deepseek\n  \
      mmchat endpoint remove deepseek --with-models")]
struct RemoveArgs {
    /// Endpoint to remove
    #[arg(value_name = "NAME", add = CompletionKind::Endpoints.completer())]
    name: String,
    /// Also remove its models, its spend limit, all references to them, and the routes and sets left empty
    #[arg(long)]
    with_models: bool,
}

pub(crate) fn run(args: &EndpointArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        EndpointCommand::Add(args) => add(args, context)?,
        EndpointCommand::Remove(args) => {
            let transaction = ConfigTransaction::begin(context)?;
            let path = transaction.path().to_owned();
            let key_files = own_key_files(&transaction.config()?, &args.name);
            let removed = transaction.edit(|editor| editor.remove_endpoint(&args.name, args.with_models))?;
            let with = if removed.is_empty() { String::new() } else { format!(" with {}", removed.join(", ")) };
            write_stderr(&format!("removed \"{}\"{with} from {}\n", args.name, path.display()));
            for file in key_files {
                write_stderr(&format!("  its key is still in {}\n", file.display()));
            }
        }
        EndpointCommand::List(args) => list(args, context)?,
    }
    Ok(Exit::Ok)
}

/// The existing key files that only this endpoint uses.
fn own_key_files(config: &Config, endpoint: &str) -> Vec<PathBuf> {
    let name = normalize_name(endpoint);
    let (own, others): (Vec<KeyUse>, Vec<KeyUse>) = key_uses(config).partition(|key| match key.user {
        KeyUser::Endpoint { endpoint, .. } | KeyUser::Header { endpoint, .. } => endpoint == name,
        KeyUser::Client(_) => false,
    });
    let is_unshared = |key: &&KeyUse| !others.iter().any(|other| is_same_source(other.source, key.source));
    // Several keys may come from one file.
    let mut seen = HashSet::new();
    let files = own.iter().filter(is_unshared).filter_map(|key| match key.source {
        KeySource::File(path) if path.is_file() && seen.insert(path.canonicalize().ok()?) => Some(path.clone()),
        _ => None,
    });
    files.collect()
}

fn add(args: &AddArgs, context: &Context) -> Result<(), CliError> {
    let endpoint = match &args.name {
        Some(name) => endpoint_from_args(args, name, context)?,
        None if can_prompt() => {
            let transaction = ConfigTransaction::begin(context)?;
            // An invalid config is reported before the first question.
            transaction.config()?;
            let names = transaction.own_names();
            drop(transaction);
            let taken: Vec<&str> = names.endpoints.iter().map(|(name, _)| name.as_str()).collect();
            let _guard = TerminalGuard::install()?;
            questions::prompt_endpoint(&context.environment, &taken)?
        }
        None => {
            return Err(CliError::usage("missing endpoint name", "run \"mmchat endpoint add NAME --url URL\""));
        }
    };
    let transaction = ConfigTransaction::begin(context)?;
    // Checked before the key is stored, so that a rejected endpoint leaves no key file behind.
    let config = transaction.config()?;
    // An endpoint of the system's file can be replaced.
    if transaction.own_names().contains("endpoint", &endpoint.name) {
        return Err(CliError::usage(
            format!("endpoint \"{}\" already exists", endpoint.name),
            format!("run \"mmchat endpoint remove {}\" first", endpoint.name),
        ));
    }
    let key = match &endpoint.key {
        TemplateKey::None => None,
        TemplateKey::Env(name) => Some(("env", name.clone())),
        TemplateKey::File(path) => Some(("file", path.clone())),
        TemplateKey::Typed(key) => {
            let name = unused_key_file(&endpoint.name, &key_file_names(&config), transaction.path(), key);
            Some(("file", transaction.write_key_file(&name, key)?))
        }
    };
    let keys = key.or(args.key_command.clone().map(|command| ("command", command))).into_iter().collect();
    let is_vendor_default = vendors::by_name(&endpoint.name).is_some_and(|vendor| vendor.base_url == endpoint.base_url);
    let base_url = (!is_vendor_default).then_some(endpoint.base_url);
    let path = transaction.path().to_owned();
    transaction.edit(|editor| {
        editor.add_endpoint(&NewEndpoint { name: endpoint.name.clone(), base_url, keys, gateway: false })
    })?;
    let name = &endpoint.name;
    write_stderr(&format!("added \"{name}\" to {}\n", path.display()));
    write_stderr(&format!(
        "  list its models: mmchat models available {name}\n  \
         name one of them: mmchat model add NAME --endpoint {name} --model ID\n"
    ));
    Ok(())
}

/// The endpoint described by the flags.
fn endpoint_from_args(args: &AddArgs, name: &str, context: &Context) -> Result<TemplateEndpoint, CliError> {
    // Checked first, so that an invalid name is reported before a key is read.
    config_input::validate_name(crate::config::NameKind::Other, name)?;
    let key = match args {
        _ if args.key_stdin => Some(TemplateKey::Typed(read_key_from_stdin()?)),
        AddArgs { key_env: Some(variable), .. } => Some(config_input::key_from_variable(variable)?),
        AddArgs { key_file: Some(path), .. } => {
            Some(TemplateKey::File(std::path::absolute(path)?.display().to_string()))
        }
        _ => (args.no_key || args.key_command.is_some()).then_some(TemplateKey::None),
    };
    config_input::build_endpoint(name, (args.url.as_deref(), "add --url URL"), key, &context.environment)
}

/// Maximum length of a key, in bytes.
const MAX_KEY_BYTES: usize = 8192;

/// Reads a key from standard input.
pub(crate) fn read_key_from_stdin() -> Result<ApiKey, CliError> {
    let input = input::read(None)?;
    let key = std::str::from_utf8(&input).map(ApiKey::new);
    let problem = match &key {
        Err(_) => "is not UTF-8 text",
        Ok(key) if key.is_empty() => "is empty",
        Ok(key) if key.expose().len() > MAX_KEY_BYTES => "is longer than 8 KiB",
        Ok(key) if key.expose().contains(['\n', '\r']) => "has more than one line",
        Ok(key) if key.expose().contains(char::is_control) => "contains a control character",
        Ok(key) => return Ok(key.clone()),
    };
    Err(CliError::usage(
        format!("invalid key: standard input {problem}"),
        "pipe in the key, such as with \"pass show openai | mmchat …\"",
    ))
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let (config, _) = context.config(context.settings(Flags::default())?)?;
    let mut table = Table::new(&["endpoint", "base_url", "key", ">models"]);
    let mut document = Vec::<Value>::new();
    for endpoint in &config.endpoints {
        let endpoint = find_endpoint(&config, &endpoint.name)?;
        let keys: Vec<String> = endpoint.keys.iter().map(ToString::to_string).collect();
        let models = config.models.iter().filter(|model| model.endpoint.name == endpoint.name).count();
        let address = redact_url(&endpoint.base_url);
        document.push(json!({"endpoint": endpoint.name, "base_url": address, "keys": keys, "models": models}));
        table.add_row(vec![endpoint.name.clone(), address, keys.join(", "), models.to_string()]);
    }
    args.print(context, &[table], &document.into())
}
