//! Real runs in random orders: services that are slow, fail or break off, and a person who stops lanes and asks them once more.
//! Whatever happens, what a model said is under its own lane's name, on the screen and in the record.

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::sleep;

use super::*;
use crate::{
    engine::{
        Engine,
        plan::{Lane, Plan},
    },
    model::{Call, ChatRequest, Message, Role, endpoint::ConnectOptions},
    routing::{OnCut, Policy},
    store::record::{Database, GoesOn, RecordOptions, Recorder},
    transport::{ByteStream, Transport, TransportError, TransportErrorKind, keys::KeyRing},
};

const LANES: usize = 3;

/// How one request is answered.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// So many pieces, so many milliseconds apart, and whole.
    Whole(u64, u64),
    /// The same, and then the connection breaks.
    Broken(u64, u64),
    /// Refused after so many milliseconds.
    Refused(u64),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (1u64..6, 0u64..40).prop_map(|(pieces, wait)| Fate::Whole(pieces, wait)),
        2 => (0u64..6, 0u64..40).prop_map(|(pieces, wait)| Fate::Broken(pieces, wait)),
        1 => (0u64..40).prop_map(Fate::Refused),
    ]
}

/// Services whose every piece is the name of the model that was asked.
struct Services(Mutex<VecDeque<Fate>>);

impl Transport for Services {
    fn send(
        &self,
        _: &ConnectOptions,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'_, Result<http::Response<ByteStream>, TransportError>> {
        let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
        let model = body["model"].as_str().expect("a model").to_owned();
        let fate = self.0.lock().expect("one thread").pop_front().unwrap_or(Fate::Whole(1, 0));
        async move {
            let (pieces, wait, whole) = match fate {
                Fate::Whole(pieces, wait) => (pieces, wait, true),
                Fate::Broken(pieces, wait) => (pieces, wait, false),
                Fate::Refused(wait) => {
                    sleep(Duration::from_millis(wait)).await;
                    let mut reply = http::Response::new(stream::empty().boxed());
                    *reply.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                    return Ok(reply);
                }
            };
            let said = (0..pieces)
                .map(move |_| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{model} \"}}}}]}}\n\n"));
            let end = whole.then(|| {
                "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_owned()
            });
            let pieces = said.chain(end).map(Ok).chain((!whole).then_some(Err(())));
            let body = stream::iter(pieces).then(move |piece| async move {
                sleep(Duration::from_millis(wait)).await;
                piece.map(Bytes::from).map_err(|()| TransportError::new(TransportErrorKind::Reset, "connection reset"))
            });
            Ok(http::Response::new(body.boxed()))
        }
        .boxed()
    }
}

/// A lane that may be answered by two models, whose names begin with its own.
fn lane(index: usize, on_cut: OnCut) -> Lane {
    let messages = vec![Message::text(Role::User, "who are you?")];
    let candidates = ["a", "b"].map(|end| Arc::new(testing::target(&format!("lane{index}{end}"))));
    let call = Arc::new(Call::Chat(ChatRequest { messages, stream: true, ..ChatRequest::default() }));
    let alone = Lane::alone(format!("lane{index}"), call, Arc::clone(&candidates[0]));
    Lane { candidates: candidates.to_vec(), route: Some(Policy::default()), on_cut, ..alone }
}

/// After so many events this is done to that lane.
type Wishes = Vec<(usize, usize, bool)>;

/// The texts on the screen and in the record after a run.
async fn run(
    fates: Vec<Fate>,
    wishes: Wishes,
    on_cut: OnCut,
    at_once: Option<usize>,
) -> (Vec<String>, Vec<(i64, String)>) {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Arc::new(Engine::new(Arc::new(Services(Mutex::new(fates.into()))), KeyRing::default()));
    let plan = Plan { lanes: (0..LANES).map(|index| lane(index, on_cut)).collect(), at_once };
    let place = Some(Database::place(folder.path()));
    let options = RecordOptions { place, command: "compare", words: true, days: None, goes_on: GoesOn::Anew };
    let mut recorder = Recorder::new(options, &plan);
    let names = plan.lanes.iter().map(Lane::label);
    let mut view = CompareView::new(settings(Format::Text, View::Auto, Some(120)), names, Instant::now());
    let mut run = engine.run(plan);
    let (mut count, mut wishes) = (0, VecDeque::from(wishes));
    while let Some(event) = run.next().await {
        view.event(&event, &mut Output::default());
        recorder.event(&event);
        let _ = view.rows(120, 40, Instant::now());
        count += 1;
        while let Some((_, lane, again)) = wishes.pop_front_if(|(after, ..)| *after <= count) {
            if again { run.again(lane) } else { run.stop(lane) }
        }
    }
    recorder.stop();
    let kept = recorder.close().expect("written");
    let database = Database::open_existing(&Database::place(folder.path())).expect("readable");
    let exchanges = match (database, kept) {
        (Some(database), Some(kept)) => database.exchanges(kept.conversation).expect("read"),
        _ => Vec::new(),
    };
    let kept = exchanges.into_iter().map(|exchange| (exchange.lane, exchange.answer)).collect();
    (view.lanes.iter().map(LaneView::text).collect(), kept)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_a_model_said_is_under_its_own_lanes_name(
        fates in prop::collection::vec(fate(), 0..24),
        wishes in prop::collection::vec((0usize..40, 0usize..LANES, any::<bool>()), 0..8),
        on_cut in prop::sample::select(vec![OnCut::Error, OnCut::Buffer, OnCut::Restart]),
        at_once in prop::sample::select(vec![None, Some(1), Some(2)]),
    ) {
        let mut wishes: Wishes = wishes;
        wishes.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("one");
        let (shown, kept) = runtime.block_on(run(fates, wishes, on_cut, at_once));
        for (index, text) in shown.iter().enumerate() {
            let own = [format!("lane{index}a-upstream"), format!("lane{index}b-upstream")];
            let words: Vec<&str> = text.split_whitespace().collect();
            prop_assert!(words.iter().all(|word| own.iter().any(|own| own == word)), "{text:?} in lane {index}");
            prop_assert!(words.windows(2).all(|pair| pair[0] == pair[1]), "two models in one answer: {text:?}");
        }
        for (lane, text) in kept {
            let own = format!("lane{}", lane - 1);
            prop_assert!(text.split_whitespace().all(|word| word.starts_with(&own)), "{text:?} is kept in lane {lane}");
        }
    }
}
