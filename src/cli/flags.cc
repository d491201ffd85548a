#include "cli/flags.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <fmt/format.h>

#include "cli/config_file.h"
#include "cli/wrap.h"

namespace bakestone::cli {
namespace {

constexpr size_t kWidth = 96;   // of a line of help
constexpr size_t kColumn = 34;  // where the explanations of flags begin

std::string RangeName(int64_t least, int64_t most) {
  return most == INT64_MAX ? fmt::format("{} or more", least)
                           : fmt::format("{} to {}", least, most);
}

// What CLI11's own checks say of a wrong number is neither what was expected nor what was found,
// and they let NaN through.
template <class T>
CLI::Validator Range(T least, T most, const std::string& name) {
  const std::string kind = std::is_integral_v<T> ? "a whole number" : "a number";
  return CLI::Validator(
      [=](std::string& text) -> std::string {
        T value{};
        if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most) return {};
        return fmt::format("expected {}{} {}, found '{}'", kind,
                           name.ends_with("more") ? "," : " from", name, text);
      },
      name, "");
}

// "--port: 1 required INT missing" and "--port: At Most 1 required but received 2", as a sentence.
std::string MismatchText(const std::string& text) {
  const size_t colon = text.find(": ");
  if (colon == std::string::npos) return text;
  const std::string flag = text.substr(0, colon);
  if (text.ends_with(" missing")) return flag + ": expected a value, found none";
  return flag + ": expected once, found several times";
}

// CLI11 indents the lines of an explanation itself.
std::string Explanation(const std::string& help) { return Wrap(help, "", kWidth - kColumn); }

}  // namespace

struct Flags::State {
  explicit State(const std::string& description) : app(Wrap(description, "", kWidth)) {}
  CLI::App app;
  std::string verb;
  std::string config_flag, config;  // empty: none
};

Flags::Flags(const std::string& verb, const std::string& description, const std::string& example)
    : state_(std::make_unique<State>(description)) {
  state_->verb = verb;
  state_->app.name("bakestone " + verb);
  state_->app.footer("Example:\n  " + example);
  state_->app.get_formatter()->column_width(kColumn);
  // Which arguments must be there, the line of usage says.
  state_->app.get_formatter()->label("REQUIRED", "");
}

Flags::~Flags() = default;

Flags& Flags::Positional(const std::string& name, std::string* value, const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))->required()->type_name("");
  return *this;
}

Flags& Flags::OptionalPositional(const std::string& name, std::optional<std::string>* value,
                                 const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))->type_name("");
  return *this;
}

Flags& Flags::PositionalList(const std::string& name, std::vector<std::string>* values,
                             const std::string& help) {
  state_->app.add_option(name, *values, Explanation(help))->type_name("");
  return *this;
}

Flags& Flags::Add(const std::string& name, std::string* value, const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))->capture_default_str();
  return *this;
}

Flags& Flags::Add(const std::string& name, std::optional<std::string>* value,
                  const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help));
  return *this;
}

Flags& Flags::Add(const std::string& name, std::vector<std::string>* values,
                  const std::string& help) {
  state_->app.add_option(name, *values, Explanation(help + "; may be repeated"))
      ->allow_extra_args(false);
  return *this;
}

Flags& Flags::Add(const std::string& name, int64_t* value, int64_t least, int64_t most,
                  const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))
      ->check(Range(least, most, RangeName(least, most)))
      ->capture_default_str();
  return *this;
}

Flags& Flags::Add(const std::string& name, std::optional<int64_t>* value, int64_t least,
                  int64_t most, const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))
      ->check(Range(least, most, RangeName(least, most)));
  return *this;
}

Flags& Flags::Add(const std::string& name, double* value, double least, double most,
                  const std::string& help) {
  state_->app.add_option(name, *value, Explanation(help))
      ->check(Range(least, most, fmt::format("{} to {}", least, most)))
      ->capture_default_str();
  return *this;
}

Flags& Flags::Add(const std::string& name, bool* value, const std::string& help) {
  state_->app.add_flag(name, *value, Explanation(help));
  return *this;
}

Flags& Flags::AddConfig(const std::string& name, const std::string& help) {
  state_->config_flag = name;
  state_->app.add_option(name, state_->config, Explanation(help));
  return *this;
}

std::vector<std::string> Flags::FromConfig() const {
  std::vector<ConfigKey> keys;
  for (const CLI::Option* option : state_->app.get_options()) {
    std::string name = option->get_name();  // "--port", or a positional's "MODEL"
    if (name == state_->config_flag || name == "--help" || name == "-h") continue;
    ConfigKey key{.positional = option->get_positional(), .given = option->count() > 0};
    key.name = key.positional ? CLI::detail::to_lower(name) : name.substr(2);
    const bool list = option->get_items_expected_max() > 1 || option->get_expected_max() > 1;
    key.kind = option->get_expected_max() == 0 ? ConfigKey::kSwitch
               : list                          ? ConfigKey::kList
                                               : ConfigKey::kValue;
    keys.push_back(std::move(key));
  }
  return ReadConfig(state_->config, keys);
}

void Flags::Parse(const std::vector<std::string>& arguments) {
  std::string where;
  const auto parse = [&](const std::vector<std::string>& words) {
    // CLI11 takes the arguments last first.
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    try {
      state_->app.parse(reversed);
    } catch (const CLI::CallForHelp&) {
      throw HelpRequested(state_->app.help());
    } catch (const CLI::ArgumentMismatch& error) {
      throw UsageError(fmt::format("{}{}; see 'bakestone {} --help'", where,
                                   MismatchText(error.what()), state_->verb));
    } catch (const CLI::ParseError& error) {
      throw UsageError(
          fmt::format("{}{}; see 'bakestone {} --help'", where, error.what(), state_->verb));
    }
  };
  parse(arguments);
  if (state_->config.empty()) return;
  std::vector<std::string> words = FromConfig();
  words.insert(words.end(), arguments.begin(), arguments.end());
  where = state_->config + ": ";
  parse(words);
}

}  // namespace bakestone::cli
