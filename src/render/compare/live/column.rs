//! Lays out one streaming answer as the rows of a column.
//!
//! Each update processes only the new text. If that is more than 32 KiB, only its last 16 KiB are laid out, in the
//! state of the code fence at that position. Rows are append-only and self-contained: a style that continues is started
//! again on each row. The last grapheme of a running stream is held back, since the next character may join it.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use crate::{
    model::sanitize::Sanitizer,
    render::{RESET, markdown::MarkdownRenderer},
};

/// Maximum bytes of new text to lay out in one update; more could not be read before the next update.
const MAX_NEW_BYTES: usize = 32 * 1024;
/// Bytes at the end that are laid out if there are more.
const TAIL_BYTES: usize = 16 * 1024;
/// Maximum rows kept: no screen shows more.
const MAX_ROWS: usize = 300;

/// The rows of one answer.
#[derive(Debug)]
pub(super) struct Column {
    width: usize,
    is_plain: bool,
    /// The generation of the text; a new one starts over.
    generation: u32,
    /// Bytes of the text already processed.
    processed: usize,
    sanitizer: Sanitizer,
    /// The last grapheme: sanitized, but not laid out yet.
    pending: String,
    markdown: MarkdownRenderer,
    rows: Rows,
    /// Text was skipped, so that the number of rows is unknown.
    has_skipped: bool,
    has_ended: bool,
    /// The first rows; computed on first use.
    first_rows: Option<Vec<String>>,
    fences: Fences,
}

/// Code fences in a text. Each line is scanned only once, however often text is skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Fences {
    /// Bytes scanned, up to a line end.
    scanned: usize,
    open: Option<(char, usize)>,
}

/// A sequence of rows under construction.
#[derive(Debug, Default)]
struct Rows {
    stored: VecDeque<String>,
    /// Number of complete rows, including those no longer kept.
    count: usize,
    open_row: String,
    /// Style codes that are active at the end of the open row.
    active_style: String,
}

/// The text of a call, for its column.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnSource<'a> {
    /// As received.
    pub(super) text: &'a str,
    /// Its generation.
    pub(super) generation: u32,
    /// The call has ended.
    pub(super) has_ended: bool,
}

impl Column {
    pub(super) fn new(width: usize, is_plain: bool) -> Self {
        Self {
            width,
            is_plain,
            generation: 0,
            processed: 0,
            sanitizer: Sanitizer::default(),
            pending: String::new(),
            markdown: MarkdownRenderer::for_column(width, is_plain),
            rows: Rows::default(),
            has_skipped: false,
            has_ended: false,
            first_rows: None,
            fences: Fences::default(),
        }
    }

    /// Whether it has this width and mode.
    pub(super) fn matches(&self, width: usize, is_plain: bool) -> bool {
        self.width == width && self.is_plain == is_plain
    }

    /// Processes the new text of `source`.
    pub(super) fn update(&mut self, source: ColumnSource<'_>) {
        if self.generation != source.generation
            || self.processed > source.text.len()
            || (self.has_ended && !source.has_ended)
        {
            *self = Self { generation: source.generation, ..Self::new(self.width, self.is_plain) };
        }
        if self.has_ended {
            return;
        }
        if source.text.len() - self.processed > MAX_NEW_BYTES {
            self.skip_to_tail(source.text);
        }
        // Fails if the text was replaced and `processed` is not a character boundary.
        let Some(new) = source.text.get(self.processed..) else { return };
        self.push(new, source.has_ended);
        self.processed = source.text.len();
    }

    /// Starts over near the end of the text.
    fn skip_to_tail(&mut self, text: &str) {
        let from = text.floor_char_boundary(text.len() - TAIL_BYTES);
        // Prefer the start of a line.
        let search_range = &text[from..text.floor_char_boundary(from + TAIL_BYTES / 4)];
        let from = search_range.find('\n').map_or(from, |end| from + end + 1);
        let mut markdown = MarkdownRenderer::for_column(self.width, self.is_plain);
        let mut fences = std::mem::take(&mut self.fences);
        markdown.set_fence(fences.scan_to(text, from));
        let empty = Self::new(self.width, self.is_plain);
        *self = Self { generation: self.generation, processed: from, markdown, fences, has_skipped: true, ..empty };
    }

    fn push(&mut self, text: &str, has_ended: bool) {
        let mut sanitized = std::mem::take(&mut self.pending);
        self.sanitizer.push(text, &mut sanitized);
        let end = if has_ended {
            sanitized.len()
        } else {
            sanitized.grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
        };
        let mut out = String::new();
        self.markdown.push(&sanitized[..end], &mut out);
        self.pending = sanitized[end..].to_owned();
        if has_ended {
            self.markdown.finish(&mut out);
            self.has_ended = true;
        }
        self.rows.append(&out);
    }

    /// The last `max` rows, and the number of rows before them, if known.
    pub(super) fn tail(&self, max: usize) -> (Vec<String>, Option<usize>) {
        let open_row = Some(self.rows.closed_open_row()).filter(|row| !row.is_empty());
        let (stored, count) = (self.rows.stored.len(), self.rows.count + usize::from(open_row.is_some()));
        let skip_count = (stored + usize::from(open_row.is_some())).saturating_sub(max);
        let rows: Vec<String> =
            self.rows.stored.iter().skip(skip_count).cloned().chain(open_row.filter(|_| max > 0)).collect();
        let rows_before = count - rows.len();
        (rows, (!self.has_skipped).then_some(rows_before))
    }

    /// The first `max` rows of a finished text, and the number of rows after them, if known.
    pub(super) fn head(&mut self, source: ColumnSource<'_>, max: usize) -> (Vec<String>, Option<usize>) {
        if self.first_rows.is_none() {
            let (mut markdown, mut out, mut rows) =
                (MarkdownRenderer::for_column(self.width, self.is_plain), String::new(), Rows::default());
            let (mut sanitizer, mut text) = (Sanitizer::default(), String::new());
            sanitizer.push(&source.text[..source.text.floor_char_boundary(MAX_NEW_BYTES)], &mut text);
            markdown.push(&text, &mut out);
            markdown.finish(&mut out);
            rows.append_keeping_first(&out);
            self.first_rows = Some(rows.stored.into());
        }
        let rows: Vec<String> = self.first_rows.iter().flatten().take(max).cloned().collect();
        let rows_after = self.rows.count.saturating_sub(rows.len());
        (rows, (!self.has_skipped).then_some(rows_after))
    }

    /// The number of rows, including the open one.
    pub(super) fn row_count(&self) -> usize {
        self.rows.count + usize::from(!self.rows.open_row.is_empty())
    }
}

impl Rows {
    fn append(&mut self, text: &str) {
        self.append_with(text, |rows, row| {
            rows.push_back(row);
            if rows.len() > MAX_ROWS {
                rows.pop_front();
            }
        });
    }

    /// Like `append`, but keeps the first rows instead of the last.
    fn append_keeping_first(&mut self, text: &str) {
        self.append_with(text, |rows, row| {
            if rows.len() < MAX_ROWS {
                rows.push_back(row);
            }
        });
    }

    fn append_with(&mut self, text: &str, keep: impl Fn(&mut VecDeque<String>, String)) {
        for part in text.split_inclusive('\n') {
            let line = part.strip_suffix('\n');
            let text = line.unwrap_or(part);
            self.open_row.push_str(text);
            update_active_style(&mut self.active_style, text);
            if line.is_some() {
                let row = self.closed_open_row();
                keep(&mut self.stored, row);
                self.count += 1;
                self.open_row = self.active_style.clone();
            }
        }
    }

    /// The open row with its styles closed.
    fn closed_open_row(&self) -> String {
        // Style codes without text.
        if self.open_row == self.active_style {
            return String::new();
        }
        let end = if self.active_style.is_empty() { "" } else { RESET };
        format!("{}{end}", self.open_row)
    }
}

/// Updates `style`, the active codes, with the codes in `text`.
fn update_active_style(style: &mut String, text: &str) {
    for part in text.split('\u{1b}').skip(1) {
        let end = part.find('m').map_or(part.len(), |end| end + 1);
        match &part[..end] {
            "[0m" => style.clear(),
            code => style.extend(["\u{1b}", code]),
        }
    }
}

impl Fences {
    /// The fence that is open at byte `end` of `text`, which must start with the text scanned so far.
    fn scan_to(&mut self, text: &str, end: usize) -> Option<(char, usize)> {
        for line in text[self.scanned.min(end)..end].split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.scanned += line.len();
            let body = line.trim_start_matches(' ').trim_end();
            let Some(mark) = body.chars().next().filter(|mark| matches!(mark, '`' | '~')) else { continue };
            let run = body.chars().take_while(|c| *c == mark).count();
            match self.open {
                None if run >= 3 => self.open = Some((mark, run)),
                Some((open, length)) if open == mark && run >= length && body.len() == run => self.open = None,
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
    use crate::model::sanitize::sanitize;

    fn source(text: &str, has_ended: bool) -> ColumnSource<'_> {
        ColumnSource { text, generation: 1, has_ended }
    }

    fn rows(text: &str, cells: usize) -> Vec<String> {
        let mut column = Column::new(cells, false);
        column.update(source(text, true));
        column.tail(MAX_ROWS).0
    }

    #[test]
    fn a_style_is_continued_on_each_row() {
        let rows = rows("**one two three four** five", 10);
        assert_eq!(sanitize(&rows.join("\n")), "one two\nthree four\nfive");
        assert!(rows[..2].iter().all(|row| row.contains("\u{1b}[1m") && row.ends_with(RESET)), "{rows:?}");
        assert!(rows[2].ends_with("\u{1b}[0mfive"), "{rows:?}");
    }

    #[test]
    fn last_grapheme_is_held_back_until_the_next_one() {
        let mut column = Column::new(20, false);
        column.update(source("ab👨", false));
        assert_eq!(column.tail(9).0, ["ab"]);
        column.update(source("ab👨\u{200d}👩", false));
        column.update(source("ab👨\u{200d}👩c", false));
        assert_eq!(column.tail(9).0, ["ab👨\u{200d}👩"]);
        column.update(source("ab👨\u{200d}👩c", true));
        assert_eq!(column.tail(9).0, ["ab👨\u{200d}👩c"]);
    }

    #[test]
    fn long_text_is_laid_out_near_its_end_inside_its_code_fence() {
        let text = format!("```\n{}", "let x = \"*a*\";\n".repeat(100_000));
        let mut column = Column::new(30, false);
        column.update(source(&text, false));
        let (rows, before) = column.tail(2);
        assert_eq!((rows, before), (vec!["let x = \"*a*\";".to_owned(); 2], None), "code is not rendered as Markdown");
        for joined in ["👨\u{200d}👩\u{200d}👧", "借", "é\u{301}", "\t"] {
            let mut column = Column::new(30, false);
            // Lengths that split a character at every byte.
            for length in [40_000, 40_001, 40_002, 40_003, 90_000] {
                let text = joined.repeat(length / joined.len() + 1) + &"x".repeat(length % 7);
                column.update(source(&text, false));
                assert!(column.tail(5).0.iter().all(|row| sanitize(row).width() <= 30));
            }
        }
        let line = "x".repeat(10_000_000);
        column.update(ColumnSource { text: &line, generation: 2, has_ended: true });
        assert_eq!(column.tail(1).0.len(), 1);
        assert_eq!(column.head(ColumnSource { text: &line, generation: 2, has_ended: true }, 1).0, ["x".repeat(30)]);
    }

    #[test]
    fn new_generation_starts_with_no_rows() {
        let mut column = Column::new(20, false);
        column.update(source("the first", true));
        column.update(ColumnSource { text: "a", generation: 2, has_ended: false });
        column.update(ColumnSource { text: "a second", generation: 2, has_ended: true });
        assert_eq!(column.tail(9), (vec!["a second".to_owned()], Some(0)));
    }

    proptest! {
        #[test]
        fn rows_fit_and_do_not_depend_on_how_the_text_was_split(
            text in "([a-z]{1,14}|[借用检查器。，]{1,8}|[*_`#>|-]{1,4}|👋|👨‍👩‍👧|e\u{301}|\\t|\u{1b}\\[31m| |\n|1\\. ){0,60}",
            cells in 8usize..80,
            cuts in prop::collection::vec(0usize..400, 0..12),
        ) {
            let mut column = Column::new(cells, false);
            let mut previous_count = 0;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| text.floor_char_boundary(cut.min(text.len()))).collect();
            cuts.sort_unstable();
            for cut in cuts {
                column.update(source(&text[..cut], false));
                prop_assert!(column.row_count() >= previous_count, "rows are append-only");
                previous_count = column.row_count();
                for row in column.tail(MAX_ROWS).0 {
                    prop_assert!(sanitize(&row).width() <= cells, "{row:?} in {cells}");
                }
            }
            column.update(source(&text, true));
            // The mark of a quote is repeated on each of its rows.
            let bare = |text: &str| sanitize(text).replace('│', "").split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&column.tail(MAX_ROWS).0.concat()), bare(&rows(&text, cells).concat()));
        }
    }
}
