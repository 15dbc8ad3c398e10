"""Checks the functions with which Langchain-Chatchat's agents, chats and knowledge bases call models, configured as in
docs/serve.md. The package is installed without its user interface and file loaders, which call no model.

    calls_of_chatchat.py URL
"""
import asyncio, importlib.metadata, os, sys
from pathlib import Path

from checks import check, end

URL, KEY, HELLO = sys.argv[1], "sk-of-the-clients", "Hello there, wörld! 你好 👋"
root = Path(os.environ["HOME"]) / "chatchat"
root.mkdir()
os.environ["CHATCHAT_ROOT"] = str(root)
(root / "model_settings.yaml").write_text(f"""
MODEL_PLATFORMS:
  - platform_name: mmchat
    platform_type: oneapi
    api_base_url: {URL}
    api_key: {KEY}
    api_concurrencies: 20
    llm_models: [mock, route, tiny]
    embed_models: [embed]
DEFAULT_LLM_MODEL: mock
DEFAULT_EMBEDDING_MODEL: embed
""")

from chatchat.server.utils import get_ChatOpenAI, get_Embeddings, get_OpenAI, get_default_llm

name = f"langchain-chatchat {importlib.metadata.version('langchain-chatchat')}"


@check(name, "the default model is a name that mmchat serves")
def _():
    assert get_default_llm() == "mock"


@check(name, "chat, streamed and not")
def _():
    assert get_ChatOpenAI(model_name="mock").invoke("hello").content == HELLO
    assert "".join(chunk.content for chunk in get_ChatOpenAI(model_name="mock").stream("hello")) == HELLO


@check(name, "chat, asynchronous stream")
def _():
    async def ask():
        return [chunk.content async for chunk in get_ChatOpenAI(model_name="mock").astream("hello")]
    assert "".join(asyncio.run(ask())) == HELLO


@check(name, "chat without streaming, through a route whose first endpoint is down")
def _():
    reply = get_ChatOpenAI(model_name="route", streaming=False, max_tokens=40).invoke("say hello")
    assert "tiny llama" in reply.content, reply


@check(name, "legacy completion, from llama.cpp")
def _():
    reply = get_OpenAI(model_name="tiny", temperature=0.1, max_tokens=40, echo=False).invoke("say hello")
    # Without a chat template the tiny model may start in the middle of its sentence.
    assert "rld" in reply, reply


@check(name, "embeddings for a knowledge base")
def _():
    vectors = get_Embeddings("embed").embed_documents(["embed me", "embed me"])
    assert len(vectors) == 2 and all(vectors)


@check(name, "an error of the model reaches the client")
def _():
    try:
        get_ChatOpenAI(model_name="mock", streaming=False).invoke("ctx")
        raise AssertionError("the request succeeded")
    except Exception as error:  # noqa: BLE001: the class depends on its version of the SDK
        assert "maximum context length" in str(error), error


end()
