// The input and the tools of a /v1/responses request, brought to what a ChatTask has. Throws
// ApiError that names the field and the place in it.
#pragma once

#include <string>
#include <vector>

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::openai {

using api::Json;

// The field "input": a string or a list of items. Appended to messages, in the form of chat
// messages:
// reasoning and calls that follow each other become one assistant's message.
void ReadInput(api::Fields& fields, Json* messages);

// tools, tool_choice, parallel_tool_calls. Tools that only their owner's server can run are left
// out; their types are added to dropped.
void ReadResponseTools(api::Fields& fields, api::ChatTask* task, std::vector<std::string>* dropped);

}  // namespace bakestone::openai
