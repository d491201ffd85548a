#include "base/new_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace bakestone {

namespace fs = std::filesystem;

NewFolder::NewFolder(fs::path out) : out_(std::move(out)) {
  std::error_code code;
  if (fs::exists(out_, code)) {
    if (!fs::is_directory(out_, code) || !fs::is_empty(out_, code)) {
      Throw(ErrorCode::kInvalidArgument, "{}: expected a new or an empty folder to write",
            out_.string());
    }
  } else {
    made_ = fs::absolute(out_).lexically_normal();
    if (!made_.has_filename()) made_ = made_.parent_path();
    while (!fs::exists(made_.parent_path(), code)) made_ = made_.parent_path();
    fs::create_directories(out_, code);
    if (code) {
      RemoveMade();
      Throw(ErrorCode::kIo, "{}: cannot create folder: {}", out_.string(), code.message());
    }
  }
  std::string pattern = (out_ / ".unfinished-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    const int error = errno;
    RemoveMade();
    Throw(ErrorCode::kIo, "{}: cannot make a folder: {}", pattern, std::strerror(error));
  }
  path_ = pattern;
}

NewFolder::~NewFolder() {
  std::error_code code;
  fs::remove_all(path_, code);
  RemoveMade();
}

// Only what is empty: others may have put something there meanwhile.
void NewFolder::RemoveMade() const {
  if (made_.empty()) return;
  fs::path folder = fs::absolute(out_).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::error_code code;
  for (; fs::remove(folder, code) && folder != made_; folder = folder.parent_path()) {
  }
}

void NewFolder::Commit(const char* last) {
  const auto move = [&](const fs::path& name) {
    std::error_code code;
    fs::rename(path_ / name, out_ / name, code);
    if (code) {
      Throw(ErrorCode::kIo, "{}: cannot be moved to its place: {}", (path_ / name).string(),
            code.message());
    }
  };
  std::vector<fs::path> names;
  for (const auto& entry : fs::directory_iterator(path_)) {
    if (entry.path().filename() != last) names.push_back(entry.path().filename());
  }
  made_.clear();
  for (const fs::path& name : names) move(name);
  move(last);
}

}  // namespace bakestone
