//! Markdown on a terminal while it streams.
//!
//! Strictly append-only: nothing that was put out is ever moved, redrawn or asked about, so it works on any terminal
//! and in its scrollback. Text is put out with the read that brought it; only a mark whose meaning the next character
//! decides (`*`, a `#` at the start of a line) waits for that character, and so does the start of a word that may not
//! fit into the rest of its row, since a word that was put out cannot be taken to the next one.
//!
//! Owns headings, lists, quotes, rules, code and emphasis. Links stay as their source, and so do tables where text is to be
//! seen at once: laying one out needs its last row. Input is sanitised already; refuses to know colours beyond bold, dim,
//! italic and underline.

mod row;
mod table;
#[cfg(test)]
mod tests;

use row::{Row, Style};
use table::Table;
use unicode_segmentation::UnicodeSegmentation;

/// What a line is can be told from fewer bytes; one that goes on without telling is text.
const LONGEST_START: usize = 256;

/// What the open line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Block {
    /// Its first characters do not tell yet.
    #[default]
    Undecided,
    Paragraph,
    Heading,
    Quote,
    /// Source that is shown as it is: a table's row, a fence.
    Verbatim,
    /// A row of a table that is laid out when it is whole.
    Table,
}

/// Renders one answer.
#[derive(Debug)]
pub struct Markdown {
    row: Row,
    /// The cells of a rule.
    rule: usize,
    block: Block,
    /// Inside a fenced code block: the fence that closes it.
    fence: Option<(char, usize)>,
    /// Characters at the start of a line that do not tell yet what it is.
    start: String,
    /// A run of `*`, `_` or backticks whose meaning the next character decides.
    marks: String,
    escaped: bool,
    previous: char,
    /// Tables are laid out, in so many cells.
    tables: Option<usize>,
    /// The rows of an open one.
    table: Table,
    /// Nothing is marked up: every character means itself.
    is_plain: bool,
}

impl Markdown {
    /// For a terminal of `width` cells.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self {
            row: Row::new(width),
            rule: Row::new(width).width,
            block: Block::Undecided,
            fence: None,
            start: String::new(),
            marks: String::new(),
            escaped: false,
            previous: '\n',
            tables: None,
            table: Table::default(),
            is_plain: false,
        }
    }

    /// For rows that are made later of lines that were not wrapped, in so many cells: rules and tables take no more.
    #[must_use]
    pub fn unwrapped(cells: usize) -> Self {
        let mut markdown = Self::new(usize::MAX);
        markdown.rule = cells;
        markdown.tables = Some(cells);
        markdown
    }

    /// For a column of so many cells, which nothing is wider than. `is_plain`: marks mean themselves.
    #[must_use]
    pub fn column(cells: usize, is_plain: bool) -> Self {
        let mut markdown = Self::new(cells + 1);
        markdown.row.is_hard = true;
        markdown.is_plain = is_plain;
        markdown.tables = Some(markdown.row.width).filter(|_| !is_plain);
        markdown
    }

    /// Lays tables out that fit.
    #[must_use]
    pub fn with_tables(mut self) -> Self {
        self.tables = Some(self.row.width);
        self
    }

    /// Goes on inside this fence of code: what came before is not looked at.
    pub(super) fn inside(&mut self, fence: Option<(char, usize)>) {
        self.fence = fence;
    }

    /// Takes the next text and appends what can be shown to `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        for piece in text.graphemes(true) {
            self.grapheme(piece, out);
        }
        self.row.show_open_word(out);
    }

    /// The answer is over: what was held back is shown, styles end, and the line is closed.
    pub fn finish(&mut self, out: &mut String) {
        if self.block == Block::Undecided && !self.start.is_empty() {
            self.decide_at_line_end(out);
        }
        if self.block == Block::Table {
            self.end_line(out);
        }
        self.end_table(out);
        self.flush_marks('\n', out);
        self.row.flush_word(out);
        self.row.style = Style::default();
        self.row.restyle(out);
        self.row.close(out);
    }

    /// Something else is about to be shown: it gets a row of its own.
    pub fn fresh_row(&mut self, out: &mut String) {
        self.row.flush_word(out);
        self.row.close(out);
    }

    fn grapheme(&mut self, piece: &str, out: &mut String) {
        if piece == "\n" || piece == "\r\n" {
            self.end_line(out);
        } else if self.block == Block::Table {
            self.start.push_str(piece);
        } else if self.is_plain {
            self.block = Block::Paragraph;
            self.literal(piece, out);
        } else if self.block == Block::Undecided {
            self.start.push_str(piece);
            self.decide(out);
        } else {
            self.inline(piece, out);
        }
    }

    /// Looks at the start of a line; when it tells, the line goes on as what it is.
    fn decide(&mut self, out: &mut String) {
        if self.start.len() > LONGEST_START {
            let block = if self.fence.is_some() { Block::Verbatim } else { Block::Paragraph };
            return self.begin(block, "", 0, out);
        }
        let body = self.start.trim_start_matches(' ');
        if let Some((mark, _)) = self.fence {
            // Inside code only a closing fence is looked for, which is at most three cells in.
            if self.start.len() - body.len() > 3 || !body.chars().all(|c| c == mark) {
                self.begin(Block::Verbatim, "", 0, out);
            }
            return;
        }
        let Some(first) = body.chars().next() else {
            return;
        };
        let run = body.chars().take_while(|&c| c == first).count();
        let rest = &body[run * first.len_utf8()..];
        let spaces = self.start.len() - body.len();
        match first {
            '#' if run <= 6 && rest.is_empty() => {}
            '#' if run <= 6 && rest.starts_with(' ') => self.begin(Block::Heading, "", spaces + run + 1, out),
            '`' | '~' if run < 3 && rest.is_empty() => {}
            '`' | '~' if run >= 3 => {
                // The fence's info string ends with the line; the fence is shown dim.
                self.begin(Block::Verbatim, "", 0, out);
                self.fence = Some((first, run));
            }
            '>' if rest.is_empty() => {}
            '>' => {
                let skip = spaces + 1 + usize::from(rest.starts_with(' '));
                self.begin(Block::Quote, "│ ", skip, out);
            }
            '-' | '*' | '_' | '+' if rest.is_empty() => {}
            '-' | '*' | '+' if run == 1 && rest.starts_with(' ') => {
                // Three such marks with spaces between them are a rule.
                if first != '+' && rest.chars().all(|c| c == ' ' || c == first) && rest.len() < 4 {
                    if rest.len() > 1 && rest.trim().is_empty() {
                        self.bullet(spaces, out);
                    }
                    return;
                }
                self.bullet(spaces, out);
            }
            '0'..='9' => self.decide_number(spaces, out),
            '|' if self.tables.is_some() => self.block = Block::Table,
            '|' => self.begin(Block::Verbatim, "", 0, out),
            _ => self.begin(Block::Paragraph, "", 0, out),
        }
    }

    fn bullet(&mut self, spaces: usize, out: &mut String) {
        let bullet = format!("{}• ", " ".repeat(spaces));
        self.begin(Block::Paragraph, &bullet, spaces + 2, out);
        self.row.hang(spaces + 2);
    }

    fn decide_number(&mut self, spaces: usize, out: &mut String) {
        let body = self.start.trim_start_matches(' ');
        let digits = body.chars().take_while(char::is_ascii_digit).count();
        match &body.as_bytes()[digits..] {
            [] | [b'.' | b')'] if digits <= 9 => {}
            [b'.' | b')', b' ', ..] => {
                let number = format!("{}{} ", " ".repeat(spaces), &body[..=digits]);
                let cells = number.len();
                self.begin(Block::Paragraph, &number, spaces + digits + 2, out);
                self.row.hang(cells);
            }
            _ => self.begin(Block::Paragraph, "", 0, out),
        }
    }

    /// The line is a `block`: shows `prefix`, drops `skip` bytes of its start and goes on with the rest.
    fn begin(&mut self, block: Block, prefix: &str, skip: usize, out: &mut String) {
        self.end_table(out);
        self.block = block;
        let start = std::mem::take(&mut self.start);
        self.row.indent = if block == Block::Quote { prefix.to_owned() } else { String::new() };
        self.row.style.heading = block == Block::Heading;
        self.row.style.dim = block == Block::Verbatim && self.fence.is_none() && !start.trim_start().starts_with('|');
        if !prefix.is_empty() {
            self.row.prefix(prefix, out);
        }
        for piece in start[skip.min(start.len())..].to_owned().graphemes(true) {
            self.inline(piece, out);
        }
    }

    /// A line that ended before its start told what it is.
    fn decide_at_line_end(&mut self, out: &mut String) {
        let body = self.start.trim();
        if let Some((mark, length)) = self.fence {
            let closes = body.chars().count() >= length && body.chars().all(|c| c == mark);
            if closes {
                self.fence = None;
            }
            self.begin(Block::Verbatim, "", 0, out);
            return;
        }
        let marks: String = body.chars().filter(|c| *c != ' ').collect();
        let rule = marks.len() >= 3 && ["-", "*", "_"].iter().any(|mark| marks.replace(mark, "").is_empty());
        if rule {
            self.end_table(out);
            self.start.clear();
            self.block = Block::Verbatim;
            self.row.style.dim = true;
            self.row.restyle(out);
            out.push_str(&"─".repeat(self.rule));
            self.row.column = self.rule;
        } else if body.len() >= 3 && (body.chars().all(|c| c == '`') || body.chars().all(|c| c == '~')) {
            let fence = body.chars().next().map(|mark| (mark, body.len()));
            self.begin(Block::Verbatim, "", 0, out);
            self.fence = fence;
        } else {
            self.begin(Block::Paragraph, "", 0, out);
        }
    }

    fn end_line(&mut self, out: &mut String) {
        if self.block == Block::Table {
            let line = std::mem::take(&mut self.start);
            if !self.table.add(line) {
                // One that long is not waited for.
                self.end_table(out);
            }
            self.block = Block::Undecided;
            return;
        }
        let blank = self.block == Block::Undecided && self.start.trim().is_empty();
        if blank {
            self.end_table(out);
        }
        if self.block == Block::Undecided && !blank {
            self.decide_at_line_end(out);
        }
        self.flush_marks('\n', out);
        self.row.flush_word(out);
        if blank || matches!(self.block, Block::Heading | Block::Verbatim) {
            self.row.style = Style::default();
        }
        self.row.style.heading = false;
        self.row.style.dim = false;
        self.row.restyle(out);
        self.row.end(out);
        self.start.clear();
        self.row.indent.clear();
        self.block = Block::Undecided;
        self.previous = '\n';
    }

    /// The table is whole: it is laid out where it fits, else shown as its source.
    fn end_table(&mut self, out: &mut String) {
        let table = std::mem::take(&mut self.table);
        if table.is_empty() {
            return;
        }
        let laid_out = self.tables.and_then(|cells| table.laid_out(cells));
        self.row.style = Style::default();
        self.row.restyle(out);
        match laid_out {
            Some(rows) => out.push_str(&rows),
            None => {
                for piece in table.source().graphemes(true) {
                    if piece == "\n" {
                        self.row.end(out);
                    } else {
                        self.row.verbatim(piece, out);
                    }
                }
            }
        }
    }

    /// One grapheme of a line whose kind is known.
    fn inline(&mut self, piece: &str, out: &mut String) {
        if self.block == Block::Verbatim {
            self.row.verbatim(piece, out);
            return;
        }
        let c = piece.chars().next().unwrap_or(' ');
        if std::mem::take(&mut self.escaped) {
            if !c.is_ascii_punctuation() {
                self.literal("\\", out);
            }
            self.literal(piece, out);
            return;
        }
        if !self.marks.is_empty() && !self.marks.starts_with(c) {
            self.flush_marks(c, out);
        }
        match c {
            '\\' if self.row.style.code == 0 => self.escaped = true,
            '`' => self.marks.push(c),
            '*' | '_' if self.row.style.code == 0 => self.marks.push(c),
            _ => self.literal(piece, out),
        }
    }

    /// Decides what the marks held back mean, now that `next` follows them.
    fn flush_marks(&mut self, next: char, out: &mut String) {
        if std::mem::take(&mut self.escaped) {
            self.literal("\\", out);
        }
        let marks = std::mem::take(&mut self.marks);
        let Some(mark) = marks.chars().next() else { return };
        let (before, run) = (self.previous, marks.len());
        let opens = !next.is_whitespace();
        let closes = !before.is_whitespace();
        let inside_word = mark == '_' && before.is_alphanumeric() && next.is_alphanumeric();
        match (mark, run) {
            ('`', _) if self.row.style.code == run => self.row.style.code = 0,
            ('`', _) if self.row.style.code == 0 && next != '\n' => self.row.style.code = run,
            ('*' | '_', 1) if !inside_word && (if self.row.style.italic { closes } else { opens }) => {
                self.row.style.italic = !self.row.style.italic;
            }
            ('*' | '_', 2) if !inside_word && (if self.row.style.bold { closes } else { opens }) => {
                self.row.style.bold = !self.row.style.bold;
            }
            ('*' | '_', 3) if !inside_word && (if self.row.style.bold { closes } else { opens }) => {
                self.row.style.bold = !self.row.style.bold;
                self.row.style.italic = !self.row.style.italic;
            }
            _ => {
                for _ in 0..run {
                    self.literal(&mark.to_string(), out);
                }
            }
        }
    }

    /// One grapheme that is shown as itself.
    fn literal(&mut self, piece: &str, out: &mut String) {
        self.previous = piece.chars().next_back().unwrap_or(' ');
        match piece {
            " " | "\t" if self.block == Block::Paragraph && self.row.is_unindented() => self.row.indentation(out),
            " " | "\t" => self.row.space(out),
            _ => self.row.put(piece, out),
        }
    }
}
