//! Renders streaming Markdown for a terminal.
//!
//! Strictly append-only: written text is never moved or redrawn, so it works on any terminal and in its scrollback.
//! Text is written as soon as it arrives, with two exceptions: a mark whose meaning depends on the next character (`*`,
//! a `#` at the start of a line), and the start of a word that may not fit on its row, since written text cannot be
//! moved to the next row.
//!
//! Renders headings, lists, quotes, rules, code and emphasis, in bold, dim, italic, underline and one color for code;
//! links stay as source. Tables are laid out only if enabled, because that delays them until their last row. The input
//! must be sanitized.

mod row;
mod table;
#[cfg(test)]
mod tests;

use row::{RowWriter, Style};
use table::MarkdownTable;
use unicode_segmentation::UnicodeSegmentation;

/// Maximum bytes buffered to classify a line; a longer undecided line is a paragraph.
const MAX_LINE_START_BYTES: usize = 256;

/// The kind of the open line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Block {
    /// Not decided by the characters so far.
    #[default]
    Undecided,
    Paragraph,
    Heading,
    Quote,
    /// Source shown unchanged: a code line, a fence or a table row.
    Verbatim,
    /// A row of a table that is laid out once it is complete.
    Table,
}

/// Renders one answer.
#[derive(Debug)]
pub(crate) struct MarkdownRenderer {
    row: RowWriter,
    /// Width of a rule.
    rule_width: usize,
    block: Block,
    /// Inside a fenced code block: the character and minimum length of its closing fence.
    fence: Option<(char, usize)>,
    /// The start of a line that is not classified yet.
    line_start: String,
    /// A run of `*`, `_` or backticks whose meaning depends on the next character.
    pending_marks: String,
    is_escaped: bool,
    previous_char: char,
    /// Maximum width of tables to lay out; `None`: tables are shown as source.
    max_table_width: Option<usize>,
    /// The rows of the open table.
    table: MarkdownTable,
    /// Markdown is not interpreted.
    is_plain: bool,
}

impl MarkdownRenderer {
    /// A renderer for a terminal of `width` cells.
    #[must_use]
    pub(crate) fn new(width: usize) -> Self {
        Self {
            row: RowWriter::new(width),
            rule_width: RowWriter::new(width).width,
            block: Block::Undecided,
            fence: None,
            line_start: String::new(),
            pending_marks: String::new(),
            is_escaped: false,
            previous_char: '\n',
            max_table_width: None,
            table: MarkdownTable::default(),
            is_plain: false,
        }
    }

    /// A renderer that does not wrap lines, for wrapping later; rules and tables take at most `cells` cells.
    #[must_use]
    pub(crate) fn unwrapped(cells: usize) -> Self {
        let mut markdown = Self::new(usize::MAX);
        markdown.rule_width = cells;
        markdown.max_table_width = Some(cells);
        markdown
    }

    /// A renderer for a column of `cells` cells, which no row exceeds. `is_plain`: Markdown is not interpreted.
    #[must_use]
    pub(crate) fn for_column(cells: usize, is_plain: bool) -> Self {
        let mut markdown = Self::new(cells + 1);
        markdown.row.has_hard_width = true;
        markdown.is_plain = is_plain;
        markdown.max_table_width = Some(markdown.row.width).filter(|_| !is_plain);
        markdown
    }

    /// Enables the layout of tables that fit.
    #[must_use]
    pub(crate) fn with_tables(mut self) -> Self {
        self.max_table_width = Some(self.row.width);
        self
    }

    /// Starts inside this code fence, when the text before it is skipped.
    pub(super) fn set_fence(&mut self, fence: Option<(char, usize)>) {
        self.fence = fence;
    }

    /// Processes the next text and appends what can be shown to `out`.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) {
        for grapheme in text.graphemes(true) {
            self.push_grapheme(grapheme, out);
        }
        self.row.show_open_word(out);
    }

    /// Ends the answer: writes the text held back, ends styles and closes the line.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if self.block == Block::Undecided && !self.line_start.is_empty() {
            self.classify_at_line_end(out);
        }
        if self.block == Block::Table {
            self.end_line(out);
        }
        self.end_table(out);
        self.flush_marks('\n', out);
        self.row.flush_word(out);
        self.row.style = Style::default();
        self.row.write_style(out);
        self.row.end_if_not_empty(out);
    }

    /// Ends the open row, because other output follows.
    pub(crate) fn start_new_row(&mut self, out: &mut String) {
        self.row.flush_word(out);
        self.row.end_if_not_empty(out);
    }

    fn push_grapheme(&mut self, grapheme: &str, out: &mut String) {
        if grapheme == "\n" || grapheme == "\r\n" {
            self.end_line(out);
        } else if self.block == Block::Table {
            self.line_start.push_str(grapheme);
        } else if self.is_plain {
            self.block = Block::Paragraph;
            self.push_literal(grapheme, out);
        } else if self.block == Block::Undecided {
            self.line_start.push_str(grapheme);
            self.classify_line(out);
        } else {
            self.push_inline(grapheme, out);
        }
    }

    /// Classifies the open line, if its start suffices, and begins its block.
    fn classify_line(&mut self, out: &mut String) {
        if self.line_start.len() > MAX_LINE_START_BYTES {
            let block = if self.fence.is_some() { Block::Verbatim } else { Block::Paragraph };
            return self.begin_block(block, "", 0, out);
        }
        let body = self.line_start.trim_start_matches(' ');
        if let Some((mark, _)) = self.fence {
            // Inside code only a closing fence is recognized, indented by at most three spaces.
            if self.line_start.len() - body.len() > 3 || !body.chars().all(|c| c == mark) {
                self.begin_block(Block::Verbatim, "", 0, out);
            }
            return;
        }
        let Some(first) = body.chars().next() else {
            return;
        };
        let run = body.chars().take_while(|&c| c == first).count();
        let rest = &body[run * first.len_utf8()..];
        let spaces = self.line_start.len() - body.len();
        match first {
            '#' if run <= 6 && rest.is_empty() => {}
            '#' if run <= 6 && rest.starts_with(' ') => self.begin_block(Block::Heading, "", spaces + run + 1, out),
            '`' | '~' if run < 3 && rest.is_empty() => {}
            '`' | '~' if run >= 3 => {
                // The rest of the line is the info string; the fence is shown dim.
                self.begin_block(Block::Verbatim, "", 0, out);
                self.fence = Some((first, run));
            }
            '>' if rest.is_empty() => {}
            '>' => {
                let skip = spaces + 1 + usize::from(rest.starts_with(' '));
                self.begin_block(Block::Quote, "│ ", skip, out);
            }
            '-' | '*' | '_' | '+' if rest.is_empty() => {}
            '-' | '*' | '+' if run == 1 && rest.starts_with(' ') => {
                // May still become a rule: three such marks separated by spaces.
                if first != '+' && rest.chars().all(|c| c == ' ' || c == first) && rest.len() < 4 {
                    if rest.len() > 1 && rest.trim().is_empty() {
                        self.begin_bullet(spaces, out);
                    }
                    return;
                }
                self.begin_bullet(spaces, out);
            }
            '0'..='9' => self.classify_number(spaces, out),
            '|' if self.max_table_width.is_some() => self.block = Block::Table,
            '|' => self.begin_block(Block::Verbatim, "", 0, out),
            _ => self.begin_block(Block::Paragraph, "", 0, out),
        }
    }

    fn begin_bullet(&mut self, spaces: usize, out: &mut String) {
        let bullet = format!("{}• ", " ".repeat(spaces));
        self.begin_block(Block::Paragraph, &bullet, spaces + 2, out);
        self.row.set_indent(spaces + 2);
    }

    fn classify_number(&mut self, spaces: usize, out: &mut String) {
        let body = self.line_start.trim_start_matches(' ');
        let digits = body.chars().take_while(char::is_ascii_digit).count();
        match &body.as_bytes()[digits..] {
            [] | [b'.' | b')'] if digits <= 9 => {}
            [b'.' | b')', b' ', ..] => {
                let number = format!("{}{} ", " ".repeat(spaces), &body[..=digits]);
                let cells = number.len();
                self.begin_block(Block::Paragraph, &number, spaces + digits + 2, out);
                self.row.set_indent(cells);
            }
            _ => self.begin_block(Block::Paragraph, "", 0, out),
        }
    }

    /// Begins a `block`: writes `prefix`, drops `skip` bytes of the line start and processes the rest.
    fn begin_block(&mut self, block: Block, prefix: &str, skip: usize, out: &mut String) {
        self.end_table(out);
        self.block = block;
        let start = std::mem::take(&mut self.line_start);
        self.row.indent = if block == Block::Quote { prefix.to_owned() } else { String::new() };
        self.row.style.heading = block == Block::Heading;
        self.row.style.dim = block == Block::Verbatim && self.fence.is_none() && !start.trim_start().starts_with('|');
        if !prefix.is_empty() {
            self.row.push_prefix(prefix, out);
        }
        for grapheme in start[skip.min(start.len())..].to_owned().graphemes(true) {
            self.push_inline(grapheme, out);
        }
    }

    /// Classifies a line that ended before its start was decisive.
    fn classify_at_line_end(&mut self, out: &mut String) {
        let body = self.line_start.trim();
        if let Some((mark, length)) = self.fence {
            let closes = body.chars().count() >= length && body.chars().all(|c| c == mark);
            if closes {
                self.fence = None;
            }
            self.begin_block(Block::Verbatim, "", 0, out);
            return;
        }
        let marks: String = body.chars().filter(|c| *c != ' ').collect();
        let is_rule = marks.len() >= 3 && ["-", "*", "_"].iter().any(|mark| marks.replace(mark, "").is_empty());
        if is_rule {
            self.end_table(out);
            self.line_start.clear();
            self.block = Block::Verbatim;
            self.row.style.dim = true;
            self.row.write_style(out);
            out.push_str(&"─".repeat(self.rule_width));
            self.row.column = self.rule_width;
        } else if body.len() >= 3 && (body.chars().all(|c| c == '`') || body.chars().all(|c| c == '~')) {
            let fence = body.chars().next().map(|mark| (mark, body.len()));
            self.begin_block(Block::Verbatim, "", 0, out);
            self.fence = fence;
        } else {
            self.begin_block(Block::Paragraph, "", 0, out);
        }
    }

    fn end_line(&mut self, out: &mut String) {
        if self.block == Block::Table {
            let line = std::mem::take(&mut self.line_start);
            if !self.table.push_line(line) {
                // The table reached its size limit.
                self.end_table(out);
            }
            self.block = Block::Undecided;
            return;
        }
        let is_blank = self.block == Block::Undecided && self.line_start.trim().is_empty();
        if is_blank {
            self.end_table(out);
        }
        if self.block == Block::Undecided && !is_blank {
            self.classify_at_line_end(out);
        }
        self.flush_marks('\n', out);
        self.row.flush_word(out);
        if is_blank || matches!(self.block, Block::Heading | Block::Verbatim) {
            self.row.style = Style::default();
        }
        self.row.style.heading = false;
        self.row.style.dim = false;
        self.row.write_style(out);
        self.row.end(out);
        self.line_start.clear();
        self.row.indent.clear();
        self.block = Block::Undecided;
        self.previous_char = '\n';
    }

    /// Writes the complete table: laid out if it fits, else as source.
    fn end_table(&mut self, out: &mut String) {
        let table = std::mem::take(&mut self.table);
        if table.is_empty() {
            return;
        }
        let laid_out = self.max_table_width.and_then(|cells| table.render(cells));
        self.row.style = Style::default();
        self.row.write_style(out);
        match laid_out {
            Some(rows) => out.push_str(&rows),
            None => {
                for grapheme in table.source().graphemes(true) {
                    if grapheme == "\n" {
                        self.row.end(out);
                    } else {
                        self.row.push_verbatim(grapheme, out);
                    }
                }
            }
        }
    }

    /// Processes one grapheme of a classified line.
    fn push_inline(&mut self, grapheme: &str, out: &mut String) {
        if self.block == Block::Verbatim {
            self.row.push_verbatim(grapheme, out);
            return;
        }
        let c = grapheme.chars().next().unwrap_or(' ');
        if std::mem::take(&mut self.is_escaped) {
            if !c.is_ascii_punctuation() {
                self.push_literal("\\", out);
            }
            self.push_literal(grapheme, out);
            return;
        }
        if !self.pending_marks.is_empty() && !self.pending_marks.starts_with(c) {
            self.flush_marks(c, out);
        }
        match c {
            '\\' if self.row.style.code == 0 => self.is_escaped = true,
            '`' => self.pending_marks.push(c),
            '*' | '_' if self.row.style.code == 0 => self.pending_marks.push(c),
            _ => self.push_literal(grapheme, out),
        }
    }

    /// Interprets the marks held back, now that `next` follows them.
    fn flush_marks(&mut self, next: char, out: &mut String) {
        if std::mem::take(&mut self.is_escaped) {
            self.push_literal("\\", out);
        }
        let marks = std::mem::take(&mut self.pending_marks);
        let Some(mark) = marks.chars().next() else { return };
        let (before, run) = (self.previous_char, marks.len());
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
                    self.push_literal(&mark.to_string(), out);
                }
            }
        }
    }

    /// Writes one grapheme literally.
    fn push_literal(&mut self, grapheme: &str, out: &mut String) {
        self.previous_char = grapheme.chars().next_back().unwrap_or(' ');
        match grapheme {
            " " | "\t" if self.block == Block::Paragraph && self.row.is_at_line_start() => self.row.push_indent(out),
            " " | "\t" => self.row.push_space(out),
            _ => self.row.push_grapheme(grapheme, out),
        }
    }
}
