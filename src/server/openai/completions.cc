#include "server/openai/completions.h"

#include <utility>

#include <fmt/format.h>

#include "server/openai/answer.h"
#include "server/openai/api_error.h"
#include "server/openai/generation_fields.h"

namespace bakestone::openai {
namespace {

constexpr size_t kMaxPrompts = 256;
constexpr int64_t kDefaultMaxTokens = 16;  // OpenAI's

struct Prompt {
  std::vector<int32_t> tokens;
  std::string text;  // for echo
};

Prompt FromText(const Tokenizer& tokenizer, const std::string& text) {
  return {tokenizer.Encode(text), text};
}

Prompt FromIds(const Tokenizer& tokenizer, const Json& ids) {
  Prompt prompt;
  for (const Json& id : ids) {
    const bool valid = id.is_number_integer() && id >= 0 && id < tokenizer.vocab_size();
    if (!valid) {
      BadField("prompt", fmt::format("prompt: expected token ids from 0 to {}", tokenizer.vocab_size() - 1));
    }
    prompt.tokens.push_back(id.get<int32_t>());
  }
  prompt.text = tokenizer.Decode(prompt.tokens, {.render_special = true, .strip_space_prefix = false});
  return prompt;
}

// A string, a list of strings, a list of ids, or a list of lists of ids. Ids get no BOS.
std::vector<Prompt> ReadPrompts(Fields& fields, const Tokenizer& tokenizer) {
  const Json* value = fields.Find("prompt");
  if (value && value->is_string()) return {FromText(tokenizer, value->get<std::string>())};
  if (!value || !value->is_array() || value->empty()) {
    BadField("prompt", "prompt: expected a string, a list of strings, a list of token ids or a list of such lists");
  }
  if ((*value)[0].is_number()) return {FromIds(tokenizer, *value)};
  if (value->size() > kMaxPrompts) {
    BadField("prompt", fmt::format("prompt: expected at most {} prompts, found {}", kMaxPrompts, value->size()));
  }
  std::vector<Prompt> prompts;
  for (const Json& item : *value) {
    if (item.is_string()) {
      prompts.push_back(FromText(tokenizer, item.get<std::string>()));
    } else if (item.is_array()) {
      prompts.push_back(FromIds(tokenizer, item));
    } else {
      BadField("prompt", fmt::format("prompt: expected strings or lists of token ids, found {}", item.type_name()));
    }
  }
  return prompts;
}

class CompletionAnswer : public Answer {
 public:
  CompletionAnswer(AnswerOptions options, bool logprobs, std::vector<std::string> echo, int64_t n,
                   const Tokenizer& tokenizer, std::shared_ptr<http::Responder> responder)
      : Answer(std::move(options), tokenizer, std::move(responder)), logprobs_(logprobs), echo_(std::move(echo)),
        n_(n) {}

 private:
  const std::string& Echo(int64_t index) const {
    static const std::string kNone;
    return echo_.empty() ? kNone : echo_[index / n_];
  }

  void AppendToken(const TokenInfo& info, int64_t* offset, Json* json) const {
    const std::string text = TokenString(tokenizer(), info.token);
    (*json)["tokens"].push_back(text);
    (*json)["text_offset"].push_back(*offset);
    *offset += CountCharacters(text);
    if (!info.logprobs) {
      (*json)["token_logprobs"].push_back(nullptr);
      (*json)["top_logprobs"].push_back(nullptr);
      return;
    }
    (*json)["token_logprobs"].push_back(info.logprobs->logprob);
    Json top = Json::object();
    for (const TokenLogprob& entry : info.logprobs->top) {
      const std::string name = TokenString(tokenizer(), entry.token);
      if (!top.contains(name)) top[name] = entry.logprob;  // of two that look the same, the likelier
    }
    if (!top.contains(text)) top[text] = info.logprobs->logprob;
    (*json)["top_logprobs"].push_back(std::move(top));
  }

  Json LogprobsJson(const Event& event, bool with_prompt, int64_t* offset) const {
    if (!logprobs_) return nullptr;
    Json json = {{"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"top_logprobs", Json::array()},
                 {"text_offset", Json::array()}};
    if (with_prompt) {
      for (const TokenInfo& info : event.prompt) AppendToken(info, offset, &json);
    }
    for (const TokenInfo& info : event.tokens) AppendToken(info, offset, &json);
    return json;
  }

  Json ChoiceJson(int64_t index, std::string text, Json logprobs, const std::optional<FinishReason>& finish) const {
    Json json;
    json["index"] = index;
    json["text"] = std::move(text);
    json["logprobs"] = std::move(logprobs);
    json["finish_reason"] = finish ? Json(FinishName(*finish)) : Json(nullptr);
    return json;
  }

  Json StreamStart(int64_t index) override {
    return Echo(index).empty() ? Json(nullptr) : ChoiceJson(index, Echo(index), nullptr, std::nullopt);
  }
  Json StreamChoice(int64_t index, const Event& event) override {
    if (event.text.empty() && !logprobs_ && !event.finish) return nullptr;
    return ChoiceJson(index, event.text, LogprobsJson(event, true, &choice(index).text_offset), event.finish);
  }
  Json FullChoice(int64_t index, const Choice& collected) override {
    int64_t offset = 0;
    return ChoiceJson(index, Echo(index) + collected.all.text, LogprobsJson(collected.all, true, &offset),
                      collected.all.finish);
  }
  const char* object_name(bool) const override { return "text_completion"; }

  const bool logprobs_;
  const std::vector<std::string> echo_;  // by prompt; empty: not asked for
  const int64_t n_;
};

}  // namespace

void HandleCompletion(const ServedModel& model, const std::string& fingerprint, const Json& body,
                      const http::Request& request, std::shared_ptr<http::Responder> responder) {
  const Tokenizer& tokenizer = model.engine->model().tokenizer;
  Fields fields(body);
  fields.Ignore({"model"});
  GenerationFields generation = ReadGenerationFields(fields, tokenizer);
  GenerationRequest& base = generation.request;
  const bool echo = fields.Bool("echo").value_or(false);
  const auto logprobs = fields.Integer("logprobs", 0, 20);
  base.logprobs = logprobs.has_value();
  base.top_logprobs = static_cast<int32_t>(logprobs.value_or(0));
  base.prompt_logprobs = echo && base.logprobs;
  base.max_tokens = fields.Integer("max_tokens", echo ? 0 : 1, INT32_MAX).value_or(kDefaultMaxTokens);
  const auto best_of = fields.Integer("best_of", 1, kMaxChoices);
  if (best_of && *best_of != generation.n) {
    UnsupportedField("best_of", "best_of: only the value of n is accepted");
  }
  fields.Only("suffix", "", "insertion is not supported by this server");
  std::vector<Prompt> prompts = ReadPrompts(fields, tokenizer);
  fields.Finish();

  base.adapter = model.adapter;
  base.cache_salt = request.tenant;
  std::vector<GenerationRequest> requests;
  std::vector<std::string> echoes;
  for (Prompt& prompt : prompts) {
    if (echo) echoes.push_back(std::move(prompt.text));
    for (int64_t i = 0; i < generation.n; ++i) {
      requests.push_back(base);
      requests.back().prompt = prompt.tokens;
      requests.back().sampling.stream = static_cast<uint64_t>(i);
    }
  }
  const auto answer = std::make_shared<CompletionAnswer>(
      AnswerOptions{"cmpl-", model.id, fingerprint, generation.n, generation.stream, generation.include_usage,
                    generation.has_prediction},
      base.logprobs, std::move(echoes), generation.n, tokenizer, std::move(responder));
  answer->Start(*model.engine, std::move(requests));
}

}  // namespace bakestone::openai
