#include "text/dialog/messages.h"

#include <map>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "text/dialog/json_scanner.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

std::string Dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Text(const Json& message, const char* key) {
  const auto found = message.find(key);
  return found != message.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string Joined(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return a + b;
  return a + "\n\n" + b;
}

// Nine letters and digits that stand for any id.
std::string ShortId(const std::string& id) { return ToHex(HashOf(id)).substr(0, 9); }

// Arguments as the template reads them.
Json Arguments(const TemplateTraits& traits, const std::string& text) {
  if (!traits.object_arguments) return text;
  Json parsed = ParseBounded(text);
  return parsed.is_object() ? parsed : Json(text);
}

class Adapter {
 public:
  explicit Adapter(const TemplateTraits& traits) : traits_(traits) {}

  Json Run(const Json& messages, const Json& tools) {
    const bool explain = !tools.empty() && !traits_.format.calls.from_template;
    std::string system = explain ? Instructions(tools) : "";
    bool first = true;
    for (const Json& message : messages) {
      const std::string role = Text(message, "role");
      const bool is_system = role == "system" || (role == "developer" && !traits_.developer_role);
      if (is_system && (first || !traits_.late_system)) {
        system = first && explain ? Joined(Text(message, "content"), system)
                                  : Joined(system, Text(message, "content"));
      } else {
        Add(message, role, is_system);
      }
      first = false;
    }
    AddSystem(system);
    if (!traits_.repeated_role) MergeRepeated();
    if (!traits_.string_content) {
      for (Json& message : result_) {
        message["content"] = Json::array({{{"type", "text"}, {"text", Text(message, "content")}}});
      }
    }
    return std::move(result_);
  }

 private:
  void Add(const Json& message, const std::string& role, bool is_system) {
    if (role == "assistant") return AddAssistant(message);
    if (role == "tool") return AddResult(message);
    Json copy = {{"role", is_system ? "system" : role}, {"content", Text(message, "content")}};
    if (message.contains("name")) copy["name"] = message["name"];
    result_.push_back(std::move(copy));
  }

  void AddAssistant(const Json& message) {
    Json copy = {{"role", "assistant"}, {"content", Text(message, "content")}};
    const std::string reasoning = Text(message, "reasoning_content");
    if (!reasoning.empty()) {
      for (const std::string& key : traits_.reasoning_keys) copy[key] = reasoning;
    }
    const auto calls = message.find("tool_calls");
    const bool has_calls = calls != message.end() && calls->is_array() && !calls->empty();
    if (!has_calls) {
      result_.push_back(std::move(copy));
      return;
    }
    for (const Json& call : *calls) names_[Text(call, "id")] = Text(call["function"], "name");
    if (!traits_.tool_calls) {
      copy["content"] = Joined(Text(message, "content"), CallsAsText(*calls));
      result_.push_back(std::move(copy));
      return;
    }
    Json list = Json::array();
    for (const Json& call : *calls) {
      list.push_back({{"id", Id(Text(call, "id"))},
                      {"type", "function"},
                      {"function",
                       {{"name", call["function"]["name"]},
                        {"arguments", Arguments(traits_, Text(call["function"], "arguments"))}}}});
    }
    if (traits_.parallel_calls || list.size() == 1) {
      copy["tool_calls"] = std::move(list);
      result_.push_back(std::move(copy));
      return;
    }
    for (Json& call : list) {  // one message a call
      copy["tool_calls"] = Json::array({std::move(call)});
      result_.push_back(copy);
      copy["content"] = "";
    }
  }

  void AddResult(const Json& message) {
    const std::string id = Text(message, "tool_call_id");
    std::string name = Text(message, "name");
    if (name.empty() && names_.contains(id)) name = names_[id];
    if (!traits_.tool_results) {
      result_.push_back({{"role", "user"},
                         {"content", fmt::format("<tool_response>\n{}\n</tool_response>",
                                                 Text(message, "content"))}});
      return;
    }
    result_.push_back({{"role", "tool"},
                       {"name", name},
                       {"tool_call_id", Id(id)},
                       {"content", Text(message, "content")}});
  }

  std::string Id(const std::string& id) const { return traits_.short_ids ? ShortId(id) : id; }

  std::string CallsAsText(const Json& calls) const {
    std::string text;
    for (const Json& call : calls) {
      const std::string arguments = Text(call["function"], "arguments");
      if (!text.empty()) text += "\n";
      text +=
          WriteCall(Shown(), Text(call["function"], "name"), arguments.empty() ? "{}" : arguments);
    }
    return text;
  }

  // The syntax that past calls and the explanation are written in.
  const CallSyntax& Shown() const { return traits_.format.calls; }

  std::string Instructions(const Json& tools) const {
    std::string text;
    if (traits_.tools_key.empty()) {
      text = "You may call these functions to help with the user's request:\n<tools>\n";
      for (const Json& tool : tools) text += Dumped(tool) + "\n";
      text += "</tools>\n";
    }
    return text +
           "To call a function, write its name and a JSON object with its arguments exactly in "
           "this form:\n" +
           WriteCall(Shown(), "FUNCTION_NAME", "{\"ARGUMENT_NAME\": \"VALUE\"}");
  }

  void AddSystem(const std::string& system) {
    if (system.empty()) return;
    if (traits_.system_role) {
      result_.insert(result_.begin(), Json{{"role", "system"}, {"content", system}});
      return;
    }
    for (Json& message : result_) {
      if (message["role"] != "user") continue;
      message["content"] = Joined(system, Text(message, "content"));
      return;
    }
    result_.insert(result_.begin(), Json{{"role", "user"}, {"content", system}});
  }

  void MergeRepeated() {
    Json merged = Json::array();
    for (Json& message : result_) {
      const bool plain = !message.contains("tool_calls") &&
                         (message["role"] == "user" || message["role"] == "assistant");
      if (plain && !merged.empty() && merged.back()["role"] == message["role"] &&
          !merged.back().contains("tool_calls")) {
        merged.back()["content"] = Joined(Text(merged.back(), "content"), Text(message, "content"));
      } else {
        merged.push_back(std::move(message));
      }
    }
    result_ = std::move(merged);
  }

  const TemplateTraits& traits_;
  Json result_ = Json::array();
  std::map<std::string, std::string> names_;  // of calls, by id: results often have the id alone
};

// Templates take for granted what clients may leave out.
Json Complete(Json tools) {
  for (Json& tool : tools) {
    Json& function = tool["function"];
    if (!function.contains("description")) function["description"] = "";
    if (!function.contains("parameters") || !function["parameters"].is_object()) {
      function["parameters"] = {{"type", "object"}};
    }
    if (!function["parameters"].contains("properties")) {
      function["parameters"]["properties"] = Json::object();
    }
  }
  return tools;
}

}  // namespace

TemplateInput AdaptMessages(const TemplateTraits& traits, const Json& messages, const Json& tools) {
  TemplateInput input;
  input.variables = Json::object();
  input.messages = Adapter(traits).Run(messages, tools);
  if (!tools.empty() && !traits.tools_key.empty()) {
    input.variables[traits.tools_key] = Complete(tools);
  }
  return input;
}

}  // namespace bakestone::dialog
