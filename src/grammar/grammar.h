// Answers of a given form: a grammar, compiled for a model's tokenizer, as the engine's Constraint.
// Compiling is done by another process with limits on its time and memory, because a hostile schema
// can take any amount of either; what was compiled is kept by the bytes that asked for it.
// Thread-safe.
//
// The library behind it (xgrammar) is optional: tools/get_xgrammar.sh fetches and builds it.
// Without it every request is refused with the way out.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace bakestone {

// What an answer has to be.
struct GrammarSource {
  enum class Kind : char {
    kJsonObject = 'o',  // any; text is empty
    kJsonSchema = 's',  // text: the schema (grammar/json_schema.h)
    kRegex = 'r',       // the whole answer matches it (grammar/regex.h)
    kEbnf = 'g',        // its rule root is the answer (grammar/ebnf.h)
    kChoice = 'c',      // text: a JSON list of texts, of which it is one
    kCalls = 't',       // text as SourceOf makes it (grammar/calls.h)
  };
  Kind kind = Kind::kJsonObject;
  std::string text = {};
};

// False where the program was built without the library.
bool GrammarsAreBuilt();

struct GrammarOptions {
  // A program and its arguments that calls RunGrammarHelper on its standard input, a socket.
  std::vector<std::string> helper = {};
  int64_t cpu_seconds = 10;                 // of one grammar
  int64_t memory_bytes = int64_t{3} << 30;  // of the helper
  size_t max_source_bytes = size_t{256} << 10;
  size_t max_compiled_bytes = size_t{64} << 20;  // of one grammar, as it is handed over
  size_t cache_bytes = size_t{256} << 20;        // of those that are kept, about
  size_t max_waiting = 16;
  std::chrono::seconds helper_idle{60};  // then the helper ends, until it is needed again
};

class Grammars {
 public:
  using Result = std::function<void(std::shared_ptr<const Constraint>, std::exception_ptr)>;

  // The tokenizer must outlive it and all that it compiled.
  Grammars(const Tokenizer& tokenizer, GrammarOptions options);
  ~Grammars();  // waiting results are told kUnavailable

  // Calls result once: at once where the grammar is known, else on a thread of its own. Its error
  // is an Error:
  // kInvalidArgument for a source that is not taken (and why), kUnsupported without the library,
  // kUnavailable when too many are waiting.
  void Compile(GrammarSource source, Result result);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The helper: answers what comes over the socket until its end. Returns the exit code. Lowers its
// own limits; for a process that does nothing else.
int RunGrammarHelper(int socket);

}  // namespace bakestone
