//! Shell completion: the candidates that the binary prints, and completion in interactive shells.
//!
//! The tests of zsh and fish are ignored by default, because these shells may be missing; `scripts/interop` runs them.

use std::{fs, path::Path, process::Command};

use crate::common::{Home, Ran, screen::Screen};

const CONFIG: &str = "[endpoints.e]\nbase_url = \"http://127.0.0.1:1/v1\"\n[models.zebra-model]\nendpoint = \"e\"\nmodel = \"1\"\n\
    [models.\"通义\"]\nendpoint = \"e\"\nmodel = \"2\"\n[routes.quick-route]\nmodels = [\"zebra-model\"]\n[sets]\nyonder-set = [\"zebra-model\"]\n\
    [presets.xylo]\nprompt = \"x\"\n";

fn home() -> Home {
    Home::with_config(CONFIG)
}

/// The candidates for the last of these words.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let mut command = home.command();
    command.env("COMPLETE", "fish").args(["--", "mmchat"]).args(words);
    let ran = Ran::of(command.output().expect("runs")).exits(0);
    ran.out.lines().map(|line| line.split('\t').next().expect("a name").to_owned()).collect()
}

#[test]
fn candidates_match_the_flag() {
    let home = home();
    assert_eq!(offered(&home, &["ask", "-m", "z"]), ["zebra-model"]);
    assert_eq!(offered(&home, &["ask", "-m", "通"]), ["通义"]);
    assert_eq!(offered(&home, &["ask", "-m", "q"]), ["quick-route"]);
    assert!(offered(&home, &["ask", "-m", "y"]).is_empty(), "a set is not a single model");
    assert_eq!(offered(&home, &["compare", "-m", "quick-route,y"]), ["quick-route,yonder-set"]);
    assert_eq!(offered(&home, &["compare", "--set", ""]), ["yonder-set"]);
    assert_eq!(offered(&home, &["ask", "-p", ""]), ["xylo"]);
    assert_eq!(offered(&home, &["models", "available", ""])[0], "e");
    assert_eq!(offered(&home, &["endpoint", "add", "deeps"]), ["deepseek"]);
    assert_eq!(offered(&home, &["ask", "--format", "js"]), ["json", "jsonl"]);
    assert!(offered(&home, &["comp"]).contains(&"compare".to_owned()));
}

#[test]
fn config_flag_is_honored_and_keys_complete_without_a_config() {
    let home = home();
    let other = home.path("other.toml");
    fs::write(&other, "[models.otter]\n").expect("a file");
    assert_eq!(offered(&home, &["--config", other.to_str().expect("text"), "ask", "-m", "o"]), ["otter"]);
    let bare = Home::new();
    let mut command = bare.command();
    command.env("COMPLETE", "fish").env("DEEPSEEK_API_KEY", "sk-1").args(["--", "mmchat", "ask", "-m", "deeps"]);
    let ran = Ran::of(command.output().expect("runs")).exits(0);
    assert!(ran.out.contains("deepseek/deepseek-flash"), "{ran:?}");
}

#[test]
fn invalid_config_completes_nothing() {
    let home = Home::with_config("[broken");
    assert!(offered(&home, &["ask", "-m", "z"]).is_empty());
}

/// Starts an interactive shell in the home directory with the binary in its `PATH`.
fn shell(home: &Home, program: &str, arguments: &[&str]) -> Screen {
    let binary = Path::new(env!("CARGO_BIN_EXE_mmchat")).parent().expect("a folder").display();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", home.path("")).env("MMCHAT_CONFIG", home.path("config.toml"));
    command.env("PATH", format!("{binary}:{}", std::env::var("PATH").expect("a path")));
    command.current_dir(home.path(""));
    Screen::of(command, true, (200, 24))
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(name).display().to_string()
}

/// Types the start of several names, each followed by Tab, waits for the full names, and ends the shell.
fn completes(mut screen: Screen) {
    for (typed, name) in [
        ("mmchat ask -m zeb", "zebra-model"),
        ("mmchat compare --set yon", "yonder-set"),
        ("mmchat ask -m qui", "quick-route"),
    ] {
        screen.type_keys(typed);
        screen.pass(typed);
        screen.type_keys("\t");
        // The shell may move the cursor before the rest of the name, so only the rest is expected.
        screen.pass(&name[3..]);
        screen.type_keys("\u{15}");
    }
    screen.child.kill().expect("ours");
    screen.child.wait().expect("ends");
}

#[test]
fn bash_completes_names() {
    let home = home();
    let rc = format!("PS1='ready> '\nsource {}\n", script("mmchat.bash"));
    fs::write(home.path("rc"), rc).expect("a file");
    let mut screen = shell(&home, "bash", &["--noprofile", "--rcfile", home.path("rc").to_str().expect("text"), "-i"]);
    screen.pass("ready> ");
    completes(screen);
}

#[test]
#[ignore = "needs zsh; scripts/interop runs it"]
fn zsh_completes_names() {
    let home = home();
    let rc = format!("PS1='ready> '\nautoload -Uz compinit\ncompinit -D -u\nsource {}\n", script("_mmchat"));
    fs::write(home.path(".zshrc"), rc).expect("a file");
    let mut screen = shell(&home, "zsh", &["-i"]);
    screen.pass("ready> ");
    completes(screen);
}

#[test]
#[ignore = "needs fish; scripts/interop runs it"]
fn fish_completes_names() {
    // Interactive fish waits for replies to terminal queries, which this terminal does not answer: use `complete -C`.
    let home = home();
    let run = |line: &str| {
        let mut command = Command::new("fish");
        let binary = Path::new(env!("CARGO_BIN_EXE_mmchat")).parent().expect("a folder").display();
        command.env_clear().env("HOME", home.path("")).env("MMCHAT_CONFIG", home.path("config.toml"));
        command.env("PATH", format!("{binary}:{}", std::env::var("PATH").expect("a path")));
        command.args(["--private", "-c", &format!("source {}; complete -C '{line}'", script("mmchat.fish"))]);
        Ran::of(command.output().expect("runs")).exits(0).out
    };
    assert_eq!(run("mmchat ask -m zeb"), "zebra-model\n");
    assert_eq!(run("mmchat compare --set yon"), "yonder-set\n");
    assert_eq!(run("mmchat ask -m qui"), "quick-route\n");
}
