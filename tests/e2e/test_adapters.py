#!/usr/bin/env python3
"""Adapters that come, change and go while a server runs, by its folder and by its admin API; and a server whose flags
are in a file.

    python test_adapters.py BAKESTONE [MODEL]
"""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import httpx

sys.path.insert(0, os.path.dirname(__file__))
from served import check, finish, start  # noqa: E402

binary = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
folder = tempfile.mkdtemp(prefix="bakestone-adapters-")
adapters = os.path.join(folder, "adapters")
os.mkdir(adapters)
HIDDEN, FFN = 576, 1536


def write_adapter(name, seed, inner=FFN):
    """A PEFT folder: rank 2 on the first layer's down_proj."""
    draw = random.Random(seed)
    tensors, data = {}, b""
    for letter, shape in (("A", [2, inner]), ("B", [HIDDEN, 2])):
        values = [draw.gauss(0, 0.3) for _ in range(shape[0] * shape[1])]
        tensors[f"base_model.model.model.layers.0.mlp.down_proj.lora_{letter}.weight"] = {
            "dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += struct.pack(f"<{len(values)}f", *values)
    header = json.dumps(tensors).encode()
    path = os.path.join(adapters, name)
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    with open(os.path.join(path, "adapter_model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data)
    with open(os.path.join(path, "adapter_config.json"), "w") as file:
        json.dump({"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["down_proj"], "base_model_name_or_path": ""}, file)


write_adapter("one", 1)
admin, user = "admin-secret-0123456789", "user-secret-0123456789"
with open(os.path.join(folder, "keys"), "w") as file:
    file.write(f"{admin} name=admin admin\n{user} name=user alias=gpt-4o=one,gpt-4=two\n")
config = os.path.join(folder, "serve.toml")
with open(config, "w") as file:
    file.write(f'model = ["{model}"]\nport = 1\nadapter-folder = "{adapters}"\napi-key-file = "{folder}/keys"\nlog-requests = true\nkv-memory = 64\n')

wrong = os.path.join(folder, "wrong.toml")
for text, expected in (("prot = 1\n", "did you mean 'port'?"), ("port = true\n", "'port': expected"), ("port = 99999\n", "--port"), ("port = \n", "line 1"),
                       ("log-requests = 3\n", "'log-requests': expected")):
    with open(wrong, "w") as file:
        file.write(text)
    told = subprocess.run([binary, "serve", model, "--config", wrong], capture_output=True, text=True, timeout=60)
    check(told.returncode in (1, 2) and expected in told.stderr and "wrong.toml" in told.stderr, f"{text!r}: {told.stderr!r}")

process, url = start(binary, f"--config={config}")  # and --port 0, which counts
client = httpx.Client(base_url=url, timeout=60)


def call(method, path, body=None, key=user):
    return client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})


def ask(name, key=user, tokens=12):
    return call("POST", "/v1/chat/completions", {"model": name, "messages": [{"role": "user", "content": "Tell me about tides."}],
                                                  "temperature": 0, "max_tokens": tokens}, key)


def said(name, key=user):
    return ask(name, key).json()["choices"][0]["message"]["content"]


def wait(condition):
    deadline = time.time() + 20
    while not condition() and time.time() < deadline:
        time.sleep(0.1)
    return condition()


base, one = said(model), said("one")
check(base != one, "an adapter of the folder is served")
check(ask("gpt-4o").json()["model"] == "one" and ask("gpt-4o", admin).status_code == 404, "a key has names of its own")
write_adapter("two", 2)
check(wait(lambda: ask("two").status_code == 200), "one that comes into the folder is served")
two = said("two")
write_adapter("one", 2)
check(wait(lambda: said("one") == two), "one that changes is replaced")
write_adapter("one", 3, inner=HIDDEN)
check(wait(lambda: any("not served in its new form" in line for line in process.log)), "one of another base is not served")
check(said("one") == two, "and the old one stays")
shutil.rmtree(os.path.join(adapters, "two"))
check(wait(lambda: ask("two").status_code == 404), "one that goes is no longer served")

write_adapter("three", 1)
check(call("PUT", "/admin/adapters/tides", {"file": "three"}).status_code == 403, "only an admin's key may load")
check(call("PUT", "/admin/adapters/tides", {"file": "three"}, admin).status_code == 200, "an admin's may")
check(said("tides") == one and said("tides", admin) == one, "and it answers as itself")
check(call("PUT", "/admin/adapters/tides", {"file": "../keys"}, admin).status_code == 400, "no path leads out of the folder")
check(any(item["id"] == "tides" for item in call("GET", "/admin/adapters", key=admin).json()["data"]), "it is listed")
check(call("DELETE", "/admin/adapters/tides", key=admin).status_code == 200 and ask("tides").status_code == 404, "it is unloaded")
check("bakestone_adapters " in call("GET", "/metrics").text, "metrics tell of adapters")

process.send_signal(signal.SIGTERM)
check(process.wait(60) == 0, "the server ends with 0")
lines = [json.loads(line) for line in process.log if line.startswith("{")]
check(len([line for line in lines if line["status"] == 403]) == 1, "every answer is in the log before it ends")
shutil.rmtree(folder)
finish()
