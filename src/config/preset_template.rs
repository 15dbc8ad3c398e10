//! Parses and renders the templates of presets, within limits: a preset may come from someone else.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error as _,
    io,
};

use minijinja::{Environment, Error, ErrorKind, Template, UndefinedBehavior, Value};

/// Maximum number of steps of a template, against endless loops.
const MAX_STEPS: u64 = 1_000_000;
/// Maximum size of the output, in bytes; no model reads more.
const MAX_OUTPUT_BYTES: usize = 32 * 1024 * 1024;
/// Maximum number of operators in one expression, and of branches in a template. Real ones have a few.
const MAX_OPERATORS: usize = 200;
const OPERATORS: &str = "-+~*/%|.([{!=<>";
const WORD_OPERATORS: [&str; 7] = ["not", "and", "or", "is", "in", "if", "else"];

/// Checks that a template can be parsed.
pub(super) fn check(text: &str) -> Result<(), Error> {
    parse(&new_environment(), text).map(drop)
}

fn parse<'e>(environment: &'e Environment<'_>, text: &'e str) -> Result<Template<'e, 'e>, Error> {
    check_size(text)?;
    environment.template_from_str(text)
}

/// Rejects templates that would overflow the stack: the library parses, compiles and drops operators recursively.
fn check_size(text: &str) -> Result<(), Error> {
    let too_many = |what| Error::new(ErrorKind::SyntaxError, format!("more than {MAX_OPERATORS} {what}"));
    let (mut rest, mut branches) = (text, 0);
    while let Some(start) = rest.find('{') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix('#') {
            rest = comment.split_once("#}").map_or("", |(_, rest)| rest);
        } else if let Some(tag) = rest.strip_prefix(['{', '%']) {
            let Tag { operators, length } = scan_tag(tag);
            let name = tag[..length].trim_start_matches(['-', '+']).split_whitespace().next();
            branches += usize::from(name == Some("elif"));
            if operators > MAX_OPERATORS {
                return Err(too_many("operators in one expression"));
            }
            rest = &tag[length..];
            if name == Some("raw") {
                rest = rest.split_once("endraw").map_or("", |(_, rest)| rest);
            }
        }
    }
    if branches > MAX_OPERATORS { Err(too_many("branches")) } else { Ok(()) }
}

/// A tag of a template.
struct Tag {
    operators: usize,
    length: usize,
}

/// Scans the tag whose content begins `text`, as the library does: it ends outside of strings and brackets.
fn scan_tag(text: &str) -> Tag {
    let (mut operators, mut open_brackets, mut quote, mut word) = (0, 0usize, None, String::new());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(_) if c == '\\' => _ = chars.next(),
            Some(open) => quote = quote.filter(|_| c != open),
            None => {
                if c.is_alphanumeric() || c == '_' {
                    word.push(c);
                    continue;
                }
                operators += usize::from(WORD_OPERATORS.contains(&&*std::mem::take(&mut word)));
                operators += usize::from(OPERATORS.contains(c));
                quote = matches!(c, '"' | '\'').then_some(c);
                let ends = matches!(c, '}' | '%') && chars.peek().is_some_and(|(_, next)| *next == '}');
                if ends && open_brackets == 0 {
                    return Tag { operators, length: at };
                }
                match c {
                    '(' | '[' | '{' => open_brackets += 1,
                    ')' | ']' | '}' => open_brackets = open_brackets.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
    Tag { operators, length: text.len() }
}

fn new_environment<'a>() -> Environment<'a> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(MAX_STEPS));
    environment
}

/// The variables that a template uses.
pub(super) fn variables(text: &str) -> HashSet<String> {
    let environment = new_environment();
    let template = parse(&environment, text);
    let globals: HashSet<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    template
        .map(|template| template.undeclared_variables(false))
        .unwrap_or_default()
        .difference(&globals)
        .cloned()
        .collect()
}

/// Renders a template.
pub(super) fn render(text: &str, values: &BTreeMap<&str, &str>) -> Result<String, Error> {
    let environment = new_environment();
    let template = parse(&environment, text)?;
    let mut out = BoundedWriter::default();
    template.render_captured_to(Value::from_pairs(values.iter().map(|(name, value)| (*name, *value))), &mut out)?;
    Ok(String::from_utf8_lossy(&out.0).into_owned())
}

/// The error as one line, with its position and cause.
pub(super) fn describe_error(error: &Error) -> String {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {MAX_STEPS} steps"),
        ErrorKind::WriteFailure => error.source().map_or_else(|| error.to_string(), ToString::to_string),
        _ => error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind())),
    };
    format!("{line}{reason}")
}

/// A writer that rejects more than the maximum output.
#[derive(Default)]
struct BoundedWriter(Vec<u8>);

impl io::Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("the output exceeds 32 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_would_overflow_the_stack_are_rejected() {
        let chain = |start: &str, part: &str, end: &str| format!("{start}{}{end}", part.repeat(20_000));
        for template in [
            chain("{{ ", "-", "1 }}"),
            chain("{{ ", "not ", "1 }}"),
            chain("{{ a", ".a", " }}"),
            chain("{{ a", "[0]", " }}"),
            chain("{{ a", "()", " }}"),
            chain("{{ 1", "|string", " }}"),
            chain("{{ 2", "**2", " }}"),
            chain("{{ 1", "~1", " }}"),
            chain("{{ ", "1 if 1 else ", "1 }}"),
            chain("{{ 1", " and 1", " }}"),
            chain("{{ 1", " is defined", " }}"),
            chain("{% if 1", " or 1", " %}{% endif %}"),
            chain("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
            chain("{{ '}}'", "~1", " }}"),
            chain("{{ \"\\\" }}\"", "~1", " }}"),
            chain("{{ {1:{2:3}}", "~1", " }}"),
            chain("{# {{ ' #}{{ 1", "~1", " }}"),
            chain("{% raw %}{{ '{% endraw %}{{ 1", "~1", " }}"),
            chain("{{ ", "(", "1 }}"),
            chain("{{ ", "[", "1 }}"),
            chain("", "{% for a in [1] %}", ""),
            chain("{{ ", "{1:", "1 }}"),
        ] {
            let error = check(&template).expect_err("too deep");
            assert!(describe_error(&error).len() < 200, "{error}");
        }
    }

    #[test]
    fn long_templates_without_deep_expressions_are_valid() {
        let comment = format!("{{# {{{{ {} #}}{{{{ a }}}}", "~1".repeat(20_000));
        let quoted = format!("{{{{ '{}' }}}}", "-".repeat(20_000));
        for template in ["{{ a }} is - (b) | c. ".repeat(20_000), "elif ".repeat(500), comment, quoted] {
            check(&template).expect("valid");
        }
        let largest = format!("{{{{ a{} }}}}", "|string".repeat(MAX_OPERATORS));
        assert_eq!(render(&largest, &BTreeMap::from([("a", "x")])).expect("valid"), "x");
    }
}
