// Strict reading of one TOML table: typed getters with ranges, and an error for keys nobody asked
// for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#define TOML_HEADER_ONLY 0
#include <toml++/toml.h>

namespace bakestone {

class TomlTable {
 public:
  // where: how messages call it ("bake.toml: [lora]").
  TomlTable(const toml::table& table, std::string where);

  bool Has(std::string_view key);
  std::string String(std::string_view key);  // required
  std::string String(std::string_view key, std::string_view fallback);
  double Number(std::string_view key, double fallback, double least, double most);
  int64_t Integer(std::string_view key, int64_t fallback, int64_t least, int64_t most);
  bool Boolean(std::string_view key, bool fallback);
  std::vector<std::string> Strings(std::string_view key);  // absent: empty
  std::map<std::string, std::string> StringMap(
      std::string_view key);  // texts under names of any kind; absent: empty
  std::optional<TomlTable> Table(std::string_view key);
  std::vector<TomlTable> Tables(std::string_view key);  // [[key]]

  // Throws kInvalidArgument naming the first unknown key, the known one that it is most like, and
  // the known ones.
  void Finish() const;
  const std::string& where() const { return where_; }

 private:
  const toml::node* Find(std::string_view key);
  [[noreturn]] void Fail(std::string_view key, std::string_view expected,
                         const toml::node& found) const;

  const toml::table* table_;
  std::string where_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace bakestone
