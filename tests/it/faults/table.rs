//! The table of faults.

use mmchat::internals::{cli::Exit, routing::OnIncomplete};

use super::{BACKUP, FaultEnv, PRIMARY};

/// A fault of the primary and the expected result.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The mock model of the primary.
    pub(super) primary: &'static str,
    /// Additional config lines of the primary's endpoint.
    pub(super) endpoint: &'static str,
    /// Additional config lines of the route.
    pub(super) route: &'static str,
    /// Whether the route has a backup.
    pub(super) backup: bool,
    /// Whether the primary refuses connections.
    pub(super) down: bool,
    pub(super) on_incomplete: OnIncomplete,
    pub(super) expected: Expected,
}

pub(super) struct Expected {
    text: AnswerText,
    exit: Exit,
    /// The class of each attempt.
    pub(super) classes: &'static [&'static str],
    /// The number of requests to the primary and to the backup.
    requests: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum AnswerText {
    Primary,
    Partial,
    Backup,
    None,
}

/// A row whose backup answers. Other rows override its fields.
fn row(name: &'static str, primary: &'static str, classes: &'static [&'static str], requests: (u64, u64)) -> Row {
    Row {
        name,
        primary,
        endpoint: "",
        route: "",
        backup: true,
        down: false,
        on_incomplete: OnIncomplete::Error,
        expected: Expected { text: AnswerText::Backup, exit: Exit::Ok, classes, requests },
    }
}

/// Timeouts after which missing output is a failure.
const SHORT_TIMEOUTS: &str = "timeouts = { first_token = \"300ms\", idle = \"300ms\", total = \"3s\" }";

pub(super) fn rows() -> Vec<Row> {
    let with_result = |row: Row, text, exit| Row { expected: Expected { text, exit, ..row.expected }, ..row };
    let without_backup = |row: Row, text, exit| Row { backup: false, ..with_result(row, text, exit) };
    let short_timeouts = |row: Row| Row { endpoint: SHORT_TIMEOUTS, ..row };
    let incomplete = |name, fault, class| {
        short_timeouts(with_result(row(name, fault, class, (1, 0)), AnswerText::Partial, Exit::Incomplete))
    };
    let recovered = |row: Row, on_incomplete| Row {
        on_incomplete,
        expected: Expected { text: AnswerText::Backup, exit: Exit::Ok, ..row.expected },
        ..row
    };
    vec![
        row("429 with Retry-After", "rate+retry-after=30", &["rate", "ok"], (1, 1)),
        without_backup(
            row(
                "429 with Retry-After, no backup, then success",
                "rate+retry-after=1+fail-first=1",
                &["rate", "ok"],
                (2, 0),
            ),
            AnswerText::Primary,
            Exit::Ok,
        ),
        row("500", "server", &["server", "server", "ok"], (2, 1)),
        with_result(row("500 once", "server+fail-first=1", &["server", "ok"], (2, 0)), AnswerText::Primary, Exit::Ok),
        row("502 with an HTML page", "bad-gateway", &["server", "server", "ok"], (2, 1)),
        row("503 overloaded", "overloaded+retry-after=30", &["overloaded", "ok"], (1, 1)),
        row("503 of a gateway that has no upstream", "no-channel", &["no-channel", "ok"], (1, 1)),
        row("504", "gateway-timeout", &["gateway-timeout", "ok"], (1, 1)),
        Row { down: true, ..row("connection refused", "fast", &["connect", "connect", "ok"], (0, 1)) },
        row("connection reset before the response", "reset", &["reset", "reset", "ok"], (2, 1)),
        short_timeouts(row("no response headers", "silent", &["timeout", "ok"], (1, 1))),
        short_timeouts(row("first token after the timeout", "fast+ttft=5s", &["timeout", "ok"], (1, 1))),
        short_timeouts(with_result(
            row("slow first token within the timeout", "fast+ttft=100ms", &["ok"], (1, 0)),
            AnswerText::Primary,
            Exit::Ok,
        )),
        incomplete("stall after the first chunk", "stall", &["incomplete"]),
        incomplete("incomplete, closed cleanly", "cut-clean", &["incomplete"]),
        incomplete("incomplete, with [DONE] of a gateway", "cut-forged", &["incomplete"]),
        incomplete("incomplete, connection reset", "cut", &["incomplete"]),
        incomplete("error event after the first chunk", "cut-error", &["incomplete"]),
        recovered(
            short_timeouts(row("stall, restarted", "stall", &["incomplete", "ok"], (1, 1))),
            OnIncomplete::Restart,
        ),
        recovered(row("incomplete, restarted", "cut", &["incomplete", "ok"], (1, 1)), OnIncomplete::Restart),
        recovered(row("incomplete, buffered", "cut-clean", &["incomplete", "ok"], (1, 1)), OnIncomplete::Buffer),
        recovered(
            row("error event after the first chunk, buffered", "cut-error", &["incomplete", "ok"], (1, 1)),
            OnIncomplete::Buffer,
        ),
        row("error event before the first chunk", "in-stream", &["in-stream", "in-stream", "ok"], (2, 1)),
        row("200 with an error body", "error-body", &["server", "server", "ok"], (2, 1)),
        row("200 with an HTML page", "garbage", &["invalid-response", "ok"], (1, 1)),
        row("200 with an empty body", "empty", &["invalid-response", "invalid-response", "ok"], (2, 1)),
        with_result(row("invalid chunk", "garbled", &["invalid-chunk"], (1, 0)), AnswerText::Primary, Exit::Incomplete),
        recovered(row("invalid chunk, buffered", "garbled", &["invalid-chunk", "ok"], (1, 1)), OnIncomplete::Buffer),
        with_result(row("content filter", "filter", &["filter"], (1, 0)), AnswerText::None, Exit::Failed),
        Row {
            route: "on_filter = \"next\"",
            ..row("content filter, next candidate", "filter", &["filter", "ok"], (1, 1))
        },
        row("prompt is too long", "context", &["context", "ok"], (1, 1)),
        with_result(row("invalid request", "request", &["request"], (1, 0)), AnswerText::None, Exit::Failed),
        row("rejected key", "auth", &["auth", "ok"], (1, 1)),
        without_backup(row("rejected key, no backup", "auth", &["auth"], (1, 0)), AnswerText::None, Exit::Key),
        Row {
            endpoint: "api_keys = [\"sk-first-0000\", \"sk-second-0000\"]",
            ..row("two rejected keys", "auth", &["auth", "auth", "ok"], (2, 1))
        },
        row("quota exhausted", "quota", &["quota", "ok"], (1, 1)),
        row("forbidden", "forbidden", &["forbidden", "ok"], (1, 1)),
        row("unknown model", "model", &["model", "ok"], (1, 1)),
        row("no API at this URL", "path", &["path", "ok"], (1, 1)),
        row("redirect", "redirect", &["redirect", "ok"], (1, 1)),
        row("409", "conflict", &["conflict", "conflict", "ok"], (2, 1)),
        Row {
            route: "hedge_after = \"100ms\"",
            ..row("slow first token, hedged", "fast+ttft=5s", &["local-limit", "ok"], (1, 1))
        },
        Row {
            down: true,
            ..without_backup(
                row("all candidates down", "fast", &["connect"; 4], (0, 0)),
                AnswerText::None,
                Exit::Failed,
            )
        },
    ]
}

async fn check_row(row: &Row, env: &FaultEnv) {
    env.primary.set_up(!row.down);
    env.wait_for_ports().await;
    let config = env.config(row.primary, row.backup.then_some("instant"), row.endpoint, row.route);
    let result = env.send_request(&config, row.on_incomplete).await;
    let text = match result.text.as_str() {
        PRIMARY => AnswerText::Primary,
        BACKUP => AnswerText::Backup,
        "" => AnswerText::None,
        text if PRIMARY.starts_with(text) => AnswerText::Partial,
        other => panic!("{}: {other:?}", row.name),
    };
    let want = &row.expected;
    assert_eq!(result.classes(), want.classes, "{}: classes of the attempts", row.name);
    assert_eq!((text, result.exit()), (want.text, want.exit), "{}: text and exit code", row.name);
    assert_eq!(env.request_counts(), want.requests, "{}: requests to the primary and the backup", row.name);
}

#[tokio::test(start_paused = true)]
async fn every_fault_has_the_expected_result() {
    for row in rows() {
        check_row(&row, &FaultEnv::in_process()).await;
    }
}

#[tokio::test]
#[ignore = "takes minutes of real time; .ci/run runs it"]
async fn every_fault_has_the_expected_result_over_sockets() {
    for row in rows() {
        check_row(&row, &FaultEnv::over_sockets().await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn outage_of_all_candidates_fails_with_few_attempts() {
    let env = FaultEnv::in_process();
    env.primary.set_up(false);
    env.backup.set_up(false);
    let config = env.config("fast", Some("instant"), "", "");
    let (mut attempts, started) = (0, tokio::time::Instant::now());
    for _ in 0..20 {
        let result = env.send_request(&config, OnIncomplete::Error).await;
        assert_eq!((result.exit(), result.text.as_str()), (Exit::Failed, ""));
        attempts += result.outcome.attempts.len();
    }
    // Each call tries each candidate once. Retries are a fifth of the requests to a candidate at most.
    let retries = 2 * (attempts / 2 / 5);
    assert!((40..=40 + retries).contains(&attempts), "{attempts} attempts");
    assert!(started.elapsed() < tokio::time::Duration::from_secs(5), "no call waits for an open breaker");
    env.backup.set_up(true);
    assert_eq!(env.send_request(&config, OnIncomplete::Error).await.text, BACKUP);
}
