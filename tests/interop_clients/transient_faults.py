"""Compares OpenAI's SDKs with and without `mmchat serve` when an upstream fails once or twice before it answers.

    transient_faults.py BINARY [SCRIPT]

SCRIPT is transient_faults.mjs in a folder in which Node finds the package `openai`. For each kind of fault, a client with its
default retries asks the upstream directly, and through a `serve` with a single model. A request that succeeds directly must
succeed through `serve`.
"""
import asyncio, collections, concurrent.futures, importlib.metadata, json, subprocess, sys

from checks import check, end
from harness import Gateway, Upstream, end_with_parent, to_json
from openai import OpenAI

BINARY, SCRIPT = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
ANSWER = "a normal answer"
STATUSES = ("408", "409", "429", "429-retry-after", "500", "502", "503", "503-retry-after", "504", "529")
# The connection is reset while the request arrives, or closed after it; the response is empty; it has status 200 and an error
# object, in a stream as an event.
FAULTS = (*STATUSES, "reset", "closed", "empty", "error-in-200")
CASES = [f"{fault}-{count}-{mode}" for fault in FAULTS for count in ("once", "twice") for mode in ("stream", "complete")]
failures = collections.Counter()


async def handle(exchange):
    """The upstream. Its path is /CLIENT/CASE/v1/...; each client and case has its own faults."""
    client, case = exchange.path.split("/")[1:3]
    fault, count, mode = case.rsplit("-", 2)
    is_over = failures[client, case] == {"once": 1, "twice": 2}[count]
    failures[client, case] += not is_over
    if fault == "reset" and not is_over:
        exchange.writer.transport.abort()
        return False
    await exchange.read_body()
    if is_over:
        return await exchange.answer(ANSWER, stream=mode == "stream")
    if fault in STATUSES:
        status, _, has_retry_after = fault.partition("-")
        return await exchange.reply_error(int(status), "try again", headers="retry-after: 1\r\n" if has_retry_after else "")
    if fault == "empty":
        return await exchange.reply(200, b"")
    if fault == "error-in-200":
        error = to_json({"error": {"message": "the engine has failed", "type": "server_error", "code": "server_error"}})
        if mode == "complete":
            return await exchange.reply(200, error)
        await exchange.start_chunked()
        await exchange.send_chunk(b"data: " + error + b"\n\n")
        await exchange.send(b"0\r\n\r\n")
        return True
    return False


def ask(base_url, model, is_streamed):
    """Returns an error text, or None for the right answer."""
    try:
        client = OpenAI(base_url=base_url, api_key="sk-any", timeout=60)
        reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], stream=is_streamed)
        if is_streamed:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in reply)
        else:
            text = reply.choices[0].message.content
        return None if text == ANSWER else f"answer {text!r}"
    except Exception as error:  # noqa: BLE001: any exception is a failed request
        return f"{type(error).__name__}: {error}"


def run_python(upstream, serve):
    """Errors of the direct requests and of those through `serve`, by case."""
    urls = [(f"{upstream}/python-direct/{case}/v1", "m") for case in CASES]
    urls += [(serve, f"python-{case}") for case in CASES]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        errors = list(pool.map(lambda url, case: ask(*url, case.endswith("-stream")), urls, CASES * 2))
    return f"openai {importlib.metadata.version('openai')} (Python)", zip(errors[:len(CASES)], errors[len(CASES):])


def run_node(upstream, serve):
    result = subprocess.run(["node", SCRIPT, upstream, serve], input=json.dumps({"cases": CASES, "answer": ANSWER}), text=True,
                            stdout=subprocess.PIPE, check=True, preexec_fn=end_with_parent)
    result = json.loads(result.stdout)
    return result["name"], result["errors"]


async def measure():
    async with Upstream(handle) as upstream:
        names = [f"{sdk}-{case}" for sdk in ("python", "node") for case in CASES]
        config = "".join(f'[endpoints.{name}]\nbase_url = "{upstream.url}/{name.replace("-", "/", 1)}/v1"\n'
                         f'[models.{name}]\nendpoint = "{name}"\nmodel = "m"\n' for name in names)
        with Gateway(BINARY, config) as gateway:
            return [await asyncio.to_thread(run, upstream.url, gateway.url)
                    for run in (run_python, run_node) if run is run_python or SCRIPT]


def report(name, title, errors):
    """`errors`: errors of the direct request and of the one through `serve`, by case."""
    direct, through = ([error[place] for error in errors.values()].count(None) for place in (0, 1))

    @check(name, f"{title}: {direct} of {len(errors)} requests succeed directly, {through} through serve")
    def _():
        worse = {case: error for case, (direct, error) in errors.items() if direct is None and error}
        assert not worse and through >= direct, worse


for name, errors in asyncio.run(measure()):
    errors = dict(zip(CASES, errors))
    for fault in FAULTS:
        report(name, fault, {case: error for case, error in errors.items() if case.rsplit("-", 2)[0] == fault})
    report(name, "all transient faults", errors)
end()
