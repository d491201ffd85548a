#include "server/api/chat_task.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "engine/chat.h"
#include "server/api/api_error.h"
#include "server/api/held_calls.h"
#include "text/dialog/messages.h"

namespace bakestone::api {
namespace {

// The variables by which templates are told how much to reason.
void SetEffort(const ChatTask& task, const Model& model, Json* variables) {
  if (!task.effort) return;
  const std::string& source = model.chat_template->source();
  const auto set = [&](const char* name, const Json& value) {
    if (source.find(name) != std::string::npos && !variables->contains(name)) {
      (*variables)[name] = value;
    }
  };
  if (*task.effort != "none") set("reasoning_effort", *task.effort);
  set("enable_thinking", *task.effort != "none");
  set("thinking", *task.effort != "none");
}

// True where the prompt's end has opened reasoning and not closed it.
bool EndsInReasoning(const dialog::ReasoningSyntax& syntax, const std::string& prompt) {
  if (!syntax.present() || syntax.begin.empty()) return false;
  constexpr size_t kTail = 200;  // what a template writes to open an answer
  const std::string tail = prompt.size() > kTail ? prompt.substr(prompt.size() - kTail) : prompt;
  const size_t begin = tail.rfind(syntax.begin), end = tail.rfind(syntax.end);
  if (begin == std::string::npos || (end != std::string::npos && end > begin)) return false;
  // Only white space may follow: else it is a message that speaks of the marker.
  return tail.find_first_not_of(" \n\t\r", begin + syntax.begin.size()) == std::string::npos;
}

// What comes before a reply of a given form: no reasoning, and where replies come in channels, the
// last one's opening.
std::string FormOpening(const ChatTask& task, const dialog::ReplyFormat& format,
                        bool in_reasoning) {
  const std::string& field = task.form->field;
  if (task.continue_last) {
    UnsupportedField(field, field + ": not together with a reply that is continued");
  }
  if (!task.tools.empty() && task.tool_choice.kind != ToolChoice::kNone) {
    UnsupportedField(field, field +
                                ": not together with tools, which the reply could not call; leave "
                                "them out, or say \"tool_choice\": \"none\"");
  }
  if (format.calls.shape == dialog::CallShape::kHarmony) return "<|channel|>final<|message|>";
  return in_reasoning ? format.reasoning.end + "\n\n" : "";
}

void CheckTools(const ChatTask& task, const ChatSupport& support) {
  if (task.tools.empty()) return;
  if (support.traits.format.calls.shape == dialog::CallShape::kNone) {
    UnsupportedField("tools",
                     "tools: this model's chat template writes tool calls in a way that this "
                     "server cannot read");
  }
  if (task.tool_choice.kind != ToolChoice::kNamed) return;
  const bool known = std::any_of(task.tools.begin(), task.tools.end(), [&](const Json& tool) {
    return tool["function"]["name"] == task.tool_choice.name;
  });
  if (!known) {
    BadField("tool_choice", fmt::format("tool_choice: there is no tool '{}' among the tools",
                                        task.tool_choice.name.substr(0, 100)));
  }
}

}  // namespace

bool FitMaxTokens(const ModelEntry& model, std::vector<GenerationRequest>* requests) {
  bool less = false;
  for (GenerationRequest& request : *requests) {
    const int64_t room = model.engine().max_context() - static_cast<int64_t>(request.prompt.size());
    if (!request.max_tokens || room < 1 || *request.max_tokens <= room) continue;
    request.max_tokens = room;
    less = true;
  }
  return less;
}

bool IsToolName(const std::string& name) {
  constexpr size_t kMostBytes = 128;
  return !name.empty() && name.size() <= kMostBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
         });
}

PreparedChat PrepareChat(const ModelEntry& model, const ChatTask& task) {
  if (!model.chat) {
    Throw(ErrorCode::kUnsupported,
          "messages: the model '{}' has no chat template, so it cannot hold a conversation; use "
          "/v1/completions",
          model.served.id);
  }
  const ChatSupport& support = *model.chat;
  CheckTools(task, support);
  const bool offer = !task.tools.empty() && task.tool_choice.kind != ToolChoice::kNone;
  dialog::TemplateInput input =
      dialog::AdaptMessages(support.traits, task.messages, offer ? task.tools : Json::array());
  Json variables = task.variables;
  variables.update(input.variables);
  SetEffort(task, model.model(), &variables);
  ChatPrompt prompt =
      RenderChat(model.model(), input.messages,
                 ChatOptions{.continue_last = task.continue_last, .variables = &variables});

  PreparedChat prepared;
  prepared.one_call = !task.parallel_calls;
  prepared.parsing.reads_calls = offer;
  prepared.parsing.in_reasoning =
      !task.continue_last && EndsInReasoning(support.traits.format.reasoning, prompt.text);
  for (const Json& tool : task.tools) {
    const Json& function = tool["function"];
    prepared.parsing.tools[function["name"].get<std::string>()] =
        function.value("parameters", Json());
  }
  if (task.form) {
    prepared.begun = FormOpening(task, support.traits.format, prepared.parsing.in_reasoning);
    prepared.form = task.form;
  } else if (offer) {
    CallPlan plan = PlanCalls(model, task, prepared.parsing.in_reasoning);
    prepared.begun = std::move(plan.begun);
    prepared.form = std::move(plan.form);
  }
  GenerationRequest request = task.request;
  request.prompt = std::move(prompt.tokens);
  if (!prepared.begun.empty()) {  // the template's words and a checked name: control tokens may be
                                  // read from it
    for (const int32_t token : model.model().tokenizer.Encode(
             prepared.begun, {.add_special = false, .parse_special = true})) {
      request.prompt.push_back(token);
    }
  }
  request.adapter = model.adapter();
  request.shown_control = support.shown_control;
  for (int64_t i = 0; i < task.n; ++i) {
    prepared.requests.push_back(request);
    prepared.requests.back().sampling.stream = static_cast<uint64_t>(i);
  }
  return prepared;
}

}  // namespace bakestone::api
