//! Compares the screen of several runs with the text files in `tests/fixtures/captures/`.
//!
//! `MMCHAT_BLESS=1 cargo test captures` rewrites the files.

use std::{fmt::Write as _, fs, path::Path};

use super::*;
use crate::model::target::{Price, Target};

const SIZES: [(usize, usize); 3] = [(80, 24), (120, 40), (200, 50)];
const ENGLISH: &str = "# Borrowing\n\nRust's **borrow checker** enforces three rules at compile time:\n\n1. one owner for each value\n\
    2. many readers *or* one writer\n3. no reference outlives what it refers to\n\n```rust\nlet r = &x;\n```\n";
const CHINESE: &str = "借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用，所以程序不会在运行时崩溃。\n\n\
    | 规则 | 例子 |\n|---|:-:|\n| 所有权 | `move` |\n| 借用 | `&x` |\n\n- 第一，每个值有一个所有者\n- 第二，读者可以很多 👩‍👩‍👧\n";

/// A run with a simulated clock.
struct TestRun {
    view: CompareView,
    started_at: Instant,
    out: Output,
}

impl TestRun {
    fn new(names: &[&str], width: Option<usize>) -> Self {
        let mut settings = settings(Format::Text, View::Auto, width);
        (settings.render_markdown, settings.terminal.styled) = (width.is_some(), width.is_some());
        Self::with_settings(names, settings)
    }

    fn with_settings(names: &[&str], settings: CompareSettings) -> Self {
        let started_at = Instant::now();
        let view = CompareView::new(settings, names.iter().copied(), started_at).with_keys();
        Self { view, started_at, out: Output::default() }
    }

    fn send(&mut self, ms: u64, index: usize, kind: EventKind) {
        let at = self.started_at + Duration::from_millis(ms);
        self.view.on_event(&Event { call: index, at, kind }, &mut self.out);
    }

    fn start(&mut self, index: usize, name: &str) -> Arc<Target> {
        let price = Price { input: 1.0, output: 8.0, cached_input: None, currency: "USD".into() };
        let target = Arc::new(Target { price: Some(price), ..testing::target(name) });
        self.send(1, index, EventKind::Started(Arc::clone(&target)));
        target
    }

    /// A call that outputs `text` between 200 ms and 2 s, and ends after 2 s if `end` is given.
    fn answer(&mut self, index: usize, name: &str, text: &str, end: Option<Result<FinishReason, ErrorClass>>) {
        let target = self.start(index, name);
        if !text.is_empty() {
            self.send(212, index, EventKind::Deltas(vec![delta(&text[..text.ceil_char_boundary(1)])].into()));
            self.send(212, index, EventKind::FirstToken(Duration::from_millis(211)));
            self.send(1900, index, EventKind::Deltas(vec![delta(&text[text.ceil_char_boundary(1)..])].into()));
        }
        let Some(end) = end else { return };
        let mut kinds = events(name, if text.is_empty() { &[] } else { std::slice::from_ref(&text) }, end);
        change_record(&mut kinds, |record| {
            let attempt = AttemptRecord::new(Arc::clone(&target), jiff::Timestamp::UNIX_EPOCH, Duration::ZERO);
            record.attempts = vec![AttemptRecord { usage: record.usage, ..attempt }];
            record.target = Some(target);
        });
        self.send(2001, index, kinds.pop().expect("the last event"));
    }

    fn three(width: Option<usize>) -> Self {
        let mut test_run = Self::new(&["fast", "big", "通义"], width);
        test_run.answer(0, "fast", ENGLISH, None);
        test_run.start(1, "big");
        test_run.answer(2, "通义", CHINESE, Some(Ok(FinishReason::Stop)));
        test_run
    }

    fn failed(width: Option<usize>) -> Self {
        Self::new(&["fast", "big", "通义"], width).with_failure()
    }

    /// The same with `--plain`: no live region, no styles.
    fn plain(width: usize) -> Self {
        let settings = CompareSettings { has_live_region: false, ..settings(Format::Text, View::Auto, Some(width)) };
        Self::with_settings(&["fast", "big", "通义"], settings).with_failure()
    }

    fn with_failure(self) -> Self {
        let mut test_run = self;
        test_run.answer(0, "fast", ENGLISH, Some(Ok(FinishReason::Length)));
        test_run.answer(1, "big", "", Some(Err(ErrorClass::Rate)));
        test_run.answer(2, "通义", CHINESE, Some(Ok(FinishReason::Stop)));
        test_run
    }

    fn twelve(width: Option<usize>) -> Self {
        let names: Vec<String> = (1..=12).map(|n| format!("model-{n}")).collect();
        let mut test_run = Self::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), width);
        for (index, name) in names.iter().enumerate() {
            match index {
                3 => test_run.answer(index, name, "", Some(Err(ErrorClass::Rate))),
                7 => drop(test_run.start(index, name)),
                _ => test_run.answer(index, name, if index % 2 == 0 { ENGLISH } else { CHINESE }, None),
            }
        }
        test_run
    }

    /// The live region on a terminal of this size.
    fn live(mut self, (width, height): (usize, usize)) -> String {
        let rows = self.view.live_rows(width, height, self.started_at + Duration::from_millis(2400));
        let mut terminal = vt100::Parser::new(cells(height), cells(width), 0);
        terminal.process(rows.join("\r\n").as_bytes());
        let rows = terminal.screen().rows(0, cells(width).get());
        rows.fold(String::new(), |text, row| text + row.trim_end() + "\n").trim_end().to_owned() + "\n"
    }

    /// The final view on a terminal, or the two streams of a pipe.
    fn finish(mut self, piped: bool) -> String {
        self.view.finish(&mut self.out);
        let (out, err) = streams(self.out);
        if piped {
            return format!("{out}----- stderr\n{err}");
        }
        let shown = format!("{out}{err}{}", self.view.record_hint(12, &[Some(1), Some(2), Some(3)]));
        // Only styles may be removed: without styles the output must be free of control sequences.
        if self.view.settings.terminal.styled { sanitize(&shown) } else { shown }
    }
}

fn cells(count: usize) -> std::num::NonZero<u16> {
    std::num::NonZero::new(u16::try_from(count).expect("fits u16")).expect("not zero")
}

/// All captures with their names.
fn captures() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for size @ (width, height) in SIZES {
        let mut add = |name: &str, text: String| all.push((format!("{name}-{width}x{height}"), text));
        add("live", TestRun::three(Some(width)).live(size));
        add("failed", TestRun::failed(Some(width)).live(size));
        add("twelve", TestRun::twelve(Some(width)).live(size));
        let mut zoomed = TestRun::three(Some(width));
        for key in "3z".chars() {
            zoomed.view.on_key(Key::Char(key));
        }
        add("zoom", zoomed.live(size));
        add("final", TestRun::failed(Some(width)).finish(false));
        add("plain", TestRun::plain(width).finish(false));
    }
    all.push(("piped".into(), TestRun::failed(None).finish(true)));
    all
}

#[test]
fn screens_match_the_stored_captures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    let bless = std::env::var_os("MMCHAT_BLESS").is_some();
    let mut changed = String::new();
    for (name, text) in captures() {
        let path = folder.join(format!("{name}.txt"));
        if bless {
            fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &text)).expect("the folder is writable");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        if expected != text {
            let _ = writeln!(changed, "{name} is now:\n{text}");
        }
    }
    assert!(changed.is_empty(), "{changed}");
}

#[test]
fn record_hint_is_wrapped_between_words() {
    let mut test_run = TestRun::failed(Some(20));
    test_run.view.finish(&mut test_run.out);
    let text = test_run.view.record_hint(162, &[Some(1), Some(2), Some(3)]);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["conversation 162", "show: mmchat", "history show @1", "continue: mmchat", "pick @1"]
    );
}
