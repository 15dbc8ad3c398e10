//! `mmchat key`: stores, lists and removes keys outside the config.
//!
//! A key is stored in a file that only its owner can read, or in the system keyring, and the config refers to it. Keys
//! come from a prompt without echo or from standard input, never from an argument, and are never printed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    endpoint::read_key_from_stdin,
    import::{key_file_names, key_sources},
    models::find_endpoint,
};
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind, config_input, config_transaction::ConfigTransaction, exit::Exit,
        list_format::ListArgs,
    },
};
use crate::{
    config::{Config, Flags, edit::KeyRef, resolve_config_path, template::key_file_path},
    import::unique_name,
    model::api_key::{ApiKey, KeySource},
    render::table::Table,
    term::{
        output::write_stderr,
        prompt::{can_prompt, secret},
    },
    transport::keys::KeyRing,
};

/// Store, list or remove keys outside the config
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat key set openai\n  \
      mmchat key list\n  \
      mmchat key remove openai --everywhere")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    Set(SetArgs),
    /// List where the keys are stored and which endpoints use them; no key is shown
    #[command(after_help = "Examples:\n  \
      mmchat key list\n  \
      mmchat key list --format json")]
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Store a key, typed at a prompt or read from standard input
#[derive(Debug, Args)]
#[command(after_help = "The endpoint called NAME, or that of --endpoint, is changed to use the key.\n\n\
    Examples:\n  \
      mmchat key set openai\n  \
      pass show openai | mmchat key set openai\n  \
      mmchat key set openai-2 --endpoint openai --add")]
struct SetArgs {
    /// Name of the key, usually that of its endpoint
    #[arg(value_name = "NAME", add = CompletionKind::Endpoints.completer())]
    name: String,
    /// Use the key for this endpoint [default: the endpoint called NAME]
    #[arg(long, value_name = "ENDPOINT", add = CompletionKind::Endpoints.completer())]
    endpoint: Option<String>,
    /// Add the key to those of the endpoint instead of replacing them; NAME gets a number if it is taken
    #[arg(long)]
    add: bool,
    /// Store the key in the system keyring instead of a file (needs a build with the `keyring` feature)
    #[arg(long)]
    keyring: bool,
}

/// Remove a stored key
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
      mmchat key remove openai\n  \
      mmchat key remove openai --everywhere")]
struct RemoveArgs {
    /// Name of the key
    #[arg(value_name = "NAME")]
    name: String,
    /// Also remove the key from the endpoints that use it
    #[arg(long)]
    everywhere: bool,
    /// Remove the key from the system keyring instead of its file
    #[arg(long)]
    keyring: bool,
}

pub(crate) fn run(args: &KeyArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        KeyCommand::Set(args) => set(args, context)?,
        KeyCommand::List(args) => list(args, context)?,
        KeyCommand::Remove(args) => remove(args, context)?,
    }
    Ok(Exit::Ok)
}

fn set(args: &SetArgs, context: &Context) -> Result<(), CliError> {
    let name = config_input::validate_name(&args.name)?;
    let config = ConfigTransaction::begin(context)?.config()?;
    let user = match &args.endpoint {
        Some(endpoint) => Some(find_endpoint(&config, endpoint)?.name.clone()),
        None => config.endpoint(&name).map(|endpoint| endpoint.name.clone()),
    };
    let key = read_key(&name)?;
    let change = ConfigTransaction::begin(context)?;
    let config = change.config()?;
    let name = if args.add { unused_key_name(&name, &config, &change, args.keyring) } else { name };
    let place = key_ref(&name, args.keyring);
    if args.keyring {
        update_keyring(&name, Some(&key))?;
    } else {
        change.write_key_file(&name, &key)?;
    }
    write_stderr(&format!("stored key {name} in {}\n", key_location(&place, change.path())));
    match user {
        Some(endpoint) => {
            let before = config.endpoint(&endpoint).map(|known| known.keys.clone()).unwrap_or_default();
            // A key written in the config itself has no other copy, so the old config is saved first.
            let literal = before.iter().any(|key| matches!(key, KeySource::Literal(_)));
            if literal
                && !args.add
                && let Some(backup) = change.back_up()?
            {
                write_stderr(&format!("saved the old config, including its key, as {}\n", backup.display()));
            }
            change.edit(|edit| edit.set_key(&endpoint, &place, args.add))?;
            report_use(&endpoint, &before, args.add);
        }
        None => write_stderr(&format!(
            "  no endpoint uses it yet; add to one: api_key = {{ {} = \"{}\" }}\n",
            place.0, place.1
        )),
    }
    Ok(())
}

/// A key name that is not in use, so that `--add` never replaces an existing key.
fn unused_key_name(name: &str, config: &Config, change: &ConfigTransaction, keyring: bool) -> String {
    let entry = |source: &KeySource| match source {
        KeySource::Keyring(name) => Some(name.clone()),
        _ => None,
    };
    if keyring {
        return unique_name(name, &key_sources(config).filter_map(entry).collect::<Vec<_>>());
    }
    // A key file that no endpoint refers to yet must not be overwritten either.
    let folder = change.path().with_file_name(key_file_path(name));
    let files = folder.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut taken: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    taken.extend(key_file_names(config));
    unique_name(name, &taken)
}

fn report_use(endpoint: &str, before: &[KeySource], beside: bool) {
    let before: Vec<String> = before.iter().map(ToString::to_string).collect();
    write_stderr(&match (before.is_empty(), beside) {
        (true, _) => format!("  endpoint {endpoint} now uses it\n"),
        (false, true) => format!("  endpoint {endpoint} now uses it in addition to: {}\n", before.join(", ")),
        (false, false) => format!("  endpoint {endpoint} now uses it instead of: {}\n", before.join(", ")),
    });
}

fn read_key(name: &str) -> Result<ApiKey, CliError> {
    if !can_prompt() {
        return read_key_from_stdin();
    }
    let key = secret(&format!("Key {name} (not shown)"))?;
    if key.is_empty() {
        Err(CliError::usage("empty key: nothing was stored", "type or paste the key"))
    } else {
        Ok(key)
    }
}

fn key_ref(name: &str, keyring: bool) -> KeyRef {
    if keyring { ("keyring", name.to_owned()) } else { ("file", key_file_path(name)) }
}

fn key_location((kind, place): &KeyRef, config: &Path) -> String {
    match *kind {
        "file" => config.with_file_name(place).display().to_string(),
        _ => format!("the system keyring as {place}"),
    }
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let (config, layers) = context.config(context.layers(Flags::default())?)?;
    let ring = KeyRing::new(context.environment.clone());
    let mut table = Table::new(&["endpoint", ">key", "source", "state"]);
    let mut document = Vec::new();
    for endpoint in &config.endpoints {
        for (number, source) in (1..).zip(&endpoint.keys) {
            let state = ring.check(source).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            table.add_row(vec![endpoint.name.clone(), format!("{number}"), source.to_string(), state.clone()]);
            if state != "ok" {
                table.highlight_last_row();
            }
            document.push(
                json!({"endpoint": endpoint.name, "key": number - 1, "source": source.to_string(), "state": state}),
            );
        }
    }
    for path in unused_key_files(&config, layers.config.value.as_deref()) {
        let shown = path.display().to_string();
        document.push(json!({"endpoint": null, "key": null, "source": format!("file {shown}"), "state": "not used"}));
        table.add_row(vec![String::new(), String::new(), format!("file {shown}"), "not used".into()]);
    }
    if document.is_empty() && args.is_text() {
        write_stderr("no keys configured; run \"mmchat key set NAME\" to store one\n");
    }
    args.print(context, &[table], &document.into())
}

/// Key files that no endpoint refers to.
fn unused_key_files(config: &Config, path: Option<&Path>) -> Vec<PathBuf> {
    let Some(folder) = path.and_then(Path::parent).map(|folder| folder.join("keys")) else { return Vec::new() };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let used =
        |path: &PathBuf| config.endpoints.iter().any(|known| known.keys.contains(&KeySource::File(path.clone())));
    let mut unused: Vec<PathBuf> = files.filter(|path| path.is_file() && !used(path)).collect();
    unused.sort();
    unused
}

fn remove(args: &RemoveArgs, context: &Context) -> Result<(), CliError> {
    let name = config_input::validate_name(&args.name)?;
    let place = key_ref(&name, args.keyring);
    let change = ConfigTransaction::begin(context)?;
    let file = change.path().with_file_name(&place.1);
    if !args.keyring && !file.is_file() {
        return Err(CliError::usage(
            format!("no key \"{name}\": {} does not exist", file.display()),
            "run \"mmchat key list\"",
        ));
    }
    let config = change.config()?;
    let source = if args.keyring { KeySource::Keyring(name.clone()) } else { KeySource::File(file.clone()) };
    let users: Vec<&str> = config
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.keys.contains(&source))
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    if !users.is_empty() && !args.everywhere {
        return Err(CliError::usage(
            format!("key \"{name}\" is used by {}", users.join(", ")),
            "use --everywhere to remove it from the config too",
        ));
    }
    // The config is changed first: an endpoint that refers to a removed key would fail.
    if !users.is_empty() {
        let path = change.path().to_owned();
        change.edit(|edit| {
            let same_file = |written: &str| resolve_config_path(&path, written) == file;
            edit.remove_key_refs(&|kind, written| match kind {
                "file" => !args.keyring && same_file(written),
                kind => kind == place.0 && written == place.1,
            });
            Ok(())
        })?;
    }
    if args.keyring {
        update_keyring(&name, None)?;
    } else {
        std::fs::remove_file(&file)
            .map_err(|source| CliError::System { what: format!("cannot remove {}", file.display()), source })?;
    }
    let from = if users.is_empty() { String::new() } else { format!(", and from {}", users.join(", ")) };
    write_stderr(&format!("removed key {name}{from}\n"));
    for backup in backups_of(&file) {
        write_stderr(&format!("  an older key is still in {}\n", backup.display()));
    }
    Ok(())
}

/// Backups of a key file, made when another key replaced it.
fn backups_of(file: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}.bak", file.file_name().unwrap_or_default().to_string_lossy());
    let files = file.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut backups: Vec<PathBuf> = files
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    backups.sort();
    backups
}

/// Stores a key in the system keyring, or removes it.
fn update_keyring(name: &str, key: Option<&ApiKey>) -> Result<(), CliError> {
    let done = match key {
        Some(key) => crate::transport::keys::keyring::store(name, key),
        None => crate::transport::keys::keyring::delete(name),
    };
    done.map_err(|error| {
        CliError::usage(error.to_string(), "omit --keyring to store it in a file that only you can read")
    })
}
