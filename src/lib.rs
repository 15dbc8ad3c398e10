//! mmchat
pub mod attempt;
pub mod chat;
pub mod endpoint;
pub mod engine;
pub mod environment;
pub mod keys;
pub mod plan;
pub mod protocol;
pub mod route;
pub mod secret;
pub mod target;
pub mod transport;
