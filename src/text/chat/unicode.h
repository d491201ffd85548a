// The Unicode facts that Python's str methods rest on: classes of code points, case mapping, and
// walking UTF-8. Strings here are valid UTF-8 (checked where they enter). Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bakestone::chat {

// The code point at byte `pos` of valid UTF-8; moves `pos` past it.
char32_t NextCodePoint(std::string_view text, std::size_t& pos);
// The byte position of the code point that ends before `pos` (> 0).
std::size_t PreviousCodePoint(std::string_view text, std::size_t pos);
void AppendUtf8(std::string& out, char32_t code_point);
std::size_t CountCodePoints(std::string_view text);
// The byte offset of code point `index`; text.size() when there are fewer.
std::size_t ByteOffset(std::string_view text, std::size_t index);
// Replaces what is not UTF-8 by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

bool IsSpace(char32_t c);      // str.isspace()
bool IsLineBreak(char32_t c);  // where str.splitlines() cuts
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsTitle(char32_t c);
bool IsCased(char32_t c);
bool IsPrintable(char32_t c);
bool IsWord(char32_t c);       // \w of Python's re
int DecimalValue(char32_t c);  // 0-9, or -1

// Full case mappings: one code point may become several.
void AppendUpper(std::string& out, char32_t c);
void AppendTitle(std::string& out, char32_t c);
// `final_sigma`: c is a capital sigma that ends a word.
void AppendLower(std::string& out, char32_t c, bool final_sigma);
void AppendFolded(std::string& out, char32_t c);

}  // namespace bakestone::chat
