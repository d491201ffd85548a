// The texts of a request of OpenAI's older APIs: the prompts of a completion, the input of
// embeddings.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/api/fields.h"
#include "text/tokenizer.h"

namespace bakestone::openai {

struct TextInput {
  std::vector<int32_t> tokens;
  std::optional<std::string> text;  // absent: the client sent ids
};

// The named field: a string, a list of strings, a list of ids, or a list of lists of ids. Text gets
// the special tokens that the model wants, ids are taken as they are. Throws ApiError 400 for other
// values, ids outside the vocabulary, and more than `most` texts.
std::vector<TextInput> ReadTextInputs(api::Fields& fields, const std::string& name,
                                      const Tokenizer& tokenizer, size_t most);

}  // namespace bakestone::openai
