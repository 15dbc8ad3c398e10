//! Parses Python literals that are assigned to a name at the top level of a file.
//!
//! Supports strings, numbers, lists, tuples, dictionaries, `True`, `False` and `None`. Nothing is executed: any other
//! expression becomes null.

use serde_json::{Map, Number, Value};

use super::ImportError;

/// Maximum nesting depth, against stack overflow.
const MAX_DEPTH: usize = 64;

/// The literal that is assigned to `name`; `None` if there is no assignment.
pub(crate) fn parse_assignment(text: &str, name: &str) -> Result<Option<Value>, ImportError> {
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        let rest = line
            .strip_prefix(name)
            .map(str::trim_start)
            .filter(|rest| rest.starts_with([':', '=']) && !rest.starts_with("=="));
        // `NAME: dict = …` has a type annotation before the equals sign.
        if let Some(equals) = rest.and(line.find('=')) {
            let offset = line_start + equals + 1;
            let mut parser = LiteralParser { text, offset };
            return parser.value(0).map(Some).map_err(|problem| {
                let line_number = text[..parser.offset.min(text.len())].matches('\n').count() + 1;
                ImportError::Syntax(format!("cannot parse {name} as a literal: {problem} in line {line_number}"))
            });
        }
        line_start += line.len();
    }
    Ok(None)
}

struct LiteralParser<'t> {
    text: &'t str,
    offset: usize,
}

type ParseResult<T> = Result<T, &'static str>;

impl LiteralParser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.offset..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn consume(&mut self, expected: char) -> bool {
        let is_next = self.peek() == Some(expected);
        if is_next {
            self.offset += expected.len_utf8();
        }
        is_next
    }

    /// Skips white space, line ends and comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank_len = rest.len() - rest.trim_start().len();
            self.offset += blank_len;
            if !self.rest().starts_with('#') {
                return;
            }
            self.offset += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn value(&mut self, depth: usize) -> ParseResult<Value> {
        if depth > MAX_DEPTH {
            return Err("brackets nested too deep");
        }
        self.skip_blank();
        let value = match self.peek() {
            Some('{') => self.dictionary(depth)?,
            Some('[') => self.sequence(']', depth)?,
            Some('(') => self.sequence(')', depth)?,
            Some(_) if self.is_at_string() => self.strings()?,
            Some(_) => self.word(),
            None => return Err("unexpected end"),
        };
        self.skip_blank();
        // `"a" + b`, `f(x)`: not a literal.
        if self.peek().is_none_or(|next| matches!(next, ',' | '}' | ']' | ')' | ':')) || depth == 0 {
            return Ok(value);
        }
        self.skip_expression();
        Ok(Value::Null)
    }

    fn dictionary(&mut self, depth: usize) -> ParseResult<Value> {
        self.offset += 1;
        let mut map = Map::new();
        loop {
            self.skip_blank();
            if self.consume('}') {
                return Ok(Value::Object(map));
            }
            let key = self.value(depth + 1)?;
            self.skip_blank();
            // `**other` and sets have no colon.
            let value = if self.consume(':') { self.value(depth + 1)? } else { Value::Null };
            if let Value::String(key) = key {
                map.insert(key, value);
            }
            self.skip_blank();
            if !self.consume(',') && self.peek() != Some('}') {
                return Err("unclosed bracket");
            }
        }
    }

    fn sequence(&mut self, end: char, depth: usize) -> ParseResult<Value> {
        self.offset += 1;
        let mut items = Vec::new();
        loop {
            self.skip_blank();
            if self.consume(end) {
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.skip_blank();
            if !self.consume(',') && self.peek() != Some(end) {
                return Err("unclosed bracket");
            }
        }
    }

    fn is_at_string(&self) -> bool {
        let rest = self.rest().trim_start_matches(['r', 'R', 'b', 'B', 'u', 'U', 'f', 'F']);
        self.rest().len() - rest.len() <= 2 && rest.starts_with(['"', '\''])
    }

    /// Parses one string, or several adjacent strings.
    fn strings(&mut self) -> ParseResult<Value> {
        let (mut joined, mut all_literal) = (String::new(), true);
        while self.is_at_string() {
            let (text, is_literal) = self.string()?;
            joined.push_str(&text);
            all_literal &= is_literal;
            self.skip_blank();
        }
        Ok(if all_literal { Value::String(joined) } else { Value::Null })
    }

    fn string(&mut self) -> ParseResult<(String, bool)> {
        let prefix: String = self.rest().chars().take_while(char::is_ascii_alphabetic).collect();
        self.offset += prefix.len();
        let prefix = prefix.to_lowercase();
        let (is_raw, is_formatted) = (prefix.contains('r'), prefix.contains('f'));
        let quote = self.peek().ok_or("unexpected end")?;
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let end = if self.rest().starts_with(&triple) { triple } else { quote.to_string() };
        self.offset += end.len();
        let mut text = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.offset += end.len();
                return Ok((text, !is_formatted));
            }
            let Some(c) = self.peek() else { return Err("unclosed string") };
            self.offset += c.len_utf8();
            if c == '\n' && end.len() == 1 {
                return Err("unclosed string");
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some(escaped) = self.peek() else { return Err("unclosed string") };
            self.offset += escaped.len_utf8();
            match escaped {
                _ if is_raw => text.extend(['\\', escaped]),
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
        // Skip at least one character, so that parsing always advances.
        self.offset += if length == 0 { self.peek().map_or(0, char::len_utf8) } else { length };
        match word.as_str() {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => {
                let digits = word.replace('_', "");
                let integer = digits.parse::<i64>().ok().map(Number::from);
                integer.or_else(|| Number::from_f64(digits.parse().ok()?)).map_or(Value::Null, Value::Number)
            }
        }
    }

    /// Skips to the end of an expression: the next comma or closing bracket outside of it.
    fn skip_expression(&mut self) {
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
                    self.skip_blank();
                    continue;
                }
                _ => {}
            }
            self.offset += c.len_utf8();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_parsed_and_expressions_are_null() {
        let text = "import os\nX: dict = {  # a comment\n  'a': \"b\" 'c', \"n\": [1, -2.5, 1_000, True, None,],\n  'e': os.environ.get(\"K\", {1: ')'}), 't': (1,),\n  'f': f\"{x}\", 'r': r'\\d', 'u': '借用', 'm': '''x\ny''',\n  'j': \"a\" + b,\n}\nY = 3\n";
        let expected = json!({"a": "bc", "n": [1, -2.5, 1000, true, null], "e": null, "t": [1], "f": null, "r": "\\d", "u": "借用", "m": "x\ny", "j": null});
        assert_eq!(parse_assignment(text, "X"), Ok(Some(expected)));
        assert_eq!(parse_assignment(text, "Y"), Ok(Some(json!(3))));
        assert_eq!(parse_assignment(text, "Z"), Ok(None));
        assert_eq!(parse_assignment("XY = 1\nX == 2\n", "X"), Ok(None));
    }

    #[test]
    fn syntax_errors_name_the_line() {
        for invalid in ["X = {\n'a': ", "X = {\n'a': 'b\n", "X = [1, 2", "X = ", "X = {'a' 'b'"] {
            let error = parse_assignment(invalid, "X").expect_err(invalid);
            assert!(error.to_string().contains("line"), "{error}");
        }
        let deep = format!("X = {}", "[".repeat(100_000));
        assert!(parse_assignment(&deep, "X").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_terminates_without_panic(text in "[{}\\[\\]():,'\"#\\\\a-c\\n=fr .é]{0,80}") {
            let _ = parse_assignment(&format!("X = {text}"), "X");
        }
    }
}
