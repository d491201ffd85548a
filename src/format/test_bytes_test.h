// For the tests of this folder: little-endian bytes by hand, the message of what was thrown, and
// where the committed data lies.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/source_dir.h"

namespace bakestone {

inline std::filesystem::path TestData(std::string_view name) {
  return std::filesystem::path(SourceDir()) / "tests" / "data" / name;
}

template <class Action>
std::string MessageOf(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

inline std::span<const uint8_t> AsBytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class Bytes {
 public:
  template <class T>
  Bytes& Put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& U32(uint32_t value) { return Put(value); }
  Bytes& U64(uint64_t value) { return Put(value); }
  Bytes& Raw(std::string_view text) {
    out_ += text;
    return *this;
  }
  Bytes& Str(std::string_view text) { return U64(text.size()).Raw(text); }
  Bytes& PadTo(size_t alignment) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  const std::string& str() const { return out_; }

 private:
  std::string out_;
};

// "GGUF", version, number of tensors, number of metadata entries.
inline Bytes GgufHeader(uint64_t tensors, uint64_t entries, uint32_t version = 3) {
  Bytes bytes;
  bytes.Raw("GGUF").U32(version).U64(tensors).U64(entries);
  return bytes;
}

}  // namespace bakestone
