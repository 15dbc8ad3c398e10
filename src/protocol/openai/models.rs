//! Parses model lists: arrays of objects or names under `data`, `models` or both, or a top-level array.

use std::collections::HashSet;

use serde_json::Value;

use super::{error, stream_errors::StreamErrors};
use crate::{
    model::ErrorClass,
    protocol::{CallError, ModelInfo, ModelList, ServerKind, error::page_message},
};

/// The models in `body`, in list order, without duplicates.
pub(super) fn parse(body: &[u8]) -> Result<ModelList, CallError> {
    let Ok(json) = serde_json::from_slice::<Value>(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)) else {
        let text = page_message(None, body);
        return Err(CallError::new(ErrorClass::InvalidResponse, format!("expected a model list, got: {text}")));
    };
    let lists: Vec<&Value> = match &json {
        Value::Array(_) if error::is_error_body(&json, b"") => Vec::new(),
        Value::Array(_) => vec![&json],
        _ => ["data", "models"].iter().filter_map(|name| json.get(name)).collect(),
    };
    if lists.is_empty() {
        return Err(StreamErrors::new(ServerKind::Other, bytes::Bytes::new()).error(&json));
    }
    let (mut models, mut known_ids) = (Vec::<ModelInfo>::new(), HashSet::new());
    for item in lists.iter().filter_map(|list| list.as_array()).flatten() {
        if let Some(model) = parse_model(item)
            && known_ids.insert(model.id.clone())
        {
            models.push(model);
        }
    }
    let has_more = json.get("has_more").and_then(Value::as_bool) == Some(true);
    let last_id = json.get("last_id").and_then(Value::as_str).or(models.last().map(|model| model.id.as_str()));
    let next_cursor = last_id.filter(|_| has_more).map(str::to_owned);
    Ok(ModelList { models, next_cursor })
}

fn parse_model(item: &Value) -> Option<ModelInfo> {
    let id = match item {
        Value::String(id) => id.as_str(),
        _ => ["id", "model", "name"].iter().find_map(|name| item.get(name)?.as_str())?,
    };
    const CONTEXT_PATHS: [&str; 6] = [
        "/context_length",
        "/context_window",
        "/max_model_len",
        "/inputTokenLimit",
        "/meta/n_ctx_train",
        "/max_context_length",
    ];
    let context = CONTEXT_PATHS.iter().find_map(|path| item.pointer(path)?.as_u64());
    let id = id.strip_prefix("models/").unwrap_or(id);
    let owner = item.get("owned_by").and_then(Value::as_str).map(str::to_owned);
    // An id is sent upstream and shown on the terminal: ids with control characters are ignored.
    (!id.is_empty() && !id.contains(char::is_control)).then(|| ModelInfo {
        id: id.to_owned(),
        context_window: context,
        owner,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_window_is_read_where_listed() {
        let models =
            parse(br#"["x",{"id":"a","context_length":8192},{"name":"models/b","inputTokenLimit":5},{"id":"a"}]"#);
        let models = models.expect("valid list").models;
        assert_eq!(
            models.iter().map(|model| (model.id.as_str(), model.context_window)).collect::<Vec<_>>(),
            [("x", None), ("a", Some(8192)), ("b", Some(5))]
        );
    }

    #[test]
    fn next_page_is_read_from_has_more_and_last_id() {
        let next = |body: &str| parse(body.as_bytes()).expect("valid list").next_cursor;
        assert_eq!(next(r#"{"data":[{"id":"a"}],"has_more":true,"last_id":"a"}"#).as_deref(), Some("a"));
        assert_eq!(next(r#"{"data":[{"id":"b"}],"has_more":true}"#).as_deref(), Some("b"));
        assert_eq!(next(r#"{"data":[{"id":"a"}],"has_more":false,"last_id":"a"}"#), None);
    }

    #[test]
    fn error_body_is_not_an_empty_list() {
        assert_eq!(parse(br#"{"error":{"message":"no","code":401}}"#).expect_err("error body").class, ErrorClass::Auth);
        assert!(parse(b"<html>").is_err());
    }
}
