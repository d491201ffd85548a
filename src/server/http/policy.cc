#include "server/http/policy.h"

#include <algorithm>

#include <arpa/inet.h>

#include "base/error.h"

namespace bakestone::http {
namespace {

constexpr size_t kMinKey = 16;

bool IsAddress(int family, const std::string& text) {
  in6_addr address;
  return inet_pton(family, text.c_str(), &address) == 1;
}

bool IsPort(std::string_view text) {
  return text.size() <= 5 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool EqualIgnoringCase(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

bool HostAllowed(std::string_view host, std::span<const std::string> allowed) {
  if (host.starts_with('[')) {
    const size_t close = host.find(']');
    if (close == std::string_view::npos) return false;
    const std::string_view rest = host.substr(close + 1);
    if (!rest.empty() && (rest[0] != ':' || !IsPort(rest.substr(1)))) return false;
    return IsAddress(AF_INET6, std::string(host.substr(1, close - 1)));
  }
  const size_t colon = host.find(':');
  if (colon != std::string_view::npos) {
    if (!IsPort(host.substr(colon + 1))) return false;
    host = host.substr(0, colon);
  }
  if (EqualIgnoringCase(host, "localhost") || IsAddress(AF_INET, std::string(host))) return true;
  return std::any_of(allowed.begin(), allowed.end(),
                     [&](const std::string& name) { return EqualIgnoringCase(host, name); });
}

bool IsLoopback(std::string_view address) {
  const std::string text(address);
  in_addr v4;
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, text.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return address == "localhost";
}

KeyRing::KeyRing(std::span<const std::string> keys) {
  for (const std::string& key : keys) {
    const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (key.size() < kMinKey || !printable) {
      Throw(ErrorCode::kInvalidArgument,
            "API key: expected at least {} printable ASCII characters without spaces, found {}{}", kMinKey,
            key.size(), printable ? "" : " with others among them");
    }
    digests_.push_back(HashOf(key));
  }
}

std::optional<std::string> KeyRing::Check(std::string_view authorization) const {
  constexpr std::string_view kScheme = "Bearer ";
  if (authorization.size() < kScheme.size() ||
      !EqualIgnoringCase(authorization.substr(0, kScheme.size()), kScheme)) {
    return std::nullopt;
  }
  const Hash shown = HashOf(authorization.substr(kScheme.size()));
  bool known = false;
  for (const Hash& digest : digests_) {
    unsigned difference = 0;
    for (size_t i = 0; i < digest.size(); ++i) difference |= digest[i] ^ shown[i];
    known |= difference == 0;
  }
  if (!known) return std::nullopt;
  return ToHex(shown).substr(0, 16);
}

}  // namespace bakestone::http
