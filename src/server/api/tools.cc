#include "server/api/tools.h"

#include <set>
#include <utility>

#include <fmt/format.h>

#include "server/api/api_error.h"

namespace bakestone::api {
namespace {

constexpr size_t kMaxTools = 256;

}  // namespace

void ReadToolList(
    Fields& fields, ChatTask* task, const char* schema,
    const std::function<std::optional<Json>(const Json& tool, const std::string& where)>& read) {
  const Json* tools = fields.Find("tools");
  if (!tools) return;
  if (!tools->is_array() || tools->size() > kMaxTools) {
    fields.Bad("tools", fmt::format("expected a list of at most {} tools", kMaxTools));
  }
  std::set<std::string> names;
  for (size_t i = 0; i < tools->size(); ++i) {
    const std::string where = fmt::format("tools[{}].", i);
    if (!(*tools)[i].is_object()) BadField("tools", where + " expected an object");
    std::optional<Json> function = read((*tools)[i], where);
    if (!function) continue;
    const std::string name = (*function)["name"].get<std::string>();
    if (!names.insert(name).second) BadField("tools", where + "name: two tools have this name");
    task->schema_fields[name] = where + schema;
    task->tools.push_back({{"type", "function"}, {"function", std::move(*function)}});
  }
}

std::string RequiredToolName(Fields& function) {
  std::string name = function.RequiredString("name");
  if (!IsToolName(name)) function.Bad("name", "expected 1 to 128 letters, digits, '_', '-' or '.'");
  return name;
}

ToolChoice::Kind ChoiceOfWord(const Fields& fields, const std::string& word) {
  if (word == "none") return ToolChoice::kNone;
  if (word == "auto") return ToolChoice::kAuto;
  if (word == "required") return ToolChoice::kRequired;
  fields.Bad("tool_choice", "expected none, auto, required or an object that names a function");
}

void CheckToolChoice(const Fields& fields, const ChatTask& task) {
  const bool needs_tools =
      task.tool_choice.kind == ToolChoice::kRequired || task.tool_choice.kind == ToolChoice::kNamed;
  if (needs_tools && task.tools.empty()) {
    fields.Bad("tool_choice", "a call cannot be required without functions that the client runs");
  }
}

}  // namespace bakestone::api
