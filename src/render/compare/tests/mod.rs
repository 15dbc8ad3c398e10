//! The laws of several answers at once, over random orders of events and widths.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

mod captures;
mod interleavings;
mod live;

use super::*;
use crate::{
    engine::{AttemptRecord, Next, Whole},
    model::{
        Delta, DeltaKind, ErrorClass, FinishReason, Usage,
        sanitize::sanitised,
        target::{TargetId, testing},
    },
    protocol::ApiError,
    render::{Look, Stream},
};

const HOSTILE: &str = "a \u{1b}]0;title\u{7}b\u{1b}[2Jc\rd";

fn settings(format: Format, view: View, width: Option<usize>) -> Settings {
    let look = Look { out_width: width, err_is_terminal: width.is_some(), styled: false };
    let (whole, wrapped) = (false, false);
    let drawn = width.is_some();
    Settings { format, view, look, drawn, rendered: false, verbose: false, prompt_tokens: 7, whole, wrapped }
}

/// What one lane tells, in order.
fn told(name: &str, text: &[&str], end: Result<FinishReason, ErrorClass>) -> Vec<EventKind> {
    let target = Arc::new(testing::target(name));
    let mut kinds = vec![EventKind::Started(Arc::clone(&target))];
    for (index, piece) in text.iter().enumerate() {
        kinds.push(EventKind::Deltas(vec![delta(piece)].into()));
        if index == 0 {
            kinds.push(EventKind::Ttft(Duration::from_millis(120)));
        }
    }
    let cut = !text.is_empty() && end.is_err();
    kinds.push(EventKind::Finished(Box::new(LaneOutcome {
        result: end
            .map(|reason| Whole { reason: Some(reason) })
            .map_err(|class| ApiError::new(class, "the reason of the failure")),
        cut,
        stopped: false,
        deadline_passed: false,
        target: Some(target),
        attempts: Vec::new(),
        ttft: (!text.is_empty()).then(|| Duration::from_millis(120)),
        first: None,
        total: Duration::from_secs(2),
        generating: Duration::from_secs(1),
    })));
    kinds
}

fn delta(text: &str) -> Delta {
    Delta { choice: 0, kind: DeltaKind::Text(text.to_owned()) }
}

/// Runs lanes of these names whose events come in the order of `turns` (which lane speaks next).
fn run(settings: Settings, lanes: &[(&str, Vec<EventKind>)], turns: &[usize]) -> (CompareView, Output) {
    let now = Instant::now();
    let mut view = CompareView::new(settings, lanes.iter().map(|(name, _)| *name), now);
    let mut left: Vec<_> = lanes.iter().map(|(_, kinds)| kinds.iter()).collect();
    let mut output = Output::default();
    view.begin(&mut output);
    let mut next = |lane: usize, view: &mut CompareView, output: &mut Output| {
        if let Some(kind) = left[lane].next() {
            view.event(&Event { lane, at: now, kind: kind.clone() }, output);
        }
    };
    for &turn in turns {
        next(turn % lanes.len(), &mut view, &mut output);
    }
    for (lane, (_, kinds)) in lanes.iter().enumerate() {
        for _ in kinds {
            next(lane, &mut view, &mut output);
        }
    }
    view.end(&mut output);
    (view, output)
}

fn streams(mut output: Output) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for (stream, text) in output.take() {
        match stream {
            Stream::Out => out.push_str(&text),
            Stream::Err => err.push_str(&text),
        }
    }
    (out, err)
}

fn three() -> Vec<(&'static str, Vec<EventKind>)> {
    vec![
        ("fast", told("fast", &["Hello ", "world\n", "end"], Ok(FinishReason::Stop))),
        ("big", told("big", &[], Err(ErrorClass::Rate))),
        ("本地", told("本地", &["借用", "检查器。"], Ok(FinishReason::Length))),
    ]
}

#[test]
fn on_a_pipe_whole_answers_come_in_the_order_asked_for() {
    let (_, output) = run(settings(Format::Text, View::Auto, None), &three(), &[2, 2, 2, 2, 2, 1, 1, 1]);
    let (out, err) = streams(output);
    assert_eq!(
        out,
        "--- 1 fast  ok\nHello world\nend\n\n--- 2 big  ERR rate\n\n--- 3 本地  ok (length)\n借用检查器。\n"
    );
    assert!(err.contains("the reason of the failure") && err.contains("token limit"), "{err}");
    assert!(err.contains("#  model  state") && err.contains("7 / 4*"), "{err}");
}

#[test]
fn an_answer_is_printed_as_soon_as_its_turn_comes() {
    let now = Instant::now();
    let lanes = three();
    let mut view = CompareView::new(settings(Format::Text, View::Stack, None), lanes.iter().map(|lane| lane.0), now);
    let mut shown = |lane: usize| {
        let mut output = Output::default();
        for kind in &lanes[lane].1 {
            view.event(&Event { lane, at: now, kind: kind.clone() }, &mut output);
        }
        streams(output).0
    };
    assert_eq!(shown(2), "");
    assert!(shown(0).ends_with("end\n"));
    let rest = shown(1);
    assert!(rest.contains("2 big") && rest.contains("3 本地"), "{rest}");
}

#[test]
fn lines_come_tagged_and_control_sequences_go() {
    let lanes = [("a", told("a", &["one\ntw", HOSTILE, "o\nthree"], Ok(FinishReason::Stop)))];
    let (out, _) = streams(run(settings(Format::Text, View::Tagged, None), &lanes, &[]).1);
    assert_eq!(out, "a| one\na| twa bcdo\na| three\n");
}

#[test]
fn a_terminal_gets_no_control_sequence_in_any_text() {
    let lanes = [("a", told("a", &[HOSTILE], Ok(FinishReason::Stop)))];
    for (format, view) in [(Format::Markdown, View::Auto), (Format::Text, View::Stack), (Format::Text, View::Auto)] {
        let (out, _) = streams(run(settings(format, view, Some(80)), &lanes, &[]).1);
        assert!(!out.contains(['\u{1b}', '\r', '\u{7}']), "{out:?}");
    }
}

#[test]
fn whose_message_it_is_is_told_whatever_the_lanes_are_called() {
    let lanes = [
        ("a", told("a", &["x"], Ok(FinishReason::ContentFilter))),
        ("the", told("elsewhere", &[], Err(ErrorClass::Rate))),
    ];
    let (_, err) = streams(run(settings(Format::Text, View::Stack, None), &lanes, &[]).1);
    assert!(err.contains("a: warning: a content filter") && err.contains("the: error: elsewhere"), "{err}");
}

#[test]
fn the_end_is_as_wide_as_the_terminal_is_then() {
    let now = Instant::now();
    let lanes =
        [("a", told("a", &["words"], Ok(FinishReason::Stop))), ("b", told("b", &["words"], Ok(FinishReason::Stop)))];
    let mut view =
        CompareView::new(settings(Format::Text, View::Columns, Some(200)), lanes.iter().map(|lane| lane.0), now);
    let mut output = Output::default();
    for (lane, (_, kinds)) in lanes.iter().enumerate() {
        for kind in kinds {
            view.event(&Event { lane, at: now, kind: kind.clone() }, &mut output);
        }
    }
    view.widen(80);
    view.end(&mut output);
    let (out, _) = streams(output);
    assert!(out.contains(" | ") && out.lines().all(|row| row.width() < 80), "{out}");
}

#[test]
fn json_is_one_document_and_json_lines_tell_whose_they_are() {
    let (out, _) = streams(run(settings(Format::Json, View::Auto, None), &three(), &[1, 1, 2]).1);
    let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
    let told: Vec<_> = document.as_array().expect("a list").iter().map(|lane| &lane["model"]).collect();
    assert_eq!(told, ["fast", "big", "本地"]);
    assert_eq!((&document[0]["content"], &document[1]["error"]["class"]), (&"Hello world\nend".into(), &"rate".into()));
    let (out, _) = streams(run(settings(Format::Jsonl, View::Auto, None), &three(), &[0, 2, 1, 0, 2, 1]).1);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["lanes"][2], "本地");
    let text = |lane: usize| {
        let own = lines.iter().filter(|line| line["lane"] == lane && line["event"] == "delta");
        own.filter_map(|line| line["content"].as_str()).collect::<String>()
    };
    assert_eq!((text(0), text(1), text(2)), ("Hello world\nend".into(), String::new(), "借用检查器。".into()));
    assert_eq!(lines.iter().filter(|line| line["event"] == "finished").count(), 3);
}

#[test]
fn held_text_is_shown_only_when_it_is_whole() {
    let mut kinds = told("a", &[], Ok(FinishReason::Stop));
    let end = kinds.pop().expect("an end");
    let target = Arc::new(testing::target("a"));
    let error = Some(ApiError::new(ErrorClass::Cut, "cut"));
    let sent = AttemptRecord::new(target, jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
    let record = AttemptRecord { error, status: Some(200), ..sent };
    kinds.push(EventKind::Held(vec![delta("half")].into()));
    kinds.push(EventKind::Failed { record, next: Next::Restart(TargetId("b".into())) });
    kinds.push(EventKind::Held(vec![delta("who")].into()));
    kinds.push(EventKind::Held(vec![delta("le")].into()));
    kinds.push(end);
    for view in [View::Stack, View::Tagged] {
        let (out, err) = streams(run(settings(Format::Text, view, None), &[("a", kinds.clone())], &[]).1);
        assert!(out.contains("whole") && !out.contains("half"), "{out}");
        assert!(err.contains("restarted on b"), "{err}");
    }
    let (out, _) = streams(run(settings(Format::Jsonl, View::Auto, None), &[("a", kinds)], &[]).1);
    assert!(!out.contains("half") && out.contains("\"content\":\"whole\""), "{out}");
}

#[test]
fn what_arrived_is_kept_when_the_person_has_had_enough() {
    let now = Instant::now();
    let mut view = CompareView::new(settings(Format::Text, View::Auto, None), ["a", "b"].into_iter(), now);
    let mut output = Output::default();
    for kind in &told("a", &["half an ans"], Ok(FinishReason::Stop))[..2] {
        view.event(&Event { lane: 0, at: now, kind: kind.clone() }, &mut output);
    }
    view.interrupted(now, &mut output);
    view.end(&mut output);
    let (out, err) = streams(output);
    assert!(out.contains("--- 1 a  stopped\nhalf an ans\n") && out.contains("--- 2 b  stopped"), "{out}");
    assert!(err.contains("[interrupted]"), "{err}");
    assert_eq!(view.outcomes().count(), 2);
}

#[test]
fn the_table_is_all_there_is_when_nothing_else_is_wanted() {
    let (out, _) = streams(run(settings(Format::Text, View::Quiet, None), &three(), &[]).1);
    assert!(out.starts_with("#  model  state") && !out.contains("Hello"), "{out}");
}

#[test]
fn costs_add_up_by_currency() {
    let priced = |name: &str, currency: &str| {
        let price =
            crate::model::target::Price { input: 1e6, output: 0.0, cached_input: None, currency: currency.into() };
        let target = Arc::new(crate::model::target::Target { price: Some(price), ..testing::target(name) });
        let usage = Usage { input: Some(2), output: Some(1), ..Usage::default() };
        let mut kinds = told(name, &["x"], Ok(FinishReason::Stop));
        kinds.insert(1, EventKind::Deltas(vec![Delta { choice: 0, kind: DeltaKind::Usage(usage) }].into()));
        if let Some(EventKind::Finished(outcome)) = kinds.last_mut() {
            outcome.target = Some(target);
        }
        kinds
    };
    let lanes = [("a", priced("a", "USD")), ("b", priced("b", "CNY")), ("c", priced("c", "USD"))];
    let (_, err) = streams(run(settings(Format::Text, View::Auto, None), &lanes, &[]).1);
    assert!(err.contains("together $4.000000 + 2.000000 CNY"), "{err}");
}

proptest! {
    #[test]
    fn no_lane_changes_another_and_no_escape_byte_reaches_a_pipe(
        turns in prop::collection::vec(0usize..4, 0..40),
        texts in prop::collection::vec(prop::collection::vec("([a-z]{1,9} |借用|👋|\n|\u{1b}\\[31m|\t){0,6}", 0..5), 4),
        width in prop::sample::select(vec![None, Some(40), Some(80), Some(120), Some(200)]),
        view in prop::sample::select(vec![View::Auto, View::Columns, View::Stack, View::Tagged]),
    ) {
        let names = ["a", "b", "通义", "d"];
        let lanes: Vec<_> = names.iter().zip(&texts).map(|(name, text)| {
            let pieces: Vec<&str> = text.iter().map(String::as_str).collect();
            (*name, told(name, &pieces, Ok(FinishReason::Stop)))
        }).collect();
        let (shown, output) = run(settings(Format::Text, view, width), &lanes, &turns);
        let (out, _) = streams(output);
        prop_assert!(!out.contains('\u{1b}'), "{:?}", out);
        if view == View::Columns {
            let width = width.unwrap_or(PAGE);
            prop_assert!(out.lines().all(|row| row.width() < width), "{}", out);
        }
        for (lane, text) in shown.lanes.iter().zip(&texts) {
            if view == View::Columns {
                prop_assert_eq!(lane.text(), sanitised(&text.concat()));
            }
        }
        if view == View::Tagged {
            for (name, text) in names.iter().zip(&texts) {
                let own: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix(&format!("{name}| "))).collect();
                let text = sanitised(&text.concat());
                prop_assert_eq!(own.join("\n"), text.strip_suffix('\n').unwrap_or(&text));
            }
        }
    }
}
