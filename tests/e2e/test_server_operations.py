#!/usr/bin/env python3
"""What operators rely on, on a real model: TLS, keys read again, the log of requests, metrics, a socket that
somebody else opened, a drain.

    python test_server_operations.py BAKESTONE [MODEL]
"""
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

import httpx
import openai

sys.path.insert(0, os.path.dirname(__file__))
from served import check, error_of, finish, start  # noqa: E402

binary = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
folder = tempfile.mkdtemp(prefix="bakestone-operations-")
certificate, private, keys = (os.path.join(folder, name) for name in ("cert.pem", "key.pem", "keys"))
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", private,
                "-out", certificate], check=True, capture_output=True)
first, second = "first-secret-0123456789", "second-secret-0123456789"


def write_keys(*lines):
    with open(keys + ".new", "w") as file:
        file.write("# the team's\n" + "".join(line + "\n" for line in lines))
    os.rename(keys + ".new", keys)


write_keys(f"sha256:{hashlib.sha256(first.encode()).hexdigest()} name=first max-requests=1")
process, url = start(binary, model, "--tls-certificate", certificate, "--tls-key", private, "--api-key-file", keys, "--log-requests",
                     "--default-model", model, "--allowed-origin", "https://page.example")
check(url.startswith("https://"), f"the address says https: {url}")
trust = ssl.create_default_context(cafile=certificate)


def client_of(key):
    return openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=120, http_client=httpx.Client(verify=trust))


def get(path, key=None, **headers):
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.get(url + path, headers=headers, verify=trust, timeout=60)


client = client_of(first)
question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
check(any("a step of 1 answer takes" in line for line in process.log), "what steps take was measured and is told")
answer = client.chat.completions.create(model="gpt-4o", messages=question, temperature=0, max_tokens=20)
check("Paris" in answer.choices[0].message.content, "an answer under TLS")
check(answer.model == model, "a name that is not served goes to the default model")
chunks = list(client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=20, stream=True))
check("".join(c.choices[0].delta.content or "" for c in chunks) == answer.choices[0].message.content, "a stream under TLS is the same")
check(error_of(lambda: httpx.get(url + "/health", timeout=10), httpx.ConnectError), "an unknown certificate is noticed")
with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as plain:
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    plain.settimeout(20)
    check(b"HTTP/1.1 200" not in plain.recv(100), "no answer in the clear")

# A client that leaves in the middle frees its place, under TLS too.
slow = dict(model=model, messages=question, max_tokens=1000, stream=True, extra_body={"ignore_eos": True})
stream = client.chat.completions.create(**slow)
next(iter(stream))
error = error_of(lambda: client.chat.completions.create(model=model, messages=question, max_tokens=1), openai.RateLimitError)
check(error is not None and error.code == "rate_limit_exceeded", "a key has its limit of requests at once")
stream.close()
deadline = time.time() + 60
while '"running":0' not in get("/health").text and time.time() < deadline:
    time.sleep(0.05)
check(client.chat.completions.create(model=model, messages=question, max_tokens=1).choices, "the place is free again")

# Keys change while it runs; a file that is wrong changes nothing.
write_keys(f"{second} name=second")
deadline = time.time() + 30
while get("/v1/models", second).status_code != 200 and time.time() < deadline:
    time.sleep(0.1)
check(get("/v1/models", second).status_code == 200, "a new key is taken without a restart")
check(get("/v1/models", first).status_code == 401, "a key that was taken out is refused")
write_keys("short")
time.sleep(2.5)
check(get("/v1/models", second).status_code == 200, "keys stay where their file became wrong")
check(any("line 2" in line for line in process.log), "and the log says so")

metrics = get("/metrics", second).text
check(get("/metrics").status_code == 401, "metrics need a key")
check(f'bakestone_tokens_total{{model="{model}",key="first",kind="completion"}}' in metrics, "tokens are counted by model and key")
check('route="/v1/chat/completions",status="499"} 1' in metrics, "a departure is counted")
check(get("/ready").status_code == 200, "/ready needs no key")
page = get("/v1/models", second, Origin="https://page.example")
check(page.headers.get("access-control-allow-origin") == "https://page.example", "the page that was named may ask")
check("access-control-allow-origin" not in get("/v1/models", second, Origin="https://other.example").headers, "others may not")

# SIGTERM lets an admitted stream finish, under TLS.
last = client_of(second).chat.completions.create(**{**slow, "max_tokens": 60})
parts = [next(iter(last))]
process.send_signal(signal.SIGTERM)
parts += list(last)
check(parts[-1].choices[0].finish_reason == "length", "an admitted stream finishes after SIGTERM")
check(process.wait(60) == 0, "the server ends with 0")
lines = [json.loads(line) for line in process.log if line.startswith("{")]
check(lines and all(line["id"] and line["seconds"] >= 0 for line in lines), "every answer is a line of JSON")
check(any(line.get("completion_tokens") for line in lines), "lines tell of tokens")
check(not any("France" in line or "Paris" in line for line in process.log), "nothing that was said is logged")

# A socket that somebody else opened, as systemd does.
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    child = subprocess.Popen(["bash", "-c", 'exec 3<&"$1"; exec env LISTEN_FDS=1 LISTEN_PID=$$ "$2" serve "$3"', "activate",
                              str(listener.fileno()), binary, model], pass_fds=[listener.fileno()], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
answered = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60).read()  # waits in the queue until it is up
check(b'"ok"' in answered, "an inherited socket is served")
check(child.stdout.readline().strip().endswith(f":{port}"), "and its address is told")
child.send_signal(signal.SIGTERM)
check(child.wait(60) == 0, "it ends with 0")

open_to_all, address = start(binary, model, "--host", "0.0.0.0", "--allow-anyone")
check(urllib.request.urlopen(address.replace("0.0.0.0", "127.0.0.1") + "/health", timeout=30).status == 200, "--allow-anyone listens to all")
open_to_all.send_signal(signal.SIGTERM)
open_to_all.wait(60)
for path in (certificate, private, keys):
    os.unlink(path)
os.rmdir(folder)
finish()
