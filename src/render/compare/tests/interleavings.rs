//! Tests runs with random timing: slow, failing and incomplete responses, and a user who stops and restarts calls.
//!
//! The output of a model must appear under the name of its own call, on the screen and in the record.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::*;
use crate::{
    conversation::AnswerCollector,
    engine::{
        Engine,
        plan::{Call, Plan},
    },
    model::{
        ChatRequest, Message, ModelRequest, Role,
        endpoint::ConnectOptions,
        target::{Price, Target},
    },
    routing::{OnIncomplete, RoutePolicy},
    store::record::{Database, GroupBy, RecordWriter, RunCalls, RunPlacement, StatsRow},
    transport::{ByteStream, Transport, TransportError, TransportErrorKind, keys::KeyRing},
};

const CALL_COUNT: usize = 3;

/// The response to one request.
#[derive(Clone, Copy, Debug)]
enum ScriptedResponse {
    /// A complete answer with this number of chunks, this many milliseconds apart.
    Complete(u64, u64),
    /// The same number of chunks, then a connection reset.
    Reset(u64, u64),
    /// A server error after this many milliseconds.
    ServerError(u64),
}

fn scripted_response() -> impl Strategy<Value = ScriptedResponse> {
    prop_oneof![
        4 => (1u64..6, 0u64..40).prop_map(|(chunks, wait)| ScriptedResponse::Complete(chunks, wait)),
        2 => (0u64..6, 0u64..40).prop_map(|(chunks, wait)| ScriptedResponse::Reset(chunks, wait)),
        1 => (0u64..40).prop_map(ScriptedResponse::ServerError),
    ]
}

/// A transport whose responses repeat the name of the requested model in each chunk.
struct ScriptedTransport(Mutex<VecDeque<ScriptedResponse>>);

impl Transport for ScriptedTransport {
    fn send(
        &self,
        _: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).expect("valid JSON");
        let model = body["model"].as_str().expect("a string").to_owned();
        let scripted = self.0.lock().pop_front().unwrap_or(ScriptedResponse::Complete(1, 0));
        async move {
            let (count, wait, complete) = match scripted {
                ScriptedResponse::Complete(count, wait) => (count, wait, true),
                ScriptedResponse::Reset(count, wait) => (count, wait, false),
                ScriptedResponse::ServerError(wait) => {
                    sleep(Duration::from_millis(wait)).await;
                    let mut response = http::Response::new(stream::empty().boxed());
                    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                    return Ok(response);
                }
            };
            let content = (0..count)
                .map(move |_| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{model} \"}}}}]}}\n\n"));
            let end = complete.then(|| {
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_owned()
            });
            let chunks = content.chain(end).map(Ok).chain((!complete).then_some(Err(())));
            let body = stream::iter(chunks).then(move |chunk| async move {
                sleep(Duration::from_millis(wait)).await;
                chunk.map(Bytes::from).map_err(|()| TransportError::new(TransportErrorKind::Reset, "connection reset"))
            });
            Ok(http::Response::new(body.boxed()))
        }
        .boxed()
    }
}

/// A call with two candidates, whose names begin with its own.
fn call(index: usize, on_incomplete: OnIncomplete) -> Call {
    let messages = vec![Message::text(Role::User, "who are you?")];
    let price = Price { input: 1e4, output: 1e6, cached_input: None, currency: "USD".into() };
    let priced = |name: &str| Target { price: Some(price.clone()), ..testing::target(name) };
    let candidates = ["a", "b"].map(|end| Arc::new(priced(&format!("call{index}{end}"))));
    let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let single = Call::single(format!("call{index}"), request, Arc::clone(&candidates[0]));
    Call { candidates: candidates.to_vec(), route: Some(RoutePolicy::default()), on_incomplete, ..single }
}

/// User actions: after this many events, stop this call, or restart it if true.
type UserActions = Vec<(usize, usize, bool)>;

/// What each consumer of a run's events has at its end.
struct Consumers {
    view: CompareView,
    collected: Vec<crate::conversation::Answer>,
    /// The records of each call, in order; a restarted call has several.
    records: Vec<Vec<Arc<CallRecord>>>,
    /// How often each call was restarted.
    restarts: Vec<usize>,
    /// The stored answers with their numbers.
    turns: Vec<(i64, String)>,
    /// The sums of the stored statistics of all models.
    stored: Sums,
}

/// Sums over attempts.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    requests: u64,
    failed: u64,
    input: u64,
    output: u64,
    /// In millionths, because sums of floats depend on their order.
    cost: i64,
}

#[expect(clippy::cast_possible_truncation, reason = "costs of a test are small")]
fn micro_units(cost: f64) -> i64 {
    (cost * 1e6).round() as i64
}

impl Sums {
    /// The sums that the records of a run imply.
    fn of_records<'r>(records: impl Iterator<Item = &'r Arc<CallRecord>>) -> Self {
        let mut sums = Self::default();
        for attempt in records.flat_map(|record| &record.attempts) {
            let usage = attempt.usage.unwrap_or_default();
            sums.requests += u64::from(attempt.is_counted());
            sums.failed += u64::from(attempt.class().is_some_and(|class| class != ErrorClass::LocalLimit));
            sums.input += usage.input.unwrap_or_default();
            sums.output += usage.output.unwrap_or_default();
            sums.cost += micro_units(attempt.cost().map_or(0.0, |(cost, _)| cost));
        }
        sums
    }

    /// The sums of the stored statistics.
    fn stored(database: &Database) -> Self {
        let rows = database.stats(GroupBy::Model, None, None).expect("the record is readable");
        rows.iter().fold(Self::default(), |sums, StatsRow { metrics, .. }| Self {
            requests: sums.requests + metrics.calls,
            failed: sums.failed + metrics.failed,
            input: sums.input + metrics.input,
            output: sums.output + metrics.output,
            cost: sums.cost + micro_units(metrics.cost.get("USD").copied().unwrap_or_default()),
        })
    }
}

/// Runs the calls with all consumers of their events.
async fn run(
    responses: Vec<ScriptedResponse>,
    actions: UserActions,
    on_incomplete: OnIncomplete,
    max_concurrent: Option<usize>,
) -> Consumers {
    let folder = tempfile::tempdir().expect("temporary folder");
    let engine = Arc::new(Engine::new(Arc::new(ScriptedTransport(Mutex::new(responses.into()))), KeyRing::default()));
    let plan = Plan { calls: (0..CALL_COUNT).map(|index| call(index, on_incomplete)).collect(), max_concurrent };
    let path = Database::path_in(folder.path());
    let (calls, writer) =
        (RunCalls::new("compare", true, &plan), RecordWriter::for_command(path, RunPlacement::default(), None));
    let names = plan.calls.iter().map(Call::label);
    let mut view = CompareView::new(settings(Format::Text, View::Auto, Some(120)), names, Instant::now());
    let mut collector = AnswerCollector::new(CALL_COUNT);
    let (mut records, mut restarts) = (vec![Vec::new(); CALL_COUNT], vec![0; CALL_COUNT]);
    let mut run = engine.run(plan.retaining_text());
    let (mut count, mut actions) = (0, VecDeque::from(actions));
    while let Some(event) = run.next().await {
        view.on_event(&event, &mut Output::default());
        calls.stored_call(&event).into_iter().for_each(|call| writer.submit(call));
        collector.on_event(&event);
        if let EventKind::Finished(record) = &event.kind {
            records[event.call].push(Arc::clone(record));
        }
        restarts[event.call] += usize::from(matches!(event.kind, EventKind::Restarted));
        let _ = view.live_rows(120, 40, Instant::now());
        count += 1;
        while let Some((_, index, restart)) = actions.pop_front_if(|(after, ..)| *after <= count) {
            if restart { run.restart(index) } else { run.stop(index) }
        }
    }
    let recorded = writer.close().expect("the record is writable");
    let database = Database::open_existing(&Database::path_in(folder.path())).expect("the record is readable");
    let stored = database.as_ref().map(Sums::stored).unwrap_or_default();
    let turns = match (database, recorded) {
        (Some(database), Some(recorded)) => database.turns(recorded.conversation).expect("the turns are readable"),
        _ => Vec::new(),
    };
    let turns = turns.into_iter().map(|turn| (turn.answer_number, turn.answer)).collect();
    Consumers { view, collected: collector.into_answers(), records, restarts, turns, stored }
}

/// Runs on a paused clock.
fn run_paused(
    responses: Vec<ScriptedResponse>,
    mut actions: UserActions,
    on_incomplete: OnIncomplete,
    max_concurrent: Option<usize>,
) -> Consumers {
    actions.sort_unstable();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("the runtime starts").block_on(run(responses, actions, on_incomplete, max_concurrent))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn output_appears_under_the_name_of_its_own_call(
        responses in prop::collection::vec(scripted_response(), 0..24),
        actions in prop::collection::vec((0usize..40, 0usize..CALL_COUNT, any::<bool>()), 0..8),
        on_incomplete in prop::sample::select(vec![OnIncomplete::Error, OnIncomplete::Buffer, OnIncomplete::Restart]),
        max_concurrent in prop::sample::select(vec![None, Some(1), Some(2)]),
    ) {
        let consumers = run_paused(responses, actions, on_incomplete, max_concurrent);
        let texts: Vec<String> = consumers.view.calls.iter().map(CallView::text).collect();
        for (index, text) in texts.iter().enumerate() {
            let own_models = [format!("call{index}a-upstream"), format!("call{index}b-upstream")];
            let words: Vec<&str> = text.split_whitespace().collect();
            let is_own = |word: &&str| own_models.iter().any(|model| model == word);
            prop_assert!(words.iter().all(is_own), "{text:?} in call {index}");
            prop_assert!(words.windows(2).all(|pair| pair[0] == pair[1]), "two models in one answer: {text:?}");
        }
        for (number, text) in consumers.turns {
            let own = format!("call{}", number - 1);
            prop_assert!(text.split_whitespace().all(|word| word.starts_with(&own)), "{text:?} in answer {number}");
        }
    }

    /// Every start of a call ends in one record, and the view, the stored record and the conversation agree with it.
    #[test]
    fn every_consumer_has_the_numbers_of_the_record(
        responses in prop::collection::vec(scripted_response(), 0..24),
        actions in prop::collection::vec((0usize..40, 0usize..CALL_COUNT, any::<bool>()), 0..8),
        on_incomplete in prop::sample::select(vec![OnIncomplete::Error, OnIncomplete::Buffer, OnIncomplete::Restart]),
        max_concurrent in prop::sample::select(vec![None, Some(1), Some(2)]),
    ) {
        let consumers = run_paused(responses, actions, on_incomplete, max_concurrent);
        for index in 0..CALL_COUNT {
            let records = &consumers.records[index];
            prop_assert_eq!(records.len(), 1 + consumers.restarts[index], "call {}", index);
            let last = records.last().expect("at least one record");
            for record in records {
                let is_of_an_attempt = record.attempts.iter().any(|attempt| attempt.usage == record.usage);
                prop_assert!(record.usage.is_none() || is_of_an_attempt, "{:?}", record);
                prop_assert!(!record.incomplete || !record.answer.is_empty(), "the incomplete answer is lost: {:?}", record);
            }
            let (view, collected) = (&consumers.view.calls[index], &consumers.collected[index]);
            prop_assert_eq!((view.usage(), view.ttft()), (last.usage, last.ttft));
            prop_assert_eq!((collected.usage, collected.ttft), (last.usage, last.ttft));
            prop_assert_eq!(&collected.text, &last.answer.content.text);
            prop_assert_eq!(view.raw_text(), last.answer.content.text.as_str());
            // The view also counts the runs before a restart.
            let costs = records.iter().filter_map(|record| record.cost()).map(|(cost, _)| cost);
            let total = costs.reduce(|sum, cost| sum + cost).filter(|_| last.target.is_some());
            prop_assert_eq!(view.cost().map(|(cost, _)| micro_units(cost)), total.map(micro_units));
            let costs = records.iter().filter_map(|record| record.cost()).map(|(cost, _)| cost);
            let total = costs.reduce(|sum, cost| sum + cost);
            prop_assert_eq!(collected.cost.as_ref().map(|(cost, _)| micro_units(*cost)), total.map(micro_units));
        }
        prop_assert_eq!(consumers.stored, Sums::of_records(consumers.records.iter().flatten()));
    }
}
