#include "server/openai/generation_fields.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <limits>

#include <fmt/format.h>

#include "base/quote.h"
#include "engine/engine.h"
#include "server/api/api_error.h"

namespace bakestone::openai {
namespace {

using api::BadField;
using api::Fields;
using api::Json;

void ReadLogitBias(Fields& fields, int32_t vocab_size, SamplingParams* sampling) {
  const Json* bias = fields.Find("logit_bias");
  if (!bias) return;
  if (!bias->is_object()) {
    BadField("logit_bias", "logit_bias: expected an object from token id to number");
  }
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocab_size) {
      BadField("logit_bias",
               fmt::format("logit_bias: expected token ids from 0 to {} as keys", vocab_size - 1));
    }
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100)) {
      BadField("logit_bias", "logit_bias: expected numbers from -100 to 100");
    }
    sampling->logit_bias.emplace_back(id, value.get<float>());
  }
}

void ReadStream(Fields& fields, GenerationFields* result) {
  result->stream = fields.Bool("stream").value_or(false);
  const Json* options = fields.Find("stream_options");
  if (!options) return;
  if (!result->stream) {
    BadField("stream_options", "stream_options: only allowed with \"stream\": true");
  }
  if (!options->is_object()) BadField("stream_options", "stream_options: expected an object");
  Fields inner(*options);
  result->include_usage = inner.Bool("include_usage").value_or(false);
  inner.Ignore({"include_obfuscation"});
  inner.Finish();
}

// The text that the client expects back, mostly: a file before its edit. Only the answer's time
// depends on it.
void ReadPrediction(Fields& fields, const Tokenizer& tokenizer, GenerationFields* result) {
  const Json* prediction = fields.Find("prediction");
  if (!prediction) return;
  const auto refuse = [] {
    BadField("prediction",
             "prediction: expected {\"type\": \"content\", \"content\": a string or a list of text "
             "parts}");
  };
  if (!prediction->is_object()) refuse();
  Fields inner(*prediction);
  if (inner.RequiredString("type") != "content") refuse();
  const Json* content = inner.Find("content");
  inner.Finish();
  std::string text;
  if (content && content->is_string()) {
    text = content->get<std::string>();
  } else if (content && content->is_array()) {
    for (const Json& part : *content) {
      if (!part.is_object() || part.value("type", Json()) != "text" ||
          !part.value("text", Json()).is_string()) {
        refuse();
      }
      text += part["text"].get<std::string>();
    }
  } else {
    refuse();
  }
  result->request.expected = tokenizer.Encode(text, {.add_special = false});
  result->has_prediction = true;
}

// True for the tier of those that can wait.
bool ReadsFlex(Fields& fields) {
  const std::string tier = fields.String("service_tier").value_or("auto");
  constexpr const char* kTiers[] = {"auto", "default", "flex", "priority", "scale"};
  if (std::find(std::begin(kTiers), std::end(kTiers), tier) == std::end(kTiers)) {
    BadField("service_tier",
             fmt::format("service_tier: expected auto, default, flex, priority or scale, found {}",
                         Quote(tier)));
  }
  return tier == "flex";
}

}  // namespace

GenerationFields ReadGenerationFields(Fields& fields, const Tokenizer& tokenizer) {
  GenerationFields result;
  ReadStream(fields, &result);
  result.n = fields.Integer("n", 1, kMaxChoices).value_or(1);

  SamplingParams& sampling = result.request.sampling;
  sampling.temperature = fields.Number("temperature", 0, 2).value_or(1);
  sampling.top_p = fields.Number("top_p", 0, 1).value_or(1);
  // OpenAI allows 0, which can only mean "the likeliest".
  if (sampling.top_p == 0) sampling.top_p = std::numeric_limits<double>::min();
  sampling.top_k = static_cast<int32_t>(fields.Integer("top_k", -1, INT32_MAX).value_or(0));
  if (sampling.top_k < 0) sampling.top_k = 0;  // some clients say "off" so
  sampling.min_p = fields.Number("min_p", 0, 1).value_or(0);
  sampling.repetition_penalty = fields.Number("repetition_penalty", 0.01, 10).value_or(1);
  sampling.presence_penalty = fields.Number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = fields.Number("frequency_penalty", -2, 2).value_or(0);
  ReadLogitBias(fields, tokenizer.vocab_size(), &sampling);
  const auto seed = fields.Integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : RandomSeed();

  result.request.stop = fields.Strings("stop", kMaxStops);
  for (const std::string& stop : result.request.stop) {
    if (stop.empty()) BadField("stop", "stop: expected strings that are not empty");
  }
  result.request.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  result.request.min_tokens = fields.Integer("min_tokens", 0, INT32_MAX).value_or(0);
  // Bookkeeping of the client's, without influence on the answer.
  fields.Ignore({"user", "metadata", "store", "safety_identifier", "prompt_cache_key",
                 "prompt_cache_retention"});
  result.request.background = ReadsFlex(fields);
  ReadPrediction(fields, tokenizer, &result);
  result.request.speculate = fields.Bool("speculate").value_or(true);
  return result;
}

}  // namespace bakestone::openai
