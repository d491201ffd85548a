// What every family's `tools` and `tool_choice` have in common, whatever the form of one tool.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::api {

// Reads the list `tools` into the task. read makes a function {name, description, parameters, ...}
// of a tool, which is an object, or nothing where it is left out; where: "tools[0].". schema: the
// place of the parameters' schema in a tool. Throws ApiError: no list, too long, a name twice.
void ReadToolList(
    Fields& fields, ChatTask* task, const char* schema,
    const std::function<std::optional<Json>(const Json& tool, const std::string& where)>& read);

// A function's name as every API allows it: throws ApiError naming the field.
std::string RequiredToolName(Fields& function);

// OpenAI's words: none, auto, required.
ToolChoice::Kind ChoiceOfWord(const Fields& fields, const std::string& word);
// Throws ApiError where a call is required and there are no tools.
void CheckToolChoice(const Fields& fields, const ChatTask& task);

}  // namespace bakestone::api
