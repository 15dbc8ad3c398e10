//! One plain look at an address of an endpoint: what it is, not what it answers to a prompt.
//!
//! Owns sending a GET with the endpoint's own connection, key and headers, and a limit of how much is read. Refuses to
//! know what is looked for.

use std::time::Duration;

use futures_util::StreamExt;
use http::HeaderMap;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{Engine, credentials::resolve};
use crate::{
    config::direct_target,
    engine::attempt::{Credentials, add_headers, of_transport},
    model::{
        ErrorClass,
        endpoint::{ConnectOptions, Endpoint},
    },
    protocol::{ApiError, protocol},
};

/// What is looked at is small; the rest is a page.
const MOST: usize = 64 * 1024;

/// What was there.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The start of the body, without the keys that were sent.
    pub body: String,
    /// How long it took.
    pub took: Duration,
}

impl Engine {
    /// Looks at `url` as `endpoint` is asked: with its key when `with_key`. Redirects are not followed.
    pub async fn fetch(
        &self,
        endpoint: &std::sync::Arc<Endpoint>,
        url: &Url,
        with_key: bool,
        limit: Duration,
    ) -> Result<Fetched, ApiError> {
        let silent = |_| ApiError::new(ErrorClass::Silent, format!("nothing within {:.1} s", limit.as_secs_f64()));
        timeout(limit, self.get(endpoint, url, with_key)).await.map_err(silent)?
    }

    async fn get(&self, endpoint: &std::sync::Arc<Endpoint>, url: &Url, with_key: bool) -> Result<Fetched, ApiError> {
        let local = |message: String| ApiError::new(ErrorClass::Local, message);
        let credentials =
            if with_key { resolve(&self.keys, endpoint, endpoint.keys.first()).await? } else { Credentials::default() };
        let protocol = protocol(endpoint.protocol).expect("resolved configs name known protocols");
        let target = direct_target(endpoint, "");
        let list = protocol.list_models(&target, credentials.key.as_ref(), None);
        let mut request = list.map_err(|error| local(error.to_string()))?;
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| local("no request can be made for the address".into()))?;
        add_headers(&mut request, &credentials).map_err(local)?;
        let via = ConnectOptions { fresh: true, ..endpoint.connect.clone() };
        let sent = Instant::now();
        let reply = self.transport.send(&via, request).await.map_err(|error| of_transport(&error, false))?;
        let (parts, mut body) = reply.into_parts();
        let mut bytes = Vec::new();
        while let Some(Ok(piece)) = body.next().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MOST {
                break;
            }
        }
        bytes.truncate(MOST);
        Ok(Fetched {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: credentials.masked_in(&String::from_utf8_lossy(&bytes)),
            took: sent.elapsed(),
        })
    }
}
