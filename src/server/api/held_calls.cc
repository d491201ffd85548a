#include "server/api/held_calls.h"

#include <algorithm>
#include <utility>

#include "grammar/calls.h"
#include "server/api/api_error.h"

namespace bakestone::api {
namespace {

std::string NameOf(const Json& tool) { return tool["function"]["name"].get<std::string>(); }
bool IsStrict(const Json& tool) { return tool["function"].value("strict", Json(false)) == true; }

// named: the only one that may be called; null: all of them. all_strict: whatever they say.
std::vector<CallableFunction> FunctionsOf(const ChatTask& task, const std::string* named,
                                          bool all_strict) {
  std::vector<CallableFunction> functions;
  for (const Json& tool : task.tools) {
    const std::string name = NameOf(tool);
    if (named && name != *named) continue;
    const auto place = task.schema_fields.find(name);
    functions.push_back({.name = name,
                         .place = place == task.schema_fields.end() ? "tools" : place->second,
                         .parameters = tool["function"].value("parameters", Json()),
                         .strict = all_strict || IsStrict(tool)});
  }
  return functions;
}

}  // namespace

CallPlan PlanCalls(const ModelEntry& model, const ChatTask& task, bool in_reasoning) {
  const dialog::TemplateTraits& traits = model.chat->traits;
  const bool named = task.tool_choice.kind == ToolChoice::kNamed;
  const bool required = named || task.tool_choice.kind == ToolChoice::kRequired;
  HeldReply reply{
      .calls = WriteCalls(traits.format.calls, task.parallel_calls && traits.parallel_calls),
      .required = required};
  CallPlan plan;
  if (required) {
    if (task.continue_last) {
      UnsupportedField("tool_choice",
                       "tool_choice: a call cannot be required of a reply that is continued");
    }
    const std::string name = named                    ? task.tool_choice.name
                             : task.tools.size() == 1 ? NameOf(task.tools[0])
                                                      : "";
    reply.begun = CallOpening(reply.calls, name);
    plan.begun = in_reasoning ? traits.format.reasoning.end + "\n\n" + reply.begun : reply.begun;
  } else if (std::none_of(task.tools.begin(), task.tools.end(), IsStrict)) {
    return plan;
  }
  if (!GrammarsAreBuilt()) return plan;
  reply.functions = FunctionsOf(task, named ? &task.tool_choice.name : nullptr, required);
  reply.reasoning = traits.format.reasoning;
  reply.in_reasoning = in_reasoning;
  plan.form =
      AnswerForm{SourceOf(reply, model.model().tokenizer, model.chat->shown_control), "tools"};
  return plan;
}

}  // namespace bakestone::api
