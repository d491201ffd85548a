#include "server/openai/completions.h"

#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "server/api/answer.h"
#include "server/openai/envelope.h"
#include "server/openai/generation_fields.h"
#include "server/openai/text_input.h"

namespace bakestone::openai {
namespace {

using api::Fields;

constexpr size_t kMaxPrompts = 256;
constexpr int64_t kDefaultMaxTokens = 16;  // OpenAI's

// The generations of several prompts, n each.
class CompletionAnswer : public api::Answer {
 public:
  struct Options {
    bool stream = false, logprobs = false;
    std::vector<std::string> echo = {};  // by prompt; empty: not asked for
    int64_t n = 1;
  };
  CompletionAnswer(Options options, EnvelopeOptions envelope, const api::ModelPtr& model,
                   std::shared_ptr<http::Responder> responder)
      : Answer(std::move(responder)),
        options_(std::move(options)),
        envelope_(std::move(envelope), *model),
        model_(model) {}

 private:
  struct Choice {
    Event all;                // everything so far; a stream keeps only usage
    int64_t text_offset = 0;  // characters of the text that were sent
  };

  const std::string& Echo(int64_t index) const {
    static const std::string kNone;
    return options_.echo.empty() ? kNone : options_.echo[static_cast<size_t>(index / options_.n)];
  }

  void AppendToken(const TokenInfo& info, int64_t* offset, Json* json) const {
    const Tokenizer& tokenizer = model_->model().tokenizer;
    const std::string text = api::TokenString(tokenizer, info.token);
    (*json)["tokens"].push_back(text);
    (*json)["text_offset"].push_back(*offset);
    *offset += api::CountCharacters(text);
    if (!info.logprobs) {
      (*json)["token_logprobs"].push_back(nullptr);
      (*json)["top_logprobs"].push_back(nullptr);
      return;
    }
    (*json)["token_logprobs"].push_back(info.logprobs->logprob);
    Json top = Json::object();
    for (const TokenLogprob& entry : info.logprobs->top) {
      const std::string name = api::TokenString(tokenizer, entry.token);
      if (!top.contains(name)) {
        top[name] = entry.logprob;  // of two that look the same, the likelier
      }
    }
    if (!top.contains(text)) top[text] = info.logprobs->logprob;
    (*json)["top_logprobs"].push_back(std::move(top));
  }

  Json LogprobsJson(const Event& event, int64_t* offset) const {
    if (!options_.logprobs) return nullptr;
    Json json = {{"tokens", Json::array()},
                 {"token_logprobs", Json::array()},
                 {"top_logprobs", Json::array()},
                 {"text_offset", Json::array()}};
    for (const TokenInfo& info : event.prompt) AppendToken(info, offset, &json);
    for (const TokenInfo& info : event.tokens) AppendToken(info, offset, &json);
    return json;
  }

  static Json ChoiceJson(int64_t index, std::string text, Json logprobs,
                         const std::optional<FinishReason>& finish) {
    return {{"index", index},
            {"text", std::move(text)},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", finish ? Json(FinishName(*finish)) : Json(nullptr)}};
  }

  void Begin() override {
    choices_.resize(static_cast<size_t>(num_choices()));
    if (!options_.stream) return;
    responder().Begin({.content_type = api::kEventStream, .headers = {}, .body = {}}, ": ping\n\n");
    for (int64_t i = 0; i < num_choices(); ++i) {
      if (!Echo(i).empty()) {
        responder().Write(envelope_.Chunk(ChoiceJson(i, Echo(i), nullptr, std::nullopt)));
      }
    }
  }

  void OnEvent(int64_t index, Event&& event) override {
    Choice& choice = choices_[static_cast<size_t>(index)];
    Event& all = choice.all;
    all.usage = event.usage;
    all.finish = event.finish;
    if (options_.stream) {
      if (event.text.empty() && !options_.logprobs && !event.finish) return;
      responder().Write(envelope_.Chunk(
          ChoiceJson(index, event.text, LogprobsJson(event, &choice.text_offset), event.finish)));
      return;
    }
    all.text += event.text;
    std::move(event.tokens.begin(), event.tokens.end(), std::back_inserter(all.tokens));
    std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(all.prompt));
  }

  Usage TotalUsage() const {
    Usage total;
    for (size_t i = 0; i < choices_.size(); ++i) {
      const Usage& usage = choices_[i].all.usage;
      total.completion_tokens += usage.completion_tokens;
      total.proposed_tokens += usage.proposed_tokens;
      total.accepted_tokens += usage.accepted_tokens;
      if (static_cast<int64_t>(i) % options_.n != 0) continue;  // the choices of a prompt share it
      total.prompt_tokens += usage.prompt_tokens;
      total.cached_tokens += usage.cached_tokens;
    }
    return total;
  }

  void Complete() override {
    if (options_.stream) {
      responder().Write(envelope_.Ending(TotalUsage()));
      responder().End();
      return;
    }
    Json choices = Json::array();
    for (int64_t i = 0; i < num_choices(); ++i) {
      const Event& all = choices_[static_cast<size_t>(i)].all;
      int64_t offset = 0;
      choices.push_back(ChoiceJson(i, Echo(i) + all.text, LogprobsJson(all, &offset), all.finish));
    }
    responder().Send(
        {.headers = {}, .body = api::Dump(envelope_.Whole(std::move(choices), TotalUsage()))});
  }
  void Fail(const Error& error) override { SendFailure(error, options_.stream, responder()); }

  const Options options_;
  const Envelope envelope_;
  const api::ModelPtr model_;
  std::vector<Choice> choices_;
};

}  // namespace

void HandleCompletion(const api::Context& context, const http::Request& request,
                      std::shared_ptr<http::Responder> responder) {
  const Json body = api::ParseBody(request.body);
  Fields fields(body);
  const api::ModelPtr model = context.Select(request, fields.RequiredString("model"));
  const Tokenizer& tokenizer = model->model().tokenizer;
  GenerationFields generation = ReadGenerationFields(fields, tokenizer);
  GenerationRequest& base = generation.request;
  const bool echo = fields.Bool("echo").value_or(false);
  const auto logprobs = fields.Integer("logprobs", 0, 20);
  base.logprobs = logprobs.has_value();
  base.top_logprobs = static_cast<int32_t>(logprobs.value_or(0));
  base.prompt_logprobs = echo && base.logprobs;
  base.max_tokens =
      fields.Integer("max_tokens", echo ? 0 : 1, INT32_MAX).value_or(kDefaultMaxTokens);
  const auto best_of = fields.Integer("best_of", 1, kMaxChoices);
  if (best_of && *best_of != generation.n) {
    fields.Unsupported("best_of", "only the value of n is accepted");
  }
  fields.Only("suffix", "", "insertion is not supported by this server");
  const auto form = api::ReadResponseFormat(fields);
  std::vector<TextInput> prompts = ReadTextInputs(fields, "prompt", tokenizer, kMaxPrompts);
  fields.Finish();

  base.adapter = model->adapter();
  api::SetOwner(request, &base);
  std::vector<GenerationRequest> requests;
  CompletionAnswer::Options options{
      .stream = generation.stream, .logprobs = base.logprobs, .echo = {}, .n = generation.n};
  for (const TextInput& prompt : prompts) {
    if (echo) {
      options.echo.push_back(prompt.text
                                 ? *prompt.text
                                 : tokenizer.Decode(prompt.tokens, {.render_special = true,
                                                                    .strip_space_prefix = false}));
    }
    for (int64_t i = 0; i < generation.n; ++i) {
      requests.push_back(base);
      requests.back().prompt = prompt.tokens;
      requests.back().sampling.stream = static_cast<uint64_t>(i);
    }
  }
  EnvelopeOptions envelope{"cmpl-", "text_completion", "text_completion", generation.include_usage,
                           generation.has_prediction};
  const auto answer = std::make_shared<CompletionAnswer>(std::move(options), std::move(envelope),
                                                         model, std::move(responder));
  answer->StartInForm(model, std::move(requests), form, request);
}

}  // namespace bakestone::openai
