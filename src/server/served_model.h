// What a server is given to serve.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "engine/embedding_loop.h"
#include "engine/engine.h"

namespace bakestone {

// One name that clients may ask for: a model that writes has an engine, one that embeds an
// embedder, and none has both. Several names may share an engine: a base and its adapters.
struct ServedModel {
  std::string id;  // "smollm2", unique
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const Adapter> adapter;  // null: the base
  std::string parent;                      // id of the base, for an adapter
  std::filesystem::path source =
      {};  // where an adapter can be read again; empty: it stays in memory
  std::shared_ptr<EmbeddingLoop> embedder = nullptr;

  std::shared_ptr<ServingLoop> loop() const {
    return engine ? std::static_pointer_cast<ServingLoop>(engine) : embedder;
  }
};

}  // namespace bakestone
