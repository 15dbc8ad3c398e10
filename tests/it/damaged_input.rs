//! Known inputs and damaged ones, for the parsers of input from outside: what `scripts/fuzz` checks, without a nightly
//! toolchain.

use std::{fs, path::Path};

#[path = "../../fuzz/checks.rs"]
mod checks;

/// The number of damaged forms of each input.
const DAMAGED: usize = 300;

/// The files of a folder of fixtures with this ending.
fn fixtures(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).expect("a folder of fixtures").map(|entry| entry.expect("readable").path());
    let files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    assert!(!files.is_empty(), "no fixtures in {}", folder.display());
    files.iter().map(|path| fs::read(path).expect("a readable fixture")).collect()
}

/// `input`, its beginnings, and forms with removed, repeated and changed parts; always the same ones.
fn forms(input: &[u8]) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut forms = vec![input.to_vec()];
    for _ in 0..DAMAGED {
        let mut form = input.to_vec();
        for _ in 0..rng.usize(1..4) {
            let (start, len) = (rng.usize(..=form.len()), rng.usize(..20));
            let end = (start + len).min(form.len());
            match rng.u8(..5) {
                0 => form.truncate(start),
                1 => drop(form.drain(start..end)),
                2 => form.splice(start..start, form[start..end].to_vec()).for_each(drop),
                3 => form[start..end].iter_mut().for_each(|byte| *byte ^= 1 << rng.u8(..8)),
                _ => form
                    .splice(start..start, b"[]{}=\".,\n0x#".iter().copied().skip(rng.usize(..12)).take(3))
                    .for_each(drop),
            }
        }
        forms.push(form);
    }
    forms
}

fn texts(inputs: &[Vec<u8>]) -> impl Iterator<Item = String> + '_ {
    inputs.iter().flat_map(|input| forms(input)).map(|form| String::from_utf8_lossy(&form).into_owned())
}

#[test]
fn frames_do_not_depend_on_the_reads() {
    for form in fixtures("tests/fixtures/wire", ".http").iter().flat_map(|input| forms(&input[..input.len().min(1024)]))
    {
        for read_size in [1, 64] {
            checks::framing(read_size, &form);
        }
    }
}

#[test]
fn damaged_requests_are_rejected_or_valid() {
    let request =
        br#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a\u00e9"}]}],"stream":true,
        "stream_options":{"include_usage":true},"max_tokens":5,"stop":["x"],"tools":[{"type":"function"}],"seed":-1}"#;
    for form in forms(request) {
        checks::chat_request(&form);
    }
}

#[test]
fn damaged_configs_give_each_problem_once_and_shown_configs_parse_to_the_same() {
    let config = include_bytes!("../fixtures/config/full.toml");
    let system = b"[endpoints.e]\nbase_url = \"http://old/v1\"\nrpm = 3\n[models.\"m.1\"]\nendpoint = \"e\"\nmodel = \"x\"\n[spend]\nday = 5\n";
    let layers = [&system[..], b"#user\n", &config[..]].concat();
    texts(&[config.to_vec(), layers]).for_each(|text| checks::config_layers(&text));
}

#[test]
fn damaged_configs_of_other_tools_do_not_panic() {
    let inputs: Vec<_> =
        ["yaml", "json"].into_iter().flat_map(|ending| fixtures("tests/fixtures/import", ending)).collect();
    texts(&inputs).for_each(|text| checks::import(&text));
}

#[test]
fn damaged_health_files_are_rejected_or_kept() {
    let health = br#"{"key_salt":"ab","entries":{"00000000000000ff":{"name":"m","breaker":{"consecutive_failures":2,
        "recent_calls":[[1700000000000,false]]},"last_error":{"class":"server","http_status":500,"message":"x","at":"2026-01-01T00:00:00Z"},
        "latency":{},"updated_at":"2026-01-01T00:00:00Z"}}}"#;
    let inputs = [health.to_vec(), fixtures("tests/fixtures/record", ".json").concat()];
    inputs.iter().flat_map(|input| forms(input)).for_each(|form| checks::health(&form));
}
