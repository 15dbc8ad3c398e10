//! `endpoint`, `model` and `presets`: edits of the config, and presets.

use std::{fs, process::Stdio};

use crate::common::{CommandResult, ScriptedServer, TestEnv, answer};

const CONFIG: &str = "# mine\n[endpoints.e]\nbase_url = \"http://127.0.0.1:1/v1\"\n\n[models.a] # first\nendpoint = \"e\"\nmodel = \"1\"\n\n[routes.r]\nmodels = [\"a\"]\n";

fn config_text(env: &TestEnv) -> String {
    fs::read_to_string(env.path("config.toml")).expect("readable config")
}

#[test]
fn entries_are_added_renamed_and_removed_and_comments_kept() {
    let env = TestEnv::with_config(CONFIG);
    env.run(&["endpoint", "add", "deepseek"]).expect_exit(0).expect_stderr(&["added \"deepseek\""]);
    env.run(&["endpoint", "add", "box", "--url", "http://box:1/v1", "--key-env", "BOX"]).expect_exit(0);
    env.run(&[
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
    .expect_exit(0);
    env.run(&["model", "rename", "a", "b"]).expect_exit(0);
    env.run(&["model", "default", "r"]).expect_exit(0);
    let changed = config_text(&env);
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
    env.run(&["config", "check"]).expect_exit(0);
    let listed = env.run(&["models", "--format", "json"]).expect_exit(0).json();
    assert_eq!((&listed["models"][1]["model"], &listed["models"][1]["price"]["output"]), (&"通义".into(), &2.0.into()));
    env.run(&["model", "remove", "b"]).expect_exit(2).expect_stderr(&["route \"r\"", "--everywhere"]);
    env.run(&["model", "remove", "b", "--everywhere"]).expect_exit(0).expect_stderr(&["route \"r\"", "`default`"]);
    env.run(&["endpoint", "remove", "box", "--with-models"]).expect_exit(0).expect_stderr(&["通义"]);
    env.run(&["endpoint", "remove", "e"]).expect_exit(0);
    assert!(!config_text(&env).contains("routes") && config_text(&env).contains("# mine"), "{}", config_text(&env));
}

#[test]
fn invalid_edit_leaves_the_config_unchanged() {
    let env = TestEnv::with_config(CONFIG);
    for (arguments, words) in [
        (&["model", "add", "x", "-e", "none", "-m", "1"][..], "unknown endpoint \"none\""),
        (&["model", "add", "r", "-e", "e", "-m", "1"], "a route \"r\" already exists"),
        (&["model", "rename", "zzz", "b"], "unknown model \"zzz\""),
        (&["model", "default", "zzz"], "unknown model \"zzz\""),
        (&["endpoint", "add", "unheard-of"], "unknown vendor \"unheard-of\""),
        (&["endpoint", "add", "e", "--url", "http://h/v1"], "already"),
        (&["endpoint", "remove", "e"], "--with-models"),
        (&["endpoint", "add"], "missing endpoint name"),
    ] {
        env.run(arguments).expect_exit(2).expect_stderr(&[words]);
    }
    for arguments in [
        &["model", "add", "a,b", "-e", "e", "-m", "1"][..],
        &["model", "add", "-e", "e", "-m", "1", "--", "-x"],
        &["model", "rename", "a", ".."],
        &["endpoint", "add", "../../pwn", "--url", "http://h/v1"],
    ] {
        env.run(arguments).expect_exit(2).expect_stderr(&["invalid name"]);
    }
    let key = "sk-very-secret-key";
    let (address, endpoint) = (format!("http://{key}:x@h/v1"), format!("x=http://{key}:x@h/v1"));
    let key_env = format!("x={key}");
    for arguments in [
        &["endpoint", "add", "x", "--url", "nonsense"][..],
        &["endpoint", "add", "x", "--url", &address],
        &["endpoint", "add", "x", "--url", "http://h/v1", "--key-env", key],
        &["init", "--yes", "--force", "--endpoint", &endpoint],
        &["init", "--yes", "--force", "--endpoint", "x=http://h/v1", "--key-env", &key_env],
    ] {
        let result = env.run(arguments).expect_exit(2);
        assert!(!format!("{result:?}").contains(key), "{result:?}");
    }
    assert_eq!(config_text(&env), CONFIG);
    env.write_config("[broken");
    env.run(&["model", "add", "x", "-e", "e", "-m", "1"]).expect_exit(3);
    assert_eq!(config_text(&env), "[broken");
}

#[test]
fn concurrent_edits_are_all_written() {
    let env = TestEnv::with_config(CONFIG);
    let started: Vec<_> = (0..8)
        .map(|n| {
            let mut command = env.command();
            command.args(["model", "add", &format!("m{n}"), "-e", "e", "-m", "1"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("program starts")
        })
        .collect();
    for child in started {
        CommandResult::from_output(child.wait_with_output().expect("child has been started")).expect_exit(0);
    }
    assert_eq!(
        (0..8).filter(|n| config_text(&env).contains(&format!("[models.m{n}]"))).count(),
        8,
        "{}",
        config_text(&env)
    );
}

#[test]
fn key_from_stdin_is_stored_in_a_private_file() {
    let env = TestEnv::with_config(CONFIG);
    let server = ScriptedServer::with_replies(&[&answer("hi")]);
    let result = env
        .run_with_input(&["endpoint", "add", "s", "--url", &server.url(), "--key-stdin"], b"sk-very-secret-key\n")
        .expect_exit(0);
    assert!(!format!("{result:?}{}", config_text(&env)).contains("very-secret"), "{}", config_text(&env));
    assert!(config_text(&env).contains("api_key = { file = \"keys/s\" }"), "{}", config_text(&env));
    env.run(&["ask", "-m", "s/x", "hi"]).expect_exit(0);
    assert!(server.requests()[0].head.contains("Bearer sk-very-secret-key"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in ["keys/s", "config.toml", "config.toml.lock"] {
            let mode = fs::metadata(env.path(file)).expect(file).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}

#[test]
fn rejected_endpoint_stores_no_key() {
    let env = TestEnv::with_config(CONFIG);
    let add = |name: &str, key: &[u8]| {
        env.run_with_input(&["endpoint", "add", name, "--url", "http://h/v1", "--key-stdin"], key).expect_exit(2)
    };
    add("../../pwn", b"sk-very-secret-key\n");
    add("e", b"sk-very-secret-key\n").expect_stderr(&["already"]);
    add("two-lines", b"sk-very-secret-key\nmore\n").expect_stderr(&["has more than one line"]);
    add("binary", b"sk-\xff").expect_stderr(&["is not UTF-8"]);
    add("empty", b"\n").expect_stderr(&["is empty"]);
    assert!(!env.path("keys").exists() && config_text(&env) == CONFIG);
}

#[test]
fn byte_order_mark_and_line_endings_are_preserved() {
    let env = TestEnv::with_config(&format!("\u{feff}{}", CONFIG.replace('\n', "\r\n")));
    env.run(&["model", "rename", "a", "b"]).expect_exit(0);
    let want = CONFIG.replace("models.a", "models.b").replace("[\"a\"]", "[\"b\"]").replace('\n', "\r\n");
    assert_eq!(config_text(&env), format!("\u{feff}{want}"));
}

#[test]
fn line_endings_of_most_lines_and_detached_comments_are_kept() {
    let config = "# === a ===\n\n[endpoints.a]\nbase_url = \"http://a/v1\"\n# === b ===\n\n# about b\n[endpoints.b]\nbase_url = \"http://b/v1\"\n";
    let env = TestEnv::with_config(&config.replace('\n', "\r\n").replacen("\r\n", "\n", 1));
    env.run(&["endpoint", "remove", "b"]).expect_exit(0);
    let want = config.split_inclusive('\n').take(5).collect::<String>().replace('\n', "\r\n");
    assert_eq!(config_text(&env), want);
}

#[test]
fn key_files_in_use_by_other_endpoints_are_not_named() {
    let env = TestEnv::with_config("[endpoints.e]\nbase_url = \"http://h/v1\"\napi_key = { file = \"keys/b\" }\n");
    fs::create_dir(env.path("keys")).expect("writable folder");
    fs::write(env.path("keys/b"), "sk-of-e\n").expect("writable file");
    env.run_with_input(&["endpoint", "add", "b", "--url", "http://b/v1", "--key-stdin"], b"sk-of-b\n").expect_exit(0);
    let removed = env.run(&["endpoint", "remove", "b"]).expect_exit(0);
    assert!(removed.stderr.contains("keys/b-2\n") && !removed.stderr.contains("keys/b\n"), "{}", removed.stderr);
}

#[test]
fn added_key_that_is_in_use_is_not_stored_twice() {
    let env = TestEnv::with_config(CONFIG);
    let set = |key: &[u8]| env.run_with_input(&["key", "set", "e", "--add"], key).expect_exit(0);
    set(b"sk-one\n");
    // Windows shells may start the text with a byte order mark.
    set(b"\xef\xbb\xbfsk-one\n").expect_stderr(&["endpoint \"e\" already uses this key: file ", "keys/e"]);
    assert_eq!(fs::read_dir(env.path("keys")).expect("existing folder").count(), 1);
}

#[test]
fn references_to_a_missing_key_file_can_be_removed() {
    let env = TestEnv::with_config("[endpoints.e]\nbase_url = \"http://h/v1\"\napi_key = { file = \"keys/b\" }\n");
    env.run(&["key", "remove", "b"]).expect_exit(2).expect_stderr(&["does not exist"]);
    env.run(&["key", "remove", "b", "--everywhere"]).expect_exit(0).expect_stderr(&["from endpoint \"e\""]);
    assert!(!config_text(&env).contains("keys/b"), "{}", config_text(&env));
    let used_in_a_header = "[endpoints.e]\nbase_url = \"http://h/v1\"\nheaders = { X = { file = \"keys/b\" } }\n";
    env.write_config(used_in_a_header);
    env.run(&["key", "remove", "b", "--everywhere"]).expect_exit(2).expect_stderr(&["does not exist"]);
    // A folder is not a key file.
    env.write_config("[endpoints.e]\nbase_url = \"http://h/v1\"\napi_key = { file = \"keys/d\" }\n");
    fs::create_dir_all(env.path("keys/d")).expect("writable folder");
    env.run(&["key", "remove", "d"]).expect_exit(2).expect_stderr(&["is a folder"]);
}

#[cfg(unix)]
#[test]
fn removed_link_to_a_key_file_leaves_the_uses_of_the_file() {
    let env = TestEnv::with_config("[endpoints.e]\nbase_url = \"http://h/v1\"\napi_key = { file = \"keys/b\" }\n");
    fs::create_dir(env.path("keys")).expect("writable folder");
    fs::write(env.path("keys/b"), "sk-of-e\n").expect("writable file");
    std::os::unix::fs::symlink("b", env.path("keys/a")).expect("writable folder");
    env.run(&["key", "remove", "a"]).expect_exit(0);
    assert!(config_text(&env).contains("keys/b") && env.path("keys/b").exists() && !env.path("keys/a").exists());
}

#[cfg(unix)]
#[test]
fn dry_runs_write_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let env = TestEnv::with_config(CONFIG);
    let folder = env.path("config.toml").parent().expect("a folder").to_owned();
    fs::write(folder.join("other.env"), "OPENAI_API_KEY=sk-x\n").expect("writable file");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).expect("own folder");
    let before = env.read_all_files().len();
    assert_eq!(env.run(&["config", "migrate", "--dry-run"]).expect_exit(0).stdout, CONFIG);
    let file = folder.join("other.env").display().to_string();
    env.run(&["config", "import", "--dry-run", &file]).expect_exit(0);
    assert_eq!(env.read_all_files().len(), before);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("own folder");
}

#[cfg(unix)]
#[test]
fn unwritable_directory_is_named_in_the_error() {
    let env = TestEnv::new();
    let run = |arguments: &[&str]| {
        CommandResult::from_output(
            env.command()
                .env("MMCHAT_CONFIG", "/dev/null/x/config.toml")
                .args(arguments)
                .output()
                .expect("program starts"),
        )
    };
    run(&["endpoint", "add", "openai"]).expect_exit(1).expect_stderr(&["cannot write /dev/null/x/config.toml"]);
    run(&["init", "--yes"]).expect_exit(1).expect_stderr(&["cannot write /dev/null/x/config.toml"]);
}

#[test]
fn presets_are_rendered_and_invalid_ones_reported() {
    let server = ScriptedServer::with_replies(&[&answer("ok"), &answer("ok"), &answer("ok")]);
    let more = "[models.m1]\nendpoint = \"m\"\nmodel = \"up\"\n[presets.review]\nmodel = \"m1\"\nsystem = \"You know {{ lang }}.\"\nprompt = \"Review:\\n{{ input }}\"\nparams = { temperature = 0.25 }\n";
    let env = TestEnv::with_server(&server, more);
    env.run_with_input(&["ask", "-p", "review", "-P", "lang=Rust"], b"let x;").expect_exit(0);
    let sent = server.requests()[0].json();
    assert_eq!((&sent["model"], &sent["temperature"]), (&"up".into(), &0.25.into()));
    assert_eq!(
        (&sent["messages"][0]["content"], &sent["messages"][1]["content"]),
        (&"You know Rust.".into(), &"Review:\nlet x;".into())
    );
    fs::create_dir(env.path("presets")).expect("writable directory");
    fs::write(env.path("presets/own.toml"), "prompt = \"Say {{ word | default('hi') }}.\"\n").expect("writable file");
    env.run(&["compare", "-m", "m1", "-p", "own"]).expect_exit(0);
    assert_eq!(server.requests()[1].json()["messages"][0]["content"], "Say hi.");
    env.run(&["ask", "-m", "m/z", "-s", "mine", "--temperature", "1", "-p", "review", "-P", "lang=C", "x"])
        .expect_exit(0);
    let sent = server.requests()[2].json();
    assert_eq!(
        (&sent["model"], &sent["temperature"], &sent["messages"][0]["content"]),
        (&"z".into(), &1.0.into(), &"mine".into())
    );
    fs::write(env.path("presets/named.toml"), "model = \"m1\"\n").expect("writable file");
    env.run(&["model", "rename", "m1", "m2"]).expect_exit(0).expect_stderr(&["named.toml still names \"m1\""]);
    env.run(&["model", "rename", "m2", "m1"]).expect_exit(0);
    for (arguments, code, words) in [
        (&["compare", "-p", "named", "-P", "a=b", "x"][..], 2, "has no variable"),
        (&["ask", "-p", "review", "x"], 2, "preset \"review\" has no value for lang"),
        (&["ask", "-p", "review", "-P", "lang=C"], 2, "has no value for input"),
        (&["ask", "-p", "review", "-P", "lnag=C", "x"], 2, "did you mean \"lang\"?"),
        (&["ask", "-p", "reveiw", "x"], 2, "did you mean \"review\"?"),
        (&["ask", "-m", "m1", "-P", "a=b", "x"], 2, "--preset"),
    ] {
        env.run(arguments).expect_exit(code).expect_stderr(&[words]);
    }
    let result = env.run(&["presets", "list"]).expect_exit(0);
    assert!(
        result.stdout.contains("review") && result.stdout.contains("input, lang") && result.stdout.contains("own.toml"),
        "{result:?}"
    );
    assert!(env.run(&["presets", "show", "review"]).expect_exit(0).stdout.contains("[presets.review]"));
    assert!(env.run(&["presets", "show", "own"]).expect_exit(0).stdout.contains("default('hi')"));
    fs::write(
        env.path("presets/loop.toml"),
        "prompt = \"{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}\"\n",
    )
    .expect("writable file");
    env.run(&["ask", "-m", "m1", "-p", "loop"]).expect_exit(2).expect_stderr(&["steps"]);
    fs::write(env.path("presets/bad.toml"), "prompt = \"{{ open\"\n").expect("writable file");
    env.run(&["ask", "-m", "m1", "-p", "bad"]).expect_exit(3).expect_stderr(&["bad.toml", "template"]);
    let listed = env.run(&["presets", "list"]).expect_exit(3).expect_stderr(&["bad.toml"]);
    assert!(listed.stdout.contains("invalid") && listed.stdout.contains("review"), "{listed:?}");
}

#[cfg(unix)]
#[test]
fn presets_edit_opens_the_editor_and_validates() {
    let env = TestEnv::with_config(CONFIG);
    let run = |editor: &str, name: &str| {
        CommandResult::from_output(
            env.command().env("EDITOR", editor).args(["presets", "edit", name]).output().expect("program starts"),
        )
    };
    run("true", "new").expect_exit(0).expect_stderr(&["presets/new.toml is valid"]);
    assert!(fs::read_to_string(env.path("presets/new.toml")).expect("created file").contains("{{ input }}"));
    fs::write(env.path("spoil"), "#!/bin/sh\necho 'prompt = 1' > \"$1\"\n").expect("writable script");
    crate::common::set_mode(&env.path("spoil"), 0o700);
    run(env.path("spoil").to_str().expect("UTF-8 path"), "new").expect_exit(3).expect_stderr(&["invalid type"]);
    run("false", "new").expect_exit(2).expect_stderr(&["ended with"]);
    env.run(&["presets", "edit", "new"]).expect_exit(2).expect_stderr(&["VISUAL"]);
    run("true", "a/b").expect_exit(2).expect_stderr(&["invalid name"]);
}

#[test]
fn images_are_sent_only_to_models_that_accept_them() {
    let server = ScriptedServer::with_replies(&[&answer("seen"), &answer("seen")]);
    let more = "[models.eyes]\nendpoint = \"m\"\nmodel = \"v\"\ncapabilities = [\"images\"]\n[models.blind]\nendpoint = \"m\"\nmodel = \"b\"\ncapabilities = [\"tools\"]\n[routes.r]\nmodels = [\"blind\", \"eyes\"]\n";
    let env = TestEnv::with_server(&server, more);
    let path = env.path("p.bin");
    fs::write(&path, b"\x89PNG\r\n\x1a\nrest").expect("writable file");
    let file = path.to_str().expect("UTF-8 path");
    env.run(&["ask", "-m", "eyes", "-f", file, "-f", "https://h/x.webp", "what is it"]).expect_exit(0);
    let parts = server.requests()[0].json()["messages"][0]["content"].clone();
    assert_eq!(parts[0]["text"], "what is it");
    assert!(
        parts[1]["image_url"]["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("data:image/png;base64,iVBORw0KGgpyZXN0")),
        "{parts}"
    );
    assert_eq!(parts[2]["image_url"]["url"], "https://h/x.webp");
    env.run(&["ask", "-m", "r", "-f", file, "x"])
        .expect_exit(0)
        .expect_stderr(&["blind: skipped: it does not accept images"]);
    env.run(&["ask", "-m", "blind", "-f", file, "x"])
        .expect_exit(2)
        .expect_stderr(&["\"blind\" does not accept images"]);
    fs::write(env.path("fake.png"), "<html>").expect("writable file");
    let fake = env.path("fake.png");
    env.run(&["ask", "-m", "eyes", "-f", fake.to_str().expect("UTF-8 path"), "x"])
        .expect_exit(2)
        .expect_stderr(&["not an image"]);
}

#[cfg(unix)]
#[test]
fn system_file_is_a_layer_below_the_user_file() {
    let mut env = TestEnv::with_config("default = \"fast\"\nhistory = false\n");
    let folder = env.path("xdg").join("mmchat");
    fs::create_dir_all(&folder).expect("a writable directory");
    let system = "[endpoints.company]\nbase_url = \"http://127.0.0.1:1/v1\"\n[models.fast]\nendpoint = \"company\"\nmodel = \"small\"\n";
    fs::write(folder.join("config.toml"), system).expect("a writable file");
    env.variables = vec![("XDG_CONFIG_DIRS", env.path("xdg").to_str().expect("UTF-8").to_owned().leak())];
    let dry_run = env.run(&["ask", "--dry-run", "hi"]).expect_exit(0);
    assert!(dry_run.stdout.contains("\"small\""), "{}", dry_run.stdout);
    // An edit may refer to an entry of the system's file, but cannot change it.
    env.run(&["model", "add", "big", "-e", "company", "-m", "large"]).expect_exit(0);
    env.run(&["model", "remove", "fast"]).expect_exit(2).expect_stderr(&["\"fast\" is defined in", "administrator"]);
    assert_eq!(fs::read_to_string(folder.join("config.toml")).expect("readable"), system);
    env.run(&["config", "check"]).expect_exit(0).expect_stderr(&["xdg/mmchat/config.toml, ", "2 models"]);
    let shown = env.run(&["config", "show", "--origin"]).expect_exit(0).stdout;
    assert!(shown.contains("model = \"small\"  # ") && shown.contains("xdg/mmchat/config.toml:5\n"), "{shown}");
    // The system's file may name a key file that each user stores.
    let with_key = format!(
        "[endpoints.company]\nbase_url = \"http://127.0.0.1:1/v1\"\napi_key = {{ file = \"{}\" }}\n[models.fast]\nendpoint = \"company\"\nmodel = \"small\"\n",
        env.path("keys/company").display()
    );
    fs::write(folder.join("config.toml"), with_key).expect("a writable file");
    let stored = env.run_with_input(&["key", "set", "company"], b"sk-very-secret-key\n").expect_exit(0);
    assert!(!stored.stderr.contains("no endpoint uses it"), "{}", stored.stderr);
    env.run(&["key", "remove", "company"]).expect_exit(2).expect_stderr(&["endpoint \"company\" uses key"]);
    env.run_with_input(&["key", "set", "company", "--add"], b"sk-other-secret\n")
        .expect_exit(2)
        .expect_stderr(&["\"company\" is defined in", "administrator"]);
    fs::write(folder.join("config.toml"), "[models.fast]\nendpoint = 1\n").expect("a writable file");
    let broken = env.run(&["config", "check"]).expect_exit(3);
    broken.expect_stderr(&["xdg/mmchat/config.toml:2:12", "missing key `model`"]);
}
