#include <fstream>
#include <iterator>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/source_dir.h"
#include "text/chat/template.h"
#include "text/dialog/call_values.h"
#include "text/dialog/json_scanner.h"
#include "text/dialog/messages.h"
#include "text/dialog/reply_parser.h"
#include "text/dialog/template_traits.h"
#include "text/dialog/written_calls.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

const Json kTokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};

std::string File(const std::string& name) {
  std::ifstream file(std::string(SourceDir()) + "/tests/data/chat/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

TemplateTraits TraitsOf(const std::string& source) {
  return LearnTraits(chat::ChatTemplate::Parse(source), kTokens);
}

// A template that shows tools, and calls with the given body of a loop over `call`; begin and end
// surround them.
std::string Template(const std::string& call, const std::string& begin = "",
                     const std::string& end = "") {
  return "{% if tools %}[tools]{{ tools | tojson }}[/tools]\n{% endif %}"
         "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content "
         "}}"
         "{% if message.tool_calls %}" +
         begin + "{% for tool_call in message.tool_calls %}{% set call = tool_call.function %}" +
         call + "{% endfor %}" + end +
         "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
}

std::string Many(size_t n, char c) {
  std::string text;
  while (text.size() < n) text.push_back(c);
  return text;
}

// The whole of what a parser says.
struct Read {
  std::string reasoning, text;
  std::vector<std::pair<std::string, std::string>> calls;
  std::vector<bool> ended;

  void Add(const ReplyDelta& delta) {
    reasoning += delta.reasoning;
    text += delta.text;
    for (const CallDelta& call : delta.calls) {
      if (call.begins) {
        EXPECT_EQ(call.index, static_cast<int64_t>(calls.size()));
        calls.emplace_back(call.name, "");
        ended.push_back(false);
      }
      ASSERT_EQ(call.index, static_cast<int64_t>(calls.size()) - 1);
      EXPECT_FALSE(ended.back());
      calls.back().second += call.arguments;
      if (call.ends) ended.back() = true;
    }
  }
};

Read ReadReply(const ReplyFormat& format, const std::string& reply, size_t piece,
               ReplyParserOptions options) {
  const auto parser = MakeReplyParser(format, std::move(options));
  Read read;
  for (size_t at = 0; at < reply.size(); at += piece) {
    read.Add(parser->Append(std::string_view(reply).substr(at, piece)));
  }
  read.Add(parser->Finish());
  EXPECT_EQ(parser->num_calls(), static_cast<int64_t>(read.calls.size()));
  for (const bool ended : read.ended) EXPECT_TRUE(ended);
  return read;
}

const Json kSchemas = {{"needle_one", {{"properties", {{"kkey", {{"type", "string"}}}}}}},
                       {"needle_two", {{"properties", {{"kkey", {{"type", "string"}}}}}}},
                       {"f", nullptr},
                       {"g", nullptr}};

ReplyParserOptions WithTools() { return {.reads_calls = true, .tools = kSchemas}; }

// Every cut of the reply into pieces gives this.
void ExpectReads(const ReplyFormat& format, const std::string& reply, const std::string& text,
                 const std::vector<std::pair<std::string, std::string>>& calls,
                 const std::string& reasoning = "", ReplyParserOptions options = WithTools()) {
  for (const size_t piece :
       {size_t{1}, size_t{2}, size_t{3}, size_t{5}, size_t{7}, reply.size() + 1}) {
    const Read read = ReadReply(format, reply, piece, options);
    EXPECT_EQ(read.text, text) << reply << " in pieces of " << piece;
    EXPECT_EQ(read.reasoning, reasoning) << reply << " in pieces of " << piece;
    ASSERT_EQ(read.calls.size(), calls.size()) << reply << " in pieces of " << piece;
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(read.calls[i].first, calls[i].first) << reply;
      const Json got = Json::parse(read.calls[i].second, nullptr, false),
                 expected = Json::parse(calls[i].second, nullptr, false);
      EXPECT_EQ(got.is_discarded() ? Json(read.calls[i].second) : got,
                expected.is_discarded() ? Json(calls[i].second) : expected)
          << reply;
    }
  }
}

// A call of the probe as WrittenCalls has it, from the name on.
std::string WrittenFromName(const WrittenCalls& calls, const std::string& name) {
  std::string arguments = R"({"kkey": "vvalue", "nkey": 57391})";
  if (calls.arguments == WrittenCalls::Arguments::kNamed) {
    const std::string text =
        calls.plain_strings ? calls.quote + "vvalue" + calls.quote : "\"vvalue\"";
    arguments = calls.key_begin + "kkey" + calls.key_end + text + calls.value_end + calls.comma +
                calls.key_begin + "nkey" + calls.key_end + "57391" + calls.value_end;
  }
  return name + calls.after_name + arguments + calls.end;
}

// What is written of calls by their syntax is read as those calls.
void ExpectWrittenCallsAreRead(const ReplyFormat& format, bool several,
                               const std::pair<std::string, std::string>& one,
                               const std::pair<std::string, std::string>& two) {
  const WrittenCalls calls = WriteCalls(format.calls, several);
  ASSERT_NE(calls.arguments, WrittenCalls::Arguments::kNone);
  EXPECT_EQ(calls.several, several);
  const auto with_ids = [](std::string text) {
    for (char& c : text) c = c == '\x01' || c == '\x02' ? '0' : c;
    return text;
  };
  const std::string first = WrittenFromName(calls, one.first);
  const std::string more =
      several ? calls.between + calls.begin + WrittenFromName(calls, two.first) : "";
  const auto both = several ? std::vector{one, two} : std::vector{one};
  ExpectReads(format, with_ids(calls.first + calls.begin + first + more + calls.last), "", both);
  for (const WrittenCalls::Opening& opening : calls.openings) {
    if (format.calls.shape == CallShape::kHarmony) continue;  // it stands in a header
    ExpectReads(format,
                with_ids("Well. " + opening.marker + opening.rest + first + more +
                         (opening.all ? calls.last : "")),
                "Well.", both);
  }
  const std::string opening = CallOpening(calls, one.first);
  EXPECT_TRUE(with_ids(calls.first + calls.begin + first).starts_with(opening)) << opening;
  EXPECT_TRUE(opening.starts_with(CallOpening(calls, ""))) << opening;
}

// What the template shows as a call is read as that call.
void ExpectRoundTrip(const std::string& source, CallShape shape, int calls = 2) {
  const chat::ChatTemplate chat_template = chat::ChatTemplate::Parse(source);
  const TemplateTraits traits = LearnTraits(chat_template, kTokens);
  ASSERT_EQ(traits.format.calls.shape, shape) << source;
  EXPECT_TRUE(traits.tool_calls);
  EXPECT_EQ(traits.parallel_calls, calls == 2);
  Json messages = Json::array({{{"role", "user"}, {"content", "Go."}}});
  const auto render = [&](bool generation) {
    Json context = kTokens;
    context["messages"] = messages;
    context["add_generation_prompt"] = generation;
    return chat_template.Render(context, {}).text;
  };
  const std::string prompt = render(true);
  messages.push_back({{"role", "assistant"},
                      {"content", ""},
                      {"tool_calls", ProbeCalls(calls, traits.object_arguments)}});
  std::string reply = render(false);
  ASSERT_TRUE(reply.starts_with(prompt)) << reply;
  reply.erase(0, prompt.size());
  for (const char* end : {"<|im_end|>\n", "</s>", "<|eot_id|>", "<|end|>", "<|call|>"}) {
    if (reply.ends_with(end)) reply.erase(reply.rfind(end));
  }
  const std::pair<std::string, std::string> one{"needle_one",
                                                R"({"kkey": "vvalue", "nkey": 57391})"};
  const std::pair<std::string, std::string> two{"needle_two", one.second};
  ExpectReads(traits.format, reply, "", calls == 2 ? std::vector{one, two} : std::vector{one});
  ExpectWrittenCallsAreRead(traits.format, calls == 2, one, two);
  if (!reply.starts_with("<think>")) {
    ExpectReads(traits.format, "Well. " + reply, "Well.",
                calls == 2 ? std::vector{one, two} : std::vector{one});
  }
}

TEST(TemplateTraits, CallsOfEveryShapeAreLearnedAndReadBack) {
  ExpectRoundTrip(Template("{{ '\\n<tool_call>\\n{\"name\": \"' + call.name + '\", \"arguments\": "
                           "' + (call.arguments | tojson) + '}\\n</tool_call>' }}"),
                  CallShape::kJsonObject);
  ExpectRoundTrip(Template("{{ call | tojson }}{{ '' if loop.last else ', ' }}",
                           "{{ '[TOOL_CALLS] [' }}", "{{ ']' }}"),
                  CallShape::kJsonObject);
  ExpectRoundTrip(
      Template("{{ ('{\\n  \"tool_call_id\": \"' + tool_call.id + '\", \"tool_name\": \"' + "
               "call.name + '\", \"parameters\": ' + (call.arguments | tojson) + '}') }}"
               "{{ '' if loop.last else ',\\n' }}",
               "{{ '<|START_ACTION|>[\\n' }}", "{{ '\\n]<|END_ACTION|>' }}"),
      CallShape::kJsonObject);
  ExpectRoundTrip(Template("{{ '{\"' + call.name + '\": ' + (call.arguments | tojson) + '}' }}{{ "
                           "'' if loop.last else ', ' }}",
                           "{{ '<|tools_prefix|>[' }}", "{{ ']<|tools_suffix|>' }}"),
                  CallShape::kNamedObject);
  ExpectRoundTrip(Template("{{ '<|call_begin|>function<|sep|>' + call.name + '\\n```json\\n' + "
                           "(call.arguments | tojson) + '\\n```<|call_end|>' }}"
                           "{{ '' if loop.last else '\\n' }}",
                           "{{ '<|calls_begin|>' }}", "{{ '<|calls_end|>' }}"),
                  CallShape::kNameThenJson);
  ExpectRoundTrip(Template("{{ '[TOOL_CALLS]' + call.name + '[CALL_ID]' + tool_call.id + '[ARGS]' "
                           "+ (call.arguments | tojson) }}"),
                  CallShape::kNameThenJson);
  ExpectRoundTrip(
      Template(
          "{{ '<|tool_call_begin|>functions.' + call.name + ':' + (loop.index0 | string) + "
          "'<|tool_call_argument_begin|>' + (call.arguments | tojson) + '<|tool_call_end|>' }}",
          "{{ '<|section_begin|>' }}", "{{ '<|section_end|>' }}"),
      CallShape::kNameThenJson);
  ExpectRoundTrip(
      Template("{{ '<function=' + call.name + '>' + (call.arguments | tojson) + '</function>' }}"),
      CallShape::kNameThenJson);
  const std::string pairs = "{% for k, v in call.arguments.items() %}";
  const std::string value = "(v if v is string else (v | tojson))";
  ExpectRoundTrip(
      Template("{{ '\\n<tool_call>\\n<function=' + call.name + '>\\n' }}" + pairs +
               "{{ '<parameter=' + k + '>\\n' + " + value +
               " + '\\n</parameter>\\n' }}{% endfor %}{{ '</function>\\n</tool_call>' }}"),
      CallShape::kNameThenParameters);
  ExpectRoundTrip(Template("{{ '<tool_call>' + call.name }}" + pairs +
                           "{{ '<arg_key>' + k + '</arg_key><arg_value>' + " + value +
                           " + '</arg_value>' }}{% endfor %}{{ '</tool_call>' }}"),
                  CallShape::kNameThenParameters);
  ExpectRoundTrip(Template("{{ '<invoke name=\"' + call.name + '\">\\n' }}" + pairs +
                               "{{ '<parameter name=\"' + k + '\" string=\"' + ('true' if v is "
                               "string else 'false') + '\">' + " +
                               value + " + '</parameter>\\n' }}{% endfor %}{{ '</invoke>\\n' }}",
                           "{{ '<calls>\\n' }}", "{{ '</calls>' }}"),
                  CallShape::kNameThenParameters);
  ExpectRoundTrip(Template("{{ '<|tool_call>call:' + call.name + '{' }}" + pairs +
                           "{{ k + ':' + ('<|\"|>' + v + '<|\"|>' if v is string else (v | "
                           "tojson)) }}{{ '' if loop.last else ',' }}{% endfor %}"
                           "{{ '}<tool_call|>' }}"),
                  CallShape::kBraces);
  ExpectRoundTrip(
      Template("{{ call.name + '(' }}" + pairs +
                   "{{ k + '=' }}{% if v is string %}{{ \"'\" + v + \"'\" }}{% else %}{{ v | "
                   "tojson }}{% endif %}{{ '' if loop.last else ', ' }}{% endfor %}{{ ')' }}"
                   "{{ '' if loop.last else ', ' }}",
               "{{ '<|tool_call_start|>[' }}", "{{ ']<|tool_call_end|>' }}"),
      CallShape::kPython);
}

TEST(TemplateTraits, OfThisProjectsTemplates) {
  ExpectRoundTrip(File("xml_tools_thinking.jinja"), CallShape::kJsonObject);
  const TemplateTraits thinking = TraitsOf(File("xml_tools_thinking.jinja"));
  EXPECT_EQ(thinking.format.reasoning.begin, "<think>");
  EXPECT_EQ(thinking.format.reasoning.end, "</think>");
  EXPECT_EQ(thinking.format.calls.call_begin, "<tool_call>\n");
  EXPECT_EQ(thinking.format.calls.call_end, "\n</tool_call>");
  EXPECT_TRUE(thinking.format.calls.from_template);
  EXPECT_EQ(thinking.reasoning_keys, std::vector<std::string>{"reasoning_content"});

  const TemplateTraits headers =
      TraitsOf(File("headers_tools.jinja"));  // as Llama 3: one call, no markers
  EXPECT_EQ(headers.format.calls.shape, CallShape::kJsonObject);
  EXPECT_EQ(headers.format.calls.arguments_key, "parameters");
  EXPECT_FALSE(headers.parallel_calls);
  EXPECT_EQ(headers.format.calls.call_begin, "");
  EXPECT_EQ(headers.format.calls.alternate_begin, "<|python_tag|>");
  const std::pair<std::string, std::string> call{"needle_one",
                                                 R"({"kkey": "vvalue", "nkey": 57391})"};
  ExpectWrittenCallsAreRead(headers.format, false, call, {});
  ExpectWrittenCallsAreRead(TraitsOf(File("channels.jinja")).format, false, call, {});
  EXPECT_TRUE(WriteCalls(headers.format.calls, false).bare);

  EXPECT_EQ(TraitsOf(File("channels.jinja")).format.calls.shape, CallShape::kHarmony);
  EXPECT_EQ(TraitsOf(File("channels.jinja")).tools_key, "tools");

  const TemplateTraits brackets = TraitsOf(File("brackets_tools.jinja"));
  EXPECT_EQ(brackets.format.calls.shape, CallShape::kJsonObject);
  EXPECT_THAT(brackets.format.calls.section_begin, HasSubstr("[TOOL_CALLS]"));
  ExpectWrittenCallsAreRead(brackets.format, true, call, {"needle_two", call.second});
  EXPECT_TRUE(brackets.short_ids);

  const TemplateTraits plain = TraitsOf(File("chatml.jinja"));
  EXPECT_EQ(plain.tools_key, "");
  EXPECT_FALSE(plain.format.calls.from_template);
  EXPECT_EQ(plain.format.calls.call_begin, "<tool_call>\n");
  EXPECT_FALSE(plain.format.reasoning.present());

  EXPECT_FALSE(TraitsOf(File("turns.jinja")).late_system);  // as Gemma 2
  EXPECT_FALSE(TraitsOf(File("turns.jinja")).repeated_role);
}

ReplyFormat Hermes() {
  ReplyFormat format;
  format.reasoning = {"<think>", "</think>"};
  format.calls = {.shape = CallShape::kJsonObject,
                  .call_begin = "<tool_call>\n",
                  .call_end = "\n</tool_call>",
                  .separator = "\n"};
  return format;
}

TEST(ReplyParser, TextAndReasoningAreSeparated) {
  ExpectReads(Hermes(), "Hello, <b>you</b>.\n", "Hello, <b>you</b>.\n", {});
  ExpectReads(Hermes(), "<think>\nLet me see.\n\n</think>\n\nHello.", "Hello.", {}, "Let me see.");
  ExpectReads(Hermes(), "\n<think></think>Hello.", "Hello.", {});
  ExpectReads(Hermes(), "<think>cut in the mid", "", {}, "cut in the mid");
  ExpectReads(Hermes(), "Text first, <think>then no thought</think>.",
              "Text first, <think>then no thought</think>.", {});
  ExpectReads(Hermes(), "I think.</think>Yes.", "Yes.", {}, "I think.", {.in_reasoning = true});
  ExpectReads(Hermes(), "<think>a</think> <tool_call>", "<tool_call>", {}, "a",
              {});  // no tools: no calls
  ReplyFormat plain;
  ExpectReads(plain, "<think>a</think> {\"name\": 1}", "<think>a</think> {\"name\": 1}", {}, "",
              {});
}

TEST(ReplyParser, CallsAreReadInAnyOrderOfKeysAndWithTextAround) {
  const std::string call =
      R"(<tool_call>{"arguments": {"a": [1, {"b": "}"}], "c": "\"\\"}, "id": 7, "name": "f"}</tool_call>)";
  const std::string arguments = R"({"a": [1, {"b": "}"}], "c": "\"\\"})";
  ExpectReads(Hermes(), "Let me look.\n\n" + call, "Let me look.", {{"f", arguments}});
  ExpectReads(Hermes(), "<think>Hm.</think>\n" + call + "\n" + call, "",
              {{"f", arguments}, {"f", arguments}}, "Hm.");
  ExpectReads(Hermes(), call.substr(0, call.size() - 4), "",
              {{"f", arguments}});  // cut in the end's marker
  ExpectReads(Hermes(), call + "\nDone.", "Done.", {{"f", arguments}});
  ExpectReads(Hermes(), R"(<tool_call>{"name": "f"}</tool_call>)", "", {{"f", "{}"}});
  // Arguments inside a string are unwrapped.
  ExpectReads(Hermes(), R"(<tool_call>{"name": "f", "arguments": "{\"x\": 1}"}</tool_call>)", "",
              {{"f", R"({"x": 1})"}});
}

TEST(ReplyParser, WhatIsNoCallIsText) {
  for (const char* text :
       {"Use the <tool_call> tag.", "<tool_call>hello</tool_call>", "<tool_call>{\"nothing\": 1}",
        "<tool_call", "<tool_call>", "<tool_call>{\"name\": ", "a < b", "<tool_call>[]"}) {
    ExpectReads(Hermes(), text, text, {});
  }
}

TEST(ReplyParser, CutCallsKeepWhatCame) {
  ExpectReads(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"x": "ab)", "",
              {{"f", R"({"x": "ab)"}});
  ExpectReads(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"x": 1}})", "",
              {{"f", R"({"x": 1})"}});
}

TEST(ReplyParser, ArgumentsComePieceByPiece) {
  const ReplyFormat format = Hermes();
  const auto parser = MakeReplyParser(format, WithTools());
  ReplyDelta delta = parser->Append("<tool_call>\n{\"name\": \"f\", ");
  ASSERT_EQ(delta.calls.size(), 1u);
  EXPECT_TRUE(delta.calls[0].begins);
  EXPECT_EQ(delta.calls[0].name, "f");
  delta = parser->Append("\"arguments\": {\"x\":");
  ASSERT_EQ(delta.calls.size(), 1u);
  EXPECT_EQ(delta.calls[0].arguments, "{\"x\":");
  delta = parser->Append(" 12");
  ASSERT_EQ(delta.calls.size(), 1u);
  EXPECT_EQ(delta.calls[0].arguments, " 12");
  EXPECT_FALSE(delta.calls[0].ends);
}

TEST(ReplyParser, CallsWithoutMarkersMustNameATool) {
  ReplyFormat format;
  format.calls = {.shape = CallShape::kJsonObject,
                  .alternate_begin = "<|python_tag|>",
                  .arguments_key = "parameters"};
  ExpectReads(format, R"({"name": "f", "parameters": {"q": "x"}})", "", {{"f", R"({"q": "x"})"}});
  ExpectReads(format,
              R"(<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}})",
              "", {{"f", "{}"}, {"g", "{}"}});
  ExpectReads(format, R"({"name": "Ada", "age": 36})", R"({"name": "Ada", "age": 36})", {});
  ExpectReads(format, R"(It is {"name": "f"}.)", R"(It is {"name": "f"}.)", {});
  ExpectReads(format, R"(<|python_tag|>f.call(query="x y"))", "", {{"f", R"({"query": "x y"})"}});
}

TEST(ReplyParser, HarmonyChannels) {
  ReplyFormat format;
  format.calls.shape = CallShape::kHarmony;
  ExpectReads(format,
              "<|channel|>analysis<|message|>User "
              "asks.<|end|><|start|>assistant<|channel|>final<|message|>Hello <you>.",
              "Hello <you>.", {}, "User asks.");
  ExpectReads(format,
              "<|channel|>analysis<|message|>Call.<|end|><|start|>assistant<|channel|>commentary "
              "to=functions.f <|constrain|>json<|message|>{\"a\": 1}",
              "", {{"f", "{\"a\": 1}"}}, "Call.");
  ExpectReads(format, " to=functions.g<|channel|>commentary json<|message|>{}<|call|>", "",
              {{"g", "{}"}});
  ExpectReads(format,
              "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant "
              "to=functions.f<|channel|>commentary<|message|>{}",
              "I will look.", {{"f", "{}"}});
  ExpectReads(format, "No channels at all.", "No channels at all.", {});
  ExpectReads(format, "<|channel|>final<|message|>a<|end|><|start|>assist", "a", {});
}

TEST(ReplyParser, HostileRepliesAreBoundedText) {
  const std::string deep = "<tool_call>{\"name\": \"f\", \"arguments\": " + Many(100'000, '[');
  const Read read = ReadReply(Hermes(), deep, 1000, WithTools());
  ASSERT_EQ(read.calls.size(), 1u);
  ReplyFormat python;
  python.calls = {.shape = CallShape::kPython, .section_begin = "<calls>["};
  const std::string open = "<calls>[f(" + Many(50'000, '(');
  EXPECT_EQ(ReadReply(python, open, 4096, WithTools()).calls.size(), 0u);
}

TEST(ReplyParser, AnEndsMarkerInsideOfAStringEndsNothing) {
  ReplyFormat python, braces;
  python.calls = {.shape = CallShape::kPython,
                  .section_begin = "<calls>[",
                  .section_end = "]</calls>",
                  .separator = ", "};
  ExpectReads(python, R"(<calls>[f(a="x ]</calls> y"), g()]</calls>)", "",
              {{"f", R"({"a": "x ]</calls> y"})"}, {"g", "{}"}});
  ExpectReads(python, "<calls>[f(a b)]</calls>", "<calls>[f(a b)]</calls>", {});
  braces.calls = {
      .shape = CallShape::kBraces, .call_begin = "<call>", .call_end = "</call>", .quote = "<q>"};
  ExpectReads(braces, "<call>f{a:<q>x</call>y<q>}</call>", "", {{"f", R"({"a": "x</call>y"})"}});
}

TEST(CallValues, TextBecomesWhatTheSchemaAsksFor) {
  const Json text = {{"type", "string"}}, number = {{"type", "number"}},
             either = {{"type", Json::array({"string", "null"})}};
  EXPECT_EQ(ParameterValue("5", &text), "5");
  EXPECT_EQ(ParameterValue("5", &number), 5);
  EXPECT_EQ(ParameterValue("5", nullptr), 5);
  EXPECT_EQ(ParameterValue("5", &either), "5");
  EXPECT_EQ(ParameterValue("null", &either), nullptr);
  EXPECT_EQ(ParameterValue("True", nullptr), true);
  EXPECT_EQ(ParameterValue("a {b", nullptr), "a {b");
  EXPECT_EQ(ParameterValue("[1, 2]", nullptr), Json::array({1, 2}));
  EXPECT_TRUE(ParameterValue(Many(100'000, '['), nullptr).is_string());
}

TEST(CallValues, PythonAndBraces) {
  EXPECT_EQ(ReadPythonCall("f(a='x\\'y', b=[1, None, {'k': True}], c=-2.5)")->arguments,
            R"({"a":"x'y","b":[1,null,{"k":true}],"c":-2.5})");
  EXPECT_EQ(ReadPythonCall(R"(f(a="\u00e9\ud83d\ude00\b\f\/\\u\ud83dx"))")->arguments,
            R"({"a":"é😀\b\f/\\uud83dx"})");
  EXPECT_EQ(ReadPythonCall("f()")->arguments, "{}");
  for (const char* bad : {"", "f", "f(", "f(a)", "f(a=", "f(a='x", "(a=1)", "f(a=[1)"}) {
    EXPECT_FALSE(ReadPythonCall(bad)) << bad;
  }
  EXPECT_EQ(ReadBraces("{a:<q>x, }y<q>,b:[1,{c:true}]}", "<q>")->arguments,
            R"({"a":"x, }y","b":[1,{"c":true}]})");
  EXPECT_FALSE(ReadBraces("{a:<q>x", "<q>"));
}

Json Chat() {
  return Json::array({{{"role", "system"}, {"content", "Be brief."}},
                      {{"role", "user"}, {"content", "Tide?"}},
                      {{"role", "assistant"},
                       {"content", ""},
                       {"reasoning_content", "Hm."},
                       {"tool_calls",
                        {{{"id", "call_1234567890"},
                          {"function", {{"name", "tide"}, {"arguments", R"({"at": "here"})"}}}}}}},
                      {{"role", "tool"}, {"tool_call_id", "call_1234567890"}, {"content", "2 m"}},
                      {{"role", "assistant"}, {"content", "Two."}},
                      {{"role", "developer"}, {"content", "Metres only."}},
                      {{"role", "user"}, {"content", "Thanks"}}});
}
const Json kTide = Json::array({{{"type", "function"},
                                 {"function",
                                  {{"name", "tide"},
                                   {"description", "Tells the tide."},
                                   {"parameters", {{"type", "object"}}}}}}});

std::string Rendered(const std::string& source, const Json& messages, const Json& tools) {
  const chat::ChatTemplate chat_template = chat::ChatTemplate::Parse(source);
  const TemplateInput input = AdaptMessages(LearnTraits(chat_template, kTokens), messages, tools);
  Json context = kTokens;
  context.update(input.variables);
  context["messages"] = input.messages;
  context["add_generation_prompt"] = true;
  return chat_template.Render(context, {}).text;
}

TEST(AdaptMessages, NothingIsLostWhateverTheTemplateCanShow) {
  for (const char* name :
       {"chatml.jinja", "turns.jinja", "xml_tools_thinking.jinja", "headers_tools.jinja",
        "brackets_tools.jinja", "channels.jinja", "instruct.jinja", "python_signatures.jinja"}) {
    const std::string text = Rendered(File(name), Chat(), kTide);
    for (const char* part :
         {"Be brief.", "Tide?", "tide", "here", "2 m", "Metres only.", "Thanks"}) {
      EXPECT_THAT(text, HasSubstr(part)) << name;
    }
    EXPECT_THAT(text, HasSubstr("Tells the tide.")) << name;
  }
}

TEST(AdaptMessages, PlainChatIsAsItWas) {
  const Json chat =
      Json::array({{{"role", "system"}, {"content", "S"}}, {{"role", "user"}, {"content", "U"}}});
  const TemplateInput input = AdaptMessages(TraitsOf(File("chatml.jinja")), chat, Json::array());
  EXPECT_EQ(input.messages, chat);
  EXPECT_TRUE(input.variables.empty());
}

TEST(JsonScanner, EndsWhereTheValueEnds) {
  const auto end_of = [](std::string_view text) {
    JsonScanner scanner;
    size_t n = 0;
    while (n < text.size() && scanner.Feed(text.substr(n, 1)) == 1) ++n;
    EXPECT_TRUE(scanner.done()) << text;
    return n;
  };
  EXPECT_EQ(end_of(R"( {"a": "}\"", "b": [1, {}]}, x)"), 27u);
  EXPECT_EQ(end_of("12.5,"), 4u);
  EXPECT_EQ(end_of("\"a\\\\\"b"), 5u);
  JsonScanner scanner;
  scanner.Feed("[}");
  EXPECT_TRUE(scanner.failed());
}

}  // namespace
}  // namespace bakestone::dialog
