#include "cli/bench_serve.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "load/generator.h"
#include "load/plan.h"
#include "load/report.h"

namespace bakestone::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMostCpuShare = 0.05;  // beyond it the tool disturbs a server on the same machine
constexpr double kMostLate = 0.05;      // seconds

struct Options {
  load::Target target;
  load::PlanOptions plan;
  load::Goals goals;
  std::optional<std::string> models;
  bool json = false;
};

std::string ReadKey(const std::string& path) {
  const std::string text = ReadFile(path, 1 << 20);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    word.resize(std::min(word.size(), word.find_first_of(" \t\r")));
    if (!word.empty() && word.front() != '#') return word;
    begin = end + 1;
  }
  Throw(ErrorCode::kInvalidArgument, "{}: expected an API key, found none", path);
}

Options Parse(const Arguments& arguments) {
  Options options;
  std::string prompts = "256", answers = "64";
  std::optional<std::string> key_file, certificate;
  int64_t seed = 1;
  Flags flags("bench --serve",
              "Load on a server that speaks OpenAI's API, this program's or another: streamed "
              "chats that arrive at random "
              "(Poisson) and wait for nobody, or as many at any time as --streams says. Tells the "
              "time to the first token and between tokens, what was answered "
              "as fast as asked, and what this tool itself took of the CPU. VALUE=WEIGHT,... draws "
              "values by weight.",
              "bakestone bench --serve http://127.0.0.1:8080 --rate 4 --prompt-tokens 64=3,1000 "
              "--answer-tokens 32,128");
  flags.Add("--serve", &options.target.url, "The server's address");
  flags.Add("--rate", &options.plan.rate, 1e-3, 1e4, "Requests a second, in the mean");
  flags.Add("--seconds", &options.plan.seconds, 0.1, 86'400,
            "How long requests arrive; then answers are waited for");
  flags.Add("--streams", &options.plan.streams, 1, 10'000,
            "A closed loop instead: so many at any time, the next begins when one ends");
  flags.Add("--requests", &options.plan.requests, 1, 1'000'000,
            "With --streams: how many in all; else four for each stream");
  flags.Add("--prompt-tokens", &prompts, "Lengths of prompts, about: as many common words");
  flags.Add("--answer-tokens", &answers, "Lengths of answers");
  flags.Add("--models", &options.models,
            "Models and adapters to ask for; else the first that the server lists");
  flags.Add("--prefixes", &options.plan.prefixes, 0, 100'000,
            "How many beginnings the prompts share; 0: each is its own");
  flags.Add("--prefix-tokens", &options.plan.prefix_tokens, 1, 1 << 20,
            "Their length, about; comes before --prompt-tokens");
  flags.Add("--first-token-goal", &options.goals.first_token, 0, 3600,
            "Seconds to the first token that count as good");
  flags.Add("--inter-token-goal", &options.goals.inter_token, 0, 3600,
            "Seconds between tokens, in an answer's mean, that do");
  flags.Add("--seed", &seed, 0, INT64_MAX,
            "Of arrivals, lengths and words: the same seed is the same load");
  flags.Add("--plain", &options.target.plain,
            "Send only OpenAI's own fields; answers may then end before their length");
  flags.Add("--timeout", &options.target.timeout, 1, 86'400, "Seconds that a request may take");
  flags.Add("--api-key-file", &key_file, "The first word of its first line is shown to the server");
  flags.Add("--certificate", &certificate, "PEM file with the certificate to trust");
  flags.Add("--json", &options.json, "Print one JSON object");
  flags.Parse(arguments);
  if (!options.target.url.starts_with("http://") && !options.target.url.starts_with("https://")) {
    throw UsageError(
        fmt::format("bench: --serve: expected an address such as http://127.0.0.1:8080, found '{}'",
                    options.target.url));
  }
  options.plan.seed = static_cast<uint64_t>(seed);
  if (options.plan.requests > 0 && options.plan.streams == 0) {
    throw UsageError("bench: --requests goes with --streams; without it --seconds says how long");
  }
  if (options.plan.requests == 0) options.plan.requests = 4 * options.plan.streams;
  options.plan.prompt_tokens = load::ParseLengths("--prompt-tokens", prompts, 1);
  options.plan.answer_tokens = load::ParseLengths("--answer-tokens", answers, 1);
  if (key_file) options.target.api_key = ReadKey(*key_file);
  options.target.certificate = certificate.value_or("");
  return options;
}

Json ToJson(const load::Percentiles& of) {
  return {{"count", of.count}, {"p50", of.p50}, {"p95", of.p95}, {"p99", of.p99}, {"max", of.most}};
}

Json ToJson(const load::LoadSummary& summary) {
  return {{"requests", summary.requests},
          {"complete", summary.complete},
          {"refused", summary.refused},
          {"failed", summary.failed},
          {"prompt_tokens", summary.prompt_tokens},
          {"cached_tokens", summary.cached_tokens},
          {"completion_tokens", summary.completion_tokens},
          {"tokens_per_second", summary.tokens_per_second},
          {"complete_per_second", summary.complete_per_second},
          {"good_per_second", summary.good_per_second},
          {"first_token_seconds", ToJson(summary.first_token)},
          {"inter_token_seconds", ToJson(summary.inter_token)},
          {"whole_seconds", ToJson(summary.whole)},
          {"errors", summary.errors}};
}

Json ToJson(const Options& options, const load::LoadReport& report) {
  Json json = {{"server", options.target.url},
               {"seed", options.plan.seed},
               {"seconds", report.seconds},
               {"first_token_goal", options.goals.first_token},
               {"inter_token_goal", options.goals.inter_token},
               {"cpu_share", report.cpu_share},
               {"most_late_seconds", report.most_late}};
  if (options.plan.streams > 0) {
    json["streams"] = options.plan.streams;
  } else {
    json["rate"] = options.plan.rate;
  }
  json.update(ToJson(report.all));
  for (const auto& [model, summary] : report.models) json["models"][model] = ToJson(summary);
  return json;
}

void PrintTimes(const char* what, const load::Percentiles& of) {
  if (of.count == 0) return;
  fmt::print("{:<28} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.1f}\n", what, of.p50 * 1e3, of.p95 * 1e3,
             of.p99 * 1e3, of.most * 1e3);
}

void Print(const Options& options, const load::LoadReport& report) {
  const load::LoadSummary& all = report.all;
  const std::string how = options.plan.streams > 0
                              ? fmt::format("in {} streams", options.plan.streams)
                              : fmt::format("at {:g} a second", options.plan.rate);
  fmt::print("{}: {} requests {}, seed {}, {:.1f} s until the last answer\n", options.target.url,
             all.requests, how, options.plan.seed, report.seconds);
  fmt::print("{} complete, {} refused (429, 503), {} failed\n", all.complete, all.refused,
             all.failed);
  fmt::print("{} prompt tokens ({} cached), {} answer tokens: {:.1f} tokens/s\n", all.prompt_tokens,
             all.cached_tokens, all.completion_tokens, all.tokens_per_second);
  fmt::print(
      "goodput {:.2f} of {:.2f} answers/s (first token within {:g} s, then {:g} s a token)\n\n",
      all.good_per_second, all.complete_per_second, options.goals.first_token,
      options.goals.inter_token);
  fmt::print("{:<28} {:>10} {:>10} {:>10} {:>10}\n", "milliseconds", "p50", "p95", "p99", "most");
  PrintTimes("to the first token", all.first_token);
  PrintTimes("between tokens", all.inter_token);
  PrintTimes("to the end", all.whole);
  for (const auto& [model, summary] : report.models) {
    PrintTimes(fmt::format("first token, {}", model).c_str(), summary.first_token);
  }
  for (const auto& [error, count] : all.errors) fmt::print("{} x {}\n", count, error);
  fmt::print(
      "\nthis tool took {:.1f} % of a core; its latest request left {:.1f} ms after it was due\n",
      report.cpu_share * 100, report.most_late * 1e3);
}

void Warn(const load::LoadReport& report) {
  if (report.cpu_share > kMostCpuShare) {
    fmt::print(stderr,
               "bakestone: bench: this tool took {:.0f} % of a core: run it elsewhere than the "
               "server, or lower --rate\n",
               report.cpu_share * 100);
  }
  if (report.most_late > kMostLate) {
    fmt::print(stderr,
               "bakestone: bench: requests left up to {:.0f} ms late: the machine is too busy for "
               "these figures\n",
               report.most_late * 1e3);
  }
}

}  // namespace

bool AsksForLoad(const Arguments& arguments) {
  return std::any_of(arguments.begin(), arguments.end(), [](const std::string& argument) {
    return argument == "--serve" || argument.starts_with("--serve=");
  });
}

int BenchServe(const Arguments& arguments) {
  Options options = Parse(arguments);
  CatchSignals();
  options.plan.models = load::ParseNames(
      "--models", options.models ? *options.models : load::ListModels(options.target).front());
  const std::vector<load::PlannedRequest> plan = load::MakePlan(options.plan);
  load::LoadRun run;
  {
    Progress progress("load", static_cast<int64_t>(plan.size()), "answers");
    run = load::Run(options.target, plan, options.plan.streams, [&](int64_t sent, int64_t ended) {
      progress.Update(ended, fmt::format("{} under way", sent - ended));
      return !StopRequested();
    });
  }
  const load::LoadReport report = load::Summarize(plan, run, options.goals);
  if (options.json) {
    fmt::print("{}\n", ToJson(options, report).dump(2, ' ', false, Json::error_handler_t::replace));
  } else {
    Print(options, report);
  }
  Warn(report);
  if (StopRequested()) return 130;
  return report.all.complete > 0 ? 0 : 1;
}

}  // namespace bakestone::cli
