//! What the log and the figures say.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_log_has_figures_and_no_word_of_what_was_said() {
    let world = World::new(
        "",
        [
            Reply::Status(503, vec![], "{\"error\":{\"message\":\"a secret question\"}}"),
            pieces(&[HELLO, STOP, USAGE, DONE]),
        ],
    )
    .await;
    text(world.chat("chat", true).await).await;
    let line = world.line();
    assert_eq!(line["attempts"][0]["class"], "overloaded");
    assert_eq!((&line["class"], &line["status"], &line["model"]), (&json!("ok"), &json!(200), &json!("two")));
    assert!(!line.to_string().contains("secret") && !line.to_string().contains("Hello"), "{line}");
    let metrics = world.get("/metrics").await.1;
    for figure in [
        "mmchat_requests_total{name=\"chat\",key=\"\",class=\"ok\"} 1",
        "mmchat_attempts_total{endpoint=\"a\",model=\"one\",class=\"overloaded\"} 1",
        "mmchat_attempts_total{endpoint=\"b\",model=\"two\",class=\"ok\"} 1",
        "mmchat_failovers_total{route=\"chat\"} 1",
        "mmchat_tokens_total{endpoint=\"b\",model=\"two\",direction=\"input\"} 1000000",
    ] {
        assert!(metrics.contains(figure), "{figure} in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn labels_come_from_the_config_alone() {
    let world = World::new(
        "",
        (0..3).map(|_| whole("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")),
    )
    .await;
    for number in 0..3 {
        text(world.chat(&format!("a/made-up-{number}"), false).await).await;
        text(world.chat(&format!("made-up-{number}"), false).await).await;
    }
    let metrics = world.get("/metrics").await.1;
    assert!(!metrics.contains("made-up"), "{metrics}");
    assert!(metrics.contains("mmchat_requests_total{name=\"a/*\",key=\"\",class=\"ok\"} 3"), "{metrics}");
}
