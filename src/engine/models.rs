//! Asks an endpoint for its models: no retries but with its next key, since a list is never worth waiting for.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all};
use tokio::time::timeout;

use super::{Engine, credentials::resolve};
use crate::{
    config::direct_target,
    engine::attempt::{Credentials, add_headers, masked, of_transport},
    model::{
        ErrorClass,
        api_key::KeySource,
        endpoint::{ConnectOptions, Endpoint},
        target::Target,
    },
    protocol::{ApiError, ModelInfo, ModelList, ResponseHead, protocol},
};

/// The largest page that is read.
const MAX_LIST: usize = 16 * 1024 * 1024;
/// A list of more pages has no end.
const MOST_PAGES: usize = 100;

impl Engine {
    /// The models that `target`'s endpoint lists, all pages of them, in its order.
    pub async fn list_models(&self, target: &Target, limit: Duration) -> Result<Vec<ModelInfo>, ApiError> {
        timeout(limit, self.list(target)).await.unwrap_or_else(|_| {
            Err(ApiError::new(ErrorClass::Silent, format!("no list within {:.1} s", limit.as_secs_f64())))
        })
    }

    /// Which of an endpoint's several keys are refused, by their places from 0; each is asked with. What says nothing of the
    /// key does not count.
    pub async fn refused_keys(&self, endpoint: &Arc<Endpoint>, limit: Duration) -> Vec<(usize, ApiError)> {
        if endpoint.keys.len() < 2 {
            return Vec::new();
        }
        let target = direct_target(endpoint, "");
        let lists = endpoint.keys.iter().map(|key| timeout(limit, self.list_with(&target, Some(key))));
        let listed = join_all(lists).await;
        let refused = |error: &ApiError| matches!(error.class, ErrorClass::Auth | ErrorClass::Quota);
        let errors = listed.into_iter().enumerate().filter_map(|(place, listed)| Some((place, listed.ok()?.err()?)));
        errors.filter(|(_, error)| refused(error)).collect()
    }

    async fn list(&self, target: &Target) -> Result<Vec<ModelInfo>, ApiError> {
        let keys = &target.endpoint.keys;
        let mut listed = self.list_with(target, keys.first()).await;
        // As with answers, the endpoint's next key is tried when one is refused or used up.
        for key in keys.iter().skip(1) {
            match &listed {
                Err(error) if matches!(error.class, ErrorClass::Auth | ErrorClass::Quota) => {
                    listed = self.list_with(target, Some(key)).await;
                }
                _ => break,
            }
        }
        listed
    }

    async fn list_with(&self, target: &Target, key: Option<&KeySource>) -> Result<Vec<ModelInfo>, ApiError> {
        let credentials = resolve(&self.keys, &target.endpoint, key).await?;
        let (mut models, mut seen, mut after) = (Vec::<ModelInfo>::new(), HashSet::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let page = self.page(target, &credentials, after.as_deref()).await;
            let page = page.map_err(|error| masked(error, &credentials))?;
            let known = models.len();
            models.extend(page.models.into_iter().filter(|model| seen.insert(model.id.clone())));
            // A server that does not know the word for the next page sends the first one again.
            after = page.more_after.filter(|_| models.len() > known);
            if after.is_none() {
                break;
            }
        }
        Ok(models)
    }

    async fn page(
        &self,
        target: &Target,
        credentials: &Credentials,
        after: Option<&str>,
    ) -> Result<ModelList, ApiError> {
        let protocol = protocol(target.endpoint.protocol).expect("resolved configs name known protocols");
        let local = |message: String| ApiError::new(ErrorClass::Local, message);
        let mut request =
            protocol.list_models(target, credentials.key.as_ref(), after).map_err(|error| local(error.to_string()))?;
        add_headers(&mut request, credentials).map_err(local)?;
        // A connection that was answered on may be about to close, and nothing is repeated here.
        let via = ConnectOptions { fresh: true, ..target.endpoint.connect.clone() };
        let sent = self.transport.send(&via, request).await;
        let (parts, mut body) = sent.map_err(|error| of_transport(&error, false))?.into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers.into() };
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| of_transport(&error, false))?);
            if bytes.len() > MAX_LIST {
                return Err(ApiError::new(ErrorClass::Garbage, "a list of more than 16 MiB"));
            }
        }
        if head.status.is_success() { protocol.parse_models(&bytes) } else { Err(protocol.error(&head, &bytes)) }
    }
}
