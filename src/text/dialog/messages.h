// Brings a conversation in OpenAI's form to what a model's template can show: what the template has
// no place for is said in words that it has a place for, so that nothing is lost in silence.
#pragma once

#include <nlohmann/json.hpp>

#include "text/dialog/template_traits.h"

namespace bakestone::dialog {

// What a template is given.
struct TemplateInput {
  nlohmann::ordered_json messages;
  nlohmann::ordered_json
      variables;  // further top-level variables: the tools, under the name that it reads
};

// messages: objects with role system, developer, user, assistant or tool; content a string; an
// assistant's tool_calls [{id, function: {name, arguments: string of JSON}}] and reasoning_content;
// a tool's tool_call_id. tools: [{type: "function", function: {...}}], may be empty.
TemplateInput AdaptMessages(const TemplateTraits& traits, const nlohmann::ordered_json& messages,
                            const nlohmann::ordered_json& tools);

}  // namespace bakestone::dialog
