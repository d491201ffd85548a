#include "text/chat/template.h"

#include <ctime>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/chat/context.h"
#include "text/chat/interpreter.h"
#include "text/chat/parser.h"

namespace bakestone::chat {

struct ChatTemplate::Program {
  std::string name, source;
  ParsedTemplate parsed;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::Parse(std::string_view source, std::string_view name) {
  try {
    return ChatTemplate(std::make_unique<const Program>(
        Program{std::string(name), std::string(source), ParseTemplate(source)}));
  } catch (const Error& error) {
    Throw(error.code(), "{} {}", name, error.what());
  }
}

const std::string& ChatTemplate::source() const { return program_->source; }

Rendered ChatTemplate::Render(const nlohmann::ordered_json& context,
                              const RenderOptions& options) const {
  if (!context.is_object()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected the context to be a JSON object, found {}",
          program_->name, context.type_name());
  }
  Interpreter interpreter(program_->parsed, options);
  const std::vector<std::string>& names = program_->parsed.names;
  Text text;
  try {
    for (std::size_t id = 0; id < names.size(); ++id) {
      const auto it = context.find(names[id]);
      if (it == context.end()) continue;
      interpreter.SetGlobal(static_cast<NameId>(id),
                            ImportContext(*it, options.trusted_keys.contains(names[id]), options));
    }
    text = interpreter.Run();
  } catch (const Error& error) {
    Throw(error.code(), "{} line {}: {}", program_->name, interpreter.line(), error.what());
  }
  Rendered out;
  std::size_t begin = 0;
  for (const Text::Run& run : text.runs()) {
    out.segments.push_back({text.bytes().substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  out.generation = interpreter.generation();
  out.text = text.bytes();
  return out;
}

const std::set<std::string>& ChatTemplate::variables() const { return program_->parsed.variables; }
bool ChatTemplate::branches_on_content() const { return program_->parsed.branches_on_content; }

std::chrono::local_seconds LocalNow() {
  const std::time_t now = std::time(nullptr);
  std::tm tm{};
  localtime_r(&now, &tm);
  const std::chrono::year_month_day date{std::chrono::year(tm.tm_year + 1900),
                                         std::chrono::month(static_cast<unsigned>(tm.tm_mon + 1)),
                                         std::chrono::day(static_cast<unsigned>(tm.tm_mday))};
  return std::chrono::local_days(date) + std::chrono::hours(tm.tm_hour) +
         std::chrono::minutes(tm.tm_min) + std::chrono::seconds(tm.tm_sec);
}

std::chrono::local_seconds ParseLocalTime(std::string_view text) {
  const auto fail = [&]() {
    Throw(ErrorCode::kInvalidArgument,
          "time: expected YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS], found '{}'", text);
  };
  const bool shape = text.size() == 10 || text.size() == 16 || text.size() == 19;
  constexpr std::string_view kPattern = "dddd-dd-ddTdd:dd:dd";
  for (std::size_t i = 0; shape && i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    const bool ok =
        kPattern[i] == 'd' ? digit : text[i] == kPattern[i] || (i == 10 && text[i] == ' ');
    if (!ok) fail();
  }
  if (!shape) fail();
  const auto number = [&](std::size_t at, std::size_t digits) {
    int value = 0;
    for (std::size_t i = at; i < at + digits && i < text.size(); ++i) {
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const std::chrono::year_month_day date{std::chrono::year(number(0, 4)),
                                         std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                         std::chrono::day(static_cast<unsigned>(number(8, 2)))};
  if (!date.ok() || number(11, 2) > 23 || number(14, 2) > 59 || number(17, 2) > 59) fail();
  return std::chrono::local_days(date) + std::chrono::hours(number(11, 2)) +
         std::chrono::minutes(number(14, 2)) + std::chrono::seconds(number(17, 2));
}

}  // namespace bakestone::chat
