// The verbs. Each is a file of its own: flags -> options -> call -> print. A verb returns its exit
// code (0 ok, 1 failed) or throws: UsageError gives 2, Error gives 1.
#pragma once

#include <string>
#include <vector>

namespace bakestone::cli {

using Arguments = std::vector<std::string>;

struct Verb {
  const char* name;
  const char* summary;
  int (*run)(const Arguments& arguments);
};

int Bake(const Arguments& arguments);
int Bench(const Arguments& arguments);
int Data(const Arguments& arguments);
int Doctor(const Arguments& arguments);
int Embed(const Arguments& arguments);
int Score(const Arguments& arguments);
int Eval(const Arguments& arguments);
int Export(const Arguments& arguments);
int Merge(const Arguments& arguments);
int Quantize(const Arguments& arguments);
int Run(const Arguments& arguments);
int Serve(const Arguments& arguments);
int Show(const Arguments& arguments);
int Template(const Arguments& arguments);
int Tokenize(const Arguments& arguments);
int Train(const Arguments& arguments);

// Compiles grammars for a server, over a socket that is its standard input (grammar/grammar.h).
inline constexpr const char* kGrammarHelperVerb = "compile-grammars";

}  // namespace bakestone::cli
