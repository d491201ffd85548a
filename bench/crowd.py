#!/usr/bin/env python3
"""`bakestone serve` under many clients at once: are answers lost, does memory grow, does /health stay prompt.

    bench/crowd.py --model MODEL.gguf [--streaming 256] [--slow 512] [--seconds 600]

Streaming clients ask one greedy question after the other and must get the answer of the idle server each time. Slow
ones send their request in pieces for seconds, or read their stream piece by piece through a small buffer, and rest
between. A process of its own asks for /health ten times a second, each time over a new connection. Prints the answers
and those lost or other than expected, the server's memory by tenths of the run, and percentiles of /health; exits with
1 where an answer was lost (clients that are held up for more than 10 s may miss the server's deadlines). Only the
standard library; Linux (/proc)."""
import argparse
import asyncio
import collections
import http.client
import json
import os
import pathlib
import random
import resource
import socket
import subprocess
import sys
import time

from serving import REPOSITORY, Server, models, post

QUESTIONS = ["The tide comes", "Bread is made of", "In the harbour there are", "A year has", "The miller keeps", "One and one is"]
TOKENS = 16
REST = (2.0, 20.0)  # seconds that a slow client rests


def expected_text(server, model, question):
    answer = json.loads(post(server, body_of(model, question, False)).read())
    return answer["choices"][0]["text"]


def body_of(model, question, stream):
    return {"model": model, "prompt": question, "max_tokens": TOKENS, "temperature": 0, "stream": stream, "ignore_eos": True}


class Crowd:
    def __init__(self, args, server):
        self.args, self.server = args, server
        self.model = models(server)[0]
        self.expected = {question: expected_text(server, self.model, question) for question in QUESTIONS}
        self.random = random.Random(args.seed)
        self.counts = collections.Counter()
        self.lost = []
        self.memory = []
        self.held_up = 0.0  # longest time that the clients themselves did not run
        self.end = 0.0

    def request(self, question):
        body = json.dumps(body_of(self.model, question, True)).encode()
        return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body)) + body

    async def connect(self, receive_buffer=None):
        if receive_buffer is None:
            return await asyncio.open_connection("127.0.0.1", self.server.port)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.server.port))
        return await asyncio.open_connection(sock=raw, limit=2048)

    async def answer(self, reader, pause):
        """The text of a streamed answer, to its end."""
        status = int((await reader.readline()).split()[1])
        text, done = "", False
        async for line in reader:
            if status != 200:
                continue
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(f"a stream ended in an error: {event}")
                text += event["choices"][0]["text"]
                await asyncio.sleep(pause())
        if status != 200 or not done:
            raise RuntimeError(f"status {status}, {'no ' if not done else ''}end of the stream")
        return text

    async def visit(self, kind):
        question = self.random.choice(QUESTIONS)
        reader, writer = await self.connect(2048 if kind == "slow reading" else None)
        try:
            data = self.request(question)
            if kind == "slow sending":  # within the deadlines: ten seconds for headers
                size = len(data) // self.random.randint(6, 12) + 1
                for at in range(0, len(data), size):
                    writer.write(data[at:at + size])
                    await writer.drain()
                    await asyncio.sleep(self.random.uniform(0.1, 0.8))
            else:
                writer.write(data)
            pause = (lambda: self.random.uniform(0.1, 0.6)) if kind == "slow reading" else (lambda: 0)
            text = await self.answer(reader, pause)
        finally:
            writer.close()
        if text != self.expected[question]:
            raise RuntimeError(f"{question!r}: expected {self.expected[question]!r}, found {text!r}")

    async def client(self, kind):
        await asyncio.sleep(self.random.uniform(0, 5))  # not all at once
        while time.monotonic() < self.end:
            try:
                await self.visit(kind)
                self.counts[kind] += 1
            except Exception as error:  # of any kind: the answer is lost
                left = self.end - time.monotonic()
                self.lost.append(f"{kind}, {self.args.seconds - left:.1f} s after the start: {type(error).__name__}: {error}")
                await asyncio.sleep(1)
            if kind != "streaming":
                await asyncio.sleep(min(self.random.uniform(*REST), max(0.0, self.end - time.monotonic())))

    async def watch(self):
        while time.monotonic() < self.end:
            self.memory.append(self.server.memory())
            start = time.monotonic()
            await asyncio.sleep(1)
            self.held_up = max(self.held_up, time.monotonic() - start - 1)

    async def run(self):
        self.end = time.monotonic() + self.args.seconds
        kinds = ["streaming"] * self.args.streaming
        kinds += [("slow sending", "slow reading")[i % 2] for i in range(self.args.slow)]
        await asyncio.gather(self.watch(), *(self.client(kind) for kind in kinds))


def probe(port, seconds):
    """Seconds that /health took, each time, as JSON."""
    taken, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if answer.status != 200 or json.loads(answer.read())["status"] != "ok":
            sys.exit(f"/health: {answer.status}")
        connection.close()
        taken.append(time.monotonic() - start)
        time.sleep(max(0.0, 0.1 - taken[-1]))
    json.dump(taken, sys.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bakestone", default=str(REPOSITORY / "build/release/bakestone"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--streaming", type=int, default=256)
    parser.add_argument("--slow", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    clients = args.streaming + args.slow
    needed = 2 * clients + 256
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], min(needed, limit[1])), limit[1]))
    command = [str(pathlib.Path(args.bakestone).resolve()), "serve", str(pathlib.Path(args.model).resolve()), "--port", "PORT", "--threads",
               args.threads, "--max-running", 64, "--max-queue", clients, "--kv-memory", 1024]
    with Server(command, "/ready", "bakestone") as server:
        crowd = Crowd(args, server)
        prober = subprocess.Popen([sys.executable, __file__, "--probe", str(server.port), str(args.seconds)], stdout=subprocess.PIPE, text=True)
        os.nice(2)  # the server is measured, not the clients
        asyncio.run(crowd.run())
        taken = sorted(json.loads(prober.communicate()[0] or "[]"))
        if prober.returncode != 0 or server.process.poll() is not None:
            crowd.lost.append("/health failed, or the server has ended")
    print("answers: " + ", ".join(f"{count} {kind}" for kind, count in sorted(crowd.counts.items())) + f"; lost or other: {len(crowd.lost)}; "
          f"the clients themselves were held up for {crowd.held_up:.1f} s at most")
    for line in crowd.lost[:10]:
        print("  " + line)
    tenth = max(1, len(crowd.memory) // 10)
    print("memory by tenths, MB: " + ", ".join(str(max(crowd.memory[at:at + tenth]) >> 20) for at in range(0, len(crowd.memory), tenth)))
    if taken:
        shares = [taken[min(len(taken) - 1, int(len(taken) * share))] * 1e3 for share in (0.5, 0.95, 0.99)]
        print("/health, ms: p50 {:.1f}, p95 {:.1f}, p99 {:.1f}, longest {:.1f}, of {}".format(*shares, taken[-1] * 1e3, len(taken)))
    return 1 if crowd.lost else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(int(sys.argv[2]), float(sys.argv[3]))
    else:
        sys.exit(main())
