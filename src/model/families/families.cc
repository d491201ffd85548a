#include "model/families/families.h"

#include <array>

namespace bakestone {

std::span<const Family> Families() {
  static constexpr std::array<Family, 2> kFamilies = {{
      {"llama", ReadLlama},
      {"qwen2", ReadLlama},
  }};
  return kFamilies;
}

}  // namespace bakestone
