//! mmchat
pub mod attempt;
pub mod chat;
pub mod cli;
pub mod config;
pub mod endpoint;
pub mod engine;
pub mod environment;
pub mod keys;
pub mod mock;
pub mod plan;
pub mod protocol;
pub mod render;
pub mod route;
pub mod secret;
pub mod target;
pub mod term;
pub mod transport;
