//! Literals of Python: what is assigned to a name at the top of a file.
//!
//! Owns strings, numbers, lists, tuples, dictionaries and the three names. Nothing is run: what is an expression reads as
//! nothing.

use serde_json::{Map, Number, Value};

use super::ImportError;

/// As deep as anybody nests a setting.
const DEEPEST: usize = 64;

/// The literal that `name` is assigned; `None`: it is not assigned.
pub(crate) fn assigned(text: &str, name: &str) -> Result<Option<Value>, ImportError> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line
            .strip_prefix(name)
            .map(str::trim_start)
            .filter(|rest| rest.starts_with([':', '=']) && !rest.starts_with("=="));
        // `NAME: dict = …` has its type before the sign.
        if let Some(equals) = rest.and(line.find('=')) {
            let start = at + equals + 1;
            let mut reader = Reader { text, at: start };
            return reader.value(0).map(Some).map_err(|what| {
                let number = text[..reader.at.min(text.len())].matches('\n').count() + 1;
                ImportError(format!("{name} cannot be read as a literal: {what} in line {number}"))
            });
        }
        at += line.len();
    }
    Ok(None)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    /// White space, line ends and comments.
    fn blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth > DEEPEST {
            return Err("too many brackets within brackets");
        }
        self.blank();
        let value = match self.peek() {
            Some('{') => self.dictionary(depth)?,
            Some('[') => self.sequence(']', depth)?,
            Some('(') => self.sequence(')', depth)?,
            Some(_) if self.string_begins() => self.strings()?,
            Some(_) => self.word(),
            None => return Err("an end"),
        };
        self.blank();
        // `"a" + b`, `f(x)`: more than a literal.
        if self.peek().is_none_or(|next| matches!(next, ',' | '}' | ']' | ')' | ':')) || depth == 0 {
            return Ok(value);
        }
        self.skip();
        Ok(Value::Null)
    }

    fn dictionary(&mut self, depth: usize) -> Read<Value> {
        self.at += 1;
        let mut map = Map::new();
        loop {
            self.blank();
            if self.take('}') {
                return Ok(Value::Object(map));
            }
            let key = self.value(depth + 1)?;
            self.blank();
            // `**other` and sets have no colon.
            let value = if self.take(':') { self.value(depth + 1)? } else { Value::Null };
            if let Value::String(key) = key {
                map.insert(key, value);
            }
            self.blank();
            if !self.take(',') && self.peek() != Some('}') {
                return Err("a bracket that is not closed");
            }
        }
    }

    fn sequence(&mut self, end: char, depth: usize) -> Read<Value> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blank();
            if self.take(end) {
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.blank();
            if !self.take(',') && self.peek() != Some(end) {
                return Err("a bracket that is not closed");
            }
        }
    }

    fn string_begins(&self) -> bool {
        let rest = self.rest().trim_start_matches(['r', 'R', 'b', 'B', 'u', 'U', 'f', 'F']);
        self.rest().len() - rest.len() <= 2 && rest.starts_with(['"', '\''])
    }

    /// One string, or several beside each other.
    fn strings(&mut self) -> Read<Value> {
        let (mut joined, mut literal) = (String::new(), true);
        while self.string_begins() {
            let (text, is_literal) = self.string()?;
            joined.push_str(&text);
            literal &= is_literal;
            self.blank();
        }
        Ok(if literal { Value::String(joined) } else { Value::Null })
    }

    fn string(&mut self) -> Read<(String, bool)> {
        let prefix: String = self.rest().chars().take_while(char::is_ascii_alphabetic).collect();
        self.at += prefix.len();
        let prefix = prefix.to_lowercase();
        let (raw, formatted) = (prefix.contains('r'), prefix.contains('f'));
        let quote = self.peek().ok_or("an end")?;
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let end = if self.rest().starts_with(&triple) { triple } else { quote.to_string() };
        self.at += end.len();
        let mut text = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok((text, !formatted));
            }
            let Some(c) = self.peek() else { return Err("a text that is not closed") };
            self.at += c.len_utf8();
            if c == '\n' && end.len() == 1 {
                return Err("a text that is not closed");
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some(escaped) = self.peek() else { return Err("a text that is not closed") };
            self.at += escaped.len_utf8();
            match escaped {
                _ if raw => text.extend(['\\', escaped]),
                '\n' => {}
                'n' => text.push('\n'),
                't' => text.push('\t'),
                '\\' | '\'' | '"' => text.push(escaped),
                other => text.extend(['\\', other]),
            }
        }
    }

    fn word(&mut self) -> Value {
        let length =
            self.rest().find(|c: char| c.is_whitespace() || ",:}])#([{\"'".contains(c)).unwrap_or(self.rest().len());
        let word = self.rest()[..length].to_owned();
        // Whatever stands there is passed over.
        self.at += if length == 0 { self.peek().map_or(0, char::len_utf8) } else { length };
        match word.as_str() {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => {
                let digits = word.replace('_', "");
                let whole = digits.parse::<i64>().ok().map(Number::from);
                whole.or_else(|| Number::from_f64(digits.parse().ok()?)).map_or(Value::Null, Value::Number)
            }
        }
    }

    /// To the end of an expression: the next comma or bracket that is not its own.
    fn skip(&mut self) {
        let mut open = 0usize;
        while let Some(c) = self.peek() {
            match c {
                ',' | '}' | ']' | ')' if open == 0 => return,
                '(' | '[' | '{' => open += 1,
                ')' | ']' | '}' => open -= 1,
                '"' | '\'' => {
                    if self.string().is_err() {
                        return;
                    }
                    continue;
                }
                '#' => {
                    self.blank();
                    continue;
                }
                _ => {}
            }
            self.at += c.len_utf8();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_read_and_expressions_are_nothing() {
        let text = "import os\nX: dict = {  # a comment\n  'a': \"b\" 'c', \"n\": [1, -2.5, 1_000, True, None,],\n  'e': os.environ.get(\"K\", {1: ')'}), 't': (1,),\n  'f': f\"{x}\", 'r': r'\\d', 'u': '借用', 'm': '''x\ny''',\n  'j': \"a\" + b,\n}\nY = 3\n";
        let want = json!({"a": "bc", "n": [1, -2.5, 1000, true, null], "e": null, "t": [1], "f": null, "r": "\\d", "u": "借用", "m": "x\ny", "j": null});
        assert_eq!(assigned(text, "X"), Ok(Some(want)));
        assert_eq!(assigned(text, "Y"), Ok(Some(json!(3))));
        assert_eq!(assigned(text, "Z"), Ok(None));
        assert_eq!(assigned("XY = 1\nX == 2\n", "X"), Ok(None));
    }

    #[test]
    fn what_is_broken_says_where() {
        for broken in ["X = {\n'a': ", "X = {\n'a': 'b\n", "X = [1, 2", "X = ", "X = {'a' 'b'"] {
            let error = assigned(broken, "X").expect_err(broken);
            assert!(error.to_string().contains("line"), "{error}");
        }
        let deep = format!("X = {}", "[".repeat(100_000));
        assert!(assigned(&deep, "X").is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic_or_go_on_for_ever(text in "[{}\\[\\]():,'\"#\\\\a-c\\n=fr .é]{0,80}") {
            let _ = assigned(&format!("X = {text}"), "X");
        }
    }
}
