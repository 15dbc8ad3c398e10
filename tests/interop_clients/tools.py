"""Checks llm and aichat, configured as in docs/serve.md, as clients of mmchat serve, with LiteLLM's proxy as an endpoint.

    tools.py URL INSTALLED
"""
import json, os, subprocess, sys
from pathlib import Path

from checks import check, end

URL, INSTALLED = sys.argv[1], Path(sys.argv[2])
HOME, KEY, HELLO = Path(os.environ["HOME"]), "sk-of-the-clients", "Hello there, wörld! 你好 👋"


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, **options)
    return done.returncode, done.stdout, done.stderr


llm_home = HOME / "llm"
llm_home.mkdir()
(llm_home / "extra-openai-models.yaml").write_text(f"""
- model_id: mmchat
  model_name: mock
  api_base: {URL}
  api_key_name: mmchat
- model_id: behind
  model_name: gateway
  api_base: {URL}
  api_key_name: mmchat
""")
(llm_home / "keys.json").write_text(json.dumps({"mmchat": KEY}))
environment = {**os.environ, "LLM_USER_PATH": str(llm_home)}
binary = str(INSTALLED / "venv/bin/llm")
version = run(binary, "--version")[1].strip().replace(", version", "")


@check(version, "an answer, streamed and not")
def _():
    for flags in ((), ("--no-stream",)):
        code, out, err = run(binary, "-m", "mmchat", *flags, "hello", env=environment)
        assert (code, out.strip()) == (0, HELLO), (out, err)


@check(version, "an answer from LiteLLM's proxy")
def _():
    code, out, err = run(binary, "-m", "behind", "hello", env=environment)
    assert (code, out.strip()) == (0, HELLO), (out, err)


@check(version, "an incomplete answer is an error")
def _():
    code, out, err = run(binary, "-m", "mmchat", "cutoff", env=environment)
    assert code != 0 and "Error" in err, (code, out, err)


aichat, folder = str(INSTALLED / "cargo/bin/aichat"), HOME / "aichat"
folder.mkdir()
(folder / "config.yaml").write_text(f"""
model: mmchat:mock
clients:
  - type: openai-compatible
    name: mmchat
    api_base: {URL}
    api_key: {KEY}
    models:
      - name: mock
      - name: route
""")
aichat_environment = {**os.environ, "AICHAT_CONFIG_DIR": str(folder)}
version = run(aichat, "--version")[1].strip()


@check(version, "an answer, streamed and not")
def _():
    for flags in ((), ("-S",)):
        code, out, err = run(aichat, *flags, "hello", env=aichat_environment, stdin=subprocess.DEVNULL)
        assert (code, out.strip()) == (0, HELLO), (out, err)


@check(version, "a route whose first endpoint is down")
def _():
    code, out, err = run(aichat, "-m", "mmchat:route", "hello", env=aichat_environment, stdin=subprocess.DEVNULL)
    assert code == 0 and "Hello from a tiny llama" in out, (code, out, err)


@check(version, "an error has mmchat's message")
def _():
    code, out, err = run(aichat, "boom", env=aichat_environment, stdin=subprocess.DEVNULL)
    assert code != 0 and "The server had an error" in err, (code, out, err)


@check(version, "an incomplete answer is an error")
def _():
    code, out, err = run(aichat, "cutoff", env=aichat_environment, stdin=subprocess.DEVNULL)
    # aichat ignores the error event, but detects the aborted transfer.
    assert code != 0 and err.strip(), (code, out, err)


end()
