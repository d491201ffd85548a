// What is learned of the templates in a folder, one line each, and whether what each template shows
// as a tool call, and what is written of one by that syntax, is read back as that call, however it
// is cut into pieces. Exit status 1 where one is not, unless it is known to be unreadable
// ("unread": tools are refused for such a model).
//
//   reply_formats FOLDER
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/chat/template.h"
#include "text/dialog/reply_parser.h"
#include "text/dialog/template_traits.h"
#include "text/dialog/written_calls.h"

namespace bakestone::dialog {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* kShapes[] = {"none",       "object",           "named object",
                                   "name, json", "name, parameters", "braces",
                                   "python",     "harmony"};

std::string ReadBack(const ReplyFormat& format, const std::string& reply, size_t piece) {
  ReplyParserOptions options{.reads_calls = true};
  options.tools = {{"needle_one", {{"properties", {{"kkey", {{"type", "string"}}}}}}},
                   {"needle_two", {{"properties", {{"kkey", {{"type", "string"}}}}}}}};
  const auto parser = MakeReplyParser(format, std::move(options));
  std::string text;
  std::vector<std::pair<std::string, std::string>> calls;
  const auto take = [&](const ReplyDelta& delta) {
    text += delta.text;
    for (const CallDelta& call : delta.calls) {
      if (call.begins) calls.emplace_back(call.name, "");
      calls.back().second += call.arguments;
    }
  };
  for (size_t at = 0; at < reply.size(); at += piece) {
    take(parser->Append(std::string_view(reply).substr(at, piece)));
  }
  take(parser->Finish());
  std::string result = text;
  for (const auto& [name, arguments] : calls) {
    const Json json = Json::parse(arguments, nullptr, false);
    result += fmt::format(" {}({})", name, json.is_discarded() ? arguments : json.dump());
  }
  return result;
}

// The calls of the probe as the syntax has them, behind what a free text may say first.
std::string WrittenReply(const CallSyntax& syntax, int count) {
  const WrittenCalls calls = WriteCalls(syntax, count == 2);
  std::string arguments = R"({"kkey": "vvalue", "nkey": 57391})";
  if (calls.arguments == WrittenCalls::Arguments::kNamed) {
    const std::string text =
        calls.plain_strings ? calls.quote + "vvalue" + calls.quote : "\"vvalue\"";
    arguments = calls.key_begin + "kkey" + calls.key_end + text + calls.value_end + calls.comma +
                calls.key_begin + "nkey" + calls.key_end + "57391" + calls.value_end;
  }
  std::string reply =
      calls.first + calls.begin + "needle_one" + calls.after_name + arguments + calls.end;
  if (count == 2) {
    reply += calls.between + calls.begin + "needle_two" + calls.after_name + arguments + calls.end;
  }
  reply += calls.last;
  for (char& c : reply) c = c == '\x01' || c == '\x02' ? '0' : c;
  return reply;
}

// True if the template's calls are read back, or it shows none.
bool Check(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string source{std::istreambuf_iterator<char>(file), {}};
  std::string name = path.filename().string();
  const Json tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  try {
    const chat::ChatTemplate chat_template = chat::ChatTemplate::Parse(source);
    const TemplateTraits traits = LearnTraits(chat_template, tokens);
    const CallSyntax& calls = traits.format.calls;
    std::string line = fmt::format(
        "{}: {}{}, reasoning {}", name, kShapes[static_cast<int>(calls.shape)],
        calls.from_template ? "" : " (ours)", Json(traits.format.reasoning.begin).dump());
    bool same = true;
    const auto check = [&](const std::string& reply, int count) {
      std::string expected = R"( needle_one({"kkey":"vvalue","nkey":57391}))";
      if (count == 2) expected += R"( needle_two({"kkey":"vvalue","nkey":57391}))";
      for (const size_t piece : {size_t{1}, size_t{3}, size_t{8}, reply.size() + 1}) {
        const std::string got = ReadBack(traits.format, reply, piece);
        if (got.find(expected) != std::string::npos) continue;
        same = false;
        line += fmt::format("\n    wrote {}\n    read  {}", Json(reply).dump(), Json(got).dump());
        break;
      }
    };
    const bool unread = traits.tool_calls && calls.shape == CallShape::kNone;
    if (traits.tool_calls && !unread) {
      const int count = traits.parallel_calls ? 2 : 1;
      Json context = tokens;
      context["messages"] = {{{"role", "user"}, {"content", "Go."}}};
      context["add_generation_prompt"] = true;
      const std::string prompt = chat_template.Render(context, {}).text;
      context["add_generation_prompt"] = false;
      context["messages"].push_back({{"role", "assistant"},
                                     {"content", ""},
                                     {"tool_calls", ProbeCalls(count, traits.object_arguments)}});
      std::string reply = chat_template.Render(context, {}).text;
      // Past turns open reasoning otherwise than a new one: the reply begins where the two part.
      auto parting = static_cast<size_t>(
          std::mismatch(reply.begin(), reply.end(), prompt.begin(), prompt.end()).first -
          reply.begin());
      const size_t open = reply.rfind('<', parting), close = reply.find_first_of("> \n", open);
      if (parting < prompt.size() && open < parting && close != std::string::npos &&
          close >= parting) {
        parting = open;
      }
      reply.erase(0, parting);
      check(reply, count);
    } else if (!unread) {
      line += ", shows no calls";
    }
    if (calls.shape != CallShape::kNone) {
      const int count = traits.parallel_calls && calls.shape != CallShape::kHarmony ? 2 : 1;
      check(WrittenReply(calls, count), count);
    }
    fmt::print("{} {}\n", unread ? "unread" : same ? "ok    " : "WRONG ", line);
    return same;
  } catch (const Error& error) {
    fmt::print("refused {}: {}\n", name, error.what());
    return true;  // tools/check_real_templates.py compares refusals with jinja2's
  }
}

}  // namespace
}  // namespace bakestone::dialog

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: reply_formats FOLDER\n");
    return 2;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    if (entry.path().extension() == ".jinja") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  int wrong = 0;
  for (const auto& path : paths) wrong += !bakestone::dialog::Check(path);
  fmt::print("{} templates, {} wrong\n", paths.size(), wrong);
  return wrong > 0 || paths.empty() ? 1 : 0;
}
