#!/usr/bin/env python3
"""`bakestone serve` with little memory and a short queue, under every kind of client at once.

    soak.py BAKESTONE MODEL ADAPTER.gguf [--seconds N] [--seed N]

Clients: greedy questions whose answers and log-probabilities must stay those of the idle server, to the last
bit, whole, streamed, read slowly, base and adapter mixed; sampled ones with several choices; streams that are
left in the middle, requests that are left in the queue; malformed, oversized and unfinished requests; prompts
beyond the context. A full queue (429) is waited out. Fails on: a 5xx, a wrong status, another answer, a cut
connection, an unhealthy /health, memory, file descriptors or threads that grow after warm-up, work left over
when all clients are gone, an error in the log, a SIGTERM that does not end it with 0. Linux only (/proc)."""
import argparse
import collections
import json
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

WORDS = pathlib.Path(__file__).resolve().parents[2].joinpath("examples/handbook/handbook.md").read_text().split()
QUESTIONS = ["What is the capital of France?", "Write a line about the sea.", "Count from 1 to 9.",
             "When may a member borrow the trailer?", "Nenne drei Farben.", "Repeat ten times: the trailer is blue.",
             "Say hello \U0001f600 twice.",
             "Explain in one sentence what a cooperative is: " + " ".join(WORDS[:120])]
RSS_GROWTH = 24 << 20  # between the second quarter of the run and the last
LONG_WAIT = 300  # seconds for one answer: the machine may be busy with other things
# Kind of client: how many there are, and seconds that each rests after a visit.
CLIENTS = {"whole": (4, 0), "stream": (4, 0), "slow_reader": (3, 0), "keep_alive": (2, 0.5), "sampled": (3, 0),
           "leaves_stream": (2, 0.2), "leaves_queue": (2, 0.5), "never_reads": (1, 1), "malformed": (2, 0.05),
           "over_long": (1, 0.3), "bad_http": (2, 0.05), "unfinished": (2, 0), "health": (1, 0.5)}


class Failure(Exception):
    pass


class Connection:
    """One HTTP/1.1 connection, by hand: what it sends need not be right."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(LONG_WAIT)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()

    def send(self, path, body, method="POST"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                            f"Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def head(self):
        """Status and headers of the next answer; None where the server closed without one."""
        line = self.file.readline()
        if not line:
            return None, {}
        headers = {}
        while (field := self.file.readline().strip()):
            name, _, value = field.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def read(self, n):
        data = self.file.read(n)
        if len(data) != n:
            raise Failure(f"the connection was cut: expected {n} bytes, found {len(data)}")
        return data

    def body(self, headers):
        return self.read(int(headers["content-length"]))

    def chunks(self):
        while (size := int(self.file.readline() or b"-1", 16)) > 0:
            yield self.read(size)
            self.read(2)
        if size < 0:
            raise Failure("a stream was cut")
        self.read(2)

    def events(self, pause=0.0):
        """The JSON of each event of a stream; must end with [DONE]."""
        for chunk in self.chunks():
            for line in chunk.decode().splitlines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data: "):
                    done = False
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise Failure(f"a stream ended in an error: {event}")
                    yield event
            time.sleep(pause)
        if not done:
            raise Failure("a stream ended without [DONE]")


class Soak:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.counts = collections.Counter()
        self.failures = []
        self.stopping = threading.Event()
        self.log_lines = []
        self.process = subprocess.Popen(
            [options.binary, "serve", options.model, "--adapter", f"tuned={options.adapter}", "--port", "0",
             "--kv-memory", "32", "--max-running", "6", "--max-queue", "12", "--default-max-tokens", "200",
             "--speculate", "lookup", "--drain-seconds", str(LONG_WAIT)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        url = self.process.stdout.readline().strip()
        if not url:
            sys.exit(f"the server did not start: {self.process.stderr.read()}")
        self.port = int(url.rsplit(":", 1)[1])
        threading.Thread(target=self.read_log, daemon=True).start()
        with Connection(self.port) as connection:
            connection.send("/v1/models", b"", "GET")
            models = json.loads(connection.body(connection.head()[1]))["data"]
        self.models = [model["id"] for model in models]
        self.context = models[0]["max_model_len"]

    def read_log(self):
        for line in self.process.stderr:
            self.log_lines.append(line)

    def fail(self, what):
        print(f"FAILED: {what}", file=sys.stderr, flush=True)
        self.failures.append(what)

    # Requests and what is expected of their answers.

    def anchor(self, model, question, stream=False):
        return {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0,
                "max_tokens": 24, "logprobs": True, "top_logprobs": 2, "stream": stream}

    def ask(self, connection, request):
        """Sends a request until the queue takes it; the answer's headers."""
        while True:
            connection.send("/v1/chat/completions", request)
            status, headers = connection.head()
            if status == 200:
                return headers
            answer = connection.body(headers).decode(errors="replace") if status else ""
            if status != 429:
                raise Failure(f"status {status} for {json.dumps(request)[:200]}: {answer}")
            if int(headers["retry-after"]) < 1:
                raise Failure(f"429 says to come back after {headers['retry-after']} s")
            self.counts["429"] += 1
            time.sleep(self.random.uniform(0.1, 1))

    def whole(self, request):
        with Connection(self.port) as connection:
            choice = json.loads(connection.body(self.ask(connection, request)))["choices"][0]
        return choice["message"]["content"], choice["logprobs"]["content"], choice["finish_reason"]

    def streamed(self, request, pause=0.0, receive_buffer=None):
        text, logprobs, finish = "", [], None
        with Connection(self.port, receive_buffer) as connection:
            self.ask(connection, request)
            for event in connection.events(pause):
                choice = event["choices"][0]
                text += choice["delta"].get("content") or ""
                logprobs += (choice.get("logprobs") or {}).get("content") or []
                finish = choice["finish_reason"] or finish
        return text, logprobs, finish

    def expect_same(self, key, answer):
        if answer != self.expected[key]:
            raise Failure(f"{key}: expected {self.expected[key]!r}, found {answer!r}")

    # The kinds of client; each call is one visit.

    def pick(self):
        return self.random.choice(self.models), self.random.choice(QUESTIONS)

    def client_whole(self):
        key = self.pick()
        self.expect_same(key, self.whole(self.anchor(*key)))

    def client_stream(self):
        key = self.pick()
        self.expect_same(key, self.streamed(self.anchor(*key, stream=True)))

    def client_slow_reader(self):
        key = self.pick()
        self.expect_same(key, self.streamed(self.anchor(*key, stream=True), self.random.uniform(0.05, 0.5), 2048))

    def client_keep_alive(self):
        """Several requests over one connection, the later ones sent before the first is answered."""
        keys = [self.pick() for _ in range(3)]
        with Connection(self.port) as connection:
            for key in keys:
                connection.send("/v1/chat/completions", self.anchor(*key))
            for key in keys:
                status, headers = connection.head()
                answer = json.loads(connection.body(headers))
                if status == 429:
                    self.counts["429"] += 1
                    continue
                choice = answer["choices"][0]
                self.expect_same(key, (choice["message"]["content"], choice["logprobs"]["content"],
                                       choice["finish_reason"]))

    def noise(self, stream):
        words = self.random.choices(WORDS, k=self.random.choice([3, 30, 200]))
        return {"model": self.random.choice(self.models), "stream": stream,
                "messages": [{"role": "user", "content": " ".join(words)}],
                "temperature": self.random.uniform(0.2, 1.5), "top_p": self.random.uniform(0.5, 1),
                "presence_penalty": self.random.uniform(-1, 1), "n": self.random.choice([1, 1, 2]),
                "seed": self.random.getrandbits(32), "max_tokens": self.random.randint(1, 40),
                "stop": self.random.choice([None, "the", ["\n", "and"]])}

    def client_sampled(self):
        request = self.noise(False)
        with Connection(self.port) as connection:
            answer = json.loads(connection.body(self.ask(connection, request)))
        if len(answer["choices"]) != request["n"]:
            raise Failure(f"{request['n']} choices asked, {len(answer['choices'])} answered")
        if answer["usage"]["completion_tokens"] > request["n"] * request["max_tokens"]:
            raise Failure(f"too long an answer: {answer['usage']}")

    def client_leaves_stream(self):
        request = {**self.noise(True), "max_tokens": 200, "n": 1, "ignore_eos": True, "stop": None}
        connection = Connection(self.port, 2048)
        self.ask(connection, request)
        events = connection.events()
        for _ in range(self.random.randint(0, 8)):
            next(events, None)
        connection.close(reset=self.random.random() < 0.5)

    def client_leaves_queue(self):
        connection = Connection(self.port)
        connection.send("/v1/chat/completions", {**self.noise(self.random.random() < 0.5), "max_tokens": 300})
        time.sleep(self.random.uniform(0, 0.3))
        connection.close(reset=self.random.random() < 0.5)

    def client_never_reads(self):
        request = {**self.noise(True), "max_tokens": 200, "n": 1, "ignore_eos": True, "stop": None}
        connection = Connection(self.port, 2048)
        connection.send("/v1/chat/completions", request)
        time.sleep(self.random.uniform(1, 8))
        connection.close()

    def client_malformed(self):
        model, question = self.pick()
        good = self.anchor(model, question)
        body, status = self.random.choice([
            (b"{", 400), (b"[]", 400), (b"\xff\xfe{}", 400), (b"[" * 100_000, 400), (b"", 400), (b"null", 400),
            ({**good, "temperature": "hot"}, 400), ({**good, "temperature": -1}, 400),
            ({**good, "messages": []}, 400), ({**good, "messages": "hi"}, 400), ({**good, "n": 0}, 400),
            ({**good, "max_tokens": -1}, 400), ({**good, "stop": [""]}, 400), ({**good, "unheard_of": 1}, 400),
            ({**good, "messages": [{"role": "user"}]}, 400), ({**good, "model": "nobody"}, 404),
            ({**good, "max_tokens": 10**9}, 400), ({**good, "max_tokens": 1e300}, 400)])
        self.expect_status("/v1/chat/completions", body, status)

    def client_over_long(self):
        text = " ".join(self.random.choices(WORDS, k=self.context + self.random.randint(1, 20_000)))
        self.expect_status("/v1/chat/completions", {"model": self.random.choice(self.models), "messages": [
            {"role": "user", "content": text}]}, 400)
        self.expect_status("/v1/completions", {"model": self.random.choice(self.models), "prompt": text}, 400)

    def expect_status(self, path, body, expected):
        with Connection(self.port) as connection:
            connection.send(path, body)
            status, headers = connection.head()
            answer = connection.body(headers)
        if status == 429:
            self.counts["429"] += 1
        elif status != expected:
            raise Failure(f"{path} with {str(body)[:200]}: expected {expected}, found {status}: {answer[:300]!r}")
        elif not json.loads(answer)["error"]["message"]:
            raise Failure(f"{path}: an error without a message")

    def client_bad_http(self):
        post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        data, statuses = self.random.choice([
            (b"GET / HTTP/1.1\r\n\r\n", [400]), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400, None]),
            (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", [403]),
            (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", [400]),
            (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 60_000 + b"\r\n\r\n", [431]),
            (post + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", [415]),
            (post + b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{}", [413]),
            (post + b"Content-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
             [400]),
            (post + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", [400]),
            (post + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", [415]),
            (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", [404]),
            (b"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", [405])])
        with Connection(self.port) as connection:
            connection.socket.sendall(data)
            status, _ = connection.head()
        if status not in statuses:
            raise Failure(f"{data[:100]!r}: expected one of {statuses}, found {status}")

    def client_unfinished(self):
        """A header or a body that never ends: dripped, then dropped."""
        connection = Connection(self.port)
        data = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 500\r\n\r\n{\"model\": \"")
        for byte in data[:self.random.randint(1, len(data))][:60]:
            connection.socket.sendall(bytes([byte]))
            time.sleep(0.02)
        connection.close(reset=self.random.random() < 0.5)

    def client_health(self):
        with Connection(self.port) as connection:
            connection.send("/health", b"", "GET")
            status, headers = connection.head()
            health = json.loads(connection.body(headers))
        if status != 200 or health["status"] != "ok":
            raise Failure(f"/health: {status} {health}")

    # The run.

    def loop(self, name, rest):
        client = getattr(self, "client_" + name)
        while not self.stopping.is_set():
            try:
                client()
                self.counts[name] += 1
                self.stopping.wait(rest)
            except Exception as error:  # every kind of failure is a finding
                self.fail(f"{name}: {type(error).__name__}: {error}")
                self.stopping.wait(1)
                if len(self.failures) >= 20:
                    self.stopping.set()

    def measure(self):
        """Resident bytes, file descriptors, threads of the server."""
        folder = pathlib.Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return (int(status["VmRSS"].split()[0]) << 10, len(list((folder / "fd").iterdir())),
                int(status["Threads"]))

    def wait_idle(self):
        deadline = time.time() + LONG_WAIT
        while time.time() < deadline:
            with Connection(self.port) as connection:
                connection.send("/health", b"", "GET")
                _, headers = connection.head()
                health = json.loads(connection.body(headers))
            if health["running"] == health["waiting"] == 0 and self.measure()[1] <= self.idle[1]:
                return
            time.sleep(0.2)
        self.fail(f"long after the last client: {health}, {self.measure()[1]} file descriptors, {self.idle[1]} before")

    def anchors(self):
        return {(model, question): self.whole(self.anchor(model, question))
                for model in self.models for question in QUESTIONS}

    def run(self):
        self.expected = self.anchors()
        if all(self.expected[self.models[0], q] == self.expected[self.models[1], q] for q in QUESTIONS):
            self.fail("the adapter changes no answer: the test would prove nothing")
        time.sleep(1)
        self.idle = self.measure()
        threads = [threading.Thread(target=self.loop, args=(kind, rest), daemon=True)
                   for kind, (count, rest) in CLIENTS.items() for _ in range(count)]
        for thread in threads:
            thread.start()
        samples, start = [], time.time()
        while time.time() < start + self.options.seconds and not self.stopping.is_set():
            if self.process.poll() is not None:
                break
            samples.append(self.measure())
            self.stopping.wait(0.5)
        self.stopping.set()
        for thread in threads:
            thread.join(LONG_WAIT)
        if self.process.poll() is not None:
            self.fail(f"the server ended with {self.process.returncode}")
            return
        if any(thread.is_alive() for thread in threads):
            self.fail(f"a client got no answer within {LONG_WAIT} s")
        self.judge(samples)
        self.wait_idle()
        after = self.anchors()
        for key, answer in after.items():
            if answer != self.expected[key]:
                self.fail(f"idle again, {key}: expected {self.expected[key]!r}, found {answer!r}")
        self.stop()

    def judge(self, samples):
        quarter = max(1, len(samples) // 4)
        warm, last = samples[quarter:2 * quarter] or samples, samples[-quarter:]
        rss = [max(sample[0] for sample in part) for part in (warm, last)]
        if rss[1] > rss[0] + RSS_GROWTH:
            self.fail(f"memory grew from {rss[0] >> 20} to {rss[1] >> 20} MB")
        if len({sample[2] for sample in samples}) != 1 or samples[0][2] != self.idle[2]:
            self.fail(f"threads: {self.idle[2]} idle, {sorted({s[2] for s in samples})} busy")
        clients = sum(count for count, _ in CLIENTS.values())
        if max(sample[1] for sample in samples) > self.idle[1] + 3 * clients:
            self.fail(f"{max(s[1] for s in samples)} file descriptors for {clients} clients")
        missing = [kind for kind in CLIENTS if self.counts[kind] == 0]
        if missing or self.counts["429"] == 0:
            self.fail(f"not tested: {missing or 'a full queue'}")
        print(f"memory {self.idle[0] >> 20} MB idle, {rss[0] >> 20} MB warm, {rss[1] >> 20} MB at the end; "
              f"{self.idle[2]} threads; up to {max(s[1] for s in samples)} file descriptors")

    def stop(self):
        """SIGTERM while a stream is admitted: it finishes, then the server ends with 0."""
        connection = Connection(self.port)
        self.ask(connection, {**self.anchor(*self.pick(), stream=True), "max_tokens": 100, "ignore_eos": True})
        events = connection.events()
        next(events)
        self.process.send_signal(signal.SIGTERM)
        if list(events)[-1]["choices"][0]["finish_reason"] != "length":
            self.fail("SIGTERM cut an admitted stream")
        connection.close()
        if (status := self.process.wait(LONG_WAIT)) != 0:
            self.fail(f"after SIGTERM: exit status {status}")
        wrong = [line for line in self.log_lines if "error" in line.lower() or "failed" in line or "cut" in line]
        if wrong:
            self.fail(f"in the log: {wrong[:5]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("adapter")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    soak = Soak(parser.parse_args())
    try:
        soak.run()
    finally:
        soak.process.kill()
    print(", ".join(f"{count} {kind}" for kind, count in sorted(soak.counts.items())))
    return 1 if soak.failures else 0


if __name__ == "__main__":
    sys.exit(main())
