#include "server/openapi.h"

#include <map>
#include <string>

#include "server/api/api_error.h"

namespace bakestone {
namespace {

using api::Json;

// Fields of a body by type: "name!" is required, "name:t" has the type t: s string, i integer, n
// number, b boolean, a array, o object, x anything.
constexpr const char* kSampling =
    "temperature:n top_p:n top_k:i min_p:n repetition_penalty:n presence_penalty:n "
    "frequency_penalty:n logit_bias:o seed:i stop:x n:i "
    "ignore_eos:b min_tokens:i stream:b stream_options:o prediction:o speculate:b user:s "
    "metadata:o store:b service_tier:s "
    "safety_identifier:s prompt_cache_key:s prompt_cache_retention:s ";
constexpr const char* kChat =
    "model!:s messages!:a tools:a tool_choice:x parallel_tool_calls:b functions:a function_call:x "
    "logprobs:b top_logprobs:i max_tokens:i "
    "max_completion_tokens:i chat_template_kwargs:o reasoning_effort:s continue_final_message:b "
    "add_generation_prompt:b "
    "modalities:a verbosity:s audio:o web_search_options:o ";
constexpr const char* kForm =
    "response_format:o structured_outputs:o guided_json:x guided_regex:s guided_choice:a "
    "guided_grammar:s ";
constexpr const char* kCompletion =
    "model!:s prompt!:x echo:b logprobs:i max_tokens:i best_of:i suffix:s ";
constexpr const char* kEmbeddings = "model!:s input!:x encoding_format:s dimensions:i user:s ";
constexpr const char* kResponse =
    "model!:s input!:x instructions:s previous_response_id:s tools:a tool_choice:x "
    "parallel_tool_calls:b max_output_tokens:i include:a "
    "top_logprobs:i reasoning:o text:o background:b conversation:x prompt:o moderation:o "
    "truncation:s context_management:a max_tool_calls:i "
    "access_programs:o background_options:o image:o prompt_cache_options:o client_metadata:o ";
constexpr const char* kMessagePrompt =
    "model!:s messages!:a system:x tools:a tool_choice:o thinking:o output_config:o container:x "
    "mcp_servers:a output_format:o fallbacks:a "
    "cache_control:o context_management:o diagnostics:o inference_geo:s metadata:o service_tier:s "
    "speed:s user_profile_id:s workspace_id:s betas:a ";
constexpr const char* kMessage =
    "max_tokens!:i stop_sequences:a stream:b temperature:n top_p:n top_k:i ";
constexpr const char* kCount =
    "max_tokens:i stop_sequences:a stream:b temperature:n top_p:n top_k:i ";
constexpr const char* kOllama =
    "model!:s options:o format:x think:x logprobs:b top_logprobs:i keep_alive:x truncate:b shift:b "
    "stream:b ";
constexpr const char* kOllamaChat =
    "messages:a tools:a tool_choice:x parallel_tool_calls:b functions:a function_call:x ";
constexpr const char* kOllamaEmbed =
    "model!:s input:x truncate:b dimensions:i options:o keep_alive:x ";
constexpr const char* kOllamaEmbeddings = "model!:s prompt:s options:o keep_alive:x ";
constexpr const char* kOllamaGenerate =
    "prompt:s system:s raw:b suffix:s template:s context:a images:a width:i height:i steps:i ";

struct Operation {
  const char *method, *path, *summary;
  std::string fields = "";
  const char* stream_type = nullptr;  // of a streamed answer
};

const Operation kOperations[] = {
    {"get", "/v1/models", "The models and adapters that are served"},
    {"get", "/v1/models/{id}", "One of them"},
    {"post", "/v1/chat/completions", "OpenAI's chat", std::string(kChat) + kForm + kSampling,
     "text/event-stream"},
    {"post", "/v1/completions", "Continues text or token ids",
     std::string(kCompletion) + kForm + kSampling, "text/event-stream"},
    {"post", "/v1/embeddings", "OpenAI's embeddings", kEmbeddings},
    {"post", "/v1/responses", "OpenAI's responses", std::string(kResponse) + kSampling,
     "text/event-stream"},
    {"get", "/v1/responses/{id}", "An answer that is kept"},
    {"delete", "/v1/responses/{id}", "Forgets it"},
    {"post", "/v1/messages", "Anthropic's messages", std::string(kMessagePrompt) + kMessage,
     "text/event-stream"},
    {"post", "/v1/messages/count_tokens", "How long its prompt is",
     std::string(kMessagePrompt) + kCount},
    {"post", "/api/chat", "Ollama's chat", std::string(kOllama) + kOllamaChat,
     "application/x-ndjson"},
    {"post", "/api/generate", "Ollama's answer to a prompt", std::string(kOllama) + kOllamaGenerate,
     "application/x-ndjson"},
    {"post", "/api/embed", "Ollama's embeddings", kOllamaEmbed},
    {"post", "/api/embeddings", "Ollama's embedding of one text, the older form",
     kOllamaEmbeddings},
    {"get", "/api/tags", "What is served, in Ollama's form"},
    {"get", "/api/ps", "What is loaded, in Ollama's form"},
    {"post", "/api/show", "What a model is and can",
     "model:s name:s verbose:b system:s template:s options:o "},
    {"get", "/api/version", "The version of Ollama's API"},
    {"post", "/tokenize", "Text to token ids", "model:s prompt!:s add_special_tokens:b "},
    {"post", "/detokenize", "Token ids to text", "model:s tokens!:a "},
    {"get", "/admin/adapters", "The adapters that can be loaded, replaced and unloaded"},
    {"put", "/admin/adapters/{id}", "Loads an adapter under this name, or replaces it",
     "file!:s base:s "},
    {"delete", "/admin/adapters/{id}", "Unloads it"},
    {"get", "/tokenizer_info", "Special tokens and the chat template"},
    {"get", "/health", "Whether the engines make progress"},
    {"get", "/ready", "Whether new requests are taken"},
    {"get", "/metrics", "Counters and histograms in Prometheus' text form"},
    {"get", "/openapi.json", "This document"},
};

const char* TypeName(char type) {
  switch (type) {
    case 's':
      return "string";
    case 'i':
      return "integer";
    case 'n':
      return "number";
    case 'b':
      return "boolean";
    case 'a':
      return "array";
    default:
      return "object";
  }
}

// What a type does not say.
const std::map<std::string, const char*> kDescriptions = {
    {"tools",
     "Functions, each with a JSON Schema of its arguments; calls of one with \"strict\": true are "
     "held to it"},
    {"tool_choice",
     "Whether the reply may call, must call (then its calls are held to their schemas), or must "
     "call a function by name"}};

// null means absent, but for a field that must be there.
Json BodySchema(const std::string& fields) {
  Json properties = Json::object(), required = Json::array();
  for (size_t at = 0; at < fields.size();) {
    const size_t end = fields.find(' ', at), colon = fields.find(':', at);
    std::string name = fields.substr(at, colon - at);
    const char type = fields[colon + 1];
    const bool needed = name.ends_with('!');
    if (needed) name.pop_back();
    if (needed) required.push_back(name);
    Json& schema = properties[name] = Json::object();
    if (const auto found = kDescriptions.find(name); found != kDescriptions.end()) {
      schema["description"] = found->second;
    }
    if (type != 'x') {
      schema["type"] = needed ? Json(TypeName(type)) : Json::array({TypeName(type), "null"});
    }
    at = end + 1;
  }
  Json schema = {
      {"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

const char* ErrorName(const std::string& path) {
  switch (api::FamilyOf(path)) {
    case api::Family::kAnthropic:
      return "AnthropicError";
    case api::Family::kOllama:
      return "OllamaError";
    default:
      return "Error";
  }
}

Json ErrorSchemas() {
  const Json text = {{"type", "string"}}, maybe = {{"type", Json::array({"string", "null"})}};
  const auto object = [](Json properties) {
    Json required = Json::array();
    for (const auto& [name, unused] : properties.items()) required.push_back(name);
    return Json{{"type", "object"},
                {"properties", std::move(properties)},
                {"required", std::move(required)}};
  };
  return {
      {"Error",
       object({{"error",
                object({{"message", text}, {"type", text}, {"param", maybe}, {"code", maybe}})}})},
      {"AnthropicError", object({{"type", {{"const", "error"}}},
                                 {"error", object({{"type", text}, {"message", text}})}})},
      {"OllamaError", object({{"error", text}})}};
}

Json OperationJson(const Operation& operation) {
  const std::string path = operation.path;
  const Json anything = {{"schema", {{"type", "object"}}}};
  Json content = {{"application/json", anything}};
  if (path == "/metrics") content = {{"text/plain", {{"schema", {{"type", "string"}}}}}};
  if (operation.stream_type) content[operation.stream_type] = {{"schema", {{"type", "string"}}}};
  const Json error = {
      {"application/json",
       {{"schema", {{"$ref", std::string("#/components/schemas/") + ErrorName(path)}}}}}};
  Json json = {
      {"summary", operation.summary},
      {"responses",
       {{"200", {{"description", "The answer"}, {"content", std::move(content)}}},
        {"4XX", {{"description", "What is wrong with the request, by field"}, {"content", error}}},
        {"5XX", {{"description", "The server cannot answer now"}, {"content", error}}}}}};
  if (!operation.fields.empty()) {
    json["requestBody"] = {
        {"required", true},
        {"content", {{"application/json", {{"schema", BodySchema(operation.fields)}}}}}};
  }
  if (path.ends_with("{id}")) {
    json["parameters"] = Json::array(
        {{{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  }
  if (path == "/health" || path == "/ready") {
    json["security"] = Json::array();
    json["responses"]["503"] = {{"description", "It does not"},
                                {"content", {{"application/json", anything}}}};
  }
  return json;
}

}  // namespace

Json OpenApiDocument() {
  Json document = {
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "Bakestone"},
        {"version", "1"},
        {"description",
         "Clients of OpenAI's, Anthropic's and Ollama's APIs. docs/server.md says which fields are "
         "honoured, refused, without effect."}}},
      {"security",
       Json::array({{{"bearer", Json::array()}}, {{"key", Json::array()}}, Json::object()})},
      {"paths", Json::object()}};
  for (const Operation& operation : kOperations) {
    document["paths"][operation.path][operation.method] = OperationJson(operation);
  }
  document["components"] = {
      {"schemas", ErrorSchemas()},
      {"securitySchemes",
       {{"bearer", {{"type", "http"}, {"scheme", "bearer"}}},
        {"key", {{"type", "apiKey"}, {"in", "header"}, {"name", "X-Api-Key"}}}}}};
  return document;
}

}  // namespace bakestone
