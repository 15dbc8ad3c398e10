//! Sources that give a key, and those that give none.

use super::*;

fn ring(pairs: &[(&str, &str)]) -> KeyRing {
    KeyRing::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn variables_are_read_and_their_absence_is_named() {
    let ring = ring(&[("A", " sk-1 "), ("EMPTY", "")]);
    let key = block_on(ring.resolve(&KeySource::Env("A".into()))).expect("set");
    assert_eq!(key.expose(), "sk-1");
    for name in ["B", "EMPTY"] {
        let error = block_on(ring.resolve(&KeySource::Env(name.into()))).expect_err("not set");
        assert!(error.to_string().contains(name));
    }
}

#[test]
fn a_glance_runs_nothing() {
    let ring = ring(&[("A", "sk-1")]);
    assert!(ring.glance(&KeySource::Env("A".into())).is_ok());
    assert!(matches!(ring.glance(&KeySource::Env("B".into())), Err(KeyError::Unset(_))));
    assert!(matches!(ring.glance(&KeySource::File("no/such/file".into())), Err(KeyError::File { .. })));
    assert!(ring.glance(&KeySource::Command(vec!["mmchat-no-such-program".into()])).is_ok());
    assert!(matches!(ring.glance(&KeySource::Keyring("k".into())), Err(KeyError::Unsupported(_))));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-file\n").expect("a file");
    let resolve = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        block_on(KeyRing::default().resolve(&KeySource::File(path.clone())))
    };
    assert_eq!(resolve(0o600).expect("private").expose(), "sk-file");
    // A pipe that nobody writes to must not be waited for.
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    assert!(matches!(block_on(KeyRing::default().resolve(&KeySource::File(pipe))), Err(KeyError::File { .. })));
    let error = resolve(0o644).expect_err("exposed");
    assert!(matches!(error, KeyError::Exposed(_)) && error.hint().is_some_and(|hint| hint.contains("chmod 600")));
}

#[cfg(unix)]
#[test]
fn a_command_runs_once_without_a_shell_and_its_failure_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("runs");
    let line = format!("echo x >> {}; echo sk-cmd; echo more", log.display());
    let ring = KeyRing::default();
    let source = KeySource::Shell(line);
    let both = block_on(async { futures_util::future::join(ring.resolve(&source), ring.resolve(&source)).await });
    assert_eq!((both.0.expect("runs").expose(), both.1.expect("runs").expose()), ("sk-cmd", "sk-cmd"));
    assert_eq!(std::fs::read_to_string(&log).expect("a log"), "x\n");

    let words = ["echo", "$HOME; echo y"].map(str::to_owned).to_vec();
    let key = block_on(ring.resolve(&KeySource::Command(words))).expect("runs");
    assert_eq!(key.expose(), "$HOME; echo y");

    let failing = KeySource::Shell("echo no such entry >&2; exit 3".into());
    let error = block_on(ring.resolve(&failing)).expect_err("fails").to_string();
    assert!(error.contains("exit status: 3") && error.contains("no such entry"), "{error}");
    let missing = KeySource::Command(vec!["mmchat-no-such-program".into()]);
    assert!(matches!(block_on(ring.resolve(&missing)), Err(KeyError::Start { .. })));
    assert!(matches!(block_on(ring.resolve(&KeySource::Command(vec!["true".into()]))), Err(KeyError::Empty(_))));
}

#[cfg(unix)]
#[test]
fn a_command_that_hangs_is_ended() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    let ring = KeyRing::default();
    let source = KeySource::Command(vec!["sleep".into(), "1000".into()]);
    assert!(matches!(runtime.block_on(ring.resolve(&source)), Err(KeyError::Slow(_))));
}

#[cfg(unix)]
#[test]
fn a_command_holds_no_more_than_a_key_and_is_not_waited_for_by_its_children() {
    let resolve = |words: &[&str]| {
        let command = words.iter().map(|word| (*word).to_owned()).collect();
        block_on(ring(&[]).resolve(&KeySource::Command(command)))
    };
    assert!(matches!(resolve(&["yes"]), Err(KeyError::TooLong(_))));
    // The child outlives the command and holds its output open.
    let key = resolve(&["sh", "-c", "tail -f /dev/null & echo sk-abcdefgh; echo $! >&2"]).expect("it was printed");
    assert_eq!(key.expose(), "sk-abcdefgh");
}
