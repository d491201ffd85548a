// A /v1/messages request's conversation and tools, checked and brought to what a ChatTask has.
// Throws ApiError that names the field and the place in it.
#pragma once

#include <string>
#include <vector>

#include "server/api/chat_task.h"
#include "server/api/fields.h"

namespace bakestone::anthropic {

using api::Json;

// The fields "system" and "messages". A last message of the assistant's is the beginning of the
// reply.
void ReadConversation(api::Fields& fields, api::ChatTask* task);

// tools and tool_choice. Tools that only their owner's server can run are left out; their types are
// added to dropped.
void ReadTools(api::Fields& fields, api::ChatTask* task, std::vector<std::string>* dropped);

}  // namespace bakestone::anthropic
