//! `mmchat config import`: what another tool's configuration names, added to ours.
//!
//! Owns the merging: what is there stays, names that are taken get a number, keys go to files of their own. All of it is
//! written, or nothing.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, Context, change::Change, context::text_of, exit::Exit, request::unknown};
use crate::{
    config::{
        Config,
        draft::key_file,
        edit::{Edit, EditError, KeyPlace, NewEndpoint, NewModel},
        import::{ImportFormat, Imported, ImportedEndpoint, ImportedKey, free},
    },
    secret::ApiKey,
    term::{input, output::say},
};

/// Add what another tool's configuration names: services, models, keys
#[derive(Debug, Args)]
#[command(
    after_help = "Reads Langchain-Chatchat (model_settings.yaml, or ONLINE_LLM_MODEL of model_config.py: read, never run), a\n\
    One-API or new-api list of channels (GET /api/channel/), LiteLLM's and aichat's config.yaml, llm's\n\
    extra-openai-models.yaml, and NAME=VALUE lines such as .env. What does not map is told, with the reason.\n\n\
    mmchat config import ~/chatchat/model_settings.yaml\n\
    env | mmchat config import --from env -"
)]
pub(super) struct ImportArgs {
    /// The file; -: standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Whose it is, if that does not show: langchain-chatchat, langchain-chatchat-python, one-api, litellm, aichat, llm, env
    #[arg(long, value_name = "TOOL")]
    from: Option<String>,
    /// Tell what would be added, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is to be added.
#[derive(Default)]
struct Additions {
    endpoints: Vec<NewEndpoint>,
    models: Vec<NewModel>,
    routes: Vec<(String, Vec<String>, &'static str)>,
    default: Option<String>,
    /// Keys that go to files, by name.
    keys: Vec<(String, ApiKey)>,
    /// What was there already.
    known: Vec<String>,
}

pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<Exit, CliError> {
    let text = read(&args.file)?;
    let format = format(args, &text)?;
    let imported = format.read(&text).map_err(|error| {
        CliError::usage(
            format!("{} cannot be imported: {error}", args.file.display()),
            "nothing was changed; --from says whose it is",
        )
    })?;
    let change = Change::begin(context)?;
    let additions = additions(&imported, &change.config()?);
    let ((), text) = change.edited(|edit| additions.make(edit))?;
    change.check(&text)?;
    if !args.dry_run {
        // A key that nobody names yet does no harm; a config that names a key which is not there does.
        for (name, key) in &additions.keys {
            change.keep_key(name, key)?;
        }
        change.write(&text)?;
    }
    report(&imported, &additions, change.path(), args.dry_run);
    Ok(Exit::Ok)
}

fn read(file: &Path) -> Result<String, CliError> {
    if file.as_os_str() == "-" {
        return String::from_utf8(input::read(None)?)
            .map_err(|_| CliError::usage("standard input is no UTF-8 text", "nothing was changed"));
    }
    let unreadable = |source| CliError::System { what: format!("{} cannot be read", file.display()), source };
    match text_of(file) {
        Ok(text) => Ok(text),
        Err(crate::config::ConfigError::Read { reason, .. }) => Err(unreadable(std::io::Error::other(reason))),
        Err(other) => Err(other.into()),
    }
}

fn format(args: &ImportArgs, text: &str) -> Result<ImportFormat, CliError> {
    let names = ImportFormat::NAMES.map(|(name, _)| name);
    match &args.from {
        Some(wanted) => match ImportFormat::NAMES.iter().find(|(name, _)| name == wanted) {
            Some((_, format)) => Ok(*format),
            None => Err(unknown("tool", wanted, &names)),
        },
        None => ImportFormat::guess(text).ok_or_else(|| {
            CliError::usage(
                format!("{} looks like none of: {}", args.file.display(), names.join(", ")),
                "say --from TOOL",
            )
        }),
    }
}

/// What of `imported` is not in `config` yet, under names that are free there.
fn additions(imported: &Imported, config: &Config) -> Additions {
    let mut additions = Additions::default();
    let mut endpoints: Vec<(String, String)> = Vec::new();
    let mut taken: Vec<String> = config.endpoints.iter().map(|known| known.name.clone()).collect();
    for endpoint in &imported.endpoints {
        let ours = existing(config, endpoint).unwrap_or_else(|| {
            let name = free(&endpoint.name, &taken);
            taken.push(name.clone());
            additions.endpoint(&name, endpoint);
            name
        });
        endpoints.push((endpoint.name.clone(), ours));
    }
    let ours =
        |name: &str| endpoints.iter().find(|(theirs, _)| theirs == name).map_or(name, |(_, ours)| ours).to_owned();
    let mut taken: Vec<String> = config.names().map(str::to_owned).collect();
    let mut renamed: Vec<(String, String)> = Vec::new();
    for model in &imported.models {
        let endpoint = ours(&model.endpoint);
        let known =
            config.models.iter().find(|known| known.endpoint.name == endpoint && known.upstream == model.upstream);
        let name = known.map_or_else(|| free(&model.name, &taken), |known| known.id.0.clone());
        renamed.push((model.name.clone(), name.clone()));
        if known.is_some() {
            additions.known.push(format!("model {name}"));
            continue;
        }
        taken.push(name.clone());
        additions.models.push(NewModel {
            name,
            endpoint,
            upstream: model.upstream.clone(),
            tags: Vec::new(),
            context: model.context,
            price: model.price,
            params: model.params.clone(),
        });
    }
    for route in &imported.routes {
        let named = |name: &String| renamed.iter().find(|(theirs, _)| theirs == name).map(|(_, ours)| ours.clone());
        let models: Vec<String> = route.models.iter().filter_map(named).collect();
        let same = |known: &&crate::config::Route| known.models.iter().map(|model| &model.id.0).eq(models.iter());
        if let Some(known) = config.routes.iter().find(same) {
            additions.known.push(format!("route {}", known.name));
            renamed.push((route.name.clone(), known.name.clone()));
            continue;
        }
        let name = free(&route.name, &taken);
        taken.push(name.clone());
        renamed.push((route.name.clone(), name.clone()));
        additions.routes.push((name, models, route.strategy));
    }
    let named = |wanted: &String| match wanted.split_once('/') {
        Some((endpoint, upstream)) => Some(format!("{}/{upstream}", ours(endpoint))),
        None => renamed.iter().rev().find(|(theirs, _)| theirs == wanted).map(|(_, ours)| ours.clone()),
    };
    additions.default = imported.default.as_ref().filter(|_| config.default.is_none()).and_then(named);
    additions
}

/// An endpoint of ours at the same address, which has a key or is brought none.
fn existing(config: &Config, endpoint: &ImportedEndpoint) -> Option<String> {
    let url = crate::config::base_url(&endpoint.base_url).ok()?;
    let same = |known: &str| known.trim_end_matches('/') == url.as_str().trim_end_matches('/');
    let known = config.endpoints.iter().find(|known| same(known.base_url.as_str()))?;
    (endpoint.keys.is_empty() || !known.keys.is_empty()).then(|| known.name.clone())
}

impl Additions {
    fn endpoint(&mut self, name: &str, endpoint: &ImportedEndpoint) {
        let mut keys: Vec<KeyPlace> = Vec::new();
        for (number, key) in (1..).zip(&endpoint.keys) {
            keys.push(match key {
                ImportedKey::Env(variable) => ("env", variable.clone()),
                ImportedKey::Literal(key) => {
                    let file = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
                    self.keys.push((file.clone(), key.clone()));
                    ("file", key_file(&file))
                }
            });
        }
        let base_url = Some(endpoint.base_url.clone());
        self.endpoints.push(NewEndpoint { name: name.to_owned(), base_url, keys, gateway: endpoint.gateway });
    }

    fn make(&self, edit: &mut Edit) -> Result<(), EditError> {
        self.endpoints.iter().try_for_each(|endpoint| edit.add_endpoint(endpoint))?;
        self.models.iter().try_for_each(|model| edit.add_model(model))?;
        for (name, models, strategy) in &self.routes {
            edit.add_route(name, models, Some(*strategy).filter(|strategy| *strategy != "priority"))?;
        }
        if let Some(default) = &self.default {
            edit.set_default(default);
        }
        Ok(())
    }
}

fn report(imported: &Imported, additions: &Additions, path: &Path, dry_run: bool) {
    let verb = if dry_run { "would add" } else { "added" };
    for NewEndpoint { name, base_url, keys, .. } in &additions.endpoints {
        let keys: Vec<String> = keys.iter().map(|(kind, place)| format!("{kind} {place}")).collect();
        let keys = if keys.is_empty() { "no key".to_owned() } else { keys.join(", ") };
        let address = base_url.as_deref().and_then(|url| crate::config::base_url(url).ok());
        let address = address.map(|url| crate::secret::masked_url(&url)).unwrap_or_default();
        say(&format!("{verb} endpoint {name}: {address} ({keys})\n"));
    }
    for model in &additions.models {
        say(&format!("{verb} model {}: {}/{}\n", model.name, model.endpoint, model.upstream));
    }
    for (name, models, strategy) in &additions.routes {
        say(&format!("{verb} route {name} ({strategy}): {}\n", models.join(", ")));
    }
    if let Some(default) = &additions.default {
        say(&format!("{verb} default: {default}\n"));
    }
    for known in &additions.known {
        say(&format!("{known} is there already\n"));
    }
    for left_out in &imported.left_out {
        say(&format!("left out: {}: {}\n", left_out.what, left_out.why));
    }
    let sums = format!(
        "{} endpoint(s), {} model(s), {} route(s), {} key file(s); {} left out",
        additions.endpoints.len(),
        additions.models.len(),
        additions.routes.len(),
        additions.keys.len(),
        imported.left_out.len()
    );
    say(&if dry_run {
        format!("{sums}; nothing was written\n")
    } else {
        format!("{sums}; written to {}\n", path.display())
    });
}
