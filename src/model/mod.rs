//! The nouns of a conversation with a model: what is asked ([`Call`]) and what comes back ([`Delta`], [`Answer`]).
//!
//! Owns the vocabulary that every floor above shares. Refuses to know any wire format: nothing here can be
//! serialised to a request, and no field is named after one vendor's JSON.

mod answer;
pub mod api_key;
mod delta_buffer;
pub mod endpoint;
pub mod environment;
pub mod error_class;
pub mod estimate;
pub mod image;
mod request;
pub mod sanitize;
pub mod target;

pub use answer::{Answer, Delta, DeltaKind, FinishReason, ToolCall, Usage};
pub use delta_buffer::Held;
pub use error_class::ErrorClass;
pub use image::Image;
pub use request::{
    Adjustment, Call, ChatRequest, LIMITS, Message, OpaqueRequest, Original, Params, Part, ProtocolId, Role, Service,
};
