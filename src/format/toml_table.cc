#include "format/toml_table.h"

#include <algorithm>
#include <numeric>
#include <sstream>
#include <utility>

#include <fmt/core.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace bakestone {
namespace {

std::string Describe(const toml::node& node) {
  std::ostringstream text;
  if (node.is_table() || node.is_array()) {
    text << "a" << (node.is_table() ? " table" : "n array");
  } else {
    node.visit([&](const auto& value) {
      if constexpr (toml::is_value<decltype(value)>) text << value;
    });
  }
  return text.str();
}

// Letters to change, add or take away.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// " (did you mean ...?)" where a known key is near.
std::string Nearest(std::string_view key, const std::set<std::string, std::less<>>& known) {
  constexpr size_t kMostLetters = 64;
  if (key.size() > kMostLetters) return "";
  const std::string* nearest = nullptr;
  size_t least = std::max<size_t>(2, key.size() / 3) + 1;
  for (const std::string& name : known) {
    const size_t distance = Distance(key, name);
    if (distance >= least) continue;
    least = distance;
    nearest = &name;
  }
  return nearest == nullptr ? "" : fmt::format(" (did you mean '{}'?)", *nearest);
}

}  // namespace

TomlTable::TomlTable(const toml::table& table, std::string where)
    : table_(&table), where_(std::move(where)) {}

const toml::node* TomlTable::Find(std::string_view key) {
  known_.emplace(key);
  return table_->get(key);
}

void TomlTable::Fail(std::string_view key, std::string_view expected,
                     const toml::node& found) const {
  Throw(ErrorCode::kInvalidArgument, "{}, line {}: '{}': expected {}, found {}", where_,
        found.source().begin.line, key, expected, Describe(found));
}

bool TomlTable::Has(std::string_view key) { return Find(key) != nullptr; }

std::string TomlTable::String(std::string_view key) {
  const toml::node* node = Find(key);
  if (node == nullptr) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a key '{}' with a text, found none", where_,
          key);
  }
  const auto value = node->value_exact<std::string>();
  if (!value || value->empty()) Fail(key, "a text that is not empty", *node);
  return *value;
}

std::string TomlTable::String(std::string_view key, std::string_view fallback) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::string(fallback);
  const auto value = node->value_exact<std::string>();
  if (!value) Fail(key, "a text", *node);
  return *value;
}

double TomlTable::Number(std::string_view key, double fallback, double least, double most) {
  const toml::node* node = Find(key);
  if (node == nullptr) return fallback;
  const auto value = node->is_number() ? node->value<double>() : std::nullopt;
  if (!value || !(*value >= least && *value <= most)) {
    Fail(key, fmt::format("a number from {} to {}", least, most), *node);
  }
  return *value;
}

int64_t TomlTable::Integer(std::string_view key, int64_t fallback, int64_t least, int64_t most) {
  const toml::node* node = Find(key);
  if (node == nullptr) return fallback;
  const auto value = node->value_exact<int64_t>();
  if (!value || *value < least || *value > most) {
    Fail(key, fmt::format("a whole number from {} to {}", least, most), *node);
  }
  return *value;
}

bool TomlTable::Boolean(std::string_view key, bool fallback) {
  const toml::node* node = Find(key);
  if (node == nullptr) return fallback;
  const auto value = node->value_exact<bool>();
  if (!value) Fail(key, "true or false", *node);
  return *value;
}

std::vector<std::string> TomlTable::Strings(std::string_view key) {
  const toml::node* node = Find(key);
  std::vector<std::string> values;
  if (node == nullptr) return values;
  const toml::array* array = node->as_array();
  if (array == nullptr) Fail(key, "a list of texts", *node);
  for (const toml::node& element : *array) {
    const auto value = element.value_exact<std::string>();
    if (!value || value->empty()) Fail(key, "a list of texts that are not empty", element);
    values.push_back(*value);
  }
  return values;
}

std::map<std::string, std::string> TomlTable::StringMap(std::string_view key) {
  std::map<std::string, std::string> values;
  const toml::node* node = Find(key);
  if (node == nullptr) return values;
  if (!node->is_table()) Fail(key, "a table of texts: { field = \"name in the file\" }", *node);
  for (const auto& [name, element] : *node->as_table()) {
    const auto value = element.value_exact<std::string>();
    if (!value || value->empty()) Fail(key, "a table of texts that are not empty", element);
    values.emplace(name.str(), *value);
  }
  return values;
}

std::optional<TomlTable> TomlTable::Table(std::string_view key) {
  const toml::node* node = Find(key);
  if (node == nullptr) return std::nullopt;
  if (!node->is_table()) Fail(key, "a table", *node);
  return TomlTable(*node->as_table(), fmt::format("{}: [{}]", where_, key));
}

std::vector<TomlTable> TomlTable::Tables(std::string_view key) {
  const toml::node* node = Find(key);
  std::vector<TomlTable> tables;
  if (node == nullptr) return tables;
  const toml::array* array = node->as_array();
  if (array == nullptr) Fail(key, fmt::format("one or more [[{}]] tables", key), *node);
  for (const toml::node& element : *array) {
    if (!element.is_table()) Fail(key, "a table", element);
    tables.emplace_back(*element.as_table(),
                        fmt::format("{}: [[{}]] {}", where_, key, tables.size() + 1));
  }
  return tables;
}

void TomlTable::Finish() const {
  for (const auto& [key, node] : *table_) {
    if (!known_.contains(key.str())) {
      Throw(ErrorCode::kInvalidArgument, "{}, line {}: unknown key '{}'{}; known are: {}", where_,
            node.source().begin.line, key.str(), Nearest(key.str(), known_),
            fmt::join(known_, ", "));
    }
  }
}

}  // namespace bakestone
