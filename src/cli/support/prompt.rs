//! The prompt: arguments, files and standard input put together.
//!
//! Owns the rules of `docs/input.md`: nothing is dropped silently, and nothing hangs in silence.

use std::{io::Read, path::Path, time::Duration};

use bytes::Bytes;

use crate::cli::CliError;
use crate::{
    model::{Image, Part, image::media_type},
    term::input::{self, MAX_INPUT},
};

/// The largest picture that is sent; services take 5 to 20 MB.
const LARGEST_IMAGE: usize = 20 * 1024 * 1024;

/// Where a prompt comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct PromptArgs<'a> {
    /// The words of the command line; `-` stands for standard input.
    pub(crate) words: &'a [String],
    /// Files to attach, and addresses of pictures.
    pub(crate) files: &'a [String],
    /// Standard input is not read.
    pub(crate) no_stdin: bool,
    /// The longest silence of standard input.
    pub(crate) stdin_timeout: Option<Duration>,
    /// There may be nothing: a preset asks by itself.
    pub(crate) optional: bool,
}

/// What a person gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// The text; parts are separated by a blank line: words, files, standard input.
    pub(crate) text: String,
    /// The pictures among the files.
    pub(crate) images: Vec<Image>,
}

/// Reads everything there is.
pub(crate) fn read(args: &PromptArgs<'_>) -> Result<Input, CliError> {
    let wanted = args.words.iter().any(|word| word == "-");
    if wanted && args.no_stdin {
        return Err(CliError::usage("`-` asks for standard input and --no-stdin forbids it", "leave one of them out"));
    }
    let words: Vec<&str> = args.words.iter().map(String::as_str).filter(|word| *word != "-").collect();
    let (mut parts, mut images) = (vec![words.join(" ")], Vec::new());
    for file in args.files {
        match attached(file)? {
            Part::Text(text) => parts.push(text),
            Part::Image(image) => images.push(image),
        }
    }
    if wanted || !(args.no_stdin || input::is_terminal()) {
        let limit = if wanted { None } else { args.stdin_timeout };
        let piped = input::text(input::read(limit)?, "standard input");
        parts.push(piped.trim_end_matches(['\n', '\r']).to_owned());
    }
    let text = parts.iter().filter(|part| !part.trim().is_empty()).cloned().collect::<Vec<_>>().join("\n\n");
    if text.is_empty() && images.is_empty() && !args.optional {
        return Err(CliError::usage("the prompt is empty", "give it as arguments, with -f, or on standard input"));
    }
    if text.len() > MAX_INPUT {
        return Err(CliError::Input(input::InputError::TooLong));
    }
    Ok(Input { text, images })
}

/// A file's text under its name, a picture, or the address of one.
pub(crate) fn attached(file: &str) -> Result<Part, CliError> {
    if file.starts_with("https://") || file.starts_with("http://") {
        return Ok(Part::Image(Image::Url(file.to_owned())));
    }
    let path = Path::new(file);
    let shown = path.display();
    let bytes = bytes_of(path)?;
    if let Some(media_type) = media_type(&bytes) {
        if bytes.len() > LARGEST_IMAGE {
            return Err(CliError::usage(
                format!("{shown} is a picture of more than 20 MiB"),
                "no service takes more; make it smaller",
            ));
        }
        return Ok(Part::Image(Image::Data { media_type, bytes: Bytes::from(bytes) }));
    }
    if bytes.len() > MAX_INPUT {
        return Err(CliError::usage(format!("{shown} is longer than 32 MiB"), "no model reads that much"));
    }
    let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_lowercase();
    if matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "webp" | "gif") {
        return Err(CliError::usage(
            format!("{shown} is no picture, whatever its name says"),
            "PNG, JPEG, WebP and GIF are known by their content",
        ));
    }
    if memchr::memchr(0, &bytes).is_some() {
        return Err(CliError::usage(
            format!("{shown} is neither a text nor a picture"),
            "text, PNG, JPEG, WebP and GIF can be attached",
        ));
    }
    let text = input::text(bytes, &shown.to_string());
    Ok(Part::Text(format!("<file name=\"{shown}\">\n{}\n</file>", text.trim_end_matches('\n'))))
}

/// The file's bytes, and not many more than can be used.
fn bytes_of(path: &Path) -> Result<Vec<u8>, CliError> {
    let shown = path.display();
    let failed = |error: std::io::Error| CliError::usage(format!("{shown} cannot be read: {error}"), "check its path");
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(CliError::usage(format!("{shown} is a folder"), "attach its files one by one"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str], files: &[&Path]) -> Result<Input, CliError> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        read(&PromptArgs { words: &words, files: &files, no_stdin: true, ..PromptArgs::default() })
    }

    #[test]
    fn words_and_files_are_joined_with_a_blank_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "text\n").expect("a file");
        let input = given(&["read", "this"], &[&path]).expect("a prompt");
        assert_eq!(input.text, format!("read this\n\n<file name=\"{}\">\ntext\n</file>", path.display()));
    }

    #[test]
    fn pictures_are_known_by_their_content_and_addresses_go_as_they_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("no-ending");
        std::fs::write(&path, b"\xff\xd8\xff\xe0\0\0").expect("a file");
        let address = Path::new("https://h/a.png");
        let input = given(&["look"], &[&path, address]).expect("a prompt");
        let bytes = Bytes::from_static(b"\xff\xd8\xff\xe0\0\0");
        let images = [Image::Data { media_type: "image/jpeg", bytes }, Image::Url("https://h/a.png".into())];
        assert_eq!((input.text.as_str(), input.images.as_slice()), ("look", &images[..]));
        assert!(given(&[], &[address]).is_ok(), "a picture alone can be asked about");
    }

    #[test]
    fn what_makes_no_prompt_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        };
        let mut large = b"\x89PNG\r\n\x1a\n".to_vec();
        large.resize(LARGEST_IMAGE + 1, 0);
        for (files, word) in [
            (vec![], "empty"),
            (vec![folder.path().to_owned()], "folder"),
            (vec![folder.path().join("none")], "cannot be read"),
            (vec![file("b.bin", &[1, 0, 2])], "neither a text nor a picture"),
            (vec![file("c.png", b"<html>")], "no picture"),
            (vec![file("d.png", &large)], "more than 20 MiB"),
        ] {
            let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
            let error = given(&[" "], &files).expect_err("no prompt").to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(given(&["-"], &[]).expect_err("forbidden").to_string().contains("--no-stdin"));
    }
}
