//! `init` through the binary: with flags, with prompts on a terminal, and interrupted at each prompt.

use std::fs;

use crate::common::{CommandResult, ScriptedServer, TestEnv, answer, http_response};

fn model_list(ids: &[&str]) -> String {
    let data: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
    http_response("200 OK", "content-type: application/json\r\n", &serde_json::json!({"data": data}).to_string())
}

/// A command whose config is `config.toml` in the home directory, which need not exist.
fn command(env: &TestEnv, arguments: &[&str]) -> std::process::Command {
    let mut command = env.command();
    command.env("MMCHAT_CONFIG", env.path("config.toml")).args(arguments);
    command
}

fn run(env: &TestEnv, arguments: &[&str], variables: &[(&str, &str)]) -> CommandResult {
    CommandResult::from_output(
        command(env, arguments).envs(variables.iter().copied()).output().expect("program starts"),
    )
}

fn config_text(env: &TestEnv) -> String {
    fs::read_to_string(env.path("config.toml")).expect("readable config")
}

#[test]
fn flags_create_a_working_config() {
    let env = TestEnv::new();
    let server =
        ScriptedServer::with_replies(&[&model_list(&["small", "big"]), &answer("h"), &answer("h"), &answer("hello")]);
    let endpoint = format!("box={}", server.url());
    let key = ("BOX_KEY", "sk-very-secret-key");
    let arguments = [
        "init",
        "--yes",
        "--no-discover",
        "--endpoint",
        &endpoint,
        "--key-env",
        "box=BOX_KEY",
        "--fast",
        "box/small",
        "--strong",
        "box/big",
    ];
    let result =
        run(&env, &arguments, &[key]).expect_exit(0).expect_stderr(&["2 models", "trying fast, strong", "wrote"]);
    assert!(!format!("{result:?}{}", config_text(&env)).contains("very-secret"));
    for line in
        ["default = \"chat\"", "[models.fast]", "api_key = { env = \"BOX_KEY\" }", "all = [\"fast\", \"strong\"]"]
    {
        assert!(config_text(&env).contains(line), "{line}\n{}", config_text(&env));
    }
    assert_eq!(run(&env, &["ask", "hello"], &[key]).expect_exit(0).stdout, "hello");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(env.path("config.toml")).expect("existing file").permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn environment_keys_are_detected_and_unreachable_services_omitted() {
    let env = TestEnv::new();
    let server = ScriptedServer::with_replies(&[&model_list(&["deepseek-flash", "other"]), &answer("h")]);
    let address = server.url();
    let variables = [("DEEPSEEK_API_KEY", "sk-very-secret-key"), ("DEEPSEEK_BASE_URL", address.as_str())];
    let result = run(&env, &["init", "--yes"], &variables)
        .expect_exit(0)
        .expect_stderr(&["deepseek (DEEPSEEK_API_KEY): 2 models"]);
    assert!(!result.stderr.contains("ollama"), "{result:?}");
    assert!(
        config_text(&env).contains("model = \"deepseek-flash\"") && config_text(&env).contains(&address),
        "{}",
        config_text(&env)
    );
    let empty = TestEnv::new();
    run(&empty, &["init", "--yes"], &[]).expect_exit(2).expect_stderr(&["no API key in the environment"]);
    assert!(!empty.path("config.toml").exists());
}

#[test]
fn failing_model_is_reported_and_the_config_is_written() {
    let env = TestEnv::new();
    let refusal = http_response("401 Unauthorized", "", "{\"error\":{\"message\":\"no\"}}");
    let server = ScriptedServer::with_replies(&[&model_list(&["m"]), &refusal]);
    let endpoint = format!("box={}", server.url());
    let result = run(&env, &["init", "--yes", "--no-discover", "--endpoint", &endpoint], &[]);
    result.expect_exit(4).expect_stderr(&["ERR auth", "wrote"]);
    assert!(config_text(&env).contains("model = \"m\""));
}

#[test]
fn invalid_arguments_are_rejected_before_any_request() {
    let env = TestEnv::new();
    for (arguments, words) in [
        (&["--endpoint", "nowhere"][..], "unknown vendor \"nowhere\""),
        (&["--endpoint", "x=nonsense"], "does not start with http"),
        (&["--key-env", "x=Y"], "unknown endpoint"),
        (&["--key-env", "x"], "expected NAME="),
        (&["--no-discover"], "no endpoints given"),
    ] {
        run(&env, &[&["init", "--yes"], arguments].concat(), &[]).expect_exit(2).expect_stderr(&[words]);
    }
    run(&env, &["init"], &[]).expect_exit(2).expect_stderr(&["not a terminal", "--yes"]);
    assert!(!env.path("config.toml").exists());
    let configured = TestEnv::with_config("# old\n");
    run(&configured, &["init", "--yes"], &[]).expect_exit(2).expect_stderr(&["already exists", "--force"]);
    assert_eq!(config_text(&configured), "# old\n");
}

#[test]
fn force_keeps_a_backup_of_the_old_config() {
    let env = TestEnv::with_config("# old\n");
    let server = ScriptedServer::with_replies(&[&model_list(&["m"])]);
    let endpoint = format!("box={}", server.url());
    run(&env, &["init", "--yes", "--force", "--no-discover", "--no-try", "--endpoint", &endpoint], &[])
        .expect_exit(0)
        .expect_stderr(&["config.toml.bak"]);
    assert_eq!(fs::read_to_string(env.path("config.toml.bak")).expect("readable file"), "# old\n");
    let server = ScriptedServer::with_replies(&[&model_list(&["m"])]);
    let endpoint = format!("box={}", server.url());
    run(&env, &["init", "--yes", "--force", "--no-discover", "--no-try", "--endpoint", &endpoint], &[]).expect_exit(0);
    assert_eq!(
        fs::read_to_string(env.path("config.toml.bak")).expect("readable file"),
        "# old\n",
        "the first backup must be kept"
    );
    assert!(env.path("config.toml.bak2").exists());
}

#[cfg(unix)]
mod on_a_terminal {
    use super::*;
    use crate::common::screen::TerminalProcess;

    const SECRET: &str = "Type or paste the key";
    const ENTER: &str = "\r";
    const DOWN: &str = "\u{1b}[B";

    /// Each prompt and the keys that answer it.
    fn prompts_and_keys(url: &str) -> Vec<(&'static str, String)> {
        let typed = |keys: &[&str]| keys.concat();
        vec![
            ("Replace it", typed(&["y"])),
            ("Add another endpoint", typed(&["y"])),
            ("Which vendor", typed(&[ENTER])),
            ("Base URL", typed(&["nonsense", ENTER])),
            ("the base URL does not start with http", typed(&["\u{15}", url, ENTER])),
            ("Name for this endpoint", typed(&["\u{15}", "box", ENTER])),
            ("API key of box", typed(&["type it", ENTER])),
            (SECRET, typed(&["sk-typed-secret-key", ENTER])),
            ("Add another endpoint", typed(&["n"])),
            ("Fast model", typed(&["small", ENTER])),
            ("Strong model", typed(&["big", ENTER])),
            ("Cheap model", typed(&["small", ENTER])),
            ("compare with", typed(&[DOWN, ENTER])),
        ]
    }

    fn start(env: &TestEnv) -> TerminalProcess {
        TerminalProcess::spawn(command(env, &["init"]), true, (100, 40))
    }

    #[test]
    fn prompts_create_a_config_without_showing_the_key() {
        let env = TestEnv::with_config("# old\n");
        let server = ScriptedServer::with_replies(&[
            &model_list(&["small", "big", "third"]),
            &answer("h"),
            &answer("h"),
            &answer("h"),
            &answer("hello"),
        ]);
        let mut screen = start(&env);
        let mut output = String::new();
        for (prompt, keys) in prompts_and_keys(&server.url()) {
            screen.wait_for(prompt);
            output += &screen.output;
            screen.consume_until(prompt);
            if prompt == SECRET {
                screen.wait_for_no_echo();
            }
            screen.type_keys(&keys);
        }
        let (rest, code) = screen.wait_for_exit();
        output += &rest;
        assert_eq!(code, 0, "{output}");
        assert!(!output.contains("sk-typed") && output.contains("wrote"), "{output}");
        assert!(
            config_text(&env).contains("api_key = { file = \"keys/box\" }") && !config_text(&env).contains("sk-typed"),
            "{}",
            config_text(&env)
        );
        assert!(config_text(&env).contains("all = [\"fast\", \"strong\", \"third\"]"), "{}", config_text(&env));
        assert_eq!(fs::read_to_string(env.path("keys/box")).expect("readable file"), "sk-typed-secret-key\n");
        assert_eq!(run(&env, &["ask", "hi"], &[]).expect_exit(0).stdout, "hello");
    }

    #[test]
    fn interrupt_at_any_prompt_changes_nothing() {
        let prompt_count = prompts_and_keys("").len();
        for interrupted_at in 0..prompt_count {
            let env = TestEnv::with_config("# old\n");
            let replies: Vec<String> =
                (interrupted_at >= 8).then(|| model_list(&["small", "big", "third"])).into_iter().collect();
            let server = ScriptedServer::with_replies(&replies.iter().map(String::as_str).collect::<Vec<_>>());
            let mut screen = start(&env);
            for (prompt, keys) in prompts_and_keys(&server.url()).into_iter().take(interrupted_at) {
                screen.consume_until(prompt);
                if prompt == SECRET {
                    screen.wait_for_no_echo();
                }
                screen.type_keys(&keys);
            }
            let prompt = prompts_and_keys("")[interrupted_at].0;
            screen.consume_until(prompt);
            // A secret is read in canonical mode without echo; the other prompts read single keys.
            let (output, code) = screen.interrupt(prompt == SECRET);
            assert_eq!(code, 130, "at prompt {interrupted_at}: {output:?}");
            assert_eq!(config_text(&env), "# old\n");
            assert!(!env.path("keys").exists() && !env.path("config.toml.bak").exists(), "at prompt {interrupted_at}");
            assert!(output.contains("\u{1b}[?25h"), "the cursor must be shown again");
        }
    }
}
