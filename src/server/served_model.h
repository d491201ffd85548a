// What a server is given to serve.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "engine/engine.h"

namespace bakestone {

// One name that clients may ask for. Several names may share an engine: a base and its adapters.
struct ServedModel {
  std::string id;                          // "smollm2", unique
  std::shared_ptr<Engine> engine;
  std::shared_ptr<const Adapter> adapter;  // null: the base
  std::string parent;                      // id of the base, for an adapter
  std::filesystem::path source = {};       // where an adapter can be read again; empty: it stays in memory
};

}  // namespace bakestone
