#include "server/ollama/options.h"

#include <algorithm>
#include <limits>

#include "engine/engine.h"

namespace bakestone::ollama {
namespace {

using api::Fields;
using api::Json;

constexpr size_t kMaxStops = 16;

void ReadThink(Fields& fields, api::ChatTask* task) {
  const Json* think = fields.Find("think");
  if (!think) return;
  const auto is_level = [&] {
    return *think == "low" || *think == "medium" || *think == "high" || *think == "max";
  };
  if (think->is_boolean()) {
    task->effort = think->get<bool>() ? "medium" : "none";
  } else if (think->is_string() && is_level()) {
    task->effort = think->get<std::string>();
  } else {
    fields.Bad("think", "expected true, false, low, medium, high or max");
  }
}

}  // namespace

void ReadOptions(const Json& json, GenerationRequest* request) {
  Fields options(json, "options.", "options");
  SamplingParams& sampling = request->sampling;
  sampling.temperature = options.Number("temperature", 0, 2).value_or(sampling.temperature);
  sampling.top_k = static_cast<int32_t>(
      std::max<int64_t>(options.Integer("top_k", -1, INT32_MAX).value_or(sampling.top_k), 0));
  sampling.top_p = std::max(options.Number("top_p", 0, 1).value_or(sampling.top_p),
                            std::numeric_limits<double>::min());
  sampling.min_p = options.Number("min_p", 0, 1).value_or(0);
  sampling.repetition_penalty = options.Number("repeat_penalty", 0.01, 10).value_or(1);
  sampling.presence_penalty = options.Number("presence_penalty", -2, 2).value_or(0);
  sampling.frequency_penalty = options.Number("frequency_penalty", -2, 2).value_or(0);
  const auto seed = options.Integer("seed", INT64_MIN, INT64_MAX);
  if (seed && *seed >= 0) sampling.seed = static_cast<uint64_t>(*seed);
  const auto most = options.Integer("num_predict", -2, INT32_MAX);
  if (most && *most > 0) request->max_tokens = most;
  request->stop = options.Strings("stop", kMaxStops);
  for (const std::string& stop : request->stop) {
    if (stop.empty()) options.Bad("stop", "expected strings that are not empty");
  }
  options.Only("mirostat", 0, "this way of sampling is not supported");
  options.Only("tfs_z", 1.0, "this way of sampling is not supported");
  options.Only("typical_p", 1.0, "this way of sampling is not supported");
  // How the model is loaded is the server's; what it may hold is said by --max-context. A penalty
  // looks at all of the prompt and the answer.
  options.Ignore({"numa", "num_ctx", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv",
                  "logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only",
                  "num_thread", "num_keep", "repeat_last_n", "mirostat_tau", "mirostat_eta",
                  "penalize_newline"});
  options.Finish();
}

void ReadShared(Fields& fields, api::ChatTask* task) {
  GenerationRequest& request = task->request;
  request.sampling.temperature = 0.8;  // Ollama's own defaults
  request.sampling.top_k = 40;
  request.sampling.top_p = 0.9;
  request.sampling.seed = RandomSeed();
  if (const Json* options = fields.Object("options")) ReadOptions(*options, &request);
  if (const Json* format = fields.Find("format"); format && *format != "") {
    if (*format == "json") {
      task->form = api::AnswerForm{{GrammarSource::Kind::kJsonObject, ""}, "format"};
    } else {
      task->form = api::SchemaForm(*format, "format");
    }
  }
  ReadThink(fields, task);
  request.logprobs = fields.Bool("logprobs").value_or(false);
  request.top_logprobs = static_cast<int32_t>(fields.Integer("top_logprobs", 0, 20).value_or(0));
  request.logprobs |= request.top_logprobs > 0;
  fields.Ignore({"keep_alive", "truncate", "shift"});
}

}  // namespace bakestone::ollama
