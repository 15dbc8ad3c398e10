//! `init`: a first config, by flags and by answers; interrupted at every question.

use std::fs;

use crate::common::{Home, Ran, Server, answer, reply};

fn list(ids: &[&str]) -> String {
    let data: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
    reply("200 OK", "content-type: application/json\r\n", &serde_json::json!({"data": data}).to_string())
}

/// Runs with the config at `config.toml` of the home, whether it is there or not.
fn command(home: &Home, arguments: &[&str]) -> std::process::Command {
    let mut command = home.command();
    command.env("MMCHAT_CONFIG", home.path("config.toml")).args(arguments);
    command
}

fn run(home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    Ran::of(command(home, arguments).envs(variables.iter().copied()).output().expect("runs"))
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.path("config.toml")).expect("a config")
}

#[test]
fn flags_alone_make_a_config_that_works() {
    let home = Home::new();
    let server = Server::replying(&[&list(&["small", "big"]), &answer("h"), &answer("h"), &answer("hello")]);
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
    let ran = run(&home, &arguments, &[key]).exits(0).says(&["2 model(s)", "trying fast, strong", "wrote"]);
    assert!(!format!("{ran:?}{}", text(&home)).contains("very-secret"));
    for line in
        ["default = \"chat\"", "[models.fast]", "api_key = { env = \"BOX_KEY\" }", "all = [\"fast\", \"strong\"]"]
    {
        assert!(text(&home).contains(line), "{line}\n{}", text(&home));
    }
    assert_eq!(run(&home, &["ask", "hello"], &[key]).exits(0).out, "hello");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(home.path("config.toml")).expect("there").permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn keys_of_the_environment_are_found_and_what_does_not_answer_is_left_out() {
    let home = Home::new();
    let server = Server::replying(&[&list(&["deepseek-flash", "other"]), &answer("h")]);
    let address = server.url();
    let variables = [("DEEPSEEK_API_KEY", "sk-very-secret-key"), ("DEEPSEEK_BASE_URL", address.as_str())];
    let ran = run(&home, &["init", "--yes"], &variables).exits(0).says(&["deepseek (DEEPSEEK_API_KEY): 2 model(s)"]);
    assert!(!ran.err.contains("ollama"), "{ran:?}");
    assert!(text(&home).contains("model = \"deepseek-flash\"") && text(&home).contains(&address), "{}", text(&home));
    let nothing = Home::new();
    run(&nothing, &["init", "--yes"], &[]).exits(2).says(&["no API keys and no local servers found"]);
    assert!(!nothing.path("config.toml").exists());
}

#[test]
fn a_model_that_fails_is_told_and_the_config_written() {
    let home = Home::new();
    let refusal = reply("401 Unauthorized", "", "{\"error\":{\"message\":\"no\"}}");
    let server = Server::replying(&[&list(&["m"]), &refusal]);
    let endpoint = format!("box={}", server.url());
    let ran = run(&home, &["init", "--yes", "--no-discover", "--endpoint", &endpoint], &[]);
    ran.exits(4).says(&["ERR auth", "wrote"]);
    assert!(text(&home).contains("model = \"m\""));
}

#[test]
fn nonsense_is_told_before_anything_is_asked_or_written() {
    let home = Home::new();
    for (arguments, words) in [
        (&["--endpoint", "nowhere"][..], "unknown service \"nowhere\""),
        (&["--endpoint", "x=nonsense"], "is not a valid URL"),
        (&["--key-env", "x=Y"], "no such endpoint"),
        (&["--key-env", "x"], "expected NAME="),
        (&["--no-discover"], "no API keys and no local servers"),
    ] {
        run(&home, &[&["init", "--yes"], arguments].concat(), &[]).exits(2).says(&[words]);
    }
    run(&home, &["init"], &[]).exits(2).says(&["not a terminal", "--yes"]);
    assert!(!home.path("config.toml").exists());
    let old = Home::with_config("# old\n");
    run(&old, &["init", "--yes"], &[]).exits(2).says(&["already exists", "--force"]);
    assert_eq!(text(&old), "# old\n");
}

#[test]
fn the_old_config_is_kept_when_it_is_replaced() {
    let home = Home::with_config("# old\n");
    let server = Server::replying(&[&list(&["m"])]);
    let endpoint = format!("box={}", server.url());
    run(&home, &["init", "--yes", "--force", "--no-discover", "--no-try", "--endpoint", &endpoint], &[])
        .exits(0)
        .says(&["config.toml.bak"]);
    assert_eq!(fs::read_to_string(home.path("config.toml.bak")).expect("kept"), "# old\n");
    let server = Server::replying(&[&list(&["m"])]);
    let endpoint = format!("box={}", server.url());
    run(&home, &["init", "--yes", "--force", "--no-discover", "--no-try", "--endpoint", &endpoint], &[]).exits(0);
    assert_eq!(fs::read_to_string(home.path("config.toml.bak")).expect("kept"), "# old\n", "the first one stays");
    assert!(home.path("config.toml.bak2").exists());
}

#[cfg(unix)]
mod at_a_terminal {
    use super::*;
    use crate::common::screen::Screen;

    const SECRET: &str = "Type or paste the key";
    const ENTER: &str = "\r";
    const DOWN: &str = "\u{1b}[B";

    /// What is asked, and what is typed to go on from there.
    fn conversation(url: &str) -> Vec<(&'static str, String)> {
        let typed = |keys: &[&str]| keys.concat();
        vec![
            ("Replace it", typed(&["y"])),
            ("Add another endpoint", typed(&["y"])),
            ("Which vendor", typed(&[ENTER])),
            ("Base URL", typed(&["nonsense", ENTER])),
            ("is not a valid URL", typed(&["\u{15}", url, ENTER])),
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

    fn start(home: &Home) -> Screen {
        Screen::of(command(home, &["init"]), true, (100, 40))
    }

    #[test]
    fn answers_make_a_config_and_no_key_is_shown() {
        let home = Home::with_config("# old\n");
        let server = Server::replying(&[
            &list(&["small", "big", "third"]),
            &answer("h"),
            &answer("h"),
            &answer("h"),
            &answer("hello"),
        ]);
        let mut screen = start(&home);
        let mut seen = String::new();
        for (question, keys) in conversation(&server.url()) {
            screen.wait_for(question);
            seen += &screen.seen;
            screen.pass(question);
            if question == SECRET {
                screen.wait_for_no_echo();
            }
            screen.type_keys(&keys);
        }
        let (rest, code) = screen.end();
        seen += &rest;
        assert_eq!(code, 0, "{seen}");
        assert!(!seen.contains("sk-typed") && seen.contains("wrote"), "{seen}");
        assert!(
            text(&home).contains("api_key = { file = \"keys/box\" }") && !text(&home).contains("sk-typed"),
            "{}",
            text(&home)
        );
        assert!(text(&home).contains("all = [\"fast\", \"strong\", \"third\"]"), "{}", text(&home));
        assert_eq!(fs::read_to_string(home.path("keys/box")).expect("kept"), "sk-typed-secret-key\n");
        assert_eq!(run(&home, &["ask", "hi"], &[]).exits(0).out, "hello");
    }

    #[test]
    fn an_interruption_at_any_question_leaves_everything_as_it_was() {
        let questions = conversation("").len();
        for last in 0..questions {
            let home = Home::with_config("# old\n");
            let replies: Vec<String> = (last >= 8).then(|| list(&["small", "big", "third"])).into_iter().collect();
            let server = Server::replying(&replies.iter().map(String::as_str).collect::<Vec<_>>());
            let mut screen = start(&home);
            for (question, keys) in conversation(&server.url()).into_iter().take(last) {
                screen.pass(question);
                if question == SECRET {
                    screen.wait_for_no_echo();
                }
                screen.type_keys(&keys);
            }
            let question = conversation("")[last].0;
            screen.pass(question);
            // A secret is read in the terminal's usual mode, with its echo off; the other questions read single keys.
            let (seen, code) = screen.interrupt(question == SECRET);
            assert_eq!(code, 130, "at question {last}: {seen:?}");
            assert_eq!(text(&home), "# old\n");
            assert!(!home.path("keys").exists() && !home.path("config.toml.bak").exists(), "at question {last}");
            assert!(seen.contains("\u{1b}[?25h"), "the cursor is shown again");
        }
    }
}
