#!/usr/bin/env python3
"""The real OpenAI client against `bakestone serve` on a real model.

    python test_openai_client.py BAKESTONE [MODEL]

MODEL: a GGUF file or a stored name; default smollm2-135m-instruct. Every check prints one line when it
fails; the last line says how many passed.
"""
import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import typing
import urllib.error
import urllib.request

import openai
import pydantic

sys.path.insert(0, os.path.dirname(__file__))
import served  # noqa: E402
from served import check, finish  # noqa: E402

binary = sys.argv[1]
model_argument = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"


def start(*flags):
    return served.start(binary, model_argument, *flags)


def error_of(call):
    return served.error_of(call, openai.APIError)


process, url = start("--max-queue", "4", "--max-running", "4")
client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)
model = client.models.list().data[0].id
question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]

# One answer, whole and streamed, is the same answer.
whole = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=20)
text = whole.choices[0].message.content
check("Paris" in text, f"the capital of France: {text!r}")
check(whole.choices[0].finish_reason == "stop", "a short answer ends by itself")
check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, "usage adds up")
check(whole.choices[0].message.role == "assistant", "the role is assistant")

chunks = list(client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=20,
                                             stream=True, stream_options={"include_usage": True}))
check(chunks[0].choices[0].delta.role == "assistant", "the first chunk has the role")
streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
check(streamed == text, f"streamed {streamed!r} equals whole {text!r}")
check(chunks[-1].choices == [] and chunks[-1].usage == whole.usage.model_copy(update={
    "prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}), "the last chunk has the usage")
check(chunks[-1].usage.prompt_tokens_details.cached_tokens > 0, "the second time the prompt's prefix is cached")
check(chunks[-2].choices[0].finish_reason == "stop", "the finish reason comes last")
check(len({c.id for c in chunks}) == 1, "one id a stream")

# The client's own stream helper accumulates what we send.
with client.chat.completions.stream(model=model, messages=question, temperature=0, max_tokens=20) as stream:
    check(stream.get_final_completion().choices[0].message.content == text, "the stream helper sees the same")

# The same question beside seven others has the same answer.
others = [[{"role": "user", "content": f"Tell me about the number {i}."}] for i in range(7)]
process_b, url_b = start("--max-running", "8")
client_b = openai.OpenAI(base_url=url_b + "/v1", api_key="none", max_retries=0, timeout=120)


def ask(messages):
    return client_b.chat.completions.create(model=model, messages=messages, temperature=0,
                                            max_tokens=20).choices[0].message.content


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    check(list(pool.map(ask, [question] + others))[0] == text, "the answer does not depend on its neighbours")
process_b.send_signal(signal.SIGTERM)
check(process_b.wait(60) == 0, "SIGTERM ends an idle server with 0")

# Choices, seeds, stop strings, logprobs.
poem = dict(model=model, messages=[{"role": "user", "content": "Write a line about the sea."}], max_tokens=12)
a, b = [client.chat.completions.create(n=3, seed=7, temperature=1, **poem) for _ in range(2)]
check([c.message.content for c in a.choices] == [c.message.content for c in b.choices], "a seed repeats")
check(len({c.message.content for c in a.choices}) > 1, "choices differ")
check([c.index for c in a.choices] == [0, 1, 2], "choices are numbered")
check(a.system_fingerprint and a.system_fingerprint == whole.system_fingerprint, "the fingerprint is the model's")
counting = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Count from 1 to 9."}],
                                          temperature=0, max_tokens=40, stop=["4"])
check("4" not in counting.choices[0].message.content, "a stop string never appears")
logged = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=3, logprobs=True,
                                        top_logprobs=5)
content = logged.choices[0].logprobs.content
check(len(content) >= 1 and all(len(t.top_logprobs) == 5 for t in content), "logprobs have five alternatives")
check(all(t.logprob == max(x.logprob for x in t.top_logprobs) for t in content), "greedy takes the likeliest")

# Completions as evaluation harnesses ask for them.
scored = client.completions.create(model=model, prompt=["The sky is blue", "Two and two is four"], echo=True,
                                   logprobs=1, max_tokens=1, temperature=0)
for choice in scored.choices:
    n = len(choice.logprobs.tokens)
    check(choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None, "first is null")
    check(n == len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs), "lists are of one length")
    for token, logprob, top in list(zip(choice.logprobs.tokens, choice.logprobs.token_logprobs,
                                        choice.logprobs.top_logprobs))[1:]:
        check(top[token] == logprob and logprob <= max(top.values()), f"{token!r} is among its alternatives")

# A call that is required is made.
tide = {"type": "function", "function": {"name": "get_tide", "description": "Tells the height of the tide in a harbour.", "parameters": {
    "type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]}}}
for choice in ("required", {"type": "function", "function": {"name": "get_tide"}}):
    called = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "How high is the tide in Dover?"}], temperature=0,
                                            max_tokens=60, tools=[tide], tool_choice=choice).choices[0]
    check(called.message.tool_calls and called.message.tool_calls[0].function.name == "get_tide", f"a call is required: {called!r}")


# Its arguments are of the function's schema, whichever function it is.
class Passage(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    harbour: typing.Literal["Dover", "Calais", "Ostend"]
    hours: int = pydantic.Field(ge=0, le=48)
    legs: list[typing.Annotated[str, pydantic.Field(max_length=20)]] = pydantic.Field(max_length=2)


class Weather(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    unit: typing.Literal["knots", "m/s"]


def satisfies(name, arguments):
    try:
        functions[name].model_validate_json(arguments)
        return True
    except pydantic.ValidationError:
        return False


functions = {"plan_passage": Passage, "get_weather": Weather}
tools = [{"type": "function", "function": {"name": name, "description": name, "parameters": schema.model_json_schema()}} for name, schema in functions.items()]
asked = {"model": model, "messages": [{"role": "user", "content": "How do I sail from Dover to Calais?"}], "max_tokens": 200, "tools": tools, "n": 2, "seed": 5,
         "parallel_tool_calls": False}
for choice in ("required", {"type": "function", "function": {"name": "plan_passage"}}):
    for choice_of_call in client.chat.completions.create(**asked, tool_choice=choice).choices:
        calls = choice_of_call.message.tool_calls
        check(choice_of_call.finish_reason == "tool_calls" and len(calls) == 1 and choice_of_call.message.content is None, f"one call: {choice_of_call!r}")
        check(satisfies(calls[0].function.name, calls[0].function.arguments), f"its arguments are of the schema: {calls!r}")
strict = [openai.pydantic_function_tool(schema, name=name) for name, schema in functions.items()]  # strict is true in these
with client.chat.completions.stream(**{**asked, "n": 1, "tools": strict}, tool_choice="required") as stream:
    call = stream.get_final_completion().choices[0].message.tool_calls[0].function
check(satisfies(call.name, call.arguments) and isinstance(call.parsed_arguments, functions[call.name]), f"a streamed call is of the schema: {call!r}")
check(client.chat.completions.create(**{**asked, "tools": strict, "n": 1}).choices[0].finish_reason in ("stop", "tool_calls", "length"), "strict functions are taken")
called = client.responses.create(model=model, input="How do I sail from Dover to Calais?", max_output_tokens=200, temperature=0, tool_choice="required", parallel_tool_calls=False,
                                 tools=[{"type": "function", "name": "plan_passage", "parameters": Passage.model_json_schema(), "strict": True}]).output[0]
check(satisfies(called.name, called.arguments), f"a response's call is of the schema: {called!r}")
unheld = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}}}
error = error_of(lambda: client.chat.completions.create(**{**asked, "tools": [unheld]}, tool_choice="required"))
check(isinstance(error, openai.BadRequestError) and error.param == "tools[0].function.parameters" and "uniqueItems" in error.message, f"refused with its place: {error!r}")

# Errors are what the client's own classes expect.
error = error_of(lambda: client.chat.completions.create(model="nobody", messages=question))
check(isinstance(error, openai.NotFoundError) and error.code == "model_not_found", "unknown model: 404")
error = error_of(lambda: client.chat.completions.create(model=model, messages=question, temperature=9))
check(isinstance(error, openai.BadRequestError) and error.param == "temperature", "out of range: 400 with its name")
error = error_of(lambda: client.chat.completions.create(model=model, messages=question, max_tokens=10_000_000))
check(isinstance(error, openai.BadRequestError) and error.code == "context_length_exceeded", "too long: 400")

# Answers of a given form, as classes of the client's.
class Tide(pydantic.BaseModel):
    harbour: typing.Literal["north", "south"]
    metres: int = pydantic.Field(ge=0, le=20)
    rising: bool


parsed = client.chat.completions.parse(model=model, messages=question, response_format=Tide, max_tokens=100, n=2, seed=5)
check(all(isinstance(choice.message.parsed, Tide) for choice in parsed.choices), f"chat answers in a form: {parsed!r}")
parsed = client.responses.parse(model=model, input="How high is the tide?", text_format=Tide, max_output_tokens=100, temperature=0)
check(isinstance(parsed.output_parsed, Tide), f"responses answer in a form: {parsed!r}")
unsupported = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
error = error_of(lambda: client.chat.completions.create(model=model, messages=question, response_format=unsupported))
check(isinstance(error, openai.BadRequestError) and error.param == "response_format" and "uniqueItems" in error.message,
      "a schema that cannot be honoured: 400 by keyword")

# A client that leaves frees its place; a full queue is 429 with Retry-After.
# Long enough to run on while a busy machine brings the others.
slow = dict(model=model, messages=question, max_tokens=5000, temperature=1, stream=True,
            extra_body={"ignore_eos": True})
streams = [client.chat.completions.create(**slow) for _ in range(4)]
for stream in streams:  # the first chunk, with the role, comes before there is a place for it
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
waiting = [threading.Thread(target=lambda: error_of(lambda: client.chat.completions.create(
    model=model, messages=question, max_tokens=1)), daemon=True) for _ in range(4)]
for thread in waiting:
    thread.start()


def health():
    try:
        return urllib.request.urlopen(url + "/health", timeout=30).read().decode()
    except urllib.error.HTTPError as response:
        return response.read().decode()


deadline = time.time() + 60
while '"waiting":4' not in health() and time.time() < deadline:
    time.sleep(0.02)
error = error_of(lambda: client.chat.completions.create(model=model, messages=question, max_tokens=1))
check(isinstance(error, openai.RateLimitError), f"a full queue is 429, not {error!r}")
check(error is not None and int(error.response.headers["retry-after"]) >= 1, "429 says when to come back")
for stream in streams:
    stream.close()
for thread in waiting:
    thread.join(60)
check(not any(thread.is_alive() for thread in waiting), "those that waited were answered")
deadline = time.time() + 60
while '"running":0' not in health() and time.time() < deadline:
    time.sleep(0.05)
check('"running":0' in health(), "streams that were left do not run on")

# SIGTERM lets an admitted stream finish.
last = client.chat.completions.create(**{**slow, "max_tokens": 60})
parts = [next(chunk for chunk in last if chunk.choices[0].delta.content)]
process.send_signal(signal.SIGTERM)
parts += list(last)
check(parts[-1].choices[0].finish_reason == "length", "an admitted stream finishes after SIGTERM")
check(process.wait(60) == 0, "the server ends with 0")
host, port = url.split("//")[1].split(":")
with socket.socket() as probe:
    check(probe.connect_ex((host, int(port))) != 0, "the port is free again")

# Keys.
key_file = f"/tmp/bakestone-key-{os.getpid()}"
with open(key_file, "w") as file:
    file.write("# the team's\nsecret-key-0123456789\n")
process, url = start("--api-key-file", key_file)
os.unlink(key_file)
error = error_of(lambda: openai.OpenAI(base_url=url + "/v1", api_key="wrong", max_retries=0).models.list())
check(isinstance(error, openai.AuthenticationError), "a wrong key is 401")
keyed = openai.OpenAI(base_url=url + "/v1", api_key="secret-key-0123456789", max_retries=0)
check(len(keyed.models.list().data) == 1, "the right key works")
process.send_signal(signal.SIGINT)
check(process.wait(60) == 0, "Ctrl-C ends the server with 0")

refused = subprocess.run([binary, "serve", model_argument, "--host", "0.0.0.0", "--port", "0"],
                         capture_output=True, text=True, timeout=120)
check(refused.returncode == 1 and "--api-key-file" in refused.stderr, "no bind beyond loopback without a key")

finish()
