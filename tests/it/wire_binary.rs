//! Sends every response of `tests/fixtures/wire` to the binary and checks stdout, stderr and the exit code.

use std::{fs, path::Path};

use crate::common::{NO_RETRIES, ScriptedServer, ServerStep, TestEnv};
use serde_json::Value;

/// The exit code that an expectation implies.
fn expected_exit_code(expect: &Value) -> i32 {
    let has_text = expect["text"].as_str().is_none_or(|text| !text.is_empty());
    match expect["error"]["kind"].as_str() {
        None => 0,
        Some("auth" | "permission" | "quota") => 4,
        Some(_) if has_text => 8,
        Some(_) => 5,
    }
}

#[test]
fn each_response_has_the_expected_text_and_exit_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire");
    let mut tried = 0;
    for entry in fs::read_dir(&folder).expect("fixture directory") {
        let path = entry.expect("readable entry").path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".http")) else { continue };
        let expect = fs::read_to_string(folder.join(format!("{name}.expect.json"))).expect("readable expectation");
        let expect: Value = serde_json::from_str(&expect).expect("valid JSON");
        if expect["api"] != "openai" {
            continue;
        }
        tried += 1;
        let server = ScriptedServer::start(vec![vec![ServerStep::Bytes(fs::read(&path).expect("readable fixture"))]]);
        let option = expect["client_option"].as_str().map(|option| format!("{option} = true\n")).unwrap_or_default();
        let more = format!("[models.x]\nendpoint = \"m\"\nmodel = \"x\"\n{option}\n{NO_RETRIES}");
        let mut arguments = vec!["ask", "-m", "x", "hi"];
        if expect["asked_stream"] == false {
            arguments.push("--no-stream");
        }
        let result = TestEnv::with_server(&server, &more).run(&arguments);
        // An expectation with several kinds also allows the exit code of an auth error.
        let codes =
            [expected_exit_code(&expect)].into_iter().chain(expect["error"]["kind_any_of"].is_array().then_some(4));
        let code = result.code.expect("exit code");
        assert!(codes.into_iter().any(|wanted| wanted == code), "{name}: {result:?}");
        let trim = |text: &str| if expect["trim"] == true { text.trim().to_owned() } else { text.to_owned() };
        match expect["text_any_of"].as_array() {
            Some(any) => assert!(any.iter().any(|text| *text == result.stdout), "{name}: {result:?}"),
            None => assert_eq!(trim(&result.stdout), expect["text"].as_str().expect("text"), "{name}: {result:?}"),
        }
        let message = expect["error"]["message_contains"].as_str().unwrap_or_default().to_lowercase();
        assert!(result.stderr.to_lowercase().contains(&message), "{name}: {result:?}");
        assert_eq!(code == 0, !result.stderr.contains("error: "), "{name}: {result:?}");
    }
    assert!(tried > 80, "only {tried} responses found");
}
