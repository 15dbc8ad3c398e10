//! Tests the content of reports, and that text of models is inert in them.

use super::*;
use crate::model::Usage;

const HOSTILE: &str = "Look: <script>alert(1)</script> **bold** <img src=x onerror=alert(2)> [a](javascript:alert(3)) [b](<https://h/\" onclick=\"x>) \
    ![p](http://h/p.png)\n\n<iframe src=\"http://h\"></iframe>\n\n```html\n</code></pre><script>alert(4)</script>\n```\n\n\
    | a | b |\n|---|---|\n| <style>*{display:none}</style> | 2 |\n\n<!-- </article> --> <a href=\"data:text/html,x\">c</a>";

fn complete(name: &str, text: &str) -> ReportCall {
    let mut timeline = Timeline::default();
    timeline.record(Duration::from_millis(100), 1);
    timeline.record(Duration::from_millis(900), 20);
    ReportCall {
        metrics: CallMetrics {
            name: name.into(),
            model: Some("m/x".into()),
            state: "ok".into(),
            ttft: Some(Duration::from_millis(100)),
            total: Some(Duration::from_millis(900)),
            usage: Some(Usage { input: Some(3), output: Some(20), ..Usage::default() }),
            tokens_per_second: Some(23.75),
            cost: Some((0.5, "USD".into())),
        },
        endpoint: Some("m".into()),
        is_complete: true,
        text: text.into(),
        first_output: Some(Duration::from_millis(100)),
        attempt_count: 1,
        timeline,
        ..ReportCall::default()
    }
}

fn failed(name: &str) -> ReportCall {
    let note = Some("error: <b>no</b>, \"never\"".into());
    let metrics = CallMetrics { name: name.into(), state: "ERR rate".into(), ..CallMetrics::default() };
    ReportCall { metrics, note, attempt_count: 2, ..ReportCall::default() }
}

fn report_of(calls: Vec<ReportCall>) -> Report {
    let texts: Vec<Option<&str>> = calls.iter().map(|call| call.is_complete.then_some(call.text.as_str())).collect();
    let difference = Some(AnswerComparison::new(&texts));
    let (created_at, prompt) = (Timestamp::UNIX_EPOCH, "Why <i>so</i>, \"then\"?".to_owned());
    Report { created_at, run: Some(7), system_prompt: Some("Be & brief".into()), prompt, calls, difference, vote: None }
}

#[test]
fn text_of_models_is_inert_in_html() {
    for text in [HOSTILE, &"<".repeat(1000), "[x](<javascript:alert(1)>)", "<ScRiPt>x", "&lt;script&gt;", "`<script>`"]
    {
        let page = html::page(&report_of(vec![complete("<script>name</script>", text), failed("b\"><script>")]));
        assert_eq!(page.matches("<script").count(), 1, "only the sorting script: {page}");
        let forbidden = [
            "<img",
            "<iframe",
            "<style>*",
            "<a href=\"javascript",
            "<a href=\"data:",
            "h/\" onclick",
            "alert(2)>",
            "</code></pre><",
        ];
        for text in forbidden {
            assert!(!page.contains(text), "{text} in {page}");
        }
        // Text of models cannot close elements of the page.
        assert_eq!((page.matches("<article").count(), page.matches("</article>").count()), (2, 2));
    }
    let page = html::page(&report_of(vec![complete("a", HOSTILE)]));
    assert!(page.contains("<strong>bold</strong>") && page.contains("[image http://h/p.png: p]"), "{page}");
}

#[test]
fn policy_allows_only_the_sorting_script() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let page = html::page(&report_of(vec![complete("a", "x")]));
    let script = page.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next()).expect("one script");
    let digest = BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, script.as_bytes()));
    assert!(page.contains(&format!("script-src 'sha256-{digest}'")) && page.contains("default-src 'none'"), "{page}");
    for loaded in ["http-equiv=\"refresh\"", "<link", "@import", "src=\""] {
        assert!(!page.contains(loaded), "{loaded} would load a resource");
    }
}

#[test]
fn every_format_contains_every_answer() {
    let report = report_of(vec![complete("fast", "The answer, is \"42\".\n| x |"), failed("big")]);
    for (extension, format) in REPORT_FORMATS {
        let text = format(&report);
        for part in ["fast", "big", "ERR rate"] {
            assert!(text.contains(part), "{extension} without {part}: {text}");
        }
    }
    let csv = to_csv(&report);
    assert!(
        csv.contains(
            "1,fast,m/x,m,ok,100.000,900.000,3,20,false,23.8,0.500000,USD,1,\"The answer, is \"\"42\"\".\n| x |\"\n"
        ),
        "{csv}"
    );
    assert!(csv.ends_with("2,big,,,ERR rate,,,,,,,,,2,\n"), "{csv}");
    let json: Value = serde_json::from_str(&to_json(&report)).expect("valid JSON");
    assert_eq!((&json["answers"][0]["timeline"][1][1], &json["run"]), (&json!(20), &json!(7)));
    let page = markdown::page(&report);
    assert!(page.contains("| 1 | fast (m/x) | ok | 100 ms | 900 ms | 3 / 20 | 24 | $0.500000 |"), "{page}");
}

#[test]
fn report_format_follows_the_file_extension() {
    for (path, is_known) in [
        ("a.html", true),
        ("b.HTM", true),
        ("c.md", true),
        ("d.json", true),
        ("e.csv", true),
        ("f", false),
        ("g.pdf", false),
    ] {
        assert_eq!(format_for_path(Path::new(path)).is_some(), is_known, "{path}");
    }
}
