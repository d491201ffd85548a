#include "base/sha256.h"

#include <openssl/evp.h>

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
Hash HashOfFile(const std::filesystem::path& path) { return HashOf(MappedFile::Open(path).bytes()); }

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
