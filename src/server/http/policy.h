// Who may ask what, decided from headers alone. Pure functions and an immutable key ring; no sockets.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"

namespace bakestone::http {

bool EqualIgnoringCase(std::string_view a, std::string_view b);  // ASCII

// Names that mean this machine in a Host header, IP addresses, and the given names; an optional port is
// ignored. A page that rebinds its own DNS name to us sends that name, and is refused.
bool HostAllowed(std::string_view host, std::span<const std::string> allowed);

// True for 127.0.0.0/8, ::1 and "localhost".
bool IsLoopback(std::string_view address);

// API keys, kept as digests. Thread-safe.
class KeyRing {
 public:
  // Throws kInvalidArgument for a key shorter than 16 characters, or with characters that a header cannot carry.
  explicit KeyRing(std::span<const std::string> keys);
  bool empty() const { return digests_.empty(); }
  // authorization: the header's value, "Bearer KEY". The tenant's name (16 hex digits of the digest)
  // when the key is known. Every key is compared whole, so time tells nothing.
  std::optional<std::string> Check(std::string_view authorization) const;

 private:
  std::vector<Hash> digests_;
};

}  // namespace bakestone::http
