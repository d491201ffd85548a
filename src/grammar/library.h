// All that touches the grammar library: xgrammar_library.cc does it with xgrammar, no_library.cc
// refuses where that was not there to build with. Internal to grammar/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/token_mask.h"
#include "grammar/wire.h"

namespace bakestone::grammar {

bool LibraryIsBuilt();

// In the helper: compiles grammars in EBNF and hands them over as bytes.
class LibraryCompiler {
 public:
  virtual ~LibraryCompiler() = default;
  // relaxed: the same without its counts of characters (grammar/bounded_mask.h), or equal to it.
  // Throws kInvalidArgument with the library's words.
  virtual std::string Compile(const std::string& ebnf, const std::string& relaxed) = 0;
};
std::unique_ptr<LibraryCompiler> MakeLibraryCompiler(const Vocabulary& vocabulary);

// In the server: what the helper handed over, ready to be used. Thread-safe.
class LibraryLoader {
 public:
  virtual ~LibraryLoader() = default;
  // markers: control tokens that stand for their spellings in it (grammar/calls.h). *bytes: about
  // what it keeps in memory.
  virtual std::shared_ptr<const Constraint> Load(const std::string& compiled,
                                                 const std::vector<int32_t>& markers,
                                                 size_t* bytes) const = 0;
};
std::unique_ptr<LibraryLoader> MakeLibraryLoader(const Vocabulary& vocabulary);

}  // namespace bakestone::grammar
