//! Fault injection: how failures of services reach a client.
//!
//! Each row of the table is a route with a primary that fails in one way and usually a backup, with the expected
//! answer, attempts and number of requests to each. The tests run in this process on a paused clock; the ignored ones
//! use sockets and real time.

#![allow(missing_docs, reason = "tests")]

mod gateway;
mod outage;
mod table;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use mmchat::internals::{
    cli::Exit,
    config,
    engine::{
        CallRecord, Engine, EventKind,
        plan::{self, Plan},
    },
    mock::{MockConfig, MockServer, Script, built_in_models},
    model::clock::Clock,
    model::{Answer, ChatRequest, DeltaBuffer, Message, ModelRequest, Role, endpoint::ConnectOptions},
    routing::OnIncomplete,
    transport::{ByteStream, Transport, TransportError, TransportErrorKind, keys::KeyRing},
};
use tokio::{net::TcpListener, sync::watch};

/// The answers of the working primary and of the backup.
const PRIMARY: &str = "from the primary, all of it";
const BACKUP: &str = "from the backup";

/// A mock server that can be made unreachable or failing.
#[derive(Clone)]
struct Service {
    mock: MockServer,
    up: watch::Sender<bool>,
    /// Whether its port is open, when it runs over sockets.
    listening: watch::Sender<bool>,
    /// Whether it answers every request with 500.
    failing: Arc<AtomicBool>,
}

impl Service {
    fn new(text: &str) -> Self {
        let base =
            Script { text: Some(text.to_owned()), ttft: std::time::Duration::ZERO, tps: 0.0, ..Script::default() };
        let mock = MockServer::new(MockConfig { models: built_in_models(&base), ..MockConfig::default() });
        Self { mock, up: watch::Sender::new(true), listening: watch::Sender::new(false), failing: Arc::default() }
    }

    fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until its port is open or closed as requested.
    async fn wait_for_port(&self) {
        let up = self.is_up();
        self.listening.subscribe().wait_for(|open| *open == up).await.expect("sender is in self");
    }
}

/// An engine, and the two services that it reaches in this process or over sockets.
struct FaultEnv {
    primary: Service,
    backup: Service,
    base_urls: [String; 2],
    engine: Arc<Engine>,
    /// The server tasks, which end when this is dropped.
    servers: tokio::task::JoinSet<()>,
}

/// A transport that passes requests to the mock of their host.
struct InProcessTransport([Service; 2]);

impl Transport for InProcessTransport {
    fn send(
        &self,
        _: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let index = usize::from(request.uri().host() == Some("backup.test"));
        let service = self.0[index].clone();
        async move {
            if !service.is_up() {
                return Err(TransportError::new(TransportErrorKind::Refused, "connection refused"));
            }
            if service.failing.load(Ordering::Relaxed) {
                let mut reply = http::Response::new(futures_util::stream::empty().boxed());
                *reply.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(reply);
            }
            service.mock.respond(request).await
        }
        .boxed()
    }
}

impl FaultEnv {
    /// Connects the engine to the mocks without sockets, so that only scripted delays take time.
    fn in_process() -> Self {
        let (primary, backup) = (Service::new(PRIMARY), Service::new(BACKUP));
        let transport = InProcessTransport([primary.clone(), backup.clone()]);
        let engine =
            Arc::new(Engine::new(Arc::new(transport), KeyRing::default()).with_seed(7).with_clock(Clock::of_runtime()));
        let base_urls = ["http://primary.test/v1", "http://backup.test/v1"].map(str::to_owned);
        Self { primary, backup, base_urls, engine, servers: tokio::task::JoinSet::new() }
    }

    /// Runs the services on loopback sockets.
    async fn over_sockets() -> Self {
        let (primary, backup) = (Service::new(PRIMARY), Service::new(BACKUP));
        let mut servers = tokio::task::JoinSet::new();
        let mut base_urls = Vec::new();
        for service in [&primary, &backup] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
            let address = listener.local_addr().expect("bound address");
            base_urls.push(format!("http://{address}/v1"));
            servers.spawn(run_service(service.clone(), address, Some(listener)));
        }
        let engine =
            Engine::new(Arc::new(mmchat::internals::transport::http::HttpTransport::new()), KeyRing::default());
        let base_urls = base_urls.try_into().expect("two URLs");
        Self { primary, backup, base_urls, engine: Arc::new(engine.with_seed(7)), servers }
    }

    /// A config with a route over both services; `endpoint` and `route` are extra lines of the primary's endpoint and
    /// the route.
    fn config(&self, primary: &str, backup: Option<&str>, endpoint: &str, route: &str) -> config::Config {
        let [primary_url, backup_url] = &self.base_urls;
        let backup_model =
            backup.map(|model| format!("[models.backup]\nendpoint = \"b\"\nmodel = \"{model}\"\n")).unwrap_or_default();
        let models = if backup.is_some() { "[\"primary\", \"backup\"]" } else { "[\"primary\"]" };
        let text = format!(
            "[endpoints.p]\nbase_url = \"{primary_url}\"\n{endpoint}\n[endpoints.b]\nbase_url = \"{backup_url}\"\n\
             [models.primary]\nendpoint = \"p\"\nmodel = \"{primary}\"\n{backup_model}\
             [routes.chat]\nmodels = {models}\n{route}\n"
        );
        config::resolve(&text, Path::new("faults.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    }

    /// Sends one request to the route.
    async fn send_request(&self, config: &config::Config, on_incomplete: OnIncomplete) -> RequestResult {
        let messages = vec![Message::text(Role::User, "hello")];
        let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
        let call = plan::resolve_call(config, Some("chat"), &request, on_incomplete).expect("configured route");
        let mut events = std::pin::pin!(self.engine.run(Plan::single(call)));
        let (mut answer, mut buffer, mut outcome) = (Answer::default(), DeltaBuffer::default(), None);
        while let Some(event) = events.next().await {
            match event.kind {
                EventKind::Deltas(batch) => batch.deltas.iter().for_each(|delta| answer.add(delta)),
                EventKind::BufferedDeltas(batch) => batch.deltas.iter().for_each(|delta| buffer.add(delta.clone())),
                EventKind::Failed { .. } => {
                    answer = Answer::default();
                    buffer.restart();
                }
                EventKind::Finished(finished) => outcome = Some(finished),
                _ => {}
            }
        }
        let outcome = outcome.expect("call ends with an outcome");
        buffer.take(outcome.result.is_err()).iter().for_each(|delta| answer.add(delta));
        RequestResult { text: answer.text, outcome }
    }

    /// Waits until the ports of both services are open or closed as requested.
    async fn wait_for_ports(&self) {
        if !self.servers.is_empty() {
            self.primary.wait_for_port().await;
            self.backup.wait_for_port().await;
        }
    }

    /// The number of requests to the primary and to the backup.
    fn request_counts(&self) -> (u64, u64) {
        (self.primary.mock.request_count(), self.backup.mock.request_count())
    }
}

/// Serves while the service is up, and closes the port while it is down.
async fn run_service(service: Service, address: SocketAddr, mut listener: Option<TcpListener>) {
    let mut up = service.up.subscribe();
    loop {
        let bound = match listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(address).await.expect("port is still free"),
        };
        service.listening.send_replace(true);
        tokio::select! {
            _ = service.mock.serve(bound) => {}
            _ = up.wait_for(|up| !up) => {}
        }
        service.listening.send_replace(false);
        up.wait_for(|up| *up).await.expect("sender is in self");
    }
}

/// The answer and outcome of one request.
struct RequestResult {
    text: String,
    outcome: Arc<CallRecord>,
}

impl RequestResult {
    fn exit(&self) -> Exit {
        Exit::from_record(&self.outcome)
    }

    fn classes(&self) -> Vec<&'static str> {
        self.outcome.attempts.iter().map(|attempt| attempt.class().map_or("ok", |class| class.as_str())).collect()
    }
}
