#include "load/plan.h"

#include <array>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/quote.h"
#include "base/rng.h"

namespace bakestone::load {
namespace {

constexpr size_t kMostRequests = 1'000'000;

// Streams of the seed, so that one more draw of one kind moves no other. Texts take two each: the
// prefixes' and the prompts' own are counted from kTexts.
enum Stream : uint64_t { kTimes, kModels, kPrompts, kAnswers, kPrefixes, kTexts };

// One token each, with the space before it, in about every vocabulary.
constexpr std::array<std::string_view, 64> kWords = {
    "time",   "year",   "people", "way",    "day",    "man",    "thing",   "woman",
    "life",   "child",  "world",  "school", "state",  "family", "student", "group",
    "hand",   "part",   "place",  "case",   "week",   "work",   "fact",    "water",
    "room",   "mother", "area",   "money",  "story",  "month",  "lot",     "right",
    "book",   "eye",    "job",    "word",   "side",   "kind",   "head",    "house",
    "friend", "father", "power",  "hour",   "game",   "line",   "end",     "law",
    "car",    "city",   "name",   "team",   "minute", "idea",   "body",    "back",
    "parent", "face",   "level",  "office", "door",   "health", "person",  "art"};

std::string Words(uint64_t seed, uint64_t stream, int64_t count) {
  Rng rng(seed, stream);
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) text += ' ';
    text += kWords[rng.Below(kWords.size())];
  }
  return text;
}

template <class T>
const T& Draw(const Mix<T>& mix, Rng& rng) {
  double total = 0;
  for (const auto& share : mix.shares) total += share.weight;
  double left = rng.Uniform() * total;
  for (const auto& share : mix.shares) {
    left -= share.weight;
    if (left < 0) return share.value;
  }
  return mix.shares.back().value;
}

// Calls add(value, weight) for each part of "value[=weight],...".
template <class Add>
void ForEachShare(std::string_view what, std::string_view text, const Add& add) {
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t equals = part.rfind('=');
    double weight = 1;
    if (equals != std::string_view::npos) {
      const char* end = part.data() + part.size();
      const auto [at, error] = std::from_chars(part.data() + equals + 1, end, weight);
      if (error != std::errc{} || at != end || !(weight > 0) || !std::isfinite(weight)) {
        Throw(ErrorCode::kInvalidArgument,
              "{}: expected VALUE=WEIGHT with a weight above 0, found {}", what, Quote(part));
      }
    }
    if (part.substr(0, equals).empty()) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected VALUE[=WEIGHT],..., found an empty value",
            what);
    }
    add(part.substr(0, equals), weight);
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

Mix<int64_t> ParseLengths(std::string_view what, std::string_view text, int64_t least) {
  constexpr int64_t kMost = 1 << 20;
  Mix<int64_t> mix;
  ForEachShare(what, text, [&](std::string_view value, double weight) {
    int64_t length = 0;
    const auto [at, error] = std::from_chars(value.data(), value.data() + value.size(), length);
    if (error != std::errc{} || at != value.data() + value.size() || length < least ||
        length > kMost) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected tokens in [{}, {}], found {}", what, least,
            kMost, Quote(value));
    }
    mix.shares.push_back({length, weight});
  });
  return mix;
}

Mix<std::string> ParseNames(std::string_view what, std::string_view text) {
  Mix<std::string> mix;
  ForEachShare(what, text, [&](std::string_view value, double weight) {
    mix.shares.push_back({std::string(value), weight});
  });
  return mix;
}

std::vector<PlannedRequest> MakePlan(const PlanOptions& options) {
  const bool closed = options.streams > 0;
  if (!closed && (!(options.rate > 0) || !(options.seconds > 0))) {
    Throw(ErrorCode::kInvalidArgument, "a load needs a rate and a time above 0");
  }
  if (closed && options.requests < options.streams) {
    Throw(ErrorCode::kInvalidArgument,
          "a load of {} streams: expected at least as many requests, found {}", options.streams,
          options.requests);
  }
  BAKESTONE_CHECK(!options.prompt_tokens.shares.empty() && !options.answer_tokens.shares.empty() &&
                  !options.models.shares.empty());
  Rng times(options.seed, kTimes), models(options.seed, kModels), prompts(options.seed, kPrompts),
      answers(options.seed, kAnswers), prefixes(options.seed, kPrefixes);
  std::vector<std::string> shared;
  for (int64_t i = 0; i < options.prefixes; ++i) {
    shared.push_back(
        Words(options.seed, kTexts + 2 * static_cast<uint64_t>(i), options.prefix_tokens) + " ");
  }
  std::vector<PlannedRequest> plan;
  double due = 0;
  while (true) {
    if (!closed) due += -std::log1p(-times.Uniform()) / options.rate;
    if (closed ? std::ssize(plan) == options.requests : due > options.seconds && !plan.empty()) {
      return plan;
    }
    if (plan.size() == kMostRequests) {
      Throw(ErrorCode::kInvalidArgument,
            "a load has at most {} requests; expected a lower rate or a shorter time",
            kMostRequests);
    }
    PlannedRequest request{.due = !closed && due > options.seconds ? 0 : due,
                           .model = Draw(options.models, models)};
    if (!shared.empty()) request.prompt = shared[prefixes.Below(shared.size())];
    request.prompt +=
        Words(options.seed, kTexts + 2 * plan.size() + 1, Draw(options.prompt_tokens, prompts));
    request.answer_tokens = Draw(options.answer_tokens, answers);
    plan.push_back(std::move(request));
  }
}

}  // namespace bakestone::load
