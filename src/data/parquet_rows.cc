// Rows of a Parquet file, read by a library of its own that is opened here, when the first such
// file is met:
// who has no Parquet files needs no Arrow.
#include <dlfcn.h>

#include <array>
#include <utility>

#include "base/error.h"
#include "data/parquet_plugin.h"
#include "data/row_source.h"

namespace bakestone {
namespace {

// Beside the program, or one folder up (the tests).
const BakestoneParquet& Library(const std::filesystem::path& wanted_by) {
  std::error_code code;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", code);
  std::string reason = "no such file";
  for (auto folder = program.parent_path(); !folder.empty(); folder = folder.parent_path()) {
    const auto path = folder / kParquetLibrary;
    if (std::filesystem::exists(path, code)) {
      void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) {
        const auto entry = reinterpret_cast<BakestoneParquetEntry>(dlsym(library, kParquetSymbol));
        if (entry != nullptr) return *entry();
      }
      reason = dlerror();
      break;
    }
    if (folder == folder.parent_path()) break;
  }
  Throw(ErrorCode::kUnsupported,
        "{}: reading Parquet needs {} beside the program ({}); run tools/setup.sh parquet and "
        "build again, or "
        "convert the file to JSON lines: python3 -c \"import pandas; "
        "pandas.read_parquet('FILE').to_json("
        "'FILE.jsonl', orient='records', lines=True)\"",
        wanted_by.string(), kParquetLibrary, reason);
}

const std::filesystem::path& Existing(const std::filesystem::path& path) {
  std::error_code code;
  if (std::filesystem::is_regular_file(path, code)) return path;
  Throw(ErrorCode::kNotFound, "{}: expected a Parquet file, found {}", path.string(),
        std::filesystem::exists(path, code) ? "what is no file" : "none");
}

class ParquetRows : public RowSource {
 public:
  explicit ParquetRows(const std::filesystem::path& path)
      : path_(Existing(path)), library_(Library(path)) {
    std::array<char, 512> error{};
    file_ = library_.open(path.c_str(), error.data(), error.size());
    if (file_ == nullptr) Fail(error.data());
  }
  ~ParquetRows() override {
    if (file_ != nullptr) library_.close(file_);
  }
  std::string container() const override { return "Parquet"; }
  std::string_view unit() const override { return "row"; }

  bool Next(RawRow* row) override {
    *row = {};
    const char* json = nullptr;
    size_t size = 0;
    std::array<char, 512> error{};
    const int status = library_.next(file_, &json, &size, error.data(), error.size());
    if (status < 0) Fail(error.data());
    if (status == 0) return false;
    row->number = ++number_;
    row->bytes.assign(json, size);
    return true;
  }

 private:
  [[noreturn]] void Fail(const char* reason) const {
    Throw(ErrorCode::kCorrupt, "{}: expected a Parquet file, found damage after row {}: {}",
          path_.string(), number_, reason);
  }

  const std::filesystem::path path_;
  const BakestoneParquet& library_;
  void* file_ = nullptr;
  int64_t number_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> OpenParquet(const std::filesystem::path& path) {
  return std::make_unique<ParquetRows>(path);
}

}  // namespace bakestone
