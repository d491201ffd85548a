// API keys and what each may do, kept as digests. The text of a key is never kept.
//
// A line of a key file is empty, a comment that begins with '#', or: the key itself, or "sha256:"
//   and the 64 hex digits of its SHA-256, then words:
//   name=TEAM                 in logs and metrics; else the first digits of the digest
//   models=A,B                what it may ask for, and see; else all
//   default=A                 what answers where a request names a model that is not there
//   alias=NAME=A,OTHER=B      other names for what it may ask for
//   admin                     may load, replace and unload adapters
//   background                all that it asks for gets what others leave
//   max-requests=N            at the same time
//   requests-per-minute=N     tokens-per-minute=N (of prompts and answers)
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.h"

namespace bakestone::http {

struct Key {
  Hash digest{};
  std::string tenant;  // 16 hex digits of the digest
  std::string name;
  std::vector<std::string> models;  // empty: all
  std::string default_model;        // empty: none
  std::map<std::string, std::string> aliases;
  bool admin = false, background = false;
  int64_t max_requests = 0, requests_per_minute = 0, tokens_per_minute = 0;  // 0: no limit
};

// Immutable.
class KeyRing {
 public:
  // Throws kInvalidArgument naming the line's number, never its key: too short (16 characters),
  // with characters that a header cannot carry, unknown words, a key or a name twice.
  explicit KeyRing(std::span<const std::string> lines);
  bool empty() const { return keys_.empty(); }
  // Every key is compared whole, so time tells nothing. Null: unknown.
  std::shared_ptr<const Key> Find(std::string_view key) const;

 private:
  std::vector<std::shared_ptr<const Key>> keys_;
};

// The ring of now, which may be replaced while requests come. Thread-safe.
class KeyStore {
 public:
  explicit KeyStore(std::span<const std::string> lines)
      : ring_(std::make_shared<const KeyRing>(lines)) {}
  std::shared_ptr<const KeyRing> Current() const {
    std::lock_guard lock(mutex_);
    return ring_;
  }
  void Replace(std::span<const std::string> lines) {  // throws as KeyRing, with nothing replaced
    auto ring = std::make_shared<const KeyRing>(lines);
    std::lock_guard lock(mutex_);
    ring_ = std::move(ring);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const KeyRing> ring_;
};

}  // namespace bakestone::http
