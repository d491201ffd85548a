// For tests: grammars over the tiny model's tokenizer, which has a token for each byte.
#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/test_engine.h"
#include "grammar/grammar.h"

namespace bakestone::testing {

// The helper lies beside the test binaries' folders.
inline GrammarOptions TestGrammarOptions() {
  return {.helper = {std::filesystem::read_symlink("/proc/self/exe").parent_path() /
                     "../grammar/grammar_helper"}};
}

// Waits. Throws what the compiler refuses with.
inline std::shared_ptr<const Constraint> CompileNow(Grammars& grammars, GrammarSource source) {
  using Compiled = std::pair<std::shared_ptr<const Constraint>, std::exception_ptr>;
  std::promise<Compiled>
      done;  // as a value: set_exception would keep a reference on the other thread
  grammars.Compile(std::move(source),
                   [&](std::shared_ptr<const Constraint> constraint, std::exception_ptr error) {
                     done.set_value({std::move(constraint), std::move(error)});
                   });
  Compiled compiled = done.get_future().get();
  if (compiled.second) std::rethrow_exception(std::move(compiled.second));
  return std::move(compiled.first);
}

inline bool HasBit(const std::vector<uint32_t>& bits, int32_t id) {
  return (bits[static_cast<size_t>(id) / 32] >> (id % 32) & 1) != 0;
}

// How an answer of these bytes fares: refused at a byte, or not complete at its end, or taken.
inline bool Takes(const Constraint& constraint, std::string_view text) {
  const Tokenizer& tokenizer = SharedTestModel()->tokenizer;
  const auto mask = constraint.Begin();
  for (const char c : text) {
    if (!mask->Accept(kTestFirstByte + static_cast<uint8_t>(c))) return false;
  }
  std::vector<uint32_t> bits(static_cast<size_t>(tokenizer.vocab_size() + 31) / 32);
  mask->Fill(bits);
  const int32_t end = tokenizer.EndOfGeneration()[0];
  return HasBit(bits, end) && mask->Confirm(end);
}

}  // namespace bakestone::testing
