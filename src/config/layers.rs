//! The layers of a configuration: the system's file, the user's file and the environment; later ones win.
//!
//! A named entry of the user's file replaces the complete entry of the system's file with the same name, so that a key
//! never reaches the address of another layer. All other keys are replaced one by one.

use std::path::Path;

use super::{
    Config, ConfigError,
    file::{ConfigFile, ServeEntry, SpendEntry},
    names::{Names, normalize_name},
    parse::{Parsed, parse},
    resolve::{from_environment, resolve_file},
    source::{ConfigText, SourceMap},
    values::{OrderedTable, Spanned},
};
use crate::model::environment::Environment;

/// What a configuration is built from.
#[derive(Clone, Debug, Default)]
pub struct ConfigLayers {
    /// The file of the system's administrator.
    pub system: Option<ConfigText>,
    /// The file of the user.
    pub user: Option<ConfigText>,
    /// The environment: base URLs of vendors, and the whole configuration if there is no file.
    pub environment: Environment,
}

impl ConfigLayers {
    /// The validated configuration.
    ///
    /// # Errors
    /// All problems of the files, or an invalid variable.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        // The user's file is at offset 0: its text need not be moved.
        let files: Vec<_> = self.user.iter().chain(&self.system).cloned().collect();
        if files.is_empty() {
            return from_environment(&self.environment);
        }
        let source = SourceMap::new(&files);
        let (mut values, mut problems, mut skipped_names) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for file in &files {
            let parsed: Parsed<ConfigFile> = parse(&source, &file.text, start);
            start += file.text.len() + 1;
            problems.extend(parsed.problems);
            skipped_names.extend(parsed.skipped_names);
            values.extend(parsed.value);
        }
        // Without one of the files, every reference to its entries would be unknown.
        if values.len() == files.len() {
            let file = values.into_iter().reduce(|user, system| merge(system, user)).unwrap_or_default();
            let (config, more_problems) = resolve_file(&file, source, &self.environment, skipped_names);
            problems.extend(more_problems);
            if problems.is_empty() {
                let renamed_keys = self.user.as_ref().map(|user| super::renamed_keys::find_renamed_keys(&user.text));
                let files = self.paths().into_iter().map(Path::to_owned).collect();
                return Ok(Config { files, renamed_keys: renamed_keys.unwrap_or_default(), ..config });
            }
        }
        problems.sort_by_cached_key(|problem| (problem.path().to_owned(), problem.line_column()));
        Err(ConfigError::invalid(problems))
    }

    /// The file with the preset `name`.
    #[must_use]
    pub(crate) fn file_of_preset(&self, name: &str) -> Option<&Path> {
        let has_preset = |file: &&ConfigText| Names::parse_lenient(&file.text).contains("preset", name);
        self.user.iter().chain(&self.system).find(has_preset).map(|file| file.path.as_path())
    }

    /// The paths of the files that exist, the system's first.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.system.iter().chain(&self.user).map(|file| file.path.as_path()).collect()
    }
}

/// Parses and validates the text of the config file at `path`, without other layers.
pub fn resolve(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let user = Some(ConfigText { path: path.to_owned(), text: text.to_owned() });
    ConfigLayers { user, ..ConfigLayers::default() }.resolve()
}

/// `system` with the entries of `user` in their place.
fn merge(system: ConfigFile, user: ConfigFile) -> ConfigFile {
    let mut system = system;
    // Models, routes and sets share a namespace: an entry replaces those of all three kinds.
    let names: Vec<String> = [names(&user.models), names(&user.routes), names(&user.sets)].concat();
    // A limit needs the price of the model that it was written for.
    system.spend.models.0.retain(|(name, _)| !names.contains(&normalize_name(&name.value)));
    system.models.0.retain(|(name, _)| !is_replaced(name, &names, &user.models));
    system.routes.0.retain(|(name, _)| !is_replaced(name, &names, &user.routes));
    system.sets.0.retain(|(name, _)| !is_replaced(name, &names, &user.sets));
    ConfigFile {
        default: user.default.or(system.default),
        compare: user.compare.or(system.compare),
        context: user.context.or(system.context),
        endpoints: merge_tables(system.endpoints, user.endpoints),
        models: merge_tables(system.models, user.models),
        routes: merge_tables(system.routes, user.routes),
        sets: merge_tables(system.sets, user.sets),
        presets: merge_tables(system.presets, user.presets),
        spend: SpendEntry {
            day: user.spend.day.or(system.spend.day),
            month: user.spend.month.or(system.spend.month),
            endpoints: merge_tables(system.spend.endpoints, user.spend.endpoints),
            models: merge_tables(system.spend.models, user.spend.models),
        },
        serve: merge_serve(system.serve, user.serve),
        retry: user.retry.or(system.retry),
        availability: user.availability.or(system.availability),
        max_answer_mb: user.max_answer_mb.or(system.max_answer_mb),
        history: user.history.or(system.history),
        history_days: user.history_days.or(system.history_days),
    }
}

fn merge_serve(system: ServeEntry, user: ServeEntry) -> ServeEntry {
    // A certificate and its private key belong together.
    let (cert, key) =
        if user.cert.is_some() || user.key.is_some() { (user.cert, user.key) } else { (system.cert, system.key) };
    ServeEntry {
        listen: user.listen.or(system.listen),
        hold: user.hold.or(system.hold),
        drain: user.drain.or(system.drain),
        idle: user.idle.or(system.idle),
        request_headers: user.request_headers.or(system.request_headers),
        response_headers: user.response_headers.or(system.response_headers),
        max_body_mb: user.max_body_mb.or(system.max_body_mb),
        memory_mb: user.memory_mb.or(system.memory_mb),
        max_connections_per_address: user.max_connections_per_address.or(system.max_connections_per_address),
        hosts: user.hosts.or(system.hosts),
        cors: user.cors.or(system.cors),
        cert,
        key,
        aliases: merge_tables(system.aliases, user.aliases),
        keys: merge_tables(system.keys, user.keys),
    }
}

/// The entries of `system`, each replaced by the one of `user` with its name, then the other entries of `user`.
fn merge_tables<T>(system: OrderedTable<T>, user: OrderedTable<T>) -> OrderedTable<T> {
    let mut entries: Vec<(Spanned<String>, T)> = system.0;
    let mut is_replaced = vec![false; entries.len()];
    for (name, entry) in user.0 {
        let same_name = |(known, _): &(Spanned<String>, T)| normalize_name(&known.value) == normalize_name(&name.value);
        // A name that is twice in the user's file is an error, which `resolve` reports.
        match entries[..is_replaced.len()].iter().position(same_name) {
            Some(position) if !is_replaced[position] => {
                entries[position] = (name, entry);
                is_replaced[position] = true;
            }
            _ => entries.push((name, entry)),
        }
    }
    OrderedTable(entries)
}

fn names<T>(table: &OrderedTable<T>) -> Vec<String> {
    table.0.iter().map(|(name, _)| normalize_name(&name.value)).collect()
}

/// Whether an entry of the user with this name replaces one of another kind.
fn is_replaced<T>(name: &Spanned<String>, names_of_all_kinds: &[String], same_kind: &OrderedTable<T>) -> bool {
    let name = normalize_name(&name.value);
    names_of_all_kinds.contains(&name) && !names(same_kind).contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(system: &str, user: &str) -> ConfigLayers {
        let file = |path: &str, text: &str| Some(ConfigText { path: path.into(), text: text.to_owned() });
        ConfigLayers {
            system: file("/etc/xdg/mmchat/config.toml", system),
            user: file("/home/me/config.toml", user),
            environment: Environment::default(),
        }
    }

    const SYSTEM: &str = r#"
default = "fast"
history_days = 30
[endpoints.company]
base_url = "https://llm.example.com/v1"
api_key = { file = "team.key" }
[endpoints.shared]
base_url = "https://shared.example.com/v1"
api_key = "system-secret-key"
[models.fast]
endpoint = "company"
model = "a"
[serve]
max_body_mb = 7
cert = "c.pem"
key = "k.pem"
"#;

    #[test]
    fn user_file_replaces_complete_entries_and_single_keys() {
        let user =
            "history_days = 3\n[endpoints.shared]\nbase_url = \"http://127.0.0.1:1/v1\"\n[serve]\ndrain = \"1s\"\n";
        let config = layers(SYSTEM, user).resolve().expect("valid layers");
        assert_eq!(config.default.as_deref(), Some("fast"));
        assert_eq!(config.history.retention_days, Some(3));
        let shared = config.endpoint("shared").expect("defined");
        assert!(shared.keys.is_empty(), "the key of the system's entry must not reach the user's address");
        assert_eq!((config.serve.max_body >> 20, config.serve.drain.as_secs()), (7, 1));
        let (cert, _) = config.serve.tls.expect("set by the system's file");
        assert_eq!(cert, Path::new("/etc/xdg/mmchat/c.pem"), "paths are relative to their own file");
    }

    #[test]
    fn name_twice_in_the_user_file_is_an_error_with_and_without_a_system_file() {
        let user = "[endpoints.\"\u{e9}\"]\nbase_url = \"http://a/v1\"\n[endpoints.\"e\u{301}\"]\nbase_url = \"http://b/v1\"\n";
        for system in ["", "[endpoints.\"\u{e9}\"]\nbase_url = \"http://c/v1\"\n"] {
            let Err(ConfigError::Invalid { problems, .. }) = layers(system, user).resolve() else {
                panic!("expected a problem with {system:?}");
            };
            assert_eq!(problems[0].path(), Path::new("/home/me/config.toml"));
        }
    }

    #[test]
    fn name_of_the_user_replaces_an_entry_of_another_kind() {
        let config = layers(SYSTEM, "[routes.fast]\nmodels = [\"company/b\"]\n").resolve().expect("valid layers");
        assert!(config.model("fast").is_none() && config.route("fast").is_some());
    }

    #[test]
    fn problem_is_reported_in_its_own_file() {
        for (system, user, path, line) in [
            (SYSTEM, "\ndefault = \"nothing\"\n", "/home/me/config.toml", 2),
            ("\n\n\ncompare = 1\n", "", "/etc/xdg/mmchat/config.toml", 4),
            ("[models.m]\nendpoint = \"gone\"\nmodel = \"m\"\n", "\n\n", "/etc/xdg/mmchat/config.toml", 2),
            ("\u{feff}compare = \n", "\n\n", "/etc/xdg/mmchat/config.toml", 1),
        ] {
            let Err(ConfigError::Invalid { path: reported, problems }) = layers(system, user).resolve() else {
                panic!("expected a problem in {path}");
            };
            let problem = &problems[0];
            assert_eq!((problem.path(), problem.line_column().0), (Path::new(path), line), "{problem:?}");
            assert_eq!(reported, Path::new(path));
        }
    }

    #[test]
    fn base_url_of_a_known_service_comes_from_the_environment_unless_the_file_has_one() {
        let base_url = |text: &str, value: &str| {
            let environment = [("OPENAI_BASE_URL".to_owned(), value.to_owned())].into_iter().collect();
            let user = Some(ConfigText { path: "c.toml".into(), text: text.to_owned() });
            let config = ConfigLayers { system: None, user, environment }.resolve()?;
            Ok::<_, ConfigError>(config.endpoints[0].base_url.to_string())
        };
        let proxy = "http://127.0.0.1:9/v1";
        assert_eq!(base_url("[endpoints.openai]\n", proxy).expect("valid"), proxy);
        let own = "[endpoints.openai]\nbase_url = \"http://h/v1\"\n";
        assert_eq!(base_url(own, proxy).expect("valid"), "http://h/v1");
        assert_eq!(base_url("[endpoints.other]\nbase_url = \"http://h/v1\"\n", proxy).expect("valid"), "http://h/v1");
        let error = base_url("[endpoints.openai]\n", "ftp://h").expect_err("not an HTTP address");
        assert!(
            matches!(&error, ConfigError::Invalid { problems, .. } if problems[0].message.contains("OPENAI_BASE_URL"))
        );
    }
}
