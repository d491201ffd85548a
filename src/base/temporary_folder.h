// A folder for files that nobody is to find afterwards: made new, removed with all that is in it.
#pragma once

#include <filesystem>
#include <string>

namespace bakestone {

class TemporaryFolder {
 public:
  // In the system's folder for such things; name: how it begins. Throws kIo.
  explicit TemporaryFolder(const std::string& name);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace bakestone
