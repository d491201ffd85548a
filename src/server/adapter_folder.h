// A folder whose adapters are served under their names while they are there: NAME.gguf, or a PEFT
// folder NAME. What changes replaces what was served; requests that run stay on what they began
// with. A file that cannot be read, or belongs to another base, changes nothing, and the log says
// so once. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "server/api/model_registry.h"

namespace bakestone {

class AdapterFolder {
 public:
  // Throws kNotFound where there is no such folder.
  static void Check(const std::filesystem::path& folder);
  // Looks once. Throws as Check.
  AdapterFolder(std::filesystem::path folder, api::ModelRegistry& models);

  // A file is read when two looks in a row see the same of it: nobody is writing it.
  void Look();

  // A plain name inside of the folder, fit to be said back.
  static bool IsName(std::string_view name);
  static bool IsAdapter(const std::filesystem::path& path);

 private:
  using Stamp = std::array<int64_t, 4>;
  struct Known {
    std::filesystem::path path;
    Stamp seen{}, read{};
    bool served = false;
  };
  static Stamp StampOf(const std::filesystem::path& path);
  std::map<std::string, std::filesystem::path> Scan() const;
  void Read(const std::string& name, Known& known);

  const std::filesystem::path folder_;
  api::ModelRegistry& models_;
  std::map<std::string, Known> known_;
  bool first_ = true;
};

}  // namespace bakestone
