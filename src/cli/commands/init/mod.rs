//! `mmchat init`: a first config, from what is there.
//!
//! Owns the order of things: look around, ask (or take the flags), try, write. Nothing of the config is written before
//! the end, so an interruption at any question leaves everything as it was.

use std::time::Duration;

use clap::Args;

mod default_models;
mod detection;
pub(crate) mod questions;

use detection::{Found, Seen};

use super::ping::{one_token_of, outcomes, state};
use crate::cli::{
    CliError, Context,
    support::{
        config_input,
        config_transaction::{Change, config_path},
        exit::Exit,
        recording::{KeepArgs, Keeper},
    },
};
use crate::{
    config::{
        self,
        template::{Draft, DraftEndpoint, DraftKey},
    },
    render::{notice::reason, table::Table},
    store::{self, record::GoesOn},
    term::{
        output::say,
        prompt::{can_ask, choose_several, confirm},
    },
};

/// How long a service may take to say what models it has.
const LIST: Duration = Duration::from_secs(10);
/// How long a model may take for one token.
const TRY: Duration = Duration::from_secs(60);

/// Make a first config: find keys and servers, choose models, try them
#[derive(Debug, Args)]
#[command(
    after_help = "At a terminal you are asked what the flags leave open. Without one, or with --yes, what is found is taken.\n\
    Keys are never printed, and never written into the config.\n\n\
    mmchat init\n\
    mmchat init --yes --fast openai/gpt-4o-mini --strong deepseek/deepseek-reasoner\n\
    mmchat init --yes --no-discover --endpoint box=http://gpu-box:8000/v1 --key-env box=BOX_KEY --fast box/qwen3"
)]
pub(crate) struct InitArgs {
    /// Ask nothing: take what is found and what the flags say
    #[arg(short, long)]
    yes: bool,
    /// A service: its name, or NAME=URL
    #[arg(long = "endpoint", value_name = "NAME[=URL]")]
    endpoints: Vec<String>,
    /// The variable that holds an endpoint's key
    #[arg(long = "key-env", value_name = "NAME=VARIABLE")]
    key_env: Vec<String>,
    /// The file that holds an endpoint's key
    #[arg(long = "key-file", value_name = "NAME=FILE")]
    key_files: Vec<String>,
    /// What you call fast: the route `chat` asks it first
    #[arg(long, value_name = "ENDPOINT/ID")]
    fast: Option<String>,
    /// What you call strong: the route `analysis` asks it first
    #[arg(long, value_name = "ENDPOINT/ID")]
    strong: Option<String>,
    /// What you call cheap: the route `simple` asks it first
    #[arg(long, value_name = "ENDPOINT/ID")]
    cheap: Option<String>,
    /// Whom else to compare with
    #[arg(long, value_name = "ENDPOINT/ID", value_delimiter = ',')]
    also: Vec<String>,
    /// Look for no keys in the environment and no servers on this machine
    #[arg(long)]
    no_discover: bool,
    /// Do not ask each model for a token
    #[arg(long)]
    no_try: bool,
    /// Replace a config that is there; the old one is kept beside it
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &InitArgs, context: &Context) -> Result<Exit, CliError> {
    let path = config_path(context)?;
    // Told before anything is asked.
    store::check_writable(&path)
        .map_err(|source| CliError::System { what: format!("{} cannot be written", path.display()), source })?;
    let asks = can_ask() && !args.yes;
    if path.exists() && !args.force && !asks {
        return Err(CliError::usage(
            format!("{} is there already", path.display()),
            "--force replaces it (the old one is kept); mmchat endpoint add and model add change it",
        ));
    }
    if !asks && !args.yes && args.fast.is_none() {
        return Err(CliError::usage(
            "there is no terminal to ask at",
            "--yes takes what is found; or say it with --endpoint, --key-env, --fast, --strong, --cheap",
        ));
    }
    let _restored = if asks { Some(questions::Restored::when_interrupted()?) } else { None };
    if asks && path.exists() && !args.force {
        let question = format!("{} is there already. Replace it (the old one is kept as .bak)", path.display());
        if !confirm(&question, false)? {
            say("nothing was changed\n");
            return Ok(Exit::Ok);
        }
    }
    let found = gather(args, context, asks)?;
    let draft = default_models::draft(args, found, asks)?;
    let tried = if args.no_try { Exit::Ok } else { try_models(&draft, context)? };
    if tried != Exit::Ok && asks && !confirm("Some failed. Write the config all the same", true)? {
        say("nothing was changed\n");
        return Ok(tried);
    }
    write(&draft, context)?;
    Ok(tried)
}

/// The services to be used, each with the models it lists.
fn gather(args: &InitArgs, context: &Context, asks: bool) -> Result<Vec<Found>, CliError> {
    let named = named_endpoints(args, context)?;
    let runtime = context.runtime()?;
    let mut candidates = named.clone();
    if !args.no_discover {
        say("looking for keys in the environment and servers on this machine …\n");
        let new = |endpoint: &DraftEndpoint| !named.iter().any(|known| known.name == endpoint.name);
        candidates.extend(detection::candidates(&context.environment)?.into_iter().filter(new));
    }
    let mut found = runtime.block_on(detection::list(context, candidates, LIST))?;
    let is_named = |found: &Found| named.iter().any(|endpoint| endpoint.name == found.endpoint.name);
    // A guess at what may run here that does not answer is not worth a word.
    found.retain(|found| is_named(found) || found.seen() != Seen::Nobody || !found.is_guess());
    for found in &found {
        say(&format!("  {}\n", found.line()));
    }
    let useful = |found: &Found| is_named(found) || found.seen() == Seen::Models;
    if !asks {
        found.retain(useful);
        if found.is_empty() {
            return Err(CliError::usage(
                "no key and no server was found",
                "set a key such as OPENAI_API_KEY (mmchat vendors lists them), or name a service with --endpoint NAME=URL",
            ));
        }
        return Ok(found);
    }
    if !found.is_empty() {
        let lines: Vec<String> = found.iter().map(Found::line).collect();
        let chosen: Vec<bool> = found.iter().map(useful).collect();
        let kept = choose_several("Which of these (space chooses, enter goes on)", &lines, &chosen)?;
        let mut index = 0..;
        found.retain(|_| index.next().is_some_and(|index| kept.contains(&index)));
    }
    while confirm("Add another service", found.is_empty())? {
        let taken: Vec<&str> = found.iter().map(|found| found.endpoint.name.as_str()).collect();
        let endpoint = questions::endpoint(&context.environment, &taken)?;
        let listed = runtime.block_on(detection::list(context, vec![endpoint], LIST))?;
        for new in listed {
            say(&format!("  {}\n", new.line()));
            if new.seen() == Seen::Models || confirm("It gives no list of models. Keep it all the same", true)? {
                found.push(new);
            }
        }
    }
    if found.is_empty() {
        return Err(CliError::usage("there is nobody to ask", "mmchat demo shows what it would be like"));
    }
    Ok(found)
}

/// The services of the flags.
fn named_endpoints(args: &InitArgs, context: &Context) -> Result<Vec<DraftEndpoint>, CliError> {
    let pairs = |flag: &str, values: &[String]| -> Result<Vec<(String, String)>, CliError> {
        let pair = |text: &String| {
            let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            pair.ok_or_else(|| CliError::usage(format!("a value of {flag} has no `=`"), format!("write {flag} NAME=…")))
        };
        values.iter().map(pair).collect()
    };
    let (variables, files) = (pairs("--key-env", &args.key_env)?, pairs("--key-file", &args.key_files)?);
    let mut endpoints = Vec::<DraftEndpoint>::new();
    for text in &args.endpoints {
        let (name, url) = text.split_once('=').map_or((text.as_str(), None), |(name, url)| (name, Some(url)));
        let own = |pairs: &[(String, String)]| pairs.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone());
        let key = match (own(&variables), own(&files)) {
            (Some(variable), _) => Some(config_input::key_in(&variable)?),
            (None, Some(file)) => Some(DraftKey::File(std::path::absolute(file)?.display().to_string())),
            (None, None) => None,
        };
        endpoints.push(config_input::endpoint(name, url, key, &context.environment)?);
    }
    if let Some((name, _)) = variables.iter().chain(&files).find(|(name, _)| !endpoints.iter().any(|e| e.name == *name))
    {
        return Err(CliError::usage(
            format!("there is a key for `{name}` but no such endpoint"),
            format!("add --endpoint {name}"),
        ));
    }
    Ok(endpoints)
}

/// Asks every model for one token. The code for what came of it.
fn try_models(draft: &Draft, context: &Context) -> Result<Exit, CliError> {
    let config = config::resolve(&draft.text(true), &config_path(context)?)?;
    say(&format!(
        "trying {} …\n",
        config.models.iter().map(|model| model.id.0.as_str()).collect::<Vec<_>>().join(", ")
    ));
    let (engine, plan) = (context.engine(), one_token_of(&config.models, TRY));
    // It is billed, and on the record as every call is.
    let mut keeper = Keeper::new(context, &config, &engine, "init", (&KeepArgs::wordless(), &plan, GoesOn::Anew));
    let outcomes = context.runtime()?.block_on(outcomes(&engine, plan, |event| keeper.event(event)));
    keeper.close();
    let mut table = Table::new(&["model", "endpoint/id", "state", ">TTFT", "note"]);
    for (model, outcome) in config.models.iter().zip(&outcomes) {
        let ttft = outcome.ttft.map(crate::render::notice::duration).unwrap_or_default();
        let (state, note) = (state(outcome), outcome.result.as_ref().err().map(reason).unwrap_or_default());
        let id = format!("{}/{}", model.endpoint.name, model.upstream);
        table.row(vec![model.id.0.clone(), id, state, ttft, note]);
    }
    say(&table.text(context.look(&context.layers(config::Flags::default())?).out_width, false));
    Ok(Exit::of_lanes(outcomes.iter()))
}

/// Writes keys that were typed, and the config. The old one is kept.
fn write(draft: &Draft, context: &Context) -> Result<(), CliError> {
    let change = Change::begin(context)?;
    let text = draft.text(false);
    let kept = change.keep_old()?;
    for endpoint in &draft.endpoints {
        if let DraftKey::Typed(key) = &endpoint.key {
            change.keep_key(&endpoint.name, key)?;
        }
    }
    change.write(&text)?;
    if let Some(kept) = kept {
        say(&format!("the old config is kept as {}\n", kept.display()));
    }
    say(&format!(
        "wrote {}\n\n  mmchat ask \"hello\"            the route chat\n  mmchat compare --all \"hello\"  everybody at once\n  \
         mmchat models                 what there is\n",
        change.path().display()
    ));
    Ok(())
}
