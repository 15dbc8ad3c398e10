//! Tests Markdown rendering: blocks, marks, wrapping and streaming.

use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::model::sanitize::sanitize;

fn render(text: &str, width: usize, step: usize) -> String {
    let (mut markdown, mut out) = (MarkdownRenderer::new(width), String::new());
    let characters: Vec<char> = text.chars().collect();
    for chunk in characters.chunks(step) {
        markdown.push(&chunk.iter().collect::<String>(), &mut out);
    }
    markdown.finish(&mut out);
    out
}

fn plain(text: &str, width: usize) -> String {
    sanitize(&render(text, width, 1000))
}

#[test]
fn blocks_and_marks_are_rendered() {
    assert_eq!(plain("# Title\ntext", 40), "Title\ntext\n");
    assert_eq!(plain("- one\n* two\n1. three", 40), "• one\n• two\n1. three\n");
    assert_eq!(plain("> said", 40), "│ said\n");
    assert_eq!(plain("a **b** _c_ `d_e` snake_case 2 * 3", 60), "a b c d_e snake_case 2 * 3\n");
    assert_eq!(plain("\\*no\\*", 40), "*no*\n");
    assert_eq!(plain("---", 10), "─────────\n");
    assert_eq!(plain("```rust\nlet a = \"*x*\";\n# no\n```\nend", 40), "```rust\nlet a = \"*x*\";\n# no\n```\nend\n");
    assert_eq!(plain("| a | b |\n|---|---|", 40), "| a | b |\n|---|---|\n");
    assert!(render("**b**", 40, 9).contains("\u{1b}[1mb"));
}

#[test]
fn words_are_wrapped_and_lists_get_a_hanging_indent() {
    assert_eq!(plain("one two three four", 10), "one two\nthree\nfour\n");
    assert_eq!(plain("- one two three", 10), "• one two\n  three\n");
    assert_eq!(plain("借用检查器在编译期运行。它记录", 12), "借用检查\n器在编译\n期运行。\n它记录\n");
}

#[test]
fn word_longer_than_a_row_is_broken() {
    assert_eq!(plain("1. aaaaaaaaaaaaaaaaa", 20), "1. \n   aaaaaaaaaaaaaaaa\n   a\n");
    let bold = render("**aaaaaaaaaaaa** b", 11, 1000);
    assert_eq!(sanitize(&bold), "aaaaaaaaaa\naa b\n");
    assert_eq!(bold.matches('a').count(), 12);
}

#[test]
fn first_word_is_shown_as_soon_as_it_arrives() {
    let (mut markdown, mut out) = (MarkdownRenderer::new(80), String::new());
    markdown.push("Hel", &mut out);
    assert_eq!(out, "Hel");
    markdown.push("lo", &mut out);
    assert_eq!(out, "Hello");
}

#[test]
fn words_do_not_depend_on_how_the_text_was_split() {
    let text = "# T\n\nSome *text* with `code` and 中文，好。\n\n```\nlet x;\n```\n- a\n- b **c**\n\n---\nend";
    let words = |step| sanitize(&render(text, 30, step)).split_whitespace().collect::<String>();
    for step in 1..8 {
        assert_eq!(words(step), words(1000), "in steps of {step}");
    }
}

fn column(text: &str, cells: usize, is_plain: bool, step: usize) -> String {
    let (mut markdown, mut out) = (MarkdownRenderer::for_column(cells, is_plain), String::new());
    let graphemes: Vec<&str> = text.graphemes(true).collect();
    for chunk in graphemes.chunks(step) {
        markdown.push(&chunk.concat(), &mut out);
    }
    markdown.finish(&mut out);
    sanitize(&out)
}

#[test]
fn column_lays_out_tables_that_fit_and_breaks_code() {
    assert_eq!(column("| a | b |\n|---|---|\n| 1 | 2 |\n\nend", 20, false, 3), "a │ b\n──┼──\n1 │ 2\n\nend\n");
    assert_eq!(column("x\n| a | b |\ny", 20, false, 2), "x\n| a | b |\ny\n");
    assert_eq!(column("```\nabcdefghijkl\n```\n", 10, false, 4), "```\nabcdefghij\nkl\n```\n");
    assert_eq!(column("| abcdef | ghijkl |\n|---|---|", 10, false, 9), "| abcdef |\n ghijkl |\n|---|---|\n");
    assert_eq!(column("# *a*\n- b | c", 20, true, 1), "# *a*\n- b | c\n");
}

proptest! {
    #[test]
    fn rows_fit_the_terminal_and_only_styles_are_escape_sequences(
        text in "([a-z]{1,12}|[借用检查器。，]{1,6}|[*_`#>|-]{1,4}|👋|\\t| |\n|1\\. ){0,60}",
        width in 20usize..100,
        step in 1usize..9,
    ) {
        let out = render(&text, width, step);
        for code in out.split('\u{1b}').skip(1) {
            let end = code.find(|c: char| c.is_ascii_alphabetic()).expect("a final byte");
            prop_assert_eq!(&code[end..=end], "m", "only styles: {:?}", code);
        }
        for (is_plain, step) in [(false, step), (true, step), (false, 1000)] {
            for row in column(&text, width, is_plain, step).lines() {
                prop_assert!(row.width() <= width, "{row:?} in a column of {width}");
            }
        }
        let fenced = text.contains("```") || text.contains('|');
        for row in sanitize(&out).lines().filter(|_| !fenced) {
            prop_assert!(row.width() < width, "{row:?} in {width}");
        }
    }
}
