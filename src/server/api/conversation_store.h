// Answers that clients may go on from by id, so that they need not send a conversation again. In
// memory only and bounded: the oldest go first. What one key stored, another cannot see.
// Thread-safe.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "server/api/fields.h"

namespace bakestone::api {

struct ConversationStoreOptions {
  size_t max_entries = 4096;
  size_t max_bytes = size_t{64} << 20;
};

struct StoredConversation {
  Json messages;  // as dialog::AdaptMessages takes them: all that was said, the answer too
  Json answer;    // as it was sent
};

class ConversationStore {
 public:
  explicit ConversationStore(ConversationStoreOptions options) : options_(options) {}

  // Kept as text, so that the bytes are known. One larger than a quarter of the store is not kept.
  void Put(const std::string& tenant, const std::string& id,
           const StoredConversation& conversation);
  std::optional<StoredConversation> Get(const std::string& tenant, const std::string& id) const;
  bool Remove(const std::string& tenant, const std::string& id);  // false: there was none
  size_t bytes() const;

 private:
  struct Entry {
    std::string id, tenant, messages, answer;
    size_t bytes() const { return id.size() + tenant.size() + messages.size() + answer.size(); }
  };
  using Entries = std::list<Entry>;
  void Erase(Entries::iterator entry);  // under the lock

  const ConversationStoreOptions options_;
  mutable std::mutex mutex_;
  Entries entries_;  // the oldest first
  std::map<std::string, Entries::iterator> by_id_;
  size_t bytes_ = 0;
};

}  // namespace bakestone::api
