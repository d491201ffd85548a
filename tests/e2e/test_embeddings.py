#!/usr/bin/env python3
"""Embeddings by the real clients of OpenAI and Ollama against `bakestone serve`: beside a real model that writes, and alone.
The encoder is the tiny BERT of tests/data with a tokenizer of letters; its vectors are held against `bakestone embed`.

    python test_embeddings.py BAKESTONE [MODEL]
"""
import concurrent.futures
import json
import os
import shutil
import signal
import string
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import ollama
import openai

sys.path.insert(0, os.path.dirname(__file__))
from served import check, error_of, finish, start  # noqa: E402

binary = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
work = tempfile.mkdtemp()
encoder = os.path.join(work, "tiny-bert-v1.5")  # a folder's name has no ending
source = os.path.join(os.path.dirname(__file__), "..", "data", "families", "bert")
os.mkdir(encoder)
for name in ("config.json", "model.safetensors"):
    shutil.copy(os.path.join(source, name), encoder)
pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase, *("##" + c for c in string.ascii_lowercase)]
ends = [{"SpecialToken": {"id": t, "type_id": 0}} for t in ("[CLS]", "[SEP]")]
with open(os.path.join(encoder, "tokenizer.json"), "w") as file:
    json.dump({"version": "1.0", "added_tokens": [],
               "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": True, "handle_chinese_chars": True,
                              "strip_accents": None},
               "pre_tokenizer": {"type": "BertPreTokenizer"},
               "post_processor": {"type": "TemplateProcessing", "single": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]]},
               "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                         "max_input_chars_per_word": 100, "vocab": {t: i for i, t in enumerate(pieces)}}}, file)

texts = ["the tide is high", "a", "harbour " * 15, "Où est-ce ?"]
printed = subprocess.run([binary, "embed", encoder], input="\n".join(texts) + "\n", capture_output=True, text=True, check=True)
expected = [json.loads(line)["embedding"] for line in printed.stdout.splitlines()]
check(len(expected) == 4 and all(len(v) == 32 for v in expected), "the verb prints a vector each")


def bits(vectors):
    return [struct.pack(f"<{len(v)}f", *v) for v in vectors]


key = "secret-key-0123456789"
key_file = os.path.join(work, "keys")
with open(key_file, "w") as file:
    file.write(f"{key} name=all alias=text-embedding-3-small=tiny-bert-v1.5\nother-key-0123456789 models=smollm2-135m-instruct\n")
process, url = start(binary, model, "--embeddings", encoder, "--embeddings", f"named={encoder}", "--api-key-file", key_file)
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=120)
listed = [m.id for m in client.models.list().data]
check(listed[1:] == ["tiny-bert-v1.5", "named"], f"models that embed are listed: {listed}")

# The client asks for base64 where it is told nothing; both forms have the bits of the verb.
asked = client.embeddings.create(model="tiny-bert-v1.5", input=texts)
check(bits(e.embedding for e in asked.data) == bits(expected), "the client's own form has the bits of the verb")
check([e.index for e in asked.data] == [0, 1, 2, 3] and asked.object == "list" and asked.model == "tiny-bert-v1.5", "the form is OpenAI's")
check(asked.usage.prompt_tokens == asked.usage.total_tokens > 100, f"tokens are counted: {asked.usage}")
numbers = client.embeddings.create(model="named", input=texts, encoding_format="float")
check([e.embedding for e in numbers.data] == [list(e.embedding) for e in asked.data], "numbers are those of base64")
raw = client.embeddings.create(model="named", input=texts, encoding_format="base64")
check(all(isinstance(e.embedding, str) for e in raw.data), "base64 stays where it is asked for")
check(client.embeddings.create(model="text-embedding-3-small", input="a", user="u", dimensions=32).data[0].embedding == asked.data[1].embedding,
      "one text, by a key's alias")
ids = json.loads(urllib.request.urlopen(urllib.request.Request(
    url + "/tokenize", json.dumps({"model": "named", "prompt": texts[0]}).encode(),
    {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})).read())["tokens"]
check(client.embeddings.create(model="named", input=ids).data[0].embedding == asked.data[0].embedding, "token ids")
check([e.embedding for e in client.embeddings.create(model="named", input=[ids, ids]).data] == [asked.data[0].embedding] * 2, "lists of token ids")

# The same bits beside others and beside a chat.
with concurrent.futures.ThreadPoolExecutor(9) as pool:
    chat = pool.submit(lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Tell me about the sea."}],
                                                              max_tokens=40))
    answers = list(pool.map(lambda i: client.embeddings.create(model="named", input=texts[i % 4:] + texts[:i % 4]).data, range(32)))
    check(chat.result().choices[0].message.content, "a chat goes on meanwhile")
check(all(bits(e.embedding for e in answer) == bits(expected[i % 4:] + expected[:i % 4]) for i, answer in enumerate(answers)),
      "vectors do not depend on their neighbours")

# Errors are what the client's own classes expect.
error = error_of(lambda: client.embeddings.create(model="named", input="a " * 500), openai.BadRequestError)
check(error is not None and error.code == "context_length_exceeded" and "128" in error.message and "502" in error.message and error.param == "input",
      f"too long: 400 with both numbers: {error}")
for wrong in ("", [], [""], [56], [-1], ["a"] * 2049):
    error = error_of(lambda: client.embeddings.create(model="named", input=wrong), openai.BadRequestError)
    check(error is not None and error.param == "input", f"input that cannot be: {str(wrong)[:40]}: {error}")
error = error_of(lambda: client.embeddings.create(model="named", input="a", dimensions=8), openai.BadRequestError)
check(error is not None and error.param == "dimensions", "dimensions that would be cut: 400 by name")
error = error_of(lambda: client.embeddings.create(model=model, input="a"), openai.BadRequestError)
check(error is not None and error.code == "unsupported_operation", "a model that writes does not embed")
error = error_of(lambda: client.chat.completions.create(model="named", messages=[{"role": "user", "content": "a"}]), openai.BadRequestError)
check(error is not None and error.code == "unsupported_operation", "a model that embeds does not chat")
other = openai.OpenAI(base_url=url + "/v1", api_key="other-key-0123456789", max_retries=0, timeout=120)
check(error_of(lambda: other.embeddings.create(model="named", input="a"), openai.NotFoundError), "a key asks only for its models")
wrong = openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0, timeout=120)
check(error_of(lambda: wrong.embeddings.create(model="named", input="a"), openai.AuthenticationError), "a wrong key is 401")

# A client that leaves: its texts are not computed to the end, and the server goes on.
impatient = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=0.2)
check(error_of(lambda: impatient.embeddings.create(model="named", input=["word " * 30] * 2000), openai.APITimeoutError), "a client leaves")
deadline = time.time() + 60
while time.time() < deadline:
    metrics = urllib.request.urlopen(urllib.request.Request(url + "/metrics", headers={"X-Api-Key": key})).read().decode()
    if 'bakestone_requests_total{route="/v1/embeddings",status="499"} 1' in metrics:
        break
    time.sleep(0.05)
check('route="/v1/embeddings",status="499"} 1' in metrics, "who left is counted")
check('bakestone_tokens_total{model="named",key="all",kind="prompt"}' in metrics, "tokens are counted by model and key")
check(client.embeddings.create(model="named", input="a").data[0].embedding == asked.data[1].embedding, "and the next is answered")

# Ollama's client.
llama = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
embedded = llama.embed(model="named:latest", input=texts)
check(bits(embedded.embeddings) == bits(expected), "Ollama's embed has the bits of the verb")
check(embedded.prompt_eval_count == asked.usage.prompt_tokens and embedded.total_duration > 0 and embedded.model == "named:latest", "and its counts")
check(llama.embed(model="named", input="a " * 500).prompt_eval_count == 128, "a long text is truncated")
error = error_of(lambda: llama.embed(model="named", input="a " * 500, truncate=False), ollama.ResponseError)
check(error is not None and error.status_code == 400 and "128" in error.error and "502" in error.error, "unless told otherwise: 400 with both numbers")
check(bits([llama.embeddings(model="named", prompt=texts[0]).embedding]) == bits(expected[:1]), "the older form")
check(llama.show("named").capabilities == ["embedding"], "it is shown as what it is")

process.send_signal(signal.SIGTERM)
check(process.wait(60) == 0, "SIGTERM ends the server with 0")

# Alone.
process, url = start(binary, encoder)
alone = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)
check([m.id for m in alone.models.list().data] == ["tiny-bert-v1.5"], "an encoder is served alone")
check(bits(e.embedding for e in alone.embeddings.create(model="tiny-bert-v1.5", input=texts).data) == bits(expected), "with the same vectors")
error = error_of(lambda: alone.chat.completions.create(model="tiny-bert-v1.5", messages=[{"role": "user", "content": "a"}]), openai.BadRequestError)
check(error is not None and "does not write" in error.message, "and does not chat")
check(urllib.request.urlopen(url + "/ready").status == 200, "it is ready")
process.send_signal(signal.SIGTERM)
check(process.wait(60) == 0, "SIGTERM ends it with 0")

# Any model embeds where it is told to.
process, url = start(binary, encoder, "--embeddings", f"writer={model}")
both = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)
printed = subprocess.run([binary, "embed", model, texts[0]], capture_output=True, text=True, check=True)
check(bits(e.embedding for e in both.embeddings.create(model="writer", input=texts[0]).data) == bits([json.loads(printed.stdout)["embedding"]]),
      "a model that writes, by its last token")
process.send_signal(signal.SIGTERM)
check(process.wait(60) == 0, "SIGTERM ends it with 0")
refused = subprocess.run([binary, "serve", encoder, "--adapter", f"x={encoder}", "--port", "0"], capture_output=True, text=True, timeout=120)
check(refused.returncode == 2 and "that writes" in refused.stderr, f"adapters need a model that writes: {refused.stderr}")

shutil.rmtree(work)
finish()
