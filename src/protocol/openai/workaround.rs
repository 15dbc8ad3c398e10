//! Finds the change by which a model that refuses a part of a request accepts it.
//!
//! Services word a refusal in many ways; the ones here are from the bodies in `tests/fixtures/errors/`. A refused value,
//! such as a temperature out of range, is an error of the request and is not changed.

use super::{
    echo::without_echo,
    encode::{STREAM_OPTIONS, encode_chat, encode_opaque, token_limit},
    refusal::Refusal,
    system_role,
};
use crate::{
    model::{ChatRequest, ErrorClass, MAX_TOKENS_FIELDS, ModelRequest, ParamWorkaround, SystemRole, target::Target},
    protocol::{CallError, framing::json_splice::RawObject, numbers::without_separators},
};

/// Fields without which the request means something else.
const REQUIRED: [&str; 20] = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "response_format",
    "modalities",
    "audio",
    "n",
    "stop",
    "dimensions",
    "encoding_format",
    "documents",
    "query",
    "size",
    "suffix",
];

/// The change that may avoid `error`.
pub(super) fn workaround_for(error: &CallError, target: &Target, request: &ModelRequest) -> Option<ParamWorkaround> {
    if !matches!(error.class, ErrorClass::Request | ErrorClass::Context | ErrorClass::Server) {
        return None;
    }
    let encoded = match request {
        ModelRequest::Chat(chat) => encode_chat(target, chat),
        ModelRequest::Opaque(opaque) => encode_opaque(target, opaque),
    };
    let encoded = encoded.ok()?;
    let sent = RawObject::parse(&encoded).ok()?;
    // A refusal that the client has sent as a value is not one of the service.
    let message = without_echo(&error.message, &encoded, |text| Refusal::of_text(text).is_any());
    let refusal = Refusal::new(error, &message);
    // Servers of local models report the error of a prompt template as their own.
    if error.class == ErrorClass::Server && !refusal.is_of_system_role() {
        return None;
    }
    let chat = request.as_chat();
    let sets_system_role =
        |chat: &ChatRequest| chat.workarounds.iter().any(|workaround| matches!(workaround, ParamWorkaround::System(_)));
    if chat.is_some() && refusal.is_of_streaming() && request.is_streaming() {
        return Some(ParamWorkaround::Stream(false));
    }
    if chat.is_some() && refusal.is_of_one_object() && !request.is_streaming() {
        return Some(ParamWorkaround::Stream(true));
    }
    if chat.is_some_and(|chat| !sets_system_role(chat)) && refusal.is_of_system_role() && system_role::is_in(&sent) {
        return Some(ParamWorkaround::System(SystemRole::Fold));
    }
    if error.class == ErrorClass::Request && refusal.is_of_parameter() {
        let name = sent.names().filter(|name| refusal.names(name)).find(|name| !REQUIRED.contains(name));
        // `param` names the refused field; the text may also name one to use in its place.
        let named = sent.names().find(|name| error.param.as_deref() == Some(*name)).or(name)?;
        return parameter_workaround(error, named, &sent);
    }
    // The options have one use only, so any error that names them refuses them.
    if error.class == ErrorClass::Request && refusal.names(STREAM_OPTIONS) && sent.get(STREAM_OPTIONS).is_some() {
        return Some(ParamWorkaround::Omit(STREAM_OPTIONS.to_owned()));
    }
    chat.and_then(|chat| lowered_limit(error, target, chat, &sent)).map(ParamWorkaround::MaxTokens)
}

fn parameter_workaround(error: &CallError, name: &str, sent: &RawObject<'_>) -> Option<ParamWorkaround> {
    let [older, newer] = MAX_TOKENS_FIELDS;
    let rename = |from: &str, to: &str| Some(ParamWorkaround::Rename(from.to_owned(), to.to_owned()));
    match name {
        // A token limit is never dropped, only sent under the other name.
        _ if MAX_TOKENS_FIELDS.contains(&name) && MAX_TOKENS_FIELDS.iter().all(|name| sent.get(name).is_some()) => {
            Some(ParamWorkaround::Omit(name.to_owned()))
        }
        _ if name == older && error.message.contains(newer) => rename(older, newer),
        _ if name == newer => rename(newer, older),
        _ if name == older || REQUIRED.contains(&name) => None,
        _ => Some(ParamWorkaround::Omit(name.to_owned())),
    }
}

/// Whether a change that has helped is right for later requests, too: a refused value or combination may be accepted
/// with the next one.
pub(super) fn is_general(error: &CallError, workaround: &ParamWorkaround) -> bool {
    match workaround {
        ParamWorkaround::Rename(..) | ParamWorkaround::Stream(_) | ParamWorkaround::System(_) => true,
        ParamWorkaround::Omit(_) => !Refusal::new(error, &error.message).is_of_value(),
        // It depends on the length of the prompt.
        ParamWorkaround::MaxTokens(_) => false,
    }
}

/// A smaller token limit, from the number in an error that rejects the current one as too large. Applies only to a
/// limit that was derived from the cost limit, not to one set by the user or the config.
fn lowered_limit(error: &CallError, target: &Target, chat: &ChatRequest, sent: &RawObject<'_>) -> Option<u64> {
    /// Smaller numbers in the message are not token limits of any model.
    const MIN_LIMIT: u64 = 256;
    const MIN_CONTEXT: u64 = 1024;
    let is_explicit = chat.params.max_output_tokens().or(target.params.max_output_tokens()).is_some();
    let current = token_limit(sent).1.filter(|_| chat.budget_max_tokens.is_some() && !is_explicit)?;
    let mut numbers = standalone_numbers(&error.message).into_iter();
    match error.class {
        ErrorClass::Request if MAX_TOKENS_FIELDS.iter().any(|name| error.message.contains(name)) => {
            numbers.filter(|number| (MIN_LIMIT..current).contains(number)).max()
        }
        // The number is the size of the context window, which holds prompt and answer.
        ErrorClass::Context => {
            let context_window = numbers.find(|&number| number >= MIN_CONTEXT && number != current)?;
            let prompt_tokens = chat.estimated_tokens();
            // The estimate may be too low: reserve an eighth of it and 16 tokens.
            let free_tokens = context_window.checked_sub(prompt_tokens + prompt_tokens / 8 + 16)?;
            (free_tokens > 0).then(|| free_tokens.min(current - 1))
        }
        _ => None,
    }
}

/// The standalone integers in a message, excluding those in model names, versions and request ids.
fn standalone_numbers(message: &str) -> Vec<u64> {
    let message = without_separators(message);
    let end = message.to_ascii_lowercase().find("request id").unwrap_or(message.len());
    let words = message[..end].split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')));
    words.filter_map(|word| word.trim_end_matches('.').parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::{
        model::{Message, Params, RawRequest, RequestSummary, Role, target::testing::target},
        protocol::openai::ID,
    };

    fn chat() -> ChatRequest {
        ChatRequest {
            messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "hi")],
            stream: true,
            ..ChatRequest::default()
        }
    }

    fn workaround_for(error: &CallError, target: &Target, chat: &ChatRequest) -> Option<ParamWorkaround> {
        super::workaround_for(error, target, &ModelRequest::Chat(chat.clone()))
    }

    fn rejected(message: &str) -> CallError {
        CallError::new(ErrorClass::Request, message)
    }

    #[test]
    fn refused_parameter_is_omitted_in_any_wording() {
        let with_temperature = ChatRequest { params: Params { temperature: Some(0.3), ..Params::default() }, ..chat() };
        for message in [
            "`temperature` is deprecated for this model.",
            "invalid temperature: only 1 is allowed for this model",
            "property 'temperature' is unsupported",
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
            "temperature is not supported with this model",
            "Argument not supported on this model: temperature",
            "[{'type': 'extra_forbidden', 'loc': ('body', 'temperature'), 'msg': 'Extra inputs are not permitted'}]",
            "Unrecognized request argument supplied: temperature",
            "This model does not support the temperature parameter",
            "Unknown name \"temperature\": Cannot find field.",
            "temperature 参数不支持",
            "Unexpected fields: {'temperature'}",
            "temperature isn't supported here",
            "`temperature` cannot be used with reasoning models",
            "'temperature' is not a supported parameter",
            "unexpected argument: temperature",
            "未知参数 temperature",
        ] {
            let omit = Some(ParamWorkaround::Omit("temperature".into()));
            assert_eq!(workaround_for(&rejected(message), &target("a"), &with_temperature), omit, "{message}");
        }
        for message in
            ["Invalid value for temperature: 0.3", "temperature 取值范围 (0,1)", "temperature must be below 1"]
        {
            assert_eq!(workaround_for(&rejected(message), &target("a"), &with_temperature), None, "{message}");
        }
        let camel_case = "Argument not supported on this model: presencePenalty";
        let params =
            Params { extra: [("presence_penalty".to_owned(), json!(1))].into_iter().collect(), ..Params::default() };
        let omit = Some(ParamWorkaround::Omit("presence_penalty".into()));
        assert_eq!(workaround_for(&rejected(camel_case), &target("a"), &ChatRequest { params, ..chat() }), omit);
    }

    #[test]
    fn system_role_that_a_template_refuses_is_folded() {
        let fold = Some(ParamWorkaround::System(SystemRole::Fold));
        for class in [ErrorClass::Request, ErrorClass::Server] {
            let error = CallError::new(class, "jinja2.exceptions.TemplateError: System role not supported");
            assert_eq!(workaround_for(&error, &target("a"), &chat()), fold, "{class}");
        }
        let error = CallError::new(ErrorClass::Server, "Unsupported parameter: 'temperature'");
        assert_eq!(workaround_for(&error, &target("a"), &chat()), None, "a failure of the server");
    }

    #[test]
    fn refusal_that_the_client_has_sent_is_not_learned() {
        for value in ["Unsupported parameter: 'reasoning_effort'", "does not support 'system' with this model"] {
            let message = format!("Invalid value: '{value}'. Supported values are: 'low' and 'high'.");
            let params = Params { reasoning_effort: Some(value.to_owned()), ..Params::default() };
            let sent = ChatRequest { params, ..chat() };
            assert_eq!(workaround_for(&rejected(&message), &target("a"), &sent), None, "{value}");
            assert!(
                workaround_for(
                    &rejected(value),
                    &target("a"),
                    &ChatRequest {
                        params: Params { reasoning_effort: Some("low".into()), ..Params::default() },
                        ..chat()
                    }
                )
                .is_some(),
                "{value}"
            );
        }
    }

    #[test]
    fn fields_that_carry_the_meaning_of_the_request_are_never_omitted() {
        let body = br#"{"model":"m","messages":[],"tools":[{"type":"function"}],"n":2,"stop":["x"],"response_format":{},"max_tokens":5,"seed":1}"#;
        let raw_request = Some(RawRequest {
            protocol: ID,
            body: Bytes::from_static(body),
            summary: RequestSummary::default(),
            removed_fields: Vec::new(),
        });
        let chat = ChatRequest { stream: true, raw_request, ..ChatRequest::default() };
        let workaround = |message: &str| workaround_for(&rejected(message), &target("a"), &chat);
        for name in ["tools", "n", "stop", "response_format", "max_tokens"] {
            assert_eq!(workaround(&format!("Unsupported parameter: '{name}'.")), None, "{name}");
        }
        let renamed = ParamWorkaround::Rename("max_tokens".into(), "max_completion_tokens".into());
        let text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.";
        assert_eq!(workaround(text), Some(renamed));
        let omit = |name: &str| Some(ParamWorkaround::Omit(name.into()));
        assert_eq!(workaround("Unrecognized request argument supplied: stream_options"), omit("stream_options"));
        assert_eq!(workaround("Unsupported parameter: 'seed'"), omit("seed"), "also if the client has set it");
    }

    #[test]
    fn refused_streaming_and_system_role_are_changed() {
        let workaround =
            |message: &str, stream| workaround_for(&rejected(message), &target("a"), &ChatRequest { stream, ..chat() });
        let to_object = Some(ParamWorkaround::Stream(false));
        assert_eq!(workaround("Your organization must be verified to stream this model.", true), to_object);
        let value = "Unsupported value: 'stream' does not support true with this model. Only the default (false) value is supported.";
        assert_eq!(workaround(value, true), to_object);
        let to_stream = Some(ParamWorkaround::Stream(true));
        assert_eq!(
            workaround("This model only support stream mode, please enable the stream parameter", false),
            to_stream
        );
        let thinking = "parameter.enable_thinking must be set to false for non-streaming calls";
        assert_eq!(workaround(thinking, false), to_stream);
        let fold = Some(ParamWorkaround::System(SystemRole::Fold));
        assert_eq!(workaround("Non-streaming is not supported", false), to_stream);
        assert_eq!(workaround("streaming not supported for this model", true), to_object);
        for message in [
            "Only user and assistant roles are supported!",
            "Unsupported value: 'messages[0].role' does not support 'developer' with this model.",
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "System role not supported",
            "Developer instruction is not enabled for models/gemma-3-27b-it",
        ] {
            assert_eq!(workaround(message, true), fold, "{message}");
        }
        let folded = ChatRequest { workarounds: fold.into_iter().collect(), ..chat() };
        assert_eq!(workaround_for(&rejected("System role not supported"), &target("a"), &folded), None);
    }

    #[test]
    fn refused_values_and_combinations_are_not_remembered() {
        let omit = |name: &str| ParamWorkaround::Omit(name.into());
        let general = |message: &str, name| is_general(&rejected(message), &omit(name));
        assert!(general("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"));
        assert!(general("temperature does not support 0.3. Only the default (1) value is supported.", "temperature"));
        assert!(!general("`temperature` and `top_p` cannot both be specified for this model.", "temperature"));
        assert!(!general("Unsupported value: 'reasoning_effort' does not support 'minimal'.", "reasoning_effort"));
        assert!(!general("`top_k` is not supported when thinking is enabled.", "top_k"));
        assert!(!general("top_p cannot be used together with temperature", "top_p"));
        let tools = "Function tools with reasoning_effort are not supported for this model";
        assert!(!general(tools, "reasoning_effort"), "the model may accept it without tools");
        assert!(!general("The model does not support setting thinking_budget to 0.", "thinking_budget"));
        assert!(general("The temperature parameter is not supported when using this model", "temperature"));
        assert!(!general("temperature is not supported when using thinking", "temperature"));
        let both = "`temperature` and `top_p` cannot both be set when using this model.";
        assert!(!general(both, "temperature"));
    }

    #[test]
    fn limit_from_cost_is_lowered_to_the_number_in_the_error() {
        let workaround = |class: ErrorClass, message: &str, budget_max_tokens: Option<u64>, max_tokens: Option<u64>| {
            let params = Params { max_tokens, ..Params::default() };
            workaround_for(
                &CallError::new(class, message),
                &target("a"),
                &ChatRequest { params, budget_max_tokens, ..chat() },
            )
        };
        let text = "max_tokens is too large: 16384. This model supports at most 4096 completion tokens, whereas you provided 16384.";
        let budget = Some(16_384);
        assert_eq!(workaround(ErrorClass::Request, text, budget, None), Some(ParamWorkaround::MaxTokens(4096)));
        assert_eq!(workaround(ErrorClass::Request, text, budget, Some(16_384)), None, "the limit was set explicitly");
        assert_eq!(workaround(ErrorClass::Request, text, None, None), None);
        let separated = "max_tokens is too large: 16,384. This model supports at most 8,192 completion tokens.";
        assert_eq!(workaround(ErrorClass::Request, separated, budget, None), Some(ParamWorkaround::MaxTokens(8192)));
        let range = "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]";
        assert_eq!(workaround(ErrorClass::Request, range, budget, None), Some(ParamWorkaround::MaxTokens(8192)));
        // The prompt has about 3 tokens, plus the reserve of 16.
        let free = |context: u64| Some(ParamWorkaround::MaxTokens((context - 19).min(16_383)));
        for (context, text) in [
            (
                4096,
                "'max_tokens' is too large: 16384. This model's maximum context length is 4096 tokens and your request has 12 input tokens (16384 > 4096 - 12).",
            ),
            (
                16_385,
                "This model's maximum context length is 16385 tokens. However, you requested 16884 tokens (500 in the messages, 16384 in the completion).",
            ),
            (32_768, "maximum context length is 32768 tokens, however you requested 36384"),
        ] {
            assert_eq!(workaround(ErrorClass::Context, text, budget, None), free(context), "{text}");
        }
        let rename = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead. (request id: 20251124x4096Kq93z)";
        let renamed = Some(ParamWorkaround::Rename("max_tokens".into(), "max_completion_tokens".into()));
        assert_eq!(workaround(ErrorClass::Request, rename, budget, None), renamed);
        let vague = "max_tokens is too large for gpt-4o-2024-08-06 (request id: 2025 4096)";
        assert_eq!(workaround(ErrorClass::Request, vague, budget, None), None);
        let chat_with_workaround =
            ChatRequest { budget_max_tokens: budget, workarounds: vec![ParamWorkaround::MaxTokens(4096)], ..chat() };
        let sent = encode_chat(&target("a"), &chat_with_workaround).expect("valid request");
        assert!(String::from_utf8_lossy(&sent).contains("\"max_tokens\":4096"));
    }

    #[test]
    fn rejected_parameter_is_renamed_or_omitted() {
        let mut chat = chat();
        chat.params = Params { temperature: Some(0.0), max_tokens: Some(5), ..Params::default() };
        let workaround = |code: &str, param: Option<&str>, message: &str| {
            let mut error = CallError::new(ErrorClass::Request, message);
            error.code = Some(code.to_owned());
            error.param = param.map(str::to_owned);
            workaround_for(&error, &target("a"), &chat)
        };
        let text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        assert_eq!(
            workaround("unsupported_parameter", Some("max_tokens"), text),
            Some(ParamWorkaround::Rename("max_tokens".into(), "max_completion_tokens".into()))
        );
        let text = "Unsupported value: 'temperature' does not support 0 with this model.";
        assert_eq!(
            workaround("unsupported_value", Some("temperature"), text),
            Some(ParamWorkaround::Omit("temperature".into()))
        );
        assert_eq!(
            workaround("", None, "Unexpected fields: {'stream_options'}"),
            Some(ParamWorkaround::Omit("stream_options".into()))
        );
        assert_eq!(workaround("unsupported_parameter", Some("logprobs"), "no logprobs"), None);
        assert_eq!(workaround("", None, "messages must not be empty"), None);
    }
}
