"""Langchain-Chatchat's own client calls, set up as docs/serve.md says: what its agents, its chats and its knowledge bases
call models with. Its package is installed without its user interface and its readers of files, which call no model.

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


@check(name, "its default model is a route or model of mmchat's")
def _():
    assert get_default_llm() == "mock"


@check(name, "a chat, as it streams it")
def _():
    assert get_ChatOpenAI(model_name="mock").invoke("hello").content == HELLO
    assert "".join(chunk.content for chunk in get_ChatOpenAI(model_name="mock").stream("hello")) == HELLO


@check(name, "a chat, as its server awaits it")
def _():
    async def ask():
        return [chunk.content async for chunk in get_ChatOpenAI(model_name="mock").astream("hello")]
    assert "".join(asyncio.run(ask())) == HELLO


@check(name, "a chat that does not stream, of a route whose first service is dead")
def _():
    reply = get_ChatOpenAI(model_name="route", streaming=False, max_tokens=40).invoke("say hello")
    assert "tiny llama" in reply.content, reply


@check(name, "a completion of the older kind, from a real model")
def _():
    reply = get_OpenAI(model_name="tiny", temperature=0.1, max_tokens=40, echo=False).invoke("say hello")
    # Without a chat's template the tiny model goes on from wherever it thinks it is.
    assert "rld" in reply, reply


@check(name, "embeddings for a knowledge base")
def _():
    vectors = get_Embeddings("embed").embed_documents(["embed me", "embed me"])
    assert len(vectors) == 2 and all(vectors)


@check(name, "an error of the model reaches it")
def _():
    try:
        get_ChatOpenAI(model_name="mock", streaming=False).invoke("ctx")
        raise AssertionError("it was answered")
    except Exception as error:  # noqa: BLE001: whichever class its version of the SDK has for it
        assert "maximum context length" in str(error), error


end()
