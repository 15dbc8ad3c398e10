//! Snapshots of the errors, warnings and hints that a user can see, as lists of command lines with their output.
//!
//! Each case runs in its own directory, which contains [`FIXTURES`]. Its line is written as in a shell: variables, the
//! program, arguments, and an input file. `| ` marks standard output. Directories, ports, measured times, system error
//! numbers and the version are replaced, because they differ between machines and runs.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{
    common::{
        CommandResult, NO_RETRIES, STOP, STREAM, ScriptedServer, ServerProcess, ServerStep, TestEnv, answer,
        content_event, http_response, models_config, set_mode,
    },
    help_texts::snapshot_settings,
};
use mmchat::internals::{
    cli::CliError,
    config::edit::{ConfigEditor, EditError},
    engine::Notice,
    gateway::ServeError,
    model::{ErrorClass, ParamWorkaround, SystemRole, target::TargetId},
    protocol::{CallError, EncodeError, framing::sse::EventTooLarge},
    render::notice::format_notice,
    routing::health::HealthError,
    store::record::{Database, RecordError},
    term::{InputError, PromptError, WriteError},
    transport::keys::KeyError,
};

/// What a case shows, the text of the config file (`""`: no config file), and the command line.
type Case = (&'static str, &'static str, &'static str);

/// No config file.
const NONE: &str = "";

/// Nothing listens at this endpoint.
const CONFIG: &str = r#"
[endpoints.shop]
base_url = "http://127.0.0.1:1/v1"
[models.fast]
endpoint = "shop"
model = "m1"
tags = ["cheap"]
capabilities = ["tools"]
price = { input = 1.0, output = 2.0 }
[models.strong]
endpoint = "shop"
model = "m2"
[routes.chat]
models = ["fast", "strong"]
[sets]
panel = ["fast", "strong"]
[presets.review]
prompt = "Review this {{ language }} code: {{ input }}"
[presets.fixed]
prompt = "Say hello"
[presets.both]
prompt = "Say hello"
[presets.broken]
prompt = "{{ input.a.b }}"
[presets.endless]
prompt = "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}"
"#;

/// A config with an endpoint, and without models, routes and sets.
const ENDPOINT_ONLY: &str = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\n";

/// The files in the directory of a case.
const FIXTURES: &[(&str, &[u8])] = &[
    ("prompt.txt", b"hi\n"),
    ("empty.txt", b""),
    ("two-lines.txt", b"one\ntwo\n"),
    ("latin1.txt", b"caf\xe9\n"),
    ("binary.bin", b"\x01\x00\x02"),
    ("page.png", b"<html>"),
    ("pixel.png", b"\x89PNG\r\n\x1a\n"),
    (
        "chat.txt",
        b"/frobnicate\n/modl fast\n/model fats\n/models ,\n/file\n/save\n/save out.md\n/again\n/undo\n/pick\n/pick 9\n\
        /pick 1\n/copy\n",
    ),
    ("attach.txt", b"/file missing.txt\n"),
    ("short.key", b"abc\n"),
    ("good.key", b"sk-0123456789\n"),
    ("other.key", b"sk-9876543210\n"),
    ("third.key", b"sk-5555555555\n"),
    ("open.key", b"sk-0123456789\n"),
    ("open.toml", b"[endpoints.openai]\napi_key = \"sk-0123456789\"\n"),
    ("empty.key", b"\n"),
    ("latin1.key", b"caf\xe9\n"),
    ("bell.key", b"sk-\x07\n"),
    ("broken.yaml", b"model_list: [\n"),
    ("other.txt", b"neither a config nor a list\n"),
    ("presets/both.toml", b"prompt = \"Say hello\"\n"),
    ("presets/typo.toml", b"promt = \"Say hello\"\n"),
    ("presets/open.toml", b"prompt = \"{{ open\"\n"),
    ("folder/file.txt", b""),
    ("keys/spare", b"sk-0123456789\n"),
    ("localhost.pem", include_bytes!("../fixtures/tls/localhost.pem")),
    ("another-host.key", include_bytes!("../fixtures/tls/other.invalid.key.pem")),
];

/// Large files: a name, the first bytes and the size. They are sparse.
const LARGE_FIXTURES: &[(&str, &[u8], u64)] = &[
    ("large.txt", b"", 33 * 1024 * 1024),
    ("large.png", b"\x89PNG\r\n\x1a\n", 21 * 1024 * 1024),
    ("large.key", b"", 65 * 1024),
];

/// An environment with this config, if any, and the fixtures.
fn case_env(config: &str) -> TestEnv {
    let env = if config.is_empty() { TestEnv::new() } else { TestEnv::with_config(config) };
    for (name, bytes) in FIXTURES {
        write_file(&env.path(name), bytes);
    }
    for (name, head, size) in LARGE_FIXTURES {
        let path = env.path(name);
        write_file(&path, head);
        File::options().write(true).open(&path).and_then(|file| file.set_len(*size)).expect("writable file");
    }
    for name in ["open.key", "open.toml"] {
        set_mode(&env.path(name), 0o644);
    }
    env
}

/// Writes a file that only its owner can read.
fn write_file(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file has a parent")).expect("writable directory");
    fs::write(path, bytes).expect("writable file");
    set_mode(path, 0o600);
}

/// Runs a command line, and returns it with its output and its exit code.
fn run_line(env: &TestEnv, line: &str) -> String {
    let (words, input) = line.split_once(" < ").map_or((line, None), |(words, input)| (words, Some(input)));
    let mut words = words.split_whitespace();
    let mut command = env.command();
    command.current_dir(env.folder.path());
    for folder in ["XDG_STATE_HOME", "XDG_CACHE_HOME"] {
        command.env(folder, env.path("state"));
    }
    command.envs(words.by_ref().take_while(|word| *word != "mmchat").filter_map(|word| word.split_once('=')));
    command.args(words);
    if let Some(input) = input {
        command.stdin(File::open(env.path(input)).expect("a fixture"));
    }
    describe(line, &CommandResult::from_output(command.output().expect("binary starts")))
}

/// A command line with its output and its exit code.
fn describe(line: &str, result: &CommandResult) -> String {
    let stdout: Vec<String> = result.stdout.lines().map(|line| format!("| {}\n", line.trim_end())).collect();
    let newline = if result.stderr.is_empty() || result.stderr.ends_with('\n') { "" } else { "\n" };
    let code = result.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
    format!("$ {line}\n{}{}{newline}[exit {code}]\n", stdout.concat(), result.stderr)
}

/// Replaces what differs between machines. The padding of tables depends on the length of the directory, too.
fn mask(env: &TestEnv, text: &str) -> String {
    let folder = env.folder.path();
    let real = folder.canonicalize().expect("existing directory");
    let text = text.replace(&real.display().to_string(), "[DIR]").replace(&folder.display().to_string(), "[DIR]");
    let text = mask_numbers(&text, "(os error ", "[N]").replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
    shorten_padding(&text)
}

/// Replaces the digits after each `before`.
fn mask_numbers(text: &str, before: &str, replacement: &str) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.extend([before, replacement, part.trim_start_matches(|c: char| c.is_ascii_digit())]);
    }
    out
}

/// Replaces measured times, such as `12 ms` and `1.2 s`.
fn mask_times(text: &str) -> String {
    mask_unit(&mask_unit(text, " ms"), " s")
}

/// Replaces the numbers before `unit`, with the unit.
fn mask_unit(text: &str, unit: &str) -> String {
    let parts: Vec<&str> = text.split(unit).collect();
    let mut out = parts[0].to_owned();
    for next in &parts[1..] {
        let number_at = out.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if number_at < out.len() && !next.starts_with(char::is_alphanumeric) {
            out.truncate(number_at);
            out.push_str("[TIME]");
        } else {
            out.push_str(unit);
        }
        out.push_str(next);
    }
    out
}

/// Shortens the padding in lines of standard output to two spaces.
fn shorten_padding(text: &str) -> String {
    let shorten = |line: &str| {
        let mut line = line.to_owned();
        while line.starts_with("| ") && line.contains("   ") {
            line = line.replace("   ", "  ");
        }
        line + "\n"
    };
    text.lines().map(shorten).collect()
}

/// Checks a list of texts against its snapshot.
fn assert_list(name: &str, texts: &[String]) {
    snapshot_settings().bind(|| insta::assert_snapshot!(name, texts.join("\n")));
}

/// Runs a case in its own directory.
fn run_case(title: &str, config: &str, line: &str) -> String {
    let env = case_env(config);
    mask(&env, &format!("# {title}\n{}", run_line(&env, line)))
}

fn run_cases(cases: &[Case]) -> Vec<String> {
    cases.iter().map(|(title, config, line)| run_case(title, config, line)).collect()
}

/// Runs command lines one after the other in `env`.
fn run_lines(env: &TestEnv, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| mask(env, &run_line(env, line))).collect()
}

/// Errors of the argument parser.
const PARSER: &[Case] = &[
    ("unknown command", NONE, "mmchat aks hi"),
    ("unknown command without a similar one", NONE, "mmchat frobnicate"),
    ("unknown subcommand", NONE, "mmchat config chekc"),
    ("missing subcommand", NONE, "mmchat route"),
    ("unknown option", NONE, "mmchat ask --frmat json hi"),
    ("unknown option without a similar one", NONE, "mmchat ask --zebra hi"),
    ("unknown short option", NONE, "mmchat ask -z hi"),
    ("option of another command", NONE, "mmchat ask --view stack hi"),
    ("unexpected argument", NONE, "mmchat status now"),
    ("missing value", NONE, "mmchat ask --format"),
    ("value of a flag", NONE, "mmchat ask --buffer=yes hi"),
    ("repeated option", NONE, "mmchat ask --format json --format text hi"),
    ("not a number", NONE, "mmchat ask --temperature warm hi"),
    ("not a whole number", NONE, "mmchat ask --max-tokens 1.5 hi"),
    ("negative number", NONE, "mmchat ask --max-tokens -1 hi"),
    ("number out of range", NONE, "mmchat mock --port 99999"),
    ("number out of range with a limit", NONE, "mmchat history prune --days 0"),
    ("number above a limit", NONE, "mmchat route explain chat --tokens 9000000"),
    ("page 0", NONE, "mmchat models available shop --page 0"),
    ("concurrency 0", NONE, "mmchat compare --max-concurrency 0 hi"),
    ("samples out of range", NONE, "mmchat compare -n 0 hi"),
    ("not a conversation", NONE, "mmchat history delete one"),
    ("not a duration", NONE, "mmchat ask --timeout yesterday hi"),
    ("not an amount", NONE, "mmchat ask --max-cost cheap hi"),
    ("not a currency", NONE, "mmchat ask --max-cost 1dollar hi"),
    ("not a possible value", NONE, "mmchat stats --by week"),
    ("not a list format", NONE, "mmchat models --format yaml"),
    ("not a shell", NONE, "mmchat completions tcsh"),
    ("not a context", NONE, "mmchat compare --continue --context both hi"),
    ("missing argument", NONE, "mmchat route explain"),
    ("missing words", NONE, "mmchat history search"),
    ("missing file", NONE, "mmchat config import"),
    ("missing names, or --all", NONE, "mmchat reset"),
    ("missing conversations, or --all", NONE, "mmchat history delete"),
    ("option requires an argument", NONE, "mmchat endpoint add --url http://h/v1"),
    ("argument requires options", NONE, "mmchat model add fast"),
    ("option requires another one", NONE, "mmchat model add fast -e shop -m x --price-input 1"),
    ("field requires vote", NONE, "mmchat compare --field a hi"),
    ("variable requires preset", NONE, "mmchat ask -P a=b hi"),
    ("conflicting options", NONE, "mmchat endpoint add a --key-stdin --no-key"),
    ("option conflicts with an argument", NONE, "mmchat reset --all fast"),
    ("option conflicts with the words", NONE, "mmchat man --dir pages ask"),
    ("option conflicts with a subcommand", NONE, "mmchat history -n 3 list"),
];

/// Errors in the arguments and the input of a request.
const REQUEST: &[Case] = &[
    ("unknown format", CONFIG, "mmchat ask --format yaml hi"),
    ("format with a typo", CONFIG, "mmchat ask --format markdwon hi"),
    ("timeout 0", CONFIG, "mmchat ask --timeout 0 hi"),
    ("negative temperature", CONFIG, "mmchat ask --temperature=-1 hi"),
    ("option without a value", CONFIG, "mmchat ask -o top_k hi"),
    ("option that has its own flag", CONFIG, "mmchat ask -o model=x hi"),
    ("empty prompt", CONFIG, "mmchat ask -m fast"),
    ("empty prompt without standard input", CONFIG, "mmchat ask -m fast --no-stdin"),
    ("- and --no-stdin", CONFIG, "mmchat ask -m fast --no-stdin -"),
    ("standard input is too large", CONFIG, "mmchat ask -m fast < large.txt"),
    ("standard input is not UTF-8", CONFIG, "mmchat ask -m fast --max-cost 0 < latin1.txt"),
    ("missing attachment", CONFIG, "mmchat ask -m fast -f missing.txt hi"),
    ("attached directory", CONFIG, "mmchat ask -m fast -f folder hi"),
    ("attached binary file", CONFIG, "mmchat ask -m fast -f binary.bin hi"),
    ("attached page with the extension of an image", CONFIG, "mmchat ask -m fast -f page.png hi"),
    ("attachment is too large", CONFIG, "mmchat ask -m fast -f large.txt hi"),
    ("attached image is too large", CONFIG, "mmchat ask -m fast -f large.png hi"),
    ("model without images", CONFIG, "mmchat ask -m fast -f pixel.png hi"),
    ("output file cannot be created", CONFIG, "mmchat ask -m strong --output no/such/file hi"),
    ("output file is a directory", CONFIG, "mmchat ask -m strong --output folder hi"),
    ("cost limit is too low", CONFIG, "mmchat ask -m fast --max-cost 0.000001 hi"),
    ("cost limit in another currency", CONFIG, "mmchat ask -m fast --max-cost 1EUR --dry-run hi"),
    ("cost limit of a model without a price", CONFIG, "mmchat ask -m strong --max-cost 1 --dry-run hi"),
    ("cost limit shortens the answer", CONFIG, "mmchat ask -m fast --max-cost 0.001 --dry-run hi"),
    ("key that is not in a variable", KEYS, "mmchat ask -m file/x --dry-run hi"),
    ("chat with --output", CONFIG, "mmchat chat -m fast --output out.md"),
    ("unknown view", CONFIG, "mmchat compare -m fast --view sideways hi"),
    ("live view without a terminal", CONFIG, "mmchat compare -m fast --view live hi"),
    ("view of another format", CONFIG, "mmchat compare -m fast --view stack --format json hi"),
    ("context without --continue", CONFIG, "mmchat compare --context shared hi"),
    ("diff of one answer", CONFIG, "mmchat compare --diff=1 hi"),
    ("diff of an unknown answer", CONFIG, "mmchat compare --diff=1,9 hi"),
    ("unknown kind of vote", CONFIG, "mmchat compare --vote=color hi"),
    ("unknown kind of report", CONFIG, "mmchat compare --out report.pdf hi"),
    ("report and answers in one file", CONFIG, "mmchat compare --out a.json --output a.json hi"),
    ("report cannot be created", CONFIG, "mmchat compare --out no/such/report.html hi"),
];

/// Unknown names and missing defaults.
const NAMES: &[Case] = &[
    ("unknown model", CONFIG, "mmchat ask -m zebra hi"),
    ("model with a typo", CONFIG, "mmchat ask -m fats hi"),
    ("model of an unknown endpoint", CONFIG, "mmchat ask -m zebra/x hi"),
    ("model of an endpoint with a typo", CONFIG, "mmchat ask -m shpo/x hi"),
    ("unknown model and no models", ENDPOINT_ONLY, "mmchat ask -m zebra hi"),
    ("unknown model and no config", NONE, "mmchat ask -m zebra hi"),
    ("vendor without its key", NONE, "mmchat ask -m openai/gpt-4o hi"),
    ("unknown vendor and no config", NONE, "mmchat ask -m zebra/x hi"),
    ("set instead of a model", CONFIG, "mmchat ask -m panel hi"),
    ("no default", NO_DEFAULT, "mmchat ask hi"),
    ("no default and no models", ENDPOINT_ONLY, "mmchat ask hi"),
    ("no config and no key", NONE, "mmchat ask hi"),
    ("compare without a config", NONE, "mmchat compare hi"),
    ("compare all without a config", NONE, "mmchat compare --all hi"),
    ("compare all and no models", ENDPOINT_ONLY, "mmchat compare --all hi"),
    ("compare without a set", NO_DEFAULT, "mmchat compare hi"),
    ("compare with several sets", TWO_SETS, "mmchat compare hi"),
    ("unknown set", TWO_SETS, "mmchat compare --set zebra hi"),
    ("set with a typo", CONFIG, "mmchat compare --set panle hi"),
    ("model instead of a set", CONFIG, "mmchat compare --set fast hi"),
    ("unknown set and no sets", ENDPOINT_ONLY, "mmchat compare --set panel hi"),
    ("unknown tag", CONFIG, "mmchat compare --tag expensive hi"),
    ("unknown tag and no tags", ENDPOINT_ONLY, "mmchat compare --tag cheap hi"),
    ("model given twice", CONFIG, "mmchat compare -m strong,strong --max-cost 0 --out no/such/report.md hi"),
    ("unknown model of a chat", CONFIG, "mmchat chat -m fats < empty.txt"),
    ("unknown preset", CONFIG, "mmchat ask -p zebra hi"),
    ("preset with a typo", CONFIG, "mmchat ask -p reviw hi"),
    ("unknown preset to show", CONFIG, "mmchat presets show zebra"),
    ("unknown endpoint or model to ping", CONFIG, "mmchat ping fats"),
    ("unknown endpoint or model to diagnose", CONFIG, "mmchat doctor shpo"),
    ("unknown name to reset", CONFIG, "mmchat reset caht"),
    ("unknown route to explain", CONFIG, "mmchat route explain caht"),
    ("unknown endpoint to list", CONFIG, "mmchat models available shpo"),
    ("unknown endpoint to synchronize", CONFIG, "mmchat models sync zebra"),
    ("unknown name in the record", CONFIG, "mmchat stats zebra"),
    ("unknown time", CONFIG, "mmchat stats --since yesterday"),
    ("unknown manual page", NONE, "mmchat man frobnicate"),
    ("manual page with a typo", NONE, "mmchat man config imprt"),
    ("nothing to ping", "[sets]\n", "mmchat ping"),
    ("nothing to diagnose", "[sets]\n", "mmchat doctor"),
    ("nothing to ping without a config", NONE, "mmchat ping"),
    ("nothing to diagnose without a config", NONE, "mmchat doctor"),
    ("nothing to serve", "[sets]\n", "mmchat serve --check"),
];

/// Two models, and nothing that chooses one.
const NO_DEFAULT: &str = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
    [models.fast]\nendpoint = \"shop\"\nmodel = \"m1\"\n[models.strong]\nendpoint = \"shop\"\nmodel = \"m2\"\n";

/// Two sets, and no default.
const TWO_SETS: &str = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
    [models.fast]\nendpoint = \"shop\"\nmodel = \"m1\"\n[sets]\none = [\"fast\"]\ntwo = [\"fast\"]\n";

/// Settings from the environment, and config files that cannot be read.
const SETTINGS: &[Case] = &[
    ("timeout of the environment", CONFIG, "MMCHAT_TIMEOUT=soon mmchat ask -m fast hi"),
    ("flag of the environment", CONFIG, "MMCHAT_PLAIN=maybe mmchat ask -m fast hi"),
    ("format of the environment", CONFIG, "MMCHAT_FORMAT=yaml mmchat ask -m fast hi"),
    ("model of the environment", CONFIG, "MMCHAT_MODEL=fats mmchat ask hi"),
    ("address of the environment", NONE, "OPENAI_API_KEY=sk-1 OPENAI_BASE_URL=api.openai.com mmchat ask hi"),
    ("missing config", NONE, "mmchat --config missing.toml ask hi"),
    ("missing config of the environment", NONE, "MMCHAT_CONFIG=missing.toml mmchat ask hi"),
    ("config is a directory", NONE, "mmchat --config folder ask hi"),
    ("config is not UTF-8", NONE, "mmchat --config latin1.txt ask hi"),
    ("config is too large", NONE, "mmchat --config large.txt ask hi"),
    ("no config to check", NONE, "mmchat config check"),
    ("no config to migrate", NONE, "mmchat config migrate"),
    ("renamed key", RENAMED_KEY, "mmchat ask -m chat --dry-run hi"),
    ("nothing to migrate", CONFIG, "mmchat config migrate"),
    ("migrated config", RENAMED_KEY, "mmchat config migrate"),
];

/// A route with the old name of a key.
const RENAMED_KEY: &str = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
    [routes.chat]\nmodels = [\"shop/a\"]\non_cut = \"buffer\"\n";

/// Errors of the commands that edit the config.
const EDITS: &[Case] = &[
    ("endpoint without a name", CONFIG, "mmchat endpoint add"),
    ("endpoint with an invalid name", CONFIG, "mmchat endpoint add a/b --url http://h/v1"),
    ("endpoint that exists", CONFIG, "mmchat endpoint add shop --url http://h/v1"),
    ("endpoint without an address", CONFIG, "mmchat endpoint add box"),
    ("address without a scheme", CONFIG, "mmchat endpoint add box --url h:8000/v1"),
    ("address without a host", CONFIG, "mmchat endpoint add box --url http://"),
    ("address that is no URL", CONFIG, "mmchat endpoint add box --url box"),
    ("address with a user", CONFIG, "mmchat endpoint add box --url http://me:secret@h/v1"),
    ("key instead of its variable", CONFIG, "mmchat endpoint add box --url http://h/v1 --key-env sk-0123456789"),
    ("empty key", CONFIG, "mmchat endpoint add box --url http://h/v1 --key-stdin < empty.txt"),
    ("key of two lines", CONFIG, "mmchat endpoint add box --url http://h/v1 --key-stdin < two-lines.txt"),
    ("unknown endpoint to remove", CONFIG, "mmchat endpoint remove shpo"),
    ("endpoint in use", CONFIG, "mmchat endpoint remove shop"),
    ("model without a name", CONFIG, "mmchat model add"),
    ("model with an invalid name", CONFIG, "mmchat model add -e shop -m x -- -x"),
    ("model of an unknown endpoint", CONFIG, "mmchat model add new -e shpo -m x"),
    ("model that exists", CONFIG, "mmchat model add fast -e shop -m x"),
    ("model with the name of a route", CONFIG, "mmchat model add chat -e shop -m x"),
    ("model with the name of a set", CONFIG, "mmchat model add panel -e shop -m x"),
    ("model with an invalid price", CONFIG, "mmchat model add new -e shop -m x --price-input=-1 --price-output 1"),
    ("unknown model to remove", CONFIG, "mmchat model remove zebra"),
    ("model to remove with a typo", CONFIG, "mmchat model remove fats"),
    ("no model to remove", ENDPOINT_ONLY, "mmchat model remove fast"),
    ("model in use", CONFIG, "mmchat model remove fast"),
    ("unknown model to rename", CONFIG, "mmchat model rename fats quick"),
    ("new name is in use", CONFIG, "mmchat model rename fast strong"),
    ("invalid new name", CONFIG, "mmchat model rename fast a,b"),
    ("unknown default", CONFIG, "mmchat model default fats"),
    ("set as the default", CONFIG, "mmchat model default panel"),
    ("key with an invalid name", CONFIG, "mmchat key set a/b < good.key"),
    ("empty key to store", CONFIG, "mmchat key set shop < empty.txt"),
    ("key for an unknown endpoint", CONFIG, "mmchat key set new --endpoint shpo < good.key"),
    ("key without an endpoint", CONFIG, "mmchat key set new < good.key"),
    ("unknown key to remove", CONFIG, "mmchat key remove zebra"),
    ("key in use", KEY_IN_USE, "mmchat key remove spare"),
    ("key in use by a header", KEY_OF_HEADER, "mmchat key remove spare"),
    ("key of a client to remove everywhere", KEY_OF_CLIENT, "mmchat key remove spare --everywhere"),
    ("keys of headers and clients", KEY_OF_CLIENT, "mmchat key list"),
    ("preset with an invalid name", CONFIG, "mmchat presets edit a/b"),
    ("no editor", CONFIG, "mmchat presets edit new"),
    ("editor fails", CONFIG, "EDITOR=false mmchat presets edit new"),
    ("unknown editor", CONFIG, "EDITOR=no-such-editor mmchat presets edit new"),
    ("edited preset is invalid", CONFIG, "EDITOR=true mmchat presets edit typo"),
    ("invalid config to edit", "[endpoints", "mmchat model remove fast"),
    ("unknown tool to import", NONE, "mmchat config import other.txt --from langchian"),
    ("unknown format to import", NONE, "mmchat config import other.txt"),
    ("missing file to import", NONE, "mmchat config import missing.yaml"),
    ("invalid YAML to import", NONE, "mmchat config import broken.yaml"),
    ("nothing in the file of LiteLLM", NONE, "mmchat config import other.txt --from litellm"),
    ("nothing in the file of aichat", NONE, "mmchat config import other.txt --from aichat"),
    ("nothing in the file of llm", NONE, "mmchat config import other.txt --from llm"),
    ("nothing in the list of One-API", NONE, "mmchat config import other.txt --from one-api"),
    ("nothing in the file of Langchain-Chatchat", NONE, "mmchat config import other.txt --from langchain-chatchat"),
    ("nothing in its old file", NONE, "mmchat config import other.txt --from langchain-chatchat-python"),
    ("no variables", NONE, "mmchat config import other.txt --from env"),
    ("imported text is not UTF-8", NONE, "mmchat config import - < latin1.txt"),
    ("config exists", CONFIG, "mmchat init --yes"),
    ("init without a terminal", NONE, "mmchat init"),
    ("nothing found", NONE, "mmchat init --yes"),
    ("key without a name", NONE, "mmchat init --yes --key-env BOX_KEY"),
    ("key of an unknown endpoint", NONE, "mmchat init --yes --no-discover --key-env box=BOX_KEY"),
    ("key instead of its variable", NONE, "mmchat init --yes --endpoint box=http://h/v1 --key-env box=sk-0"),
    ("unknown vendor", NONE, "mmchat init --yes --no-discover --endpoint box"),
    ("invalid address", NONE, "mmchat init --yes --no-discover --endpoint box=ftp://h"),
    ("no models", NONE, "mmchat init --yes --no-discover --endpoint box=http://127.0.0.1:1/v1"),
    ("unknown model", NONE, "mmchat init --yes --no-discover --endpoint box=http://127.0.0.1:1/v1 --fast bux/x"),
];

/// An endpoint with a stored key.
const KEY_IN_USE: &str =
    "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = { file = \"keys/spare\" }\n";

/// A stored key that is sent as a header.
const KEY_OF_HEADER: &str =
    "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\nheaders = { x-team = { file = \"keys/spare\" } }\n";

/// A stored key that clients of the server use, beside a header.
const KEY_OF_CLIENT: &str = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\nheaders = { x-org = \"blue\" }\n\
    [serve.keys.app]\napi_key = { file = \"keys/spare\" }\n";

/// Errors of presets.
const PRESETS: &[Case] = &[
    ("variable and input are missing", CONFIG, "mmchat ask -m fast -p review"),
    ("variable is missing", CONFIG, "mmchat ask -m fast -p review hi"),
    ("input is missing", CONFIG, "mmchat ask -m fast -p review -P language=C"),
    ("variable without a value", CONFIG, "mmchat ask -m fast -p review -P language hi"),
    ("unknown variable", CONFIG, "mmchat ask -m fast -p review -P zebra=C hi"),
    ("variable with a typo", CONFIG, "mmchat ask -m fast -p review -P langauge=C hi"),
    ("preset without variables", CONFIG, "mmchat ask -m fast -p fixed -P language=C"),
    ("two inputs", CONFIG, "mmchat ask -m fast -p review -P language=C -P input=a hi"),
    ("template fails", CONFIG, "mmchat ask -m fast -p broken hi"),
    ("template does not end", CONFIG, "mmchat ask -m fast -p endless hi"),
    ("preset is defined twice", CONFIG, "mmchat ask -m fast -p both hi"),
    ("unknown key in a preset file", CONFIG, "mmchat ask -m fast -p typo hi"),
    ("invalid template in a preset file", CONFIG, "mmchat ask -m fast -p open hi"),
    ("list with invalid presets", CONFIG, "mmchat presets list"),
    ("no presets", NONE, "mmchat presets list"),
];

/// Endpoints whose keys cannot be used, by the reason.
const KEYS: &str = r#"
[endpoints]
unset = { base_url = "http://127.0.0.1:1/v1", api_key = { env = "SHOP_KEY" } }
file = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "good.key" } }
missing = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "missing.key" } }
folder = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "folder" } }
open = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "open.key" } }
empty = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "empty.key" } }
latin1 = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "latin1.key" } }
large = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "large.key" } }
bell = { base_url = "http://127.0.0.1:1/v1", api_key = { file = "bell.key" } }
program = { base_url = "http://127.0.0.1:1/v1", api_key = { command = ["no-such-program"] } }
fails = { base_url = "http://127.0.0.1:1/v1", api_key = { command = "echo locked >&2; exit 3" } }
silent = { base_url = "http://127.0.0.1:1/v1", api_key = { command = "true" } }
endless = { base_url = "http://127.0.0.1:1/v1", api_key = { command = "yes" } }
header = { base_url = "http://127.0.0.1:1/v1", headers = { x-org = { env = "SHOP_ORG" } } }
bell-header = { base_url = "http://127.0.0.1:1/v1", headers = { x-org = { file = "bell.key" } } }
slow = { base_url = "http://127.0.0.1:1/v1", api_key = { command = ["sleep", "9"] } }
"#;

/// Keys that cannot be used.
const KEY_ERRORS: &[Case] = &[
    ("unset variable", KEYS, "mmchat ask -m unset/x hi"),
    ("empty variable", KEYS, "SHOP_KEY= mmchat ask -m unset/x hi"),
    ("missing file", KEYS, "mmchat ask -m missing/x hi"),
    ("directory", KEYS, "mmchat ask -m folder/x hi"),
    ("file that others can read", KEYS, "mmchat ask -m open/x hi"),
    ("empty file", KEYS, "mmchat ask -m empty/x hi"),
    ("file that is not UTF-8", KEYS, "mmchat ask -m latin1/x hi"),
    ("large file", KEYS, "mmchat ask -m large/x hi"),
    ("key with a control character", KEYS, "mmchat ask -m bell/x hi"),
    ("unknown command", KEYS, "mmchat ask -m program/x hi"),
    ("failing command", KEYS, "mmchat ask -m fails/x hi"),
    ("command without output", KEYS, "mmchat ask -m silent/x hi"),
    ("command with endless output", KEYS, "mmchat ask -m endless/x hi"),
    ("header of an unset variable", KEYS, "mmchat ask -m header/x hi"),
    ("header with a control character", KEYS, "mmchat ask -m bell-header/x hi"),
    ("command that takes too long", KEYS, "mmchat ask -m slow/x --timeout 100ms hi"),
    ("list of keys", KEYS, "mmchat key list"),
    ("config that others can read", NONE, "mmchat --config open.toml config check"),
];

/// Connections that fail, and limits of this machine.
const LOCAL: &[Case] = &[
    ("connection refused", CONFIG, "mmchat ask -m fast hi"),
    ("connections of all candidates refused", CLOSED_PORTS, "mmchat ask -m chat hi"),
    ("models cannot be listed", CONFIG, "mmchat models available shop"),
    ("diagnosis of a closed port", CONFIG, "mmchat doctor"),
    ("missing ca_file", CA_FILES, "mmchat ask -m missing/x hi"),
    ("ca_file without a certificate", CA_FILES, "mmchat ask -m text/x hi"),
    ("proxy refuses", PROXY, "mmchat ask -m shop/x hi"),
    ("spend limit of the day", SPENT, "mmchat ask -m fast hi"),
    ("candidate over its spend limit", SPENT, "mmchat ask -m chat hi"),
];

/// A route over two endpoints, at which nothing listens.
const CLOSED_PORTS: &str = r#"
[endpoints]
one = { base_url = "http://127.0.0.1:1/v1" }
two = { base_url = "http://127.0.0.1:2/v1" }
[routes.chat]
models = ["one/x", "two/x"]
[retry]
# Which of two is expected back first is random.
further_attempts = 0
"#;

/// Endpoints with unusable certificates.
const CA_FILES: &str = r#"
[endpoints]
missing = { base_url = "https://127.0.0.1:1/v1", ca_file = "missing.pem" }
text = { base_url = "https://127.0.0.1:1/v1", ca_file = "prompt.txt" }
"#;

/// An endpoint behind a proxy that is not running.
const PROXY: &str = "[endpoints.shop]\nbase_url = \"http://h.invalid/v1\"\nproxy = \"http://127.0.0.1:1\"\n";

/// Models without anything left to spend.
const SPENT: &str = r#"
[endpoints.shop]
base_url = "http://127.0.0.1:1/v1"
[models]
fast = { endpoint = "shop", model = "m1", price = { input = 1.0, output = 2.0 } }
strong = { endpoint = "shop", model = "m2" }
[routes.chat]
models = ["fast", "strong"]
[spend]
day = 0
"#;

/// Settings of `serve` that cannot be used.
const SERVE: &[Case] = &[
    ("invalid address", CONFIG, "mmchat serve --check --listen nonsense"),
    ("reachable without client keys", CONFIG, "mmchat serve --check --listen 0.0.0.0:0"),
    (
        "client key of an unset variable",
        "[serve.keys.app]\napi_key = { env = \"APP_KEY\" }\n[endpoints.openai]\n",
        SERVE_ANY,
    ),
    ("short client key", "[serve.keys.app]\napi_key = { file = \"short.key\" }\n[endpoints.openai]\n", SERVE_ANY),
    (
        "equal client keys",
        "[serve.keys]\na.api_key = { file = \"good.key\" }\nb.api_key = { file = \"keys/spare\" }\n\
        [endpoints.openai]\n",
        SERVE_ANY,
    ),
    ("missing certificate", "[serve]\ncert = \"no.pem\"\nkey = \"no.key\"\n[endpoints.openai]\n", SERVE_ANY),
    ("no certificate", "[serve]\ncert = \"prompt.txt\"\nkey = \"no.key\"\n[endpoints.openai]\n", SERVE_ANY),
    ("missing private key", "[serve]\ncert = \"localhost.pem\"\nkey = \"no.key\"\n[endpoints.openai]\n", SERVE_ANY),
    ("no private key", "[serve]\ncert = \"localhost.pem\"\nkey = \"prompt.txt\"\n[endpoints.openai]\n", SERVE_ANY),
    (
        "private key of another certificate",
        "[serve]\ncert = \"localhost.pem\"\nkey = \"another-host.key\"\n[endpoints.openai]\n",
        SERVE_ANY,
    ),
];

const SERVE_ANY: &str = "mmchat serve --check --listen 127.0.0.1:0";

/// Arguments of `mock` that cannot be used.
const MOCK: &[Case] = &[
    ("unknown fault", NONE, "mmchat mock --fault zebra"),
    ("unknown setting", NONE, "mmchat mock --model fast=speed=1"),
    ("unknown fault of a model", NONE, "mmchat mock --model fast=zebra"),
    ("setting that is not a number", NONE, "mmchat mock --model fast=tps=many"),
    ("setting that is not a whole number", NONE, "mmchat mock --model fast=tokens=1.5"),
    ("negative setting", NONE, "mmchat mock --model fast=tps=-1"),
    ("setting above the limit", NONE, "mmchat mock --tokens 9999999"),
    ("setting that is not a duration", NONE, "mmchat mock --model fast=ttft=soon"),
];

/// Commands that need a stored conversation, without one.
const NO_HISTORY: &[Case] = &[
    ("ask", CONFIG, "mmchat ask --continue hi"),
    ("compare", CONFIG, "mmchat compare --continue hi"),
    ("chat", CONFIG, "mmchat chat --continue < empty.txt"),
    ("again", CONFIG, "mmchat again"),
    ("retry", CONFIG, "mmchat retry"),
    ("pick", CONFIG, "mmchat pick"),
    ("history", CONFIG, "mmchat history"),
    ("history search", CONFIG, "mmchat history search zebra"),
    ("history show", CONFIG, "mmchat history show"),
    ("history export", CONFIG, "mmchat history export"),
    ("history delete", CONFIG, "mmchat history delete 1"),
    ("history prune", CONFIG, "mmchat history prune"),
    ("stats", CONFIG, "mmchat stats"),
    ("invalid reference", CONFIG, "mmchat again 12@"),
];

/// Beginnings of config files.
const IN_ENDPOINT: &str = "[endpoints.openai]\n";
const IN_MODEL: &str = "[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"x\"\n";
const IN_ROUTE: &str = "[endpoints.openai]\n[routes.chat]\n";

/// Config files with problems: the problem, the beginning and the rest.
const PROBLEMS: &[(&str, &str, &str)] = &[
    ("invalid TOML", "", "[endpoints.shop\n"),
    ("unknown table", "", "[endpoint.shop]\n"),
    ("unknown key", "", "[endpoints.shop]\nbase_ur = \"http://h/v1\"\n"),
    ("key defined twice", "", "[endpoints.shop]\nbase_url = \"http://h/v1\"\nbase_url = \"http://h/v1\"\n"),
    ("table defined twice", IN_ENDPOINT, "[endpoints.openai]\n"),
    ("wrong type", "", "[endpoints.shop]\nbase_url = 1\n"),
    ("number in quotes", IN_ENDPOINT, "max_concurrency = \"4\"\n"),
    ("negative number", IN_ENDPOINT, "rpm = -1\n"),
    ("missing key", IN_ENDPOINT, "[models.fast]\nendpoint = \"openai\"\n"),
    ("no base_url", "", "[endpoints.shop]\n"),
    ("base_url without a scheme", "", "[endpoints.shop]\nbase_url = \"h:8000/v1\"\n"),
    ("base_url without a host", "", "[endpoints.shop]\nbase_url = \"http://\"\n"),
    ("base_url that is no URL", "", "[endpoints.shop]\nbase_url = \"shop\"\n"),
    ("unknown protocol", IN_ENDPOINT, "protocol = \"openia\"\n"),
    ("one key and several keys", IN_ENDPOINT, "api_key = \"sk-0123456789\"\napi_keys = [\"sk-9876543210\"]\n"),
    ("empty key", IN_ENDPOINT, "api_key = \" \"\n"),
    ("unknown source of a key", IN_ENDPOINT, "api_key = { vault = \"x\" }\n"),
    ("two sources of a key", IN_ENDPOINT, "api_key = { env = \"A\", file = \"b\" }\n"),
    ("key that is a number", IN_ENDPOINT, "api_key = 1\n"),
    ("empty command", IN_ENDPOINT, "api_key = { command = [] }\n"),
    ("empty command line", IN_ENDPOINT, "api_key = { command = \" \" }\n"),
    ("invalid header", IN_ENDPOINT, "headers = { \"x org\" = \"a\" }\n"),
    ("invalid proxy", IN_ENDPOINT, "proxy = \"ftp://h\"\n"),
    ("concurrency 0", IN_ENDPOINT, "max_concurrency = 0\n"),
    ("invalid duration", IN_ENDPOINT, "timeouts = { idle = \"soon\" }\n"),
    ("duration 0", IN_ENDPOINT, "timeouts = { idle = \"0s\" }\n"),
    ("duration that is a number", IN_ENDPOINT, "timeouts = { idle = 5 }\n"),
    ("unknown endpoint", IN_ENDPOINT, "[models.fast]\nendpoint = \"opnai\"\nmodel = \"x\"\n"),
    ("empty model", IN_ENDPOINT, "[models.fast]\nendpoint = \"openai\"\nmodel = \"\"\n"),
    ("reserved field", IN_MODEL, "extra = { stream = true }\n"),
    ("unknown parameter", IN_MODEL, "params = { temprature = 1 }\n"),
    ("unknown capability", IN_MODEL, "capabilities = [\"image\"]\n"),
    ("negative price", IN_MODEL, "price = { input = -1.0, output = 1.0 }\n"),
    ("unknown currency", IN_MODEL, "price = { input = 1.0, output = 1.0, currency = \"dollar\" }\n"),
    ("name of a model and a route", IN_MODEL, "[routes.fast]\nmodels = [\"openai/x\"]\n"),
    ("invalid name", IN_ENDPOINT, "[models.\"a,b\"]\nendpoint = \"openai\"\nmodel = \"x\"\n"),
    (
        "model with the name of an endpoint's model",
        IN_ENDPOINT,
        "[models.\"openai/b\"]\nendpoint = \"openai\"\nmodel = \"x\"\n",
    ),
    ("empty name", IN_ENDPOINT, "[routes.\"\"]\nmodels = [\"openai/x\"]\n"),
    ("route without models", "", "[routes.chat]\nmodels = []\n"),
    ("route of an unknown model", IN_MODEL, "[routes.chat]\nmodels = [\"fats\"]\n"),
    ("route in a route", IN_ENDPOINT, "[routes.one]\nmodels = [\"openai/x\"]\n[routes.two]\nmodels = [\"one\"]\n"),
    ("model twice in a route", IN_ROUTE, "models = [\"openai/x\", \"openai/x\"]\n"),
    ("unknown strategy", IN_ROUTE, "strategy = \"random\"\nmodels = [\"openai/x\"]\n"),
    ("unknown on_incomplete", IN_ROUTE, "on_incomplete = \"retry\"\nmodels = [\"openai/x\"]\n"),
    (
        "old and new name of a key",
        IN_ROUTE,
        "models = [\"openai/x\"]\non_cut = \"error\"\non_incomplete = \"error\"\nstrategy = 5\n",
    ),
    ("unknown on_filter", IN_ROUTE, "on_filter = \"skip\"\nmodels = [\"openai/x\"]\n"),
    ("weights 0", IN_ROUTE, "strategy = \"weighted\"\nmodels = [{ name = \"openai/x\", weight = 0 }]\n"),
    ("invalid member", IN_ROUTE, "models = [{ model = \"openai/x\" }]\n"),
    (
        "prices in two currencies",
        IN_ENDPOINT,
        "[models]\na = { endpoint = \"openai\", model = \"a\", price = { input = 1.0, output = 1.0 } }\n\
        b = { endpoint = \"openai\", model = \"b\", price = { input = 1.0, output = 1.0, currency = \"CNY\" } }\n\
        [routes.chat]\nstrategy = \"cheapest\"\nmodels = [\"a\", \"b\"]\n",
    ),
    ("empty set", "", "[sets]\npanel = []\n"),
    ("set in a set", IN_ENDPOINT, "[sets]\none = [\"openai/x\"]\ntwo = [\"one\"]\n"),
    (
        "unknown default",
        "",
        "default = \"fats\"\n[endpoints.openai]\n[models.fast]\nendpoint = \"openai\"\nmodel = \"x\"\n",
    ),
    ("set as the default", "", "default = \"panel\"\n[endpoints.openai]\n[sets]\npanel = [\"openai/x\"]\n"),
    ("unknown compare", "", "compare = \"panle\"\n[endpoints.openai]\n[sets]\npanel = [\"openai/x\"]\n"),
    ("unknown context", "", "context = \"both\"\n"),
    ("history_days 0", "", "history_days = 0\n"),
    ("invalid template", "", "[presets.review]\nprompt = \"{{ open\"\n"),
    ("unknown model of a preset", "", "[presets.review]\nmodel = \"fast\"\nprompt = \"a\"\n"),
    ("spend limit of an unknown endpoint", IN_ENDPOINT, "[spend.endpoints.opnai]\nday = 1\n"),
    ("spend limit of an unknown model", "", "[spend.models.fast]\nday = 1\n"),
    ("spend limit without a price", IN_MODEL, "[spend.models.fast]\nday = 1\n"),
    ("negative spend limit", "", "[spend]\nday = -1\n"),
    ("spend limit in an unknown currency", "", "[spend]\nday = { dollar = 1.0 }\n"),
    ("two spend limits in a currency", "", "[spend]\nday = { EUR = 1.0, eur = 2.0 }\n"),
    ("spend limit that is text", "", "[spend]\nday = \"1\"\n"),
    ("listen without a port", "", "[serve]\nlisten = \"localhost\"\n"),
    ("host with a port", "", "[serve]\nhosts = [\"models.local:8484\"]\n"),
    ("invalid origin", "", "[serve]\ncors = [\"chat.example.com\"]\n"),
    ("certificate without a key", "", "[serve]\ncert = \"a.pem\"\n"),
    ("memory_mb too small", "", "[serve]\nmemory_mb = 90\n"),
    ("max_body_mb 0", "", "[serve]\nmax_body_mb = 0\n"),
    ("hold 0", "", "[serve]\nhold = \"0s\"\n"),
    ("client without a key", "", "[serve.keys.app]\nrpm = 1\n"),
    ("client without models", "", "[serve.keys.app]\napi_key = { env = \"APP_KEY\" }\nmodels = []\n"),
    ("unknown model of a client", "", "[serve.keys.app]\napi_key = { env = \"APP_KEY\" }\nmodels = [\"fast\"]\n"),
    ("several problems", "", "default = \"fats\"\n[endpoints.shop]\n[routes.chat]\nmodels = []\n"),
    (
        "warnings of an endpoint",
        "",
        "[endpoints.shop]\nbase_url = \"http://me:secret@h\"\napi_key = { env = \"A\" }\n\
        headers = { authorization = { env = \"B\" } }\n",
    ),
    ("warning about weights", IN_ROUTE, "models = [{ name = \"openai/x\", weight = 2 }]\n"),
    ("warning about sticky", IN_ROUTE, "sticky = true\nstrategy = \"fastest\"\nmodels = [\"openai/x\"]\n"),
    ("warning about a price", IN_ROUTE, "strategy = \"cheapest\"\nmodels = [\"openai/x\"]\n"),
];

/// Error responses: what they are, the status, headers and the body.
const ERROR_RESPONSES: &[(&str, &str, &str, &str)] = &[
    ("invalid request", "400 Bad Request", "", r#"{"error":{"message":"messages is required"}}"#),
    (
        "prompt is too long",
        "400 Bad Request",
        "",
        r#"{"error":{"message":"maximum context length is 8192 tokens","code":"context_length_exceeded"}}"#,
    ),
    (
        "content filter",
        "400 Bad Request",
        "",
        r#"{"error":{"message":"rejected by our policy","code":"content_policy_violation"}}"#,
    ),
    ("LiteLLM without a database", "400 Bad Request", "", r#"{"error":{"message":"No connected db."}}"#),
    ("control characters", "400 Bad Request", "", r#"{"error":{"message":"one\nline, \u001b[31mnot red"}}"#),
    (
        "key rejected",
        "401 Unauthorized",
        "",
        r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#,
    ),
    ("no balance", "402 Payment Required", "", r#"{"error":{"message":"Insufficient Balance"}}"#),
    ("not permitted", "403 Forbidden", "", r#"{"error":{"message":"this key may not use the model"}}"#),
    ("unknown model", "404 Not Found", "", r#"{"error":{"message":"The model `x` does not exist"}}"#),
    ("no API", "404 Not Found", "content-type: text/html\r\n", "<html><title>404 Not Found</title></html>"),
    ("method not allowed", "405 Method Not Allowed", "", ""),
    ("request timed out", "408 Request Timeout", "", ""),
    ("conflict", "409 Conflict", "", r#"{"error":{"message":"try again"}}"#),
    ("too large", "413 Payload Too Large", "", "<html><title>413 Request Entity Too Large</title></html>"),
    ("FastAPI", "422 Unprocessable Entity", "", r#"{"detail":[{"loc":["body","model"],"msg":"Field required"}]}"#),
    (
        "rate limit",
        "429 Too Many Requests",
        "retry-after: 90\r\nx-request-id: req-42\r\n",
        r#"{"error":{"message":"slow down"}}"#,
    ),
    (
        "quota",
        "429 Too Many Requests",
        "",
        r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
    ),
    ("server error", "500 Internal Server Error", "", r#"{"error":{"message":"boom"}}"#),
    ("server error as text", "500 Internal Server Error", "", "upstream connect error"),
    ("server error without a body", "500 Internal Server Error", "", ""),
    ("bad gateway", "502 Bad Gateway", "content-type: text/html\r\n", "<html><title>502 Bad Gateway</title></html>"),
    ("overloaded", "503 Service Unavailable", "retry-after: 90\r\n", r#"{"error":{"message":"overloaded"}}"#),
    (
        "no channel",
        "503 Service Unavailable",
        "x-oneapi-request-id: req-42\r\n",
        r#"{"error":{"message":"no available channel for model x"}}"#,
    ),
    ("gateway timed out", "504 Gateway Timeout", "", ""),
    ("redirect", "302 Found", "location: http://elsewhere.invalid/v1\r\n", ""),
    ("redirect without an address", "302 Found", "", ""),
];

/// Responses with status 200 that are no answer.
fn invalid_responses() -> Vec<(&'static str, String)> {
    let json = |body: &str| http_response("200 OK", "content-type: application/json\r\n", body);
    let page = "<html><title>Login</title></html>";
    vec![
        ("page", http_response("200 OK", "content-type: text/html\r\n", page)),
        ("text", http_response("200 OK", "content-type: text/plain\r\n", "ready")),
        ("empty body", http_response("200 OK", "", "")),
        ("JSON without an answer", json(r#"{"id":"x"}"#)),
        ("error", json(r#"{"error":{"message":"boom","code":"server_error"}}"#)),
        ("error event", format!("{STREAM}data: {{\"error\":{{\"message\":\"upstream died\",\"code\":503}}}}\n\n")),
        ("error event without a code", format!("{STREAM}data: {{\"error\":{{\"message\":\"odd\"}}}}\n\n")),
        ("stream without an event", STREAM.to_owned()),
        ("stream without text", format!("{STREAM}{}", delta_event(r#"{"role":"assistant"}"#))),
        ("event that is not JSON", format!("{STREAM}data: {{\"choices\":[\n\n")),
        ("connection closed", String::new()),
        ("not HTTP", "220 mail.invalid ESMTP\r\n".to_owned()),
        ("unknown compression", http_response("200 OK", "content-encoding: br\r\n", "compressed")),
        ("invalid compression", http_response("200 OK", "content-encoding: gzip\r\n", "not compressed")),
        ("body that ends early", "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"choices\":[".to_owned()),
    ]
}

/// Answers that break off.
fn incomplete_answers() -> Vec<(&'static str, String)> {
    let begin = content_event("half an");
    let chunked = STREAM.replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n");
    let one_api = STREAM.replace("\r\n\r\n", "\r\nx-oneapi-request-id: req-42\r\n\r\n");
    vec![
        ("stream ends", format!("{STREAM}{begin}")),
        ("connection is lost", format!("{chunked}{:x}\r\n{begin}\r\n", begin.len())),
        ("error event", format!("{STREAM}{begin}data: {{\"error\":{{\"message\":\"upstream died\"}}}}\n\n")),
        ("invalid chunk", format!("{STREAM}{begin}data: {{\"choices\":[\n\n{STOP}")),
        ("finish reason error", format!("{STREAM}{begin}{}", finish_event("error"))),
        ("end signal of a gateway", format!("{one_api}{begin}data: [DONE]\n\n")),
    ]
}

/// Complete answers with a warning.
fn answers_with_warnings() -> Vec<(&'static str, String)> {
    let text = content_event("an answer");
    let reasoning = delta_event(r#"{"reasoning_content":"hm"}"#);
    let call = delta_event(r#"{"tool_calls":[{"index":0,"id":"1","function":{"name":"search","arguments":"{}"}}]}"#);
    let second = text.replace("\"index\":0", "\"index\":1");
    let stream = |events: &[&str]| format!("{STREAM}{}", events.concat());
    vec![
        ("token limit", stream(&[&text, &finish_event("length")])),
        ("token limit during reasoning", stream(&[&reasoning, &finish_event("length")])),
        ("content filter", stream(&[&text, &finish_event("content_filter")])),
        ("content filter before the text", stream(&[&finish_event("content_filter")])),
        ("tool call", stream(&[&call, &finish_event("tool_calls")])),
        ("unknown finish reason", stream(&[&text, &finish_event("pause")])),
        ("no finish reason", stream(&[&text, "data: [DONE]\n\n"])),
        ("empty answer", stream(&[STOP])),
        ("only reasoning", stream(&[&reasoning, STOP])),
        ("several choices", stream(&[&text, &second, STOP])),
        (
            "error after the end",
            stream(&[&text, STOP.trim_end_matches("data: [DONE]\n\n"), "data: {\"error\":{\"message\":\"late\"}}\n\n"]),
        ),
    ]
}

/// An event with this delta.
fn delta_event(delta: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n")
}

/// The end of a stream with this finish reason.
fn finish_event(reason: &str) -> String {
    STOP.replace("\"stop\"", &format!("\"{reason}\""))
}

/// The end of the config for a route over two models of the server.
const ROUTE: &str = "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\n";

/// A reply that is sent at once.
fn reply(text: &str) -> Vec<ServerStep> {
    vec![ServerStep::Bytes(text.as_bytes().to_vec())]
}

/// Runs a command line with the endpoint `m` at a server that sends these replies. `more` follows the URL in the
/// config.
fn run_with_server(title: &str, more: &str, line: &str, replies: Vec<Vec<ServerStep>>) -> String {
    let server = ScriptedServer::start(replies);
    let env = case_env(&format!("[endpoints.m]\nbase_url = \"{}\"\n{more}", server.url()));
    let text = mask(&env, &format!("# {title}\n{}", run_line(&env, line)));
    mask_times(&mask_address(&server, &text))
}

/// Replaces the port of the server.
fn mask_address(server: &ScriptedServer, text: &str) -> String {
    let url = server.url();
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    text.replace(address, "127.0.0.1:[PORT]")
}

/// Asks a model for each of these replies; failures are not retried.
fn run_replies(replies: &[(&'static str, String)]) -> Vec<String> {
    let ask = |(title, text): &(&'static str, String)| {
        run_with_server(title, NO_RETRIES, "mmchat ask -m m/x hi", vec![reply(text)])
    };
    replies.iter().map(ask).collect()
}

#[test]
fn argument_parser() {
    assert_list("errors_arguments", &run_cases(PARSER));
}

#[test]
fn requests() {
    assert_list("errors_requests", &run_cases(REQUEST));
}

#[test]
fn names() {
    assert_list("errors_names", &run_cases(NAMES));
}

#[test]
fn settings() {
    assert_list("errors_settings", &run_cases(SETTINGS));
}

#[test]
fn edits() {
    assert_list("errors_edits", &run_cases(EDITS));
}

#[test]
fn presets() {
    assert_list("errors_presets", &run_cases(PRESETS));
}

#[test]
fn keys() {
    assert_list("errors_keys", &run_cases(KEY_ERRORS));
}

/// With the feature, the result depends on the keyring of the machine.
#[cfg(not(feature = "keyring"))]
#[test]
fn keyring() {
    let config = "[endpoints.shop]\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = { keyring = \"shop\" }\n";
    let cases: &[Case] = &[
        ("key in the keyring", config, "mmchat ask -m shop/x hi"),
        ("key to store", config, "mmchat key set shop --keyring < good.key"),
        ("key to remove", config, "mmchat key remove shop --keyring --everywhere"),
        ("list of keys", config, "mmchat key list"),
    ];
    assert_list("errors_keyring", &run_cases(cases));
}

#[test]
fn connections_and_limits() {
    let texts: Vec<String> = run_cases(LOCAL).iter().map(|text| mask_times(text)).collect();
    assert_list("errors_connections", &texts);
}

#[test]
fn serve_settings() {
    assert_list("errors_serve", &run_cases(SERVE));
}

#[test]
fn mock_arguments() {
    assert_list("errors_mock", &run_cases(MOCK));
}

#[test]
fn commands_without_a_conversation() {
    assert_list("errors_no_history", &run_cases(NO_HISTORY));
}

#[test]
fn config_problems() {
    let check =
        |(title, begin, rest): &(&str, &str, &str)| run_case(title, &format!("{begin}{rest}"), "mmchat config check");
    assert_list("errors_config", &PROBLEMS.iter().map(check).collect::<Vec<_>>());
}

#[test]
fn port_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
    let port = listener.local_addr().expect("bound address").port().to_string();
    let lines = [format!("mmchat mock --port {port}"), format!("mmchat serve --check --listen 127.0.0.1:{port}")];
    let texts = run_lines(&case_env(CONFIG), &lines.each_ref().map(String::as_str));
    let texts: Vec<String> = texts.iter().map(|text| text.replace(&port, "[PORT]")).collect();
    assert_list("errors_port_in_use", &texts);
}

#[test]
fn standard_input_that_stays_open() {
    let env = case_env(CONFIG);
    let arguments = ["ask", "-m", "fast", "--stdin-timeout", "1s", "hi"];
    let mut command = env.command();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("binary starts");
    let stdin = child.stdin.take();
    let result = CommandResult::from_output(child.wait_with_output().expect("child has been started"));
    drop(stdin);
    assert_list("errors_open_stdin", &[describe(&format!("mmchat {}", arguments.join(" ")), &result)]);
}

#[test]
fn chat_commands() {
    let lines = ["mmchat chat -m fast,strong < chat.txt", "mmchat chat -m fast < attach.txt"];
    assert_list("errors_chat", &run_lines(&case_env(CONFIG), &lines));
}

#[test]
fn error_responses() {
    let replies: Vec<(&str, String)> = ERROR_RESPONSES
        .iter()
        .map(|(title, status, headers, body)| (*title, http_response(status, headers, body)))
        .collect();
    assert_list("errors_responses", &run_replies(&replies));
}

#[test]
fn invalid_and_incomplete_responses() {
    assert_list("errors_invalid_responses", &run_replies(&invalid_responses()));
    assert_list("errors_incomplete", &run_replies(&incomplete_answers()));
}

#[test]
fn warnings_about_answers() {
    assert_list("warnings_answers", &run_replies(&answers_with_warnings()));
}

#[test]
fn timeouts() {
    let begin = format!("{STREAM}{}", content_event("half an"));
    let silent = || vec![vec![ServerStep::HoldOpen]];
    let stalled = || vec![vec![ServerStep::Bytes(begin.clone().into_bytes()), ServerStep::HoldOpen]];
    let (ask_with_timeout, ask) = ("mmchat ask -m m/x --timeout 400ms hi", "mmchat ask -m m/x hi");
    let limit_of = |name: &str| format!("timeouts = {{ {name} = \"400ms\" }}\n");
    let texts = [
        run_with_server("time of the command", "", ask_with_timeout, silent()),
        run_with_server("time of the command, with a partial answer", "", ask_with_timeout, stalled()),
        run_with_server("first token", &limit_of("first_token"), ask, silent()),
        run_with_server("complete answer", &limit_of("total"), ask, silent()),
        run_with_server("complete answer, with a partial answer", &limit_of("total"), ask, stalled()),
        run_with_server("between two chunks", &limit_of("idle"), ask, stalled()),
    ];
    assert_list("errors_timeouts", &texts);
}

#[test]
fn failover() {
    let error = |status: &str, headers: &str, message: &str| {
        http_response(status, headers, &format!("{{\"error\":{{\"message\":\"{message}\"}}}}"))
    };
    let run = |title: &str, more: &str, line: &str, replies: &[&String]| {
        run_with_server(title, more, line, replies.iter().map(|text| reply(text)).collect())
    };
    let (answer, half) = (&answer("an answer"), &format!("{STREAM}{}", content_event("half an")));
    let rate = &error("429 Too Many Requests", "retry-after: 90\r\n", "slow down");
    // The script has one reply for each connection.
    let auth = &error("401 Unauthorized", "connection: close\r\n", "wrong key");
    let server = &error("500 Internal Server Error", "", "boom");
    let context = &error("400 Bad Request", "", "prompt is too long");
    let parameter = &error("400 Bad Request", "connection: close\r\n", "Unsupported parameter: 'temperature'");
    let path = &http_response("404 Not Found", "", "<html><title>nothing here</title></html>");
    let filter = &format!("{STREAM}{}", finish_event("content_filter"));
    let (chat, model) = ("mmchat ask -m chat hi", "mmchat ask -m m/x hi");
    let texts = [
        run("next candidate", ROUTE, chat, &[rate, answer]),
        run("next candidate, with all attempts", ROUTE, "mmchat ask -v -m chat hi", &[rate, answer]),
        run("no candidate answers", ROUTE, chat, &[rate, path]),
        run("answer is incomplete", ROUTE, chat, &[half]),
        run("answer is restarted", RESTARTING_ROUTE, chat, &[half, answer]),
        run("answer is restarted before it is shown", ROUTE, "mmchat ask --buffer -m chat hi", &[half, answer]),
        run("content filter", ROUTE, chat, &[filter]),
        run("content filter, next candidate", FILTERED_ROUTE, chat, &[filter, answer]),
        run("no candidate with a larger context", SMALL_CONTEXTS, chat, &[context]),
        run("prompt that does not fit a candidate", SMALL_MODEL, "mmchat ask -m chat what is this", &[answer]),
        run("image for a candidate without images", TEXT_MODEL, "mmchat ask -m chat -f pixel.png", &[answer]),
        run("next key", TWO_KEYS, model, &[auth, answer]),
        run("no key is accepted", TWO_KEYS, model, &[auth, auth]),
        run("repeated request, with all attempts", "", "mmchat ask -v -m m/x hi", &[server, answer]),
        run("another parameter", "", "mmchat ask -m m/x --temperature 0.5 hi", &[parameter, answer]),
        run("no request slot", ONE_SLOT, chat, &[rate]),
    ];
    assert_list("failover", &texts);
}

/// The ends of the configs of [`failover`].
const SMALL_CONTEXTS: &str = "[models.a]\nendpoint = \"m\"\nmodel = \"a\"\ncontext = 8000\n\
    [models.b]\nendpoint = \"m\"\nmodel = \"b\"\ncontext = 4000\n[routes.chat]\nmodels = [\"a\", \"b\"]\n";
const RESTARTING_ROUTE: &str = "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\non_incomplete = \"restart\"\n";
const FILTERED_ROUTE: &str = "[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\non_filter = \"next\"\n";
const TWO_KEYS: &str = "api_keys = [\"sk-0123456789\", \"sk-9876543210\"]\n";
const ONE_SLOT: &str = "rpm = 1\nqueue = \"50ms\"\n[routes.chat]\nmodels = [\"m/a\", \"m/b\"]\n";
const SMALL_MODEL: &str = "[models.small]\nendpoint = \"m\"\nmodel = \"s\"\ncontext = 1\n\
    [routes.chat]\nmodels = [\"small\", \"m/b\"]\n";
const TEXT_MODEL: &str = "[models.text]\nendpoint = \"m\"\nmodel = \"t\"\ncapabilities = [\"tools\"]\n\
    [routes.chat]\nmodels = [\"text\", \"m/b\"]\n";

/// Commands that show the health of a route, after a failure.
#[test]
fn health() {
    let rate = http_response("429 Too Many Requests", "retry-after: 90\r\n", r#"{"error":{"message":"slow down"}}"#);
    let server = ScriptedServer::with_replies(&[&rate, &answer("first"), &answer("second")]);
    let env = case_env(&format!("[endpoints.m]\nbase_url = \"{}\"\n{ROUTE}", server.url()));
    let lines = [
        "mmchat ask -m chat hi",
        "mmchat ask -v -m chat hi",
        "mmchat route explain chat",
        "mmchat status",
        "mmchat reset m/a",
        "mmchat reset m/a",
        "mmchat status",
    ];
    let texts = run_lines(&env, &lines);
    let texts: Vec<String> = texts.iter().map(|text| mask_times(&mask_address(&server, text))).collect();
    assert_list("health", &texts);
}

/// Diagnoses of a server that answers everything in the same way.
#[test]
fn diagnoses() {
    let auth = http_response("401 Unauthorized", "", r#"{"error":{"message":"wrong key"}}"#);
    let quota = http_response("402 Payment Required", "", r#"{"error":{"message":"Insufficient Balance"}}"#);
    let missing = http_response("404 Not Found", "", "<html><title>404 Not Found</title></html>");
    let page = http_response("200 OK", "content-type: text/html\r\n", "<html><title>Login</title></html>");
    let model = "[models.fast]\nendpoint = \"m\"\nmodel = \"x\"\n";
    let diagnose = |(title, text): (&str, &String)| {
        let server = ScriptedServer::start((0..200).map(|_| reply(text)).collect());
        let env = case_env(&format!("[endpoints.m]\nbase_url = \"{}\"\n{model}{NO_RETRIES}", server.url()));
        let texts = run_lines(&env, &["mmchat ping --deep", "mmchat doctor"]);
        server.discard_remaining();
        format!("# {title}\n{}", mask_times(&mask_address(&server, &texts.join("\n"))))
    };
    let cases = [("wrong key", &auth), ("no balance", &quota), ("no API", &missing), ("page", &page)];
    assert_list("diagnoses", &cases.map(diagnose));
}

/// Files of the state directory that cannot be used.
#[test]
fn damaged_state() {
    let damaged = |name: &str, bytes: &[u8]| {
        let env = case_env(CONFIG);
        write_file(&env.path("state/mmchat").join(name), bytes);
        env
    };
    let folder = |name: &str| {
        let env = case_env(CONFIG);
        fs::create_dir_all(env.path("state/mmchat").join(name)).expect("writable directory");
        env
    };
    let foreign = damaged("record.db", b"");
    let database = rusqlite::Connection::open(foreign.path("state/mmchat/record.db")).expect("writable file");
    database.execute_batch("CREATE TABLE notes (text)").expect("writable database");
    let newer = damaged("record.db", b"");
    Database::open(&newer.path("state/mmchat/record.db"))
        .and_then(|database| database.set_version_for_tests(99))
        .expect("writable database");
    let not_a_database = b"not a database at all, but longer than its head would be ".repeat(99);
    let texts = [
        run_lines(&damaged("record.db", &not_a_database), &["mmchat history", "mmchat stats", "mmchat pick"]),
        run_lines(&foreign, &["mmchat history"]),
        run_lines(&newer, &["mmchat history"]),
        run_lines(&folder("record.db"), &["mmchat history"]),
        run_lines(
            &damaged("health.json", b"{\"entries\": ["),
            &["mmchat status", "mmchat reset --all", "mmchat status"],
        ),
        run_lines(&folder("health.json"), &["mmchat status", "mmchat reset --all"]),
    ];
    assert_list("errors_state", &texts.concat());
}

/// References to the turns of stored conversations.
#[test]
fn history() {
    let rejected = http_response("400 Bad Request", "", r#"{"error":{"message":"not like this"}}"#);
    let good = ScriptedServer::with_replies(&[&answer("first"), &answer("second")]);
    let bad = ScriptedServer::with_replies(&[&rejected]);
    let env = case_env(&models_config(&[("good", &good), ("bad", &bad)]));
    for line in ["mmchat ask -m good hi", "mmchat compare -m good,bad hi"] {
        run_line(&env, line);
    }
    assert_list("errors_history", &run_lines(&env, HISTORY));
}

/// Conversation 1 has one answer; conversation 2 has an answer and a failure side by side.
const HISTORY: &[&str] = &[
    "mmchat ask --continue=9 hi",
    "mmchat ask --continue=1.5 hi",
    "mmchat ask --continue=1@5 hi",
    "mmchat ask --continue=2 hi",
    "mmchat ask --continue=first hi",
    "mmchat again 2@7",
    "mmchat again 1 -m gud",
    "mmchat pick 2",
    "mmchat pick 2@2",
    "mmchat pick 9",
    "mmchat retry 1",
    "mmchat retry 2@9",
    "mmchat compare --continue=2 -n 2 hi",
    "mmchat compare --continue=2 --context shared hi",
    "mmchat compare --continue=2@1 --context separate hi",
    "mmchat chat --continue=9 < empty.txt",
    "mmchat history show 9",
    "mmchat history show 2@2",
    "mmchat history export 2@3",
    "mmchat history export --output no/such/file",
    "mmchat history delete 9",
    "mmchat history delete --all",
    "mmchat history prune",
    "mmchat pick 2@1",
];

/// The config of [`rejections`].
const CLIENTS: &str = r#"
[endpoints.shop]
base_url = "http://127.0.0.1:1/v1"
[models]
fast = { endpoint = "shop", model = "m1", capabilities = ["tools"] }
strong = { endpoint = "shop", model = "m2" }
[serve]
max_body_mb = 1
[serve.keys]
all = { api_key = { file = "good.key" } }
some = { api_key = { file = "other.key" }, models = ["fast"] }
limited = { api_key = { file = "third.key" }, rpm = 1, spend = 5 }
"#;

const ALL: &str = "authorization: Bearer sk-0123456789\r\n";
const SOME: &str = "authorization: Bearer sk-9876543210\r\n";
const LIMITED: &str = "authorization: Bearer sk-5555555555\r\n";
const CHAT: &str = "POST /v1/chat/completions";

/// Requests that `serve` rejects: why, the first line, headers and the body.
const REJECTIONS: &[(&str, &str, &str, &str)] = &[
    ("no client key", CHAT, "", "{}"),
    ("unknown client key", CHAT, "authorization: Bearer sk-0000000000\r\n", "{}"),
    ("model of other clients", CHAT, SOME, r#"{"model":"strong","messages":[]}"#),
    ("metrics of other clients", "GET /metrics", SOME, ""),
    ("model without a price", CHAT, LIMITED, r#"{"model":"shop/x","messages":[]}"#),
    ("second request of a minute", CHAT, LIMITED, r#"{"model":"fast","messages":[]}"#),
    ("unknown model", CHAT, ALL, r#"{"model":"fats","messages":[]}"#),
    ("unknown model of a list", "GET /v1/models/fats", ALL, ""),
    ("unknown path", "GET /v2/models", ALL, ""),
    ("wrong method", "GET /v1/chat/completions", ALL, ""),
    ("unknown host", "GET /v1/models", "host: elsewhere.invalid\r\n", ""),
    ("unknown origin", "GET /v1/models", "origin: https://elsewhere.invalid\r\n", ""),
    ("body that is not JSON", CHAT, ALL, "{"),
    ("body that is no object", CHAT, ALL, "[]"),
    ("body without messages", CHAT, ALL, r#"{"model":"fast"}"#),
    ("body without a model", CHAT, ALL, r#"{"messages":[]}"#),
    ("field of the wrong type", CHAT, ALL, r#"{"model":"fast","messages":[],"stream":"yes"}"#),
    (
        "image for a model without images",
        CHAT,
        ALL,
        r#"{"model":"fast","messages":[{"role":"user","content":[{"image_url":{"url":"http://h/a.png"}}]}]}"#,
    ),
    ("embeddings without a model", "POST /v1/embeddings", ALL, "{}"),
    ("compressed body", CHAT, "authorization: Bearer sk-0123456789\r\ncontent-encoding: gzip\r\n", "{}"),
    ("large body", CHAT, "authorization: Bearer sk-0123456789\r\ncontent-length: 2000000\r\n", ""),
    ("upstream that refuses", CHAT, ALL, r#"{"model":"fast","messages":[]}"#),
];

#[test]
fn rejections() {
    let env = case_env(CLIENTS);
    let mut command = env.command();
    command.env("XDG_STATE_HOME", env.path("state")).args(["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::null());
    let process = ServerProcess::start(&mut command);
    let send = |(title, line, headers, body): &(&str, &str, &str, &str)| {
        format!("# {title}\n{line}\n{}", mask(&env, &send_request(&process.url, line, headers, body)))
    };
    assert_list("rejections", &REJECTIONS.iter().map(send).collect::<Vec<_>>());
}

/// Sends a request, and returns the status, the code and the message of the response.
fn send_request(url: &str, line: &str, headers: &str, body: &str) -> String {
    let host = if headers.contains("host:") { "" } else { "host: localhost\r\n" };
    let length =
        if headers.contains("content-length:") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.1\r\n{host}connection: close\r\n{headers}{length}\r\n{body}");
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    let mut socket = TcpStream::connect(address).expect("listening server");
    socket.write_all(request.as_bytes()).expect("open connection");
    let mut response = String::new();
    socket.read_to_string(&mut response).expect("UTF-8 response");
    let (head, body) = response.split_once("\r\n\r\n").expect("HTTP response");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON body");
    let text = |name: &str| body["error"][name].as_str().unwrap_or("none").to_owned();
    format!("{}\n{}: {}\n", head.lines().next().unwrap_or_default(), text("code"), text("message"))
}

/// Errors that no command line provokes quickly or on every machine.
#[test]
fn unprovoked_errors() {
    let path = || PathBuf::from("record.db");
    let cause = || io::Error::other("the cause");
    let invalid_json = serde_json::from_str::<serde_json::Value>("{").expect_err("invalid JSON");
    let invalid_uri = http::Request::builder().uri("not a URI").body(()).expect_err("invalid URI");
    let sql_error = || RecordError::Sql { path: path(), source: rusqlite::Error::InvalidQuery };
    let errors: Vec<(&str, String)> = vec![
        ("EditError::Syntax", ConfigEditor::parse("a =").expect_err("invalid TOML").to_string()),
        ("EditError::NotATable", EditError::NotATable("models").to_string()),
        ("InputError::LineTooLong", InputError::LineTooLong.to_string()),
        ("InputError::Io", InputError::Io(cause()).to_string()),
        ("PromptError::Interrupted", PromptError::Interrupted.to_string()),
        ("PromptError::Io", PromptError::Io(cause()).to_string()),
        ("WriteError::StdoutClosed", WriteError::StdoutClosed.to_string()),
        ("WriteError::TerminalClosed", WriteError::TerminalClosed.to_string()),
        ("CliError::System", CliError::System { what: "cannot receive signals".into(), source: cause() }.to_string()),
        ("CliError from io::Error", CliError::from(cause()).to_string()),
        ("RecordError::ConversationDeleted", RecordError::ConversationDeleted.to_string()),
        ("RecordError::OlderSchema", RecordError::OlderSchema { path: path() }.to_string()),
        ("RecordError::Removed", RecordError::Removed { path: path() }.to_string()),
        ("RecordError::StillInLog", RecordError::StillInLog { path: path() }.to_string()),
        ("RecordError::Sql", sql_error().to_string()),
        ("HealthError", HealthError("cannot write health.json: disk full".into()).to_string()),
        ("KeyError::CommandTimeout", KeyError::CommandTimeout("pass".into()).to_string()),
        ("KeyError::Keyring", KeyError::Keyring { entry: "keyring shop".into(), reason: "locked".into() }.to_string()),
        ("KeyError::KeyringUnsupported", KeyError::KeyringUnsupported("keyring shop".into()).to_string()),
        ("ServeError::KeysRemoved", ServeError::KeysRemoved.to_string()),
        (
            "ServeError::SpendUnavailable",
            ServeError::SpendUnavailable { name: "app".into(), source: sql_error() }.to_string(),
        ),
        ("EncodeError::Body", EncodeError::Body(invalid_json).to_string()),
        ("EncodeError::Request", EncodeError::Request { url: "http://h/v1".into(), source: invalid_uri }.to_string()),
        ("EventTooLarge", EventTooLarge.to_string()),
    ];
    assert_list("errors_unprovoked", &named(errors));
}

/// Notices that depend on time.
#[test]
fn unprovoked_notices() {
    let id = |name: &str| TargetId(name.to_owned());
    let time = Duration::from_secs(30);
    let late = CallError::new(ErrorClass::Server, "boom");
    let notices = [
        ("WaitingForFirstToken", Notice::WaitingForFirstToken(id("fast"), time)),
        ("Backoff", Notice::Backoff(id("fast"), time)),
        ("ErrorAfterEnd", Notice::ErrorAfterEnd(id("fast"), late)),
        ("AllUnavailable", Notice::AllUnavailable(id("fast"), time)),
        ("Hedged", Notice::Hedged(id("fast"), id("strong"), time)),
        ("SpendUnchecked", Notice::SpendUnchecked(id("fast"), "record.db is locked".into())),
        (
            "rename",
            Notice::WorkaroundApplied(
                id("fast"),
                ParamWorkaround::Rename("max_tokens".into(), "max_completion_tokens".into()),
            ),
        ),
        ("omit", Notice::WorkaroundApplied(id("fast"), ParamWorkaround::Omit("temperature".into()))),
        ("limit", Notice::WorkaroundApplied(id("fast"), ParamWorkaround::MaxTokens(4096))),
        ("no stream", Notice::WorkaroundApplied(id("fast"), ParamWorkaround::Stream(false))),
        ("stream", Notice::WorkaroundApplied(id("fast"), ParamWorkaround::Stream(true))),
        ("system prompt", Notice::WorkaroundApplied(id("fast"), ParamWorkaround::System(SystemRole::Fold))),
    ];
    assert_list("notices", &named(notices.iter().map(|(name, what)| (*name, format_notice(what))).collect()));
}

/// Each text below its name.
fn named(texts: Vec<(&str, String)>) -> Vec<String> {
    texts.into_iter().map(|(name, text)| format!("# {name}\n{text}\n")).collect()
}
