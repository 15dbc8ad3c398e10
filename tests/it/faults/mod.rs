//! What goes wrong with real services, and what a client sees of it: one table, asked twice.
//!
//! Each row is a route of a primary that fails in one way and a backup, with what reaches the client and how many requests
//! each of the two got. `paused` runs it in this process on a clock that waits for nobody; `for_real` over sockets and
//! with real time, which is left to whoever runs all checks.

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
use mmchat::{
    cli::Exit,
    config,
    engine::{
        CallOutcome, Engine, EventKind,
        plan::{self, Plan},
    },
    mock::{MockConfig, MockServer, Script, built_in_models},
    model::{Answer, ChatRequest, DeltaBuffer, Message, ModelRequest, Role, endpoint::ConnectOptions},
    routing::OnIncomplete,
    transport::{ByteStream, Transport, TransportError, TransportErrorKind, keys::KeyRing},
};
use tokio::{net::TcpListener, sync::watch};

/// What the primary says when it is well, and what the backup says.
const PRIMARY: &str = "from the primary, all of it";
const BACKUP: &str = "from the backup";

/// A mock, and whether it can be connected to.
#[derive(Clone)]
struct Service {
    mock: MockServer,
    up: watch::Sender<bool>,
    /// Whether its port is open, where it has one.
    open: watch::Sender<bool>,
    /// It answers 500 to everything.
    failing: Arc<AtomicBool>,
}

impl Service {
    fn new(text: &str) -> Self {
        let base =
            Script { text: Some(text.to_owned()), ttft: std::time::Duration::ZERO, tps: 0.0, ..Script::default() };
        let mock = MockServer::new(MockConfig { models: built_in_models(&base), ..MockConfig::default() });
        Self { mock, up: watch::Sender::new(true), open: watch::Sender::new(false), failing: Arc::default() }
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

    /// Waits until its port is as it is.
    async fn settled(&self) {
        let up = self.is_up();
        self.open.subscribe().wait_for(|open| *open == up).await.expect("we have the sender");
    }
}

/// Both services, and how they are reached.
struct World {
    primary: Service,
    backup: Service,
    addresses: [String; 2],
    engine: Arc<Engine>,
    /// Ends the servers.
    servers: tokio::task::JoinSet<()>,
}

/// Hands requests to the mock that their address names.
struct InProcess([Service; 2]);

impl Transport for InProcess {
    fn send(
        &self,
        _: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let place = usize::from(request.uri().host() == Some("backup.test"));
        let service = self.0[place].clone();
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

impl World {
    /// In this process: nothing takes time but what the scripts say.
    fn in_process() -> Self {
        let (primary, backup) = (Service::new(PRIMARY), Service::new(BACKUP));
        let transport = InProcess([primary.clone(), backup.clone()]);
        let engine = Arc::new(Engine::new(Arc::new(transport), KeyRing::default()).with_seed(7));
        let addresses = ["http://primary.test/v1", "http://backup.test/v1"].map(str::to_owned);
        Self { primary, backup, addresses, engine, servers: tokio::task::JoinSet::new() }
    }

    /// Over sockets.
    async fn for_real() -> Self {
        let (primary, backup) = (Service::new(PRIMARY), Service::new(BACKUP));
        let mut servers = tokio::task::JoinSet::new();
        let mut addresses = Vec::new();
        for service in [&primary, &backup] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            addresses.push(format!("http://{address}/v1"));
            servers.spawn(serve(service.clone(), address, Some(listener)));
        }
        let engine = Engine::new(Arc::new(mmchat::transport::http::HttpTransport::new()), KeyRing::default());
        let addresses = addresses.try_into().expect("two");
        Self { primary, backup, addresses, engine: Arc::new(engine.with_seed(7)), servers }
    }

    /// A config of a route over both; `more` goes below the primary's endpoint.
    fn config(&self, primary: &str, backup: Option<&str>, endpoint: &str, route: &str) -> config::Config {
        let [at, backup_at] = &self.addresses;
        let backup_model =
            backup.map(|model| format!("[models.backup]\nendpoint = \"b\"\nmodel = \"{model}\"\n")).unwrap_or_default();
        let models = if backup.is_some() { "[\"primary\", \"backup\"]" } else { "[\"primary\"]" };
        let text = format!(
            "[endpoints.p]\nbase_url = \"{at}\"\n{endpoint}\n[endpoints.b]\nbase_url = \"{backup_at}\"\n\
             [models.primary]\nendpoint = \"p\"\nmodel = \"{primary}\"\n{backup_model}\
             [routes.chat]\nmodels = {models}\n{route}\n"
        );
        config::resolve(&text, Path::new("faults.toml")).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
    }

    /// Asks the route once.
    async fn ask(&self, config: &config::Config, on_cut: OnIncomplete) -> Seen {
        let messages = vec![Message::text(Role::User, "hello")];
        let call = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
        let lane = plan::resolve_call(config, Some("chat"), &call, on_cut).expect("the route is there");
        let mut events = std::pin::pin!(self.engine.run(Plan::single(lane)));
        let (mut answer, mut held, mut outcome) = (Answer::default(), DeltaBuffer::default(), None);
        while let Some(event) = events.next().await {
            match event.kind {
                EventKind::Deltas(deltas) => deltas.iter().for_each(|delta| answer.add(delta)),
                EventKind::BufferedDeltas(deltas) => deltas.iter().for_each(|delta| held.add(delta.clone())),
                EventKind::Failed { .. } => {
                    answer = Answer::default();
                    held.restart();
                }
                EventKind::Finished(finished) => outcome = Some(*finished),
                _ => {}
            }
        }
        let outcome = outcome.expect("a lane ends");
        held.take(outcome.result.is_err()).iter().for_each(|delta| answer.add(delta));
        Seen { text: answer.text, outcome }
    }

    /// Waits until the ports are as the services are.
    async fn settled(&self) {
        if !self.servers.is_empty() {
            self.primary.settled().await;
            self.backup.settled().await;
        }
    }

    /// How many requests each of the two got.
    fn requests(&self) -> (u64, u64) {
        (self.primary.mock.request_count(), self.backup.mock.request_count())
    }
}

/// Serves while the service is up, and closes the port while it is not.
async fn serve(service: Service, address: SocketAddr, mut listener: Option<TcpListener>) {
    let mut up = service.up.subscribe();
    loop {
        let open = match listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(address).await.expect("nobody else took the port"),
        };
        service.open.send_replace(true);
        tokio::select! {
            _ = service.mock.serve(open) => {}
            _ = up.wait_for(|up| !up) => {}
        }
        service.open.send_replace(false);
        up.wait_for(|up| *up).await.expect("we have the sender");
    }
}

/// What reached the client.
struct Seen {
    text: String,
    outcome: CallOutcome,
}

impl Seen {
    fn exit(&self) -> Exit {
        Exit::from_outcome(&self.outcome)
    }

    fn classes(&self) -> Vec<&'static str> {
        self.outcome.attempts.iter().map(|attempt| attempt.class().map_or("ok", |class| class.as_str())).collect()
    }
}
