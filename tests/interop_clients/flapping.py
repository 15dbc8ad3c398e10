"""Streams through routes whose candidates fail and recover every two seconds, and through outages of all candidates.

    flapping.py BINARY [SECONDS [PARALLEL [NAME]]]

Each scenario runs for SECONDS (default 60) with upstreams and a `serve` of its own, PARALLEL scenarios at a time (default 6,
for an optimized binary on two cores). NAME limits the run to the scenarios whose titles contain it.

While one candidate answers, no request fails, at most 1 % of the requests wait longer than the limit below, and the upstreams
get at most 1.3 attempts per request. In an outage they get at most two attempts per request, and far fewer if the key was
rejected or the account is used up.
"""
import asyncio, collections, concurrent.futures, contextlib, sys, time

from checks import check, end
from harness import Gateway, Upstream, ask, end_with_parent

BINARY = sys.argv[1]
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 60
PARALLEL = int(sys.argv[3]) if len(sys.argv) > 3 else 6
NAME = sys.argv[4] if len(sys.argv) > 4 else ""
RATES, PERIOD = (25, 50), 2  # requests per second; seconds
TTFT = 0.02  # seconds that an upstream takes for its first event
LIMIT = 1.0  # seconds that a request may wait for its first event in addition to that
SILENT_LIMIT = 1.5  # the same if a candidate gives no answer; its `first_token` is 0.5 s
ERRORS = {
    "500": (500, "internal error"),
    "503": (503, "down for maintenance"),
    "429": (429, "rate limit reached", "rate_limit_exceeded"),
    "429 with Retry-After": (429, "rate limit reached", "rate_limit_exceeded", "retry-after: 1\r\n"),
    "401": (401, "invalid API key", "invalid_api_key"),
    "402": (402, "insufficient balance", "insufficient_quota"),
}


class Candidate:
    """An upstream. `fault` returns how it fails at the moment, or None."""

    def __init__(self, fault):
        self.fault, self.start, self.attempts, self.failures = fault, time.monotonic(), 0, 0

    def elapsed(self):
        return time.monotonic() - self.start

    async def handle(self, exchange):
        await exchange.read_body()
        self.attempts += 1
        fault = self.fault(self)
        if fault is None:
            await asyncio.sleep(TTFT)
            return await exchange.answer("one two three four five", stream=True, pause=0.005)
        self.failures += 1
        if fault in ERRORS:
            return await exchange.reply_error(*ERRORS[fault])
        if fault == "no answer":
            await exchange.reader.read(1)  # returns when the connection is closed
        return False


def is_healthy(_):
    return None


def fails(fault):
    return lambda _: fault


def fails_once(fault):
    return lambda candidate: fault if candidate.elapsed() >= 2 and candidate.failures == 0 else None


def flaps(fault, first_period=1):
    """Fails in every second period, from the given one on."""
    return lambda candidate: fault if int(candidate.elapsed() / PERIOD) % 2 == first_period else None


class Scenario:
    """`limit`: limit of the time to the first event. `max_attempts`: attempts allowed for a number of requests."""

    def __init__(self, title, faults, limit=LIMIT, max_attempts=None):
        self.title, self.faults, self.limit = title, faults, limit
        self.is_outage = max_attempts is not None
        self.max_attempts = max_attempts or (lambda requests: 1.3 * requests)


CLOSED_PORT, DROPPED, SILENT = "closed port", "dropped connection", "no answer"
SCENARIOS = [
    *(Scenario(f"one of two flaps: {fault}", [flaps(fault), is_healthy])
      for fault in ("503", DROPPED, "500", "429", "429 with Retry-After")),
    *(Scenario(f"two flap in turn: {fault}", [flaps(fault), flaps(fault, 0)]) for fault in ("503", DROPPED, "500", "429")),
    *(Scenario(f"blip of one, backup dead: {fault}", [fails_once("503"), fails(fault)])
      for fault in (CLOSED_PORT, "401", DROPPED)),
    Scenario(f"one of two flaps: {SILENT}", [flaps(SILENT), is_healthy], SILENT_LIMIT),
    Scenario(f"two flap in turn: {SILENT}", [flaps(SILENT), flaps(SILENT, 0)], SILENT_LIMIT),
    # The first requests of an outage may make four attempts, until the circuit breakers are open.
    *(Scenario(f"outage: {fault}", [fails(fault)] * 2, max_attempts=lambda requests: 2 * requests + 10)
      for fault in ("503", DROPPED, "500")),
    # Most requests get the remembered error.
    *(Scenario(f"outage: {fault}", [fails(fault)] * 2, max_attempts=lambda requests: requests / 5) for fault in ("401", "402")),
]


class Figures:
    """The result of a scenario."""

    def __init__(self, replies, limit, attempts):
        self.requests, self.attempts = len(replies), attempts
        self.errors = collections.Counter(reply.error for reply in replies if reply.error)
        self.slow = sum(reply.seconds > limit + TTFT for reply in replies) / self.requests
        self.slowest = max(reply.seconds for reply in replies)

    def __str__(self):
        return (f"{self.requests} requests, {self.errors.total()} errors, {self.slow:.1%} slow, slowest {self.slowest:.2f} s, "
                f"{self.attempts / self.requests:.2f} attempts per request")


async def run(scenario, rate):
    candidates = [Candidate(fault) for fault in scenario.faults]
    async with contextlib.AsyncExitStack() as stack:
        config, names = "", []
        for number, candidate in enumerate(candidates):
            upstream = await stack.enter_async_context(Upstream(candidate.handle))
            is_closed = candidate.fault(candidate) == CLOSED_PORT
            names.append(f"candidate{number}")
            config += (f'[endpoints.{names[-1]}]\nbase_url = "{"http://127.0.0.1:1" if is_closed else upstream.url}/v1"\n'
                       'api_key = "sk-upstream"\n')
            if scenario.limit == SILENT_LIMIT:
                config += 'timeouts = { first_token = "500ms" }\n'
            config += f'[models.{names[-1]}]\nendpoint = "{names[-1]}"\nmodel = "m"\n'
        gateway = stack.enter_context(Gateway(BINARY, f"{config}[routes.chat]\nmodels = {names}\n"))
        start = time.monotonic()
        for candidate in candidates:
            candidate.start = start
        tasks = []
        for number in range(int(SECONDS * rate)):
            await asyncio.sleep(max(0, start + number / rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(ask(gateway.port, "chat")))
        return Figures(await asyncio.gather(*tasks), scenario.limit, sum(candidate.attempts for candidate in candidates))


def run_number(number, rate):
    """Runs in a worker process."""
    return asyncio.run(run(SCENARIOS[number], rate))


def report(scenario, rate, figures):
    @check("flapping", f"{scenario.title}, {rate}/s: {figures}")
    def _():
        if isinstance(figures, BaseException):
            raise figures
        if not scenario.is_outage:
            assert not figures.errors, figures.errors.most_common(5)
            assert figures.slow <= 0.01
        assert figures.attempts <= scenario.max_attempts(figures.requests)


with concurrent.futures.ProcessPoolExecutor(PARALLEL, initializer=end_with_parent) as pool:
    runs = [(scenario, rate, pool.submit(run_number, number, rate))
            for number, scenario in enumerate(SCENARIOS) if NAME in scenario.title for rate in RATES]
    for scenario, rate, future in runs:
        report(scenario, rate, future.exception() or future.result())
end()
