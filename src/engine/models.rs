//! Lists the models of an endpoint. Retries only with another key.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use tokio::time::timeout;

use super::{Engine, credentials::resolve_credentials};
use crate::{
    config::direct_target,
    engine::{
        attempt::add_headers,
        attempt_error::{encode_error, mask_error, transport_error},
        credentials::Credentials,
    },
    model::{
        ErrorClass,
        api_key::KeySource,
        endpoint::{ConnectOptions, Endpoint},
        target::Target,
    },
    protocol::{CallError, ModelInfo, ModelList, ResponseHead, protocol_of},
};

/// Maximum size of a page in bytes.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of pages, in case a server never ends the list.
const MAX_PAGES: usize = 100;

impl Engine {
    /// The models that the endpoint of `target` lists, from all pages, in its order.
    pub async fn list_models(&self, target: &Target, limit: Duration) -> Result<Vec<ModelInfo>, CallError> {
        timeout(limit, self.list_with_key_rotation(target)).await.unwrap_or_else(|_| {
            Err(CallError::new(ErrorClass::Timeout, format!("no model list within {:.1} s", limit.as_secs_f64())))
        })
    }

    /// Tests each key of an endpoint with several keys, and returns the index (from 0) and error of the rejected ones.
    /// Errors that are not about the key are ignored.
    pub async fn rejected_keys(&self, endpoint: &Arc<Endpoint>, limit: Duration) -> Vec<(usize, CallError)> {
        if endpoint.keys.len() < 2 {
            return Vec::new();
        }
        let target = direct_target(endpoint, "");
        let requests = endpoint.keys.iter().map(|key| timeout(limit, self.list_with_key(&target, Some(key))));
        let results = join_all(requests).await;
        let is_key_error = |error: &CallError| matches!(error.class, ErrorClass::Auth | ErrorClass::Quota);
        let errors = results.into_iter().enumerate().filter_map(|(index, result)| Some((index, result.ok()?.err()?)));
        errors.filter(|(_, error)| is_key_error(error)).collect()
    }

    async fn list_with_key_rotation(&self, target: &Target) -> Result<Vec<ModelInfo>, CallError> {
        let keys = &target.endpoint.keys;
        let mut result = self.list_with_key(target, keys.first()).await;
        // As for chat requests, the next key is tried when one is rejected or out of quota.
        for key in keys.iter().skip(1) {
            match &result {
                Err(error) if matches!(error.class, ErrorClass::Auth | ErrorClass::Quota) => {
                    result = self.list_with_key(target, Some(key)).await;
                }
                _ => break,
            }
        }
        result
    }

    async fn list_with_key(&self, target: &Target, key: Option<&KeySource>) -> Result<Vec<ModelInfo>, CallError> {
        let credentials = resolve_credentials(&self.keys, &target.endpoint, key).await?;
        let (mut models, mut seen_ids, mut cursor) = (Vec::<ModelInfo>::new(), HashSet::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let page = self.fetch_page(target, &credentials, cursor.as_deref()).await;
            let page = page.map_err(|error| mask_error(error, &credentials))?;
            let previous_count = models.len();
            models.extend(page.models.into_iter().filter(|model| seen_ids.insert(model.id.clone())));
            // A server that ignores the page parameter sends the first page again.
            cursor = page.next_cursor.filter(|_| models.len() > previous_count);
            if cursor.is_none() {
                break;
            }
        }
        Ok(models)
    }

    async fn fetch_page(
        &self,
        target: &Target,
        credentials: &Credentials,
        cursor: Option<&str>,
    ) -> Result<ModelList, CallError> {
        let protocol = protocol_of(&target.endpoint);
        let mut request = protocol.list_models(target, credentials.key.as_ref(), cursor).map_err(encode_error)?;
        add_headers(&mut request, credentials)?;
        // A pooled connection may be about to close, and requests are not retried here.
        let connect_options = ConnectOptions { new_connection: true, ..target.endpoint.connect.clone() };
        let response = self.transport.send(&connect_options, request).await;
        let (parts, mut body) = response.map_err(|error| transport_error(error, false))?.into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers.into() };
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| transport_error(error, false))?);
            if bytes.len() > MAX_LIST_BYTES {
                return Err(CallError::new(ErrorClass::InvalidResponse, "the model list is larger than 16 MiB"));
            }
        }
        if head.status.is_success() {
            protocol.parse_models(&bytes)
        } else {
            Err(protocol.decode_error(&head, &bytes, &[]))
        }
    }
}
