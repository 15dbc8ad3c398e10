//! The live region on a virtual terminal: what fits, what stands where, what keys do.

use std::num::NonZero;

use super::*;

const LANES: [&str; 5] = ["fast", "big", "通义千问", "local", "a-model-with-quite-a-long-name-of-its-own"];

fn view(names: &[&str], width: usize, styled: bool) -> CompareView {
    let mut settings = settings(Format::Text, View::Auto, Some(width));
    (settings.look.styled, settings.rendered) = (styled, styled);
    CompareView::new(settings, names.iter().copied(), Instant::now())
}

fn tell(view: &mut CompareView, lane: usize, kinds: &[EventKind]) {
    for kind in kinds {
        view.event(&Event { lane, at: Instant::now(), kind: kind.clone() }, &mut Output::default());
    }
}

fn cells(count: usize) -> NonZero<u16> {
    NonZero::new(u16::try_from(count).expect("few")).expect("some")
}

/// What a terminal of this size shows of `rows`; panics where one of them is not a row of its own.
fn shown(rows: &[String], width: usize) -> Vec<String> {
    let mut terminal = vt100::Parser::new(cells(rows.len().max(1)), cells(width), 0);
    terminal.process(rows.join("\r\n").as_bytes());
    let screen = terminal.screen();
    for row in 0..u16::try_from(rows.len()).expect("few") {
        let last = screen.cell(row, u16::try_from(width - 1).expect("few")).expect("there");
        assert!(!last.has_contents() && !screen.row_wrapped(row), "row {row} is too wide: {rows:#?}");
    }
    screen.rows(0, cells(width).get()).map(|row| row.trim_end().to_owned()).collect()
}

fn pressed(view: &mut CompareView, keys: &str) -> Vec<Wish> {
    keys.chars().filter_map(|key| view.key(Key::Char(key))).collect()
}

#[test]
fn answers_stand_side_by_side_with_their_figures_above() {
    let mut view = view(&["fast", "big", "local"], 120, false);
    tell(
        &mut view,
        0,
        &told("fast", &["Rust's borrow checker enforces three rules at ", "compile time: "], Ok(FinishReason::Stop))
            [..4],
    );
    tell(&mut view, 1, &told("big", &[], Err(ErrorClass::Rate)));
    tell(
        &mut view,
        2,
        &told("local", &["借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用。"], Ok(FinishReason::Length)),
    );
    let rows = shown(&view.rows(120, 40, Instant::now()), 120);
    assert!(rows[0].starts_with(" 1 fast  .. 120 ms ") && rows[0].contains("| 2 big  ERR rate 2.0 s"), "{}", rows[0]);
    assert!(rows[0].contains("| 3 local  length 120 ms"), "{}", rows[0]);
    assert_eq!(rows[1], format!("{0}+{0}+{1}", "-".repeat(39), "-".repeat(38)));
    assert_eq!(rows[2].find(" | error: big: rate: "), Some(38), "{}", rows[2]);
    assert!(rows[2].starts_with(" Rust's borrow checker enforces three") && rows[2].ends_with("谁拥"), "{}", rows[2]);
    assert!(rows.last().expect("one").starts_with(" 1/3 running  1 failed"), "{rows:#?}");
}

#[test]
fn more_models_than_fit_stand_in_bands_and_more_than_that_in_rows() {
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
        for (lane, name) in names.iter().enumerate() {
            tell(&mut view, lane, &told(name, &["word ".repeat(2000).as_str()], Ok(FinishReason::Stop))[..2]);
        }
        let rows = shown(&view.rows(size.0, size.1, Instant::now()), size.0);
        assert!(rows.len() <= size.1 - 2, "{} rows", rows.len());
        assert_eq!(rows.iter().filter(|row| row.starts_with("---")).count(), bands, "{count} at {size:?}: {rows:#?}");
        if bands > 0 {
            let all = rows.join("\n");
            assert!(names.iter().all(|name| all.contains(&format!("{name}  .."))), "{all}");
        }
    }
}

#[test]
fn many_lanes_show_those_under_way_and_say_how_many_are_not_shown() {
    let names: Vec<String> = (0..500).map(|n| format!("model-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut view = view(&names, 80, false);
    tell(&mut view, 321, &told("model-321", &["text"], Ok(FinishReason::Stop))[..2]);
    let rows = shown(&view.rows(80, 24, Instant::now()), 80);
    assert_eq!(rows.len(), 22);
    assert!(rows.iter().any(|row| row.contains("model-321") && row.contains("text")), "{rows:#?}");
    assert!(rows[21].contains("500/500 running") && rows[21].contains("479 not shown"), "{}", rows[21]);
}

#[test]
fn the_tail_is_seen_while_it_comes_and_the_start_when_it_is_over() {
    let text = (1..=60).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n") + "\n";
    let mut view = view(&["a", "b"], 80, false);
    let kinds = told("a", &[&text], Ok(FinishReason::Stop));
    tell(&mut view, 0, &kinds[..2]);
    let rows = shown(&view.rows(80, 24, Instant::now()), 80).join("\n");
    assert!(rows.contains("line 60") && !rows.contains("line 9 "), "{rows}");
    tell(&mut view, 0, &kinds[2..]);
    let rows = shown(&view.rows(80, 24, Instant::now()), 80);
    assert!(rows[2].starts_with(" line 1 ") && rows[20].starts_with(" (42 more lines: 1 z)"), "{rows:#?}");
}

#[test]
fn keys_zoom_hold_and_pick() {
    let mut view = view(&["a", "b", "c", "d"], 160, false).with_keys();
    tell(&mut view, 1, &told("b", &["half an ans"], Ok(FinishReason::Stop))[..2]);
    let seen = |view: &mut CompareView| shown(&view.rows(160, 30, Instant::now()), 160);
    assert_eq!(pressed(&mut view, "2z"), []);
    let rows = seen(&mut view);
    assert!(rows[0].starts_with(" 2 b  ..") && rows[2] == " half an an" && rows[3].contains("un[z]oom"), "{rows:#?}");
    // It dies while it is looked at.
    let mut dead = told("b", &[], Err(ErrorClass::Reset));
    tell(&mut view, 1, &dead.split_off(1));
    let rows = seen(&mut view);
    assert!(rows[0].starts_with(" 2 b  ERR reset") && rows[3].contains("the reason of the failure"), "{rows:#?}");
    assert_eq!(pressed(&mut view, " "), []);
    tell(&mut view, 0, &told("a", &["more"], Ok(FinishReason::Stop)));
    pressed(&mut view, "z");
    let before = seen(&mut view);
    tell(&mut view, 2, &told("c", &["more"], Ok(FinishReason::Stop)));
    assert_eq!(seen(&mut view)[..3], before[..3], "it is held");
    assert!(view.is_held() && before.iter().any(|row| row.contains("go on (held)")));
    assert_eq!(pressed(&mut view, " "), []);
    assert!(seen(&mut view)[0].contains("3 c  ok"));
    pressed(&mut view, "1p");
    assert_eq!(view.picked(), Some(0));
    assert!(seen(&mut view)[0].starts_with(" 1* a  ok"), "{:?}", seen(&mut view)[0]);
    pressed(&mut view, "4p");
    assert_eq!(view.picked(), None, "there is no answer in it");
}

#[test]
fn rows_of_joined_emoji_fit_wherever_they_are_apart() {
    let names: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for width in [20, 41, 80] {
        let mut view = view(&names, width, false);
        for (lane, name) in names.iter().enumerate() {
            tell(&mut view, lane, &told(name, &[&"👨‍👩‍👧".repeat(lane * 3 + 1)], Ok(FinishReason::Stop))[..2]);
        }
        shown(&view.rows(width, 40, Instant::now()), width);
    }
}

#[test]
fn text_behind_a_refusal_takes_its_place() {
    let mut view = view(&["a", "b"], 80, false);
    let deltas = |kind| EventKind::Deltas(vec![Delta { choice: 0, kind }].into());
    let started = told("a", &[], Ok(FinishReason::Stop)).swap_remove(0);
    tell(&mut view, 0, &[started, deltas(DeltaKind::Refusal("x no".into()))]);
    assert!(shown(&view.rows(80, 24, Instant::now()), 80)[2].starts_with(" x n"));
    tell(&mut view, 0, &[deltas(DeltaKind::Text("借用检查器。".into()))]);
    assert!(shown(&view.rows(80, 24, Instant::now()), 80)[2].starts_with(" 借用检查器"));
}

#[test]
fn what_is_put_out_already_is_not_had_again() {
    let names = ["a", "b"];
    let mut view = CompareView::new(settings(Format::Json, View::Auto, None), names.into_iter(), Instant::now());
    tell(&mut view, 0, &told("a", &["x"], Ok(FinishReason::Stop)));
    assert_eq!(pressed(&mut view, "1r2r"), [Wish::Again(1)]);
}

/// Random events of several lanes: text, failures over to another target, ends, and a person who stops lanes and asks them
/// once more. Every piece of text has its lane and its try in it.
#[derive(Clone, Debug)]
enum Turn {
    Text(usize),
    Fail(usize),
    End(usize),
    Again(usize),
}

fn turns(lanes: usize) -> impl Strategy<Value = Vec<Turn>> {
    let lane = 0..lanes;
    let turn = prop_oneof![
        6 => lane.clone().prop_map(Turn::Text),
        1 => lane.clone().prop_map(Turn::Fail),
        1 => lane.clone().prop_map(Turn::End),
        1 => lane.prop_map(Turn::Again),
    ];
    prop::collection::vec(turn, 0..60)
}

/// What the lanes really said, as the engine would tell it.
struct Lanes {
    tries: Vec<usize>,
    said: Vec<String>,
    over: Vec<bool>,
}

impl Lanes {
    fn new(count: usize) -> Self {
        Self { tries: vec![0; count], said: vec![String::new(); count], over: vec![false; count] }
    }

    /// The events of one turn.
    fn take(&mut self, turn: &Turn) -> Vec<(usize, EventKind)> {
        let (Turn::Text(lane) | Turn::Fail(lane) | Turn::End(lane) | Turn::Again(lane)) = *turn;
        let target = Arc::new(testing::target(LANES[lane]));
        let end = |result| told(LANES[lane], &[], result).pop().expect("an end");
        match turn {
            Turn::Again(_) => {
                let stopped = (!self.over[lane]).then(|| end(Err(ErrorClass::Local)));
                self.tries[lane] += 1;
                self.said[lane].clear();
                self.over[lane] = false;
                let again = [EventKind::Again, EventKind::Started(target)];
                stopped.into_iter().chain(again).map(|kind| (lane, kind)).collect()
            }
            _ if self.over[lane] => Vec::new(),
            Turn::Text(_) => {
                let piece = format!("lane{lane}try{} 借用 ", self.tries[lane]);
                self.said[lane].push_str(&piece);
                vec![(lane, EventKind::Deltas(vec![delta(&piece)].into()))]
            }
            Turn::Fail(_) => {
                self.tries[lane] += 1;
                self.said[lane].clear();
                let error = Some(ApiError::new(ErrorClass::Server, "no"));
                let sent = AttemptRecord::new(Arc::clone(&target), jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
                let next = Next::Restart(TargetId("other".into()));
                let failed = EventKind::Failed { record: AttemptRecord { error, ..sent }, next };
                vec![(lane, failed), (lane, EventKind::Started(target))]
            }
            Turn::End(_) => {
                self.over[lane] = true;
                vec![(lane, end(Ok(FinishReason::Stop)))]
            }
        }
    }
}

proptest! {
    /// Whatever happens in whatever order, on whatever screen: rows fit, separators stand in their columns, and no lane's
    /// text is ever under another's name, nor that of a try that is over.
    #[test]
    fn no_text_is_ever_under_another_name(
        turns in turns(5),
        width in prop::sample::select(vec![20usize, 40, 80, 120, 200]),
        height in 5usize..50,
        keys in "[1-5zp <>]{0,6}",
        styled in any::<bool>(),
    ) {
        let mut view = view(&LANES, width, styled);
        let mut lanes = Lanes::new(LANES.len());
        let mut keys = keys.chars();
        for turn in &turns {
            for (lane, kind) in lanes.take(turn) {
                tell(&mut view, lane, &[kind]);
            }
            if let Some(key) = keys.next() {
                view.key(Key::Char(key));
            }
            let rows = view.rows(width, height, Instant::now());
            prop_assert!(rows.len() <= height.saturating_sub(2).max(1));
            let shown = shown(&rows, width);
            for row in shown.iter().filter(|row| !row.is_empty()) {
                prop_assert!(!row.contains('\u{fffd}'), "{row:?}");
            }
            if !view.is_held() {
                check_owners(&view, &lanes, &shown)?;
            }
        }
        for (lane, said) in view.lanes.iter().zip(&lanes.said) {
            prop_assert_eq!(lane.text(), sanitised(said));
        }
    }

    #[test]
    fn hostile_text_moves_nothing(
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
        let said = match kind {
            0 => DeltaKind::Text(text.clone()),
            1 => DeltaKind::Reasoning(text.clone()),
            _ => DeltaKind::Refusal(text.clone()),
        };
        let deltas = |kind| EventKind::Deltas(vec![Delta { choice: 0, kind }].into());
        let mut kinds = told(&name, &[], Ok(FinishReason::Stop));
        // Text takes the place of a refusal that was shown.
        kinds.splice(1..1, [deltas(said), deltas(DeltaKind::Text("借".into()))]);
        for kind in kinds {
            tell(&mut view, 0, &[kind]);
            let rows = view.rows(width, height, Instant::now());
            for row in &rows {
                for sequence in row.split('\u{1b}').skip(1) {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
                    prop_assert!(sequence.starts_with('[') && matches!(&sequence[end..=end], "m" | "G"), "{sequence:?}");
                }
                prop_assert!(!row.contains(['\n', '\r', '\t', '\0']), "{row:?}");
            }
            shown(&rows, width);
        }
    }
}

/// Every word on the screen is of the lane in whose column it stands, and of its last try.
fn check_owners(view: &CompareView, lanes: &Lanes, rows: &[String]) -> Result<(), TestCaseError> {
    let rule = |row: &String| row.starts_with("---");
    if view.live.is_zoomed() || !rows.iter().any(rule) {
        return Ok(());
    }
    let mut first = 0;
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
            for lane in 0..columns {
                let from = 1 + lane * (column + 3);
                if lane > 0 && row.width() >= from {
                    prop_assert!(cells.contains(&(from - 2, '|')), "no separator at {from} in {row:?}");
                }
                let text: String =
                    cells.iter().filter(|(at, _)| (from..from + column).contains(at)).map(|(_, c)| *c).collect();
                for word in text.split_whitespace().filter(|word| word.starts_with("lane")) {
                    let wanted = format!("lane{}try{}", first + lane, lanes.tries[first + lane]);
                    prop_assert!(
                        wanted.starts_with(word) || word.starts_with(&wanted),
                        "{word} in lane {}",
                        first + lane
                    );
                }
            }
        }
        first += columns;
    }
    Ok(())
}
