//! Reports as text: what stands in them, and what text of models cannot do there.

use super::*;
use crate::model::Usage;

const HOSTILE: &str = "Look: <script>alert(1)</script> **bold** <img src=x onerror=alert(2)> [a](javascript:alert(3)) [b](<https://h/\" onclick=\"x>) \
    ![p](http://h/p.png)\n\n<iframe src=\"http://h\"></iframe>\n\n```html\n</code></pre><script>alert(4)</script>\n```\n\n\
    | a | b |\n|---|---|\n| <style>*{display:none}</style> | 2 |\n\n<!-- </article> --> <a href=\"data:text/html,x\">c</a>";

fn lane(name: &str, text: &str) -> ReportLane {
    let mut timeline = Timeline::default();
    timeline.note(Duration::from_millis(100), 1);
    timeline.note(Duration::from_millis(900), 20);
    ReportLane {
        figures: Figures {
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
        is_whole: true,
        text: text.into(),
        first: Some(Duration::from_millis(100)),
        attempts: 1,
        timeline,
        ..ReportLane::default()
    }
}

fn failed(name: &str) -> ReportLane {
    let note = Some("error: <b>no</b>, \"never\"".into());
    let figures = Figures { name: name.into(), state: "ERR rate".into(), ..Figures::default() };
    ReportLane { figures, note, attempts: 2, ..ReportLane::default() }
}

fn report_of(lanes: Vec<ReportLane>) -> Report {
    let texts: Vec<Option<&str>> = lanes.iter().map(|lane| lane.is_whole.then_some(lane.text.as_str())).collect();
    let difference = Some(Difference::of(&texts));
    let (at, prompt) = (Timestamp::UNIX_EPOCH, "Why <i>so</i>, \"then\"?".to_owned());
    Report { at, run: Some(7), system: Some("Be & brief".into()), prompt, lanes, difference, vote: None }
}

#[test]
fn text_of_models_can_do_nothing_on_a_page() {
    for text in [HOSTILE, &"<".repeat(1000), "[x](<javascript:alert(1)>)", "<ScRiPt>x", "&lt;script&gt;", "`<script>`"]
    {
        let page = html::page(&report_of(vec![lane("<script>name</script>", text), failed("b\"><script>")]));
        assert_eq!(page.matches("<script").count(), 1, "the one that sorts: {page}");
        let never = [
            "<img",
            "<iframe",
            "<style>*",
            "<a href=\"javascript",
            "<a href=\"data:",
            "h/\" onclick",
            "alert(2)>",
            "</code></pre><",
        ];
        for never in never {
            assert!(!page.contains(never), "{never} in {page}");
        }
        // Nothing closes what the page opened.
        assert_eq!((page.matches("<article").count(), page.matches("</article>").count()), (2, 2));
    }
    let page = html::page(&report_of(vec![lane("a", HOSTILE)]));
    assert!(page.contains("<strong>bold</strong>") && page.contains("[picture http://h/p.png: p]"), "{page}");
}

#[test]
fn the_only_script_is_the_one_the_policy_names() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let page = html::page(&report_of(vec![lane("a", "x")]));
    let script = page.split("<script>").nth(1).and_then(|rest| rest.split("</script>").next()).expect("one");
    let digest = BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, script.as_bytes()));
    assert!(page.contains(&format!("script-src 'sha256-{digest}'")) && page.contains("default-src 'none'"), "{page}");
    for loaded in ["http-equiv=\"refresh\"", "<link", "@import", "src=\""] {
        assert!(!page.contains(loaded), "{loaded} would load something");
    }
}

#[test]
fn every_format_tells_of_every_answer() {
    let report = report_of(vec![lane("fast", "The answer, is \"42\".\n| x |"), failed("big")]);
    for (ending, format) in REPORTS {
        let text = format(&report);
        for wanted in ["fast", "big", "ERR rate"] {
            assert!(text.contains(wanted), "{ending} without {wanted}: {text}");
        }
    }
    let csv = csv(&report);
    assert!(
        csv.contains(
            "1,fast,m/x,m,ok,100.000,900.000,3,20,false,23.8,0.500000,USD,1,\"The answer, is \"\"42\"\".\n| x |\"\n"
        ),
        "{csv}"
    );
    assert!(csv.ends_with("2,big,,,ERR rate,,,,,,,,,2,\n"), "{csv}");
    let json: Value = serde_json::from_str(&document(&report)).expect("JSON");
    assert_eq!((&json["answers"][0]["timeline"][1][1], &json["run"]), (&json!(20), &json!(7)));
    let page = markdown::page(&report);
    assert!(page.contains("| 1 | fast (m/x) | ok | 100 ms | 900 ms | 3 / 20 | 24 | $0.500000 |"), "{page}");
}

#[test]
fn a_report_is_known_by_its_ending() {
    for (path, known) in [
        ("a.html", true),
        ("b.HTM", true),
        ("c.md", true),
        ("d.json", true),
        ("e.csv", true),
        ("f", false),
        ("g.pdf", false),
    ] {
        assert_eq!(report(Path::new(path)).is_some(), known, "{path}");
    }
}
