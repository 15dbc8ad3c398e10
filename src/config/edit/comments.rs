//! Removes entries and keeps the comments that do not belong to them.

use toml_edit::{Decor, Item, Table, TableLike};

use super::{ConfigEditor, find_key};

impl ConfigEditor {
    /// Removes and returns the comment at the top of the file, if it is attached to the first table.
    pub(super) fn take_file_comment(&mut self) -> String {
        let root = self.document.as_table_mut();
        if root.iter().any(|(_, item)| item.is_value()) {
            return String::new();
        }
        let first = header_positions(root).into_iter().min();
        let Some(table) = first.and_then(|first| table_at(root, first)) else { return String::new() };
        let above = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
        let file_comment = detached_comment(&above);
        let attached = &above[file_comment.len()..];
        let separator = if attached.starts_with('\n') { "" } else { "\n" };
        table.decor_mut().set_prefix(format!("{separator}{attached}"));
        file_comment.to_owned()
    }

    /// Removes an entry of the table at `path`, the comment directly above it, and the table if it is empty afterwards.
    /// Comments separated by a blank line are kept.
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
        let position = match path {
            [] => Some(isize::MIN),
            path => self.item(path).and_then(Item::as_table).and_then(Table::position),
        };
        let Some(parent) = self.item_mut(path).and_then(Item::as_table_like_mut) else { return };
        let next = parent.iter().skip_while(|(other, _)| *other != key).nth(1);
        let next = next.filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned());
        let above = parent.key(key).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        match parent.remove(key) {
            Some(Item::Table(removed)) => {
                let above = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
                // At the top of the file, the comment may describe the file instead of the entry.
                let kept = if self.has_content_before(&removed) { detached_comment(above) } else { above };
                self.insert_comment_before_table(kept, removed.position());
            }
            Some(_) => {
                let above = detached_comment(&above.unwrap_or_default()).to_owned();
                match next.and_then(|next| parent.key_mut(&next)) {
                    Some(mut next) => prepend_comment(next.leaf_decor_mut(), &above),
                    None => self.insert_comment_before_table(&above, position),
                }
            }
            None => {}
        }
    }

    /// Whether the file has keys or other tables before this table.
    fn has_content_before(&self, table: &Table) -> bool {
        let root = self.document.as_table();
        let is_before = |position: &isize| table.position().is_some_and(|own| *position < own);
        root.iter().any(|(_, item)| item.is_value()) || header_positions(root).iter().any(is_before)
    }

    /// Removes a top-level key. The comment above it may describe the file, so it is kept.
    pub(super) fn remove_top_level_key(&mut self, name: &str) {
        let root = self.document.as_table_mut();
        let next = root.iter().skip_while(|(key, _)| *key != name).nth(1);
        let next = next.filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned());
        let above = root.key(name).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        root.remove(name);
        let above = above.unwrap_or_default();
        match next.and_then(|next| root.key_mut(&next)) {
            Some(mut next) => prepend_comment(next.leaf_decor_mut(), &above),
            None => self.insert_comment_before_table(&above, Some(isize::MIN)),
        }
    }

    /// Puts `comment` before the table that follows `position`, or at the end of the file.
    fn insert_comment_before_table(&mut self, comment: &str, position: Option<isize>) {
        if comment.trim().is_empty() {
            return;
        }
        let root = self.document.as_table_mut();
        let is_after = |other: &isize| position.is_some_and(|position| *other > position);
        let next = header_positions(root).into_iter().filter(is_after).min();
        if let Some(next) = next.and_then(|next| table_at(root, next)) {
            prepend_comment(next.decor_mut(), comment);
        } else {
            let trailing = self.document.trailing().as_str().unwrap_or_default().to_owned();
            self.document.set_trailing(format!("{comment}{trailing}"));
        }
    }
}

/// Puts `comment` above the item with this decor.
fn prepend_comment(decor: &mut Decor, comment: &str) {
    let existing = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let joined = format!("{comment}{existing}");
    decor.set_prefix(joined);
}

/// The part of the lines above an entry that is separated from it by a blank line.
fn detached_comment(above: &str) -> &str {
    above.rfind("\n\n").map_or("", |blank| &above[..=blank])
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
