// How deeply JSON nests, before it is parsed. The parser itself needs no stack, but what copies,
// prints or walks its result does, so that a file of brackets would end the process.
#pragma once

#include <string>
#include <string_view>

namespace bakestone {

// Of files: no configuration or tokenizer comes near it.
inline constexpr int kMaxJsonLevels = 200;

// Whether more than `most` brackets are open at once, counted outside of strings.
bool NestsDeeper(std::string_view json, int most) noexcept;

// Throws kCorrupt naming the source of what nests deeper than kMaxJsonLevels.
void CheckJsonLevels(std::string_view json, const std::string& source);

}  // namespace bakestone
