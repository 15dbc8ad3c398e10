//! Removes entries and keeps the comments that do not belong to them.

use toml_edit::{Decor, Item, Table, TableLike};

use super::ConfigEditor;

impl ConfigEditor {
    /// Removes and returns the comment at the top of the file, if it is attached to the first table.
    pub(super) fn take_file_comment(&mut self) -> String {
        let root = self.document.as_table_mut();
        if root.iter().any(|(_, item)| item.is_value()) {
            return String::new();
        }
        let first = tables_with_header(root).into_iter().min_by_key(|table| table.position().unwrap_or(isize::MAX));
        let Some(decor) = first.map(Table::decor_mut) else { return String::new() };
        let above = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
        let file_comment = detached_comment(&above);
        let attached = &above[file_comment.len()..];
        decor.set_prefix(if attached.starts_with('\n') { attached.to_owned() } else { format!("\n{attached}") });
        file_comment.to_owned()
    }

    /// Removes an entry and the comment directly above it. Comments separated by a blank line are kept.
    pub(super) fn remove_entry(&mut self, table: &str, name: &str) {
        let Some(key) = self.find_key(table, name) else { return };
        let Some(parent) = self.document.get_mut(table).and_then(Item::as_table_like_mut) else { return };
        let next = parent.iter().map(|(key, _)| key.to_owned()).skip_while(|other| *other != key).nth(1);
        let above = parent.key(&key).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        let removed = parent.remove(&key);
        match removed {
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
                    None => self.insert_comment_before_table(&above, None),
                }
            }
            None => {}
        }
        if self.document.get(table).and_then(Item::as_table_like).is_some_and(TableLike::is_empty) {
            self.document.remove(table);
        }
    }

    /// Whether the file has keys or other tables before this table.
    fn has_content_before(&mut self, table: &Table) -> bool {
        let root = self.document.as_table_mut();
        root.iter().any(|(_, item)| item.is_value())
            || tables_with_header(root).iter().any(|other| other.position() < table.position())
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
        let mut next: Option<&mut Table> = None;
        let position_after =
            |table: &Table| table.position().filter(|other| position.is_some_and(|position| *other > position));
        for table in tables_with_header(self.document.as_table_mut()) {
            let is_nearer = position_after(table)
                .is_some_and(|at| next.as_ref().and_then(|next| next.position()).is_none_or(|next| at < next));
            if is_nearer {
                next = Some(table);
            }
        }
        if let Some(next) = next {
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

/// All tables below this one that have their own header.
fn tables_with_header(table: &mut Table) -> Vec<&mut Table> {
    let mut found = Vec::new();
    for (_, item) in table.iter_mut() {
        if let Item::Table(inner) = item {
            // Subtables of a table with a header come after it.
            if inner.is_implicit() {
                found.extend(tables_with_header(inner));
            } else {
                found.push(inner);
            }
        }
    }
    found
}
