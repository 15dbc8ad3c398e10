//! Model lists: `data`, `models`, both, a bare array, of objects or of names.

use std::collections::HashSet;

use serde_json::Value;

use super::{decode::Came, error};
use crate::{
    model::ErrorClass,
    protocol::{ApiError, ModelInfo, ModelList, ServerKind, error::page_message},
};

/// The models in `body`, in its order, each once.
pub(super) fn parse(body: &[u8]) -> Result<ModelList, ApiError> {
    let Ok(json) = serde_json::from_slice::<Value>(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)) else {
        let said = page_message(None, body);
        return Err(ApiError::new(ErrorClass::Garbage, format!("no model list but: {said}")));
    };
    let lists: Vec<&Value> = match &json {
        Value::Array(_) if error::is_error(&json, b"") => Vec::new(),
        Value::Array(_) => vec![&json],
        _ => ["data", "models"].iter().filter_map(|name| json.get(name)).collect(),
    };
    if lists.is_empty() {
        return Err(error::in_stream(&json, ServerKind::Other, Came::Nothing));
    }
    let (mut models, mut known) = (Vec::<ModelInfo>::new(), HashSet::new());
    for item in lists.iter().filter_map(|list| list.as_array()).flatten() {
        if let Some(model) = model(item)
            && known.insert(model.id.clone())
        {
            models.push(model);
        }
    }
    let more = json.get("has_more").and_then(Value::as_bool) == Some(true);
    let last = json.get("last_id").and_then(Value::as_str).or(models.last().map(|model| model.id.as_str()));
    let more_after = last.filter(|_| more).map(str::to_owned);
    Ok(ModelList { models, more_after })
}

fn model(item: &Value) -> Option<ModelInfo> {
    let id = match item {
        Value::String(id) => id.as_str(),
        _ => ["id", "model", "name"].iter().find_map(|name| item.get(name)?.as_str())?,
    };
    const CONTEXTS: [&str; 6] = [
        "/context_length",
        "/context_window",
        "/max_model_len",
        "/inputTokenLimit",
        "/meta/n_ctx_train",
        "/max_context_length",
    ];
    let context = CONTEXTS.iter().find_map(|path| item.pointer(path)?.as_u64());
    let id = id.strip_prefix("models/").unwrap_or(id);
    // An id is sent back and shown: one with control characters is no id.
    let owner = item.get("owned_by").and_then(Value::as_str).map(str::to_owned);
    (!id.is_empty() && !id.contains(char::is_control)).then(|| ModelInfo { id: id.to_owned(), context, owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_where_they_are_given() {
        let models =
            parse(br#"["x",{"id":"a","context_length":8192},{"name":"models/b","inputTokenLimit":5},{"id":"a"}]"#);
        let models = models.expect("a list").models;
        assert_eq!(
            models.iter().map(|model| (model.id.as_str(), model.context)).collect::<Vec<_>>(),
            [("x", None), ("a", Some(8192)), ("b", Some(5))]
        );
    }

    #[test]
    fn a_list_says_where_it_goes_on() {
        let more = |body: &str| parse(body.as_bytes()).expect("a list").more_after;
        assert_eq!(more(r#"{"data":[{"id":"a"}],"has_more":true,"last_id":"a"}"#).as_deref(), Some("a"));
        assert_eq!(more(r#"{"data":[{"id":"b"}],"has_more":true}"#).as_deref(), Some("b"));
        assert_eq!(more(r#"{"data":[{"id":"a"}],"has_more":false,"last_id":"a"}"#), None);
    }

    #[test]
    fn an_error_is_no_empty_list() {
        assert_eq!(parse(br#"{"error":{"message":"no","code":401}}"#).expect_err("an error").class, ErrorClass::Auth);
        assert!(parse(b"<html>").is_err());
    }
}
