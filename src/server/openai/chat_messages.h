// A chat request's messages and tools, checked and brought to what templates are given. Throws
// ApiError that names the field and the place in it.
#pragma once

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::openai {

using api::Json;

// The field "messages": roles system, developer, user, assistant, tool.
Json ReadMessages(api::Fields& fields);

// tools, tool_choice, parallel_tool_calls; the older functions and function_call are refused by
// name.
void ReadTools(api::Fields& fields, api::ChatTask* task);

// A function's name, description, parameters and strict; where: "tools[0].function.".
Json ReadFunction(const Json& function, const std::string& where, const std::string& param);

// A message's text: a string, or a list of parts whose type is among these names. param: the body's
// field.
std::string TextOfParts(const Json& content, const std::string& where,
                        std::initializer_list<const char*> types,
                        const std::string& param = "messages");

}  // namespace bakestone::openai
