"""Streams with OpenAI's SDK through a route while its first endpoint is killed and restarted; then compares /metrics, the
log and the record.

    outage.py URL BINARY PORT LOG

The first endpoint of the route `chat` is the mock that this script starts at PORT; the second one is up all the time.
`stats` runs with the environment of this process. LOG is the log file of the server.
"""
import importlib.metadata, json, subprocess, sys, time, urllib.request

from checks import check, end
from openai import OpenAI

URL, BINARY, PORT, LOG = sys.argv[1:]
KEY, ROUNDS = "sk-of-the-clients", 60
name = f"openai {importlib.metadata.version('openai')} (Python)"
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
served, complete = [], 0


def primary():
    mock = subprocess.Popen([BINARY, "mock", "--port", PORT, "--tokens", "20", "--tps", "400", "--ttft", "5ms"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    mock.stdout.readline()
    return mock


@check(name, f"{ROUNDS} complete streams through a route whose first endpoint is killed and restarted")
def _():
    global complete
    mock = primary()
    for number in range(ROUNDS):
        if number == 15:
            mock.kill()
            mock.wait()
        if number == 30:
            mock = primary()
            # Only a request after the cooldown detects that the endpoint is back.
            time.sleep(6)
        reply = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": f"number {number}"}], stream=True)
        chunks = list(reply.parse())
        assert chunks[-1].choices[0].finish_reason == "stop", number
        assert len("".join(c.choices[0].delta.content or "" for c in chunks).split()) >= 20, number
        served.append(reply.headers["x-mmchat-model"])
        complete += 1
    mock.kill()
    mock.wait()
    assert set(served[:15]) == {"first"} and set(served[15:30]) == {"second"} and served[-1] == "first", served


@check(name, "/metrics, the log and the record agree")
def _():
    time.sleep(1)
    request = urllib.request.Request(URL.replace("/v1", "/metrics"), headers={"authorization": f"Bearer {KEY}"})
    lines = urllib.request.urlopen(request).read().decode().splitlines()

    def metric(start):
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def stats(by, name):
        rows = json.loads(subprocess.run([BINARY, "stats", "--by", by, "--format", "json"], check=True,
                                         stdout=subprocess.PIPE, text=True).stdout)
        return next(row for row in rows if row[by] == name)

    log = [json.loads(line) for line in open(LOG) if '"path":"/v1/chat/completions"' in line]
    attempts = [attempt for line in log for attempt in line["attempts"]]
    route, key = stats("route", "chat"), stats("key", "clients")
    assert len(log) == route["calls"] == key["calls"] == metric('mmchat_requests_total{name="chat"') == complete
    for model in ("first", "second"):
        row = stats("model", model)
        logged = [attempt for attempt in attempts if attempt["model"] == model]
        assert len(logged) == row["calls"] == metric(f'mmchat_attempts_total{{endpoint="{model}",model="{model}"'), model
        failed = [attempt for attempt in logged if attempt["class"] != "ok"]
        assert len(failed) == row["failed"], model
        assert row["output_tokens"] == metric(
            f'mmchat_tokens_total{{endpoint="{model}",model="{model}",direction="output"'), model
    assert sum(line["output"] for line in log) == route["output_tokens"]
    assert abs(sum(line["cost"] for line in log) - route["cost"]["USD"]) < 1e-9
    assert abs(metric("mmchat_cost_total") - route["cost"]["USD"]) < 1e-9
    failovers = sum(len({a["model"] for a in line["attempts"]}) - 1 for line in log)
    assert failovers == metric("mmchat_failovers_total") == route["failovers"] == key["failovers"]
    print(f"  {len(log)} requests, {len(attempts)} attempts, {int(metric('mmchat_failovers_total'))} failovers")


end()
