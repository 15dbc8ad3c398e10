//! Taking an entry out without the comments that are not its own.

use toml_edit::{Decor, Item, Table, TableLike};

use super::Edit;

impl Edit {
    /// Takes the file's own head off the first table, if nothing else stands before that.
    pub(super) fn take_head(&mut self) -> String {
        let root = self.document.as_table_mut();
        if root.iter().any(|(_, item)| item.is_value()) {
            return String::new();
        }
        let first = tables(root).into_iter().min_by_key(|table| table.position().unwrap_or(isize::MAX));
        let Some(decor) = first.map(Table::decor_mut) else { return String::new() };
        let above = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
        let head = apart(&above);
        let rest = &above[head.len()..];
        decor.set_prefix(if rest.starts_with('\n') { rest.to_owned() } else { format!("\n{rest}") });
        head.to_owned()
    }

    /// Removes an entry. The comment right above it goes too; what stands apart from it by a blank line is kept.
    pub(super) fn remove(&mut self, table: &str, name: &str) {
        let Some(key) = self.find(table, name) else { return };
        let Some(parent) = self.document.get_mut(table).and_then(Item::as_table_like_mut) else { return };
        let next = parent.iter().map(|(key, _)| key.to_owned()).skip_while(|other| *other != key).nth(1);
        let above = parent.key(&key).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        let removed = parent.remove(&key);
        match removed {
            Some(Item::Table(removed)) => {
                let above = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
                // At the top of the file it may be the file's own head.
                let kept = if self.begins_behind(&removed) { apart(above) } else { above };
                self.keep_before_table(kept, removed.position());
            }
            Some(_) => {
                let above = apart(&above.unwrap_or_default()).to_owned();
                match next.and_then(|next| parent.key_mut(&next)) {
                    Some(mut next) => keep_above(next.leaf_decor_mut(), &above),
                    None => self.keep_before_table(&above, None),
                }
            }
            None => {}
        }
        if self.document.get(table).and_then(Item::as_table_like).is_some_and(TableLike::is_empty) {
            self.document.remove(table);
        }
    }

    /// Whether something stands before this table in the file.
    pub(super) fn begins_behind(&mut self, table: &Table) -> bool {
        let root = self.document.as_table_mut();
        root.iter().any(|(_, item)| item.is_value())
            || tables(root).iter().any(|other| other.position() < table.position())
    }

    /// Removes a setting of the whole file; what stands above it may be the file's own head, and is kept.
    pub(super) fn remove_setting(&mut self, name: &str) {
        let root = self.document.as_table_mut();
        let next = root.iter().skip_while(|(key, _)| *key != name).nth(1);
        let next = next.filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned());
        let above = root.key(name).and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
        root.remove(name);
        let above = above.unwrap_or_default();
        match next.and_then(|next| root.key_mut(&next)) {
            Some(mut next) => keep_above(next.leaf_decor_mut(), &above),
            None => self.keep_before_table(&above, Some(isize::MIN)),
        }
    }

    /// Puts `comment` in front of the table that now stands where one was removed, or at the end of the file.
    pub(super) fn keep_before_table(&mut self, comment: &str, position: Option<isize>) {
        if comment.trim().is_empty() {
            return;
        }
        let mut next: Option<&mut Table> = None;
        let after = |table: &Table| table.position().filter(|at| position.is_some_and(|position| *at > position));
        for table in tables(self.document.as_table_mut()) {
            let nearer = after(table)
                .is_some_and(|at| next.as_ref().and_then(|next| next.position()).is_none_or(|next| at < next));
            if nearer {
                next = Some(table);
            }
        }
        if let Some(next) = next {
            keep_above(next.decor_mut(), comment);
        } else {
            let own = self.document.trailing().as_str().unwrap_or_default().to_owned();
            self.document.set_trailing(format!("{comment}{own}"));
        }
    }
}

/// Puts `comment` above whatever has this decor.
fn keep_above(decor: &mut Decor, comment: &str) {
    let own = decor.prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let joined = format!("{comment}{own}");
    decor.set_prefix(joined);
}

/// What of the lines above an entry stands apart from it by a blank line.
fn apart(above: &str) -> &str {
    above.rfind("\n\n").map_or("", |blank| &above[..=blank])
}

/// All tables with a head of their own below this one.
fn tables(table: &mut Table) -> Vec<&mut Table> {
    let mut found = Vec::new();
    for (_, item) in table.iter_mut() {
        if let Item::Table(inner) = item {
            // A table with a head is one place; what is below it comes after it.
            if inner.is_implicit() {
                found.extend(tables(inner));
            } else {
                found.push(inner);
            }
        }
    }
    found
}
