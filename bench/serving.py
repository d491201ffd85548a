#!/usr/bin/env python3
"""Measures `bakestone serve` on one machine, beside llama-server programs given by path: medians over rounds.

    bench/serving.py --model MODEL.gguf [--llama-server "ik=/path/to/llama-server"] [--only streams,prefix] [--rounds 3]

streams       8, 32, 64, 128 at a time, 64 tokens each: tokens/s in all, p95 to the first token; peers at 8 and 32
bench         8 and 32 at a time, all at once, 64 tokens each: the time that `bakestone bench` takes for the same prompts
              and for as many tokens in batches of as many, over the server's
first-token   8 at a time with prompts of 256 words: p95 to the first token
beside        8 streams while a prompt of 7,900 tokens is read: p99 between tokens, over that of the same 8 alone
prefix        a shared prefix of 1,000 words: time to the first token cold and warm
adapters      64 rows: 64 different of rank 16, of rank 8, 8 different of rank 16, over the base's tokens/s
many          500 adapters and memory for 30, drawn by Zipf's law: first token of cold ones and of warm ones, and
              the pauses of 4 streams meanwhile, and while one adapter alone is asked for that is in memory: what
              reading adapters adds to the steps that read prompts
idle          memory of an idle connection, plain and TLS
same          one prompt 1,000 times, greedy and seeded, among other load, with adapters and the cache: how many answers,
              their log-probabilities to the last digit
overhead      64 streams: a step's time outside of computing, and what the threads that do not compute took

Load is sent by `bakestone bench --serve`, or by this script where every request has to be chosen. Only the standard
library. Nothing is downloaded; adapters are random and lie in a temporary folder (3 GB for 'many').
"""
import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import random
import shlex
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TESTS = ("streams", "bench", "first-token", "beside", "prefix", "adapters", "many", "idle", "same", "overhead")


class Server:
    """A server on a port of its own, ended with the block."""

    def __init__(self, command, ready, name):
        self.name = name
        self.log = tempfile.TemporaryFile("w+")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [str(word).replace("PORT", str(self.port)) for word in command]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log, cwd=tempfile.gettempdir())
        scheme = "https" if "--tls-key" in command else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        trust = ssl._create_unverified_context()
        for _ in range(1800):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + ready, timeout=2, context=trust).read()
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"{name} did not start: {self.log.read()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def metric(self, name, **labels):
        total = 0.0
        for line in urllib.request.urlopen(self.url + "/metrics").read().decode().splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def memory(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def thread_seconds(self):
        """CPU seconds of each thread, by its id."""
        ticks = os.sysconf("SC_CLK_TCK")
        seconds = {}
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            seconds[task.name] = (int(fields[11]) + int(fields[12])) / ticks
        return seconds


class Bench:
    def __init__(self, args):
        self.args = args
        self.peers = [(name, shlex.split(command)) for name, command in (peer.split("=", 1) for peer in args.llama_server)]

    def ours(self, *extra):
        usual = {"--max-running": 128, "--kv-memory": 2048, "--threads": self.args.threads}
        flags = [word for flag, value in usual.items() if flag not in extra for word in (flag, value)]
        return Server([self.args.bakestone, "serve", self.args.model, "--port", "PORT", *flags, *extra], "/ready", "bakestone")

    def peer(self, name, command, streams, context=1024):
        return Server([*command, "-m", self.args.model, "--port", "PORT", "-t", self.args.threads, "-np", streams, "-c", streams * context],
                      "/health", name)

    def load(self, server, *flags):
        done = subprocess.run([self.args.bakestone, "bench", "--serve", server.url, "--json", *(str(flag) for flag in flags)],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{server.name}: {done.stderr or done.stdout}")
        load = json.loads(done.stdout)
        if load["complete"] != load["requests"]:
            sys.exit(f"{server.name}: {load['requests'] - load['complete']} requests failed: {load['errors']}")
        return load

    def rounds(self, measure):
        """Medians of what measure() returns, a dictionary of numbers."""
        all_values = {}
        for _ in range(self.args.rounds):
            for key, value in measure().items():
                all_values.setdefault(key, []).append(value)
        return {key: (statistics.median(values), min(values), max(values)) for key, values in all_values.items()}

    def each_engine(self, streams):
        """Ours, then the peers, with so many streams."""
        yield "bakestone", lambda: self.ours()
        for name, command in self.peers:
            yield name, lambda name=name, command=command: self.peer(name, command, streams)

    # The figures.

    def streams(self):
        def measure():
            values = {}
            for count in (8, 32, 64, 128):
                for name, start in self.each_engine(count):
                    if name != "bakestone" and count > 32:
                        continue
                    with start() as server:
                        self.load(server, "--streams", count, "--requests", count, "--prompt-tokens", 16, "--answer-tokens", 8, "--seed", 9)
                        load = self.load(server, "--streams", count, "--requests", 2 * count, "--prompt-tokens", 16, "--answer-tokens", 64)
                    values[f"{name}: {count} streams, tokens/s"] = load["tokens_per_second"]
                    values[f"{name}: {count} streams, first token p95, ms"] = load["first_token_seconds"]["p95"] * 1e3
            return values
        return self.rounds(measure)

    def bench(self):
        def measure():
            values = {}
            for count in (8, 32):
                flags = ("--streams", count, "--requests", count, "--prompt-tokens", 16)
                with self.ours("--speculate", "off") as server:
                    self.load(server, *flags, "--answer-tokens", 8, "--seed", 9)
                    load = self.load(server, *flags, "--answer-tokens", 64)
                prompts = load["prompt_tokens"]
                # A batch begins without a context: with so many tokens its mean context is that of the answers.
                tokens = 64 + 2 * prompts // count
                done = subprocess.run([self.args.bakestone, "bench", self.args.model, "--threads", str(self.args.threads), "--json", "--only",
                                       f"prefill-{prompts},batch-{count}", "--decode-tokens", str(tokens)], capture_output=True, text=True, check=True)
                prefill, batch = (figure["median"] for figure in json.loads(done.stdout)["figures"])
                alone = prompts / prefill + 64 * count / batch
                values[f"{count} at once, bench over the server"] = alone / load["seconds"]
            return values
        return self.rounds(measure)

    def first_token(self):
        def measure():
            values = {}
            for name, start in self.each_engine(8):
                with start() as server:
                    self.load(server, "--streams", 8, "--requests", 8, "--prompt-tokens", 16, "--answer-tokens", 8, "--seed", 9)
                    load = self.load(server, "--streams", 8, "--requests", 16, "--prompt-tokens", 256, "--answer-tokens", 64)
                values[f"{name}: 8 streams of prompts of 256, first token p95, ms"] = load["first_token_seconds"]["p95"] * 1e3
            return values
        return self.rounds(measure)

    def beside(self):
        def measure():
            flags = ("--streams", 8, "--requests", 8, "--prompt-tokens", 16, "--answer-tokens", 500)
            with self.ours("--speculate", "off") as server:
                self.load(server, "--streams", 8, "--requests", 8, "--prompt-tokens", 16, "--answer-tokens", 8, "--seed", 9)
                alone = self.load(server, *flags)
                with concurrent.futures.ThreadPoolExecutor(1) as other:
                    loaded = other.submit(self.load, server, *flags)
                    time.sleep(0.5)
                    prompt = self.load(server, "--streams", 1, "--requests", 1, "--prompt-tokens", 7900, "--answer-tokens", 1)
                    loaded = loaded.result()
            p99 = [load["inter_token_seconds"]["p99"] * 1e3 for load in (alone, loaded)]
            return {"alone, p99 between tokens, ms": p99[0], "beside the prompt, ms": p99[1], "ratio": p99[1] / p99[0],
                    "the prompt's first token, s": prompt["first_token_seconds"]["p50"]}
        return self.rounds(measure)

    def prefix(self):
        def measure():
            with self.ours() as server:
                flags = ("--streams", 1, "--prompt-tokens", 1, "--answer-tokens", 1, "--prefixes", 1, "--prefix-tokens", 1000)
                cold = []
                for seed in range(20, 25):  # another prefix each
                    cold.append(self.load(server, *flags, "--requests", 1, "--seed", seed)["first_token_seconds"]["p50"])
                warm = self.load(server, *flags, "--requests", 20, "--seed", 24)["first_token_seconds"]["p50"]
            cold = statistics.median(cold)
            return {"cold, ms": cold * 1e3, "warm, ms": warm * 1e3, "cold over warm": cold / warm}
        return self.rounds(measure)

    def adapters(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shape = self.shape()
            for rank in (8, 16):
                for i in range(64):
                    write_adapter(folder / f"r{rank}-{i}", shape, rank, seed=1000 * rank + i)

            def measure():
                with self.ours("--adapter-folder", folder, "--adapter-memory", "4096") as server:
                    base = models(server)[0]
                    kinds = {"base": [base] * 64, "64 of rank 16": [f"r16-{i}" for i in range(64)], "64 of rank 8": [f"r8-{i}" for i in range(64)],
                             "8 of rank 16": [f"r16-{i % 8}" for i in range(64)]}
                    values = {}
                    for kind, names in kinds.items():
                        together(server, names, 8)
                        values[f"{kind}, tokens/s"] = 64 * 64 / together(server, names, 64)
                    for kind in list(kinds)[1:]:
                        values[f"{kind}, over the base"] = values[f"{kind}, tokens/s"] / values["base, tokens/s"]
                    return values
            return self.rounds(measure)

    def many(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shape = self.shape()
            for i in range(500):
                write_adapter(folder / f"a{i:03}", shape, 8, seed=i)
            kept = 30 * sum((n + k) * 8 * 2 for n, k in shape_pairs(shape))
            with self.ours("--adapter-folder", folder, "--adapter-memory", (kept >> 20) + 1, "--speculate", "off") as server:
                weights = [1 / (rank + 1) for rank in range(500)]
                drawn = random.Random(1).choices([f"a{i:03}" for i in range(500)], weights, k=200)
                first_token(server, "a000")

                def ask(name, times):
                    loaded = {entry["id"]: entry["loaded"] for entry in get(server, "/admin/adapters")["data"]}
                    times["warm" if loaded[name] else "cold"].append(first_token(server, name))

                times, others = {"cold": [], "warm": []}, {"cold": [], "warm": []}
                beside = self.beside_streams(server, [(ask, name, times) for name in drawn])
                alone = self.beside_streams(server, [(ask, "a000", others) for _ in drawn])
            values = {f"{kind}, first token p50, ms": statistics.median(each) * 1e3 for kind, each in times.items()}
            values |= {f"{kind}, first token p95, ms": sorted(each)[int(len(each) * 0.95)] * 1e3 for kind, each in times.items()}
            values |= {"cold ones": len(times["cold"]), "warm ones": len(times["warm"])}
            for kind, (step, late, longest) in (("", beside), (", one adapter only", alone)):
                values |= {f"streams{kind}, p50 between tokens, ms": step * 1e3, f"streams{kind}, p99 between tokens, ms": late * 1e3,
                           f"streams{kind}, longest pause, ms": longest * 1e3}
            return {key: (value, value, value) for key, value in values.items()}

    def beside_streams(self, server, calls):
        """p50, p99 and the longest of the times between tokens of 4 streams while the calls are made, one after the other."""
        stop, loads = threading.Event(), []

        def streams():
            while not stop.is_set():
                loads.append(self.load(server, "--streams", 4, "--requests", 4, "--prompt-tokens", 16, "--answer-tokens", 400, "--models", models(server)[0]))
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            running = other.submit(streams)
            for call, *arguments in calls:
                call(*arguments)
            stop.set()
            running.result()
        between = [load["inter_token_seconds"] for load in loads]
        return (statistics.median(each["p50"] for each in between), statistics.median(each["p99"] for each in between), max(each["max"] for each in between))

    def idle(self):
        def measure():
            values = {}
            with tempfile.TemporaryDirectory() as folder:
                key, certificate = pathlib.Path(folder, "key.pem"), pathlib.Path(folder, "certificate.pem")
                subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2", "-keyout", key,
                                "-out", certificate], check=True, capture_output=True)
                for kind, extra in (("plain", ()), ("TLS", ("--tls-key", key, "--tls-certificate", certificate))):
                    with self.ours(*extra) as server:
                        held = [connect(server) for _ in range(50)]  # what grows once
                        before = server.memory()
                        held += [connect(server) for _ in range(400)]
                        time.sleep(0.5)
                        values[f"{kind}, KiB a connection"] = (server.memory() - before) / 400 / 1024
                        for connection in held:
                            connection.close()
            return values
        return self.rounds(measure)

    def same(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for i in range(4):
                write_adapter(folder / f"a{i}", self.shape(), 8, seed=i)
            with self.ours("--adapter-folder", folder, "--kv-memory", "64", "--max-running", "24") as server:
                base = models(server)[0]
                kinds = {"greedy": {"temperature": 0}, "seeded": {"temperature": 1, "seed": 7}}
                answers = {kind: set() for kind in kinds}

                def ask(i):
                    kind = list(kinds)[i % 2]
                    answer = post(server, {"model": base, "prompt": "The harbour is busy in the morning, because", "max_tokens": 24, "logprobs": 2,
                                           "n": 1 + i % 3, "speculate": i % 5 != 0, **kinds[kind]})
                    if answer.status != 200:
                        sys.exit(f"{answer.status}: {answer.read()}")
                    choice = json.loads(answer.read())["choices"][0]
                    answers[kind].add(json.dumps([choice["text"], choice["logprobs"]["token_logprobs"]]))

                with concurrent.futures.ThreadPoolExecutor(9) as pool:
                    done = threading.Event()

                    def others():
                        seed = 0
                        while not done.is_set():
                            seed += 1
                            self.load(server, "--streams", 8, "--requests", 24, "--prompt-tokens", "16,200,700", "--answer-tokens", "8,60", "--seed", seed,
                                      "--models", f"{base}=2,a0,a1,a2,a3", "--prefixes", 2, "--prefix-tokens", 100)
                    load = pool.submit(others)
                    list(pool.map(ask, range(1000)))
                    done.set()
                    load.result()
                suspended = server.metric("bakestone_suspended_requests_total")
            values = {f"{kind} answers of 500": len(each) for kind, each in answers.items()} | {"requests suspended meanwhile": suspended}
            return {key: (value, value, value) for key, value in values.items()}

    def overhead(self):
        def measure():
            with self.ours("--speculate", "off") as server:
                flags = ("--streams", 64, "--requests", 64, "--prompt-tokens", 16)
                self.load(server, *flags, "--answer-tokens", 8, "--seed", 9)
                steps, busy, threads = server.metric("bakestone_steps_total"), server.metric("bakestone_busy_seconds_total"), server.thread_seconds()
                start = time.monotonic()
                self.load(server, *flags, "--answer-tokens", 400)
                wall = time.monotonic() - start
                steps = server.metric("bakestone_steps_total") - steps
                busy = server.metric("bakestone_busy_seconds_total") - busy
                used = sorted((seconds - threads.get(thread, 0) for thread, seconds in server.thread_seconds().items()), reverse=True)
            others = sum(used[self.args.threads:])  # the most used ones compute
            return {"a step, ms": busy / steps * 1e3, "a step outside of computing, us": (wall - busy) / steps * 1e6,
                    "other threads, share of a step": others / wall}
        return self.rounds(measure)

    def shape(self):
        """layers, hidden, feed-forward, heads' and KV heads' widths."""
        shown = json.loads(subprocess.run([self.args.bakestone, "show", self.args.model, "--json"], capture_output=True, text=True, check=True).stdout)
        return (shown["layers"], shown["hidden"], shown["feed_forward"], shown["heads"] * shown["head_dim"], shown["kv_heads"] * shown["head_dim"])


def get(server, path):
    return json.loads(urllib.request.urlopen(server.url + path).read())


def models(server):
    return [entry["id"] for entry in get(server, "/v1/models")["data"]]


def connect(server):
    connection = socket.create_connection(("127.0.0.1", server.port))
    if server.url.startswith("https"):
        connection = ssl._create_unverified_context().wrap_socket(connection)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.recv(4096)
    return connection


def post(server, body):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def together(server, names, tokens):
    """Seconds that one answer of each model takes, all at once."""
    def ask(i):
        answer = post(server, {"model": names[i], "prompt": f"{i} is a number", "max_tokens": tokens, "ignore_eos": True, "temperature": 0, "speculate": False})
        if answer.status != 200:
            sys.exit(f"{names[i]}: {answer.read()}")
        answer.read()
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        start = time.monotonic()
        list(pool.map(ask, range(len(names))))
        return time.monotonic() - start


def first_token(server, name):
    start = time.monotonic()
    answer = post(server, {"model": name, "prompt": "The tide comes", "max_tokens": 2, "stream": True, "temperature": 0})
    while not (line := answer.readline()).startswith(b"data: "):
        if not line:
            sys.exit(f"{name}: no stream")
    seconds = time.monotonic() - start
    answer.read()
    return seconds


def shape_pairs(shape):
    layers, hidden, ffn, q, kv = shape
    return layers * [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q), (ffn, hidden), (ffn, hidden), (hidden, ffn)]


def write_adapter(folder, shape, rank, seed):
    """A PEFT folder of random small bf16 pairs for every matrix."""
    rng = random.Random(seed)
    signs = bytes(0x39 if byte & 1 else 0xB9 for byte in range(256))  # numbers of about 2e-4

    def numbers(count):
        raw = bytearray(rng.randbytes(2 * count))
        raw[1::2] = raw[1::2].translate(signs)
        return bytes(raw)

    header, parts, at = {}, [], 0
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    for i, (n, k) in enumerate(shape_pairs(shape)):
        module = f"base_model.model.model.layers.{i // 7}.{names[i % 7]}"
        for part, rows, columns in (("lora_A", rank, k), ("lora_B", n, rank)):
            parts.append(numbers(rows * columns))
            header[f"{module}.{part}.weight"] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + len(parts[-1])]}
            at += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none", "target_modules": [name.split(".")[1] for name in names]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bakestone", default=str(REPOSITORY / "build/release/bakestone"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama-server", action="append", default=[], metavar="NAME=PATH", help="may be repeated, and take options")
    parser.add_argument("--only", default=",".join(TESTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.bakestone, args.model = (str(pathlib.Path(path).resolve()) for path in (args.bakestone, args.model))
    for test in args.only.split(","):
        if test not in TESTS:
            parser.error(f"--only: expected some of {', '.join(TESTS)}, found '{test}'")
        print(f"{test}:", flush=True)
        for key, (middle, least, most) in getattr(Bench(args), test.replace("-", "_"))().items():
            print(f"  {key:<62} {middle:10.2f}   {least:.2f} .. {most:.2f}", flush=True)


if __name__ == "__main__":
    main()
