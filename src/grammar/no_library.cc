#include "base/error.h"
#include "grammar/library.h"

namespace bakestone::grammar {
namespace {

[[noreturn]] void Refuse() {
  Throw(ErrorCode::kUnsupported,
        "this program was built without xgrammar, which answers of a given form need: run "
        "tools/get_xgrammar.sh and build again");
}

}  // namespace

bool LibraryIsBuilt() { return false; }
std::unique_ptr<LibraryCompiler> MakeLibraryCompiler(const Vocabulary&) { Refuse(); }
std::unique_ptr<LibraryLoader> MakeLibraryLoader(const Vocabulary&) { Refuse(); }

}  // namespace bakestone::grammar
