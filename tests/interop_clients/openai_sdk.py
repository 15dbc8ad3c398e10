"""Checks OpenAI's SDK for Python, LangChain's ChatOpenAI and LiteLLM as clients of mmchat serve.

    openai_sdk.py URL

Behind the gateway are aimock (hello, weather, boom, ctx, ratelimit, cutoff, embed me) and llama.cpp.
"""
import json, sys, threading, time, urllib.request

from checks import check, end

URL, KEY = sys.argv[1], "sk-of-the-clients"
HELLO = "Hello there, wörld! 你好 👋"

import openai
from openai import OpenAI

name = f"openai {openai.__version__} (Python)"
client = OpenAI(base_url=URL, api_key=KEY)
user = lambda text: [{"role": "user", "content": text}]  # noqa: E731
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}


def metric(start):
    request = urllib.request.Request(URL.replace("/v1", "/metrics"), headers={"authorization": f"Bearer {KEY}"})
    text = urllib.request.urlopen(request).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(start))


@check(name, "chat")
def _():
    reply = client.chat.completions.with_raw_response.create(model="mock", messages=user("hello"))
    assert reply.parse().choices[0].message.content == HELLO
    assert reply.headers["x-mmchat-endpoint"] == "aimock" and reply.headers["x-request-id"]


@check(name, "stream, with usage if requested")
def _():
    chunks = list(client.chat.completions.create(model="mock", messages=user("hello"), stream=True,
                                                 stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == HELLO
    assert chunks[-1].usage.completion_tokens == 7 and not chunks[-1].choices
    plain = list(client.chat.completions.create(model="mock", messages=user("hello"), stream=True))
    assert all(c.choices for c in plain) and plain[-1].choices[0].finish_reason == "stop"


@check(name, "llama.cpp, through a route whose first endpoint is down")
def _():
    reply = client.chat.completions.with_raw_response.create(model="route", messages=user("say hello"), max_tokens=40)
    assert "tiny llama" in reply.parse().choices[0].message.content, reply.text
    assert reply.headers["x-mmchat-route"] == "route" and int(reply.headers["x-mmchat-attempts"]) >= 1


@check(name, "tools, streamed and not")
def _():
    call = client.chat.completions.create(model="mock", messages=user("weather"), tools=[TOOL]).choices[0]
    assert call.finish_reason == "tool_calls"
    assert json.loads(call.message.tool_calls[0].function.arguments) == {"city": "Paris"}
    with client.chat.completions.stream(model="mock", messages=user("weather"), tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


@check(name, "structured output")
def _():
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {
        "type": "object", "properties": {"answer": {"type": "number"}}, "required": ["answer"]}}}
    reply = client.chat.completions.create(model="mock", messages=user("structured"), response_format=shape)
    assert json.loads(reply.choices[0].message.content) == {"answer": 42}


@check(name, "embeddings, as floats and as base64")
def _():
    for encoding in ("float", "base64"):
        reply = client.embeddings.create(model="embed", input=["embed me"], encoding_format=encoding)
        assert len(reply.data) == 1 and reply.data[0].embedding, encoding


@check(name, "the model list, one model, and an unknown model")
def _():
    ids = [model.id for model in client.models.list()]
    assert "mock" in ids and "route" in ids
    assert client.models.retrieve("route").id == "route"
    try:
        client.models.retrieve("nobody")
        raise AssertionError("the unknown model was found")
    except openai.NotFoundError:
        pass


@check(name, "errors by type, permanent ones without client retries")
def _():
    # The client repeats what may pass, as it would without the gateway.
    for prompt, model, kind, code, requests in (
        ("boom", "mock", openai.InternalServerError, "server", 3),
        ("ctx", "mock", openai.BadRequestError, "context_length_exceeded", 1),
        ("hello", "nobody", openai.NotFoundError, "model_not_found", 1),
        ("hello", "badkey", openai.InternalServerError, "auth", 1),
    ):
        before = metric("mmchat_requests_total")
        try:
            client.chat.completions.create(model=model, messages=user(prompt))
            raise AssertionError(f"{prompt} of {model} was answered")
        except kind as error:
            assert error.code == code, (prompt, error.code)
            assert error.body["mmchat"]["request_id"] == error.request_id
        count = metric("mmchat_requests_total") - before
        assert count == requests, f"{prompt}: {count} requests"
    try:
        OpenAI(base_url=URL, api_key="sk-unknown").models.list()
        raise AssertionError("an unknown key was accepted")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"


@check(name, "an incomplete stream is an error")
def _():
    got = []
    try:
        for chunk in client.chat.completions.create(model="mock", messages=user("cutoff"), stream=True):
            got.append(chunk.choices[0].delta.content or "")
        raise AssertionError(f"the answer looked complete: {got}")
    except openai.APIError as error:
        assert "".join(got), error


@check(name, "a rate limit with Retry-After")
def _():
    # aimock rejects the first request with Retry-After: the gateway waits, because there is no other candidate.
    assert client.chat.completions.create(model="mock", messages=user("ratelimit")).choices[0].message.content == "ok after retry"


@check(name, "closing a stream cancels the upstream request")
def _():
    before = metric("mmchat_client_disconnects_total")
    stream = client.chat.completions.create(model="count", messages=user("count"), stream=True)
    next(iter(stream))
    stream.close()
    for _ in range(200):
        if metric("mmchat_client_disconnects_total") > before:
            break
        time.sleep(0.02)
    assert metric("mmchat_client_disconnects_total") == before + 1
    assert metric("mmchat_requests_in_flight") == 0


@check(name, "twenty concurrent requests")
def _():
    answers = []
    def request():
        answers.append(client.chat.completions.create(model="mock", messages=user("hello")).choices[0].message.content)
    threads = [threading.Thread(target=request) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers == [HELLO] * 20


import langchain_openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

chain = f"langchain-openai {__import__('importlib.metadata').metadata.version('langchain-openai')}"
lang = ChatOpenAI(base_url=URL, api_key=KEY, model="mock")


@check(chain, "invoke, with usage")
def _():
    reply = lang.invoke("hello")
    assert reply.content == HELLO and reply.usage_metadata["output_tokens"] == 7


@check(chain, "stream")
def _():
    assert "".join(chunk.content for chunk in lang.stream("hello")) == HELLO


@check(chain, "tools")
def _():
    assert lang.bind_tools([TOOL]).invoke("weather").tool_calls[0]["args"] == {"city": "Paris"}


@check(chain, "embeddings")
def _():
    vectors = OpenAIEmbeddings(base_url=URL, api_key=KEY, model="embed", check_embedding_ctx_length=False)
    assert vectors.embed_query("embed me")


import litellm

lite = f"litellm {__import__('importlib.metadata').metadata.version('litellm')} (client)"


@check(lite, "completion, streamed and not")
def _():
    options = dict(model="openai/mock", api_base=URL, api_key=KEY, messages=user("hello"))
    assert litellm.completion(**options).choices[0].message.content == HELLO
    assert "".join(c.choices[0].delta.content or "" for c in litellm.completion(stream=True, **options)) == HELLO


@check(lite, "errors by type")
def _():
    options = dict(api_base=URL, api_key=KEY, num_retries=0, max_retries=0)
    for prompt, model, kind in (("ctx", "openai/mock", litellm.ContextWindowExceededError),
                                ("hello", "openai/nobody", litellm.NotFoundError)):
        try:
            litellm.completion(model=model, messages=user(prompt), **options)
            raise AssertionError(f"{prompt} was answered")
        except kind:
            pass


end()
