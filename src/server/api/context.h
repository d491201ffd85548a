// What every route is given beside its request. Lives as long as the router. Thread-safe.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/api/conversation_store.h"
#include "server/api/model_registry.h"
#include "server/http/message.h"

namespace bakestone::api {

struct Context {
  const std::shared_ptr<ModelRegistry> models;
  std::filesystem::path adapter_folder = {};  // whose adapters may be loaded by name; empty: none
  bool admin_without_key = true;              // where no keys are asked for
  std::string default_model =
      {};  // answers where a request names a model that is not there; empty: nobody does
  std::shared_ptr<ConversationStore> conversations =
      std::make_shared<ConversationStore>(ConversationStoreOptions{});

  // A model that writes. Only what the request's key may ask for is there. Throws ApiError 404
  // model_not_found, and 400 for a model that embeds.
  ModelPtr Select(const http::Request& request, const std::string& id) const;
  ModelPtr SelectEmbedder(const http::Request& request,
                          const std::string& id) const;  // the other way round
  ModelPtr SelectAny(const http::Request& request, const std::string& id) const;
  std::vector<ModelPtr> List(
      const http::Request& request) const;             // in the order in which they were added
  ModelPtr First(const http::Request& request) const;  // throws 404 where the key may ask for none

 private:
  enum class Does { kWrite, kEmbed, kEither };
  ModelPtr Find(const http::Request& request, const std::string& id) const;
  ModelPtr FindFor(const http::Request& request, const std::string& id, Does does) const;
};

// Whose a generation is, and what comes of that.
inline void SetOwner(const http::Request& request, GenerationRequest* generation) {
  generation->tenant = request.tenant();
  generation->background |= request.background();
}

}  // namespace bakestone::api
