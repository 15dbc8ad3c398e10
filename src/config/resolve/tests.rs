//! Good files, and every way a file can be wrong.

use super::*;

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

/// The one problem of a text, and the text at its first label.
fn one(text: &str) -> (String, String, Option<String>) {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    (problem.message.clone(), text[problem.labels[0].0.clone()].to_owned(), problem.help)
}

#[test]
fn a_good_file_becomes_targets() {
    let config = resolve(GOOD, Path::new("/etc/mmchat/config.toml")).expect("good");
    let fast = config.model("fast").expect("there");
    assert_eq!((fast.upstream.as_str(), fast.params.temperature), ("gpt-4o-mini", Some(0.2)));
    assert_eq!(fast.endpoint.base_url.as_str(), "https://api.openai.com/v1");
    assert_eq!(fast.params.extra["enable_thinking"], false);
    let local = config.model("通义").expect("there");
    let seconds = |time: Option<std::time::Duration>| time.map(|time| time.as_secs());
    assert_eq!((seconds(local.timeouts.first_token), seconds(local.timeouts.idle)), (Some(3), Some(60)));
    let ids: Vec<_> = config.route("chat").expect("there").models.iter().map(|model| model.id.0.as_str()).collect();
    assert_eq!(ids, ["fast", "通义", "local/other"]);
    assert_eq!(config.names().collect::<Vec<_>>(), ["fast", "通义", "chat", "panel"]);
}

#[test]
fn wrong_keys_and_types_point_at_themselves() {
    let (message, at, help) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\nbase_ulr = 1\n");
    assert!(message.contains("unknown field `base_ulr`"), "{message}");
    assert_eq!((at.as_str(), help.as_deref()), ("base_ulr", Some("did you mean `base_url`?")));
    let (message, at, _) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\nrpm = \"many\"\n");
    assert!(message.contains("invalid type"), "{message}");
    assert_eq!(at, "\"many\"");
    let (message, at, _) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\ntimeouts = { idle = \"soon\" }\n");
    assert!(message.contains("no duration"), "{message}");
    assert_eq!(at, "\"soon\"");
    let (message, ..) = one("[endpoints.a]\nbase_url = \"http://h/v1\"\napi_key = { evn = \"A\" }\n");
    assert!(message.contains("evn"), "{message}");
}

#[test]
fn dangling_names_suggest_the_nearest() {
    let base = "[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"m\"\n";
    let cases = [
        ("[models.x]\nendpoint = \"opnai\"\nmodel = \"m\"\n", "\"opnai\"", "openai"),
        ("[routes.r]\nmodels = [\"fats\"]\n", "\"fats\"", "fast"),
        ("[sets]\ns = [\"fsat\"]\n", "\"fsat\"", "fast"),
    ];
    for (more, at, near) in cases {
        let (_, found, help) = one(&format!("{base}{more}"));
        assert_eq!((found.as_str(), help), (at, Some(format!("did you mean `{near}`?"))));
    }
    let (message, ..) = one(&format!("default = \"gone\"\n{base}"));
    assert_eq!(message, "unknown model `gone`");
}

#[test]
fn a_name_used_twice_shows_both_places() {
    let text = "[endpoints.openai]\n[models.a]\nendpoint = \"openai\"\nmodel = \"m\"\n[sets]\na = [\"a\"]\n";
    let both = problems(text).into_iter().find(|problem| problem.labels.len() == 2).expect("two places");
    assert!(both.message.contains("a model and of a set"), "{}", both.message);
    for text in
        ["[endpoints.a]\n[endpoints.b]\n[endpoints.a]\n", "[endpoints.b]\nrpm = 1\n[endpoints.a]\nrpm = 1\nrpm = 2\n"]
    {
        let twice = problems(text).remove(0);
        let places: Vec<&str> = twice.labels.iter().map(|(at, _)| &text[at.clone()]).collect();
        assert!(twice.message.contains("duplicate") && places.len() == 2, "{twice:?}");
        assert!(text.find(places[1]).expect("a place") < twice.labels[0].0.start, "{twice:?}");
    }
}

#[test]
fn a_secret_is_in_one_place() {
    let text = "[endpoints.e]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = { env = \"A\", file = \"b\" }\n";
    assert!(problems(text)[0].message.contains("one place"), "{:?}", problems(text));
}

#[test]
fn many_problems_are_told_at_once() {
    let text = "[endpoints.a]\nbase_url = \"ftp://h\"\n[endpoints.b]\nbase_url = \"nonsense\"\n[endpoints.\"c d\"]\n";
    assert_eq!(problems(text).len(), 4);
}

#[test]
fn an_address_without_v1_warns_and_a_pasted_call_is_cut() {
    let config = resolve("[endpoints.a]\nbase_url = \"http://h:1\"\n", Path::new("c")).expect("usable");
    assert!(config.warnings[0].contains("http://h:1/v1"), "{:?}", config.warnings);
    let text = "[endpoints.a]\nbase_url = \"http://h/v1/chat/completions\"\n";
    let config = resolve(text, Path::new("c")).expect("usable");
    assert_eq!(config.endpoints[0].base_url.as_str(), "http://h/v1");
}

#[test]
fn keys_in_the_environment_are_enough() {
    let environment = [("DEEPSEEK_API_KEY", "sk-d"), ("DEEPSEEK_BASE_URL", "http://127.0.0.1:1/v1")]
        .map(|(n, v)| (n.into(), v.into()));
    let config = from_environment(&environment.into_iter().collect()).expect("fine");
    assert_eq!(config.default.as_deref(), Some("deepseek/deepseek-flash"));
    let endpoint = config.endpoint("deepseek").expect("there");
    assert_eq!(endpoint.base_url.as_str(), "http://127.0.0.1:1/v1");
    assert_eq!(endpoint.keys, [KeySource::Env("DEEPSEEK_API_KEY".into())]);
    assert!(from_environment(&Environment::default()).expect("fine").default.is_none());
    let wrong =
        [("DEEPSEEK_API_KEY", "sk-d"), ("DEEPSEEK_BASE_URL", "localhost:1/v1")].map(|(n, v)| (n.into(), v.into()));
    let error = from_environment(&wrong.into_iter().collect()).expect_err("no address").to_string();
    assert!(error.contains("DEEPSEEK_BASE_URL=localhost:1/v1") && error.contains("http://"), "{error}");
}

#[test]
fn no_secret_is_in_what_is_told_of_a_broken_file() {
    for text in [
        "[endpoints.m]\nbase_ulr = \"http://h/v1\"\napi_key = \"sk-literal-secret-123\"\n",
        "[endpoints.m]\napi_keys = \"sk-literal-secret-123\"\n",
        "[endpoints.m]\napi_key = { enw = \"sk-literal-secret-123\" }\n",
        "[endpoints.m]\napi_key = \"sk-literal-secret-123\"\napi_keys = [\"sk-literal-secret-123\"]\n",
        "[endpoints.m]\napi_key = sk-literal-secret-123\n",
    ] {
        let Err(ConfigError::Invalid { problems, .. }) = resolve(text, Path::new("c.toml")) else { panic!("{text}") };
        for problem in problems {
            let shown = format!("{:?}", miette::Report::new(problem));
            assert!(!shown.contains("literal-secret"), "{text}: {shown}");
        }
    }
}

#[test]
fn what_ask_itself_sends_is_not_for_extra() {
    let text = "[endpoints.m]\nbase_url = \"http://h/v1\"\n[models.a]\nendpoint = \"m\"\nmodel = \"x\"\nextra = { messages = [] }\n";
    assert!(problems(text)[0].message.contains("would replace `messages`"), "{:?}", problems(text));
}

#[test]
fn limits_of_nothing_and_routes_in_routes_are_refused() {
    let model =
        "[endpoints.m]\nbase_url = \"http://h/v1\"\n[routes.b]\nmodels = [\"m/x\"]\n[routes.c]\nmodels = [\"b\"]\n";
    assert!(problems(model)[0].message.contains("`b` is a route"), "{:?}", problems(model));
    let zero = "[endpoints.m]\nbase_url = \"http://h/v1\"\ntimeouts = { total = \"0s\" }\n";
    assert!(problems(zero)[0].message.contains("leaves no time"), "{:?}", problems(zero));
}
