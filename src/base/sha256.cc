#include "base/sha256.h"

#include <openssl/evp.h>

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"

namespace bakestone {

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) {
    BAKESTONE_CHECK(context != nullptr);
    BAKESTONE_CHECK(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1);
  }
  ~State() { EVP_MD_CTX_free(context); }
  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::Update(std::span<const uint8_t> bytes) {
  BAKESTONE_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
  return *this;
}

Sha256& Sha256::Update(std::string_view text) {
  return Update(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

Hash Sha256::Finish() {
  Hash hash;
  unsigned int length = 0;
  BAKESTONE_CHECK(EVP_DigestFinal_ex(state_->context, hash.data(), &length) == 1);
  return hash;
}

Hash HashOf(std::span<const uint8_t> bytes) { return Sha256().Update(bytes).Finish(); }
Hash HashOf(std::string_view text) { return Sha256().Update(text).Finish(); }

Hash HashOfFile(const std::filesystem::path& path, int64_t without_last) {
  // Pieces are let go as they are hashed: the file is never resident as a whole on our account.
  constexpr size_t kPiece = size_t{1} << 22;
  const MappedFile file = MappedFile::Open(path);
  const auto last = static_cast<size_t>(without_last);
  const auto bytes = file.bytes().first(file.bytes().size() - std::min(last, file.bytes().size()));
  Sha256 hash;
  for (size_t begin = 0; begin < bytes.size(); begin += kPiece) {
    const auto piece = bytes.subspan(begin, std::min(kPiece, bytes.size() - begin));
    hash.Update(piece);
    file.Forget(piece);
  }
  return hash.Finish();
}

std::string ToHex(const Hash& hash) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (const uint8_t byte : hash) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

}  // namespace bakestone
