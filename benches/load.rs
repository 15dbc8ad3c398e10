//! Load generator and mock upstream for `scripts/bench serve`.
//!
//! Both send prepared bytes over plain sockets, so that their own cost is small compared with the measured server's.
//!
//! `rate` is an open loop: a request starts when it is due, even if earlier ones are unanswered, and its time counts
//! from when it was due. Every subcommand prints one line of JSON, except `upstream`, which prints its port.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "benchmark tool")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "statistics")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until},
};

const REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog, and the dog thinks nothing of it at all."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":57,"completion_tokens":21,"total_tokens":78}}"#;

fn chunk(delta: &str, finish: &str) -> String {
    let event = format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// The value of a command line option `--name value`.
fn arg_value(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    args.iter().position(|arg| arg == name).and_then(|index| args.get(index + 1).cloned())
}

fn numeric_arg(name: &str, default: f64) -> f64 {
    arg_value(name).map_or(default, |text| text.parse().unwrap())
}

fn main() {
    let subcommand = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match subcommand.as_str() {
            "upstream" => upstream().await,
            "rate" => rate().await,
            "streams" => streams().await,
            "saturate" => saturate().await,
            // `cargo bench` and `cargo test` run it without a subcommand.
            _ => println!("subcommands: upstream, rate, streams, saturate"),
        }
    });
}

/// Answers every request immediately: in one body, or as a stream of `TOKENS` chunks at `TPS` tokens per second, which
/// the model name `TOKENS-TPS` gives.
async fn upstream() {
    let listener = TcpListener::bind(("127.0.0.1", numeric_arg("--port", 0.0) as u16)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        tokio::spawn(serve_connection(socket));
    }
}

async fn serve_connection(mut socket: TcpStream) -> Option<()> {
    let response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{REPLY}", REPLY.len());
    let mut buffer = Vec::new();
    loop {
        let (head_len, body_len) = read_head(&mut socket, &mut buffer).await?;
        while buffer.len() < head_len + body_len {
            read_more(&mut socket, &mut buffer).await?;
        }
        let body = String::from_utf8_lossy(&buffer[head_len..head_len + body_len]).into_owned();
        buffer.drain(..head_len + body_len);
        if !body.contains("\"stream\":true") {
            socket.write_all(response.as_bytes()).await.ok()?;
            continue;
        }
        let model = body.split("\"model\":\"").nth(1)?.split('"').next()?;
        let (tokens, tps) = model.split_once('-')?;
        let (tokens, tps): (u32, f64) = (tokens.parse().ok()?, tps.parse().ok()?);
        send_stream(&mut socket, tokens, tps).await?;
    }
}

async fn send_stream(socket: &mut TcpStream, tokens: u32, tps: f64) -> Option<()> {
    let started = Instant::now();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let word = chunk("{\"content\":\" word\"}", "null");
    let end = chunk("{}", "\"stop\"") + "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    socket.write_all(head.as_bytes()).await.ok()?;
    if tps <= 0.0 {
        let batch = word.repeat(64);
        for _ in 0..tokens / 64 {
            socket.write_all(batch.as_bytes()).await.ok()?;
        }
        socket.write_all(word.repeat((tokens % 64) as usize).as_bytes()).await.ok()?;
    } else {
        for token in 0..tokens {
            sleep_until(started + Duration::from_secs_f64(f64::from(token) / tps)).await;
            socket.write_all(word.as_bytes()).await.ok()?;
        }
    }
    socket.write_all(end.as_bytes()).await.ok()
}

/// Reads a message head. Returns its length and the length of the body.
async fn read_head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(usize, usize)> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
            return Some((end + 4, length.unwrap_or(0)));
        }
        read_more(socket, buffer).await?;
    }
}

/// Reads what is available; `None` if the connection is closed.
async fn read_more(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.reserve(16 * 1024);
    socket.read_buf(buffer).await.ok().filter(|&count| count > 0).map(drop)
}

/// A request and the server to send it to.
#[derive(Clone)]
struct Target {
    address: String,
    request: Arc<Vec<u8>>,
}

impl Target {
    fn from_args(model: &str, stream: bool) -> Self {
        let url = arg_value("--url").unwrap();
        let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
        let prompt = "Tell me about the fox and the dog, and what either of them thinks of it. ".repeat(4);
        let model = arg_value("--model").unwrap_or_else(|| model.to_owned());
        let body = format!(
            "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"Be brief.\"}},{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}"
        );
        let extra_header = arg_value("--header").map(|header| format!("{header}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /{path}/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nauthorization: Bearer sk-bench-key\r\n{extra_header}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { address: address.to_owned(), request: Arc::new(request.into_bytes()) }
    }

    async fn connect(&self) -> Option<TcpStream> {
        let socket = TcpStream::connect(&self.address).await.ok()?;
        socket.set_nodelay(true).ok()?;
        Some(socket)
    }

    /// Sends the request and reads the response. Calls `on_data` with the time of each read and the number of events in
    /// it.
    async fn send(&self, socket: &mut TcpStream, mut on_data: impl FnMut(Instant, usize)) -> Option<bool> {
        socket.write_all(&self.request).await.ok()?;
        let mut buffer = Vec::new();
        let (head_len, body_len) = read_head(socket, &mut buffer).await?;
        let ok = buffer.starts_with(b"HTTP/1.1 200");
        let chunked = String::from_utf8_lossy(&buffer[..head_len]).to_ascii_lowercase().contains("chunked");
        buffer.drain(..head_len);
        on_data(Instant::now(), count_events(&buffer));
        if !chunked {
            while buffer.len() < body_len {
                read_more(socket, &mut buffer).await?;
            }
            return Some(ok);
        }
        let mut done = memchr::memmem::find(&buffer, b"[DONE]").is_some();
        // The last chunk ends the response. Only the last 8 bytes before each read are kept.
        while !buffer.ends_with(b"0\r\n\r\n") {
            let discard = buffer.len().saturating_sub(8);
            buffer.drain(..discard);
            let from = buffer.len();
            read_more(socket, &mut buffer).await?;
            on_data(Instant::now(), count_events(&buffer[from..]));
            done |= memchr::memmem::find(&buffer, b"[DONE]").is_some();
        }
        Some(ok && (done || count_events(&buffer) == 0))
    }
}

/// The number of events that start in these bytes.
fn count_events(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, b"data: {").count()
}

fn percentiles(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let percentile = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    serde_json::json!({"count": times.len(), "p50": percentile(0.5), "p90": percentile(0.9), "p99": percentile(0.99), "max": percentile(1.0)})
}

/// Sends requests at a fixed rate. Measures each from when it was due to its first chunk (`--stream`) or its end.
async fn rate() {
    let (rate, seconds) = (numeric_arg("--rate", 200.0), numeric_arg("--seconds", 5.0));
    let stream = std::env::args().any(|arg| arg == "--stream");
    let target = Target::from_args("1-0", stream);
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let (mut requests, start) = (JoinSet::new(), Instant::now() + Duration::from_millis(50));
    // The first second warms up both sides and is not measured.
    let warmup = rate as u64;
    for number in 0..(rate * (seconds + 1.0)) as u64 {
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(due).await;
        let (target, idle) = (target.clone(), Arc::clone(&idle));
        requests.spawn(async move {
            let pooled = idle.lock().pop();
            let mut socket = match pooled {
                Some(socket) => socket,
                None => target.connect().await?,
            };
            let mut first = None;
            let ok = target.send(&mut socket, |at, _| {
                first.get_or_insert(at);
            });
            let ok = ok.await?;
            let elapsed = if stream { first? } else { Instant::now() } - due;
            idle.lock().push(socket);
            ok.then_some((number, elapsed))
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(done) = requests.join_next().await {
        match done.unwrap() {
            Some((number, elapsed)) if number >= warmup => times.push(elapsed),
            Some(_) => {}
            None => failed += 1,
        }
    }
    let mut line = percentiles(times);
    line["failed"] = failed.into();
    println!("{line}");
}

/// Runs many concurrent streams. Measures the gaps between events and the time to the first event.
async fn streams() {
    let (count, tps, seconds) =
        (numeric_arg("--streams", 500.0) as u64, numeric_arg("--tps", 50.0), numeric_arg("--seconds", 5.0));
    let tokens = if tps > 0.0 { tps * seconds } else { numeric_arg("--tokens", 20_000.0) };
    let target = Target::from_args(&format!("{}-{tps}", tokens as u64), true);
    let mut requests = JoinSet::new();
    let start = Instant::now();
    for number in 0..count {
        let target = target.clone();
        // Starts are spread over one token interval, so that the streams do not send in bursts.
        let due = start + Duration::from_secs_f64(if tps > 0.0 { number as f64 / count as f64 / tps } else { 0.0 });
        requests.spawn(async move {
            sleep_until(due).await;
            let mut socket = target.connect().await?;
            let (sent, mut last, mut gaps, mut first, mut events) = (Instant::now(), None, Vec::new(), None, 0);
            let ok = target.send(&mut socket, |at, count| {
                if count == 0 {
                    return;
                }
                first.get_or_insert(at);
                gaps.extend(last.replace(at).map(|last| at - last));
                gaps.extend((1..count).map(|_| Duration::ZERO));
                events += count;
            });
            ok.await?.then_some(())?;
            Some((first? - sent, gaps, events))
        });
    }
    let (mut gaps, mut firsts, mut events, mut failed) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(done) = requests.join_next().await {
        match done.unwrap() {
            Some((first, stream_gaps, count)) => {
                firsts.push(first);
                gaps.extend(stream_gaps);
                events += count;
            }
            None => failed += 1,
        }
    }
    let (gaps, ttft, elapsed) = (percentiles(gaps), percentiles(firsts), start.elapsed().as_secs_f64());
    println!(
        "{}",
        serde_json::json!({"gaps": gaps, "ttft": ttft, "events": events, "failed": failed, "seconds": elapsed})
    );
}

/// Sends requests one after the other on each of `--connections` connections and counts the responses.
async fn saturate() {
    let (connections, seconds) = (numeric_arg("--connections", 64.0) as u64, numeric_arg("--seconds", 5.0));
    let max_requests = numeric_arg("--requests", f64::INFINITY);
    let target = Target::from_args("1-0", false);
    let (answered, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let deadline = start + Duration::from_secs_f64(if max_requests.is_finite() { 3600.0 } else { seconds });
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (target, answered) = (target.clone(), Arc::clone(&answered));
        workers.spawn(async move {
            let mut failures: HashMap<&str, u64> = HashMap::new();
            let mut socket = None;
            while Instant::now() < deadline && (answered.load(Ordering::Relaxed) as f64) < max_requests {
                if socket.is_none() {
                    socket = target.connect().await;
                }
                let Some(open) = &mut socket else {
                    *failures.entry("connect").or_default() += 1;
                    continue;
                };
                match target.send(open, |_, _| {}).await {
                    Some(true) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Some(false) => *failures.entry("status").or_default() += 1,
                    None => {
                        *failures.entry("broken").or_default() += 1;
                        socket = None;
                    }
                }
            }
            failures
        });
    }
    let mut failures: HashMap<&str, u64> = HashMap::new();
    while let Some(done) = workers.join_next().await {
        for (kind, count) in done.unwrap() {
            *failures.entry(kind).or_default() += count;
        }
    }
    let (count, elapsed) = (answered.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    let line = serde_json::json!({"count": count, "per_second": count as f64 / elapsed, "failures": failures});
    println!("{line}");
}
