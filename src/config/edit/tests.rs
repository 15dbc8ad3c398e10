//! Tests of edits to hand-written config files: what changes, and what must not.

use std::path::Path;

use super::*;

const CONFIG: &str = r#"# my models
default = "chat"   # what I use most

[endpoints.e]
base_url = "http://h/v1"

# ---- models ----

# quick one
[models.fast]
endpoint = "e"
model = "m1"   # the small one

[models.strong]
endpoint = "e"
model = "m2"

# the routes
[routes.chat]
models = ["fast", { name = "strong", weight = 2 }]   # in order

[sets]
panel = ["fast", "chat"]
only = ["fast"]

[presets.p]
model = "fast"
"#;

fn edited(text: &str, apply: impl FnOnce(&mut ConfigEditor) -> Result<(), EditError>) -> String {
    let mut editor = ConfigEditor::parse(text).expect("valid TOML");
    apply(&mut editor).expect("valid edit");
    let text = editor.text();
    crate::config::resolve(&text, Path::new("c.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    text
}

fn model(name: &str) -> NewModel {
    NewModel { name: name.into(), endpoint: "e".into(), upstream: "m3".into(), ..NewModel::default() }
}

#[test]
fn adding_entries_changes_no_other_line() {
    let text = edited(CONFIG, |editor| {
        let keys = vec![("env", "KEY".to_owned())];
        let base_url = Some("http://o/v1".to_owned());
        editor.add_endpoint(&NewEndpoint { name: "other".into(), base_url, keys, gateway: false })?;
        editor.add_model(&NewModel {
            tags: vec!["x".into()],
            price: Some((1.0, 2.5)),
            context: Some(8),
            ..model("通义")
        })
    });
    let mut compact = text.clone();
    for line in CONFIG.lines() {
        assert!(compact.contains(line), "{line:?} is missing in\n{text}");
    }
    compact.retain(|c| c != ' ');
    assert!(compact.contains("[endpoints.other]\nbase_url=\"http://o/v1\"\napi_key={env=\"KEY\"}\n"), "{text}");
    assert!(
        compact.contains(
            "[models.\"通义\"]\nendpoint=\"e\"\nmodel=\"m3\"\ncontext=8\nprice={input=1.0,output=2.5}\ntags=[\"x\"]\n"
        ),
        "{text}"
    );
}

#[test]
fn empty_file_gets_the_added_entries() {
    let text = edited("", |editor| {
        editor.add_endpoint(&NewEndpoint { name: "openai".into(), ..NewEndpoint::default() })?;
        editor.add_model(&NewModel { endpoint: "openai".into(), ..model("a") })?;
        editor.set_default("a");
        Ok(())
    });
    assert!(text.starts_with("default = \"a\"\n\n[endpoints.openai]"), "{text}");
}

#[test]
fn entry_is_added_inline_among_inline_tables() {
    let text = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[models]\na = { endpoint = \"e\", model = \"1\" }\n";
    let text = edited(text, |editor| editor.add_model(&model("b")));
    assert!(text.ends_with("b = { endpoint = \"e\", model = \"m3\" }\n"), "{text}");
}

#[test]
fn renaming_a_model_keeps_its_position_and_updates_references() {
    let text = edited(CONFIG, |editor| editor.rename_model("fast", "quick"));
    let expected = CONFIG
        .replace("models.fast", "models.quick")
        .replace("[\"fast\"", "[\"quick\"")
        .replace("model = \"fast\"", "model = \"quick\"");
    assert_eq!(text, expected);
    let text = edited(CONFIG, |editor| editor.rename_model("strong", "better"));
    assert!(text.contains("{ name = \"better\", weight = 2 }]   # in order"), "{text}");
    let inline = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[models]\n# one\na = { endpoint = \"e\", model = \"1\" } # first\n# two\nb = { endpoint = \"e\", model = \"1\" }\n";
    assert_eq!(edited(inline, |editor| editor.rename_model("a", "c")), inline.replace("\na = ", "\nc = "));
}

#[test]
fn referenced_model_is_only_removed_with_everywhere() {
    let mut editor = ConfigEditor::parse(CONFIG).expect("valid TOML");
    let error = editor.remove_model("fast", false).expect_err("the model is referenced").to_string();
    assert_eq!(error, "\"fast\" is used by route \"chat\", set \"panel\", set \"only\", preset \"p\"");
    let text = edited(CONFIG, |editor| editor.remove_model("fast", true).map(drop));
    assert!(!text.contains("fast") && !text.contains("quick one") && !text.contains("only"), "{text}");
    for kept in ["# my models", "# ---- models ----", "# the routes", "# in order", "panel = ["] {
        assert!(text.contains(kept), "{kept} is missing in\n{text}");
    }
    let text = edited(&text, |editor| editor.remove_model("strong", true).map(drop));
    assert!(!text.contains("routes.chat") && !text.contains("default") && text.contains("# my models"), "{text}");
}

#[test]
fn spend_limits_and_client_keys_follow_a_model() {
    let config = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[endpoints.f]\nbase_url = \"http://f/v1\"\n[models]\nfast = { endpoint = \"e\", model = \"1\", price = { input = 1.0, output = 1.0 } }\n\
        big = { endpoint = \"e\", model = \"2\" }\n[spend.models.fast]\nday = 1 # per day\n[spend.endpoints.e]\nday = 2\n\
        [serve.keys.app]\napi_key = { env = \"A\" }\nmodels = [\"fast\", \"big\"]\n";
    let renamed = edited(config, |editor| editor.rename_model("fast", "quick"));
    let want = config.replace("fast = {", "quick = {").replace("models.fast", "models.quick");
    assert_eq!(renamed, want.replace("[\"fast\",", "[\"quick\","));
    let mut editor = ConfigEditor::parse(config).expect("valid TOML");
    let error = editor.remove_model("fast", false).expect_err("the model is referenced").to_string();
    assert_eq!(error, "\"fast\" is used by [serve.keys.app], [spend.models.fast]");
    let removed = edited(config, |editor| editor.remove_model("fast", true).map(drop));
    assert!(removed.contains("models = [\"big\"]") && !removed.contains("[spend.models"), "{removed}");
    let mut editor = ConfigEditor::parse(&removed).expect("valid TOML");
    let error = editor.remove_model("big", true).expect_err("the client has no other model").to_string();
    assert_eq!(error, "all models that [serve.keys.app] may use would be removed");
    let direct = removed.replace("\"big\"]", "\"e/x\", \"f/x\"]");
    let mut editor = ConfigEditor::parse(&direct).expect("valid TOML");
    let error = editor.remove_endpoint("e", false).expect_err("the endpoint has a limit").to_string();
    assert!(error.ends_with(", [spend.endpoints.e]"), "{error}");
    let without = edited(&direct, |editor| editor.remove_endpoint("e", true).map(drop));
    assert!(!without.contains("spend.endpoints") && without.contains("models = [\"f/x\"]"), "{without}");
}

#[test]
fn detached_comments_of_removed_settings_are_kept() {
    let config = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.fast]\nendpoint = \"e\"\nmodel = \"1\"\n[models.big]\nendpoint = \"e\"\nmodel = \"2\"\nprice = { input = 1.0, output = 1.0 }\n\
        [presets.p]\n# the preset\n\n# its model\nmodel = \"fast\"\nprompt = \"x\"\n[presets.q]\nprompt = \"x\"\n# at the end\n\n\
        model = \"fast\"\n# ---- budgets ----\n\n# of fast\n[spend.models.fast]\nday = 1\n[spend.models.big]\nday = 1\n\
        # ---- endpoints ----\n\n[spend.endpoints.e]\nday = 1\n";
    let text = edited(config, |editor| editor.remove_model("fast", true).map(drop));
    for kept in
        ["# the preset\n\nprompt", "# at the end\n\n# ---- budgets", "# ---- budgets ----\n\n[spend.models.big]"]
    {
        assert!(text.contains(kept), "{kept} is missing in\n{text}");
    }
    assert!(!text.contains("# its model") && !text.contains("# of fast"), "{text}");
    let text = edited(config, |editor| editor.remove_endpoint("e", true).map(drop));
    assert!(text.contains("# ---- endpoints ----") && !text.contains("[spend.endpoints"), "{text}");
}

#[test]
fn section_comment_survives_the_removal_of_all_entries_below_it() {
    let config = "[endpoints.f]\nbase_url = \"http://h/v1\"\n[endpoints.e]\nbase_url = \"http://h/v1\"\n\n# === my models ===\n\n\
        [models.a]\nendpoint = \"e\"\nmodel = \"a\"\n[models.b]\nendpoint = \"e\"\nmodel = \"b\"\n[models.c]\nendpoint = \"f\"\nmodel = \"c\"\n";
    let text = edited(config, |editor| editor.remove_endpoint("e", true).map(drop));
    assert!(text.contains("# === my models ===\n\n[models.c]"), "{text}");
    let text = edited(&text, |editor| editor.remove_model("c", true).map(drop));
    assert!(text.contains("# === my models ===\n"), "{text}");
}

#[test]
fn file_comment_is_found_above_arrays_of_tables_and_tables_without_a_header() {
    let models = "# === models ===\n\n[models.a]\nendpoint = \"e\"\nmodel = \"a\"\n";
    let keys = "# My config\n\n[[endpoints.e.api_keys]]\nenv = \"A\"\n\n";
    let urls = "[endpoints.e]\nbase_url = \"http://h/v1\"\n";
    let config = format!("{keys}{models}").replace("[[endpoints", &format!("{urls}[[endpoints"));
    let text = edited(&config, |editor| {
        editor.set_default("a");
        Ok(())
    });
    assert!(text.starts_with("# My config\n\ndefault = \"a\"\n\n[endpoints.e]") && text.contains(models), "{text}");
    let mut editor =
        ConfigEditor::parse(&format!("{keys}[endpoints.f]\nbase_url = \"http://f/v1\"\n")).expect("valid TOML");
    editor.remove_endpoint("e", true).expect("known endpoint");
    assert_eq!(editor.text(), "# My config\n\n[endpoints.f]\nbase_url = \"http://f/v1\"\n");
}

#[test]
fn comment_above_a_dotted_line_of_an_entry_with_a_header_is_kept() {
    let config = "# My config\n\nendpoints.e.base_url = \"http://h/v1\"\n[endpoints.e.headers]\nX = \"1\"\n[endpoints.f]\nbase_url = \"http://f/v1\"\n";
    let text = edited(config, |editor| editor.remove_endpoint("e", true).map(drop));
    assert_eq!(text, "# My config\n\n[endpoints.f]\nbase_url = \"http://f/v1\"\n");
}

#[test]
fn repeated_edits_add_no_blank_lines() {
    let config =
        "# file\n\n# about e\n[endpoints.e]\nbase_url = \"http://h/v1\"\n[models.b]\nendpoint = \"e\"\nmodel = \"b\"\n";
    let mut text = config.to_owned();
    for _ in 0..3 {
        let mut editor = ConfigEditor::parse(&text).expect("valid TOML");
        editor.add_model(&model("a")).expect("new model");
        editor.set_default("a");
        editor.remove_model("a", true).expect("known model");
        text = editor.text();
    }
    assert_eq!(text.trim_end(), config.trim_end());
}

#[test]
fn blank_line_may_contain_spaces_or_a_carriage_return() {
    for blank in ["\n", "  \n", "\r\n"] {
        let config = format!(
            "[endpoints.e]\nbase_url = \"http://h/v1\"\n# === models ===\n{blank}[models.a]\nendpoint = \"e\"\nmodel = \"a\"\n"
        );
        let text = edited(&config, |editor| editor.remove_model("a", true).map(drop));
        assert!(text.contains("# === models ==="), "{blank:?}: {text}");
    }
}

#[test]
fn comments_above_dotted_keys_are_kept() {
    let config = "# Managed by ops\n\nmodels.b.endpoint = \"e\"\nmodels.b.model = \"b\"\n# --- a ---\n\n# mine\nmodels.a = { endpoint = \"e\", model = \"a\" }\n\
        endpoints.e.base_url = \"http://h/v1\"\n";
    let without_b = edited(config, |editor| editor.remove_model("b", true).map(drop));
    assert!(without_b.starts_with("# Managed by ops\n\n# --- a ---\n\n# mine\nmodels.a"), "{without_b}");
    let without_both = edited(&without_b, |editor| editor.remove_model("a", true).map(drop));
    assert_eq!(without_both, "# Managed by ops\n\n# --- a ---\n\nendpoints.e.base_url = \"http://h/v1\"\n");
}

#[test]
fn endpoint_is_only_removed_together_with_its_models() {
    let mut editor = ConfigEditor::parse(CONFIG).expect("valid TOML");
    assert!(matches!(editor.remove_endpoint("e", false), Err(EditError::InUse { by, .. }) if by.len() == 2));
    let text = edited(CONFIG, |editor| {
        let removed = editor.remove_endpoint("e", true)?;
        for item in ["model \"fast\"", "route \"chat\"", "set \"panel\"", "`default`", "the model of preset \"p\""] {
            assert!(removed.iter().any(|removed| removed == item), "{item}: {removed:?}");
        }
        Ok(())
    });
    assert!(!text.contains("[models") && text.contains("# my models"), "{text}");
    let direct = "[endpoints.e]\nbase_url = \"http://h/v1\"\n[sets]\ns = [\"e/x\"]\n";
    assert!(ConfigEditor::parse(direct).expect("valid TOML").remove_endpoint("e", false).is_err());
    assert!(!edited(direct, |editor| editor.remove_endpoint("e", true).map(drop)).contains("sets"));
}

#[test]
fn duplicate_and_unknown_names_are_errors() {
    let mut editor = ConfigEditor::parse(CONFIG).expect("valid TOML");
    assert!(matches!(editor.add_model(&model("fast")), Err(EditError::AlreadyExists { kind: "a model", .. })));
    assert!(matches!(editor.add_model(&model("panel")), Err(EditError::AlreadyExists { kind: "a set", .. })));
    assert!(matches!(editor.rename_model("fast", "chat"), Err(EditError::AlreadyExists { kind: "a route", .. })));
    assert!(matches!(editor.remove_model("none", true), Err(EditError::NotFound { .. })));
    assert_eq!(editor.text(), CONFIG, "the text is unchanged");
}

#[test]
fn setting_the_default_keeps_its_comment() {
    let text = edited(CONFIG, |editor| {
        editor.set_default("strong");
        Ok(())
    });
    assert_eq!(text, CONFIG.replace("default = \"chat\"   #", "default = \"strong\"   #"));
}
