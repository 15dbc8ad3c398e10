//! Tests of resolving key sources.

use super::*;

fn ring(pairs: &[(&str, &str)]) -> KeyRing {
    KeyRing::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime starts").block_on(future)
}

#[test]
fn unset_and_empty_variables_are_errors_that_name_the_variable() {
    let ring = ring(&[("A", " sk-1 "), ("EMPTY", "")]);
    let key = block_on(ring.resolve(&KeySource::Env("A".into()))).expect("set");
    assert_eq!(key.expose(), "sk-1");
    for name in ["B", "EMPTY"] {
        let error = block_on(ring.resolve(&KeySource::Env(name.into()))).expect_err("not set");
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn check_does_not_run_commands() {
    let ring = ring(&[("A", "sk-1")]);
    assert!(ring.check(&KeySource::Env("A".into())).is_ok());
    assert!(matches!(ring.check(&KeySource::Env("B".into())), Err(KeyError::EnvNotSet(_))));
    assert!(matches!(ring.check(&KeySource::File("no/such/file".into())), Err(KeyError::File { .. })));
    assert!(ring.check(&KeySource::Command(vec!["mmchat-no-such-program".into()])).is_ok());
    assert!(matches!(ring.check(&KeySource::Keyring("k".into())), Err(KeyError::KeyringUnsupported(_))));
}

#[cfg(unix)]
#[test]
fn key_file_readable_by_others_and_named_pipe_are_rejected() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("temporary directory");
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-file\n").expect("file is written");
    let resolve = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("file is owned by this user");
        block_on(KeyRing::default().resolve(&KeySource::File(path.clone())))
    };
    assert_eq!(resolve(0o600).expect("private file").expose(), "sk-file");
    // A named pipe without a writer must not block.
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    assert!(matches!(block_on(KeyRing::default().resolve(&KeySource::File(pipe))), Err(KeyError::File { .. })));
    let error = resolve(0o644).expect_err("readable by others");
    assert!(
        matches!(error, KeyError::InsecurePermissions(_))
            && error.hint().is_some_and(|hint| hint.contains("chmod 600"))
    );
}

#[cfg(unix)]
#[test]
fn command_runs_once_and_its_failure_is_reported() {
    let folder = tempfile::tempdir().expect("temporary directory");
    let log = folder.path().join("runs");
    let line = format!("echo x >> {}; echo sk-cmd; echo more", log.display());
    let ring = KeyRing::default();
    let source = KeySource::Shell(line);
    let (first, second) =
        block_on(async { futures_util::future::join(ring.resolve(&source), ring.resolve(&source)).await });
    assert_eq!((first.expect("runs").expose(), second.expect("runs").expose()), ("sk-cmd", "sk-cmd"));
    assert_eq!(std::fs::read_to_string(&log).expect("log exists"), "x\n");

    let argv = ["echo", "$HOME; echo y"].map(str::to_owned).to_vec();
    let key = block_on(ring.resolve(&KeySource::Command(argv))).expect("runs");
    assert_eq!(key.expose(), "$HOME; echo y");

    let failing = KeySource::Shell("echo no such entry >&2; exit 3".into());
    let error = block_on(ring.resolve(&failing)).expect_err("fails").to_string();
    assert!(error.contains("failed with exit code 3") && error.contains("no such entry"), "{error}");
    let missing = KeySource::Command(vec!["mmchat-no-such-program".into()]);
    assert!(matches!(block_on(ring.resolve(&missing)), Err(KeyError::CommandStart { .. })));
    assert!(matches!(block_on(ring.resolve(&KeySource::Command(vec!["true".into()]))), Err(KeyError::Empty(_))));
}

#[cfg(unix)]
#[test]
fn command_that_hangs_times_out() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("runtime starts");
    let ring = KeyRing::default();
    let source = KeySource::Command(vec!["sleep".into(), "1000".into()]);
    assert!(matches!(runtime.block_on(ring.resolve(&source)), Err(KeyError::CommandTimeout(_))));
}

#[cfg(unix)]
#[test]
fn command_output_is_limited_and_its_children_are_not_waited_for() {
    let resolve = |argv: &[&str]| {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        block_on(ring(&[]).resolve(&KeySource::Command(argv)))
    };
    assert!(matches!(resolve(&["yes"]), Err(KeyError::TooLarge(_))));
    // The child outlives the command and keeps the pipe open.
    let key = resolve(&["sh", "-c", "tail -f /dev/null & echo sk-abcdefgh; echo $! >&2"]).expect("key was printed");
    assert_eq!(key.expose(), "sk-abcdefgh");
}

#[test]
fn keys_that_were_pasted_as_names_are_not_shown() {
    let pasted = "sk-pasted-1234567890";
    for source in [
        KeySource::Env(pasted.into()),
        KeySource::File(format!("keys/{pasted}").into()),
        KeySource::Command(vec![pasted.into(), pasted.into()]),
        #[cfg(unix)]
        KeySource::Shell(format!("{pasted} --token {pasted}")),
    ] {
        let error = block_on(KeyRing::default().resolve(&source)).expect_err("not a source of a key");
        let text = format!("{source} {error} {:?}", error.hint());
        assert!(!text.contains("1234567890") && text.contains(REDACTED), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn secrets_in_a_command_are_not_shown_with_its_error() {
    for command in [
        KeySource::Shell("VAULT_TOKEN=hunter22hunter; echo \"no: hunter22hunter\" >&2; false".into()),
        KeySource::Command(
            ["sh", "-c", "echo \"no: $2\" >&2; false", "sh", "--token", "hunter22hunter"].map(str::to_owned).to_vec(),
        ),
    ] {
        let error = block_on(KeyRing::default().resolve(&command)).expect_err("fails").to_string();
        assert!(error.contains("no: ") && !error.contains("hunter22"), "{error}");
    }
}
