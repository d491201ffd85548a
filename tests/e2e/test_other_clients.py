#!/usr/bin/env python3
"""Real clients of the APIs beside chat completions against `bakestone serve` on a real model: OpenAI's
responses, Anthropic's messages, Ollama's chat.

    python test_other_clients.py BAKESTONE [MODEL]
"""
import json
import os
import signal
import sys

import anthropic
import ollama
import openai

sys.path.insert(0, os.path.dirname(__file__))
from served import check, error_of, finish, start  # noqa: E402

binary = sys.argv[1]
model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
key_file = f"/tmp/bakestone-clients-key-{os.getpid()}"
key = "secret-key-0123456789"
with open(key_file, "w") as file:
    file.write(key + "\n")
process, url = start(binary, model, "--api-key-file", key_file)
os.unlink(key_file)
question = "What is the capital of France? Answer in one word."
tool = {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]}

# OpenAI's responses.
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=120)
model = client.models.list().data[0].id
whole = client.responses.create(model=model, input=question, temperature=0, max_output_tokens=20)
check("Paris" in whole.output_text and whole.status == "completed", f"a response: {whole.output_text!r}")
check(whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens, "usage adds up")
events = list(client.responses.create(model=model, input=question, temperature=0, max_output_tokens=20, stream=True))
kinds = [event.type for event in events]
check(kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"],
      f"a stream begins with {kinds[:4]}")
check(kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"],
      f"a stream ends with {kinds[-4:]}")
check([event.sequence_number for event in events] == list(range(len(events))), "events are numbered")
check("".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text, "streamed equals whole")
check(events[-1].response.output_text == whole.output_text, "the last event has the whole answer")
with client.responses.stream(model=model, input=question, temperature=0, max_output_tokens=20) as stream:
    check(stream.get_final_response().output_text == whole.output_text, "the stream helper sees the same")
again = client.responses.create(model=model, input="And of Italy? One word.", previous_response_id=whole.id, temperature=0,
                                max_output_tokens=20)
check(again.previous_response_id == whole.id and again.usage.input_tokens > whole.usage.input_tokens + 10, "an id is gone on from")
check(client.responses.retrieve(whole.id).output_text == whole.output_text, "a response is shown again")
client.responses.delete(whole.id)
check(error_of(lambda: client.responses.retrieve(whole.id), openai.NotFoundError), "a deleted response is gone")
error = error_of(lambda: client.responses.create(model=model, input="x", previous_response_id=whole.id), openai.BadRequestError)
check(error is not None and error.param == "previous_response_id", "an unknown id is a 400 by name")
called = client.responses.create(model=model, input=question, temperature=0, max_output_tokens=20, instructions="Be brief.",
                                 tools=[{"type": "function", "name": "get_tide", "parameters": tool, "strict": False}, {"type": "web_search"}],
                                 reasoning={"effort": "low"}, include=["reasoning.encrypted_content"], store=False)
check(len(called.tools) == 1 and called.output, "tools are taken, hosted ones left out")
error = error_of(lambda: client.embeddings.create(model=model, input="x"), openai.BadRequestError)
check(error is not None and "embeddings" in error.message, "embeddings are refused in words")

# Anthropic's messages.
claude = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=120)
ask = dict(model=model, max_tokens=20, extra_body={"temperature": 0}, messages=[{"role": "user", "content": question}])
message = claude.messages.create(**ask)
check(message.content[0].text == whole.output_text, f"the same words by every API: {message.content!r}")
check(message.stop_reason == "end_turn" and message.role == "assistant", "a short answer ends its turn")
with claude.messages.stream(**ask) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
check(text == message.content[0].text and final.content[0].text == text, "streamed equals whole")
check(final.stop_reason == "end_turn" and final.usage.output_tokens == message.usage.output_tokens, "the end has reason and usage")
check(final.usage.cache_read_input_tokens > 0, "the second time the prompt's prefix is cached")
counted = claude.messages.count_tokens(model=model, messages=ask["messages"])
check(counted.input_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens, "tokens are counted")
tooled = claude.messages.create(**{**ask, "max_tokens": 100_000}, system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                                tools=[{"name": "get_tide", "description": "Tells the tide.", "input_schema": tool}],
                                thinking={"type": "enabled", "budget_tokens": 1024}, metadata={"user_id": "x"})
check(tooled.content, "tools, thinking and caching are taken")
height = {"type": "object", "properties": {"harbour": {"enum": ["Dover", "Calais"]}, "hours": {"type": "integer", "minimum": 0, "maximum": 48}},
          "required": ["harbour", "hours"], "additionalProperties": False}
with claude.messages.stream(**{**ask, "max_tokens": 200}, tools=[{"name": "get_tide", "input_schema": height}],
                            tool_choice={"type": "any", "disable_parallel_tool_use": True}) as stream:
    called = stream.get_final_message()
check(called.stop_reason == "tool_use" and len(called.content) == 1 and called.content[0].name == "get_tide", f"a call is required: {called!r}")
check(called.content[0].input["harbour"] in ("Dover", "Calais") and 0 <= called.content[0].input["hours"] <= 48, f"its input is of the schema: {called!r}")
error = error_of(lambda: claude.messages.create(**ask, tools=[{"name": "f", "input_schema": {"type": "object", "minProperties": 2}}], tool_choice={"type": "any"}),
                 anthropic.BadRequestError)
check(error is not None and "tools[0].input_schema" in str(error) and "minProperties" in str(error), f"a schema is refused with its place: {error!r}")
error = error_of(lambda: claude.messages.create(**{**ask, "model": "nobody"}), anthropic.NotFoundError)
check(error is not None and error.body["error"]["type"] == "not_found_error", "unknown model: 404 in Anthropic's form")
error = error_of(lambda: claude.messages.create(**{**ask, "extra_body": {"temperature": 9}}), anthropic.BadRequestError)
check(error is not None and "temperature" in str(error), "out of range: 400 with its name")
wrong = anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0)
check(error_of(lambda: wrong.messages.create(**ask), anthropic.AuthenticationError), "a wrong key is 401")

# Ollama's chat.
llama = ollama.Client(host=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
options = {"temperature": 0, "num_predict": 20}
turn = [{"role": "user", "content": question}]
reply = llama.chat(model=model, messages=turn, options=options)
check(reply.message.content == whole.output_text and reply.done_reason == "stop", f"the same words: {reply.message.content!r}")
parts = list(llama.chat(model=model, messages=turn, options=options, stream=True))
check("".join(p.message.content for p in parts) == reply.message.content, "streamed equals whole")
check(parts[-1].done and parts[-1].eval_count == reply.eval_count, "the last line has the counts")
check(llama.generate(model=model + ":latest", prompt=question, options=options).response == reply.message.content, "generate says the same")
check(llama.chat(model=model, messages=turn, options=options, think=False, keep_alive="5m", tools=[
    {"type": "function", "function": {"name": "get_tide", "description": "Tells the tide.", "parameters": tool}}]).done, "tools are taken")
listed = llama.list().models
check(len(listed) == 1 and listed[0].model == model and listed[0].size > 0, "models are listed")
shown = llama.show(model)
check("completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "llama", "a model is shown")
check(llama.ps().models[0].context_length > 0, "what runs is listed")
check(error_of(lambda: llama.chat(model="nobody", messages=turn), ollama.ResponseError).status_code == 404, "unknown model: 404")
formed = llama.chat(model=model, messages=turn, options=options, format={
    "type": "object", "properties": {"high": {"type": "boolean"}}, "required": ["high"], "additionalProperties": False})
check(isinstance(json.loads(formed.message.content)["high"], bool), f"an answer in a form: {formed.message.content!r}")
error = error_of(lambda: llama.chat(model=model, messages=turn, format={"type": "array", "uniqueItems": True}), ollama.ResponseError)
check(error is not None and error.status_code == 400 and "uniqueItems" in error.error, "unsupported: 400 by keyword")

process.send_signal(signal.SIGTERM)
check(process.wait(60) == 0, "SIGTERM ends the server with 0")
finish()
