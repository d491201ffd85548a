#include "server/adapter_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/quote.h"

namespace bakestone {

namespace fs = std::filesystem;

void AdapterFolder::Check(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  Throw(ErrorCode::kNotFound, "{}: expected a folder of adapters (--adapter-folder)",
        folder.string());
}

AdapterFolder::AdapterFolder(fs::path folder, api::ModelRegistry& models)
    : folder_(std::move(folder)), models_(models) {
  Check(folder_);
  Look();
  first_ = false;
}

bool AdapterFolder::IsName(std::string_view name) {
  constexpr size_t kMost = 128;
  return !name.empty() && name.size() <= kMost && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-' || c == ':';
         });
}

bool AdapterFolder::IsAdapter(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    return fs::is_regular_file(path / "adapter_config.json", error);
  }
  return path.extension() == ".gguf" && fs::is_regular_file(path, error);
}

// Of a file, or of those in a folder, summed up.
AdapterFolder::Stamp AdapterFolder::StampOf(const fs::path& path) {
  Stamp stamp{};
  const auto add = [&](const fs::path& file) {
    struct stat status{};
    if (::stat(file.c_str(), &status) != 0) return;
    const int64_t parts[] = {static_cast<int64_t>(status.st_ino), status.st_size,
                             status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
    for (size_t i = 0; i < stamp.size(); ++i) {
      stamp[i] =
          static_cast<int64_t>(static_cast<uint64_t>(stamp[i]) + static_cast<uint64_t>(parts[i]));
    }
  };
  add(path);
  std::error_code error;
  if (!fs::is_directory(path, error)) return stamp;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    add(it->path());
  }
  return stamp;
}

std::map<std::string, fs::path> AdapterFolder::Scan() const {
  std::map<std::string, fs::path> found;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    if (!IsName(path.filename().string()) || !IsAdapter(path)) continue;
    found.emplace(fs::is_directory(path, error) ? path.filename().string() : path.stem().string(),
                  path);
    error.clear();
  }
  if (error) Throw(ErrorCode::kIo, "{}: cannot be listed: {}", folder_.string(), error.message());
  return found;
}

void AdapterFolder::Look() {
  std::map<std::string, fs::path> found;
  try {
    found = Scan();
  } catch (const Error& error) {
    LogWarning("the adapters stay as they were: {}", error.what());
    return;
  }
  for (auto& [name, path] : found) {
    Known& known = known_[name];
    const Stamp now = StampOf(path);
    const bool settled = first_ || (known.path == path && known.seen == now);
    known.path = path;
    known.seen = now;
    if (settled && known.read != now) Read(name, known);
  }
  for (auto it = known_.begin(); it != known_.end();) {
    if (found.contains(it->first)) {
      ++it;
      continue;
    }
    if (it->second.served && models_.Remove(it->first)) {
      LogInfo("no longer serving {}: its file is gone", it->first);
    }
    it = known_.erase(it);
  }
}

void AdapterFolder::Read(const std::string& name, Known& known) {
  known.read = known.seen;
  try {
    models_.Put(name, known.path);
    known.served = true;
    LogInfo("serving {} (adapter)", name);
  } catch (const Error& error) {
    LogWarning("{} is not served{}: {}", Quote(name), known.served ? " in its new form" : "",
               error.what());
  }
}

}  // namespace bakestone
