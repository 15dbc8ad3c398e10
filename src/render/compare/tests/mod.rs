//! Tests of the comparison view, including random event orders and widths.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;

use crate::{
    engine::{AccumulatedAnswer, AttemptRecord, Completion, NextStep},
    model::{
        Delta, DeltaKind, ErrorClass, FinishReason, Usage,
        sanitize::sanitize,
        target::{TargetId, testing},
    },
    protocol::CallError,
    render::{Stream, TerminalInfo},
};

mod captures;
mod interleavings;
mod live;

const HOSTILE: &str = "a \u{1b}]0;title\u{7}b\u{1b}[2Jc\rd";

fn settings(format: Format, view: View, width: Option<usize>) -> CompareSettings {
    let terminal = TerminalInfo { stdout_width: width, stderr_is_terminal: width.is_some(), styled: false };
    CompareSettings {
        format,
        view,
        terminal,
        has_live_region: width.is_some(),
        render_markdown: false,
        verbose: false,
        keep_answers: false,
        answers_in_object: false,
    }
}

/// The events of one call, in order.
fn events(name: &str, text: &[&str], end: Result<FinishReason, ErrorClass>) -> Vec<EventKind> {
    let target = Arc::new(testing::target(name));
    let mut kinds = vec![EventKind::Started(Arc::clone(&target))];
    for (index, chunk) in text.iter().enumerate() {
        kinds.push(EventKind::Deltas(vec![delta(chunk)].into()));
        if index == 0 {
            kinds.push(EventKind::FirstToken(Duration::from_millis(120)));
        }
    }
    let incomplete = !text.is_empty() && end.is_err();
    let result = end
        .map(|reason| Completion { finish_reason: Some(reason) })
        .map_err(|class| CallError::new(class, "the reason of the failure"));
    let mut answer = AccumulatedAnswer::default();
    for chunk in text {
        answer.add(&delta(chunk), true);
    }
    kinds.push(EventKind::Finished(Arc::new(CallRecord {
        incomplete,
        target: Some(target),
        ttft: (!text.is_empty()).then(|| Duration::from_millis(120)),
        total: Duration::from_secs(2),
        output_duration: Duration::from_secs(1),
        usage: (result.is_ok() || incomplete).then(|| answer.estimated_usage(7)),
        answer,
        ..CallRecord::new(name, result)
    })));
    kinds
}

/// Changes the record of the last event.
fn change_record(kinds: &mut [EventKind], act: impl FnOnce(&mut CallRecord)) {
    let Some(EventKind::Finished(record)) = kinds.last_mut() else { panic!("the last event is not `Finished`") };
    act(Arc::make_mut(record));
}

/// The event that ends a call that the user stopped.
fn stopped_event(call: usize, text: &str, now: Instant) -> Event {
    let error = CallError::new(ErrorClass::LocalLimit, "interrupted");
    let mut answer = AccumulatedAnswer::default();
    answer.add(&delta(text), true);
    let record = CallRecord { incomplete: true, stopped: true, answer, ..CallRecord::new("a", Err(error)) };
    Event { call, at: now, kind: EventKind::Finished(Arc::new(record)) }
}

fn delta(text: &str) -> Delta {
    Delta { choice: 0, kind: DeltaKind::Text(text.to_owned()) }
}

/// Runs calls with these names and events, interleaved in the order of `turns` (indices of calls).
fn run(settings: CompareSettings, calls: &[(&str, Vec<EventKind>)], turns: &[usize]) -> (CompareView, Output) {
    let now = Instant::now();
    let mut view = CompareView::new(settings, calls.iter().map(|(name, _)| *name), now);
    let mut remaining: Vec<_> = calls.iter().map(|(_, kinds)| kinds.iter()).collect();
    let mut output = Output::default();
    view.start(&mut output);
    let mut next = |index: usize, view: &mut CompareView, output: &mut Output| {
        if let Some(kind) = remaining[index].next() {
            view.on_event(&Event { call: index, at: now, kind: kind.clone() }, output);
        }
    };
    for &turn in turns {
        next(turn % calls.len(), &mut view, &mut output);
    }
    for (index, (_, kinds)) in calls.iter().enumerate() {
        for _ in kinds {
            next(index, &mut view, &mut output);
        }
    }
    view.finish(&mut output);
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

fn three_calls() -> Vec<(&'static str, Vec<EventKind>)> {
    vec![
        ("fast", events("fast", &["Hello ", "world\n", "end"], Ok(FinishReason::Stop))),
        ("big", events("big", &[], Err(ErrorClass::Rate))),
        ("本地", events("本地", &["借用", "检查器。"], Ok(FinishReason::Length))),
    ]
}

#[test]
fn pipe_gets_complete_answers_in_the_requested_order() {
    let (_, output) = run(settings(Format::Text, View::Auto, None), &three_calls(), &[2, 2, 2, 2, 2, 1, 1, 1]);
    let (out, err) = streams(output);
    assert_eq!(
        out,
        "--- 1 fast  ok\nHello world\nend\n\n--- 2 big  ERR rate\n\n--- 3 本地  ok (length)\n借用检查器。\n"
    );
    assert!(err.contains("the reason of the failure") && err.contains("token limit"), "{err}");
    assert!(err.contains("#  model  state") && err.contains("7 / 4*"), "{err}");
}

#[test]
fn answer_is_printed_as_soon_as_it_and_all_before_it_are_complete() {
    let now = Instant::now();
    let calls = three_calls();
    let mut view = CompareView::new(settings(Format::Text, View::Stack, None), calls.iter().map(|call| call.0), now);
    let mut shown = |index: usize| {
        let mut output = Output::default();
        for kind in &calls[index].1 {
            view.on_event(&Event { call: index, at: now, kind: kind.clone() }, &mut output);
        }
        streams(output).0
    };
    assert_eq!(shown(2), "");
    assert!(shown(0).ends_with("end\n"));
    let rest = shown(1);
    assert!(rest.contains("2 big") && rest.contains("3 本地"), "{rest}");
}

#[test]
fn lines_are_tagged_and_control_sequences_are_removed() {
    let calls = [("a", events("a", &["one\ntw", HOSTILE, "o\nthree"], Ok(FinishReason::Stop)))];
    let (out, _) = streams(run(settings(Format::Text, View::Tagged, None), &calls, &[]).1);
    assert_eq!(out, "a| one\na| twa bcdo\na| three\n");
}

#[test]
fn terminal_output_has_no_control_sequences_from_answers() {
    let calls = [("a", events("a", &[HOSTILE], Ok(FinishReason::Stop)))];
    for (format, view) in [(Format::Markdown, View::Auto), (Format::Text, View::Stack), (Format::Text, View::Auto)] {
        let (out, _) = streams(run(settings(format, view, Some(80)), &calls, &[]).1);
        assert!(!out.contains(['\u{1b}', '\r', '\u{7}']), "{out:?}");
    }
}

#[test]
fn messages_name_their_call_even_if_its_name_occurs_in_the_text() {
    let calls = [
        ("a", events("a", &["x"], Ok(FinishReason::ContentFilter))),
        ("the", events("elsewhere", &[], Err(ErrorClass::Rate))),
    ];
    let (_, err) = streams(run(settings(Format::Text, View::Stack, None), &calls, &[]).1);
    assert!(err.contains("a: warning: a content filter") && err.contains("the: error: elsewhere"), "{err}");
}

#[test]
fn final_view_uses_the_width_after_a_resize() {
    let now = Instant::now();
    let calls = ["a", "b"].map(|name| (name, events(name, &["words"], Ok(FinishReason::Stop))));
    let mut view =
        CompareView::new(settings(Format::Text, View::Columns, Some(200)), calls.iter().map(|call| call.0), now);
    let mut output = Output::default();
    for (index, (_, kinds)) in calls.iter().enumerate() {
        for kind in kinds {
            view.on_event(&Event { call: index, at: now, kind: kind.clone() }, &mut output);
        }
    }
    view.set_width(80);
    view.finish(&mut output);
    let (out, _) = streams(output);
    assert!(out.contains(" | ") && out.lines().all(|row| row.width() < 80), "{out}");
}

#[test]
fn json_is_one_document_and_jsonl_lines_have_the_index_of_their_call() {
    let (out, _) = streams(run(settings(Format::Json, View::Auto, None), &three_calls(), &[1, 1, 2]).1);
    let document: serde_json::Value = serde_json::from_str(&out).expect("one JSON document");
    let models: Vec<_> = document.as_array().expect("an array").iter().map(|answer| &answer["model"]).collect();
    assert_eq!(models, ["fast", "big", "本地"]);
    assert_eq!((&document[0]["content"], &document[1]["error"]["class"]), (&"Hello world\nend".into(), &"rate".into()));
    let (out, _) = streams(run(settings(Format::Jsonl, View::Auto, None), &three_calls(), &[0, 2, 1, 0, 2, 1]).1);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["calls"][2], "本地");
    let text = |index: usize| {
        let own = lines.iter().filter(|line| line["call"] == index && line["event"] == "delta");
        own.filter_map(|line| line["content"].as_str()).collect::<String>()
    };
    assert_eq!((text(0), text(1), text(2)), ("Hello world\nend".into(), String::new(), "借用检查器。".into()));
    assert_eq!(lines.iter().filter(|line| line["event"] == "finished").count(), 3);
}

#[test]
fn buffered_text_is_shown_only_when_complete() {
    let mut kinds = events("a", &[], Ok(FinishReason::Stop));
    let end = kinds.pop().expect("Finished is last");
    let target = Arc::new(testing::target("a"));
    let error = Some(CallError::new(ErrorClass::Incomplete, "no end signal"));
    let sent = AttemptRecord::new(target, jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
    let record = AttemptRecord { error, status: Some(200), ..sent };
    kinds.push(EventKind::BufferedDeltas(vec![delta("partial")].into()));
    kinds.push(EventKind::Failed { record, next: NextStep::RestartOutput(TargetId("b".into())) });
    kinds.push(EventKind::BufferedDeltas(vec![delta("comp")].into()));
    kinds.push(EventKind::BufferedDeltas(vec![delta("lete")].into()));
    kinds.push(end);
    change_record(&mut kinds, |record| record.answer.add(&delta("complete"), true));
    for view in [View::Stack, View::Tagged] {
        let (out, err) = streams(run(settings(Format::Text, view, None), &[("a", kinds.clone())], &[]).1);
        assert!(out.contains("complete") && !out.contains("partial"), "{out}");
        assert!(err.contains("restarting on b"), "{err}");
    }
    let (out, _) = streams(run(settings(Format::Jsonl, View::Auto, None), &[("a", kinds)], &[]).1);
    assert!(!out.contains("partial") && out.contains("\"content\":\"complete\""), "{out}");
}

#[test]
fn interrupted_calls_show_their_partial_answers() {
    let now = Instant::now();
    let mut view = CompareView::new(settings(Format::Text, View::Auto, None), ["a", "b"].into_iter(), now);
    let mut output = Output::default();
    for kind in &events("a", &["a partial ans"], Ok(FinishReason::Stop))[..2] {
        view.on_event(&Event { call: 0, at: now, kind: kind.clone() }, &mut output);
    }
    view.on_event(&stopped_event(0, "a partial ans", now), &mut output);
    view.on_event(&stopped_event(1, "", now), &mut output);
    view.finish(&mut output);
    let (out, err) = streams(output);
    assert!(out.contains("--- 1 a  stopped\na partial ans\n") && out.contains("--- 2 b  stopped"), "{out}");
    assert!(err.contains("[interrupted]"), "{err}");
    assert_eq!(view.records().count(), 2);
}

#[test]
fn quiet_view_prints_only_the_table() {
    let (out, _) = streams(run(settings(Format::Text, View::Quiet, None), &three_calls(), &[]).1);
    assert!(out.starts_with("#  model  state") && !out.contains("Hello"), "{out}");
}

#[test]
fn costs_add_up_by_currency() {
    let priced = |name: &str, currency: &str| {
        let price =
            crate::model::target::Price { input: 1e6, output: 0.0, cached_input: None, currency: currency.into() };
        let target = Arc::new(crate::model::target::Target { price: Some(price), ..testing::target(name) });
        let usage = Usage { input: Some(2), output: Some(1), ..Usage::default() };
        let mut kinds = events(name, &["x"], Ok(FinishReason::Stop));
        kinds.insert(1, EventKind::Deltas(vec![Delta { choice: 0, kind: DeltaKind::Usage(usage) }].into()));
        change_record(&mut kinds, |record| {
            let attempt = AttemptRecord::new(Arc::clone(&target), jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
            record.attempts = vec![AttemptRecord { usage: Some(usage), ..attempt }];
            record.target = Some(target);
            record.usage = Some(usage);
        });
        kinds
    };
    let calls = [("a", priced("a", "USD")), ("b", priced("b", "CNY")), ("c", priced("c", "USD"))];
    let (_, err) = streams(run(settings(Format::Text, View::Auto, None), &calls, &[]).1);
    assert!(err.contains("total $4.000000 + 2.000000 CNY"), "{err}");
}

proptest! {
    #[test]
    fn calls_do_not_affect_each_other_and_output_has_no_escape_bytes(
        turns in prop::collection::vec(0usize..4, 0..40),
        texts in prop::collection::vec(prop::collection::vec("([a-z]{1,9} |借用|👋|\n|\u{1b}\\[31m|\t){0,6}", 0..5), 4),
        width in prop::sample::select(vec![None, Some(40), Some(80), Some(120), Some(200)]),
        view in prop::sample::select(vec![View::Auto, View::Columns, View::Stack, View::Tagged]),
    ) {
        let names = ["a", "b", "通义", "d"];
        let calls: Vec<_> = names.iter().zip(&texts).map(|(name, text)| {
            let chunks: Vec<&str> = text.iter().map(String::as_str).collect();
            (*name, events(name, &chunks, Ok(FinishReason::Stop)))
        }).collect();
        let (shown, output) = run(settings(Format::Text, view, width), &calls, &turns);
        let (out, _) = streams(output);
        prop_assert!(!out.contains('\u{1b}'), "{:?}", out);
        if view == View::Columns {
            let width = width.unwrap_or(DEFAULT_PAGE_WIDTH);
            prop_assert!(out.lines().all(|row| row.width() < width), "{}", out);
        }
        for (call, text) in shown.calls.iter().zip(&texts) {
            if view == View::Columns {
                prop_assert_eq!(call.text(), sanitize(&text.concat()));
            }
        }
        if view == View::Tagged {
            for (name, text) in names.iter().zip(&texts) {
                let own: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix(&format!("{name}| "))).collect();
                let text = sanitize(&text.concat());
                prop_assert_eq!(own.join("\n"), text.strip_suffix('\n').unwrap_or(&text));
            }
        }
    }
}
