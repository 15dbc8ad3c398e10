//! Removes entries and keeps the comments that do not belong to them.
//!
//! A comment directly above a line or a table header belongs to it. A comment above the first line of an entry that a
//! blank line separates from it belongs to the section, and moves to what follows, with the blank line.

use std::collections::BTreeMap;

use toml_edit::{Decor, Item, Table, TableLike};

use super::{ConfigEditor, find_key};

/// Where a comment moves to.
pub(super) enum CommentTarget {
    /// Above the line of the key at this path.
    Line(Vec<String>),
    /// Above the first table whose header follows this position; at the end of the file if there is none.
    TableAfter(isize),
}

impl ConfigEditor {
    /// Removes and returns the comment at the top of the file, if it is attached to the first table.
    pub(super) fn take_file_comment(&mut self) -> String {
        let root = self.document.as_table_mut();
        if has_lines(root) {
            return String::new();
        }
        let first = header_positions(root).into_iter().min();
        let mut file_comment = String::new();
        for_each_header(root, &mut |position, table| {
            if Some(position) == first {
                let above = prefix_of(table.decor());
                detached_comment(&above).clone_into(&mut file_comment);
                table.decor_mut().set_prefix(after_blank_line(&above[file_comment.len()..]));
            }
        });
        file_comment
    }

    /// Removes an entry of the table at `path`, the comment directly above it, and the table if it is empty afterwards.
    pub(super) fn remove_entry(&mut self, path: &[&str], name: &str) {
        let Some(key) = find_key(self.item(path), name) else { return };
        self.remove_key(path, &key);
        let is_empty = self.item(path).and_then(Item::as_table_like).is_some_and(TableLike::is_empty);
        if let [parents @ .., table] = path
            && is_empty
        {
            self.remove_entry(parents, table);
        }
    }

    /// Removes a key of the table at `path`, and the comment directly above it.
    pub(super) fn remove_key(&mut self, path: &[&str], key: &str) {
        let target = self.target_after(path, key);
        let Some((removed, above)) = self.take(path, key) else { return };
        if above.trim().is_empty() {
            return;
        }
        match entry_header(&removed).and_then(Table::position) {
            Some(position) => {
                // At the top of the file, the comment may describe the file instead of the entry.
                let kept = if self.has_content_before(position) { detached_comment(&above) } else { &above };
                self.insert_comment(kept, CommentTarget::TableAfter(position));
            }
            None => self.insert_comment(detached_comment(&above), target),
        }
    }

    /// Removes a top-level key. The comment above it may describe the file, so it is kept.
    pub(super) fn remove_top_level_key(&mut self, name: &str) {
        let target = self.target_after(&[], name);
        if let Some((_, above)) = self.take(&[], name) {
            self.insert_comment(&above, target);
        }
    }

    /// Removes a key of the table at `path`; returns its value and the lines above it.
    fn take(&mut self, path: &[&str], key: &str) -> Option<(Item, String)> {
        let item = self.item(path)?.get(key)?;
        let above = if let Some(header) = entry_header(item) {
            prefix_of(header.decor())
        } else {
            let line = [path, &[key], &path_to_line(item).unwrap_or_default()].concat();
            let (leaf, parents) = line.split_last()?;
            prefix_of(self.item(parents)?.as_table_like()?.key(leaf)?.leaf_decor())
        };
        Some((self.item_mut(path)?.as_table_like_mut()?.remove(key)?, above))
    }

    /// Where a comment above the line of `key`, in the table at `path`, moves when the line is removed.
    fn target_after(&self, path: &[&str], key: &str) -> CommentTarget {
        let header = |len: usize| self.item(&path[..len]).and_then(Item::as_table).and_then(header_position);
        match self.next_line(path, key) {
            Some(line) => CommentTarget::Line(line),
            None => CommentTarget::TableAfter((1..=path.len()).rev().find_map(header).unwrap_or(isize::MIN)),
        }
    }

    /// The path of the key on the first line after `key`, in the table at `path`, before the next table header.
    fn next_line(&self, path: &[&str], key: &str) -> Option<Vec<String>> {
        let parent = self.item(path)?.as_table_like()?;
        let later = parent.iter().skip_while(|(other, _)| *other != key).skip(1);
        let mut lines = later.filter_map(|(name, item)| Some([path, &[name], &path_to_line(item)?].concat()));
        if let Some(line) = lines.next() {
            return Some(line.into_iter().map(str::to_owned).collect());
        }
        let (table, parents) = path.split_last()?;
        // The lines of a dotted table may be followed by others of its parent.
        if self.item(path)?.as_table()?.is_dotted() { self.next_line(parents, table) } else { None }
    }

    /// Whether the file has keys or other tables before the table at this position.
    fn has_content_before(&self, position: isize) -> bool {
        let root = self.document.as_table();
        has_lines(root) || has_header_before(root, position)
    }

    /// Puts a comment above its target.
    pub(super) fn insert_comment(&mut self, comment: &str, target: CommentTarget) {
        match target {
            _ if comment.trim().is_empty() => {}
            CommentTarget::Line(line) => {
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                let Some((leaf, parents)) = line.split_last() else { return };
                let parent = self.item_mut(parents).and_then(Item::as_table_like_mut);
                if let Some(mut key) = parent.and_then(|parent| parent.key_mut(leaf)) {
                    prepend_comment(key.leaf_decor_mut(), comment);
                }
            }
            CommentTarget::TableAfter(position) => {
                self.insert_comments_after_tables(vec![(comment.to_owned(), position)]);
            }
        }
    }

    /// Puts each comment above the first table whose header follows its position; at the end of the file if there is none.
    pub(super) fn insert_comments_after_tables(&mut self, comments: Vec<(String, isize)>) {
        let root = self.document.as_table_mut();
        let mut headers = header_positions(root);
        headers.sort_unstable();
        let mut by_header: BTreeMap<Option<isize>, Vec<String>> = BTreeMap::new();
        for (comment, position) in comments.into_iter().filter(|(comment, _)| !comment.trim().is_empty()) {
            let next = headers.partition_point(|header| *header <= position);
            by_header.entry(headers.get(next).copied()).or_default().push(comment);
        }
        let at_the_end = by_header.remove(&None).map(|comments| join_comments(&comments));
        prepend_comments(root, &by_header);
        if let Some(comment) = at_the_end {
            let trailing = self.document.trailing().as_str().unwrap_or_default();
            let separator = if trailing.trim().is_empty() { "" } else { "\n" };
            let trailing = format!("{comment}\n{separator}{}", trailing.trim_start());
            self.document.set_trailing(trailing);
        }
    }
}

/// Puts `comment` above the line or header with this decor, separated by a blank line.
pub(super) fn prepend_comment(decor: &mut Decor, comment: &str) {
    if comment.trim().is_empty() {
        return;
    }
    decor.set_prefix(format!("{}\n{}", comment.trim_end(), after_blank_line(&prefix_of(decor))));
}

/// `text` with a blank line before it.
fn after_blank_line(text: &str) -> String {
    let separator = if text.trim_start_matches([' ', '\t', '\r']).starts_with('\n') { "" } else { "\n" };
    format!("{separator}{text}")
}

/// Several detached comments as one text.
pub(super) fn join_comments(comments: &[String]) -> String {
    let comments: Vec<&str> =
        comments.iter().map(|comment| comment.trim_end()).filter(|text| !text.is_empty()).collect();
    comments.join("\n\n")
}

/// The lines above a line or header.
pub(super) fn prefix_of(decor: &Decor) -> String {
    decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned()
}

/// The part of the lines above an entry that is separated from it by a blank line, without the blank line.
pub(super) fn detached_comment(above: &str) -> &str {
    let (mut end, mut offset) = (0, 0);
    for line in above.split_inclusive('\n') {
        if offset > 0 && line.ends_with('\n') && line.trim().is_empty() {
            end = offset;
        }
        offset += line.len();
    }
    &above[..end]
}

/// Whether the table has lines of its own, without a header.
fn has_lines(table: &Table) -> bool {
    table.iter().any(|(_, item)| path_to_line(item).is_some())
}

/// The path from an item to the key on its first line: empty for a value, longer for a dotted table, none for a table
/// with a header.
fn path_to_line(item: &Item) -> Option<Vec<&str>> {
    match item {
        Item::Value(_) => Some(Vec::new()),
        Item::Table(table) if table.is_dotted() => {
            let (key, item) = table.iter().next()?;
            Some([vec![key], path_to_line(item)?].concat())
        }
        _ => None,
    }
}

/// The first header of an entry; `None` if the entry begins with a line.
fn entry_header(item: &Item) -> Option<&Table> {
    item.as_table().filter(|_| path_to_line(item).is_none()).and_then(first_header)
}

/// The tables directly below this one, including those of arrays of tables.
fn child_tables(table: &Table) -> impl Iterator<Item = &Table> {
    table.iter().flat_map(|(_, item)| {
        let tables = item.as_array_of_tables().into_iter().flat_map(|tables| tables.iter());
        item.as_table().into_iter().chain(tables)
    })
}

/// The positions of the tables below this one that have their own header.
fn header_positions(table: &Table) -> Vec<isize> {
    child_tables(table).flat_map(|inner| header_position(inner).into_iter().chain(header_positions(inner))).collect()
}

fn has_header_before(table: &Table, position: isize) -> bool {
    let is_before = |inner: &Table| header_position(inner).is_some_and(|own| own < position);
    child_tables(table).any(|inner| is_before(inner) || has_header_before(inner, position))
}

/// The first table with a header among this one and those below it.
fn first_header(table: &Table) -> Option<&Table> {
    let below = child_tables(table).filter_map(first_header);
    Some(table).filter(|table| header_position(table).is_some()).or_else(|| below.min_by_key(|table| table.position()))
}

/// Calls `f` for every table below this one that has its own header.
fn for_each_header(table: &mut Table, f: &mut dyn FnMut(isize, &mut Table)) {
    for (_, item) in table.iter_mut() {
        let tables: Vec<&mut Table> = match item {
            Item::Table(inner) => vec![inner],
            Item::ArrayOfTables(tables) => tables.iter_mut().collect(),
            _ => continue,
        };
        for inner in tables {
            if let Some(position) = header_position(inner) {
                f(position, inner);
            }
            for_each_header(inner, f);
        }
    }
}

/// Puts the comments of each header above it.
fn prepend_comments(root: &mut Table, by_header: &BTreeMap<Option<isize>, Vec<String>>) {
    for_each_header(root, &mut |position, table| {
        if let Some(comments) = by_header.get(&Some(position)) {
            prepend_comment(table.decor_mut(), &join_comments(comments));
        }
    });
}

fn header_position(table: &Table) -> Option<isize> {
    table.position().filter(|_| !table.is_implicit() && !table.is_dotted())
}
