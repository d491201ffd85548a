// What a request's tools make of the reply: one that has to call begins with a call and is nothing
// but calls of the functions' schemas; in another, calls of strict functions are held to theirs.
// Without the grammar library a required call is begun and no more, and `strict` says nothing.
#pragma once

#include <optional>
#include <string>

#include "server/api/chat_task.h"

namespace bakestone::api {

struct CallPlan {
  std::string begun = {};               // the reply's beginning, which is the prompt's end
  std::optional<AnswerForm> form = {};  // of what follows
};

// For tools that the model is offered. in_reasoning: the prompt ends inside of reasoning. Throws
// ApiError where a call cannot be required.
CallPlan PlanCalls(const ModelEntry& model, const ChatTask& task, bool in_reasoning);

}  // namespace bakestone::api
