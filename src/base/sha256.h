// SHA-256 (OpenSSL), streaming. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bakestone {

using Hash = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256& Update(std::span<const uint8_t> bytes);
  Sha256& Update(std::string_view text);
  Hash Finish();  // once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Hash HashOf(std::span<const uint8_t> bytes);
Hash HashOf(std::string_view text);
// Of the file without its last bytes, read piece by piece. Throws kNotFound, kIo.
Hash HashOfFile(const std::filesystem::path& path, int64_t without_last = 0);
std::string ToHex(const Hash& hash);  // 64 lower-case digits

}  // namespace bakestone
