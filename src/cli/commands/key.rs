//! `mmchat key`: stores, lists and removes keys outside the config.
//!
//! A key is stored in a file that only its owner can read, or in the system keyring, and the config refers to it. Keys
//! come from a prompt without echo or from standard input, never from an argument, and are never printed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{endpoint::read_key_from_stdin, models::find_endpoint};
use crate::cli::{
    CliError, Context,
    support::{
        completion::CompletionKind,
        config_input,
        config_transaction::ConfigTransaction,
        exit::Exit,
        key_uses::{KeyUse, KeyUser, is_same_file_entry, is_same_source, key_file_names, key_uses, unused_key_file},
        list_format::ListArgs,
        terminal_guard::TerminalGuard,
    },
};
use crate::{
    config::{Config, Flags, Names, edit::KeyRef, resolve_config_path, template::key_file_path, unique_name},
    model::{
        api_key::{ApiKey, KeySource},
        endpoint::Endpoint,
    },
    render::table::Table,
    term::{
        output::write_stderr,
        prompt::{can_prompt, secret},
    },
    transport::keys::{KeyError, KeyRing, keyring},
};

/// Store, list or remove API keys outside the config
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
    /// List the keys of each endpoint, where they are stored, and whether they can be read; key commands are not run
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
    let name = config_input::validate_name(crate::config::NameKind::Other, &args.name)?;
    let config = ConfigTransaction::begin(context)?.config()?;
    let endpoint_name = match &args.endpoint {
        Some(endpoint) => Some(find_endpoint(&config, endpoint)?.name.clone()),
        None => config.endpoint(&name).map(|endpoint| endpoint.name.clone()),
    };
    let transaction = ConfigTransaction::begin(context)?;
    let own_names = transaction.own_names();
    // The system's file may refer to a key of each user, but only its administrator can change it.
    let is_in_use = !args.add && is_used(&config, &key_ref(&name, args.keyring), transaction.path());
    let endpoint_name =
        endpoint_name.filter(|name| args.endpoint.is_some() || own_names.contains("endpoint", name) || !is_in_use);
    if let Some(endpoint) = &endpoint_name {
        // Checked before the key is stored, so that a rejected edit leaves no key behind.
        transaction.prepare(|editor| editor.set_key(endpoint, &key_ref(&name, args.keyring), args.add))?;
    }
    drop(transaction);
    let key = read_key(&name)?;
    let transaction = ConfigTransaction::begin(context)?;
    let config = transaction.config()?;
    let endpoint = endpoint_name.as_deref().and_then(|endpoint| config.endpoint(endpoint));
    if args.add
        && let Some((endpoint, source)) = endpoint.and_then(|endpoint| Some((endpoint, source_with(endpoint, &key)?)))
    {
        write_stderr(&format!("endpoint \"{}\" already uses this key: {source}\n", endpoint.name));
        return Ok(());
    }
    let name = if args.add { unused_key_name(&name, &key, &config, &transaction, args.keyring) } else { name };
    let reference = key_ref(&name, args.keyring);
    if args.keyring {
        update_keyring(&name, Some(&key))?;
    } else {
        transaction.write_key_file(&name, &key)?;
    }
    write_stderr(&format!("stored key \"{name}\" in {}\n", key_location(&reference, transaction.path())));
    match endpoint_name {
        Some(endpoint) => use_key(&endpoint, &reference, args.add, transaction, &config)?,
        None if is_used(&config, &reference, transaction.path()) => {}
        None => write_stderr(&format!(
            "  no endpoint uses it yet; add to one: api_key = {{ {} = \"{}\" }}\n",
            reference.0, reference.1
        )),
    }
    Ok(())
}

/// The source of the endpoint's key that is equal to `key`, as far as it is known without running a command or asking for
/// access to the keyring.
fn source_with<'a>(endpoint: &'a Endpoint, key: &ApiKey) -> Option<&'a KeySource> {
    endpoint.keys.iter().find(|source| match *source {
        KeySource::Literal(literal) => literal == key,
        // Reading a pipe would block.
        KeySource::File(path) if path.is_file() => {
            std::fs::read_to_string(path).is_ok_and(|text| ApiKey::new(&text) == *key)
        }
        _ => false,
    })
}

/// Changes an endpoint to use a stored key, and prints the change.
fn use_key(
    endpoint: &str,
    reference: &KeyRef,
    add: bool,
    transaction: ConfigTransaction,
    config: &Config,
) -> Result<(), CliError> {
    let mut old_keys = config.endpoint(endpoint).map(|endpoint| endpoint.keys.clone()).unwrap_or_default();
    // A key written in the config itself has no other copy, so the old config is saved first.
    let has_literal = old_keys.iter().any(|key| matches!(key, KeySource::Literal(_)));
    if has_literal
        && !add
        && let Some(backup) = transaction.back_up()?
    {
        write_stderr(&format!("saved the old config, including its key, as {}\n", backup.display()));
    }
    let source = key_source(reference, transaction.path());
    old_keys.retain(|key| !is_same_source(key, &source));
    transaction.edit(|editor| editor.set_key(endpoint, reference, add))?;
    report_use(endpoint, &old_keys, add);
    Ok(())
}

/// A key name that is not in use, so that `--add` never replaces an existing key.
fn unused_key_name(
    name: &str,
    key: &ApiKey,
    config: &Config,
    transaction: &ConfigTransaction,
    keyring: bool,
) -> String {
    let keyring_name = |key: KeyUse| match key.source {
        KeySource::Keyring(name) => Some(name.clone()),
        _ => None,
    };
    if keyring {
        return unique_name(name, &key_uses(config).filter_map(keyring_name).collect::<Vec<_>>());
    }
    unused_key_file(name, &key_file_names(config), transaction.path(), key)
}

fn report_use(endpoint: &str, old_keys: &[KeySource], added: bool) {
    let old_keys: Vec<String> = old_keys.iter().map(ToString::to_string).collect();
    write_stderr(&match (old_keys.is_empty(), added) {
        (true, _) => format!("  endpoint \"{endpoint}\" now uses it\n"),
        (false, true) => format!("  endpoint \"{endpoint}\" now uses it in addition to: {}\n", old_keys.join(", ")),
        (false, false) => format!("  endpoint \"{endpoint}\" now uses it instead of: {}\n", old_keys.join(", ")),
    });
}

fn read_key(name: &str) -> Result<ApiKey, CliError> {
    if !can_prompt() {
        return read_key_from_stdin();
    }
    let _guard = TerminalGuard::install()?;
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

fn key_location((kind, value): &KeyRef, config: &Path) -> String {
    match *kind {
        "file" => config.with_file_name(value).display().to_string(),
        _ => format!("the system keyring as {value}"),
    }
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let (config, settings) = context.config(context.settings(Flags::default())?)?;
    let ring = KeyRing::new(context.environment.clone());
    let mut table = Table::new(&["endpoint", "key", "source", "state"]);
    let mut document = Vec::new();
    for KeyUse { user, source } in key_uses(&config) {
        let checked = check_key(&ring, source);
        let state = checked.as_ref().map_or_else(ToString::to_string, |state| (*state).to_owned());
        let (endpoint, key, mut entry) = match user {
            KeyUser::Endpoint { endpoint, index } => {
                (endpoint, (index + 1).to_string(), json!({"endpoint": endpoint, "key": index}))
            }
            KeyUser::Header { endpoint, header } => {
                (endpoint, header.to_owned(), json!({"endpoint": endpoint, "key": null, "header": header}))
            }
            KeyUser::Client(name) => {
                ("", format!("serve.keys.{name}"), json!({"endpoint": null, "key": null, "client": name}))
            }
        };
        entry["source"] = source.to_string().into();
        entry["state"] = state.clone().into();
        document.push(entry);
        table.add_row(vec![endpoint.to_owned(), key, source.to_string(), state]);
        if checked.is_err() {
            table.highlight_last_row();
        }
    }
    for path in unused_key_files(&config, settings.config.value.as_deref()) {
        let source = format!("file {}", path.display());
        document.push(json!({"endpoint": null, "key": null, "source": source, "state": "not used"}));
        table.add_row(vec![String::new(), String::new(), source, "not used".into()]);
    }
    if document.is_empty() && args.is_text() {
        write_stderr("no keys configured; run \"mmchat key set NAME\" to store one\n");
    }
    args.print(context, &[table], &document.into())
}

/// The state of a key, as far as it is known without running a command or asking for access to the keyring.
fn check_key(ring: &KeyRing, source: &KeySource) -> Result<&'static str, KeyError> {
    ring.check(source)?;
    Ok(match source {
        KeySource::Command(_) | KeySource::Shell(_) => "not run",
        KeySource::Keyring(_) => "not read",
        KeySource::Env(_) | KeySource::File(_) | KeySource::Literal(_) => "ok",
    })
}

/// The key files that the config does not refer to.
fn unused_key_files(config: &Config, path: Option<&Path>) -> Vec<PathBuf> {
    let Some(folder) = path.and_then(Path::parent).map(|folder| folder.join("keys")) else { return Vec::new() };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_used = |path: &Path| {
        let source = KeySource::File(path.to_owned());
        key_uses(config).any(|key| is_same_source(key.source, &source))
    };
    let mut unused: Vec<PathBuf> = files.filter(|path| path.is_file() && !is_used(path)).collect();
    unused.sort();
    unused
}

fn remove(args: &RemoveArgs, context: &Context) -> Result<(), CliError> {
    let name = config_input::validate_name(crate::config::NameKind::Other, &args.name)?;
    let reference = key_ref(&name, args.keyring);
    let transaction = ConfigTransaction::begin(context)?;
    let file = transaction.path().with_file_name(&reference.1);
    let config = transaction.config()?;
    let is_stored = args.keyring || file.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
    let is_removed = |source: &KeySource| match source {
        KeySource::File(path) => !args.keyring && is_same_file_entry(path, &file),
        KeySource::Keyring(entry) => args.keyring && *entry == name,
        _ => false,
    };
    // References to a key file that is missing can be removed, too.
    let own_names = transaction.own_names();
    let has_references = key_uses(&config).any(|key| is_removed(key.source) && is_own_endpoint(&key.user, &own_names));
    let is_removable = is_stored || args.everywhere && has_references;
    if !is_removable {
        let problem = if file.is_dir() { "is a folder" } else { "does not exist" };
        return Err(CliError::usage(
            format!("no key \"{name}\": {} {problem}", file.display()),
            "run \"mmchat key list\"",
        ));
    }
    let users = removable_uses(args, &name, &is_removed, &config, &own_names)?;
    // The config is changed first: an endpoint that refers to a removed key would fail.
    if !users.is_empty() {
        let path = transaction.path().to_owned();
        transaction.edit(|editor| {
            editor.remove_key_refs(&|kind, value| match kind {
                "file" => is_removed(&KeySource::File(resolve_config_path(&path, value))),
                "keyring" => is_removed(&KeySource::Keyring(value.to_owned())),
                _ => false,
            });
            Ok(())
        })?;
    }
    if args.keyring {
        update_keyring(&name, None)?;
    } else if is_stored {
        std::fs::remove_file(&file)
            .map_err(|source| CliError::System { what: format!("cannot remove {}", file.display()), source })?;
    }
    let users = users.join(", ");
    write_stderr(&match (is_stored, users.is_empty()) {
        (true, true) => format!("removed key \"{name}\"\n"),
        (true, false) => format!("removed key \"{name}\", and from {users}\n"),
        (false, _) => format!("removed key \"{name}\" from {users}; it has no key file\n"),
    });
    for backup in backups_of(&file) {
        write_stderr(&format!("  an older key is still in {}\n", backup.display()));
    }
    Ok(())
}

/// The users of a key that can be edited, without duplicates. Warns of the others.
fn removable_uses(
    args: &RemoveArgs,
    name: &str,
    is_removed: &dyn Fn(&KeySource) -> bool,
    config: &Config,
    own_names: &Names,
) -> Result<Vec<String>, CliError> {
    let users = key_uses(config).filter(|key| is_removed(key.source)).map(|key| key.user);
    let (users, other_users): (Vec<KeyUser>, Vec<KeyUser>) = users.partition(|user| is_own_endpoint(user, own_names));
    // Neither headers, client keys nor endpoints of the system's file are changed.
    for user in &other_users {
        if !args.everywhere {
            return Err(CliError::usage(
                format!("{user} uses key \"{name}\""),
                "change the config first, or use --everywhere to remove the key anyway",
            ));
        }
        write_stderr(&format!("warning: {user} uses key \"{name}\", and will fail without it\n"));
    }
    let mut users: Vec<String> = users.iter().map(ToString::to_string).collect();
    users.dedup();
    if !users.is_empty() && !args.everywhere {
        return Err(CliError::usage(
            format!("key \"{name}\" is used by {}", users.join(", ")),
            "use --everywhere to remove it from the config too",
        ));
    }
    Ok(users)
}

/// Whether this is an endpoint of the user's file, whose keys can be edited.
fn is_own_endpoint(user: &KeyUser, own_names: &Names) -> bool {
    matches!(user, KeyUser::Endpoint { endpoint, .. } if own_names.contains("endpoint", endpoint))
}

/// Whether the config refers to this key.
fn is_used(config: &Config, reference: &KeyRef, config_path: &Path) -> bool {
    let source = key_source(reference, config_path);
    key_uses(config).any(|key| is_same_source(key.source, &source))
}

fn key_source(reference: &KeyRef, config_path: &Path) -> KeySource {
    match reference.0 {
        "keyring" => KeySource::Keyring(reference.1.clone()),
        _ => KeySource::File(resolve_config_path(config_path, &reference.1)),
    }
}

/// The backups of a key file, which are made when another key replaces it.
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
    if let Some(key) = key {
        let hint = "omit --keyring to store it in a file that only you can read";
        return keyring::store(name, key).map_err(|error| CliError::usage(error.to_string(), hint));
    }
    let other_build = if cfg!(feature = "keyring") { "" } else { "use a build with the feature \"keyring\", or " };
    let hint = format!("{other_build}remove the entry \"{name}\" with your system's keyring tool");
    keyring::delete(name).map_err(|error| CliError::usage(error.to_string(), hint))
}
