//! Tests of the configuration file of each tool, and of invalid files.

use super::*;

fn read(text: &str) -> ImportedConfig {
    ImportFormat::detect(text).expect("known format").parse(text).expect("valid file")
}

fn models(imported: &ImportedConfig) -> Vec<String> {
    imported.models.iter().map(|model| format!("{}={}/{}", model.name, model.endpoint, model.upstream)).collect()
}

fn members(route: &ImportedRoute) -> Vec<String> {
    route.models.iter().map(|(name, weight)| format!("{name} {weight}")).collect()
}

fn skipped(imported: &ImportedConfig) -> String {
    let lines: Vec<String> = imported.skipped.iter().map(|item| format!("{}: {}", item.item, item.reason)).collect();
    lines.join("\n")
}

#[test]
fn langchain_chatchat_model_settings() {
    let imported = read(include_str!("../../tests/fixtures/import/model_settings.yaml"));
    let names: Vec<&str> = imported.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["xinference", "ollama", "oneapi", "openai"]);
    assert!(imported.endpoints.iter().all(|endpoint| endpoint.keys.is_empty()), "its keys are placeholders");
    assert!(imported.endpoints[2].gateway && !imported.endpoints[3].gateway);
    assert!(models(&imported).contains(&"qwen-7b=ollama/qwen:7b".to_owned()), "{:?}", models(&imported));
    assert!(skipped(&imported).contains("mmchat models sync xinference"));
    assert_eq!(imported.default.as_deref(), Some("xinference/glm4-chat"));
}

#[test]
fn langchain_chatchat_model_config_is_parsed_and_not_executed() {
    let text = "import os\nONLINE_LLM_MODEL = {\n    \"openai-api\": {\"model_name\": \"gpt-4\", \"api_base_url\": \"https://api.openai.com/v1\", \"api_key\": \"sk-in-the-file\"},\n    \"zhipu-api\": {\"api_key\": \"sk-zhipu-key\", \"version\": \"glm-4\", \"provider\": \"ChatGLMWorker\"},\n    \"tiangong\": {\"SkyModel\": 1, \"provider\": \"TianGongWorker\"},\n    \"evil\": {\"api_base_url\": os.system(\"touch /tmp/run\"), \"api_key\": \"x\"},\n}\nLLM_MODELS = [\"zhipu-api\", \"openai-api\"]\n";
    let imported = read(text);
    assert_eq!(models(&imported), ["openai-api=openai-api/gpt-4", "zhipu-api=zhipu/glm-4"]);
    assert_eq!(imported.default.as_deref(), Some("zhipu-api"));
    assert!(skipped(&imported).contains("TianGongWorker") && skipped(&imported).contains("evil"));
    assert!(!format!("{imported:?}").contains("sk-in-the-file"));
}

#[test]
fn one_api_channels() {
    let text = r#"{"success":true,"data":[
        {"id":1,"type":1,"status":1,"name":"openai","base_url":"","key":"sk-one-secret\nsk-two-secret","models":"gpt-4o,gpt-4o-mini","priority":0},
        {"id":2,"type":8,"status":1,"name":"mirror","base_url":"https://mirror.example.com","models":"gpt-4o","model_mapping":"{\"gpt-4o\":\"gpt-4o-2024\"}","priority":9},
        {"id":3,"type":1,"status":2,"name":"off","models":"x"},
        {"id":4,"type":3,"status":1,"name":"azure","base_url":"https://a.azure.com","models":"gpt-4"}]}"#;
    let imported = read(text);
    assert_eq!(
        models(&imported),
        ["gpt-4o-mirror=mirror/gpt-4o-2024", "gpt-4o-2=openai/gpt-4o", "gpt-4o-mini=openai/gpt-4o-mini"]
    );
    assert_eq!(imported.routes.len(), 1);
    assert_eq!(
        (imported.routes[0].name.as_str(), members(&imported.routes[0])),
        ("gpt-4o", vec!["gpt-4o-mirror 1".to_owned(), "gpt-4o-2 1".to_owned()])
    );
    assert_eq!(imported.endpoints[0].base_url, "https://mirror.example.com/v1");
    assert_eq!(imported.endpoints[1].keys.len(), 2);
    let skipped = skipped(&imported);
    assert!(
        skipped.contains("disabled") && skipped.contains("type 3") && skipped.contains("mmchat key set mirror"),
        "{skipped}"
    );
}

#[test]
fn litellm_config() {
    let text = "model_list:\n  - model_name: gpt\n    litellm_params: {model: openai/gpt-4o, api_key: os.environ/MY_KEY, temperature: 0.5}\n    model_info: {max_input_tokens: 128000, input_cost_per_token: 0.000001, output_cost_per_token: 0.000002}\n  - model_name: gpt\n    litellm_params: {model: openai/gpt-4o, api_base: \"http://127.0.0.1:9/v1\", api_key: sk-literal-key}\n  - model_name: backup\n    litellm_params: {model: deepseek/deepseek-chat}\n  - model_name: claude\n    litellm_params: {model: bedrock/claude}\n  - model_name: mock\n    litellm_params: {model: openai/x, mock_response: hi}\n  - model_name: here\n    litellm_params: {model: ollama_chat/qwen3, api_base: \"http://127.0.0.1:11434\"}\n  - model_name: empty\nrouter_settings:\n  routing_strategy: least-busy\n  fallbacks: [{\"gpt\": [\"backup\", \"nowhere\"]}]\n";
    let imported = read(text);
    assert_eq!(
        models(&imported),
        ["gpt-openai=openai/gpt-4o", "gpt-2=openai-2/gpt-4o", "backup=deepseek/deepseek-chat", "here=ollama/qwen3"]
    );
    assert_eq!(imported.endpoints[3].base_url, "http://127.0.0.1:11434/v1");
    let route = &imported.routes[0];
    assert_eq!((route.name.as_str(), route.strategy), ("gpt", "priority"));
    assert_eq!(members(route), ["gpt-openai 1", "gpt-2 1", "backup 1"]);
    let weighted = read(&text.replace("least-busy", "simple-shuffle"));
    assert_eq!(members(&weighted.routes[0]), ["gpt-openai 1", "gpt-2 1", "backup 0"]);
    assert_eq!(imported.endpoints[0].keys, [ImportedKey::Env("MY_KEY".into())]);
    assert_eq!(imported.endpoints[2].keys, [ImportedKey::Env("DEEPSEEK_API_KEY".into())]);
    let model = &imported.models[0];
    assert_eq!(
        (model.context, model.price, model.params.clone()),
        (Some(128_000), Some((1.0, 2.0)), vec![("temperature", 0.5)])
    );
    let skipped = skipped(&imported);
    assert!(
        skipped.contains("bedrock") && skipped.contains("mock_response") && skipped.contains("nowhere"),
        "{skipped}"
    );
    assert!(skipped.contains("no litellm_params.model"), "{skipped}");
}

#[test]
fn examples_of_the_projects() {
    let litellm = read(include_str!("../../tests/fixtures/import/litellm.yaml"));
    let names = models(&litellm);
    assert!(names.contains(&"gpt-4o-openai=openai/gpt-4o".to_owned()), "{names:?}");
    assert!(names.contains(&"vllm-models=openai-2/facebook/opt-125m".to_owned()), "{names:?}");
    assert_eq!(members(&litellm.routes[0]), ["gpt-4o-openai 1", "anthropic-claude 1"]);
    let skipped = skipped(&litellm);
    for text in ["azure", "pattern of names", "model_group_alias gpt-4", "mistral-7b"] {
        assert!(skipped.contains(text), "{text}: {skipped}");
    }
    let one_api = read(include_str!("../../tests/fixtures/import/one-api.json"));
    assert!(models(&one_api).iter().any(|model| model.ends_with("/Qwen2.5-14B-Instruct")), "{:?}", models(&one_api));
    let new_api = read(include_str!("../../tests/fixtures/import/new-api.json"));
    let deepseek =
        new_api.endpoints.iter().find(|endpoint| endpoint.name == "DeepSeek").expect("type 43 of new-api is DeepSeek");
    assert_eq!(deepseek.base_url, "https://api.deepseek.com/v1");
}

#[test]
fn aichat_config() {
    let built_in = "model: openai:gpt-4o\nclients:\n  - type: openai\n    api_key: sk-openai-literal\n";
    assert_eq!(read(built_in).default.as_deref(), Some("openai/gpt-4o"));
    let text = "model: local:qwen\ntemperature: 0.1\nclients:\n  - type: openai\n    api_key: sk-openai-literal\n  - type: openai-compatible\n    name: local\n    api_base: http://127.0.0.1:8080/v1\n    models:\n      - name: qwen\n        max_input_tokens: 32768\n        input_price: 1\n        output_price: 2\n      - name: bge\n        type: embedding\n  - type: vertexai\n    project_id: x\n";
    let imported = read(text);
    assert_eq!(models(&imported), ["qwen=local/qwen"]);
    assert_eq!(imported.default.as_deref(), Some("qwen"));
    assert_eq!(imported.models[0].price, Some((1.0, 2.0)));
    let skipped = skipped(&imported);
    assert!(
        skipped.contains("vertexai") && skipped.contains("bge") && skipped.contains("mmchat models sync openai"),
        "{skipped}"
    );
}

#[test]
fn llm_extra_openai_models() {
    let text = "- model_id: orca\n  model_name: orca-mini\n  api_base: \"http://127.0.0.1:8080/v1\"\n- model_id: big\n  model_name: deepseek-chat\n  api_base: https://api.deepseek.com/v1\n  api_key_name: deepseek\n";
    let imported = read(text);
    assert_eq!(models(&imported), ["orca=llama-cpp/orca-mini", "big=deepseek/deepseek-chat"]);
    assert!(skipped(&imported).contains("llm keys get deepseek | mmchat key set deepseek"));
}

#[test]
fn environment_variables() {
    let text = "# mine\nexport OPENAI_API_KEY=\"sk-openai-literal\"\nOPENAI_BASE_URL=http://127.0.0.1:8080/v1\nOPENAI_MODEL=qwen\nDEEPSEEK_API_KEY=\"sk-deepseek-literal\" # mine\nMOONSHOT_BASE_URL=http://127.0.0.1:9\nPATH=/bin\n";
    let imported = read(text);
    assert_eq!(models(&imported)[0], "qwen=openai/qwen");
    assert!(models(&imported)[1].contains("=deepseek/"));
    assert_eq!(imported.endpoints[0].base_url, "http://127.0.0.1:8080/v1");
    assert_eq!(imported.endpoints[1].keys, [ImportedKey::Literal(ApiKey::new("sk-deepseek-literal"))]);
    assert!(ImportFormat::Env.parse("PATH=/bin\n").is_err());
}

#[test]
fn key_reference_is_neither_shown_nor_used_as_a_key() {
    let import_key = |value: &str| {
        let imported = ImportFormat::Env.parse(&format!("OPENAI_API_KEY={value}\n")).expect("valid file");
        let skipped = skipped(&imported);
        assert!(!skipped.contains("secret"), "{skipped}");
        (imported.endpoints[0].keys.clone(), !skipped.is_empty())
    };
    let env_key = |name: &str| vec![ImportedKey::Env(name.into())];
    for (value, keys, is_reported) in [
        ("${OTHER}", env_key("OTHER"), false),
        ("$OTHER", env_key("OTHER"), false),
        ("os.environ/OTHER", env_key("OTHER"), false),
        ("${OTHER:-sk-secret}", env_key("OTHER"), true),
        ("$(pass show secret)", vec![], true),
        ("os.environ/sk-secret", vec![], true),
        ("${sk-secret}", vec![], true),
        ("$", vec![], true),
    ] {
        assert_eq!(import_key(value), (keys, is_reported), "{value}");
    }
}

#[test]
fn invalid_value_is_skipped_and_the_rest_is_imported() {
    let text = "model_list:\n  - {model_name: a, litellm_params: {model: openai/a, max_tokens: -1, temperature: \"0.5\", input_cost_per_token: -1, output_cost_per_token: 1}}\n  - {model_name: b, litellm_params: {model: openai/b, api_key: [sk-secret], max_tokens: 1.5, input_cost_per_token: .inf, output_cost_per_token: 1}}\nrouter_settings: {redis_password: sk-secret}\n";
    let imported = read(text);
    assert_eq!(models(&imported), ["a=openai/a", "b=openai-2/b"]);
    assert_eq!(imported.models[0].params, [("temperature", 0.5)]);
    let skipped = skipped(&imported);
    for item in ["max_tokens -1 of a", "max_tokens 1.5 of b", "price of a", "price of b", "key of b", "redis_password"]
    {
        assert!(skipped.contains(item), "{item}: {skipped}");
    }
    assert!(!skipped.contains("sk-secret"), "{skipped}");
    assert!(imported.models.iter().all(|model| model.price.is_none()));
}

#[test]
fn default_model_is_found_on_a_platform_with_a_shared_base_url() {
    let platform = |name: &str, port: u16, settings: &str| {
        format!("  - platform_name: {name}\n    api_base_url: http://127.0.0.1:{port}/v1\n{settings}")
    };
    let detected = "    auto_detect_model: true\n";
    let text = format!(
        "MODEL_PLATFORMS:\n{}{}{}DEFAULT_LLM_MODEL: glm4\n",
        platform("one", 9, "    llm_models: [x]\n"),
        platform("two", 10, "    llm_models: [y]\n"),
        platform("three", 9, detected),
    );
    assert_eq!(read(&text).default.as_deref(), Some("one/glm4"));
}

#[test]
fn invalid_files_are_errors_without_keys() {
    let bomb: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain(
            (1..12).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)),
        )
        .chain(std::iter::once("model_list: *a11\n".to_owned()))
        .collect();
    let keys = (0..1000).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", ");
    let merges = "  - {<<: *all}\n".repeat(1000);
    let merged = format!("all: &all {{{keys}}}\nmodel_list:\n{merges}");
    for (format, text) in [
        (ImportFormat::LiteLlm, merged.as_str()),
        (ImportFormat::LiteLlm, bomb.as_str()),
        (ImportFormat::LiteLlm, "model_list: 7\n"),
        (ImportFormat::LiteLlm, "api_key: sk-secret-in-a-broken-file: [\n"),
        (ImportFormat::Langchain, "model_list: []\n"),
        (ImportFormat::Aichat, "- a\n- b\n"),
        (ImportFormat::Llm, "model_id: x\n"),
        (ImportFormat::OneApi, "{\"data\": 1}"),
        (ImportFormat::OneApi, "{\"key\": sk-secret"),
        (ImportFormat::LangchainPython, "ONLINE_LLM_MODEL = load()\n"),
    ] {
        let error = format.parse(text).expect_err(text).to_string();
        assert!(!error.contains("sk-secret") && error.lines().count() == 1, "{error}");
    }
    assert_eq!(ImportFormat::detect("just some words\n"), None);
    assert_eq!(ImportFormat::detect(""), None);
}
