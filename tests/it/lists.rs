//! `models`, `ping`, `vendors` and `man`.

use crate::common::{ScriptedServer, TestEnv, answer, http_response};

fn model_list(ids: &[&str]) -> String {
    let data: Vec<_> = ids.iter().map(|id| serde_json::json!({"id": id, "context_length": 8192})).collect();
    http_response("200 OK", "content-type: application/json\r\n", &serde_json::json!({"data": data}).to_string())
}

const UNAUTHORIZED: &str = "{\"error\":{\"message\":\"Incorrect API key provided.\",\"code\":\"invalid_api_key\"}}";

#[test]
fn models_lists_why_a_model_is_unusable() {
    let env = TestEnv::with_config(
        "[endpoints.good]\nbase_url = \"http://h/v1\"\n[endpoints.nokey]\nbase_url = \"http://h/v1\"\napi_key = { env = \"NOT_SET\" }\n\
         [endpoints.nofile]\nbase_url = \"http://h/v1\"\napi_key = { file = \"none\" }\n\
         [models]\na = { endpoint = \"good\", model = \"x/y\", context = 8192, tags = [\"t\"], price = { input = 1, output = 2 } }\n\
         b = { endpoint = \"nokey\", model = \"z\" }\nc = { endpoint = \"nofile\", model = \"z\" }\n\
         [routes.r]\nmodels = [\"a\", \"b\"]\n[sets]\ns = [\"a\"]\n",
    );
    let result = env.run(&["models"]).expect_exit(0);
    let row = |name: &str| {
        result.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{result:?}")).to_owned()
    };
    assert!(row("a ").contains("x/y") && row("a ").contains("8192") && row("a ").ends_with("yes"), "{result:?}");
    assert!(row("b ").contains("no: environment variable NOT_SET is not set"), "{result:?}");
    assert!(row("c ").contains("cannot read key file"), "{result:?}");
    assert!(row("r ").contains("a > b") && row("s ").contains("set"), "{result:?}");
    let json = env.run(&["models", "--format", "json"]).expect_exit(0).json();
    assert_eq!((&json["models"][0]["usable"], &json["models"][1]["usable"]), (&true.into(), &false.into()));
    assert!(TestEnv::new().run(&["models"]).expect_exit(0).stderr.contains("mmchat init"));
}

#[test]
fn ping_distinguishes_dead_endpoint_wrong_key_and_unknown_model() {
    let good = ScriptedServer::with_replies(&[&model_list(&["m1", "gpt-4o"])]);
    let locked = ScriptedServer::with_replies(&[&http_response(
        "401 Unauthorized",
        "content-type: application/json\r\n",
        UNAUTHORIZED,
    )]);
    let env = TestEnv::with_config(&format!(
        "[endpoints.good]\nbase_url = \"{}\"\n[endpoints.locked]\nbase_url = \"{}\"\napi_key = \"sk-wrong-key\"\n[endpoints.dead]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         [models]\na = {{ endpoint = \"good\", model = \"m1\" }}\nb = {{ endpoint = \"good\", model = \"gpt-4\" }}\nc = {{ endpoint = \"dead\", model = \"x\" }}\n",
        good.url(),
        locked.url()
    ));
    let result = env.run(&["ping"]).expect_exit(7);
    let row = |name: &str| {
        result.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{result:?}")).to_owned()
    };
    assert!(row("good ").contains("ok") && row("good ").contains('2'), "{result:?}");
    assert!(row("locked ").contains("ERR auth") && row("locked ").contains("Incorrect API key"), "{result:?}");
    assert!(row("dead ").contains("ERR connect") && row("dead ").contains("127.0.0.1:1"), "{result:?}");
    assert!(row("a ").contains("yes"), "{result:?}");
    assert!(row("b ").contains("NO") && row("b ").contains("did you mean \"gpt-4o\"?"), "{result:?}");
    assert!(row("c ").contains('?'), "{result:?}");
    assert!(!format!("{result:?}").contains("sk-wrong"));
}

#[test]
fn deep_ping_requests_one_token_from_the_named_model() {
    let server = ScriptedServer::with_replies(&[&model_list(&["m1"]), &answer("h")]);
    let env = TestEnv::with_server(&server, "[models.a]\nendpoint = \"m\"\nmodel = \"m1\"\n");
    let json = env.run(&["ping", "a", "--deep", "--format", "json"]).expect_exit(0).json();
    assert_eq!((&json["models"][0]["asked"]["ok"], &json["endpoints"][0]["models"]), (&true.into(), &1.into()));
    let request =
        server.requests().iter().find(|request| request.head.starts_with("POST")).expect("POST request").json();
    assert_eq!(request["max_tokens"], 1);
    env.run(&["ping", "nope"]).expect_exit(2).expect_stderr(&["unknown endpoint or model \"nope\""]);
    let dead = TestEnv::with_config("[endpoints.d]\nbase_url = \"http://127.0.0.1:1/v1\"\n");
    dead.run(&["ping"]).expect_exit(5);
    TestEnv::new().run(&["ping"]).expect_exit(4).expect_stderr(&["no API key in the environment"]);
}

#[test]
fn model_list_is_fetched_page_by_page_and_cached_for_completion() {
    let first = "{\"data\":[{\"id\":\"a/1\"},{\"id\":\"a/2\"}],\"has_more\":true,\"last_id\":\"a/2\"}";
    let second = "{\"data\":[{\"id\":\"b\"},{\"id\":\"c\\u001b[31m\"}],\"has_more\":false}";
    let headers = "content-type: application/json\r\n";
    let server = ScriptedServer::with_replies(&[
        &http_response("200 OK", headers, first),
        &http_response("200 OK", headers, second),
    ]);
    let env = TestEnv::with_server(&server, "[models.mine]\nendpoint = \"m\"\nmodel = \"a/2\"\n");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = env.command();
        command.env("XDG_CACHE_HOME", env.path("cache")).envs(variables.iter().copied()).args(arguments);
        crate::common::CommandResult::from_output(command.output().expect("program starts"))
    };
    let result = run(&["models", "available", "m"], &[]).expect_exit(0);
    assert_eq!(
        result.stdout.lines().skip(1).map(|line| line.split_whitespace().next().expect("model id")).collect::<Vec<_>>(),
        ["a/1", "a/2", "b"]
    );
    assert!(
        result.stdout.lines().nth(2).expect("row of a/2").ends_with("mine") && !result.stdout.contains('\u{1b}'),
        "{result:?}"
    );
    assert!(server.requests()[1].head.contains("after=a%2F2"), "{:?}", server.requests()[1]);
    let completed = run(&["--", "mmchat", "ask", "-m", "m/a"], &[("COMPLETE", "fish")]).expect_exit(0);
    assert_eq!(completed.stdout, "m/a/1\nm/a/2\n");
    env.run(&["models", "available", "n"]).expect_exit(2).expect_stderr(&["unknown endpoint \"n\""]);
    let dead = TestEnv::with_config("[endpoints.d]\nbase_url = \"http://127.0.0.1:1/v1\"\n");
    dead.run(&["models", "available", "d"]).expect_exit(5).expect_stderr(&["cannot list the models", "127.0.0.1:1"]);
}

#[test]
fn rejected_key_rotates_to_the_next() {
    let refusal = http_response("401 Unauthorized", "content-type: application/json\r\n", UNAUTHORIZED);
    let server = ScriptedServer::with_replies(&[&refusal, &model_list(&["m1"])]);
    let config =
        format!("[endpoints.m]\nbase_url = \"{}\"\napi_keys = [\"sk-dead-key\", \"sk-good-key\"]\n", server.url());
    let env = TestEnv::with_config(&config);
    assert!(env.run(&["models", "available", "m"]).expect_exit(0).stdout.contains("m1"));
    assert!(server.requests()[1].head.contains("sk-good-key"));
    TestEnv::with_config("default = \"x/y\"\n[endpoints.x]\nbase_url = \"http://h/v1\"\n")
        .run(&["compare", "hi"])
        .expect_exit(2)
        .expect_stderr(&["no models selected"]);
    TestEnv::with_config("# empty\n").run(&["ping"]).expect_exit(2).expect_stderr(&["no endpoints"]);
}

#[test]
fn long_model_list_is_paginated() {
    let ids: Vec<String> = (0..120).map(|n| format!("model-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let server =
        ScriptedServer::with_replies(&[&model_list(&ids), &model_list(&ids), &model_list(&ids), &model_list(&ids)]);
    let env = TestEnv::with_server(&server, "");
    assert_eq!(env.run(&["models", "available", "m"]).expect_exit(0).stdout.lines().count(), 121);
    let result = env
        .run(&["models", "available", "m", "--page", "3"])
        .expect_exit(0)
        .expect_stderr(&["page 3 of 3, 120 models"]);
    assert_eq!((result.stdout.lines().count(), result.stdout.contains("model-119")), (21, true));
    env.run(&["models", "available", "m", "--page", "4"]).expect_exit(2).expect_stderr(&["no page 4"]);
    let json = env.run(&["models", "available", "m", "--filter", "MODEL-11", "--format", "json"]).expect_exit(0).json();
    assert_eq!((json.as_array().map(Vec::len), &json[0]["context"]), (Some(11), &8192.into()));
}

#[test]
fn vendors_lists_services_and_set_keys() {
    let env = TestEnv::new();
    let result = crate::common::CommandResult::from_output(
        env.command().env("DEEPSEEK_API_KEY", "sk-very-secret").arg("vendors").output().expect("program starts"),
    )
    .expect_exit(0);
    assert!(
        result.stdout.lines().count() > 25
            && result.stdout.contains("DEEPSEEK_API_KEY*")
            && !result.stdout.contains("very-secret")
    );
    let json = env.run(&["vendors", "--format", "json"]).expect_exit(0).json();
    assert_eq!(json[0]["name"], "openai");
}

#[test]
fn every_command_has_a_manual_page() {
    let env = TestEnv::new();
    assert!(env.run(&["man"]).expect_exit(0).stdout.contains(".TH mmchat 1"));
    assert!(env.run(&["man", "models", "available"]).expect_exit(0).stdout.contains("mmchat\\-models\\-available"));
    env.run(&["man", "compaer"]).expect_exit(2).expect_stderr(&["did you mean \"compare\"?"]);
    let folder = env.path("man1");
    env.run(&["man", "--dir", folder.to_str().expect("UTF-8 path")]).expect_exit(0);
    assert!(folder.join("mmchat-endpoint-add.1").exists());
}
