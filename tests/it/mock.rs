//! `mock` through the binary: its faults and settings, as `ask` sees them.

use crate::common::{MockProcess, NO_RETRIES, TestEnv};

/// An environment with this mock as its endpoint, short timeouts and no retries.
fn mock_env(mock: &MockProcess) -> TestEnv {
    let timeouts = "timeouts = { first_token = \"1s\", idle = \"300ms\" }";
    TestEnv::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\n{timeouts}\n{NO_RETRIES}", mock.url))
}

#[test]
fn each_fault_has_an_error_class_and_exit_code() {
    let mock = MockProcess::start(&["--ttft", "0s", "--tps", "0", "--tokens", "12"]);
    let env = mock_env(&mock);
    for (fault, class, code) in [
        ("reset", "reset", 5),
        ("silent", "timeout", 6),
        ("server", "server", 5),
        ("overloaded", "overloaded", 5),
        ("no-channel", "no-channel", 5),
        ("gateway-timeout", "gateway-timeout", 5),
        ("rate", "rate", 5),
        ("quota", "quota", 4),
        ("auth", "auth", 4),
        ("forbidden", "forbidden", 4),
        ("model", "model", 5),
        ("path", "path", 5),
        ("context", "context", 5),
        ("filter", "filter", 5),
        ("request", "request", 5),
        ("conflict", "conflict", 5),
        ("redirect", "redirect", 5),
        ("garbage", "invalid-response", 5),
        ("empty", "invalid-response", 5),
        ("in-stream", "in-stream", 5),
        ("cut", "incomplete", 8),
        ("cut-clean", "incomplete", 8),
        ("cut-forged", "incomplete", 8),
        ("cut-error", "incomplete", 8),
        ("stall", "incomplete", 8),
        ("garbled", "invalid-chunk", 8),
        ("done-only", "ok", 0),
        ("lingering", "ok", 0),
    ] {
        let result = env.run(&["ask", "-m", &format!("m/{fault}"), "--format", "json", "hi"]).expect_exit(code);
        let json = result.json();
        assert_eq!(json["attempts"][0]["class"], class, "{fault}: {result:?}");
        let has_text = json["content"].as_str().is_some_and(|text| text.starts_with("This is a scripted"));
        assert_eq!(has_text, matches!(code, 0 | 8), "{fault}: {result:?}");
    }
    let result = env.run(&["ask", "-m", "m/max-tokens", "--max-tokens", "3", "hi"]).expect_exit(0);
    result.expect_stderr(&["max_completion_tokens"]);
}

#[test]
fn model_settings_control_tokens_usage_reasoning_and_failures() {
    let mock = MockProcess::start(&[
        "--tps",
        "0",
        "--model",
        "mine=tokens=7+reasoning=3+ttft=0s",
        "--seed",
        "5",
        "--key",
        "sk-mock-key",
    ]);
    let env = TestEnv::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\napi_key = \"sk-mock-key\"\n", mock.url));
    let ask = |model: &str, more: &[&str]| {
        env.run(&[&["ask", "--format", "json", "-m", model], more, &["hi"]].concat()).expect_exit(0).json()
    };
    let (streamed, complete) = (ask("m/mine", &[]), ask("m/mine", &["--no-stream"]));
    for answer in [&streamed, &complete] {
        assert_eq!((&answer["usage"]["output"], &answer["usage"]["reasoning"]), (&10.into(), &3.into()));
        assert_eq!(answer["usage"]["estimated"], false);
    }
    assert_eq!((&streamed["content"], &streamed["reasoning"]), (&complete["content"], &complete["reasoning"]));
    assert_eq!(ask("m/mine+usage=off", &[])["usage"]["estimated"], true);
    assert_eq!(ask("m/server+fail-first=1", &[])["attempts"].as_array().map(Vec::len), Some(2));
    let wrong =
        TestEnv::with_config(&format!("[endpoints.m]\nbase_url = \"{}\"\napi_key = \"sk-other-key\"\n", mock.url));
    wrong.run(&["ask", "-m", "m/mine", "hi"]).expect_exit(4).expect_stderr(&["auth 401"]);
    env.run(&["ask", "-m", "m/no-such-model", "hi"]).expect_exit(5).expect_stderr(&["model 404", "does not exist"]);
}

#[test]
fn invalid_arguments_exit_2() {
    let env = TestEnv::new();
    env.run(&["mock", "--fault", "explode"]).expect_exit(2).expect_stderr(&["explode", "reset"]);
    env.run(&["mock", "--model", "x=speed=1"]).expect_exit(2).expect_stderr(&["speed"]);
    env.run(&["mock", "--tps=-3"]).expect_exit(2).expect_stderr(&["tps"]);
}
