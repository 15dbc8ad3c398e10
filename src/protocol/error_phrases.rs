//! The wordings by which services name the cause of an error, for each class.
//!
//! The status alone says little: services tell a used-up account with 400, 403 or 429, and a rate limit with 413. Most
//! phrases are from the bodies in `tests/fixtures/errors/`, which name their public sources; a test lists the others. Phrases
//! are lowercase.

/// A limit of requests or tokens in a time, or of requests at the same time.
pub(super) const RATE: &[&str] = &[
    "rate_limit",
    "rate limit",
    "ratelimit",
    "too many requests",
    "too_many_requests",
    "requests per ",
    "tokens per minute",
    "tokens per min",
    "tokens per day",
    "per minute",
    "perminute",
    "perday",
    "(tpm)",
    "(rpm)",
    "throttl",
    "concurrency",
    "concurrent requests",
    "limit_burst_rate",
    "qps",
    "频率",
    "速率限制",
    "并发",
    "过于频繁",
    "限流",
    "request limit reached",
    "rpm limit",
    "tpm limit",
];

/// The account, its balance or its free tier is used up, or a spend limit of the key is reached; if the text does not also
/// speak of a time after which it is not.
pub(super) const QUOTA_OR_RATE: &[&str] = &[
    "insufficient_quota",
    "insufficient_user_quota",
    "insufficientquota",
    "insufficient quota",
    "current quota",
    "exceeded_current_quota",
    "quota_exceeded",
    "quotaexceeded",
    "setlimitexceeded",
    "quota exceeded",
    "quota is not enough",
    "pre_consume_token_quota_failed",
    "credits",
];

/// The same, whatever else the text says.
pub(super) const QUOTA: &[&str] = &[
    "billing_hard_limit",
    "billing_not_active",
    "billing hard limit",
    "insufficient balance",
    "insufficient_balance",
    "balance is insufficient",
    "balance is not enough",
    "balance not enough",
    "not_enough_balance",
    "insufficient credit",
    "not enough credits",
    "credit balance",
    "spending limit",
    "spend limit",
    "key limit exceeded",
    "arrearage",
    "overdue",
    "freetieronly",
    "free tier of the model has been exhausted",
    "free allocated quota",
    "payment required",
    "recharge",
    "余额不足",
    "余额",
    "额度不足",
    "额度已用",
    "额度已过期",
    "欠费",
    "充值",
    "commoditynotpurchased",
    "budget has been exceeded",
    "budget_exceeded",
    "crossed budget",
    "free allocation",
    "free quota has been used up",
    "resource is frozen",
    "usage limits",
    "usage limit for",
    "extra usage is required",
    "quota used up",
    "total request limit reached",
    "免费额度已用完",
];

/// The prompt does not fit the context window.
pub(super) const CONTEXT: &[&str] = &[
    "context_length_exceeded",
    "context length",
    "context size",
    "context window",
    "contextwindowexceeded",
    "exceed_context_size",
    "exceeds the available context",
    "prompt is too long",
    "input is too long",
    "input length and `max_tokens` exceed",
    "range of input length should be",
    "prompt token count of",
    "maximum number of tokens",
    "longer than the model's context",
    "reduce the length of the messages",
    "exceeded model token limit",
    "max_seq_len",
    "request tokens exceed",
    "prompt 超长",
    "inputs` tokens + `max_new_tokens`",
    "上下文长度",
    "输入长度超",
    "token length exceed",
    "tokens_limit_reached",
    "must have less than",
    "maximum allowed length",
    "must be at least 1, got -",
    "token length too long",
    "max length exceeded",
    "prompt exceeds max length",
    "exceed max message tokens",
    "maximum prompt length",
    "maximum model length",
    "tokens in the prompt cannot exceed",
    "model_max_prompt_tokens_exceeded",
    "tokens_too_long",
    "characters_too_long",
];

/// A message that contains all of these is about the context window, too: "Input length 9 exceeds the maximum length 8".
pub(super) const CONTEXT_LENGTH: &[&str] = &["input length ", " exceeds the maximum length "];

/// The content policy rejects the prompt or the answer.
pub(super) const FILTER: &[&str] = &[
    "content_policy_violation",
    "contentpolicyviolation",
    "content_filter",
    "content management policy",
    "content policy",
    "content filtering policy",
    "data_inspection_failed",
    "datainspectionfailed",
    "inappropriate content",
    "responsibleaipolicyviolation",
    "sensitivecontentdetected",
    "sensitive information",
    "content exists risk",
    "input was flagged",
    "敏感内容",
    "审核不通过",
    "usage policy",
    "invalid_prompt",
    "usage guidelines",
    "hooks_failed",
    "faq rule",
    "ip infringement",
    "sensitive content",
    "unsafe_generation",
    "senstive",
    "sensitive_words_detected",
];

/// The key itself is refused.
pub(super) const KEY: &[&str] = &[
    "invalid_api_key",
    "invalid api key",
    "invalid api-key",
    "incorrect api key",
    "api key not valid",
    "api_key_invalid",
    "invalidapikey",
    "invalid_authentication",
    "authentication_error",
    "authenticationerror",
    "无效的令牌",
    "organization_restricted",
    "organization has been disabled",
    "has been suspended",
    "reported as leaked",
    "check the api-key",
    "unable to authenticate",
    "authorization header",
    "账户已被锁定",
    "账号已被锁定",
    "token expired",
    "noautherror",
    "令牌已过期",
];

/// A gateway has no upstream for the model.
pub(super) const CHANNEL: &[&str] = &[
    "no available channel",
    "no_available_channel",
    "无可用渠道",
    "无可用的渠道",
    "no channel",
    "可用渠道失败",
    "数据库一致性",
];

/// The service has no capacity at the moment.
pub(super) const OVERLOADED: &[&str] = &[
    "overloaded",
    "serveroverloaded",
    "no capacity",
    "capacity exceeded",
    "at capacity",
    "high demand",
    "model busy",
    "really busy",
    "服务繁忙",
    "访问量过大",
    "capacity limits",
    "no more data centers",
    "degraded function",
    "high traffic",
];

/// The body has too many bytes.
pub(super) const TOO_LARGE: &[&str] =
    &["entity too large", "payload too large", "request_too_large", "max bytes", "exceeds maximum allowed size"];

/// The model or deployment does not exist, is not open to this account, or is no longer served.
pub(super) const MODEL: &[&str] = &[
    "model_not_found",
    "invalid_model",
    "modelnotopen",
    "modelnotfound",
    "model_not_supported",
    "deploymentnotfound",
    "invalidendpoint",
    "closedendpoint",
    "no endpoints found",
    "not activated the model",
    "no such model",
    "unknown model",
    "unavailable_model",
    "invalid model",
    "no models loaded",
    "model name format",
    "on-demand throughput",
    "model identifier is invalid",
    "support the model that you provided",
    "not a valid model id",
    "operationnotsupported",
    "allowed now, your model",
];

/// Said of a model, it means that the model does not exist.
pub(super) const MISSING: &[&str] = &["not found", "not exist", "不存在", "not available", "no longer"];

/// Between "model" and such a phrase, they show that the phrase is said of something else.
pub(super) const OTHER_SUBJECTS: &[&str] = &["parameter", "tool", "function", "field", "参数", "字段"];

/// No API is served at the path.
pub(super) const PATH: &[&str] = &[
    "page not found",
    "invalid url",
    "unknown request url",
    "unrecognized request url",
    "no route",
    "no handler found",
    "route not found",
    "requested resource was not found",
    "the requested endpoint",
    "cannot post",
    "path not found",
    "method not allowed",
    "resource not found",
    "endpoint not found",
    "the route ",
    "route post",
];

/// A 403 that says no more than the status does, as a firewall sends it for some prompts.
pub(super) const BLOCKED: &[&str] =
    &["you have been blocked", "request not allowed", "illegal access", "403 forbidden"];

/// The key may not do this, whatever the status is.
pub(super) const FORBIDDEN: &[&str] = &["location is not supported"];

/// A 403 that rejects a part of the request.
pub(super) const UNSUPPORTED: &[&str] = &["json schema", "asynchronous calls"];

/// A part of this request is the cause: other requests with the same key to the same model may be accepted.
pub(super) const REQUEST_SPECIFIC: &[&str] = &[
    "endpoints found that support",
    AFFORDABLE,
    "can handle the requested parameters",
    "prompt tokens limit exceeded",
    "required for long context requests",
];

/// Stands before the number of tokens that the rest of a balance pays for.
pub(super) const AFFORDABLE: &str = "can only afford ";

#[cfg(test)]
mod tests {
    use super::*;

    /// Wordings for which no whole published body was found: source code, test suites or documentation quote them in
    /// part.
    const WITHOUT_SOURCE: &[&str] = &[
        "过于频繁",
        "限流",
        "rpm limit",
        "insufficientquota",
        "insufficient quota",
        "quotaexceeded",
        "setlimitexceeded",
        "balance is not enough",
        "balance not enough",
        "not_enough_balance",
        "not enough credits",
        "payment required",
        "额度已过期",
        "quota used up",
        "免费额度已用完",
        "request tokens exceed",
        "上下文长度",
        "输入长度超",
        "maximum model length",
        "tokens in the prompt cannot exceed",
        "审核不通过",
        "noautherror",
        "no_available_channel",
        "无可用的渠道",
        "no channel",
        "serveroverloaded",
        "really busy",
        "服务繁忙",
        "unavailable_model",
        "not available",
        "字段",
        "unrecognized request url",
        "endpoint not found",
        "the route ",
        "route post",
    ];

    #[test]
    fn each_phrase_is_in_a_body_with_a_public_source() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/errors");
        let mut bodies = String::new();
        for file in std::fs::read_dir(folder).expect("the fixtures") {
            let text = std::fs::read_to_string(file.expect("readable folder").path()).expect("readable file");
            let file: toml::Table = text.parse().expect("valid TOML");
            for error in file["error"].as_array().expect("a list of errors") {
                bodies += &error["body"].as_str().expect("a text").to_lowercase();
                bodies.push('\n');
            }
        }
        let all = [
            RATE,
            QUOTA_OR_RATE,
            QUOTA,
            CONTEXT,
            CONTEXT_LENGTH,
            FILTER,
            KEY,
            CHANNEL,
            OVERLOADED,
            TOO_LARGE,
            MODEL,
            MISSING,
            OTHER_SUBJECTS,
            PATH,
            BLOCKED,
            FORBIDDEN,
            UNSUPPORTED,
            REQUEST_SPECIFIC,
        ];
        let missing = |phrase: &&&str| !bodies.contains(**phrase);
        let missing: Vec<&str> = all.into_iter().flatten().filter(missing).copied().collect();
        assert_eq!(missing, WITHOUT_SOURCE);
    }
}
