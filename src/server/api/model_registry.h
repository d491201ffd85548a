// The models and adapters that are served, by name. Adapters come, are replaced and go while
// requests run: an entry never changes, and who holds one goes on with what it was. Adapters that
// can be read again are kept in memory up to a limit; those that were not asked for longest make
// room and are read when they are asked for. Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "server/served_model.h"
#include "text/dialog/template_traits.h"

namespace bakestone::api {

// What a model's chat template says about conversations; found out once a model.
struct ChatSupport {
  dialog::TemplateTraits traits;
  std::vector<int32_t> shown_control;  // control tokens that mark reasoning and calls in a reply
};

struct ModelEntry {
  ServedModel served;       // of one from List the adapter may be null
  std::string fingerprint;  // of weights and adapter: another one means another model
  Hash adapter_hash{};      // zeros: the base
  std::shared_ptr<const ChatSupport> chat;  // null: the model has no chat template
  int64_t created = 0;                      // Unix time
  Grammars* grammars = nullptr;             // the registry's: for requests that are being read

  bool embeds() const { return served.embedder != nullptr; }
  Engine& engine() const;           // of one that writes
  EmbeddingLoop& embedder() const;  // of one that embeds
  const ServingLoop& loop() const {
    return served.engine ? static_cast<const ServingLoop&>(*served.engine) : *served.embedder;
  }
  const Model& model() const { return loop().model(); }
  // What a request needs; only of an entry from Find.
  const std::shared_ptr<const Adapter>& adapter() const;
};
using ModelPtr = std::shared_ptr<const ModelEntry>;

// An adapter that can be read again.
struct AdapterInfo {
  std::string id, parent;
  std::filesystem::path source;
  std::string hash;  // of its numbers
  int64_t bytes = 0;
  bool loaded = false, in_use = false;
};

struct AdapterStats {
  int64_t registered = 0, loaded = 0,
          bytes = 0;  // bytes: of those in memory, also of replaced ones that are in use
  int64_t loads = 0, evictions = 0;
};

class ModelRegistry {
 public:
  // adapter_bytes: of adapters with a source that are in memory. Throws kInvalidArgument for no
  // models, a name twice or an empty one.
  explicit ModelRegistry(std::vector<ServedModel> models, int64_t adapter_bytes = int64_t{1} << 30,
                         const GrammarOptions& grammars = {});

  bool Has(const std::string& id) const;
  // Null: there is none. Reads an adapter that is not in memory: throws as LoadAdapter, and
  // kUnavailable where those in use leave no room for it.
  ModelPtr Find(const std::string& id);
  std::vector<ModelPtr> List() const;  // in the order in which they were added
  // Each once. They live as long as the registry.
  const std::vector<std::shared_ptr<Engine>>& engines() const { return engines_; }
  const std::vector<std::shared_ptr<EmbeddingLoop>>& embedders() const { return embedders_; }
  const std::vector<std::shared_ptr<ServingLoop>>& loops() const {
    return loops_;
  }  // of both kinds, at least one
  const std::string& NameOf(const ServingLoop& loop) const {
    return names_.at(&loop);
  }  // its first model's

  // Reads the adapter, checks it against its base, and serves it under the name; one that was
  // served so before is replaced. base: empty: the first model that writes. Throws as LoadAdapter;
  // kInvalidArgument for the name of a model; kNotFound for a base that is not there. Then nothing
  // changes.
  ModelPtr Put(const std::string& id, const std::filesystem::path& source,
               const std::string& base = {});
  // False: there is no such adapter (models stay).
  bool Remove(const std::string& id);
  std::vector<AdapterInfo> Adapters() const;
  AdapterStats Stats() const;

 private:
  struct Slot {
    ModelPtr card;      // complete where there is no source; else without the adapter
    ModelPtr loaded;    // null: not in memory
    int64_t bytes = 0;  // of its adapter
    uint64_t last_use = 0;
  };
  Slot* FindSlot(const std::string& id);  // under the lock, as are those below
  int64_t LiveBytes() const;
  bool MakeRoom(int64_t bytes);
  Slot MakeSlot(ServedModel served, std::shared_ptr<const ChatSupport> chat, int64_t created);
  ModelPtr Load(const std::string& id, const ModelPtr& card);

  const int64_t adapter_bytes_;
  std::mutex load_mutex_;  // one adapter is read at a time; taken before the other
  mutable std::mutex mutex_;
  std::vector<Slot> slots_;
  mutable std::vector<std::pair<std::weak_ptr<const Adapter>, int64_t>> live_;  // and their bytes
  uint64_t clock_ = 0;
  int64_t loads_ = 0, evictions_ = 0;
  std::vector<std::shared_ptr<Engine>> engines_;
  std::vector<std::shared_ptr<EmbeddingLoop>> embedders_;
  std::vector<std::shared_ptr<ServingLoop>> loops_;
  std::map<const ServingLoop*, std::string> names_;
  std::map<const Model*, std::unique_ptr<Grammars>>
      grammars_;  // goes first: what it still has to tell knows entries
};

}  // namespace bakestone::api
