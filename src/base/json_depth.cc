#include "base/json_depth.h"

#include "base/error.h"

namespace bakestone {

bool NestsDeeper(std::string_view json, int most) noexcept {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > most) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

void CheckJsonLevels(std::string_view json, const std::string& source) {
  if (!NestsDeeper(json, kMaxJsonLevels)) return;
  Throw(ErrorCode::kCorrupt, "{}: expected JSON of at most {} levels, found more", source,
        kMaxJsonLevels);
}

}  // namespace bakestone
