//! Vendor-neutral types shared by all layers: requests ([`ModelRequest`]), responses ([`Delta`], [`Answer`]), error
//! classes, API keys, endpoints and targets.
//!
//! Independent of wire formats: no type here is serialized into a request, and no field is named after one vendor's
//! JSON.

mod answer;
pub mod api_key;
pub mod clock;
mod delta_buffer;
mod describe;
pub mod endpoint;
pub mod environment;
pub mod error_class;
pub mod estimate;
pub mod image;
pub mod key_mask;
mod request;
pub mod sanitize;
pub mod target;

pub use answer::{Answer, Delta, DeltaKind, FinishReason, ToolCall, Usage};
pub use delta_buffer::DeltaBuffer;
pub use describe::{describe_error, describe_status, plural};
pub use error_class::ErrorClass;
pub use image::Image;
pub use request::{
    ChatRequest, MAX_TOKENS_FIELDS, Message, ModelRequest, OpaqueRequest, Operation, ParamWorkaround, Params, Part,
    ProtocolId, RawRequest, RequestSummary, Role, SystemRole,
};
