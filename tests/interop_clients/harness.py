"""Upstream servers, `mmchat serve` and a client, on loopback ports, for the scripts that check the gateway with failures."""
import asyncio, ctypes, functools, json, os, signal, subprocess, sys, tempfile, time

# Bytes of a request body that an upstream keeps. It reads and drops the rest.
KEPT_BYTES = 64 * 1024


def end_with_parent():
    """Runs in a child process: the kernel kills it when its parent ends, however that ends."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def to_json(value):
    return json.dumps(value, separators=(",", ":")).encode()


def event(delta, finish_reason=None):
    """An event of a streamed answer."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + to_json({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                                "choices": [choice]}) + b"\n\n"


@functools.cache
def completion(text):
    """A complete answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return to_json({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


class Exchange:
    """A request that an upstream has received, and the connection for the response."""

    def __init__(self, head, reader, writer):
        self.path = head.split(b" ", 2)[1].decode()
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        self.remaining = int(lengths[0]) if lengths else 0
        self.reader, self.writer = reader, writer

    async def read_body(self):
        """Reads the whole body; returns its first bytes."""
        kept = b""
        while self.remaining > 0:
            data = await self.reader.read(min(self.remaining, 1 << 20))
            if not data:
                raise ConnectionError("the body is incomplete")
            kept += data[:KEPT_BYTES - len(kept)]
            self.remaining -= len(data)
        return kept

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status, body, headers=""):
        """Sends a complete response with a JSON body. Returns True: the connection stays open."""
        await self.send(f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{headers}"
                        f"content-length: {len(body)}\r\n\r\n".encode() + body)
        return True

    async def reply_error(self, status, message, code=None, headers=""):
        body = {"error": {"message": message, "type": "api_error", "param": None, "code": code}}
        return await self.reply(status, to_json(body), headers)

    async def start_chunked(self, content_type="text/event-stream"):
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % content_type.encode())

    async def send_chunk(self, data):
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def answer(self, text, stream, pause=0.0):
        """Sends a complete answer; streamed, each word is an event. Returns True: the connection stays open."""
        if not stream:
            return await self.reply(200, completion(text))
        await self.start_chunked()
        for number, word in enumerate(text.split(" ")):
            await self.send_chunk(event({"content": word if number == 0 else f" {word}"}))
            await asyncio.sleep(pause)
        await self.send_chunk(event({}, "stop") + b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")
        return True


class Upstream:
    """An HTTP server. `handle` answers an exchange and returns whether the connection stays open."""

    def __init__(self, handle):
        self.handle = handle

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve_connection, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve_connection(self, reader, writer):
        try:
            while await self.handle(Exchange(await reader.readuntil(b"\r\n\r\n"), reader, writer)):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has closed the connection, or the script ends
        finally:
            writer.close()


class Gateway:
    """A `mmchat serve` process with its own home directory and no other environment."""

    def __init__(self, binary, config):
        self.binary, self.config = binary, '[serve]\nlisten = "127.0.0.1:0"\n' + config

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory()
        config, log = (os.path.join(self.home.name, name) for name in ("config.toml", "serve.log"))
        with open(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(self.config)
        environment = {"HOME": self.home.name, "MMCHAT_CONFIG": config, "XDG_CONFIG_DIRS": self.home.name}
        with open(log, "w") as stderr:
            self.process = subprocess.Popen([self.binary, "serve"], env=environment, stdin=subprocess.DEVNULL, text=True,
                                            stdout=subprocess.PIPE, stderr=stderr, preexec_fn=end_with_parent)
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            text = open(log).read()
            self.__exit__()
            raise RuntimeError(f"serve does not start: {text}")
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.home.cleanup()


class Reply:
    """What a client got: the status, the seconds until the first event of an answer or until the response ended without one,
    and why it is no complete answer."""
    status = seconds = error = None


def request_head(length, headers=""):
    """The head of a chat request with a body of this length."""
    return (f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{headers}"
            f"connection: close\r\ncontent-length: {length}\r\n\r\n").encode()


def small_request(model, stream=True, headers=""):
    body = to_json({"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream})
    return request_head(len(body), headers) + body


async def ask(port, model, stream=True, timeout=60):
    """Sends a small request once, on its own connection, and reads the answer."""
    reply, started = Reply(), time.monotonic()

    async def exchange():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(small_request(model, stream))
            data = b""
            while part := await reader.read(1 << 16):
                data += part
                if reply.seconds is None and b"\ndata: {" in data:
                    reply.seconds = time.monotonic() - started
            return data
        finally:
            writer.close()

    try:
        head, _, body = (await asyncio.wait_for(exchange(), timeout)).partition(b"\r\n\r\n")
        reply.status = int(head.split(b" ")[1])
        is_complete = b'"finish_reason":"stop"' in body and (not stream or b"data: [DONE]" in body)
        if reply.status != 200 or not is_complete or b'data: {"error"' in body:
            # Without the request ID, equal errors have equal texts.
            reply.error = f"{reply.status} {body.partition(b'request_id')[0][:300]!r}"
    except (OSError, IndexError, asyncio.TimeoutError) as error:
        reply.error = f"{type(error).__name__} {error}"
    reply.seconds = reply.seconds or time.monotonic() - started
    return reply
