//! Integration tests of the binary and the library, in one test runner so that the library is linked once.

#![allow(missing_docs, reason = "tests")]

mod architecture;
mod ask;
mod chat;
mod common;
mod compare;
#[cfg(unix)]
mod completions;
mod damaged_input;
mod docs;
mod edit;
#[cfg(unix)]
mod error_texts;
mod extras;
mod faults;
#[cfg(unix)]
mod help_texts;
#[cfg(unix)]
mod hostile_text;
mod init;
mod interop;
#[cfg(unix)]
mod interrupt;
#[cfg(unix)]
mod keys;
mod lists;
mod mock;
mod record;
mod rounds;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod terminal;
mod tls;
mod wire;
mod wire_binary;
