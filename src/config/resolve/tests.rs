//! Tests of valid config files and of every kind of problem.

use std::path::Path;

use super::*;
use crate::config::resolve;

const GOOD: &str = r#"
default = "chat"
compare = "panel"
[endpoints.local]
base_url = "http://127.0.0.1:8080/v1"
timeouts = { first_token = "3s" }
[endpoints.openai]
api_key = { env = "OPENAI_API_KEY" }
headers = { "X-Team" = "search", X-Token = { command = ["token"] } }
[models.fast]
endpoint = "openai"
model = "gpt-4o-mini"
params = { temperature = 0.2 }
extra = { enable_thinking = false }
price = { input = 0.15, output = 0.6 }
[models."通义"]
endpoint = "local"
model = "qwen"
timeouts = { idle = "1m" }
[routes.chat]
models = ["fast", { name = "通义", weight = 2 }, "local/other"]
on_cut = "restart"
[sets]
panel = ["fast", "chat", "local/x"]
[presets.review]
system = "Be brief."
model = "chat"
"#;

fn problems(text: &str) -> Vec<Problem> {
    match resolve(text, Path::new("config.toml")) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// The message, the labeled text and the help of the only problem of `text`.
fn only_problem(text: &str) -> (String, String, Option<String>) {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    (problem.message.clone(), text[problem.labels[0].0.clone()].to_owned(), problem.help)
}

#[test]
fn valid_file_is_resolved_to_targets() {
    let config = resolve(GOOD, Path::new("/etc/mmchat/config.toml")).expect("valid config");
    let fast = config.model("fast").expect("defined");
    assert_eq!((fast.upstream_id.as_str(), fast.params.temperature), ("gpt-4o-mini", Some(0.2)));
    assert_eq!(fast.endpoint.base_url.as_str(), "https://api.openai.com/v1");
    assert_eq!(fast.params.extra["enable_thinking"], false);
    let local = config.model("通义").expect("defined");
    let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs());
    assert_eq!((seconds(local.timeouts.first_token), seconds(local.timeouts.idle)), (Some(3), Some(60)));
    let ids: Vec<_> = config.route("chat").expect("defined").models.iter().map(|model| model.id.0.as_str()).collect();
    assert_eq!(ids, ["fast", "通义", "local/other"]);
    assert_eq!(config.names().collect::<Vec<_>>(), ["fast", "通义", "chat", "panel"]);
}

#[test]
fn unknown_keys_and_wrong_types_are_labeled() {
    let (message, labeled, help) = only_problem("[endpoints.a]\nbase_url = \"http://h/v1\"\nbase_ulr = 1\n");
    assert!(message.contains("unknown key `base_ulr`"), "{message}");
    assert_eq!((labeled.as_str(), help.as_deref()), ("base_ulr", Some("did you mean \"base_url\"?")));
    let (message, labeled, _) = only_problem("[endpoints.a]\nbase_url = \"http://h/v1\"\nrpm = \"many\"\n");
    assert!(message.contains("invalid type"), "{message}");
    assert_eq!(labeled, "\"many\"");
    let (message, labeled, _) =
        only_problem("[endpoints.a]\nbase_url = \"http://h/v1\"\ntimeouts = { idle = \"soon\" }\n");
    assert!(message.contains("invalid duration"), "{message}");
    assert_eq!(labeled, "\"soon\"");
    let (message, ..) = only_problem("[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key = { evn = \"A\" }\n");
    assert!(message.contains("evn"), "{message}");
}

#[test]
fn unknown_names_suggest_the_most_similar() {
    let base = "[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"m\"\n";
    let cases = [
        ("[models.x]\nendpoint = \"opnai\"\nmodel = \"m\"\n", "\"opnai\"", "openai"),
        ("[routes.r]\nmodels = [\"fats\"]\n", "\"fats\"", "fast"),
        ("[sets]\ns = [\"fsat\"]\n", "\"fsat\"", "fast"),
    ];
    for (entry, labeled, suggestion) in cases {
        let (_, label, help) = only_problem(&format!("{base}{entry}"));
        assert_eq!((label.as_str(), help), (labeled, Some(format!("did you mean \"{suggestion}\"?"))));
    }
    let (message, ..) = only_problem(&format!("default = \"gone\"\n{base}"));
    assert_eq!(message, "unknown model \"gone\"");
}

#[test]
fn duplicate_name_is_labeled_at_both_positions() {
    let text = "[endpoints.openai]\n[models.a]\nendpoint = \"openai\"\nmodel = \"m\"\n[sets]\na = [\"a\"]\n";
    let both = problems(text).into_iter().find(|problem| problem.labels.len() == 2).expect("a problem with two labels");
    assert!(both.message.contains("both a model and a set"), "{}", both.message);
    for text in
        ["[endpoints.a]\n[endpoints.b]\n[endpoints.a]\n", "[endpoints.b]\nrpm = 1\n[endpoints.a]\nrpm = 1\nrpm = 2\n"]
    {
        let duplicate = problems(text).remove(0);
        let labeled: Vec<&str> = duplicate.labels.iter().map(|(span, _)| &text[span.clone()]).collect();
        assert!(duplicate.message.contains("duplicate") && labeled.len() == 2, "{duplicate:?}");
        assert!(text.find(labeled[1]).expect("a label") < duplicate.labels[0].0.start, "{duplicate:?}");
    }
}

#[test]
fn key_source_must_have_exactly_one_kind() {
    let text = "[endpoints.e]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = { env = \"A\", file = \"b\" }\n";
    assert!(problems(text)[0].message.contains("exactly one"), "{:?}", problems(text));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "[endpoints.a]\nbase_url = \"ftp://h\"\n[endpoints.b]\nbase_url = \"nonsense\"\n[endpoints.\"c d\"]\n";
    assert_eq!(problems(text).len(), 4);
}

#[test]
fn base_url_without_path_warns_and_chat_completions_is_stripped() {
    let config = resolve("[endpoints.a]\nbase_url = \"http://h:1\"\n", Path::new("c")).expect("valid config");
    assert!(config.warnings[0].contains("http://h:1/v1"), "{:?}", config.warnings);
    let text = "[endpoints.a]\nbase_url = \"http://h/v1/chat/completions\"\n";
    let config = resolve(text, Path::new("c")).expect("valid config");
    assert_eq!(config.endpoints[0].base_url.as_str(), "http://h/v1");
}

#[test]
fn config_is_built_from_keys_in_the_environment() {
    let environment = [("DEEPSEEK_API_KEY", "sk-d"), ("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")]
        .map(|(n, v)| (n.into(), v.into()));
    let config = from_environment(&environment.into_iter().collect()).expect("valid environment");
    assert_eq!(config.default.as_deref(), Some("deepseek/deepseek-flash"));
    let endpoint = config.endpoint("deepseek").expect("defined");
    assert_eq!(endpoint.base_url.as_str(), "http://127.0.0.1:1/v1");
    assert_eq!(endpoint.keys, [KeySource::Env("DEEPSEEK_API_KEY".into())]);
    assert!(from_environment(&Environment::default()).expect("valid environment").default.is_none());
    let invalid =
        [("DEEPSEEK_API_KEY", "sk-d"), ("DEEPSEEK_BASE_URL", "localhost:1/v1")].map(|(n, v)| (n.into(), v.into()));
    let error = from_environment(&invalid.into_iter().collect()).expect_err("invalid URL").to_string();
    assert!(error.contains("invalid DEEPSEEK_BASE_URL") && error.contains("http://"), "{error}");
}

#[test]
fn problems_of_an_invalid_file_contain_no_secrets() {
    for text in [
        "[endpoints.m]\nbase_ulr = \"http://h/v1\"\napi_key = \"sk-literal-secret-123\"\n",
        "[endpoints.m]\napi_keys = \"sk-literal-secret-123\"\n",
        "[endpoints.m]\napi_key = { enw = \"sk-literal-secret-123\" }\n",
        "[endpoints.m]\napi_key = \"sk-literal-secret-123\"\napi_keys = [\"sk-literal-secret-123\"]\n",
        "[endpoints.m]\napi_key = sk-literal-secret-123\n",
        "[serve.keys]\nteam = \"literal-secret-123\"\n",
        "[serve]\nkeys.team = \"literal-secret-123\"\n",
        "[serve]\nkeys = \"literal-secret-123\"\n",
        "[serve.keys]\nteam = { env = \"literal-secret-123\" }\n",
        "[endpoints.m]\nheaders.X = { literal-secret = 1 }\n",
        "[endpoints.m]\napi_key = { literal-secret = \"a\" }\n",
        "[endpoints.m]\napi_key = { env-prod-literal-secret = \"a\" }\n",
        "[serve.keys]\nteam = { literal-secret = 1 }\n",
        "[endpoints]\nopenai = [\"literal-secret\"]\n",
        "endpoints = \"literal-secret\"\n",
        "[endpoints.m]\napi_keys = 'literal-secret\\zz'\n",
        "[endpoints.m]\nheaders = \"literal-secret\\u200bzz\"\n",
        "[endpoints.m]\napi_key =\n\"literal-secret\"\n",
        "[endpoints.m.api_key]\nenv = \"literal-secret==\"\n",
    ] {
        let Err(ConfigError::Invalid { problems, .. }) = resolve(text, Path::new("c.toml")) else { panic!("{text}") };
        for problem in problems {
            let report = format!("{:?}", miette::Report::new(problem));
            assert!(!report.contains("literal-secret"), "{text}: {report}");
        }
    }
}

#[test]
fn numbers_in_place_of_keys_are_not_quoted() {
    for text in [
        "api_key = 98765432",
        "api_key = 98_765_432",
        "api_key = +98765432",
        "api_key = 0x5E30A78",
        "api_keys = 98765432",
        "headers = 98765432.50",
        "headers = 98765432e0",
        "api_key = { env = 98765432 }",
        "api_key = { file = 98765432 }",
        "[serve]\nkeys = 98765432",
    ] {
        let Err(ConfigError::Invalid { problems, .. }) =
            resolve(&format!("[endpoints.m]\n{text}\n"), Path::new("c.toml"))
        else {
            panic!("{text}")
        };
        for problem in problems {
            let report = format!("{:?}", miette::Report::new(problem));
            assert!(
                !["98765432", "98_765", "5E30A78"].iter().any(|number| report.contains(number)),
                "{text}: {report}"
            );
        }
    }
}

#[test]
fn extra_must_not_replace_standard_fields() {
    let text = "[endpoints.m]\nbase_url = \"http://h/v1\"\n[models.a]\nendpoint = \"m\"\nmodel = \"x\"\nextra = { messages = [] }\n";
    assert!(problems(text)[0].message.contains("would replace `messages`"), "{:?}", problems(text));
}

#[test]
fn zero_timeout_and_route_in_a_route_are_errors() {
    let model =
        "[endpoints.m]\nbase_url = \"http://h/v1\"\n[routes.b]\nmodels = [\"m/x\"]\n[routes.c]\nmodels = [\"b\"]\n";
    assert!(problems(model)[0].message.contains("\"b\" is a route"), "{:?}", problems(model));
    let zero = "[endpoints.m]\nbase_url = \"http://h/v1\"\ntimeouts = { total = \"0s\" }\n";
    assert!(problems(zero)[0].message.contains("must be longer than 0"), "{:?}", problems(zero));
}

#[test]
fn origins_of_pages_apps_and_extensions_can_be_listed() {
    let cors = |origin: &str| resolve(&format!("[serve]\ncors = [\"{origin}\"]\n"), Path::new("c.toml"));
    for (origin, want) in [
        ("https://chat.example.com/", "https://chat.example.com"),
        ("http://10.0.0.1:8080/page", "http://10.0.0.1:8080"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("moz-extension://abc/", "moz-extension://abc"),
        ("null", "null"),
    ] {
        assert_eq!(cors(origin).expect("a valid origin").serve.cors, [want]);
    }
    for origin in ["chat.example.com", "*", "", "app:"] {
        assert!(cors(origin).is_err(), "{origin}");
    }
}
