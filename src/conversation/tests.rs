//! Tests the history that each model receives after any sequence of commands.

use proptest::prelude::*;

use super::*;

fn chat_session(names: &[&str]) -> ChatSession {
    let known = ["a", "b", "c"];
    let resolve = move |names: &[&str]| {
        let named = names.iter().map(|name| {
            let model = known.iter().find(|model| *model == name);
            model.map(|model| (*model).to_owned()).ok_or_else(|| (format!("no {name}"), "use a, b or c".to_owned()))
        });
        named.collect()
    };
    let members = names.iter().map(|name| Member { name: (*name).to_owned(), turns: Vec::new() });
    ChatSession::new(members.collect(), None, false, Arc::new(resolve))
}

/// The texts sent to each model.
fn sent(effects: &[Effect]) -> Vec<(String, Vec<String>)> {
    let [Effect::StartRound(round)] = effects else { panic!("{effects:?}") };
    let text = |message: &Message| match &message.parts[0] {
        Part::Text(text) => text.clone(),
        Part::Image(_) => "image".into(),
    };
    round.calls.iter().map(|(name, messages)| (name.clone(), messages.iter().map(text).collect())).collect()
}

fn say(session: &mut ChatSession, line: &str) -> Vec<Effect> {
    session.handle(Event::Line(line.to_owned()))
}

fn answer(session: &mut ChatSession, texts: &[&str]) {
    let answers =
        texts.iter().map(|text| Answer { text: (*text).into(), is_complete: !text.is_empty(), ..Answer::default() });
    session.handle(Event::RoundFinished { answers: answers.collect(), interrupted: false, stored: None });
}

/// Like `answer`, with the answers stored as turns with these ids.
fn answer_stored(session: &mut ChatSession, texts: &[&str], turn_ids: &[i64]) {
    let answers =
        texts.iter().map(|text| Answer { text: (*text).into(), is_complete: !text.is_empty(), ..Answer::default() });
    let stored = StoredRound {
        conversation: 1,
        round: 1,
        turns: turn_ids.iter().copied().map(Some).collect(),
        answer_numbers: vec![],
    };
    session.handle(Event::RoundFinished { answers: answers.collect(), interrupted: false, stored: Some(stored) });
}

fn list(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    rows.iter().map(|(name, texts)| ((*name).into(), texts.iter().map(|&text| text.into()).collect())).collect()
}

fn is_error(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::ShowError(..)])
}

#[test]
fn each_model_receives_its_own_answers_until_one_is_picked() {
    let mut both = chat_session(&["a", "b"]);
    say(&mut both, "/system be brief");
    say(&mut both, "one");
    answer(&mut both, &["a1", "b1"]);
    let second = say(&mut both, "two");
    assert_eq!(
        sent(&second),
        list(&[("a", &["be brief", "one", "a1", "two"]), ("b", &["be brief", "one", "b1", "two"])])
    );
    // One fails: its history has no turn for the question, and the other answer stays.
    answer(&mut both, &["", "b2"]);
    assert!(
        is_error(&say(&mut both, "/pick 1"))
            && is_error(&say(&mut both, "/pick"))
            && is_error(&say(&mut both, "/pick 3"))
    );
    assert!(!is_error(&say(&mut both, "/pick @2")));
    say(&mut both, "/system -");
    let history: &[&str] = &["one", "b1", "two", "b2", "three"];
    assert_eq!(sent(&say(&mut both, "three")), list(&[("a", history), ("b", history)]));
}

#[test]
fn removed_or_replaced_turns_are_not_sent() {
    let mut one = chat_session(&["a"]);
    assert!(
        is_error(&say(&mut one, "/undo")) && is_error(&say(&mut one, "/again")) && is_error(&say(&mut one, "/copy"))
    );
    say(&mut one, "one");
    answer_stored(&mut one, &["first"], &[7]);
    let again = say(&mut one, "/again");
    assert_eq!(sent(&again), list(&[("a", &["one"])]));
    assert!(matches!(&again[..], [Effect::StartRound(round)] if round.continuation == Continuation::Replace(vec![7])));
    // A worse answer does not replace a complete one.
    answer_stored(&mut one, &[""], &[7]);
    assert_eq!(say(&mut one, "/copy"), [Effect::Copy("first".into())]);
    say(&mut one, "/again");
    answer_stored(&mut one, &["second"], &[7]);
    let next = say(&mut one, "two");
    assert_eq!(sent(&next), list(&[("a", &["one", "second", "two"])]));
    let after = Continuation::Append { turns: vec![Some(7)], fork: false };
    assert!(matches!(&next[..], [Effect::StartRound(round)] if round.continuation == after));
    answer_stored(&mut one, &["2"], &[8]);
    say(&mut one, "/undo");
    assert_eq!(sent(&say(&mut one, "other")), list(&[("a", &["one", "second", "other"])]));
}

#[test]
fn repeating_a_turn_that_is_not_stored_replaces_no_other_turn() {
    let mut one = chat_session(&["a"]);
    say(&mut one, "one");
    answer_stored(&mut one, &["1"], &[7]);
    say(&mut one, "two");
    answer(&mut one, &[""]);
    let again = say(&mut one, "/again");
    let after = Continuation::Append { turns: vec![Some(7)], fork: false };
    assert!(matches!(&again[..], [Effect::StartRound(round)] if round.continuation == after), "{again:?}");
}

#[test]
fn new_member_gets_the_history_of_the_first() {
    let mut chat = chat_session(&["a"]);
    say(&mut chat, "one");
    answer_stored(&mut chat, &["a1"], &[1]);
    assert!(is_error(&say(&mut chat, "/models a,x")) && is_error(&say(&mut chat, "/model zz")));
    say(&mut chat, "/models a, b");
    assert_eq!(chat.names().collect::<Vec<_>>(), ["a", "b"]);
    // The new member has no answer that could be replaced.
    let again = say(&mut chat, "/again");
    assert_eq!(sent(&again), list(&[("a", &["one"]), ("b", &["one"])]));
    answer_stored(&mut chat, &["a1", "b1"], &[2, 3]);
    say(&mut chat, "/model b");
    let next = say(&mut chat, "two");
    assert_eq!(sent(&next), list(&[("b", &["one", "b1", "two"])]));
}

#[test]
fn files_are_sent_with_the_next_question_only() {
    let mut chat = chat_session(&["a"]);
    assert_eq!(say(&mut chat, "/file notes.md"), [Effect::Attach("notes.md".into())]);
    chat.handle(Event::Attached { name: "notes.md".into(), part: Part::Text("its text".into()) });
    assert_eq!(sent(&say(&mut chat, "look")), list(&[("a", &["look\n\nits text"])]));
    // Attachments of a question that was not sent are kept.
    chat.handle(Event::RoundNotStarted);
    assert_eq!(sent(&say(&mut chat, "now")), list(&[("a", &["now\n\nits text"])]));
    answer(&mut chat, &["fine"]);
    assert_eq!(sent(&say(&mut chat, "next")), list(&[("a", &["now\n\nits text", "fine", "next"])]));
}

#[test]
fn second_interruption_quits() {
    let mut chat = chat_session(&["a"]);
    assert!(matches!(chat.handle(Event::Interrupted)[..], [Effect::ShowMessage(_)]));
    assert_eq!(chat.handle(Event::Interrupted), [Effect::Quit(true)]);
    say(&mut chat, "one");
    let partial = Answer { text: "partial".into(), ..Answer::default() };
    chat.handle(Event::RoundFinished { answers: vec![partial], interrupted: true, stored: None });
    assert_eq!(sent(&say(&mut chat, "two")), list(&[("a", &["one", "partial", "two"])]), "a partial answer is kept");
    chat.handle(Event::RoundFinished { answers: vec![Answer::default()], interrupted: true, stored: None });
    assert_eq!(chat.handle(Event::Interrupted), [Effect::Quit(true)]);
    assert_eq!(chat.handle(Event::InputEnded), [Effect::Quit(false)]);
}

#[test]
fn one_slash_starts_a_command_and_two_start_text() {
    let mut chat = chat_session(&["a"]);
    let effects = say(&mut chat, "/pikc 1");
    assert!(
        matches!(&effects[..], [Effect::ShowError(message, hint)] if message.contains("/pikc") && hint.contains("/pick?"))
    );
    assert_eq!(sent(&say(&mut chat, "//etc/hosts, what is it?")), list(&[("a", &["/etc/hosts, what is it?"])]));
    assert_eq!(say(&mut chat, "  "), []);
    assert_eq!(say(&mut chat, "/quit"), [Effect::Quit(false)]);
    for (name, ..) in COMMANDS {
        let effects = say(&mut chat_session(&["a"]), &format!("/{name}"));
        assert!(
            !matches!(&effects[..], [Effect::ShowError(message, _)] if message.contains("unknown command")),
            "/{name}"
        );
    }
}

proptest! {
    /// After any sequence of commands, user and assistant messages alternate and the question is last.
    #[test]
    fn user_and_assistant_messages_alternate(steps in prop::collection::vec((0usize..8, any::<bool>()), 0..40)) {
        let mut chat = chat_session(&["a", "b"]);
        for (number, (step, fails)) in steps.into_iter().enumerate() {
            let line = match step {
                0 => "/undo".to_owned(),
                1 => "/again".to_owned(),
                2 => "/pick 1".to_owned(),
                3 => "/models a,b,c".to_owned(),
                4 => "/model b".to_owned(),
                _ => format!("question {number}"),
            };
            for effect in say(&mut chat, &line) {
                let Effect::StartRound(round) = effect else { continue };
                let names: Vec<String> = chat.names().map(str::to_owned).collect();
                prop_assert_eq!(round.calls.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names.clone());
                for (_, messages) in &round.calls {
                    for (index, message) in messages.iter().enumerate() {
                        let role = if index % 2 == 0 { Role::User } else { Role::Assistant };
                        prop_assert_eq!(message.role, role);
                    }
                    prop_assert!(messages.len() % 2 == 1);
                }
                let texts: Vec<String> =
                    names.iter().map(|name| if fails && name == "a" { String::new() } else { format!("{name} {number}") }).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                answer(&mut chat, &texts);
            }
        }
    }
}
