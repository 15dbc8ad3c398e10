//! Fetches a URL of an endpoint with GET, using the connection options, key and headers of that endpoint.

use std::time::Duration;

use futures_util::StreamExt;
use http::HeaderMap;
use tokio::time::{Instant, timeout};
use url::Url;

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
        endpoint::{ConnectOptions, Endpoint},
    },
    protocol::{CallError, protocol_of},
};

/// Maximum number of bytes read of a body; the responses of interest are small, and longer ones are web pages.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The response to a fetched URL.
#[derive(Clone, Debug)]
pub struct FetchResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The start of the body, with the secrets that were sent masked.
    pub body: String,
    /// From sending the request to the last byte read.
    pub took: Duration,
}

impl Engine {
    /// Fetches `url` with the connection options and headers of `endpoint`, and with its key if `with_key`. Does not
    /// follow redirects.
    pub async fn fetch(
        &self,
        endpoint: &std::sync::Arc<Endpoint>,
        url: &Url,
        with_key: bool,
        limit: Duration,
    ) -> Result<FetchResponse, CallError> {
        let timed_out =
            |_| CallError::new(ErrorClass::Timeout, format!("no response within {:.1} s", limit.as_secs_f64()));
        timeout(limit, self.get(endpoint, url, with_key)).await.map_err(timed_out)?
    }

    async fn get(
        &self,
        endpoint: &std::sync::Arc<Endpoint>,
        url: &Url,
        with_key: bool,
    ) -> Result<FetchResponse, CallError> {
        let credentials = if with_key {
            resolve_credentials(&self.keys, endpoint, endpoint.keys.first()).await?
        } else {
            Credentials::default()
        };
        let protocol = protocol_of(endpoint);
        let target = direct_target(endpoint, "");
        let request = protocol.list_models(&target, credentials.key.as_ref(), None);
        let mut request = request.map_err(encode_error)?;
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|_| CallError::new(ErrorClass::LocalLimit, "cannot build a request for this URL"))?;
        add_headers(&mut request, &credentials)?;
        let connect_options = ConnectOptions { new_connection: true, ..endpoint.connect.clone() };
        let sent_at = Instant::now();
        let response = self
            .transport
            .send(&connect_options, request)
            .await
            .map_err(|error| mask_error(transport_error(error, false), &credentials))?;
        let (parts, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(Ok(chunk)) = body.next().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BODY_BYTES {
                break;
            }
        }
        bytes.truncate(MAX_BODY_BYTES);
        Ok(FetchResponse {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: credentials.masked_in(&String::from_utf8_lossy(&bytes)),
            took: sent_at.elapsed(),
        })
    }
}
