//! Tests the live region on a virtual terminal: layout, widths and keys.

use std::num::NonZero;

use super::*;

const NAMES: [&str; 5] = ["fast", "big", "通义千问", "local", "a-model-with-quite-a-long-name-of-its-own"];

fn view(names: &[&str], width: usize, styled: bool) -> CompareView {
    let mut settings = settings(Format::Text, View::Auto, Some(width));
    (settings.terminal.styled, settings.render_markdown) = (styled, styled);
    CompareView::new(settings, names.iter().copied(), Instant::now())
}

fn send(view: &mut CompareView, index: usize, kinds: &[EventKind]) {
    for kind in kinds {
        view.on_event(&Event { call: index, at: Instant::now(), kind: kind.clone() }, &mut Output::default());
    }
}

fn cells(count: usize) -> NonZero<u16> {
    NonZero::new(u16::try_from(count).expect("fits u16")).expect("not zero")
}

/// What a terminal shows for `rows`; panics if one is too wide.
fn shown(rows: &[String], width: usize) -> Vec<String> {
    let mut terminal = vt100::Parser::new(cells(rows.len().max(1)), cells(width), 0);
    terminal.process(rows.join("\r\n").as_bytes());
    let screen = terminal.screen();
    for row in 0..u16::try_from(rows.len()).expect("fits u16") {
        let last = screen.cell(row, u16::try_from(width - 1).expect("fits u16")).expect("the cell exists");
        assert!(!last.has_contents() && !screen.row_wrapped(row), "row {row} is too wide: {rows:#?}");
    }
    screen.rows(0, cells(width).get()).map(|row| row.trim_end().to_owned()).collect()
}

fn pressed(view: &mut CompareView, keys: &str) -> Vec<Action> {
    keys.chars().filter_map(|key| view.on_key(Key::Char(key))).collect()
}

#[test]
fn answers_are_side_by_side_with_their_metrics_above() {
    let mut view = view(&["fast", "big", "local"], 120, false);
    send(
        &mut view,
        0,
        &events("fast", &["Rust's borrow checker enforces three rules at ", "compile time: "], Ok(FinishReason::Stop))
            [..4],
    );
    send(&mut view, 1, &events("big", &[], Err(ErrorClass::Rate)));
    send(
        &mut view,
        2,
        &events("local", &["借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用。"], Ok(FinishReason::Length)),
    );
    let rows = shown(&view.live_rows(120, 40, Instant::now()), 120);
    assert!(rows[0].starts_with(" 1 fast  .. 120 ms ") && rows[0].contains("| 2 big  ERR rate 2.0 s"), "{}", rows[0]);
    assert!(rows[0].contains("| 3 local  length 120 ms"), "{}", rows[0]);
    assert_eq!(rows[1], format!("{0}+{0}+{1}", "-".repeat(39), "-".repeat(38)));
    assert_eq!(rows[2].find(" | error: big: rate: "), Some(38), "{}", rows[2]);
    assert!(rows[2].starts_with(" Rust's borrow checker enforces three") && rows[2].ends_with("谁拥"), "{}", rows[2]);
    assert!(rows.last().expect("at least the footer").starts_with(" 1/3 running  1 failed"), "{rows:#?}");
}

#[test]
fn models_that_do_not_fit_get_bands_or_rows() {
    for (count, size, bands) in [
        (4, (80, 24), 2),
        (6, (80, 24), 3),
        (8, (80, 24), 0),
        (12, (200, 50), 3),
        (3, (60, 24), 3),
        (3, (20, 5), 0),
        (1, (80, 9), 1),
    ] {
        let names: Vec<String> = (1..=count).map(|n| format!("m{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut view = view(&names, size.0, false);
        for (index, name) in names.iter().enumerate() {
            send(&mut view, index, &events(name, &["word ".repeat(2000).as_str()], Ok(FinishReason::Stop))[..2]);
        }
        let rows = shown(&view.live_rows(size.0, size.1, Instant::now()), size.0);
        assert!(rows.len() <= size.1 - 2, "{} rows", rows.len());
        assert_eq!(rows.iter().filter(|row| row.starts_with("---")).count(), bands, "{count} at {size:?}: {rows:#?}");
        if bands > 0 {
            let all = rows.join("\n");
            assert!(names.iter().all(|name| all.contains(&format!("{name}  .."))), "{all}");
        }
    }
}

#[test]
fn running_calls_are_preferred_and_the_footer_counts_the_others() {
    let names: Vec<String> = (0..500).map(|n| format!("model-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut view = view(&names, 80, false);
    send(&mut view, 321, &events("model-321", &["text"], Ok(FinishReason::Stop))[..2]);
    let rows = shown(&view.live_rows(80, 24, Instant::now()), 80);
    assert_eq!(rows.len(), 22);
    assert!(rows.iter().any(|row| row.contains("model-321") && row.contains("text")), "{rows:#?}");
    assert!(rows[21].contains("500/500 running") && rows[21].contains("479 not shown"), "{}", rows[21]);
}

#[test]
fn streaming_answers_show_their_tail_and_finished_ones_their_start() {
    let text = (1..=60).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n") + "\n";
    let mut view = view(&["a", "b"], 80, false);
    let kinds = events("a", &[&text], Ok(FinishReason::Stop));
    send(&mut view, 0, &kinds[..2]);
    let rows = shown(&view.live_rows(80, 24, Instant::now()), 80).join("\n");
    assert!(rows.contains("line 60") && !rows.contains("line 9 "), "{rows}");
    send(&mut view, 0, &kinds[2..]);
    let rows = shown(&view.live_rows(80, 24, Instant::now()), 80);
    assert!(rows[2].starts_with(" line 1 ") && rows[20].starts_with(" (42 more lines: 1 z)"), "{rows:#?}");
}

#[test]
fn keys_zoom_hold_and_pick() {
    let mut view = view(&["a", "b", "c", "d"], 160, false).with_keys();
    send(&mut view, 1, &events("b", &["a partial ans"], Ok(FinishReason::Stop))[..2]);
    let rows_of = |view: &mut CompareView| shown(&view.live_rows(160, 30, Instant::now()), 160);
    assert_eq!(pressed(&mut view, "2z"), []);
    let rows = rows_of(&mut view);
    assert!(rows[0].starts_with(" 2 b  ..") && rows[2] == " a partial an" && rows[3].contains("un[z]oom"), "{rows:#?}");
    // The call fails while it is zoomed.
    let failed = events("b", &["a partial ans"], Err(ErrorClass::Reset));
    send(&mut view, 1, &failed[3..]);
    let rows = rows_of(&mut view);
    assert!(rows[0].starts_with(" 2 b  incomplete") && rows[3].contains("the reason of the failure"), "{rows:#?}");
    assert_eq!(pressed(&mut view, " "), []);
    send(&mut view, 0, &events("a", &["more"], Ok(FinishReason::Stop)));
    pressed(&mut view, "z");
    let before = rows_of(&mut view);
    send(&mut view, 2, &events("c", &["more"], Ok(FinishReason::Stop)));
    assert_eq!(rows_of(&mut view)[..3], before[..3], "the view is on hold");
    assert!(view.is_held() && before.iter().any(|row| row.contains("resume (held)")));
    assert_eq!(pressed(&mut view, " "), []);
    assert!(rows_of(&mut view)[0].contains("3 c  ok"));
    pressed(&mut view, "1p");
    assert_eq!(view.picked(), Some(0));
    assert!(rows_of(&mut view)[0].starts_with(" 1* a  ok"), "{:?}", rows_of(&mut view)[0]);
    pressed(&mut view, "4p");
    assert_eq!(view.picked(), None, "the call has no answer");
}

#[test]
fn rows_with_joined_emoji_fit_on_terminals_that_do_not_join_them() {
    let names: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for width in [20, 41, 80] {
        let mut view = view(&names, width, false);
        for (index, name) in names.iter().enumerate() {
            send(&mut view, index, &events(name, &[&"👨‍👩‍👧".repeat(index * 3 + 1)], Ok(FinishReason::Stop))[..2]);
        }
        shown(&view.live_rows(width, 40, Instant::now()), width);
    }
}

#[test]
fn text_after_a_refusal_replaces_it() {
    let mut view = view(&["a", "b"], 80, false);
    let deltas = |kind| EventKind::Deltas(vec![Delta { choice: 0, kind }].into());
    let started = events("a", &[], Ok(FinishReason::Stop)).swap_remove(0);
    send(&mut view, 0, &[started, deltas(DeltaKind::Refusal("x no".into()))]);
    assert!(shown(&view.live_rows(80, 24, Instant::now()), 80)[2].starts_with(" x n"));
    send(&mut view, 0, &[deltas(DeltaKind::Text("借用检查器。".into()))]);
    assert!(shown(&view.live_rows(80, 24, Instant::now()), 80)[2].starts_with(" 借用检查器"));
}

#[test]
fn written_answers_cannot_be_restarted() {
    let names = ["a", "b"];
    let mut view = CompareView::new(settings(Format::Json, View::Auto, None), names.into_iter(), Instant::now());
    send(&mut view, 0, &events("a", &["x"], Ok(FinishReason::Stop)));
    assert_eq!(pressed(&mut view, "1r2r"), [Action::Restart(1)]);
}

/// A random event of a call: text, a failover, the end, or a restart by the user. Each text names its call and attempt.
#[derive(Clone, Debug)]
enum TestStep {
    Text(usize),
    Fail(usize),
    End(usize),
    Restart(usize),
}

fn steps(count: usize) -> impl Strategy<Value = Vec<TestStep>> {
    let index = 0..count;
    let step = prop_oneof![
        6 => index.clone().prop_map(TestStep::Text),
        1 => index.clone().prop_map(TestStep::Fail),
        1 => index.clone().prop_map(TestStep::End),
        1 => index.prop_map(TestStep::Restart),
    ];
    prop::collection::vec(step, 0..60)
}

/// The expected text of each call, and the source of its events.
struct ExpectedCalls {
    attempts: Vec<usize>,
    texts: Vec<String>,
    has_ended: Vec<bool>,
}

impl ExpectedCalls {
    fn new(count: usize) -> Self {
        Self { attempts: vec![0; count], texts: vec![String::new(); count], has_ended: vec![false; count] }
    }

    /// The events of one step.
    fn events_of(&mut self, step: &TestStep) -> Vec<(usize, EventKind)> {
        let (TestStep::Text(index) | TestStep::Fail(index) | TestStep::End(index) | TestStep::Restart(index)) = *step;
        let target = Arc::new(testing::target(NAMES[index]));
        let text = self.texts[index].clone();
        let end = |result| events(NAMES[index], &[text.as_str()], result).pop().expect("Finished is last");
        match step {
            TestStep::Restart(_) => {
                let stopped = (!self.has_ended[index]).then(|| end(Err(ErrorClass::LocalLimit)));
                self.attempts[index] += 1;
                self.texts[index].clear();
                self.has_ended[index] = false;
                let again = [EventKind::Restarted, EventKind::Started(target)];
                stopped.into_iter().chain(again).map(|kind| (index, kind)).collect()
            }
            _ if self.has_ended[index] => Vec::new(),
            TestStep::Text(_) => {
                let chunk = format!("call{index}try{} 借用 ", self.attempts[index]);
                self.texts[index].push_str(&chunk);
                vec![(index, EventKind::Deltas(vec![delta(&chunk)].into()))]
            }
            TestStep::Fail(_) => {
                self.attempts[index] += 1;
                self.texts[index].clear();
                let error = Some(CallError::new(ErrorClass::Server, "no"));
                let sent = AttemptRecord::new(Arc::clone(&target), jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
                let next = NextStep::RestartOutput(TargetId("other".into()));
                let failed = EventKind::Failed { record: AttemptRecord { error, ..sent }, next };
                vec![(index, failed), (index, EventKind::Started(target))]
            }
            TestStep::End(_) => {
                self.has_ended[index] = true;
                vec![(index, end(Ok(FinishReason::Stop)))]
            }
        }
    }
}

proptest! {
    /// With random events, keys and sizes, rows fit, separators are aligned, and each column shows only text of the
    /// current attempt of its call.
    #[test]
    fn text_appears_only_under_the_name_of_its_call(
        sequence in steps(5),
        width in prop::sample::select(vec![20usize, 40, 80, 120, 200]),
        height in 5usize..50,
        keys in "[1-5zp <>]{0,6}",
        styled in any::<bool>(),
    ) {
        let mut view = view(&NAMES, width, styled);
        let mut expected = ExpectedCalls::new(NAMES.len());
        let mut keys = keys.chars();
        for step in &sequence {
            for (index, kind) in expected.events_of(step) {
                send(&mut view, index, &[kind]);
            }
            if let Some(key) = keys.next() {
                view.on_key(Key::Char(key));
            }
            let rows = view.live_rows(width, height, Instant::now());
            prop_assert!(rows.len() <= height.saturating_sub(2).max(1));
            let shown = shown(&rows, width);
            for row in shown.iter().filter(|row| !row.is_empty()) {
                prop_assert!(!row.contains('\u{fffd}'), "{row:?}");
            }
            if !view.is_held() {
                check_owners(&view, &expected, &shown)?;
            }
        }
        for (call, text) in view.calls.iter().zip(&expected.texts) {
            prop_assert_eq!(call.text(), sanitize(text));
        }
    }

    #[test]
    fn hostile_text_does_not_move_the_cursor(
        text in "([a-z]{1,9} |借用|👋|👨‍👩‍👧|\n|\u{1b}\\[31m|\u{1b}\\[2J|\u{1b}\\]0;x\u{7}|\t|\0|שלום|\u{202e}|```\n|\\| a \\| b \\|\n){0,30}",
        width in 1usize..220,
        height in 1usize..50,
        name in "[a-z通义]{1,40}",
        zoomed in any::<bool>(),
        kind in 0usize..3,
    ) {
        let mut view = view(&[name.as_str(), "b"], width, true);
        if zoomed {
            pressed(&mut view, "1z");
        }
        let output = match kind {
            0 => DeltaKind::Text(text.clone()),
            1 => DeltaKind::Reasoning(text.clone()),
            _ => DeltaKind::Refusal(text.clone()),
        };
        let deltas = |kind| EventKind::Deltas(vec![Delta { choice: 0, kind }].into());
        let mut kinds = events(&name, &[], Ok(FinishReason::Stop));
        // Text replaces a refusal that was shown.
        kinds.splice(1..1, [deltas(output), deltas(DeltaKind::Text("借".into()))]);
        for kind in kinds {
            send(&mut view, 0, &[kind]);
            let rows = view.live_rows(width, height, Instant::now());
            for row in &rows {
                for sequence in row.split('\u{1b}').skip(1) {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a final byte");
                    prop_assert!(sequence.starts_with('[') && matches!(&sequence[end..=end], "m" | "G"), "{sequence:?}");
                }
                prop_assert!(!row.contains(['\n', '\r', '\t', '\0']), "{row:?}");
            }
            shown(&rows, width);
        }
    }
}

/// Checks that each word on the screen belongs to the call of its column, and to the current attempt.
fn check_owners(view: &CompareView, expected: &ExpectedCalls, rows: &[String]) -> Result<(), TestCaseError> {
    let rule = |row: &String| row.starts_with("---");
    if view.live.is_zoomed() || !rows.iter().any(rule) {
        return Ok(());
    }
    let mut first_call = 0;
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| rule(row)) {
        let columns = row.matches('+').count() + 1;
        let column = row.find('+').map_or(row.len() - 1, |end| end - 2);
        let body = rows[at + 1..].iter().take_while(|row| !row.trim_start().starts_with(|c: char| c.is_ascii_digit()));
        for row in body {
            let cells: Vec<(usize, char)> = row
                .chars()
                .scan(0, |cell, c| {
                    let at = *cell;
                    *cell += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
                    Some((at, c))
                })
                .collect();
            for index in 0..columns {
                let from = 1 + index * (column + 3);
                if index > 0 && row.width() >= from {
                    prop_assert!(cells.contains(&(from - 2, '|')), "no separator at {from} in {row:?}");
                }
                let text: String =
                    cells.iter().filter(|(at, _)| (from..from + column).contains(at)).map(|(_, c)| *c).collect();
                for word in text.split_whitespace().filter(|word| word.starts_with("call")) {
                    let wanted = format!("call{}try{}", first_call + index, expected.attempts[first_call + index]);
                    prop_assert!(
                        wanted.starts_with(word) || word.starts_with(&wanted),
                        "{word} in call {}",
                        first_call + index
                    );
                }
            }
        }
        first_call += columns;
    }
    Ok(())
}
