//! A load generator and a mock upstream for `scripts/bench serve`: hand-made bytes over plain sockets, so that what is
//! measured is the server between the two and not its measuring.
//!
//! Open loop where a rate is given: requests begin when they are due, whether earlier ones are answered or not, and their
//! time counts from when they were due. Every subcommand prints one line of JSON.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a tool of the benchmark")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// A word that was given as `--name value`.
fn given(name: &str) -> Option<String> {
    let words: Vec<String> = std::env::args().collect();
    words.iter().position(|word| word == name).and_then(|at| words.get(at + 1).cloned())
}

fn number(name: &str, usual: f64) -> f64 {
    given(name).map_or(usual, |text| text.parse().unwrap())
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match what.as_str() {
            "upstream" => upstream().await,
            "rate" => rate().await,
            "streams" => streams().await,
            "saturate" => saturate().await,
            // As `cargo bench` runs it.
            _ => println!("subcommands: upstream, rate, streams, saturate"),
        }
    });
}

/// Answers every request at once: whole, or with `tokens` chunks at `tps` tokens a second, as the model's name says
/// (`TOKENS-TPS`).
async fn upstream() {
    let listener = TcpListener::bind(("127.0.0.1", number("--port", 0.0) as u16)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        tokio::spawn(answer(socket));
    }
}

async fn answer(mut socket: TcpStream) -> Option<()> {
    let whole =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{REPLY}", REPLY.len());
    let mut held = Vec::new();
    loop {
        let (head, length) = head(&mut socket, &mut held).await?;
        while held.len() < head + length {
            read(&mut socket, &mut held).await?;
        }
        let body = String::from_utf8_lossy(&held[head..head + length]).into_owned();
        held.drain(..head + length);
        if !body.contains("\"stream\":true") {
            socket.write_all(whole.as_bytes()).await.ok()?;
            continue;
        }
        let model = body.split("\"model\":\"").nth(1)?.split('"').next()?;
        let (tokens, tps) = model.split_once('-')?;
        let (tokens, tps): (u32, f64) = (tokens.parse().ok()?, tps.parse().ok()?);
        stream(&mut socket, tokens, tps).await?;
    }
}

async fn stream(socket: &mut TcpStream, tokens: u32, tps: f64) -> Option<()> {
    let begun = Instant::now();
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
            sleep_until(begun + Duration::from_secs_f64(f64::from(token) / tps)).await;
            socket.write_all(word.as_bytes()).await.ok()?;
        }
    }
    socket.write_all(end.as_bytes()).await.ok()
}

/// Reads up to the end of a head: its length, and that of the body.
async fn head(socket: &mut TcpStream, held: &mut Vec<u8>) -> Option<(usize, usize)> {
    loop {
        if let Some(end) = memchr::memmem::find(held, b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..end]).to_ascii_lowercase();
            let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
            return Some((end + 4, length.unwrap_or(0)));
        }
        read(socket, held).await?;
    }
}

async fn read(socket: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    held.reserve(16 * 1024);
    socket.read_buf(held).await.ok().filter(|&count| count > 0).map(drop)
}

/// What is asked, and where.
#[derive(Clone)]
struct Target {
    address: String,
    request: Arc<Vec<u8>>,
}

impl Target {
    fn of(model: &str, stream: bool) -> Self {
        let url = given("--url").unwrap();
        let (address, path) = url.trim_start_matches("http://").split_once('/').unwrap();
        let prompt = "Tell me about the fox and the dog, and what either of them thinks of it. ".repeat(4);
        let model = given("--model").unwrap_or_else(|| model.to_owned());
        let body = format!(
            "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"Be brief.\"}},{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}"
        );
        let more = given("--header").map(|header| format!("{header}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /{path}/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nauthorization: Bearer sk-bench-key\r\n{more}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { address: address.to_owned(), request: Arc::new(request.into_bytes()) }
    }

    async fn connect(&self) -> Option<TcpStream> {
        let socket = TcpStream::connect(&self.address).await.ok()?;
        socket.set_nodelay(true).ok()?;
        Some(socket)
    }

    /// Sends the request and reads the reply; `heard` is told when bytes came and how many events were in them.
    async fn ask(&self, socket: &mut TcpStream, mut heard: impl FnMut(Instant, usize)) -> Option<bool> {
        socket.write_all(&self.request).await.ok()?;
        let mut held = Vec::new();
        let (start, length) = head(socket, &mut held).await?;
        let good = held.starts_with(b"HTTP/1.1 200");
        let chunked = String::from_utf8_lossy(&held[..start]).to_ascii_lowercase().contains("chunked");
        held.drain(..start);
        heard(Instant::now(), events(&held));
        if !chunked {
            while held.len() < length {
                read(socket, &mut held).await?;
            }
            return Some(good);
        }
        let mut whole = memchr::memmem::find(&held, b"[DONE]").is_some();
        // The last chunk ends a reply; what is before it is looked at once.
        while !held.ends_with(b"0\r\n\r\n") {
            let keep = held.len().saturating_sub(8);
            held.drain(..keep);
            let from = held.len();
            read(socket, &mut held).await?;
            heard(Instant::now(), events(&held[from..]));
            whole |= memchr::memmem::find(&held, b"[DONE]").is_some();
        }
        Some(good && (whole || events(&held) == 0))
    }
}

/// How many events begin in these bytes.
fn events(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, b"data: {").count()
}

fn percentiles(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    serde_json::json!({"count": times.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)})
}

/// Requests at a rate: the time of each from when it was due, to its first piece (`--stream`) or its end.
async fn rate() {
    let (rate, seconds) = (number("--rate", 200.0), number("--seconds", 5.0));
    let stream = std::env::args().any(|word| word == "--stream");
    let target = Target::of("1-0", stream);
    let idle: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let (mut asked, begun) = (JoinSet::new(), Instant::now() + Duration::from_millis(50));
    // The first second warms both sides up.
    let warm = rate as u64;
    for number in 0..(rate * (seconds + 1.0)) as u64 {
        let due = begun + Duration::from_secs_f64(number as f64 / rate);
        sleep_until(due).await;
        let (target, idle) = (target.clone(), Arc::clone(&idle));
        asked.spawn(async move {
            let pooled = idle.lock().unwrap().pop();
            let mut socket = match pooled {
                Some(socket) => socket,
                None => target.connect().await?,
            };
            let mut first = None;
            let good = target.ask(&mut socket, |at, _| {
                first.get_or_insert(at);
            });
            let good = good.await?;
            let took = if stream { first? } else { Instant::now() } - due;
            idle.lock().unwrap().push(socket);
            good.then_some((number, took))
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(done) = asked.join_next().await {
        match done.unwrap() {
            Some((number, took)) if number >= warm => times.push(took),
            Some(_) => {}
            None => failed += 1,
        }
    }
    let mut line = percentiles(times);
    line["failed"] = failed.into();
    println!("{line}");
}

/// Many streams at once: the gaps between events, and the time to the first one.
async fn streams() {
    let (count, tps, seconds) = (number("--streams", 500.0) as u64, number("--tps", 50.0), number("--seconds", 5.0));
    let tokens = if tps > 0.0 { tps * seconds } else { number("--tokens", 20_000.0) };
    let target = Target::of(&format!("{}-{tps}", tokens as u64), true);
    let mut asked = JoinSet::new();
    let begun = Instant::now();
    for number in 0..count {
        let target = target.clone();
        // Spread over one period, so that not all speak at once.
        let due = begun + Duration::from_secs_f64(if tps > 0.0 { number as f64 / count as f64 / tps } else { 0.0 });
        asked.spawn(async move {
            sleep_until(due).await;
            let mut socket = target.connect().await?;
            let (sent, mut last, mut gaps, mut first, mut events) = (Instant::now(), None, Vec::new(), None, 0);
            let good = target.ask(&mut socket, |at, count| {
                if count == 0 {
                    return;
                }
                first.get_or_insert(at);
                gaps.extend(last.replace(at).map(|last| at - last));
                gaps.extend((1..count).map(|_| Duration::ZERO));
                events += count;
            });
            good.await?.then_some(())?;
            Some((first? - sent, gaps, events))
        });
    }
    let (mut gaps, mut firsts, mut events, mut failed) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(done) = asked.join_next().await {
        match done.unwrap() {
            Some((first, some, count)) => {
                firsts.push(first);
                gaps.extend(some);
                events += count;
            }
            None => failed += 1,
        }
    }
    let (gaps, ttft, took) = (percentiles(gaps), percentiles(firsts), begun.elapsed().as_secs_f64());
    println!(
        "{}",
        serde_json::json!({"gaps": gaps, "ttft": ttft, "events": events, "failed": failed, "seconds": took})
    );
}

/// As many requests as are answered, one after the other on each of some connections.
async fn saturate() {
    let (connections, seconds) = (number("--connections", 64.0) as u64, number("--seconds", 5.0));
    let most = number("--requests", f64::INFINITY);
    let target = Target::of("1-0", false);
    let (answered, begun) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let until = begun + Duration::from_secs_f64(if most.is_finite() { 3600.0 } else { seconds });
    let mut asked = JoinSet::new();
    for _ in 0..connections {
        let (target, answered) = (target.clone(), Arc::clone(&answered));
        asked.spawn(async move {
            let mut failures: HashMap<&str, u64> = HashMap::new();
            let mut socket = None;
            while Instant::now() < until && (answered.load(Ordering::Relaxed) as f64) < most {
                if socket.is_none() {
                    socket = target.connect().await;
                }
                let Some(open) = &mut socket else {
                    *failures.entry("connect").or_default() += 1;
                    continue;
                };
                match target.ask(open, |_, _| {}).await {
                    Some(true) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Some(false) => *failures.entry("refused").or_default() += 1,
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
    while let Some(done) = asked.join_next().await {
        for (what, count) in done.unwrap() {
            *failures.entry(what).or_default() += count;
        }
    }
    let (count, took) = (answered.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    let line = serde_json::json!({"count": count, "per_second": count as f64 / took, "failures": failures});
    println!("{line}");
}
