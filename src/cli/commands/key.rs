//! `mmchat key`: keys outside the config, each in a file that only its owner can read, or in the system's keyring.
//!
//! Owns putting them there and telling endpoints where they are. A key comes from a prompt that shows nothing or from
//! standard input, never from an argument, and is never printed.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    endpoint::key_on_stdin,
    import::{key_files, sources},
    models::named_endpoint,
};
use crate::cli::{
    CliError, Context,
    support::{complete::Offer, config_input, config_transaction::Change, exit::Exit, list_format::ListArgs},
};
use crate::{
    config::{Config, Flags, edit::KeyPlace, path_of, template::key_file},
    import::free,
    model::api_key::{ApiKey, KeySource},
    render::table::Table,
    term::{
        output::say,
        prompt::{can_ask, secret},
    },
    transport::keys::KeyRing,
};

/// Keys outside the config: set, list, remove
#[derive(Debug, Args)]
#[command(after_help = "mmchat key set openai\n\
    pass show openai | mmchat key set openai\n\
    mmchat key set openai-2 --endpoint openai --add")]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    Set(SetArgs),
    /// List them, and who uses them; none is shown
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Keep a key, typed at a prompt or read from standard input; the endpoint of that name uses it
#[derive(Debug, Args)]
struct SetArgs {
    /// Its name
    #[arg(value_name = "NAME", add = Offer::Endpoints.completer())]
    name: String,
    /// The endpoint that uses it, if it is called something else
    #[arg(long, value_name = "ENDPOINT", add = Offer::Endpoints.completer())]
    endpoint: Option<String>,
    /// Beside the keys the endpoint has, which are used in turn; not in their place. It gets a number if there is a key NAME
    #[arg(long)]
    add: bool,
    /// In the system's keyring, not in a file; only in a build with the feature `keyring`
    #[arg(long)]
    keyring: bool,
}

/// Remove a key
#[derive(Debug, Args)]
struct RemoveArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// Also from the endpoints that use it
    #[arg(long)]
    everywhere: bool,
    /// From the system's keyring, not from its file
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
    let name = config_input::new_name(&args.name)?;
    let config = Change::begin(context)?.config()?;
    let user = match &args.endpoint {
        Some(endpoint) => Some(named_endpoint(&config, endpoint)?.name.clone()),
        None => config.endpoint(&name).map(|endpoint| endpoint.name.clone()),
    };
    let key = read(&name)?;
    let change = Change::begin(context)?;
    let config = change.config()?;
    let name = if args.add { beside(&name, &config, &change, args.keyring) } else { name };
    let place = place(&name, args.keyring);
    if args.keyring {
        in_keyring(&name, Some(&key))?;
    } else {
        change.keep_key(&name, &key)?;
    }
    say(&format!("kept the key {name} in {}\n", shown(&place, change.path())));
    match user {
        Some(endpoint) => {
            let before = config.endpoint(&endpoint).map(|known| known.keys.clone()).unwrap_or_default();
            // A key that stands in the config itself stands nowhere else.
            let literal = before.iter().any(|key| matches!(key, KeySource::Literal(_)));
            if literal
                && !args.add
                && let Some(kept) = change.keep_old()?
            {
                say(&format!("the old config, with its key, is kept as {}\n", kept.display()));
            }
            change.edit(|edit| edit.set_key(&endpoint, &place, args.add))?;
            tell_use(&endpoint, &before, args.add);
        }
        None => say(&format!("  no endpoint uses it yet: api_key = {{ {} = \"{}\" }}\n", place.0, place.1)),
    }
    Ok(())
}

/// A name for a key that takes no other's place: what `--add` adds is not one of those there are.
fn beside(name: &str, config: &Config, change: &Change, keyring: bool) -> String {
    let entry = |source: &KeySource| match source {
        KeySource::Keyring(name) => Some(name.clone()),
        _ => None,
    };
    if keyring {
        return free(name, &sources(config).filter_map(entry).collect::<Vec<_>>());
    }
    // A file that nobody uses yet is somebody's key, too.
    let folder = change.path().with_file_name(key_file(name));
    let files = folder.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut taken: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    taken.extend(key_files(config));
    free(name, &taken)
}

fn tell_use(endpoint: &str, before: &[KeySource], beside: bool) {
    let before: Vec<String> = before.iter().map(ToString::to_string).collect();
    say(&match (before.is_empty(), beside) {
        (true, _) => format!("  {endpoint} uses it now\n"),
        (false, true) => format!("  {endpoint} uses it beside: {}\n", before.join(", ")),
        (false, false) => format!("  {endpoint} uses it now, in place of: {}\n", before.join(", ")),
    });
}

fn read(name: &str) -> Result<ApiKey, CliError> {
    if !can_ask() {
        return key_on_stdin();
    }
    let key = secret(&format!("The key {name} (it is not shown)"))?;
    if key.is_empty() { Err(CliError::usage("that is no key", "nothing was kept")) } else { Ok(key) }
}

fn place(name: &str, keyring: bool) -> KeyPlace {
    if keyring { ("keyring", name.to_owned()) } else { ("file", key_file(name)) }
}

fn shown((kind, place): &KeyPlace, config: &Path) -> String {
    match *kind {
        "file" => config.with_file_name(place).display().to_string(),
        _ => format!("the system's keyring, as {place}"),
    }
}

fn list(args: &ListArgs, context: &Context) -> Result<(), CliError> {
    let (config, layers) = context.config(context.layers(Flags::default())?)?;
    let ring = KeyRing::new(context.environment.clone());
    let mut table = Table::new(&["endpoint", ">key", "where", "state"]);
    let mut document = Vec::new();
    for endpoint in &config.endpoints {
        for (number, source) in (1..).zip(&endpoint.keys) {
            let state = ring.glance(source).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
            table.row(vec![endpoint.name.clone(), format!("{number}"), source.to_string(), state.clone()]);
            if state != "ok" {
                table.mark_bad();
            }
            document.push(
                json!({"endpoint": endpoint.name, "key": number - 1, "source": source.to_string(), "state": state}),
            );
        }
    }
    for path in unused(&config, layers.config.value.as_deref()) {
        let shown = path.display().to_string();
        document.push(json!({"endpoint": null, "key": null, "source": format!("file {shown}"), "state": "not used"}));
        table.row(vec![String::new(), String::new(), format!("file {shown}"), "not used".into()]);
    }
    if document.is_empty() && args.is_text() {
        say("there are none; mmchat key set NAME keeps one\n");
    }
    args.print(context, &[table], &document.into())
}

/// Files of keys that no endpoint names.
fn unused(config: &Config, path: Option<&Path>) -> Vec<PathBuf> {
    let Some(folder) = path.and_then(Path::parent).map(|folder| folder.join("keys")) else { return Vec::new() };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let used =
        |path: &PathBuf| config.endpoints.iter().any(|known| known.keys.contains(&KeySource::File(path.clone())));
    let mut unused: Vec<PathBuf> = files.filter(|path| path.is_file() && !used(path)).collect();
    unused.sort();
    unused
}

fn remove(args: &RemoveArgs, context: &Context) -> Result<(), CliError> {
    let name = config_input::new_name(&args.name)?;
    let place = place(&name, args.keyring);
    let change = Change::begin(context)?;
    let file = change.path().with_file_name(&place.1);
    if !args.keyring && !file.is_file() {
        return Err(CliError::usage(
            format!("there is no key {name}: {} is no file", file.display()),
            "mmchat key list",
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
            format!("the key {name} is used by {}", users.join(", ")),
            "--everywhere takes it out of the config, too",
        ));
    }
    // The config first: a key that is gone leaves an endpoint that fails.
    if !users.is_empty() {
        let path = change.path().to_owned();
        change.edit(|edit| {
            let same_file = |written: &str| path_of(&path, written) == file;
            edit.forget_key(&|kind, written| match kind {
                "file" => !args.keyring && same_file(written),
                kind => kind == place.0 && written == place.1,
            });
            Ok(())
        })?;
    }
    if args.keyring {
        in_keyring(&name, None)?;
    } else {
        std::fs::remove_file(&file)
            .map_err(|source| CliError::System { what: format!("{} cannot be removed", file.display()), source })?;
    }
    let from = if users.is_empty() { String::new() } else { format!(", and from {}", users.join(", ")) };
    say(&format!("removed the key {name}{from}\n"));
    for kept in kept_beside(&file) {
        say(&format!("  an older one is still in {}\n", kept.display()));
    }
    Ok(())
}

/// What was kept of a key's file when another key took its place.
fn kept_beside(file: &Path) -> Vec<PathBuf> {
    let begins = format!("{}.bak", file.file_name().unwrap_or_default().to_string_lossy());
    let files = file.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut kept: Vec<PathBuf> = files
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins))
        .map(|entry| entry.path())
        .collect();
    kept.sort();
    kept
}

/// Puts a key into the system's keyring, or takes it out.
fn in_keyring(name: &str, key: Option<&ApiKey>) -> Result<(), CliError> {
    let done = match key {
        Some(key) => crate::transport::keys::keyring::keep(name, key),
        None => crate::transport::keys::keyring::remove(name),
    };
    done.map_err(|error| {
        CliError::usage(error.to_string(), "without --keyring it is kept in a file that only you can read")
    })
}
