//! Tests of the request log and the metrics.

use super::*;

#[tokio::test(start_paused = true)]
async fn log_and_metrics_have_no_prompt_or_answer_text() {
    let fixture = TestGateway::new(
        "",
        [
            MockResponse::Status(503, vec![("retry-after", "1")], "{\"error\":{\"message\":\"a secret question\"}}"),
            chunks(&[HELLO, STOP, USAGE, DONE]),
        ],
    )
    .await;
    read_text(fixture.chat("chat", true).await).await;
    let line = fixture.last_log_line();
    assert_eq!(line["attempts"][0]["class"], "overloaded");
    assert_eq!((&line["class"], &line["status"], &line["model"]), (&json!("ok"), &json!(200), &json!("two")));
    assert!(!line.to_string().contains("secret") && !line.to_string().contains("Hello"), "{line}");
    let metrics = fixture.get("/metrics").await.1;
    for metric in [
        "mmchat_requests_total{name=\"chat\",key=\"\",class=\"ok\"} 1",
        "mmchat_attempts_total{endpoint=\"a\",model=\"one\",class=\"overloaded\"} 1",
        "mmchat_attempts_total{endpoint=\"b\",model=\"two\",class=\"ok\"} 1",
        "mmchat_failovers_total{route=\"chat\"} 1",
        "mmchat_tokens_total{endpoint=\"b\",model=\"two\",direction=\"input\"} 1000000",
    ] {
        assert!(metrics.contains(metric), "{metric} in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn label_values_come_from_the_config_only() {
    let fixture = TestGateway::new(
        "",
        (0..3).map(|_| json_reply("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}")),
    )
    .await;
    for number in 0..3 {
        read_text(fixture.chat(&format!("a/made-up-{number}"), false).await).await;
        read_text(fixture.chat(&format!("made-up-{number}"), false).await).await;
    }
    let metrics = fixture.get("/metrics").await.1;
    assert!(!metrics.contains("made-up"), "{metrics}");
    assert!(metrics.contains("mmchat_requests_total{name=\"a/*\",key=\"\",class=\"ok\"} 3"), "{metrics}");
}
