#include "server/api/conversation_store.h"

#include <utility>

#include "server/api/answer.h"

namespace bakestone::api {

void ConversationStore::Put(const std::string& tenant, const std::string& id,
                            const StoredConversation& conversation) {
  Entry entry{id, tenant, Dump(conversation.messages), Dump(conversation.answer)};
  if (entry.bytes() > options_.max_bytes / 4) return;
  std::lock_guard lock(mutex_);
  if (const auto found = by_id_.find(id); found != by_id_.end()) Erase(found->second);
  bytes_ += entry.bytes();
  entries_.push_back(std::move(entry));
  by_id_[id] = std::prev(entries_.end());
  while (bytes_ > options_.max_bytes || entries_.size() > options_.max_entries) {
    Erase(entries_.begin());
  }
}

void ConversationStore::Erase(Entries::iterator entry) {
  bytes_ -= entry->bytes();
  by_id_.erase(entry->id);
  entries_.erase(entry);
}

std::optional<StoredConversation> ConversationStore::Get(const std::string& tenant,
                                                         const std::string& id) const {
  std::string messages, answer;
  {
    std::lock_guard lock(mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end() || found->second->tenant != tenant) return std::nullopt;
    messages = found->second->messages;
    answer = found->second->answer;
  }
  return StoredConversation{Json::parse(messages), Json::parse(answer)};
}

bool ConversationStore::Remove(const std::string& tenant, const std::string& id) {
  std::lock_guard lock(mutex_);
  const auto found = by_id_.find(id);
  if (found == by_id_.end() || found->second->tenant != tenant) return false;
  Erase(found->second);
  return true;
}

size_t ConversationStore::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace bakestone::api
