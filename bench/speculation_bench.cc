// What speculation gains on answers that repeat their prompt, and loses elsewhere, on a real model.
//
//   speculation_bench MODEL.gguf [--threads N] [--rounds N] [--draft DRAFT.gguf] [--only WORD]
//   [--cpu 1]
//
// Every task is answered by two fresh engines in turn, with speculation off and auto, which must
// give the same tokens. Prints decoding time per token (first token to last) as medians, and the
// median of the rounds' ratios, and the ratio of the fastest rounds. --cpu 1, with one thread:
// processor time instead, for a machine that is busy otherwise. Gains depend on how well the model
// quotes, losses should not exceed 5 % anywhere.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "engine/chat.h"
#include "engine/engine.h"
#include "kernels/kernel_table.h"

namespace bakestone {
namespace {

bool g_processor_time = false;

double Now() {
  if (g_processor_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Task {
  std::string name, text;
  bool chat = true;
  double temperature = 0;
  std::string expected = "";  // handed over as the answer's likely text
};

constexpr const char* kPassage =
    "The mill stands where the river bends twice, below the old orchard. Its wheel was cut from "
    "oak in the "
    "spring after the flood, and the stones came by barge from the quarry at Senn. Each autumn the "
    "farmers of "
    "three valleys bring their rye, wait a night in the loft above the store, and take the flour "
    "home in grey "
    "linen sacks. The miller keeps one measure in sixteen, and nobody alive remembers it "
    "otherwise.";

constexpr const char* kCode = R"(import csv


def read_orders(path):
    orders = []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            row["quantity"] = int(row["quantity"])
            row["price"] = float(row["price"])
            orders.append(row)
    return orders


def total_by_customer(orders):
    totals = {}
    for order in orders:
        name = order["customer"]
        amount = order["quantity"] * order["price"]
        totals[name] = totals.get(name, 0.0) + amount
    return totals


def print_report(totals):
    for name in sorted(totals):
        print(f"{name:20s} {totals[name]:10.2f}")
)";

std::vector<Task> Tasks() {
  const std::string passage = kPassage, code = kCode;
  const std::string tail = code.substr(code.find("def total"));
  return {
      {"quote a passage", "Repeat this text word for word:\n\n" + passage},
      {"quote, plain text", "The text:\n\n" + passage + "\n\nThe text once more:\n\n", false},
      {"quote, sampled", "The text:\n\n" + passage + "\n\nThe text once more:\n\n", false, 0.5},
      {"edit: type hints", "Add type hints to this code:\n\n```python\n" + tail + "```"},
      {"edit: docstrings",
       "Add a docstring to each function of this code. Print the full code:\n\n```python\n" + tail +
           "```"},
      {"edit, expected text",
       "Add a comment to this file and print all of it:\n\n```python\n" + code + "```", true, 0,
       code},
      {"story", "Tell me a long story about a lighthouse keeper."},
      {"story, sampled", "Tell me a long story about a lighthouse keeper.", true, 1.0},
      {"question, sampled", "Why is the sky blue, and why are sunsets red?", true, 0.7},
      {"list, sampled", "List twenty animals with one sentence about each.", true, 1.0},
      {"code, sampled", "Write a Python program that prints the first hundred primes.", true, 0.8},
      {"summary, sampled", "Say in your own words what this is about:\n\n" + passage, true, 1.0},
  };
}

struct Outcome {
  double seconds_per_token = 0;
  std::vector<int32_t> tokens;
  Usage usage;
};

Outcome Answer(const std::shared_ptr<const Model>& model, ThreadPool& pool, const Task& task,
               const SpeculationOptions& speculation) {
  Engine engine(model, ChooseKernels(nullptr), pool, {.speculation = speculation});
  GenerationRequest request;
  const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", task.text}}};
  request.prompt =
      task.chat ? RenderChat(*model, messages).tokens : model->tokenizer.Encode(task.text);
  if (!task.expected.empty()) {
    request.expected = model->tokenizer.Encode(task.expected, {.add_special = false});
  }
  request.sampling = {.temperature = task.temperature, .top_p = 0.95, .seed = 7};
  request.max_tokens = 200;
  double first = 0, last = 0;
  std::vector<int32_t> tokens;
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false;
  Usage usage;
  request.sink = [&](Event&& event) {
    last = Now();
    if (tokens.empty()) first = last;
    for (const TokenInfo& info : event.tokens) tokens.push_back(info.token);
    if (!event.finish) return;
    std::lock_guard lock(mutex);
    usage = event.usage;
    done = true;
    ended.notify_one();
  };
  engine.Submit(std::move(request));
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return done; });
  return {(last - first) / static_cast<double>(std::max<size_t>(1, tokens.size() - 1)), tokens,
          usage};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Main(int argc, char** argv) {
  int threads = UsableCores(), rounds = 5;
  std::string path, draft, only;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with("--") && i + 1 == argc) break;
    if (word == "--threads") {
      threads = std::atoi(argv[++i]);
    } else if (word == "--rounds") {
      rounds = std::atoi(argv[++i]);
    } else if (word == "--draft") {
      draft = argv[++i];
    } else if (word == "--only") {
      only = argv[++i];
    } else if (word == "--cpu") {
      g_processor_time = std::atoi(argv[++i]) != 0;
    } else {
      path = word;
    }
  }
  if (path.empty()) {
    fmt::print(stderr,
               "usage: speculation_bench MODEL.gguf [--threads N] [--rounds N] [--draft "
               "DRAFT.gguf] [--only WORD] [--cpu 1]\n");
    return 2;
  }
  ThreadPool pool(threads);
  const auto model = Model::Load(path, ChooseKernels(nullptr), pool);
  SpeculationOptions on;
  if (!draft.empty()) on.draft = Model::Load(draft, ChooseKernels(nullptr), pool);
  fmt::print("{:24} {:>6} {:>10} {:>10} {:>7} {:>7} {:>16}\n", "task", "tokens", "off ms/tok",
             "auto", "median", "fastest", "accepted/proposed");
  for (const Task& task : Tasks()) {
    if (task.name.find(only) == std::string::npos) continue;
    std::vector<double> off, with, ratios;
    Outcome last;
    for (int round = 0; round < rounds; ++round) {
      // Turn about, so that neither always comes first.
      Outcome plain, fast;
      for (int turn = 0; turn < 2; ++turn) {
        if ((round + turn) % 2 == 0) {
          plain = Answer(model, pool, task, {.mode = Speculation::kOff});
        } else {
          fast = Answer(model, pool, task, on);
        }
      }
      if (plain.tokens != fast.tokens) {
        fmt::print(stderr, "{}: the answers differ\n", task.name);
        return 1;
      }
      off.push_back(plain.seconds_per_token);
      with.push_back(fast.seconds_per_token);
      ratios.push_back(plain.seconds_per_token / fast.seconds_per_token);
      last = std::move(fast);
    }
    fmt::print(
        "{:24} {:6} {:10.2f} {:10.2f} {:6.2f}x {:6.2f}x {:8}/{}\n", task.name, last.tokens.size(),
        1e3 * Median(off), 1e3 * Median(with), Median(ratios),
        *std::min_element(off.begin(), off.end()) / *std::min_element(with.begin(), with.end()),
        last.usage.accepted_tokens, last.usage.proposed_tokens);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) { return bakestone::Main(argc, argv); }
