//! One answer as the rows of a column, while it comes.
//!
//! Owns that a drawing costs what is new since the last one, and never more than a screen or two can show, however long the
//! answer is: where there is more, rows begin near its end, inside the fence of code that is open there. Rows are append-only
//! and stand alone: a style that goes on is begun again on each. The last grapheme of an open stream is held back, since the
//! next character may join it. Refuses to know where the rows are put.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use crate::{model::sanitize::Sanitiser, render::markdown::Markdown};

/// More new text than this is not all laid out: nobody can read what would be gone with the next drawing.
const AT_ONCE: usize = 32 * 1024;
/// So much of the end is.
const TAIL: usize = 16 * 1024;
/// As many rows as the tallest screen shows.
const ROWS: usize = 300;
const RESET: &str = "\u{1b}[0m";

/// The rows of one answer, in so many cells.
#[derive(Debug)]
pub(super) struct Column {
    cells: usize,
    is_plain: bool,
    /// Which text it is: another try begins another.
    generation: u32,
    /// Bytes of the text that were taken.
    taken: usize,
    sanitiser: Sanitiser,
    /// Sanitised, and not laid out yet: the last grapheme.
    held: String,
    markdown: Markdown,
    rows: Rows,
    /// Rows were left out, so that nobody knows how many there are.
    skipped: bool,
    is_over: bool,
    /// The first rows, once somebody wanted them.
    head: Option<Vec<String>>,
    fences: Fences,
}

/// Fences of code in a text, looked for once however often it is skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Fences {
    /// Bytes that were looked at, up to a line's end.
    seen: usize,
    open: Option<(char, usize)>,
}

/// Rows in the making.
#[derive(Debug, Default)]
struct Rows {
    last: VecDeque<String>,
    /// Rows that are whole, those that are not kept included.
    count: usize,
    open: String,
    /// The codes in force at its end.
    style: String,
}

/// The text of a lane, for its column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// As it came.
    pub(super) text: &'a str,
    /// Which try it is of.
    pub(super) generation: u32,
    /// Nothing more comes.
    pub(super) is_over: bool,
}

impl Column {
    pub(super) fn new(cells: usize, is_plain: bool) -> Self {
        Self {
            cells,
            is_plain,
            generation: 0,
            taken: 0,
            sanitiser: Sanitiser::default(),
            held: String::new(),
            markdown: Markdown::column(cells, is_plain),
            rows: Rows::default(),
            skipped: false,
            is_over: false,
            head: None,
            fences: Fences::default(),
        }
    }

    /// Whether it is for these cells.
    pub(super) fn suits(&self, cells: usize, is_plain: bool) -> bool {
        self.cells == cells && self.is_plain == is_plain
    }

    /// Takes what is new.
    pub(super) fn follow(&mut self, source: Source<'_>) {
        if self.generation != source.generation || self.taken > source.text.len() || (self.is_over && !source.is_over) {
            *self = Self { generation: source.generation, ..Self::new(self.cells, self.is_plain) };
        }
        if self.is_over {
            return;
        }
        if source.text.len() - self.taken > AT_ONCE {
            self.skip_to_the_end(source.text);
        }
        // A text that is another one after all has no such place.
        let Some(new) = source.text.get(self.taken..) else { return };
        self.push(new, source.is_over);
        self.taken = source.text.len();
    }

    /// Begins anew where the last rows can be had from.
    fn skip_to_the_end(&mut self, text: &str) {
        let from = text.floor_char_boundary(text.len() - TAIL);
        // A line's start, if one is near.
        let near = &text[from..text.floor_char_boundary(from + TAIL / 4)];
        let from = near.find('\n').map_or(from, |end| from + end + 1);
        let mut markdown = Markdown::column(self.cells, self.is_plain);
        let mut fences = std::mem::take(&mut self.fences);
        markdown.inside(fences.look_up_to(text, from));
        let new = Self::new(self.cells, self.is_plain);
        *self = Self { generation: self.generation, taken: from, markdown, fences, skipped: true, ..new };
    }

    fn push(&mut self, text: &str, is_over: bool) {
        let mut new = std::mem::take(&mut self.held);
        self.sanitiser.push(text, &mut new);
        let whole = if is_over { new.len() } else { new.grapheme_indices(true).next_back().map_or(0, |(at, _)| at) };
        let mut out = String::new();
        self.markdown.push(&new[..whole], &mut out);
        self.held = new[whole..].to_owned();
        if is_over {
            self.markdown.finish(&mut out);
            self.is_over = true;
        }
        self.rows.add(&out);
    }

    /// The last `most` rows, and how many there are before them, if that is known.
    pub(super) fn tail(&self, most: usize) -> (Vec<String>, Option<usize>) {
        let open = Some(self.rows.closed_open()).filter(|row| !row.is_empty());
        let (kept, count) = (self.rows.last.len(), self.rows.count + usize::from(open.is_some()));
        let skipped = (kept + usize::from(open.is_some())).saturating_sub(most);
        let rows: Vec<String> = self.rows.last.iter().skip(skipped).cloned().chain(open.filter(|_| most > 0)).collect();
        let before = count - rows.len();
        (rows, (!self.skipped).then_some(before))
    }

    /// The first `most` rows of a text that is over, and how many there are after them, if that is known.
    pub(super) fn head(&mut self, source: Source<'_>, most: usize) -> (Vec<String>, Option<usize>) {
        if self.head.is_none() {
            let (mut markdown, mut out, mut rows) =
                (Markdown::column(self.cells, self.is_plain), String::new(), Rows::default());
            let (mut sanitiser, mut text) = (Sanitiser::default(), String::new());
            sanitiser.push(&source.text[..source.text.floor_char_boundary(AT_ONCE)], &mut text);
            markdown.push(&text, &mut out);
            markdown.finish(&mut out);
            rows.first(&out);
            self.head = Some(rows.last.into());
        }
        let rows: Vec<String> = self.head.iter().flatten().take(most).cloned().collect();
        let after = self.rows.count.saturating_sub(rows.len());
        (rows, (!self.skipped).then_some(after))
    }

    /// Rows there are.
    pub(super) fn count(&self) -> usize {
        self.rows.count + usize::from(!self.rows.open.is_empty())
    }
}

impl Rows {
    fn add(&mut self, text: &str) {
        self.each(text, |rows, row| {
            rows.push_back(row);
            if rows.len() > ROWS {
                rows.pop_front();
            }
        });
    }

    /// As `add`, but those that are kept are the first.
    fn first(&mut self, text: &str) {
        self.each(text, |rows, row| {
            if rows.len() < ROWS {
                rows.push_back(row);
            }
        });
    }

    fn each(&mut self, text: &str, keep: impl Fn(&mut VecDeque<String>, String)) {
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n');
            let piece = line.unwrap_or(part);
            self.open.push_str(piece);
            in_force(&mut self.style, piece);
            if line.is_some() {
                let row = self.closed_open();
                keep(&mut self.last, row);
                self.count += 1;
                self.open = self.style.clone();
            }
        }
    }

    /// The open row, as it can stand alone.
    fn closed_open(&self) -> String {
        // A style alone is nothing to see.
        if self.open == self.style {
            return String::new();
        }
        let end = if self.style.is_empty() { "" } else { RESET };
        format!("{}{end}", self.open)
    }
}

/// Keeps up `style`, the codes in force, over `text`.
fn in_force(style: &mut String, text: &str) {
    for part in text.split('\u{1b}').skip(1) {
        let end = part.find('m').map_or(part.len(), |end| end + 1);
        match &part[..end] {
            "[0m" => style.clear(),
            code => style.extend(["\u{1b}", code]),
        }
    }
}

impl Fences {
    /// The fence that is open at `end` of `text`, of which what was seen is the start.
    fn look_up_to(&mut self, text: &str, end: usize) -> Option<(char, usize)> {
        for line in text[self.seen.min(end)..end].split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.seen += line.len();
            let body = line.trim_start_matches(' ').trim_end();
            let Some(mark) = body.chars().next().filter(|mark| matches!(mark, '`' | '~')) else { continue };
            let run = body.chars().take_while(|c| *c == mark).count();
            match self.open {
                None if run >= 3 => self.open = Some((mark, run)),
                Some((known, length)) if known == mark && run >= length && body.len() == run => self.open = None,
                _ => {}
            }
        }
        self.open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::sanitize::sanitised;

    fn source(text: &str, is_over: bool) -> Source<'_> {
        Source { text, generation: 1, is_over }
    }

    fn rows(text: &str, cells: usize) -> Vec<String> {
        let mut column = Column::new(cells, false);
        column.follow(source(text, true));
        column.tail(ROWS).0
    }

    #[test]
    fn a_style_goes_on_over_rows_that_stand_alone() {
        let rows = rows("**one two three four** five", 10);
        assert_eq!(sanitised(&rows.join("\n")), "one two\nthree four\nfive");
        assert!(rows[..2].iter().all(|row| row.contains("\u{1b}[1m") && row.ends_with(RESET)), "{rows:?}");
        assert!(rows[2].ends_with("\u{1b}[0mfive"), "{rows:?}");
    }

    #[test]
    fn the_last_grapheme_waits_for_what_may_join_it() {
        let mut column = Column::new(20, false);
        column.follow(source("ab👨", false));
        assert_eq!(column.tail(9).0, ["ab"]);
        column.follow(source("ab👨\u{200d}👩", false));
        column.follow(source("ab👨\u{200d}👩c", false));
        assert_eq!(column.tail(9).0, ["ab👨\u{200d}👩"]);
        column.follow(source("ab👨\u{200d}👩c", true));
        assert_eq!(column.tail(9).0, ["ab👨\u{200d}👩c"]);
    }

    #[test]
    fn a_long_text_is_laid_out_from_near_its_end_inside_its_code() {
        let text = format!("```\n{}", "let x = \"*a*\";\n".repeat(100_000));
        let mut column = Column::new(30, false);
        column.follow(source(&text, false));
        let (rows, before) = column.tail(2);
        assert_eq!((rows, before), (vec!["let x = \"*a*\";".to_owned(); 2], None), "marks in code mean themselves");
        for joined in ["👨\u{200d}👩\u{200d}👧", "借", "é\u{301}", "\t"] {
            let mut column = Column::new(30, false);
            // Cut at every place where a character may be in two.
            for length in [40_000, 40_001, 40_002, 40_003, 90_000] {
                let text = joined.repeat(length / joined.len() + 1) + &"x".repeat(length % 7);
                column.follow(source(&text, false));
                assert!(column.tail(5).0.iter().all(|row| sanitised(row).width() <= 30));
            }
        }
        let line = "x".repeat(10_000_000);
        column.follow(Source { text: &line, generation: 2, is_over: true });
        assert_eq!(column.tail(1).0.len(), 1);
        assert_eq!(column.head(Source { text: &line, generation: 2, is_over: true }, 1).0, ["x".repeat(30)]);
    }

    #[test]
    fn another_try_begins_with_nothing() {
        let mut column = Column::new(20, false);
        column.follow(source("the first", true));
        column.follow(Source { text: "a", generation: 2, is_over: false });
        column.follow(Source { text: "a second", generation: 2, is_over: true });
        assert_eq!(column.tail(9), (vec!["a second".to_owned()], Some(0)));
    }

    proptest! {
        #[test]
        fn rows_fit_and_are_the_same_however_the_text_came(
            text in "([a-z]{1,14}|[借用检查器。，]{1,8}|[*_`#>|-]{1,4}|👋|👨‍👩‍👧|e\u{301}|\\t|\u{1b}\\[31m| |\n|1\\. ){0,60}",
            cells in 8usize..80,
            cuts in prop::collection::vec(0usize..400, 0..12),
        ) {
            let mut column = Column::new(cells, false);
            let mut shown = 0;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| text.floor_char_boundary(cut.min(text.len()))).collect();
            cuts.sort_unstable();
            for cut in cuts {
                column.follow(source(&text[..cut], false));
                prop_assert!(column.count() >= shown, "rows are only ever added");
                shown = column.count();
                for row in column.tail(ROWS).0 {
                    prop_assert!(sanitised(&row).width() <= cells, "{row:?} in {cells}");
                }
            }
            column.follow(source(&text, true));
            // A quote's mark stands on each of its rows.
            let bare = |text: &str| sanitised(text).replace('│', "").split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&column.tail(ROWS).0.concat()), bare(&rows(&text, cells).concat()));
        }
    }
}
