// What a grammar costs beside a step: microseconds to compute the mask of one token, p50, p99 and
// the most, and milliseconds to compile, over a real vocabulary of 151,643 tokens; and, of forms
// that count, to narrow a mask from which a token was drawn that the counts forbid, and to narrow
// it once more. usage: grammar_bench VOCABULARY.tiktoken GRAMMAR_HELPER The vocabulary is Qwen's,
// in the PyPI package dashscope 2.0.2 (dashscope/resources/qwen.tiktoken); the helper is
// build/release/src/grammar/grammar_helper.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <unordered_map>
#include <vector>

#include <fmt/core.h>

#include "base/error.h"
#include "grammar/test_grammar.h"

namespace bakestone {
namespace {

using Clock = std::chrono::steady_clock;

struct Vocabulary {
  TokenizerSpec spec;
  std::unordered_map<std::string, int32_t> ids;
  size_t longest = 0;
};

std::string DecodeBase64(const std::string& text) {
  static const std::string kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string::npos) break;  // padding
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((count += 6) < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 255);
  }
  return bytes;
}

Vocabulary ReadTiktoken(const char* path) {
  std::ifstream file(path);
  if (!file) Throw(ErrorCode::kNotFound, "{}: cannot be opened", path);
  Vocabulary vocabulary;
  TokenizerSpec& spec = vocabulary.spec;
  spec.source = path;
  spec.pre_tokenizer = "qwen2";
  std::string piece;
  int32_t rank = 0;
  while (file >> piece >> rank) {
    const std::string bytes = DecodeBase64(piece);
    if (rank != static_cast<int32_t>(spec.tokens.size()) || bytes.empty()) {
      Throw(ErrorCode::kCorrupt, "{}: expected ranks from 0 on", path);
    }
    std::string spelled;
    for (const char c : bytes) spelled += testing::ByteSymbol(static_cast<uint8_t>(c));
    spec.tokens.push_back(spelled);
    vocabulary.ids.emplace(bytes, rank);
    vocabulary.longest = std::max(vocabulary.longest, bytes.size());
  }
  spec.types.assign(spec.tokens.size(), TokenType::kNormal);
  for (const char* control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    spec.tokens.push_back(control);
    spec.types.push_back(TokenType::kControl);
  }
  spec.eos = static_cast<int32_t>(spec.tokens.size()) - 1;
  return vocabulary;
}

// The longest token first: what a model would say, or near it.
std::vector<int32_t> Pieces(const Vocabulary& vocabulary, const std::string& text) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < text.size();) {
    size_t length = std::min(vocabulary.longest, text.size() - at);
    while (!vocabulary.ids.contains(text.substr(at, length))) --length;
    ids.push_back(vocabulary.ids.at(text.substr(at, length)));
    at += length;
  }
  return ids;
}

struct Case {
  const char* name;
  GrammarSource source;
  std::vector<std::string> answers;
};

std::vector<Case> Cases() {
  using Kind = GrammarSource::Kind;
  return {
      {"call: city, unit, days",
       {Kind::kJsonSchema,
        R"({"type":"object","properties":{"city":{"type":"string"},"unit":{"enum":["celsius","fahrenheit"]},"days":{"type":"integer","minimum":1,"maximum":14}},"required":["city","unit","days"],"additionalProperties":false})"},
       {R"({"city": "Rio de Janeiro", "unit": "celsius", "days": 7})",
        R"({"city":"S\u00e3o Paulo, near the \"old\" harbour","unit":"fahrenheit","days":14})"}},
      {"list of orders",
       {Kind::kJsonSchema,
        R"({"type":"object","properties":{"orders":{"type":"array","minItems":1,"items":{"type":"object","properties":{"id":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{4}$"},"items":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"price":{"type":"number"},"gift":{"type":"boolean"}},"required":["name","price","gift"],"additionalProperties":false}},"note":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["id","items","note"],"additionalProperties":false}}},"required":["orders"],"additionalProperties":false})"},
       {R"({"orders": [{"id": "AB-1234", "items": [{"name": "kettle, 2 litres", "price": 39.90, "gift": false}, {"name": "tea", "price": 4.5, "gift": true}], "note": null}, {"id": "ZX-0001", "items": [], "note": "Leave it at the door, please."}]})"}},
      {"any JSON object",
       {Kind::kJsonObject},
       {R"({"title": "A walk along the coast", "tags": ["sea", "wind", "stone"], "length_km": 12.5, "steps": {"first": {"then": null}, "last": [1, 2, 3, true]}})"}},
      {"string of at most 200",
       {Kind::kJsonSchema,
        R"({"type":"object","properties":{"summary":{"type":"string","maxLength":200}},"required":["summary"],"additionalProperties":false})"},
       {R"({"summary": "The tide came in before noon and the boats were lifted from the mud one after the other, the blue one last, as it always is."})"}},
      {"regex: date and time",
       {Kind::kRegex,
        R"([0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)"},
       {"2026-11-27T19:04:59Z"}},
      {"EBNF: sums",
       {Kind::kEbnf,
        "root ::= term (\" \" [+*/-] \" \" term)*\nterm ::= [0-9]+ | \"(\" root \")\"\n"},
       {"12 + (3 * 45) - 6 / (7 + (8 - 9) * 1000)"}},
  };
}

// An answer that uses a count up: there a token that goes beyond it has to be refused.
Case AtItsEnd() {
  return {
      "string of at most 40, full",
      {GrammarSource::Kind::kJsonSchema,
       R"({"type":"object","properties":{"summary":{"type":"string","maxLength":40}},"required":["summary"],"additionalProperties":false})"},
      {R"({"summary": "The tide came in before noon and the)"}};
}

double Quantile(const std::vector<double>& sorted, double share) {
  return sorted[std::min(
      sorted.size() - 1,
      static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size()))) - 1)];
}

// Where every mask of the answer is narrowed, times microseconds each.
void PrintNarrowed(const Vocabulary& vocabulary, const Tokenizer& tokenizer, Grammars& grammars,
                   const Case& one) {
  constexpr int kRounds = 20;
  const auto constraint = testing::CompileNow(grammars, one.source);
  std::vector<uint32_t> bits(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32);
  std::vector<double> times[2];
  for (int round = 0; round < kRounds; ++round) {
    const auto mask = constraint->Begin();
    for (const int32_t id : Pieces(vocabulary, one.answers.front())) {
      mask->Fill(bits);
      for (int narrowed = 0; narrowed < 2; ++narrowed) {
        const auto start = Clock::now();
        mask->Narrow(bits, narrowed);
        times[narrowed].push_back(std::chrono::duration<double>(Clock::now() - start).count() *
                                  1e6);
      }
      mask->Accept(id);
    }
  }
  for (int narrowed = 0; narrowed < 2; ++narrowed) {
    std::sort(times[narrowed].begin(), times[narrowed].end());
    fmt::print("{:<26} {:>10} {:>8} {:>8.1f} {:>8.1f} {:>8.1f}\n", one.name,
               narrowed == 0 ? "narrowed" : "again", times[narrowed].size(),
               Quantile(times[narrowed], 0.5), Quantile(times[narrowed], 0.99),
               times[narrowed].back());
  }
}

int Run(const char* path, const char* helper) {
  constexpr int kRounds = 50;
  const Vocabulary vocabulary = ReadTiktoken(path);
  const Tokenizer tokenizer(vocabulary.spec);
  Grammars grammars(tokenizer, {.helper = {helper}});
  const auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  testing::CompileNow(grammars, {GrammarSource::Kind::kChoice,
                                 "[\"x\"]"});  // starts the helper, which learns the vocabulary
  fmt::print("{} tokens\n{:<26} {:>10} {:>8} {:>8} {:>8} {:>8}\n", tokenizer.vocab_size(), "",
             "compile ms", "masks", "p50 us", "p99 us", "most us");
  std::vector<double> all;
  for (const Case& one : Cases()) {
    const auto begin = Clock::now();
    const auto constraint = testing::CompileNow(grammars, one.source);
    const double compile = seconds(begin);
    std::vector<double> times;
    std::vector<uint32_t> bits(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32);
    for (int round = 0; round < kRounds; ++round) {
      for (const std::string& answer : one.answers) {
        const auto mask = constraint->Begin();
        for (const int32_t id : Pieces(vocabulary, answer)) {
          const auto start = Clock::now();
          mask->Fill(bits);
          const bool legal = testing::HasBit(bits, id) && mask->Accept(id);
          times.push_back(seconds(start) * 1e6);
          if (!legal) {
            Throw(ErrorCode::kInternal, "{}: {} is not legal where the answer has it", one.name,
                  vocabulary.spec.tokens[static_cast<size_t>(id)]);
          }
        }
      }
    }
    all.insert(all.end(), times.begin(), times.end());
    std::sort(times.begin(), times.end());
    fmt::print("{:<26} {:>10.1f} {:>8} {:>8.1f} {:>8.1f} {:>8.1f}\n", one.name, compile * 1e3,
               times.size(), Quantile(times, 0.5), Quantile(times, 0.99), times.back());
  }
  std::sort(all.begin(), all.end());
  fmt::print("{:<26} {:>10} {:>8} {:>8.1f} {:>8.1f} {:>8.1f}\n", "all", "", all.size(),
             Quantile(all, 0.5), Quantile(all, 0.99), all.back());
  PrintNarrowed(vocabulary, tokenizer, grammars, AtItsEnd());
  return 0;
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: grammar_bench VOCABULARY.tiktoken GRAMMAR_HELPER\n");
    return 2;
  }
  try {
    return bakestone::Run(argv[1], argv[2]);
  } catch (const bakestone::Error& error) {
    fmt::print(stderr, "grammar_bench: {}\n", error.what());
    return 1;
  }
}
