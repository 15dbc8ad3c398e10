//! What each model sees, after whatever a person does.

use proptest::prelude::*;

use super::*;

fn conversation(names: &[&str]) -> Conversation {
    let known = ["a", "b", "c"];
    let resolve = move |names: &[&str]| {
        let named = names.iter().map(|name| {
            let found = known.iter().find(|known| *known == name);
            found.map(|known| (*known).to_owned()).ok_or_else(|| (format!("no {name}"), "there are a, b, c".to_owned()))
        });
        named.collect()
    };
    let members = names.iter().map(|name| Member { name: (*name).to_owned(), turns: Vec::new() });
    Conversation::new(members.collect(), None, false, Arc::new(resolve))
}

/// What is sent to each, one text after the other.
fn sent(effects: &[Effect]) -> Vec<(String, Vec<String>)> {
    let [Effect::Ask(round)] = effects else { panic!("{effects:?}") };
    let text = |message: &Message| match &message.parts[0] {
        Part::Text(text) => text.clone(),
        Part::Image(_) => "picture".into(),
    };
    round.lanes.iter().map(|(name, messages)| (name.clone(), messages.iter().map(text).collect())).collect()
}

fn say(conversation: &mut Conversation, line: &str) -> Vec<Effect> {
    conversation.handle(Event::Line(line.to_owned()))
}

fn answer(conversation: &mut Conversation, texts: &[&str]) {
    let answers =
        texts.iter().map(|text| Answer { text: (*text).into(), is_whole: !text.is_empty(), ..Answer::default() });
    conversation.handle(Event::Answered { answers: answers.collect(), interrupted: false, kept: None });
}

/// As `answer`; the record keeps them as these exchanges.
fn answer_kept(conversation: &mut Conversation, texts: &[&str], exchanges: &[i64]) {
    let answers =
        texts.iter().map(|text| Answer { text: (*text).into(), is_whole: !text.is_empty(), ..Answer::default() });
    let kept =
        Kept { conversation: 1, round: 1, exchanges: exchanges.iter().copied().map(Some).collect(), lanes: vec![] };
    conversation.handle(Event::Answered { answers: answers.collect(), interrupted: false, kept: Some(kept) });
}

fn list(rows: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    rows.iter().map(|(name, texts)| ((*name).into(), texts.iter().map(|&text| text.into()).collect())).collect()
}

fn refused(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Refuse(..)])
}

#[test]
fn each_sees_its_own_answers_until_one_is_picked() {
    let mut both = conversation(&["a", "b"]);
    say(&mut both, "/system be brief");
    say(&mut both, "one");
    answer(&mut both, &["a1", "b1"]);
    let second = say(&mut both, "two");
    assert_eq!(
        sent(&second),
        list(&[("a", &["be brief", "one", "a1", "two"]), ("b", &["be brief", "one", "b1", "two"])])
    );
    // One fails: its question is not asked again, and the other's answer stands.
    answer(&mut both, &["", "b2"]);
    assert!(
        refused(&say(&mut both, "/pick 1")) && refused(&say(&mut both, "/pick")) && refused(&say(&mut both, "/pick 3"))
    );
    assert!(!refused(&say(&mut both, "/pick @2")));
    say(&mut both, "/system -");
    let seen: &[&str] = &["one", "b1", "two", "b2", "three"];
    assert_eq!(sent(&say(&mut both, "three")), list(&[("a", seen), ("b", seen)]));
}

#[test]
fn what_is_taken_back_or_asked_again_is_not_seen() {
    let mut one = conversation(&["a"]);
    assert!(refused(&say(&mut one, "/undo")) && refused(&say(&mut one, "/again")) && refused(&say(&mut one, "/copy")));
    say(&mut one, "one");
    answer_kept(&mut one, &["first"], &[7]);
    let again = say(&mut one, "/again");
    assert_eq!(sent(&again), list(&[("a", &["one"])]));
    assert!(matches!(&again[..], [Effect::Ask(round)] if round.goes_on == GoesOn::Instead(vec![7])));
    // A worse answer does not take the place of a whole one.
    answer_kept(&mut one, &[""], &[7]);
    assert_eq!(say(&mut one, "/copy"), [Effect::Copy("first".into())]);
    say(&mut one, "/again");
    answer_kept(&mut one, &["second"], &[7]);
    let next = say(&mut one, "two");
    assert_eq!(sent(&next), list(&[("a", &["one", "second", "two"])]));
    let after = GoesOn::After { exchanges: vec![Some(7)], apart: false };
    assert!(matches!(&next[..], [Effect::Ask(round)] if round.goes_on == after));
    answer_kept(&mut one, &["2"], &[8]);
    say(&mut one, "/undo");
    assert_eq!(sent(&say(&mut one, "other")), list(&[("a", &["one", "second", "other"])]));
}

#[test]
fn what_is_not_kept_takes_no_other_exchanges_place() {
    let mut one = conversation(&["a"]);
    say(&mut one, "one");
    answer_kept(&mut one, &["1"], &[7]);
    say(&mut one, "two");
    answer(&mut one, &[""]);
    let again = say(&mut one, "/again");
    let after = GoesOn::After { exchanges: vec![Some(7)], apart: false };
    assert!(matches!(&again[..], [Effect::Ask(round)] if round.goes_on == after), "{again:?}");
}

#[test]
fn whoever_joins_knows_what_the_first_one_knows() {
    let mut chat = conversation(&["a"]);
    say(&mut chat, "one");
    answer_kept(&mut chat, &["a1"], &[1]);
    assert!(refused(&say(&mut chat, "/models a,x")) && refused(&say(&mut chat, "/model zz")));
    say(&mut chat, "/models a, b");
    assert_eq!(chat.names().collect::<Vec<_>>(), ["a", "b"]);
    // The one who joined has said nothing that could be replaced.
    let again = say(&mut chat, "/again");
    assert_eq!(sent(&again), list(&[("a", &["one"]), ("b", &["one"])]));
    answer_kept(&mut chat, &["a1", "b1"], &[2, 3]);
    say(&mut chat, "/model b");
    let next = say(&mut chat, "two");
    assert_eq!(sent(&next), list(&[("b", &["one", "b1", "two"])]));
}

#[test]
fn files_go_with_the_next_question_alone() {
    let mut chat = conversation(&["a"]);
    assert_eq!(say(&mut chat, "/file notes.md"), [Effect::Attach("notes.md".into())]);
    chat.handle(Event::Attached { name: "notes.md".into(), part: Part::Text("its text".into()) });
    assert_eq!(sent(&say(&mut chat, "look")), list(&[("a", &["look\n\nits text"])]));
    // What was not sent is not lost.
    chat.handle(Event::Unasked);
    assert_eq!(sent(&say(&mut chat, "now")), list(&[("a", &["now\n\nits text"])]));
    answer(&mut chat, &["fine"]);
    assert_eq!(sent(&say(&mut chat, "next")), list(&[("a", &["now\n\nits text", "fine", "next"])]));
}

#[test]
fn a_second_interruption_leaves() {
    let mut chat = conversation(&["a"]);
    assert!(matches!(chat.handle(Event::Interrupted)[..], [Effect::Tell(_)]));
    assert_eq!(chat.handle(Event::Interrupted), [Effect::Leave(true)]);
    say(&mut chat, "one");
    let half = Answer { text: "half".into(), ..Answer::default() };
    chat.handle(Event::Answered { answers: vec![half], interrupted: true, kept: None });
    assert_eq!(sent(&say(&mut chat, "two")), list(&[("a", &["one", "half", "two"])]), "what came is kept");
    chat.handle(Event::Answered { answers: vec![Answer::default()], interrupted: true, kept: None });
    assert_eq!(chat.handle(Event::Interrupted), [Effect::Leave(true)]);
    assert_eq!(chat.handle(Event::Ended), [Effect::Leave(false)]);
}

#[test]
fn slashes_are_commands_unless_they_are_two() {
    let mut chat = conversation(&["a"]);
    let told = say(&mut chat, "/pikc 1");
    assert!(
        matches!(&told[..], [Effect::Refuse(message, hint)] if message.contains("/pikc") && hint.contains("/pick?"))
    );
    assert_eq!(sent(&say(&mut chat, "//etc/hosts, what is it?")), list(&[("a", &["/etc/hosts, what is it?"])]));
    assert_eq!(say(&mut chat, "  "), []);
    assert_eq!(say(&mut chat, "/quit"), [Effect::Leave(false)]);
    for (name, ..) in COMMANDS {
        let effects = say(&mut conversation(&["a"]), &format!("/{name}"));
        assert!(
            !matches!(&effects[..], [Effect::Refuse(message, _)] if message.contains("there is no command")),
            "/{name}"
        );
    }
}

proptest! {
    /// Whatever is done in whatever order: questions and answers take turns, the question asked is last, and an answer that is
    /// seen is one's own or was somebody's that was picked or joined.
    #[test]
    fn questions_and_answers_take_turns(steps in prop::collection::vec((0usize..8, any::<bool>()), 0..40)) {
        let mut chat = conversation(&["a", "b"]);
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
                let Effect::Ask(round) = effect else { continue };
                let names: Vec<String> = chat.names().map(str::to_owned).collect();
                prop_assert_eq!(round.lanes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names.clone());
                for (_, messages) in &round.lanes {
                    for (place, message) in messages.iter().enumerate() {
                        let wanted = if place % 2 == 0 { Role::User } else { Role::Assistant };
                        prop_assert_eq!(message.role, wanted);
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
