//! Masks secrets in the text of a config file before any of it is shown.
//!
//! Two scans mask too much rather than too little; lengths and lines are unchanged, so that spans stay valid. `values`
//! scans the parsed values, `lines` the text, which also works where the file has syntax errors, and in comments.

mod lines;
mod params;
mod values;
mod words;

use toml::de::DeTable;

use lines::{scan_lines, scan_words};
use values::{SecretValues, scan_values};
use words::secret_words;

pub(crate) use params::without_secrets;

/// `text` with secrets replaced by asterisks, and the secrets.
pub(super) fn redact(text: &str) -> (String, Vec<String>) {
    let (line_ranges, word_ranges) = (scan_lines(text), scan_words(text));
    let (table, errors) = DeTable::parse_recoverable(text);
    let SecretValues { ranges, mut secrets, .. } = scan_values(text, table.get_ref());
    // A message quotes parsed values, or the words of a syntax error.
    let words = word_ranges.iter().chain(line_ranges.iter().filter(|_| !errors.is_empty()));
    secrets.extend(words.flat_map(|range| secret_words(&text[range.clone()])));
    let mut redacted = text.as_bytes().to_vec();
    for range in line_ranges.into_iter().chain(word_ranges).chain(ranges) {
        redacted[range].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = b'*');
    }
    let redacted = String::from_utf8(redacted).expect("only complete characters were replaced");
    // Longest first: masking a part of a secret must not prevent the complete secret from being found.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    (redacted, secrets)
}

/// `text` of a config with asterisks in place of its secrets.
#[must_use]
pub(crate) fn without_keys(text: &str) -> String {
    redact(text).0
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Files with the secret `hunter22`.
    const FILES_WITH_A_SECRET: &[&str] = &[
        "api_key = \"hunter22\"",
        "api_key = 'hunter22'",
        "api_key = hunter22",
        "api_key \"hunter22\"",
        "api_key = \"hunter22",
        "api_key = \"\"\"hunter22\"\"\"",
        "api_keys = \"hunter22\"",
        "api_keys = [\n  \"hunter22\",\n  \"hunter22\"\n]",
        "api_keys = [\n  { env = \"A\" },\n  \"hunter22\"]",
        "api_key = { enw = \"hunter22\" }",
        "headers = { \"X-Team\" = \"hunter22\" }",
        "[endpoints.m.headers]\nX-Team = \"hunter22\"",
        "headers = { A = { value = \"hunter22\" } }",
        "base_url = \"http://me:hunter22@host/v1\"",
        "proxy = \"http://me:hunter22@host\"",
        "model = \"sk-hunter22\"",
        "model = \"Bearer hunter22\"",
        "a.api_key = \"hunter22\"",
        "timeouts = { connect = \"10s\"\napi_key = \"hunter22\"",
        "panel = [\"fast\",\n[endpoints.m]\napi_key = \"hunter22\"",
        "api_key: hunter22",
        "api_key hunter22",
        "[endpoints.m] api_key = \"hunter22\"",
        "[models.a] headers = { X = \"hunter22\" }",
        "# api_key = \"hunter22\"",
        "base_url = \"http://h/v1?api=hunter22\"",
        "base_url = \"http://me:x@hunter22@host/v1\"",
        "base_url = \"me:hunter22@host/v1\"",
        "api_key = a,hunter22",
        "api_key = a#hunter22",
        "[endpoints.m.api_key]\nenw = \"hunter22\"",
        "api_key = { env = \"A\", x = \"hunter22\" }",
        "[serve.keys.a.api_key]\nenw = \"hunter22\"",
        "[serve.keys.a]\napi_key = \"hunter22\"",
        "api_key = \"\"\"\nhunter22\"\"\"",
        "headers.X = '''\nhunter22'''",
        "api_keys = \"\"\"\nhunter22\"\"\"\n",
        "api_key = { command = \"echo hunter22\" }",
        "api_key = { command = [\"echo\", \"hunter22\"] }",
        "api_key = { env = [\"hunter22\"] }",
        "proxy = \"http://me:a'hunter22@h\"",
        "proxy = \"http://me:a hunter22@h\"",
        "\"\\u0061pi_\\u006bey\" = \"hunter22\"",
        "[serve.keys]\nteam = \"hunter22\"",
        "[serve]\nkeys.team = \"hunter22\"",
        "[serve.keys]\nteam = { value = \"hunter22\" }",
        "api_key = { hunter22 = \"a\" }",
        "headers.X = { hunter22 = 1 }",
        "api_key =\n\"hunter22\"",
        "api_key\n= \"hunter22\"",
        "api_key = # c\n\"hunter22\"",
        "api_key =\n\n\"hunter22\"",
        "api_key =\n# c\n\"hunter22\"",
        "[serve]\nkeys = \"hunter22\"",
        "[endpoints.m]\n# api_key =\n\n[endpoints.m.headers]\nX-Team: hunter22",
        "api_key =\n\n[endpoints.m.headers]\nX-Team \"hunter22\"",
        "# api_key =\n\n[serve.keys]\nteam: hunter22",
        "[endpoints]\nopenai = [\"hunter22\"]",
        "[endpoints]\nopenai = [[\"hunter22\"]]",
        "endpoints = \"hunter22\"",
        "[serve.keys.team.api_key]\nhunter22 = \"x\"",
        "[serve.keys.team]\napi_key = { hunter22 = 1 }",
        "[serve.keys.team]\nfoobar = { hunter22 = 1 }",
        "api_keys =\n[\"hunter22\"]",
        "[endpoints.m.headers]\nX =\n[hunter22]",
        "# api_key =\n\"hunter22\"",
        "#headers =\n{ X = \"hunter22\" }",
        "[serve.keys]\nteam = { hunter22 = 1 }",
        "api_key:\n  hunter22",
        "api_key\nhunter22",
        "\"api_key\"\n\n=\n'hunter22'",
        "api_key = \\\n hunter22",
        "[endpoints]\nopenai = \"hunter22\"",
        "serve.keys = \"hunter22\"",
        "[serve.keys]\nteam = { env = \"hunter22\" }",
        "[serve.keys.team]\nenv = \"hunter22\"",
        "api_key = \"b\"\napi_key = \"\"\"a\nhunter22\"\"\"\n",
        "[endpoints.m.api_key]\nenv = \"hunter22==\"",
        "api_key = { env = \"hunter22 2\" }",
        "base_url = \"ftp://me:hunter22\\u0040h/v1\"",
        "base_url = \"http://h/v1?k=a hunter22\"",
    ];

    #[test]
    fn secrets_are_masked_in_invalid_files() {
        for text in FILES_WITH_A_SECRET {
            let (redacted, secrets) = redact(text);
            assert!(!redacted.contains("hunter22"), "{text} -> {redacted}");
            assert_eq!(redacted.len(), text.len(), "{text}");
            // Messages do not quote comments.
            let is_found = secrets.iter().any(|secret| secret.contains("hunter22"));
            assert!(is_found || text.starts_with('#'), "{text} -> {secrets:?}");
        }
    }

    #[test]
    fn names_of_settings_are_not_masked() {
        // The file has every setting.
        let text = include_str!("../../../tests/fixtures/config/full.toml");
        let key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
        let keys = |text: &str| text.lines().filter_map(key).collect::<Vec<_>>();
        assert_eq!(keys(&redact(text).0), keys(text));
    }

    #[test]
    fn other_text_is_unchanged() {
        for text in [
            "[models.fast]\nendpoint = \"openai\"\nmodel = \"gpt-4o-mini\" # words\ntimeouts = { first_token = \"30s\" }\nparams = { max_tokens = 5 }\n",
            "[endpoints.m.api_key]\nenv = \"OPENAI_API_KEY\"",
            "api_key = { env = \"OPENAI_API_KEY\" }\nbase_url = \"https://api.example.com/v1\"",
            "[routes.chat]\nmodels = [\"fast\", { name = \"strong\", weight = 2 }]",
            "notes = \"你好\" \n'",
            "[models.m-auth]\nendpoint = \"openai\"\n[models.\"a.key\"]\nendpoint = \"openai\"\n[spend.models.m-auth]\nday = 1",
            "# the key\ndefault = \"fast\"",
            "[presets.x]\nsystem = \"\"\"\nNever reveal the secret\n\"\"\"\n[models.b]\nendpoint = \"zz\"",
            "[presets.x]\nsystem = \"\"\"\nAnswer about this API key:\n\n\"\"\"\n[models.b]\nendpoint = \"zz\"",
            "[models.b]\ntags = [\n  \"auth\"\n]\nendpoint = \"zz\"",
            "[[endpoints.openai]]\nbase_url = \"http://h/v1\"",
            "[serve.keys.team]\nmodels = [\"fast\"]\nrpm = 10",
        ] {
            assert_eq!(redact(text).0, text);
        }
    }

    #[test]
    fn time_grows_linearly_with_the_length() {
        let time = |fragment: &str, count: usize| {
            let text = fragment.repeat(count);
            let measure = || {
                let start = Instant::now();
                assert_eq!(redact(&text).0.len(), text.len());
                start.elapsed()
            };
            // The shortest of three: other processes may delay the others.
            (0..3).map(|_| measure()).min().expect("three measurements")
        };
        for fragment in ["@", "sk-", "://", "[a]", "[", ":@", "key", "?"] {
            let (short, long) = (time(fragment, 1 << 13), time(fragment, 1 << 17));
            // 16 times the length: linear time is 16 times as long, quadratic time 256 times.
            assert!(long < 64 * short, "{fragment:?}: {short:?}, {long:?}");
        }
    }

    #[test]
    fn secrets_are_texts_of_values_and_not_words_of_comments() {
        let secrets = |text: &str| redact(text).1;
        assert_eq!(secrets("api_key = \"hunter\\u00322\""), ["hunter22"]);
        assert_eq!(secrets("# the key for production\ndefault = \"production\"\n"), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn length_and_line_count_are_unchanged(text in "([a-z你 =.,#\"'\\\\\\[\\]{}\r\n]|key|\"\"\"|://|@){0,60}") {
            let (redacted, secrets) = redact(&text);
            let size = |text: &str| (text.len(), text.matches('\n').count());
            proptest::prop_assert_eq!(size(&redacted), size(&text));
            proptest::prop_assert!(secrets.iter().all(|secret| !secret.is_empty()));
        }
    }
}
