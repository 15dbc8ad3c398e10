//! `endpoint`, `model` and `presets`: edits of the config, and presets.

use std::{fs, process::Stdio};

use crate::common::{Home, Ran, Server, answer};

const CONFIG: &str = "# mine\n[endpoints.e]\nbase_url = \"http://127.0.0.1:1/v1\"\n\n[models.a] # first\nendpoint = \"e\"\nmodel = \"1\"\n\n[routes.r]\nmodels = [\"a\"]\n";

fn text(home: &Home) -> String {
    fs::read_to_string(home.path("config.toml")).expect("a config")
}

#[test]
fn entries_are_added_renamed_and_removed_and_comments_kept() {
    let home = Home::with_config(CONFIG);
    home.run(&["endpoint", "add", "deepseek"]).exits(0).says(&["added deepseek"]);
    home.run(&["endpoint", "add", "box", "--url", "http://box:1/v1", "--key-env", "BOX"]).exits(0);
    home.run(&[
        "model",
        "add",
        "通义",
        "-e",
        "box",
        "-m",
        "q",
        "--tag",
        "x,y",
        "--price-input",
        "1",
        "--price-output",
        "2",
    ])
    .exits(0);
    home.run(&["model", "rename", "a", "b"]).exits(0);
    home.run(&["model", "default", "r"]).exits(0);
    let changed = text(&home);
    for line in [
        "# mine",
        "default = \"r\"",
        "[endpoints.deepseek]",
        "api_key = { env = \"DEEPSEEK_API_KEY\" }",
        "[models.b] # first",
        "models = [\"b\"]",
    ] {
        assert!(changed.contains(line), "{line}\n{changed}");
    }
    home.run(&["config", "check"]).exits(0);
    let listed = home.run(&["models", "--format", "json"]).exits(0).json();
    assert_eq!((&listed["models"][1]["model"], &listed["models"][1]["price"]["output"]), (&"通义".into(), &2.0.into()));
    home.run(&["model", "remove", "b"]).exits(2).says(&["route `r`", "--everywhere"]);
    home.run(&["model", "remove", "b", "--everywhere"]).exits(0).says(&["route `r`", "`default`"]);
    home.run(&["endpoint", "remove", "box", "--with-models"]).exits(0).says(&["通义"]);
    home.run(&["endpoint", "remove", "e"]).exits(0);
    assert!(!text(&home).contains("routes") && text(&home).contains("# mine"), "{}", text(&home));
}

#[test]
fn invalid_edit_leaves_the_config_unchanged() {
    let home = Home::with_config(CONFIG);
    for (arguments, words) in [
        (&["model", "add", "x", "-e", "none", "-m", "1"][..], "unknown endpoint \"none\""),
        (&["model", "add", "r", "-e", "e", "-m", "1"], "a route \"r\" already exists"),
        (&["model", "rename", "zzz", "b"], "unknown model \"zzz\""),
        (&["model", "default", "zzz"], "unknown model \"zzz\""),
        (&["endpoint", "add", "unheard-of"], "unknown service \"unheard-of\""),
        (&["endpoint", "add", "e", "--url", "http://h/v1"], "already"),
        (&["endpoint", "remove", "e"], "--with-models"),
        (&["endpoint", "add"], "missing endpoint name"),
    ] {
        home.run(arguments).exits(2).says(&[words]);
    }
    for arguments in [
        &["model", "add", "a b", "-e", "e", "-m", "1"][..],
        &["model", "add", "-e", "e", "-m", "1", "--", "-x"],
        &["model", "rename", "a", ".."],
        &["endpoint", "add", "../../pwn", "--url", "http://h/v1"],
    ] {
        home.run(arguments).exits(2).says(&["invalid name"]);
    }
    let key = "sk-very-secret-key";
    let (address, named) = (format!("http://{key}:x@h/v1"), format!("x=http://{key}:x@h/v1"));
    let variable = format!("x={key}");
    for arguments in [
        &["endpoint", "add", "x", "--url", "nonsense"][..],
        &["endpoint", "add", "x", "--url", &address],
        &["endpoint", "add", "x", "--url", "http://h/v1", "--key-env", key],
        &["init", "--yes", "--force", "--endpoint", &named],
        &["init", "--yes", "--force", "--endpoint", "x=http://h/v1", "--key-env", &variable],
    ] {
        let ran = home.run(arguments).exits(2);
        assert!(!format!("{ran:?}").contains(key), "{ran:?}");
    }
    assert_eq!(text(&home), CONFIG);
    home.write_config("[broken");
    home.run(&["model", "add", "x", "-e", "e", "-m", "1"]).exits(3);
    assert_eq!(text(&home), "[broken");
}

#[test]
fn concurrent_edits_are_all_written() {
    let home = Home::with_config(CONFIG);
    let started: Vec<_> = (0..8)
        .map(|n| {
            let mut command = home.command();
            command.args(["model", "add", &format!("m{n}"), "-e", "e", "-m", "1"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
        })
        .collect();
    for child in started {
        Ran::of(child.wait_with_output().expect("ends")).exits(0);
    }
    assert_eq!((0..8).filter(|n| text(&home).contains(&format!("[models.m{n}]"))).count(), 8, "{}", text(&home));
}

#[test]
fn key_from_stdin_is_stored_in_a_private_file() {
    let home = Home::with_config(CONFIG);
    let server = Server::replying(&[&answer("hi")]);
    let ran = home
        .run_with_input(&["endpoint", "add", "s", "--url", &server.url(), "--key-stdin"], b"sk-very-secret-key\n")
        .exits(0);
    assert!(!format!("{ran:?}{}", text(&home)).contains("very-secret"), "{}", text(&home));
    assert!(text(&home).contains("api_key = { file = \"keys/s\" }"), "{}", text(&home));
    home.run(&["ask", "-m", "s/x", "hi"]).exits(0);
    assert!(server.requests()[0].head.contains("Bearer sk-very-secret-key"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in ["keys/s", "config.toml", "config.toml.lock"] {
            let mode = fs::metadata(home.path(file)).expect(file).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}

#[test]
fn rejected_endpoint_stores_no_key() {
    let home = Home::with_config(CONFIG);
    let add = |name: &str, key: &[u8]| {
        home.run_with_input(&["endpoint", "add", name, "--url", "http://h/v1", "--key-stdin"], key).exits(2)
    };
    add("../../pwn", b"sk-very-secret-key\n");
    add("e", b"sk-very-secret-key\n").says(&["already"]);
    add("two-lines", b"sk-very-secret-key\nmore\n").says(&["one line"]);
    assert!(!home.path("keys").exists() && text(&home) == CONFIG);
}

#[test]
fn byte_order_mark_and_line_endings_are_preserved() {
    let home = Home::with_config(&format!("\u{feff}{}", CONFIG.replace('\n', "\r\n")));
    home.run(&["model", "rename", "a", "b"]).exits(0);
    let want = CONFIG.replace("models.a", "models.b").replace("[\"a\"]", "[\"b\"]").replace('\n', "\r\n");
    assert_eq!(text(&home), format!("\u{feff}{want}"));
}

#[cfg(unix)]
#[test]
fn unwritable_directory_is_named_in_the_error() {
    let home = Home::new();
    let run = |arguments: &[&str]| {
        Ran::of(home.command().env("MMCHAT_CONFIG", "/dev/null/x/config.toml").args(arguments).output().expect("runs"))
    };
    run(&["endpoint", "add", "openai"]).exits(1).says(&["cannot write /dev/null/x/config.toml"]);
    run(&["init", "--yes"]).exits(1).says(&["cannot write /dev/null/x/config.toml"]);
}

#[test]
fn presets_are_rendered_and_invalid_ones_reported() {
    let server = Server::replying(&[&answer("ok"), &answer("ok"), &answer("ok")]);
    let more = "[models.m1]\nendpoint = \"m\"\nmodel = \"up\"\n[presets.review]\nmodel = \"m1\"\nsystem = \"You know {{ lang }}.\"\nprompt = \"Review:\\n{{ input }}\"\nparams = { temperature = 0.25 }\n";
    let home = Home::with_server(&server, more);
    home.run_with_input(&["ask", "-p", "review", "-P", "lang=Rust"], b"let x;").exits(0);
    let sent = server.requests()[0].json();
    assert_eq!((&sent["model"], &sent["temperature"]), (&"up".into(), &0.25.into()));
    assert_eq!(
        (&sent["messages"][0]["content"], &sent["messages"][1]["content"]),
        (&"You know Rust.".into(), &"Review:\nlet x;".into())
    );
    fs::create_dir(home.path("presets")).expect("a folder");
    fs::write(home.path("presets/own.toml"), "prompt = \"Say {{ word | default('hi') }}.\"\n").expect("a file");
    home.run(&["compare", "-m", "m1", "-p", "own"]).exits(0);
    assert_eq!(server.requests()[1].json()["messages"][0]["content"], "Say hi.");
    home.run(&["ask", "-m", "m/z", "-s", "mine", "--temperature", "1", "-p", "review", "-P", "lang=C", "x"]).exits(0);
    let sent = server.requests()[2].json();
    assert_eq!(
        (&sent["model"], &sent["temperature"], &sent["messages"][0]["content"]),
        (&"z".into(), &1.0.into(), &"mine".into())
    );
    fs::write(home.path("presets/named.toml"), "model = \"m1\"\n").expect("a file");
    home.run(&["model", "rename", "m1", "m2"]).exits(0).says(&["named.toml still names \"m1\""]);
    home.run(&["model", "rename", "m2", "m1"]).exits(0);
    for (arguments, code, words) in [
        (&["compare", "-p", "named", "-P", "a=b", "x"][..], 2, "has no variable"),
        (&["ask", "-p", "review", "x"], 2, "preset \"review\" has no value for lang"),
        (&["ask", "-p", "review", "-P", "lang=C"], 2, "has no value for input"),
        (&["ask", "-p", "review", "-P", "lnag=C", "x"], 2, "did you mean \"lang\"?"),
        (&["ask", "-p", "reveiw", "x"], 2, "did you mean \"review\"?"),
        (&["ask", "-m", "m1", "-P", "a=b", "x"], 2, "--preset"),
    ] {
        home.run(arguments).exits(code).says(&[words]);
    }
    let ran = home.run(&["presets", "list"]).exits(0);
    assert!(ran.out.contains("review") && ran.out.contains("input, lang") && ran.out.contains("own.toml"), "{ran:?}");
    assert!(home.run(&["presets", "show", "review"]).exits(0).out.contains("[presets.review]"));
    assert!(home.run(&["presets", "show", "own"]).exits(0).out.contains("default('hi')"));
    fs::write(
        home.path("presets/loop.toml"),
        "prompt = \"{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}\"\n",
    )
    .expect("a file");
    home.run(&["ask", "-m", "m1", "-p", "loop"]).exits(2).says(&["does not terminate"]);
    fs::write(home.path("presets/bad.toml"), "prompt = \"{{ open\"\n").expect("a file");
    home.run(&["ask", "-m", "m1", "-p", "bad"]).exits(3).says(&["bad.toml", "template"]);
    let listed = home.run(&["presets", "list"]).exits(3).says(&["bad.toml"]);
    assert!(listed.out.contains("invalid") && listed.out.contains("review"), "{listed:?}");
}

#[cfg(unix)]
#[test]
fn presets_edit_opens_the_editor_and_validates() {
    let home = Home::with_config(CONFIG);
    let run = |editor: &str, name: &str| {
        Ran::of(home.command().env("EDITOR", editor).args(["presets", "edit", name]).output().expect("runs"))
    };
    run("true", "new").exits(0).says(&["presets/new.toml is valid"]);
    assert!(fs::read_to_string(home.path("presets/new.toml")).expect("made").contains("{{ input }}"));
    fs::write(home.path("spoil"), "#!/bin/sh\necho 'prompt = 1' > \"$1\"\n").expect("a script");
    crate::common::set_mode(&home.path("spoil"), 0o700);
    run(home.path("spoil").to_str().expect("text"), "new").exits(3).says(&["invalid type"]);
    run("false", "new").exits(2).says(&["ended with"]);
    home.run(&["presets", "edit", "new"]).exits(2).says(&["VISUAL"]);
    run("true", "a/b").exits(2).says(&["invalid name"]);
}

#[test]
fn images_are_sent_only_to_models_that_accept_them() {
    let server = Server::replying(&[&answer("seen"), &answer("seen")]);
    let more = "[models.eyes]\nendpoint = \"m\"\nmodel = \"v\"\ncapabilities = [\"images\"]\n[models.blind]\nendpoint = \"m\"\nmodel = \"b\"\ncapabilities = [\"tools\"]\n[routes.r]\nmodels = [\"blind\", \"eyes\"]\n";
    let home = Home::with_server(&server, more);
    let path = home.path("p.bin");
    fs::write(&path, b"\x89PNG\r\n\x1a\nrest").expect("a file");
    let file = path.to_str().expect("text");
    home.run(&["ask", "-m", "eyes", "-f", file, "-f", "https://h/x.webp", "what is it"]).exits(0);
    let parts = server.requests()[0].json()["messages"][0]["content"].clone();
    assert_eq!(parts[0]["text"], "what is it");
    assert!(
        parts[1]["image_url"]["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("data:image/png;base64,iVBORw0KGgpyZXN0")),
        "{parts}"
    );
    assert_eq!(parts[2]["image_url"]["url"], "https://h/x.webp");
    home.run(&["ask", "-m", "r", "-f", file, "x"]).exits(0).says(&["blind: skipped: it does not accept images"]);
    home.run(&["ask", "-m", "blind", "-f", file, "x"]).exits(2).says(&["\"blind\" does not accept images"]);
    fs::write(home.path("fake.png"), "<html>").expect("a file");
    let fake = home.path("fake.png");
    home.run(&["ask", "-m", "eyes", "-f", fake.to_str().expect("text"), "x"]).exits(2).says(&["not an image"]);
}
