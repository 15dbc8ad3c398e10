//! Removes entries and keeps the comments that do not belong to them.
//!
//! A comment directly above a line or a table header belongs to it. A comment that a blank line separates from it belongs
//! to the section, and moves to what follows, with the blank line.

use toml_edit::{Decor, Item, Table, TableLike};

use super::{ConfigEditor, find_key};

/// Where a comment moves to.
pub(super) enum Place {
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
        let Some(table) = first.and_then(|first| table_at(root, first)) else { return String::new() };
        let above = prefix_of(table.decor());
        let file_comment = detached_comment(&above);
        let attached = &above[file_comment.len()..];
        let separator = if attached.starts_with('\n') { "" } else { "\n" };
        table.decor_mut().set_prefix(format!("{separator}{attached}"));
        file_comment.to_owned()
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
        let place = self.place_after(path, key);
        let Some((removed, above)) = self.take(path, key) else { return };
        match removed {
            Item::Table(table) if !table.is_dotted() => {
                // At the top of the file, the comment may describe the file instead of the entry.
                let kept = if self.has_content_before(&table) { detached_comment(&above) } else { &above };
                self.insert_comment(kept, Place::TableAfter(table.position().unwrap_or(isize::MAX)));
            }
            _ => self.insert_comment(detached_comment(&above), place),
        }
    }

    /// Removes a top-level key. The comment above it may describe the file, so it is kept.
    pub(super) fn remove_top_level_key(&mut self, name: &str) {
        let place = self.place_after(&[], name);
        if let Some((_, above)) = self.take(&[], name) {
            self.insert_comment(&above, place);
        }
    }

    /// Removes a key of the table at `path`; returns its value and the lines above it.
    fn take(&mut self, path: &[&str], key: &str) -> Option<(Item, String)> {
        let item = self.item(path)?.get(key)?;
        let above = match item {
            Item::Table(table) if !table.is_dotted() => prefix_of(table.decor()),
            item => {
                let line = [path, &[key], &path_to_line(item).unwrap_or_default()].concat();
                let (leaf, parents) = line.split_last()?;
                prefix_of(self.item(parents)?.as_table_like()?.key(leaf)?.leaf_decor())
            }
        };
        Some((self.item_mut(path)?.as_table_like_mut()?.remove(key)?, above))
    }

    /// Where a comment above the line of `key`, in the table at `path`, moves when the line is removed.
    fn place_after(&self, path: &[&str], key: &str) -> Place {
        let header = |len: usize| self.item(&path[..len]).and_then(Item::as_table).and_then(header_position);
        match self.next_line(path, key) {
            Some(line) => Place::Line(line),
            None => Place::TableAfter((1..=path.len()).rev().find_map(header).unwrap_or(isize::MIN)),
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

    /// Whether the file has keys or other tables before this table.
    fn has_content_before(&self, table: &Table) -> bool {
        let root = self.document.as_table();
        let is_before = |position: &isize| table.position().is_some_and(|own| *position < own);
        has_lines(root) || header_positions(root).iter().any(is_before)
    }

    /// Puts a comment at `place`.
    pub(super) fn insert_comment(&mut self, comment: &str, place: Place) {
        if comment.trim().is_empty() {
            return;
        }
        match place {
            Place::Line(line) => {
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                let Some((leaf, parents)) = line.split_last() else { return };
                let parent = self.item_mut(parents).and_then(Item::as_table_like_mut);
                if let Some(mut key) = parent.and_then(|parent| parent.key_mut(leaf)) {
                    prepend_comment(key.leaf_decor_mut(), comment);
                }
            }
            Place::TableAfter(position) => {
                let root = self.document.as_table_mut();
                let next = header_positions(root).into_iter().filter(|other| *other > position).min();
                if let Some(next) = next.and_then(|next| table_at(root, next)) {
                    prepend_comment(next.decor_mut(), comment);
                } else {
                    let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
                    self.document.set_trailing(format!("{comment}{trailing}"));
                }
            }
        }
    }
}

/// Puts `comment` above the line or header with this decor, separated by a blank line.
pub(super) fn prepend_comment(decor: &mut Decor, comment: &str) {
    let existing = prefix_of(decor);
    let separator = if existing.starts_with('\n') { "" } else { "\n" };
    decor.set_prefix(format!("{comment}{separator}{existing}"));
}

/// The lines above a line or header.
pub(super) fn prefix_of(decor: &Decor) -> String {
    decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned()
}

/// The part of the lines above an entry that is separated from it by a blank line, without the blank line.
pub(super) fn detached_comment(above: &str) -> &str {
    above.rfind("\n\n").map_or("", |blank| &above[..=blank])
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

/// The positions of the tables below this one that have their own header.
fn header_positions(table: &Table) -> Vec<isize> {
    let tables = table.iter().filter_map(|(_, item)| item.as_table());
    tables.flat_map(|inner| header_position(inner).into_iter().chain(header_positions(inner))).collect()
}

/// The table with the header at this position.
fn table_at(table: &mut Table, position: isize) -> Option<&mut Table> {
    table.iter_mut().filter_map(|(_, item)| item.as_table_mut()).find_map(|inner| {
        if header_position(inner) == Some(position) { Some(inner) } else { table_at(inner, position) }
    })
}

fn header_position(table: &Table) -> Option<isize> {
    table.position().filter(|_| !table.is_implicit() && !table.is_dotted())
}
