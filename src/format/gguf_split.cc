// A model in several GGUF files, as llama.cpp's gguf-split makes them: NAME-00001-of-00003.gguf and
// so on. Each is a whole GGUF file with split.no (from 0), split.count and split.tensors.count; the
// metadata is the first one's, the tensors are those of all.
#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/gguf.h"

namespace bakestone {
namespace {

constexpr uint32_t kMaxParts = 99999;  // what the names can count

std::string Suffix(uint32_t part, uint32_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", part + 1, count);
}

}  // namespace

void GgufFile::OpenParts(const std::filesystem::path& path) {
  const uint32_t count = GetU32("split.count", 1);
  if (count == 1) return;
  const uint32_t number = GetU32("split.no", 0);
  if (count == 0 || count > kMaxParts || number >= count) {
    Throw(ErrorCode::kCorrupt,
          "{}: split.no, split.count: expected a part of 1 to {}, found {} of {}", name_, kMaxParts,
          number, count);
  }
  const std::string file = path.filename().string(), suffix = Suffix(number, count);
  if (!file.ends_with(suffix)) {
    Throw(ErrorCode::kUnsupported, "{}: part {} of {}: expected a name that ends in {}", name_,
          number + 1, count, suffix);
  }
  const std::string stem = file.substr(0, file.size() - suffix.size());
  if (number != 0) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected the first part of {}, found part {}: give {}",
          name_, count, number + 1, stem + Suffix(0, count));
  }
  for (uint32_t part = 1; part < count; ++part) {
    const std::filesystem::path other = path.parent_path() / (stem + Suffix(part, count));
    if (!std::filesystem::exists(other)) {
      Throw(ErrorCode::kNotFound,
            "{}: expected all of its {} parts beside it, found no {}: download it again", name_,
            count, other.filename().string());
    }
    MappedFile mapping = MappedFile::Open(other);
    const GgufFile parsed = Parse(mapping.bytes(), other.string());
    if (parsed.GetU32("split.no", 0) != part || parsed.GetU32("split.count", 1) != count) {
      Throw(ErrorCode::kCorrupt, "{}: expected split.no {} of {}, found {} of {}", other.string(),
            part, count, parsed.GetU32("split.no", 0), parsed.GetU32("split.count", 1));
    }
    tensors_.insert(tensors_.end(), parsed.tensors_.begin(), parsed.tensors_.end());
    parts_.push_back(std::move(mapping));
  }
  tensors_by_name_.resize(tensors_.size());
  std::iota(tensors_by_name_.begin(), tensors_by_name_.end(), 0u);
  std::sort(tensors_by_name_.begin(), tensors_by_name_.end(),
            [&](uint32_t a, uint32_t b) { return tensors_[a].name < tensors_[b].name; });
  for (size_t i = 1; i < tensors_by_name_.size(); ++i) {
    const std::string_view tensor = tensors_[tensors_by_name_[i]].name;
    if (tensor != tensors_[tensors_by_name_[i - 1]].name) continue;
    Throw(ErrorCode::kCorrupt, "{}: tensor {}: expected once, found in two parts", name_,
          Quote(tensor));
  }
  const uint64_t total = GetU64("split.tensors.count", tensors_.size());
  if (total != tensors_.size()) {
    Throw(ErrorCode::kCorrupt,
          "{}: split.tensors.count: expected {} tensors in all parts, found {}", name_, total,
          tensors_.size());
  }
}

void GgufFile::Forget(std::span<const uint8_t> range) const {
  const auto has = [&](const MappedFile& mapping) {
    const std::span<const uint8_t> all = mapping.bytes();
    return !all.empty() && range.data() >= all.data() && range.data() < all.data() + all.size();
  };
  if (has(mapping_)) mapping_.Forget(range);
  for (const MappedFile& part : parts_) {
    if (has(part)) part.Forget(range);
  }
}

std::vector<std::filesystem::path> GgufFile::paths() const {
  std::vector<std::filesystem::path> paths = {mapping_.path()};
  for (const MappedFile& part : parts_) paths.push_back(part.path());
  return paths;
}

}  // namespace bakestone
