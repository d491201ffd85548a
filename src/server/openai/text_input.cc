#include "server/openai/text_input.h"

#include <fmt/format.h>

#include "server/api/answer.h"

namespace bakestone::openai {
namespace {

using api::Fields;
using api::Json;

TextInput FromIds(const Fields& fields, const std::string& name, const Tokenizer& tokenizer,
                  const Json& ids) {
  TextInput input;
  for (const Json& id : ids) {
    const bool valid = id.is_number_integer() && id >= 0 && id < tokenizer.vocab_size();
    if (!valid) {
      fields.Bad(
          name, fmt::format("expected token ids from 0 to {}, found {}", tokenizer.vocab_size() - 1,
                            id.is_number() ? api::Dump(id) : id.type_name()));
    }
    input.tokens.push_back(id.get<int32_t>());
  }
  return input;
}

}  // namespace

std::vector<TextInput> ReadTextInputs(Fields& fields, const std::string& name,
                                      const Tokenizer& tokenizer, size_t most) {
  const auto of_text = [&](const std::string& text) {
    return TextInput{tokenizer.Encode(text), text};
  };
  const Json* value = fields.Find(name);
  if (value && value->is_string()) return {of_text(value->get<std::string>())};
  if (!value || !value->is_array() || value->empty()) {
    fields.Bad(name,
               "expected a string, a list of strings, a list of token ids or a list of such lists");
  }
  if ((*value)[0].is_number()) return {FromIds(fields, name, tokenizer, *value)};
  if (value->size() > most) {
    fields.Bad(name, fmt::format("expected at most {} texts, found {}", most, value->size()));
  }
  std::vector<TextInput> inputs;
  for (const Json& item : *value) {
    if (item.is_string()) {
      inputs.push_back(of_text(item.get<std::string>()));
    } else if (item.is_array()) {
      inputs.push_back(FromIds(fields, name, tokenizer, item));
    } else {
      fields.Bad(name,
                 fmt::format("expected strings or lists of token ids, found {}", item.type_name()));
    }
  }
  return inputs;
}

}  // namespace bakestone::openai
