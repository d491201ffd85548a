"""LangChain's and LiteLLM's clients against a running server: python clients.py URL KEY MODEL EMBEDDER."""
import os
import sys

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False", LANGSMITH_TRACING="false")
import litellm  # noqa: E402
from langchain_core.messages import HumanMessage  # noqa: E402
from langchain_openai import ChatOpenAI, OpenAIEmbeddings  # noqa: E402

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "e2e"))
from served import check, error_of, finish  # noqa: E402

url, key, model, embedder = sys.argv[1:]
question = "What is the capital of France? Answer in one word."
tool = {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]}
function = {"type": "function", "function": {"name": "get_tide", "description": "Tells the tide.", "parameters": tool}}

words = {}
for responses in (False, True):
    name = "langchain, responses" if responses else "langchain"
    chat = ChatOpenAI(model=model, base_url=url + "/v1", api_key=key, temperature=0, max_tokens=20, max_retries=0, stream_usage=True,
                      use_responses_api=responses)
    whole = chat.invoke([HumanMessage(question)])
    text = words[name] = whole.text if isinstance(whole.text, str) else whole.text()
    check("Paris" in text, f"{name}: {text!r}")
    check(whole.usage_metadata["output_tokens"] > 0, f"{name}: usage")
    parts = list(chat.stream([HumanMessage(question)]))
    total = parts[0]
    for part in parts[1:]:
        total += part
    streamed = total.text if isinstance(total.text, str) else total.text()
    check(streamed == text, f"{name}: streamed {streamed!r}")
    check(total.usage_metadata and total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"], f"{name}: usage of a stream")
    called = chat.bind_tools([function], tool_choice="get_tide").invoke([HumanMessage(question)], max_tokens=60)
    check(called.tool_calls and called.tool_calls[0]["name"] == "get_tide" or called.invalid_tool_calls, f"{name}: a named tool: {called!r}")
check(len(set(words.values())) == 1, f"the same words either way: {words}")

for provider, base in (("openai/", url + "/v1"), ("ollama_chat/", url), ("anthropic/", url)):
    ask = dict(model=provider + model, api_base=base, api_key=key, messages=[{"role": "user", "content": question}], temperature=0,
               max_tokens=20, num_retries=0)
    if provider == "ollama_chat/":
        ask["extra_headers"] = {"Authorization": f"Bearer {key}"}
    whole = litellm.completion(**ask)
    check("Paris" in whole.choices[0].message.content and whole.usage.completion_tokens > 0, f"litellm {provider}: {whole!r}")
    streamed = "".join(part.choices[0].delta.content or "" for part in litellm.completion(**ask, stream=True))
    check(streamed == whole.choices[0].message.content, f"litellm {provider}: streamed {streamed!r}")
error = error_of(lambda: litellm.completion(model="openai/nobody", api_base=url + "/v1", api_key=key, num_retries=0,
                                            messages=[{"role": "user", "content": "x"}]), litellm.NotFoundError)
check(error is not None, "litellm: an unknown model is not found")

# LangChain sends ids of OpenAI's tokenizer unless it is told to send the text.
texts = ["the tide is high", "Où est-ce ?"]
langchain = OpenAIEmbeddings(model=embedder, base_url=url + "/v1", api_key=key, check_embedding_ctx_length=False, max_retries=0)
vectors = langchain.embed_documents(texts)
check(len(vectors) == 2 and abs(sum(x * x for x in vectors[0]) - 1) < 1e-5, "langchain: a vector each")
check(langchain.embed_query(texts[1]) == vectors[1], "langchain: a query's is a document's")
embedded = litellm.embedding(model="openai/" + embedder, api_base=url + "/v1", api_key=key, input=texts)
check([e["embedding"] for e in embedded.data] == vectors, "litellm: the same vectors")
finish()
