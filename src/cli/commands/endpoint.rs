//! `mmchat endpoint`: services of the config: add, remove, list.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use super::{import::key_files, init::questions, models::named_endpoint};
use crate::cli::{
    CliError, Context,
    support::{complete::Offer, config_input, config_transaction::Change, exit::Exit, list_format::ListArgs},
};
use crate::{
    config::{
        Flags,
        edit::NewEndpoint,
        template::{DraftEndpoint, DraftKey, key_file},
        vendors,
    },
    import::free,
    model::api_key::{ApiKey, masked_url},
    render::table::Table,
    term::{input, output::say, prompt::can_ask},
};

/// Services of the config: add, remove, list
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    /// List them, with the sources of their keys
    List(ListArgs),
}

/// Add a service; without a name you are asked
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("key")))]
#[command(
    after_help = "A known service (mmchat vendors) needs no --url, and its variable is taken when none is named.\n\n\
    mmchat endpoint add deepseek --key-env DEEPSEEK_API_KEY\n\
    mmchat endpoint add local --url http://127.0.0.1:8080/v1\n\
    pass show openai | mmchat endpoint add openai --key-stdin"
)]
struct AddArgs {
    /// Your name for it
    #[arg(value_name = "NAME", add = Offer::Vendors.completer())]
    name: Option<String>,
    /// Where it is, up to and with /v1
    #[arg(long, value_name = "URL", requires = "name")]
    url: Option<String>,
    /// Its key is in this variable
    #[arg(long, value_name = "VARIABLE", group = "key", requires = "name")]
    key_env: Option<String>,
    /// Its key is in this file, which others cannot read
    #[arg(long, value_name = "FILE", group = "key", value_hint = clap::ValueHint::FilePath, requires = "name")]
    key_file: Option<PathBuf>,
    /// This line of the shell prints its key
    #[arg(long, value_name = "LINE", group = "key", requires = "name")]
    key_command: Option<String>,
    /// Its key is on standard input; it is kept in a file of its own beside the config
    #[arg(long, group = "key", requires = "name")]
    key_stdin: bool,
    /// It wants no key
    #[arg(long, group = "key", requires = "name")]
    no_key: bool,
}

/// Remove a service
#[derive(Debug, Args)]
struct RemoveArgs {
    /// Which
    #[arg(value_name = "NAME", add = Offer::Endpoints.completer())]
    name: String,
    /// Its models, too, also from routes, sets and presets; those that are empty then go with them
    #[arg(long)]
    with_models: bool,
}

pub(crate) fn run(args: &EndpointArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        EndpointCommand::Add(args) => add(args, context)?,
        EndpointCommand::Remove(args) => {
            let change = Change::begin(context)?;
            let path = change.path().to_owned();
            let gone = change.edit(|edit| edit.remove_endpoint(&args.name, args.with_models))?;
            let with = if gone.is_empty() { String::new() } else { format!(" with {}", gone.join(", ")) };
            say(&format!("removed {}{with} from {}\n", args.name, path.display()));
            let key = path.with_file_name(key_file(&args.name));
            if key.is_file() {
                say(&format!("  its key is still in {}\n", key.display()));
            }
        }
        EndpointCommand::List(args) => list(args, context)?,
    }
    Ok(Exit::Ok)
}

fn add(args: &AddArgs, context: &Context) -> Result<(), CliError> {
    let endpoint = match &args.name {
        Some(name) => named(args, name, context)?,
        None if can_ask() => {
            let config = Change::begin(context)?.config()?;
            let taken: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
            let _restored = questions::Restored::when_interrupted()?;
            questions::endpoint(&context.environment, &taken)?
        }
        None => {
            return Err(CliError::usage("no name was given", "mmchat endpoint add NAME --url URL, or at a terminal"));
        }
    };
    let change = Change::begin(context)?;
    // Before the key is kept: an endpoint that cannot be added leaves no file behind.
    let config = change.config()?;
    if config.endpoint(&endpoint.name).is_some() {
        return Err(CliError::usage(
            format!("there is an endpoint `{}` already", endpoint.name),
            format!("remove it first: mmchat endpoint remove {}", endpoint.name),
        ));
    }
    let key = match &endpoint.key {
        DraftKey::None => None,
        DraftKey::Env(name) => Some(("env", name.clone())),
        DraftKey::File(path) => Some(("file", path.clone())),
        DraftKey::Typed(key) => {
            let name = free(&endpoint.name, &key_files(&config));
            Some(("file", change.keep_key(&name, key)?))
        }
    };
    let keys = key.or(args.key_command.clone().map(|line| ("command", line))).into_iter().collect();
    let known = vendors::named(&endpoint.name).is_some_and(|vendor| vendor.base_url == endpoint.base_url);
    let base_url = (!known).then_some(endpoint.base_url);
    let path = change.path().to_owned();
    change
        .edit(|edit| edit.add_endpoint(&NewEndpoint { name: endpoint.name.clone(), base_url, keys, gateway: false }))?;
    let name = &endpoint.name;
    say(&format!("added {name} to {}\n", path.display()));
    say(&format!(
        "  what it has: mmchat models available {name}\n  a name for one: mmchat model add NAME --endpoint {name} --model ID\n"
    ));
    Ok(())
}

/// The endpoint that the flags describe.
fn named(args: &AddArgs, name: &str, context: &Context) -> Result<DraftEndpoint, CliError> {
    // A name that cannot be one is told before a key is read.
    config_input::new_name(name)?;
    let key = match args {
        _ if args.key_stdin => Some(DraftKey::Typed(key_on_stdin()?)),
        AddArgs { key_env: Some(variable), .. } => Some(config_input::key_in(variable)?),
        AddArgs { key_file: Some(path), .. } => Some(DraftKey::File(std::path::absolute(path)?.display().to_string())),
        _ => (args.no_key || args.key_command.is_some()).then_some(DraftKey::None),
    };
    config_input::endpoint(name, args.url.as_deref(), key, &context.environment)
}

/// A key is a line.
const LONGEST_KEY: usize = 8192;

/// The key on standard input.
pub(crate) fn key_on_stdin() -> Result<ApiKey, CliError> {
    let input = input::read(None)?;
    let text = String::from_utf8_lossy(&input);
    let key = ApiKey::new(&text);
    let one_line = !key.expose().contains(char::is_control) && key.expose().len() <= LONGEST_KEY;
    if key.is_empty() || !one_line {
        return Err(CliError::usage("standard input holds no key: a key is one line", "pass show openai | mmchat …"));
    }
    Ok(key)
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let (config, _) = context.config(context.layers(Flags::default())?)?;
    let mut table = Table::new(&["endpoint", "base_url", "key", ">models"]);
    let mut document = Vec::<Value>::new();
    for endpoint in &config.endpoints {
        let endpoint = named_endpoint(&config, &endpoint.name)?;
        let keys: Vec<String> = endpoint.keys.iter().map(ToString::to_string).collect();
        let models = config.models.iter().filter(|model| model.endpoint.name == endpoint.name).count();
        let address = masked_url(&endpoint.base_url);
        document.push(json!({"endpoint": endpoint.name, "base_url": address, "keys": keys, "models": models}));
        table.row(vec![endpoint.name.clone(), address, keys.join(", "), models.to_string()]);
    }
    args.print(context, &[table], &document.into())
}
