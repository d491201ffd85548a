#include <algorithm>

#include "text/chat/builtins.h"

namespace bakestone::chat {

Params::Params(std::string_view function, const CallArgs& args,
               std::initializer_list<std::string_view> names, std::size_t required)
    : function_(function), names_(names), values_(names.size()) {
  if (args.positional.size() > names_.size()) {
    FailF("{}() takes at most {} arguments ({} given)", function, names_.size(),
          args.positional.size());
  }
  for (std::size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keyword) {
    const auto it = std::find(names_.begin(), names_.end(), name);
    if (it == names_.end() || name.empty()) {
      FailF("{}() got an unexpected keyword argument '{}'", function, name);
    }
    const auto at = static_cast<std::size_t>(it - names_.begin());
    if (values_[at] != nullptr) FailF("{}() got multiple values for argument '{}'", function, name);
    values_[at] = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (values_[i] == nullptr) {
      FailF("{}() misses its argument {}{}", function, i + 1,
            names_[i].empty() ? std::string() : " (" + std::string(names_[i]) + ")");
    }
  }
}

Int Params::Integer(std::size_t i, Int fallback) const {
  if (!Has(i)) return fallback;
  if (!values_[i]->is_integral()) {
    FailF("{}(): '{}' object cannot be interpreted as an integer", function_,
          values_[i]->type_name());
  }
  return values_[i]->as_int();
}

const Text& Params::String(std::size_t i) const {
  if (!values_[i]->is_string()) {
    FailF("{}() argument {} must be str, not {}", function_, i + 1, values_[i]->type_name());
  }
  return values_[i]->text();
}

}  // namespace bakestone::chat
