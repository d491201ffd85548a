// Stands in for what xgrammar reads beside its own grammars: schemas are turned into grammars in src/grammar/, and
// the library's readers of schemas, Lark and structural tags are half of what compiling it takes.
#include <stdexcept>

#include "json_schema_converter.h"
#include "lark_converter.h"
#include "structural_tag.h"

namespace xgrammar {
namespace {

[[noreturn]] void NotBuilt() { throw std::logic_error("this part of xgrammar was not built (tools/get_xgrammar.sh)"); }

}  // namespace

Grammar JSONSchemaToGrammar(const std::string&, bool, std::optional<int>, std::optional<std::pair<std::string, std::string>>,
                            bool, std::optional<int>, bool, JSONFormat, std::vector<std::string>) {
  NotBuilt();
}
Grammar LarkToGrammar(const std::string&, const std::optional<TokenizerInfo>&, const std::vector<NamedGrammar>&) { NotBuilt(); }
Result<Grammar, StructuralTagError> StructuralTagToGrammar(const std::string&, const std::optional<TokenizerInfo>&) { NotBuilt(); }

}  // namespace xgrammar
