// bakestone run MODEL ["prompt"]: one answer, or a chat with history.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/chat_input.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/load_flags.h"
#include "cli/signals.h"
#include "cli/speculation_flags.h"
#include "cli/verbs.h"
#include "cli/wrap.h"
#include "engine/chat.h"
#include "engine/engine.h"
#include "model/load_adapter.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kChatHelp =
    "a line that ends with \\ goes on, \"\"\" opens and closes a block of lines, Ctrl-C stops the "
    "answer, "
    "/clear forgets the conversation, /bye or Ctrl-D leaves.";

struct Options {
  std::string model;
  std::optional<std::string> prompt, adapter, system;
  std::optional<int64_t> max_tokens, threads, seed;
  KvType kv_type = KvType::kBf16;
  int64_t top_k = 0, kv_megabytes = 512, max_context = 8192;
  SamplingParams sampling{.temperature = 0.7, .top_p = 0.95};
  std::vector<std::string> stop;
  SpeculationFlags speculation;
  LoadFlags load;
  LoadOptions loading;  // as they say
  bool raw = false, json = false;
};

Options Parse(const Arguments& arguments) {
  Options options;
  SamplingParams& sampling = options.sampling;
  std::string kv_type = KvTypeName(options.kv_type);
  Flags flags(
      "run",
      fmt::format("Ask a model one thing, or chat with it (without a prompt). In a chat: {}",
                  kChatHelp),
      "bakestone run smollm2-135m-instruct \"Why is the sky blue?\" --max-tokens 100");
  flags.Positional("MODEL", &options.model,
                   "A GGUF file, a Hugging Face folder, or the name of one in the home folder");
  flags.OptionalPositional("PROMPT", &options.prompt, "What to ask; without it a chat begins");
  flags.Add("--adapter", &options.adapter, "A GGUF adapter or a PEFT folder");
  flags.Add("--system", &options.system, "System prompt");
  flags.Add("--max-tokens", &options.max_tokens, 1, int64_t{1} << 24, "Longest answer");
  flags.Add("--temperature", &sampling.temperature, 0, 100, "0: always the likeliest token");
  flags.Add("--top-k", &options.top_k, 0, INT32_MAX, "Draw among the k likeliest; 0: all");
  flags.Add("--top-p", &sampling.top_p, 0.001, 1, "Draw among the likeliest that reach p together");
  flags.Add("--min-p", &sampling.min_p, 0, 1,
            "Draw among those with p times the likeliest one's probability");
  flags.Add("--repetition-penalty", &sampling.repetition_penalty, 0.01, 10,
            "Above 1: avoid what was said");
  flags.Add("--presence-penalty", &sampling.presence_penalty, -10, 10,
            "Subtracted once for a token of the answer");
  flags.Add("--frequency-penalty", &sampling.frequency_penalty, -10, 10,
            "Subtracted each time it was used");
  flags.Add("--seed", &options.seed, 0, INT64_MAX, "The same seed gives the same answer");
  flags.Add("--stop", &options.stop, "End the answer before this text");
  flags.Add("--raw", &options.raw, "Continue the prompt as plain text, without the chat template");
  flags.Add("--threads", &options.threads, 1, 1024, "Threads to compute with");
  flags.Add("--kv-memory", &options.kv_megabytes, 1, int64_t{1} << 24,
            "Megabytes for keys and values");
  flags.Add("--kv-type", &kv_type,
            "Keep keys and values as bf16, f16 or q8_0 (9/16 of the memory)");
  flags.Add("--max-context", &options.max_context, 1, int64_t{1} << 24,
            "Tokens of conversation and answer");
  AddSpeculationFlags(flags, &options.speculation);
  AddLoadFlags(flags, &options.load);
  flags.Add("--json", &options.json, "Print one JSON object an answer");
  flags.Parse(arguments);
  options.kv_type = KvTypeOf("run", kv_type);
  options.loading = Loading("run", options.load);
  if (options.raw && options.system) {
    throw UsageError("run: --system needs the chat template, --raw leaves it out");
  }
  sampling.top_k = static_cast<int32_t>(options.top_k);
  return options;
}

class Talk {
 public:
  Talk(const Options& options, ThreadPool& pool)
      : options_(options),
        model_(Model::Load(ResolveModel(options.model), Kernels(), pool, options.loading)),
        adapter_(options.adapter ? LoadAdapter(*options.adapter, *model_) : nullptr),
        engine_(
            model_, Kernels(), pool,
            EngineOptions{.kv_bytes = options.kv_megabytes << 20,
                          .kv_type = options.kv_type,
                          .max_context = options.max_context,
                          .default_max_tokens = options.max_context,
                          .speculation = MakeSpeculation(options.speculation, pool,
                                                         Loading(options.load.no_pack_cache))}) {
    Clear();
  }

  // Prints the answer as it comes. An interrupted one counts as said.
  void Ask(const std::string& text) {
    messages_.push_back({{"role", "user"}, {"content", text}});
    Event event;
    const auto start = std::chrono::steady_clock::now();
    try {
      event = Generate(engine_, MakeRequest(text), [this](const std::string& piece) {
        if (!options_.json && !piece.empty()) {
          fmt::print("{}", piece);
          std::fflush(stdout);
        }
        return !StopRequested();
      });
    } catch (...) {
      messages_.erase(messages_.size() - 1);
      throw;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    messages_.push_back({{"role", "assistant"}, {"content", event.text}});
    if (options_.json) {
      PrintJson(event, seconds);
    } else {
      fmt::print("\n");
    }
    std::fflush(stdout);
  }

  void Clear() {
    messages_ = Json::array();
    if (options_.system) messages_.push_back({{"role", "system"}, {"content", *options_.system}});
  }

 private:
  GenerationRequest MakeRequest(const std::string& text) const {
    GenerationRequest request;
    request.prompt =
        options_.raw ? model_->tokenizer.Encode(text) : RenderChat(*model_, messages_).tokens;
    request.adapter = adapter_;
    request.sampling = options_.sampling;
    request.sampling.seed = options_.seed ? static_cast<uint64_t>(*options_.seed) : RandomSeed();
    request.max_tokens = options_.max_tokens;
    request.stop = options_.stop;
    return request;
  }

  static void PrintJson(const Event& event, double seconds) {
    const char* reason = event.finish == FinishReason::kLength      ? "length"
                         : event.finish == FinishReason::kCancelled ? "cancelled"
                                                                    : "stop";
    const Json json = {{"text", event.text},
                       {"finish_reason", reason},
                       {"prompt_tokens", event.usage.prompt_tokens},
                       {"cached_tokens", event.usage.cached_tokens},
                       {"completion_tokens", event.usage.completion_tokens},
                       {"proposed_tokens", event.usage.proposed_tokens},
                       {"accepted_tokens", event.usage.accepted_tokens},
                       {"seconds", seconds}};
    fmt::print("{}\n", json.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  const Options& options_;
  const std::shared_ptr<const Model> model_;
  const std::shared_ptr<const Adapter> adapter_;
  Engine engine_;
  Json messages_;
};

// A slash and one word: meant for this program, not for the model.
bool IsCommand(const std::string& text) {
  return text.size() > 1 && text[0] == '/' &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz", 1) == std::string::npos;
}

int Chat(Talk& talk, bool terminal) {
  ChatInput input(STDIN_FILENO, terminal);
  if (terminal) fmt::print(stderr, "/help says what can be typed, /bye leaves\n");
  while (true) {
    const Input next = input.Read();
    if (TerminateRequested() || next.kind == InputKind::kEnd) return 0;
    if (next.kind == InputKind::kInterrupted) {
      ClearStopRequest();
      fmt::print(stderr, "\n(Ctrl-D or /bye leaves)\n");
      continue;
    }
    if (next.text == "/bye" || next.text == "/exit") return 0;
    if (next.text.find_first_not_of(" \t\n") == std::string::npos) continue;
    if (next.text == "/clear") {
      talk.Clear();
      continue;
    }
    if (IsCommand(next.text)) {
      if (next.text != "/help") fmt::print(stderr, "there is no {} here; ", next.text);
      fmt::print(stderr, "{}\n", Wrap(kChatHelp, ""));
      continue;
    }
    try {
      talk.Ask(next.text);
    } catch (const Error& error) {
      fmt::print(stderr, "bakestone: {}\n", error.what());
    }
    if (TerminateRequested()) return 0;
    ClearStopRequest();
  }
}

}  // namespace

int Run(const Arguments& arguments) {
  const Options options = Parse(arguments);
  CatchSignals();
  ThreadPool pool(NumThreads(options.threads));
  Talk talk(options, pool);
  if (!options.prompt) return Chat(talk, ::isatty(STDIN_FILENO) == 1);
  talk.Ask(*options.prompt);
  return StopRequested() ? 130 : 0;
}

}  // namespace bakestone::cli
