"""Checks that heavy clients and upstreams cannot make `serve` exceed its memory, nor keep it from serving other clients.

    memory.py BINARY [NAME]

Linux only. Each case runs with its own `serve` and the default `memory_mb`. NAME limits the run to the cases whose titles
contain it. Meanwhile another client sends small requests, which must succeed without retries. Afterwards the memory must be
free again.
"""
import asyncio, contextlib, socket, sys, time

from checks import check, end
from harness import Gateway, Upstream, ask, event, request_head, small_request, to_json

BINARY = sys.argv[1]
NAME = sys.argv[2] if len(sys.argv) > 2 else ""
MIB = 1 << 20
MAX_MIB, MAX_AFTER_MIB, AFTER_SECONDS = 612, 100, 10
# How long an endless case lasts. The others end with their requests.
SECONDS = 12


def message(text):
    return to_json({"role": "user", "content": text})


def fill(start, part, end, size=30 * MIB):
    """JSON of about this size: `start`, then `part` repeatedly, then `end`."""
    return start + part * ((size - len(start) - len(end)) // len(part)) + end


BODIES = {
    "short messages": lambda: fill(b'{"model":"good","messages":[' + message("x"), b"," + message("x"), b"]}"),
    "content parts": lambda: fill(b'{"model":"good","messages":[{"role":"user","content":[{"type":"text","text":"x"}',
                                  b',{"type":"text","text":"x"}', b"]}]}"),
    "empty objects": lambda: fill(b'{"model":"good","messages":[' + message("x") + b'],"tools":[{"a":0}', b',{"a":0}', b"]}"),
    "numbers": lambda: fill(b'{"model":"good","messages":[' + message("x") + b'],"metadata":{"a":[0', b",0", b"]}}"),
    "fields": lambda: b'{"model":"good","messages":[' + message("x") + b"]" +
                      b"".join(b',"%x":1' % number for number in range(1 << 20, (1 << 20) + 30 * MIB // 11)) + b"}",
}
# The complete answers of upstreams. Streamed, each word is an event.
ANSWERS = {"good": "a normal answer", "long": " ".join(["x" * 20_000] * 1000)}
ROLE = event({"role": "assistant", "content": ""})
# What an endless answer begins with, and what it repeats.
ENDLESS = {
    "comments": (b"", b": comment\n\n" * 5000),
    "empty-deltas": (ROLE, event({}) * 500),
    "usage": (ROLE, b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1}}\n\n' * 700),
    "large-events": (ROLE, b'data: {"choices":[],"padding":"' + b"x" * 60000 + b'"}\n\n'),
    "one-event": (b'data: {"choices":[],"padding":"', b"x" * 65536),
    "text": (ROLE, event({"content": "text " * 2000})),
    "words": (ROLE, event({"content": "word "}) * 400),
    "json-string": (b'{"choices":[{"index":0,"message":{"role":"assistant","content":"', b"x" * 65536),
    "json-spaces": (b"", b" " * 65536),
    "json-numbers": (b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"more":[0',
                     b",0" * 30000),
}


async def handle(exchange):
    """The upstream: the first part of the path is the behavior."""
    name = exchange.path.split("/")[1]
    body = await exchange.read_body()
    stream = b'"stream":true' in body
    if name in ANSWERS:
        return await exchange.answer(ANSWERS[name], stream)
    start, repeated = ENDLESS[name]
    await exchange.start_chunked("application/json" if name.startswith("json") else "text/event-stream")
    if start:
        await exchange.send_chunk(start)
    while True:
        await exchange.send_chunk(repeated)


def resident_mib(pid):
    """Current and maximum resident memory of a process."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]


async def send_bodies(port, name):
    """40 clients send a large body at the same time."""
    body = memoryview(BODIES[name]())

    async def send():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        response = asyncio.ensure_future(reader.read())
        with contextlib.suppress(ConnectionError):
            writer.write(request_head(len(body)))
            for start in range(0, len(body), 256 * 1024):
                writer.write(body[start:start + 256 * 1024])
                await writer.drain()
        try:
            return (await response).split(b" ", 2)[1].decode()
        except ConnectionError:
            return "reset"
        finally:
            writer.close()

    statuses = await asyncio.gather(*(send() for _ in range(40)))
    # mmchat rejects objects with very many fields.
    assert set(statuses) <= {"200", "503", "400" if name == "fields" else ""}, statuses


async def upload_slowly(port):
    """300 clients send bodies of 255 KB that stay incomplete."""
    writers = []
    for _ in range(300):
        writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
        writers[-1].write(request_head(255_000) + fill(b'{"model":"good","messages":[', message("x") + b",", b"", 250_000))
    end_time = time.monotonic() + SECONDS
    while time.monotonic() < end_time:
        await asyncio.sleep(0.5)
        for writer in writers:
            writer.write(b" ")
    for writer in writers:
        writer.close()


async def read_answers(port, names, clients, stream=True, headers=""):
    """Clients that read answers of these upstreams, again and again."""
    async def read(name):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(small_request(name, stream, headers))
                while await reader.read(1 << 20):
                    pass
            except ConnectionError:
                pass  # an answer that is too long ends with an aborted transfer
            finally:
                writer.close()
            await asyncio.sleep(0.1)

    tasks = [asyncio.ensure_future(read(names[number % len(names)])) for number in range(clients)]
    await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not failed, failed


async def leave_unread(port, name, clients, stream=True, headers=""):
    """Clients that read nothing of their answers."""
    sockets = []
    for _ in range(clients):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(small_request(name, stream, headers))
        sockets.append(connection)
    await asyncio.sleep(SECONDS)
    for connection in sockets:
        connection.close()


BUFFER = "x-mmchat-buffer: 1\r\n"
CASES = [
    *((f"40 bodies of 30 MiB of {name}", lambda port, name=name: send_bodies(port, name)) for name in BODIES),
    ("300 uploads that stay incomplete", upload_slowly),
    ("12 endless streams without text", lambda port: read_answers(port, ["comments", "empty-deltas", "usage"], 12)),
    ("16 endless streams with large events before the text",
     lambda port: read_answers(port, ["large-events", "one-event"], 16)),
    ("30 endless buffered streams", lambda port: read_answers(port, ["text", "words"], 30, headers=BUFFER)),
    ("30 endless answers in one piece",
     lambda port: read_answers(port, ["json-string", "json-spaces", "json-numbers"], 30, stream=False)),
    ("30 answers of 20 MB in one piece", lambda port: read_answers(port, ["long"], 30, stream=False)),
    ("30 buffered streams of 20 MB", lambda port: read_answers(port, ["long"], 30, headers=BUFFER)),
    ("40 endless streams that their clients do not read", lambda port: leave_unread(port, "words", 40)),
    ("40 buffered streams of 20 MB that their clients do not read",
     lambda port: leave_unread(port, "long", 40, headers=BUFFER)),
    ("40 answers of 20 MB in one piece that their clients do not read",
     lambda port: leave_unread(port, "long", 40, stream=False)),
]


class Figures:
    """The result of a case. `error` is what went wrong besides."""
    max = after = 0
    error = None

    def __init__(self):
        self.replies = []

    def __str__(self):
        return (f"{self.max:.0f} MiB at most, {self.after:.0f} MiB afterwards, {len(self.replies)} requests of another client, "
                f"{len(self.failures())} failed")

    def failures(self):
        return [reply.error for reply in self.replies if reply.error]


async def run_with(gateway, case, figures):
    is_over = asyncio.Event()

    async def other_client():
        while not is_over.is_set():
            figures.replies.append(await ask(gateway.port, "good", stream=len(figures.replies) % 2 == 0, timeout=10))
            await asyncio.sleep(0.1)

    other = asyncio.ensure_future(other_client())
    try:
        await case(gateway.port)
    except AssertionError as error:
        figures.error = error
    is_over.set()
    await other
    end_time = time.monotonic() + AFTER_SECONDS
    while True:
        figures.after, figures.max = resident_mib(gateway.process.pid)
        if figures.after <= MAX_AFTER_MIB or time.monotonic() > end_time:
            return
        await asyncio.sleep(0.2)


async def run(case):
    figures = Figures()
    async with Upstream(handle) as upstream:
        models = "".join(f'[endpoints.{name}]\nbase_url = "{upstream.url}/{name}/v1"\n'
                         f'[models.{name}]\nendpoint = "{name}"\nmodel = "m"\n' for name in [*ANSWERS, *ENDLESS])
        with Gateway(BINARY, models) as gateway:
            try:
                await run_with(gateway, case, figures)
            except Exception as error:  # noqa: BLE001: any exception is a failed check
                figures.error = error
    return figures


def report(title, figures):
    @check("memory", f"{title}: {figures}")
    def _():
        if figures.error:
            raise figures.error
        assert figures.max <= MAX_MIB and figures.after <= MAX_AFTER_MIB
        assert figures.replies and not figures.failures(), figures.failures()[:5]


for title, case in CASES:
    if NAME in title:
        report(title, asyncio.run(run(case)))
end()
