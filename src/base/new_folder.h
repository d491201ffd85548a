// A folder of several files that is there whole or not at all.
#pragma once

#include <filesystem>

namespace bakestone {

class NewFolder {
 public:
  // Files are written to path() first, which lies inside of `out`. Throws kInvalidArgument where
  // `out` is something else than a new or an empty folder, kIo.
  explicit NewFolder(std::filesystem::path out);
  // Without Commit: nothing of it is left, also not `out` where it was not there.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Moves all that was written to `out`, the file `last` after everything else: a folder that has
  // it is complete. Throws kIo; what was moved before stays then.
  void Commit(const char* last);

 private:
  void RemoveMade() const;

  std::filesystem::path out_, path_,
      made_;  // made_: the topmost folder that was not there; or empty
};

}  // namespace bakestone
