// The models and adapters that are served, by name. An entry never changes: what is replaced while requests
// hold it stays as it was for them. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/served_model.h"
#include "text/dialog/template_traits.h"

namespace bakestone::api {

// What a model's chat template says about conversations; found out once a model.
struct ChatSupport {
  dialog::TemplateTraits traits;
  std::vector<int32_t> shown_control;  // control tokens that mark reasoning and calls in a reply
};

struct ModelEntry {
  ServedModel served;
  std::string fingerprint;                  // of weights and adapter: another one means another model
  std::shared_ptr<const ChatSupport> chat;  // null: the model has no chat template
  int64_t created = 0;                      // Unix time

  Engine& engine() const { return *served.engine; }
  const Model& model() const { return served.engine->model(); }
};
using ModelPtr = std::shared_ptr<const ModelEntry>;

class ModelRegistry {
 public:
  // Throws kInvalidArgument for no models, a name twice or an empty one.
  explicit ModelRegistry(std::vector<ServedModel> models);

  ModelPtr Find(const std::string& id) const;  // null: there is none
  std::vector<ModelPtr> List() const;          // in the order in which they were added
  // Each once. They live as long as the registry.
  const std::vector<std::shared_ptr<Engine>>& engines() const { return engines_; }

 private:
  mutable std::mutex mutex_;
  std::vector<ModelPtr> entries_;
  std::vector<std::shared_ptr<Engine>> engines_;
};

}  // namespace bakestone::api
