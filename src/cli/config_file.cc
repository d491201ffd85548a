#include "cli/config_file.h"

#include <sstream>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "format/toml_table.h"

namespace bakestone::cli {
namespace {

constexpr int64_t kMostBytes = 1 << 20;

// A number as it is written on a command line, or the text.
std::string ValueOf(TomlTable& table, const toml::table& parsed, const std::string& key) {
  const toml::node& node = *parsed.get(key);
  if (!node.is_string() && !node.is_number()) {
    Throw(ErrorCode::kInvalidArgument, "{}, line {}: '{}': expected a text or a number",
          table.where(), node.source().begin.line, key);
  }
  if (const auto integer = node.value_exact<int64_t>()) return fmt::format("{}", *integer);
  if (const auto number = node.value_exact<double>()) return fmt::format("{}", *number);
  return table.String(key);
}

}  // namespace

std::vector<std::string> ReadConfig(const std::filesystem::path& path,
                                    std::span<const ConfigKey> keys) {
  toml::table parsed;
  try {
    parsed = toml::parse(ReadFile(path, kMostBytes), path.string());
  } catch (const toml::parse_error& error) {
    std::ostringstream where;
    where << error.source().begin;
    Throw(ErrorCode::kInvalidArgument, "{}, {}: expected TOML: {}", path.string(), where.str(),
          error.description());
  }
  TomlTable table(parsed, path.string());
  std::vector<std::string> arguments;
  for (const ConfigKey& key : keys) {
    if (!table.Has(key.name)) continue;
    std::vector<std::string> values;
    if (key.kind == ConfigKey::kSwitch) {
      if (table.Boolean(key.name, false) && !key.given) arguments.push_back("--" + key.name);
      continue;
    }
    if (key.kind == ConfigKey::kList && parsed.get(key.name)->is_array()) {
      values = table.Strings(key.name);
    } else {
      values.push_back(ValueOf(table, parsed, key.name));
    }
    if (key.given) continue;
    for (std::string& value : values) {
      // One word with '=': a value that begins with a dash stays a value.
      arguments.push_back(key.positional ? std::move(value)
                                         : fmt::format("--{}={}", key.name, value));
    }
  }
  table.Finish();
  return arguments;
}

}  // namespace bakestone::cli
