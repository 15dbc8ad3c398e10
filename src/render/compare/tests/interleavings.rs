//! Tests runs with random timing: slow, failing and incomplete responses, and a user who stops and restarts calls.
//!
//! The output of a model must appear under the name of its own call, on the screen and in the record.

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::sleep;

use super::*;
use crate::{
    engine::{
        Engine,
        plan::{Call, Plan},
    },
    model::{ChatRequest, Message, ModelRequest, Role, endpoint::ConnectOptions},
    routing::{OnIncomplete, Policy},
    store::record::{Continuation, Database, RecordOptions, RunWriter},
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
        let fate = self.0.lock().expect("not poisoned").pop_front().unwrap_or(ScriptedResponse::Complete(1, 0));
        async move {
            let (count, wait, complete) = match fate {
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
    let candidates = ["a", "b"].map(|end| Arc::new(testing::target(&format!("call{index}{end}"))));
    let request = Arc::new(ModelRequest::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let single = Call::single(format!("call{index}"), request, Arc::clone(&candidates[0]));
    Call { candidates: candidates.to_vec(), route: Some(Policy::default()), on_incomplete, ..single }
}

/// User actions: after this many events, stop this call, or restart it if true.
type UserActions = Vec<(usize, usize, bool)>;

/// Runs the calls and returns the texts of the view and of the record.
async fn run(
    responses: Vec<ScriptedResponse>,
    actions: UserActions,
    on_incomplete: OnIncomplete,
    max_concurrent: Option<usize>,
) -> (Vec<String>, Vec<(i64, String)>) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let engine = Arc::new(Engine::new(Arc::new(ScriptedTransport(Mutex::new(responses.into()))), KeyRing::default()));
    let plan = Plan { calls: (0..CALL_COUNT).map(|index| call(index, on_incomplete)).collect(), max_concurrent };
    let path = Some(Database::path_in(folder.path()));
    let options = RecordOptions {
        path,
        command: "compare",
        store_content: true,
        retention_days: None,
        continuation: Continuation::New,
    };
    let mut recorder = RunWriter::new(options, &plan);
    let names = plan.calls.iter().map(Call::label);
    let mut view = CompareView::new(settings(Format::Text, View::Auto, Some(120)), names, Instant::now());
    let mut run = engine.run(plan.retaining_text());
    let (mut count, mut actions) = (0, VecDeque::from(actions));
    while let Some(event) = run.next().await {
        view.on_event(&event, &mut Output::default());
        recorder.on_event(&event);
        let _ = view.live_rows(120, 40, Instant::now());
        count += 1;
        while let Some((_, index, restart)) = actions.pop_front_if(|(after, ..)| *after <= count) {
            if restart { run.restart(index) } else { run.stop(index) }
        }
    }
    let recorded = recorder.close().expect("the record is writable");
    let database = Database::open_existing(&Database::path_in(folder.path())).expect("the record is readable");
    let turns = match (database, recorded) {
        (Some(database), Some(recorded)) => database.turns(recorded.conversation).expect("the turns are readable"),
        _ => Vec::new(),
    };
    let recorded = turns.into_iter().map(|turn| (turn.answer_number, turn.answer)).collect();
    (view.calls.iter().map(CallView::text).collect(), recorded)
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
        let mut actions: UserActions = actions;
        actions.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("the runtime starts");
        let (shown, recorded) = runtime.block_on(run(responses, actions, on_incomplete, max_concurrent));
        for (index, text) in shown.iter().enumerate() {
            let own = [format!("call{index}a-upstream"), format!("call{index}b-upstream")];
            let words: Vec<&str> = text.split_whitespace().collect();
            prop_assert!(words.iter().all(|word| own.iter().any(|own| own == word)), "{text:?} in call {index}");
            prop_assert!(words.windows(2).all(|pair| pair[0] == pair[1]), "two models in one answer: {text:?}");
        }
        for (number, text) in recorded {
            let own = format!("call{}", number - 1);
            prop_assert!(text.split_whitespace().all(|word| word.starts_with(&own)), "{text:?} in answer {number}");
        }
    }
}
