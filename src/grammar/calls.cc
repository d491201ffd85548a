#include "grammar/calls.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "grammar/call_arguments.h"
#include "grammar/ebnf.h"
#include "grammar/json_values.h"

namespace bakestone {
namespace {

using Json = nlohmann::ordered_json;
using dialog::WrittenCalls;

constexpr size_t kMaxMarkers = 256;

// Text of a syntax as the grammar has it.
class Spelling {
 public:
  Spelling(const Tokenizer& tokenizer, std::span<const int32_t> markers) {
    for (size_t i = 0; i < std::min(markers.size(), kMaxMarkers); ++i) {
      tokens_.push_back({std::string(tokenizer.TokenText(markers[i])), grammar::MarkerSpelling(i)});
    }
    for (const int32_t id : tokenizer.EndOfGeneration()) {
      endings_.emplace_back(tokenizer.TokenText(id));
    }
  }

  std::string operator()(std::string_view text) const {
    std::string spelled;
    while (!text.empty()) {
      const Token* longest = nullptr;
      for (const Token& token : tokens_) {
        if (!token.text.empty() && text.starts_with(token.text) &&
            (!longest || token.text.size() > longest->text.size())) {
          longest = &token;
        }
      }
      spelled += longest ? longest->spelled : std::string(1, text[0]);
      text.remove_prefix(longest ? longest->text.size() : 1);
    }
    return spelled;
  }
  // Up to the first token that ends an answer. False: there is none.
  bool Cut(std::string* text) const {
    size_t first = std::string::npos;
    for (const std::string& ending : endings_) {
      if (!ending.empty()) first = std::min(first, text->find(ending));
    }
    if (first == std::string::npos) return false;
    text->resize(first);
    return true;
  }

 private:
  struct Token {
    std::string text, spelled;
  };
  std::vector<Token> tokens_;
  std::vector<std::string> endings_;
};

constexpr std::pair<const char*, std::string WrittenCalls::*> kPieces[] = {
    {"between", &WrittenCalls::between},
    {"last", &WrittenCalls::last},
    {"after_name", &WrittenCalls::after_name},
    {"begin", &WrittenCalls::begin},
    {"end", &WrittenCalls::end},
    {"key_begin", &WrittenCalls::key_begin},
    {"key_end", &WrittenCalls::key_end},
    {"comma", &WrittenCalls::comma},
    {"value_end", &WrittenCalls::value_end},
    {"quote", &WrittenCalls::quote},
    {"first", &WrittenCalls::first}};

std::string TrimmedMarker(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \n\t\r");
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(" \n\t\r") + 1 - begin);
}

}  // namespace

GrammarSource SourceOf(const HeldReply& reply, const Tokenizer& tokenizer,
                       std::span<const int32_t> markers) {
  const Spelling spell(tokenizer, markers);
  WrittenCalls calls = reply.calls;
  BAKESTONE_CHECK(calls.arguments != WrittenCalls::Arguments::kNone && !reply.functions.empty());
  Json text = {{"markers", Json::array()},
               {"required", reply.required},
               {"in_reasoning", reply.in_reasoning},
               {"bare", calls.bare}};
  for (const int32_t id : markers.first(std::min(markers.size(), kMaxMarkers))) {
    text["markers"].push_back(id);
  }
  for (const CallableFunction& function : reply.functions) {
    text["functions"].push_back({{"name", function.name},
                                 {"place", function.place},
                                 {"parameters", function.parameters},
                                 {"strict", function.strict}});
  }
  // What a reply that has to call begins with, up to the first name, or behind it where there is
  // only one.
  const bool one = reply.functions.size() == 1;
  const std::string opening =
      calls.first + calls.begin + (one ? reply.functions[0].name + calls.after_name : "");
  BAKESTONE_CHECK(reply.begun.size() <= opening.size());
  text["opening"] = spell(opening.substr(reply.begun.size()));
  // What ends a plain text, as the parser finds it.
  text["text_end"] = TrimmedMarker(calls.quote.empty() ? calls.value_end : calls.quote);
  bool over = spell.Cut(&calls.end);
  over = spell.Cut(&calls.between) || over;
  if (over) calls.last.clear();
  spell.Cut(&calls.last);
  for (const auto& [name, piece] : kPieces) text[name] = spell(calls.*piece);
  text["other_after_name"] = Json::array();
  for (const std::string& other : calls.other_after_name) {
    text["other_after_name"].push_back(spell(other));
  }
  text["openings"] = Json::array();
  for (const WrittenCalls::Opening& opening : calls.openings) {
    text["openings"].push_back(
        {{"marker", spell(opening.marker)}, {"rest", spell(opening.rest)}, {"all", opening.all}});
  }
  text["several"] = calls.several && !over;
  text["json"] = calls.arguments == WrittenCalls::Arguments::kJson;
  text["plain_strings"] = calls.plain_strings;
  text["reasoning_begin"] = spell(reply.reasoning.begin);
  text["reasoning_end"] = spell(reply.reasoning.end);
  return {GrammarSource::Kind::kCalls, text.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

namespace grammar {
namespace {

class CallsGrammar {
 public:
  explicit CallsGrammar(const Json& in) : in_(in) {
    syntax_ = {.key_begin = Text("key_begin"),
               .key_end = Text("key_end"),
               .value_end = Text("value_end"),
               .comma = Text("comma"),
               .quote = Text("quote"),
               .text_end = Text("text_end"),
               .plain_strings = in["plain_strings"].get<bool>()};
  }

  std::string Write() {
    AddCalls();
    const std::string root = in_["required"].get<bool>() ? Required() : Free();
    return "root ::= " + root + "\n" + rules_ + JsonValueRules();
  }

 private:
  std::string Text(const char* name) const { return in_[name].get<std::string>(); }
  void Add(const std::string& rule, const std::string& body) {
    rules_ += rule + " ::= " + body + "\n";
  }

  // Rules: args0, args1...; call, from the name on; more, all that may follow a call; tail, both
  // and the end of calls.
  void AddCalls() {
    std::vector<std::string> choices;
    std::vector<std::string> after = {Text("after_name")};
    for (const Json& other : in_["other_after_name"]) {
      if (!in_["required"].get<bool>()) after.push_back(other.get<std::string>());
    }
    size_t i = 0;
    for (const Json& function : in_["functions"]) {
      const std::string arguments = fmt::format("args{}", i);
      try {
        const std::string prefix = fmt::format("f{}-", i);
        const Json parameters = ObjectSchema(function["parameters"]);
        const bool strict = function["strict"].get<bool>();
        const ArgumentRules found = in_["json"].get<bool>()
                                        ? JsonArguments(parameters, strict, prefix)
                                        : NamedArguments(parameters, strict, syntax_, prefix);
        rules_ += found.rules;
        Add(arguments, found.start);
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kInvalidArgument) throw;
        Throw(ErrorCode::kInvalidArgument, "{}: {}", function["place"].get<std::string>(),
              error.what());
      }
      std::vector<std::string> ways;
      for (const std::string& way : after) ways.push_back(SyntaxPiece(way));
      choices.push_back(fmt::format("{} {} {}", Literal(function["name"].get<std::string>()),
                                    Alternatives(ways), arguments));
      ++i;
    }
    Add("call", Alternatives(choices) + " " + SyntaxPiece(Text("end")));
    Add("more", in_["several"].get<bool>()
                    ? fmt::format("({} call)*", SyntaxPiece(Text("between") + Text("begin")))
                    : "\"\"");
    Add("tail", "call more " + SyntaxPiece(Text("last")));
    if (!in_["json"].get<bool>()) Add("text", PlainTextWithout(syntax_.text_end));
  }

  std::string Required() const {
    const std::string opening = SyntaxPiece(Text("opening"));
    if (in_["functions"].size() > 1) return opening + " tail";
    return fmt::format("{} args0 {} more {}", opening, SyntaxPiece(Text("end")),
                       SyntaxPiece(Text("last")));
  }

  std::string Free() {
    std::string tags;
    size_t i = 0;
    for (const Json& opening : in_["openings"]) {
      const std::string rule = fmt::format("opening{}", i++);
      Add(rule, SyntaxPiece(opening["rest"].get<std::string>()) +
                    (opening["all"].get<bool>() ? " tail" : " call more"));
      tags += fmt::format("({}, {}), ", Literal(opening["marker"].get<std::string>()), rule);
    }
    Add("free", fmt::format("TagDispatch({}loop_after_dispatch=false)", tags));
    Add("blank", "[ \\n\\t\\r]*");
    // Without a marker a reply is calls if it begins as one: text begins otherwise.
    Add("reply", in_["bare"].get<bool>() ? "blank " + SyntaxPiece(Text("first") + Text("begin")) +
                                               " tail | blank | blank [^{[ \\n\\t\\r] free"
                                         : "free");
    if (Text("reasoning_end").empty()) return "reply";
    Add("thought", fmt::format("TagDispatch(({}, reply), loop_after_dispatch=false)",
                               Literal(Text("reasoning_end"))));
    if (in_["in_reasoning"].get<bool>()) return "thought";
    return Text("reasoning_begin").empty()
               ? "reply"
               : fmt::format("reply | blank {} thought", Literal(Text("reasoning_begin")));
  }

  const Json& in_;
  ArgumentSyntax syntax_;
  std::string rules_;
};

}  // namespace

std::string MarkerSpelling(size_t index) { return fmt::format("{}{:02x}", kMarkerByte, index); }

std::vector<int32_t> MarkersOfCalls(const std::string& text) {
  return Json::parse(text)["markers"].get<std::vector<int32_t>>();
}

std::string FromCalls(const std::string& text) {
  const Json in = Json::parse(text);
  return CallsGrammar(in).Write();
}

}  // namespace grammar
}  // namespace bakestone
