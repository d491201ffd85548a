// What every route is given beside its request. Lives as long as the router.
#pragma once

#include <memory>

#include "server/api/conversation_store.h"
#include "server/api/model_registry.h"

namespace bakestone::api {

struct Context {
  ModelRegistry models;
  std::shared_ptr<ConversationStore> conversations = std::make_shared<ConversationStore>(ConversationStoreOptions{});
};

}  // namespace bakestone::api
