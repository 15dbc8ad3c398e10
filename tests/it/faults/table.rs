//! One fault at a time.

use mmchat::{cli::Exit, routing::OnIncomplete};

use super::{BACKUP, PRIMARY, World};

/// One row: how the primary fails, and what comes of it.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The primary's model.
    pub(super) primary: &'static str,
    /// What else is known of its endpoint.
    pub(super) endpoint: &'static str,
    pub(super) route: &'static str,
    /// There is somebody else to ask.
    pub(super) backup: bool,
    /// It cannot be connected to.
    pub(super) down: bool,
    pub(super) on_cut: OnIncomplete,
    pub(super) want: Want,
}

pub(super) struct Want {
    text: Text,
    exit: Exit,
    /// What each request came to.
    pub(super) classes: &'static [&'static str],
    /// Requests at the primary and at the backup.
    requests: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    Primary,
    Half,
    Backup,
    None,
}

/// Rows differ from this one: the backup answers in place of the primary, which was asked once.
fn row(name: &'static str, primary: &'static str, classes: &'static [&'static str], requests: (u64, u64)) -> Row {
    Row {
        name,
        primary,
        endpoint: "",
        route: "",
        backup: true,
        down: false,
        on_cut: OnIncomplete::Error,
        want: Want { text: Text::Backup, exit: Exit::Ok, classes, requests },
    }
}

/// Silence and stalls are told from slowness within these.
const SHORT: &str = "timeouts = { first_token = \"300ms\", idle = \"300ms\", total = \"3s\" }";

pub(super) fn rows() -> Vec<Row> {
    let ends = |row: Row, text, exit| Row { want: Want { text, exit, ..row.want }, ..row };
    let alone = |row: Row, text, exit| Row { backup: false, ..ends(row, text, exit) };
    let short = |row: Row| Row { endpoint: SHORT, ..row };
    let cut = |name, fault, class| short(ends(row(name, fault, class, (1, 0)), Text::Half, Exit::Incomplete));
    let on_cut =
        |row: Row, on_cut| Row { on_cut, want: Want { text: Text::Backup, exit: Exit::Ok, ..row.want }, ..row };
    vec![
        row("429 with Retry-After: the next one", "rate+retry-after=30", &["rate", "ok"], (1, 1)),
        alone(
            row(
                "429 with Retry-After, alone, then success",
                "rate+retry-after=1+fail-first=1",
                &["rate", "ok"],
                (2, 0),
            ),
            Text::Primary,
            Exit::Ok,
        ),
        row("500", "server", &["server", "server", "ok"], (2, 1)),
        ends(row("500 once", "server+fail-first=1", &["server", "ok"], (2, 0)), Text::Primary, Exit::Ok),
        row("502 with a page", "bad-gateway", &["server", "server", "ok"], (2, 1)),
        row("503 overloaded", "overloaded+retry-after=30", &["overloaded", "ok"], (1, 1)),
        row("503 of a gateway without a channel", "no-channel", &["no-channel", "ok"], (1, 1)),
        row("504", "gateway-timeout", &["gateway-timeout", "ok"], (1, 1)),
        Row { down: true, ..row("connection refused", "fast", &["connect", "connect", "ok"], (0, 1)) },
        row("closed before a word", "reset", &["reset", "reset", "ok"], (2, 1)),
        short(row("silence before the headers", "silent", &["silent", "ok"], (1, 1))),
        short(row("a first token that comes too late", "fast+ttft=5s", &["silent", "ok"], (1, 1))),
        short(ends(row("a first token that comes late", "fast+ttft=100ms", &["ok"], (1, 0)), Text::Primary, Exit::Ok)),
        cut("a stall in the middle", "stall", &["cut"]),
        cut("cut in the middle, closed cleanly", "cut-clean", &["cut"]),
        cut("cut in the middle, with a forged end", "cut-forged", &["cut"]),
        cut("cut in the middle, reset", "cut", &["cut"]),
        cut("an error event in the middle", "cut-error", &["cut"]),
        on_cut(short(row("a stall, restarted", "stall", &["cut", "ok"], (1, 1))), OnIncomplete::Restart),
        on_cut(row("cut, restarted", "cut", &["cut", "ok"], (1, 1)), OnIncomplete::Restart),
        on_cut(row("cut, held back", "cut-clean", &["cut", "ok"], (1, 1)), OnIncomplete::Buffer),
        on_cut(
            row("an error event in the middle, held back", "cut-error", &["cut", "ok"], (1, 1)),
            OnIncomplete::Buffer,
        ),
        row("an error event first", "in-stream", &["in-stream", "in-stream", "ok"], (2, 1)),
        row("200 with an error for a body", "error-body", &["server", "server", "ok"], (2, 1)),
        row("200 with a page", "garbage", &["garbage", "ok"], (1, 1)),
        row("200 with nothing", "empty", &["garbage", "garbage", "ok"], (2, 1)),
        ends(row("a malformed event", "garbled", &["garbled"], (1, 0)), Text::Primary, Exit::Incomplete),
        on_cut(row("a malformed event, held back", "garbled", &["garbled", "ok"], (1, 1)), OnIncomplete::Buffer),
        ends(row("a content filter", "filter", &["filter"], (1, 0)), Text::None, Exit::Failed),
        Row { route: "on_filter = \"next\"", ..row("a content filter, and on", "filter", &["filter", "ok"], (1, 1)) },
        ends(row("a context that is too long", "context", &["context"], (1, 0)), Text::None, Exit::Failed),
        ends(row("a request that is wrong", "request", &["request"], (1, 0)), Text::None, Exit::Failed),
        row("a refused key", "auth", &["auth", "ok"], (1, 1)),
        alone(row("a refused key, alone", "auth", &["auth"], (1, 0)), Text::None, Exit::Key),
        Row {
            endpoint: "api_keys = [\"sk-first-0000\", \"sk-second-0000\"]",
            ..row("two refused keys", "auth", &["auth", "auth", "ok"], (2, 1))
        },
        row("a quota that is used up", "quota", &["quota", "ok"], (1, 1)),
        row("forbidden", "forbidden", &["forbidden", "ok"], (1, 1)),
        row("a model that is not there", "model", &["model", "ok"], (1, 1)),
        row("no API at the address", "path", &["path", "ok"], (1, 1)),
        row("sent elsewhere", "redirect", &["redirect", "ok"], (1, 1)),
        row("409", "conflict", &["conflict", "conflict", "ok"], (2, 1)),
        Row { route: "hedge_after = \"100ms\"", ..row("slow, and hedged", "fast+ttft=5s", &["local", "ok"], (1, 1)) },
        Row {
            down: true,
            ..alone(row("everything down", "fast", &["connect", "connect"], (0, 0)), Text::None, Exit::Failed)
        },
    ]
}

async fn check(row: &Row, world: &World) {
    world.primary.set_up(!row.down);
    world.settled().await;
    let config = world.config(row.primary, row.backup.then_some("instant"), row.endpoint, row.route);
    let seen = world.ask(&config, row.on_cut).await;
    let text = match seen.text.as_str() {
        PRIMARY => Text::Primary,
        BACKUP => Text::Backup,
        "" => Text::None,
        half if PRIMARY.starts_with(half) => Text::Half,
        other => panic!("{}: {other:?}", row.name),
    };
    let want = &row.want;
    assert_eq!(seen.classes(), want.classes, "{}: what the requests came to", row.name);
    assert_eq!((text, seen.exit()), (want.text, want.exit), "{}: what the client sees", row.name);
    assert_eq!(world.requests(), want.requests, "{}: requests at the primary and the backup", row.name);
}

#[tokio::test(start_paused = true)]
async fn paused() {
    for row in rows() {
        check(&row, &World::in_process()).await;
    }
}

#[tokio::test]
#[ignore = "takes real time; run with all checks"]
async fn for_real() {
    for row in rows() {
        check(&row, &World::for_real().await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn everything_down_is_told_and_nobody_is_hammered() {
    let world = World::in_process();
    world.primary.set_up(false);
    world.backup.set_up(false);
    let config = world.config("fast", Some("instant"), "", "");
    let (mut asked, begun) = (0, tokio::time::Instant::now());
    for _ in 0..20 {
        let seen = world.ask(&config, OnIncomplete::Error).await;
        assert_eq!((seen.exit(), seen.text.as_str()), (Exit::Failed, ""));
        asked += seen.outcome.attempts.len();
    }
    // The first finds it out with two each; after that each of the two is tried once in five seconds, or in the four that
    // are the least anybody is left alone for.
    let due = begun.elapsed().as_secs() / 4 + 1;
    assert!(asked >= 20 && asked as u64 <= 4 + 2 * due, "{asked} requests in {:?}", begun.elapsed());
    world.backup.set_up(true);
    assert_eq!(world.ask(&config, OnIncomplete::Error).await.text, BACKUP);
}
