#include "text/dialog/template_traits.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFirst = "First words.";
constexpr const char* kSecond = "Second words.";
constexpr const char* kThought = "Thought words.";
constexpr const char* kResult = "Result words.";
constexpr const char* kToolName = "probe_tool";
constexpr const char* kToolText = "Probes deep things.";

Json Message(const char* role, const Json& content) {
  return {{"role", role}, {"content", content}};
}

Json ProbeTools() {
  const Json parameters = {
      {"type", "object"},
      {"properties", {{"depth", {{"type", "string"}, {"description", "How deep."}}}}},
      {"required", {"depth"}}};
  return Json::array(
      {{{"type", "function"},
        {"function",
         {{"name", kToolName}, {"description", kToolText}, {"parameters", parameters}}}}});
}

class Prober {
 public:
  Prober(const chat::ChatTemplate& chat_template, const Json& tokens,
         const std::function<bool(const char*)>& has_token)
      : template_(chat_template), tokens_(tokens), has_token_(has_token) {}

  // Nothing where the template refuses. tools_key: where the definitions go; empty: none are given.
  std::optional<std::string> Render(const Json& messages, const std::string& tools_key = "",
                                    bool generation = false) const {
    Json context = tokens_;
    context["messages"] = messages;
    context["add_generation_prompt"] = generation;
    if (!tools_key.empty()) context[tools_key] = ProbeTools();
    chat::RenderOptions options;
    options.now = std::chrono::local_seconds(std::chrono::seconds(1'700'000'000));
    try {
      return template_.Render(context, options).text;
    } catch (const Error&) {
      return std::nullopt;
    }
  }
  bool Shows(const Json& messages, std::initializer_list<const char*> texts,
             const std::string& tools_key = "") const {
    const auto text = Render(messages, tools_key);
    return text && std::all_of(texts.begin(), texts.end(),
                               [&](const char* t) { return text->find(t) != std::string::npos; });
  }
  bool Mentions(std::string_view word) const {
    return template_.source().find(word) != std::string::npos;
  }
  bool Knows(const char* marker) const {
    return Mentions(marker) || (has_token_ && has_token_(marker));
  }
  // As a key or an attribute: "x.word", "'word'".
  bool ReadsKey(std::string_view word) const {
    const std::string& source = template_.source();
    const auto is_word = [](char c) {
      return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    for (size_t at = source.find(word); at != std::string::npos; at = source.find(word, at + 1)) {
      const char before = at > 0 ? source[at - 1] : ' ';
      const char after = at + word.size() < source.size() ? source[at + word.size()] : ' ';
      if ((before == '.' || before == '\'' || before == '"') && !is_word(after)) return true;
    }
    return false;
  }

 private:
  const chat::ChatTemplate& template_;
  const Json& tokens_;
  const std::function<bool(const char*)>& has_token_;
};

Json WithCalls(const TemplateTraits& traits, int calls) {
  Json message = Message("assistant", "");
  message["tool_calls"] = ProbeCalls(calls, traits.object_arguments);
  return Json::array({Message("user", kFirst), std::move(message)});
}

void LearnRoles(const Prober& prober, TemplateTraits* traits) {
  const Json user = Message("user", kFirst);
  traits->string_content =
      prober.Shows(Json::array({user}), {kFirst}) ||
      !prober.Shows(
          Json::array({Message("user", Json::array({{{"type", "text"}, {"text", kFirst}}}))}),
          {kFirst});
  if (!traits->string_content) {
    return;  // such templates are of models that see images; the rest is as usual
  }
  traits->system_role =
      prober.Shows(Json::array({Message("system", kSecond), user}), {kFirst, kSecond});
  traits->late_system =
      traits->system_role &&
      prober.Shows(Json::array({Message("system", "Be brief."), user, Message("assistant", "Yes."),
                                Message("system", kSecond), Message("user", "Go on.")}),
                   {kFirst, kSecond});
  traits->developer_role =
      prober.Mentions("developer") &&
      prober.Shows(Json::array({Message("developer", kSecond), user}), {kFirst, kSecond});
  traits->repeated_role =
      prober.Shows(Json::array({user, Message("user", kSecond)}), {kFirst, kSecond});
}

void LearnTools(const Prober& prober, TemplateTraits* traits) {
  traits->tools_key.clear();
  for (const char* key : {"tools", "xml_tools", "functions"}) {
    if (prober.Mentions(key) &&
        prober.Shows(Json::array({Message("user", kFirst)}), {kToolName, kToolText}, key)) {
      traits->tools_key = key;
      break;
    }
  }
}

// How calls of the past show, and so how the model writes them.
void LearnCalls(const Prober& prober, TemplateTraits* traits) {
  const auto shown = [&](bool object, int calls) -> std::optional<std::string> {
    traits->object_arguments = object;
    const auto text = prober.Render(WithCalls(*traits, calls), traits->tools_key);
    if (!text) return std::nullopt;
    const bool both = text->find("needle_one") != std::string::npos &&
                      text->find("vvalue") != std::string::npos &&
                      (calls < 2 || text->find("needle_two") != std::string::npos);
    // A string of JSON that was quoted once more is not what the model writes.
    return both && text->find("\\\"kkey") == std::string::npos ? text : std::nullopt;
  };
  const Json user = Message("user", kFirst);
  const std::vector<std::string> others = {
      prober.Render(Json::array({user, Message("assistant", "")}), traits->tools_key).value_or(""),
      prober.Render(Json::array({user}), traits->tools_key, /*generation=*/true).value_or("")};
  bool any = false, shows_objects = true;
  for (const auto& [object, calls] : {std::pair(true, 2), {false, 2}, {true, 1}, {false, 1}}) {
    const auto text = shown(object, calls);
    if (!text) continue;
    const CallSyntax syntax = LearnCallSyntax(*text, others, traits->format.reasoning);
    if (any && syntax.shape == CallShape::kNone) {
      continue;  // shown, though not so that it can be read
    }
    any = true;
    shows_objects = object;
    traits->parallel_calls = calls == 2;
    traits->format.calls = syntax;
    if (syntax.shape != CallShape::kNone) break;
  }
  traits->tool_calls = any;
  traits->object_arguments = shows_objects;
  Json long_id = WithCalls(*traits, 1);
  long_id[1]["tool_calls"][0]["id"] = "call_0123456789abcdef01234567";
  traits->short_ids = any && !prober.Render(long_id, traits->tools_key);
  Json with_result = WithCalls(*traits, 1);
  with_result.push_back({{"role", "tool"},
                         {"name", "needle_one"},
                         {"tool_call_id", "callid001"},
                         {"content", kResult}});
  traits->tool_results =
      any && prober.Shows(with_result, {kResult, "needle_one"}, traits->tools_key);
}

// JSON objects between tags, which models of many families have seen; ours where a template has
// none.
CallSyntax TaggedObjects() {
  return {.shape = CallShape::kJsonObject,
          .call_begin = "<tool_call>\n",
          .call_end = "\n</tool_call>",
          .separator = "\n",
          .before_name = "{\"name\": \"",
          .after_name = "\", \"arguments\": ",
          .after_arguments = "}"};
}

// Families whose templates do not show calls of the past: told by the markers that their templates
// or vocabularies have.
CallSyntax KnownCallSyntax(const Prober& prober) {
  CallSyntax syntax = TaggedObjects();
  const auto array = [&](const char* begin, const char* end) {
    syntax.call_begin = syntax.call_end = "";
    syntax.section_begin = std::string(begin) + "[";
    syntax.section_end = std::string("]") + end;
    syntax.separator = ", ";
    return syntax;
  };
  if (prober.Knows("<|tool_call_start|>")) {  // LFM2
    return {.shape = CallShape::kPython,
            .section_begin = "<|tool_call_start|>[",
            .section_end = "]<|tool_call_end|>",
            .separator = ", "};
  }
  if (prober.Knows("<start_function_call>")) {  // FunctionGemma
    return {.shape = CallShape::kBraces,
            .call_begin = "<start_function_call>call:",
            .call_end = "<end_function_call>",
            .quote = "<escape>"};
  }
  if (prober.Knows("[TOOL_CALLS]")) return array("[TOOL_CALLS]", "");  // Mistral
  if (prober.Knows("<|tool_call|>")) {                                 // Granite 3, Phi 4
    return array("<|tool_call|>", prober.Knows("<|/tool_call|>") ? "<|/tool_call|>" : "");
  }
  if (prober.Mentions("functools")) return array("functools", "");  // Phi 3.5
  syntax.from_template = prober.Mentions("<tool_call>");            // Hermes, Qwen, SmolLM3
  return syntax;
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n\t\r");
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(" \n\t\r") + 1 - begin);
}

// The last marker before the thought and the first behind it.
ReasoningSyntax ReasoningAround(const std::string& text) {
  const size_t at = text.find(kThought);
  const std::string before = Trimmed(text.substr(0, at)),
                    after = Trimmed(text.substr(at + std::string_view(kThought).size()));
  const size_t begin = before.rfind('<'), end = after.find('>');
  if (!before.ends_with('>') || begin == std::string::npos || !after.starts_with('<') ||
      end == std::string::npos) {
    return {};
  }
  ReasoningSyntax syntax{before.substr(begin), after.substr(0, end + 1)};
  const bool paired = syntax.begin.find("think") != std::string::npos ||
                      syntax.begin.find("THINK") != std::string::npos ||
                      syntax.begin.find("reason") != std::string::npos;
  return paired ? syntax : ReasoningSyntax{};
}

void LearnReasoning(const Prober& prober, TemplateTraits* traits) {
  for (const char* key : {"reasoning_content", "thinking", "reasoning"}) {
    if (prober.ReadsKey(key)) traits->reasoning_keys.emplace_back(key);
  }
  Json answer = Message("assistant", kSecond);
  for (const std::string& key : traits->reasoning_keys) answer[key] = kThought;
  const auto text = prober.Render(Json::array({Message("user", kFirst), answer}));
  if (text && text->find(kThought) != std::string::npos) {
    traits->format.reasoning = ReasoningAround(*text);
  }
  if (traits->format.reasoning.present()) return;
  static constexpr std::pair<const char*, const char*> kKnown[] = {
      {"<think>", "</think>"},
      {"<seed:think>", "</seed:think>"},
      {"[THINK]", "[/THINK]"},
      {"<|channel>thought", "<channel|>"},
      {"<|START_THINKING|>", "<|END_THINKING|>"},
      {"<reasoning>", "</reasoning>"},
      {"<thinking>", "</thinking>"}};
  for (const auto& [begin, end] : kKnown) {
    if (!prober.Mentions(begin) && !prober.Mentions(end)) continue;
    traits->format.reasoning = {begin, end};
    return;
  }
}

}  // namespace

TemplateTraits LearnTraits(const chat::ChatTemplate& chat_template, const Json& tokens,
                           const std::function<bool(const char*)>& has_token) {
  const Prober prober(chat_template, tokens, has_token);
  TemplateTraits traits;
  LearnRoles(prober, &traits);
  LearnTools(prober, &traits);
  LearnReasoning(prober, &traits);
  LearnCalls(prober, &traits);
  CallSyntax& calls = traits.format.calls;
  if (prober.Mentions("<|channel|>") && prober.Mentions("<|message|>")) {
    calls = CallSyntax{.shape = CallShape::kHarmony};
    traits.format.reasoning = {};
  } else if (calls.shape == CallShape::kNone && !traits.tool_calls) {
    calls = KnownCallSyntax(prober);
  }
  if (prober.Mentions("<|python_tag|>")) calls.alternate_begin = "<|python_tag|>";
  if (traits.tools_key.empty() &&
      calls.shape != CallShape::kNone) {  // the prompt explains: in a syntax that it can
    const bool simple = calls.shape == CallShape::kJsonObject ||
                        calls.shape == CallShape::kNamedObject ||
                        calls.shape == CallShape::kNameThenJson;
    if (!simple) calls = TaggedObjects();
    calls.from_template = false;
  }
  return traits;
}

}  // namespace bakestone::dialog
