//! Reads the prompt from arguments, files and standard input, by the rules of `docs/input.md`.

use std::{io::Read, path::Path, time::Duration};

use bytes::Bytes;

use crate::{
    cli::CliError,
    model::{Image, Part, describe_error, image::detect_media_type},
    term::input::{self, MAX_INPUT},
};

/// Maximum size of an image; services accept 5 to 20 MB.
const MAX_IMAGE_BYTES: usize = 20 * 1024 * 1024;

/// The sources of a prompt.
#[derive(Clone, Debug, Default)]
pub(crate) struct PromptArgs<'a> {
    /// The words of the command line; `-` means standard input.
    pub(crate) words: &'a [String],
    /// Files to attach, and URLs of images.
    pub(crate) files: &'a [String],
    /// Do not read standard input.
    pub(crate) no_stdin: bool,
    /// Timeout for standard input that sends nothing; `None` for no timeout.
    pub(crate) stdin_timeout: Option<Duration>,
    /// The input may be empty, because a preset has its own prompt.
    pub(crate) allow_empty: bool,
}

/// The input of the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// Words, text files and standard input, in this order, separated by blank lines.
    pub(crate) text: String,
    /// The images among the files.
    pub(crate) images: Vec<Image>,
}

/// Reads the input from all sources.
pub(crate) fn read(args: &PromptArgs<'_>) -> Result<Input, CliError> {
    let has_dash = args.words.iter().any(|word| word == "-");
    if has_dash && args.no_stdin {
        return Err(CliError::usage("`-` and --no-stdin cannot be used together", "remove one of them"));
    }
    let words: Vec<&str> = args.words.iter().map(String::as_str).filter(|word| *word != "-").collect();
    let (mut parts, mut images) = (vec![words.join(" ")], Vec::new());
    for file in args.files {
        match read_attachment(file)? {
            Part::Text(text) => parts.push(text),
            Part::Image(image) => images.push(image),
        }
    }
    if has_dash || !(args.no_stdin || input::is_terminal()) {
        let timeout = if has_dash { None } else { args.stdin_timeout };
        let piped = input::decode_text(input::read(timeout)?, "standard input");
        parts.push(piped.trim_end_matches(['\n', '\r']).to_owned());
    }
    let text = parts.iter().filter(|part| !part.trim().is_empty()).cloned().collect::<Vec<_>>().join("\n\n");
    if text.is_empty() && images.is_empty() && !args.allow_empty {
        return Err(CliError::usage("the prompt is empty", "pass it as arguments, with -f, or on standard input"));
    }
    if text.len() > MAX_INPUT {
        return Err(CliError::Input(input::InputError::TooLong));
    }
    Ok(Input { text, images })
}

/// Reads an attachment: a text file under its name, an image, or the URL of one.
pub(crate) fn read_attachment(file: &str) -> Result<Part, CliError> {
    if file.starts_with("https://") || file.starts_with("http://") {
        return Ok(Part::Image(Image::Url(file.to_owned())));
    }
    let path = Path::new(file);
    let name = path.display();
    let bytes = read_file(path)?;
    if let Some(media_type) = detect_media_type(&bytes) {
        if bytes.len() > MAX_IMAGE_BYTES {
            return Err(CliError::usage(
                format!("image {name} is larger than 20 MiB"),
                "scale it down: no service accepts more",
            ));
        }
        return Ok(Part::Image(Image::Data { media_type, bytes: Bytes::from(bytes) }));
    }
    if bytes.len() > MAX_INPUT {
        return Err(CliError::usage(format!("{name} is larger than 32 MiB"), "shorten it: no model accepts that much"));
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
    if matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "webp" | "gif") {
        return Err(CliError::usage(
            format!("{name} is not an image, despite its extension"),
            "attach a PNG, JPEG, WebP or GIF file",
        ));
    }
    if memchr::memchr(0, &bytes).is_some() {
        return Err(CliError::usage(
            format!("{name} is neither text nor an image"),
            "attach a text, PNG, JPEG, WebP or GIF file",
        ));
    }
    let text = input::decode_text(bytes, &name.to_string());
    Ok(Part::Text(format!("<file name=\"{name}\">\n{}\n</file>", text.trim_end_matches('\n'))))
}

/// Reads the file, at most one byte beyond the limit.
fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let name = path.display();
    let failed = |error: std::io::Error| {
        CliError::usage(format!("cannot read {name}: {}", describe_error(&error)), "check the path")
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(CliError::usage(format!("{name} is a directory"), "attach its files one by one"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_prompt(words: &[&str], files: &[&Path]) -> Result<Input, CliError> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        read(&PromptArgs { words: &words, files: &files, no_stdin: true, ..PromptArgs::default() })
    }

    #[test]
    fn words_and_files_are_joined_with_a_blank_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "text\n").expect("file is written");
        let input = read_prompt(&["read", "this"], &[&path]).expect("valid prompt");
        assert_eq!(input.text, format!("read this\n\n<file name=\"{}\">\ntext\n</file>", path.display()));
    }

    #[test]
    fn images_are_detected_by_content_and_urls_are_passed_on() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("no-extension");
        std::fs::write(&path, b"\xff\xd8\xff\xe0\0\0").expect("file is written");
        let url = Path::new("https://h/a.png");
        let input = read_prompt(&["look"], &[&path, url]).expect("valid prompt");
        let bytes = Bytes::from_static(b"\xff\xd8\xff\xe0\0\0");
        let images = [Image::Data { media_type: "image/jpeg", bytes }, Image::Url("https://h/a.png".into())];
        assert_eq!((input.text.as_str(), input.images.as_slice()), ("look", &images[..]));
        assert!(read_prompt(&[], &[url]).is_ok(), "an image without text is a valid prompt");
    }

    #[test]
    fn invalid_prompts_are_rejected() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("file is written");
            path
        };
        let mut large = b"\x89PNG\r\n\x1a\n".to_vec();
        large.resize(MAX_IMAGE_BYTES + 1, 0);
        for (files, part) in [
            (vec![], "empty"),
            (vec![folder.path().to_owned()], "directory"),
            (vec![folder.path().join("none")], "cannot read"),
            (vec![file("b.bin", &[1, 0, 2])], "neither text nor an image"),
            (vec![file("c.png", b"<html>")], "not an image"),
            (vec![file("d.png", &large)], "larger than 20 MiB"),
        ] {
            let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
            let error = read_prompt(&[" "], &files).expect_err("invalid prompt").to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(read_prompt(&["-"], &[]).expect_err("conflicting options").to_string().contains("--no-stdin"));
    }
}
