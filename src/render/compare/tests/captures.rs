//! What the screen looks like, as pictures of text in `tests/fixtures/captures/`: a person can look at them, and a change of them
//! is seen. `MMCHAT_BLESS=1 cargo test captures` makes them anew.

use std::{fmt::Write as _, fs, path::Path};

use super::*;
use crate::model::target::{Price, Target};

const SIZES: [(usize, usize); 3] = [(80, 24), (120, 40), (200, 50)];
const ENGLISH: &str = "# Borrowing\n\nRust's **borrow checker** enforces three rules at compile time:\n\n1. one owner for each value\n\
    2. many readers *or* one writer\n3. no reference outlives what it refers to\n\n```rust\nlet r = &x;\n```\n";
const CHINESE: &str = "借用检查器在编译期运行。它记录谁拥有一个值，并且拒绝悬垂引用，所以程序不会在运行时崩溃。\n\n\
    | 规则 | 例子 |\n|---|:-:|\n| 所有权 | `move` |\n| 借用 | `&x` |\n\n- 第一，每个值有一个所有者\n- 第二，读者可以很多 👩‍👩‍👧\n";

/// A run whose clock is this file's.
struct Scene {
    view: CompareView,
    begun: Instant,
    out: Output,
}

impl Scene {
    fn new(names: &[&str], width: Option<usize>) -> Self {
        let mut settings = settings(Format::Text, View::Auto, width);
        (settings.rendered, settings.look.styled) = (width.is_some(), width.is_some());
        Self::with(names, settings)
    }

    fn with(names: &[&str], settings: Settings) -> Self {
        let begun = Instant::now();
        let view = CompareView::new(settings, names.iter().copied(), begun).with_keys();
        Self { view, begun, out: Output::default() }
    }

    fn at(&mut self, ms: u64, lane: usize, kind: EventKind) {
        let at = self.begun + Duration::from_millis(ms);
        self.view.event(&Event { lane, at, kind }, &mut self.out);
    }

    fn asks(&mut self, lane: usize, name: &str) -> Arc<Target> {
        let price = Price { input: 1.0, output: 8.0, cached_input: None, currency: "USD".into() };
        let target = Arc::new(Target { price: Some(price), ..testing::target(name) });
        self.at(1, lane, EventKind::Started(Arc::clone(&target)));
        target
    }

    /// A lane that says this, all of it after 200 ms and more; whole after two seconds, if it is.
    fn says(&mut self, lane: usize, name: &str, text: &str, end: Option<Result<FinishReason, ErrorClass>>) {
        let target = self.asks(lane, name);
        if !text.is_empty() {
            self.at(212, lane, EventKind::Deltas(vec![delta(&text[..text.ceil_char_boundary(1)])].into()));
            self.at(212, lane, EventKind::Ttft(Duration::from_millis(211)));
            self.at(1900, lane, EventKind::Deltas(vec![delta(&text[text.ceil_char_boundary(1)..])].into()));
        }
        let Some(end) = end else { return };
        let mut outcome = told(name, if text.is_empty() { &[] } else { &["x"] }, end).pop().expect("an end");
        if let EventKind::Finished(outcome) = &mut outcome {
            outcome.target = Some(target);
        }
        self.at(2001, lane, outcome);
    }

    fn three(width: Option<usize>) -> Self {
        let mut scene = Self::new(&["fast", "big", "通义"], width);
        scene.says(0, "fast", ENGLISH, None);
        scene.asks(1, "big");
        scene.says(2, "通义", CHINESE, Some(Ok(FinishReason::Stop)));
        scene
    }

    fn failed(width: Option<usize>) -> Self {
        Self::new(&["fast", "big", "通义"], width).with_a_failure()
    }

    /// The same with `--plain`: nothing is drawn, nothing has a style.
    fn plain(width: usize) -> Self {
        let settings = Settings { drawn: false, ..settings(Format::Text, View::Auto, Some(width)) };
        Self::with(&["fast", "big", "通义"], settings).with_a_failure()
    }

    fn with_a_failure(self) -> Self {
        let mut scene = self;
        scene.says(0, "fast", ENGLISH, Some(Ok(FinishReason::Length)));
        scene.says(1, "big", "", Some(Err(ErrorClass::Rate)));
        scene.says(2, "通义", CHINESE, Some(Ok(FinishReason::Stop)));
        scene
    }

    fn twelve(width: Option<usize>) -> Self {
        let names: Vec<String> = (1..=12).map(|n| format!("model-{n}")).collect();
        let mut scene = Self::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), width);
        for (lane, name) in names.iter().enumerate() {
            match lane {
                3 => scene.says(lane, name, "", Some(Err(ErrorClass::Rate))),
                7 => drop(scene.asks(lane, name)),
                _ => scene.says(lane, name, if lane % 2 == 0 { ENGLISH } else { CHINESE }, None),
            }
        }
        scene
    }

    /// The live region on a terminal of this size.
    fn live(mut self, (width, height): (usize, usize)) -> String {
        let rows = self.view.rows(width, height, self.begun + Duration::from_millis(2400));
        let mut terminal = vt100::Parser::new(cells(height), cells(width), 0);
        terminal.process(rows.join("\r\n").as_bytes());
        let rows = terminal.screen().rows(0, cells(width).get());
        rows.fold(String::new(), |text, row| text + row.trim_end() + "\n").trim_end().to_owned() + "\n"
    }

    /// What is left in the scrollback, or reached the two streams.
    fn end(mut self, piped: bool) -> String {
        self.view.end(&mut self.out);
        let (out, err) = streams(self.out);
        if piped {
            return format!("{out}----- stderr\n{err}");
        }
        let shown = format!("{out}{err}{}", self.view.kept(12, &[Some(1), Some(2), Some(3)]));
        // Styles would spoil the picture; where there are none, nothing is to be taken out.
        if self.view.settings.look.styled { sanitised(&shown) } else { shown }
    }
}

fn cells(count: usize) -> std::num::NonZero<u16> {
    std::num::NonZero::new(u16::try_from(count).expect("few")).expect("some")
}

/// Every picture by its name.
fn captures() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for size @ (width, height) in SIZES {
        let mut add = |name: &str, text: String| all.push((format!("{name}-{width}x{height}"), text));
        add("live", Scene::three(Some(width)).live(size));
        add("failed", Scene::failed(Some(width)).live(size));
        add("twelve", Scene::twelve(Some(width)).live(size));
        let mut zoomed = Scene::three(Some(width));
        for key in "3z".chars() {
            zoomed.view.key(Key::Char(key));
        }
        add("zoom", zoomed.live(size));
        add("final", Scene::failed(Some(width)).end(false));
        add("plain", Scene::plain(width).end(false));
    }
    all.push(("piped".into(), Scene::failed(None).end(true)));
    all
}

#[test]
fn the_screen_looks_as_it_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    let bless = std::env::var_os("MMCHAT_BLESS").is_some();
    let mut changed = String::new();
    for (name, text) in captures() {
        let path = folder.join(format!("{name}.txt"));
        if bless {
            fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &text)).expect("writable");
        }
        let known = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        if known != text {
            let _ = writeln!(changed, "{name} is now:\n{text}");
        }
    }
    assert!(changed.is_empty(), "{changed}");
}

#[test]
fn what_can_be_done_next_is_wrapped_between_words() {
    let mut scene = Scene::failed(Some(20));
    scene.view.end(&mut scene.out);
    let text = scene.view.kept(162, &[Some(1), Some(2), Some(3)]);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["run 162    one", "answer: mmchat", "history show @1", "go on with it:", "mmchat pick @1"]
    );
}
