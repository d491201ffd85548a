#include "server/api/model_registry.h"

#include <algorithm>
#include <map>
#include <utility>

#include "engine/chat.h"
#include "model/load_adapter.h"
#include "server/api/answer.h"
#include "server/api/fields.h"
#include "text/dialog/reply_parser.h"

namespace bakestone::api {
namespace {

std::string FingerprintOf(const ServedModel& served) {
  Sha256 hash;
  hash.Update(served.loop()->model().file_hash);
  if (served.adapter) hash.Update(served.adapter->hash());
  return "bs-" + ToHex(hash.Finish()).substr(0, 16);
}

std::shared_ptr<const ChatSupport> SupportOf(const Model& model) {
  if (!model.chat_template) return nullptr;
  const Tokenizer& tokenizer = model.tokenizer;
  ChatSupport support;
  support.traits =
      dialog::LearnTraits(*model.chat_template, TemplateTokens(tokenizer),
                          [&](const char* text) { return tokenizer.Find(text).has_value(); });
  const std::vector<std::string> markers = dialog::MarkersOf(support.traits.format);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.IsControl(id) || tokenizer.IsEndOfGeneration(id)) continue;
    const std::string text(tokenizer.TokenText(id));
    const bool marks = !text.empty() &&
                       std::any_of(markers.begin(), markers.end(), [&](const std::string& marker) {
                         return marker.find(text) != std::string::npos;
                       });
    if (marks) support.shown_control.push_back(id);
  }
  return std::make_shared<const ChatSupport>(std::move(support));
}

}  // namespace

Engine& ModelEntry::engine() const {
  BAKESTONE_CHECK(served.engine != nullptr);
  return *served.engine;
}

EmbeddingLoop& ModelEntry::embedder() const {
  BAKESTONE_CHECK(served.embedder != nullptr);
  return *served.embedder;
}

const std::shared_ptr<const Adapter>& ModelEntry::adapter() const {
  BAKESTONE_CHECK(served.parent.empty() == (served.adapter == nullptr));
  return served.adapter;
}

ModelRegistry::ModelRegistry(std::vector<ServedModel> models, int64_t adapter_bytes,
                             const GrammarOptions& grammars)
    : adapter_bytes_(adapter_bytes) {
  if (models.empty()) Throw(ErrorCode::kInvalidArgument, "a server needs at least one model");
  std::map<const Model*, std::shared_ptr<const ChatSupport>> supports;
  for (ServedModel& served : models) {
    BAKESTONE_CHECK((served.engine == nullptr) != (served.embedder == nullptr));
    if (served.id.empty() || Has(served.id)) {
      Throw(ErrorCode::kInvalidArgument,
            "served models need different names, found '{}' twice or empty", served.id);
    }
    const auto add = [](auto& list, const auto& one) {
      if (one && std::find(list.begin(), list.end(), one) == list.end()) list.push_back(one);
    };
    add(engines_, served.engine);
    add(embedders_, served.embedder);
    add(loops_, served.loop());
    names_.emplace(served.loop().get(), served.id);
    const Model* model = &served.loop()->model();
    if (served.engine && !supports.contains(model)) {
      supports[model] = SupportOf(*model);
      grammars_[model] = std::make_unique<Grammars>(model->tokenizer, grammars);
    }
    slots_.push_back(MakeSlot(std::move(served), supports[model], api::UnixTime()));
  }
}

ModelRegistry::Slot ModelRegistry::MakeSlot(ServedModel served,
                                            std::shared_ptr<const ChatSupport> chat,
                                            int64_t created) {
  Slot slot;
  ModelEntry entry{
      .served = std::move(served), .fingerprint = "", .chat = std::move(chat), .created = created};
  entry.fingerprint = FingerprintOf(entry.served);
  if (!entry.embeds()) entry.grammars = grammars_.at(&entry.model()).get();
  const std::shared_ptr<const Adapter> adapter = entry.served.adapter;
  if (adapter) {
    entry.adapter_hash = adapter->hash();
    slot.bytes = adapter->bytes();
  }
  auto whole = std::make_shared<const ModelEntry>(entry);
  if (!adapter || entry.served.source.empty()) {
    slot.card = std::move(whole);
    return slot;
  }
  entry.served.adapter = nullptr;
  slot.card = std::make_shared<const ModelEntry>(std::move(entry));
  live_.emplace_back(adapter, slot.bytes);
  ++loads_;
  if (MakeRoom(0)) slot.loaded = std::move(whole);  // it has its own bytes in live_
  slot.last_use = ++clock_;
  return slot;
}

ModelRegistry::Slot* ModelRegistry::FindSlot(const std::string& id) {
  const auto found = std::find_if(slots_.begin(), slots_.end(),
                                  [&](const Slot& slot) { return slot.card->served.id == id; });
  return found == slots_.end() ? nullptr : &*found;
}

bool ModelRegistry::Has(const std::string& id) const {
  std::lock_guard lock(mutex_);
  return std::any_of(slots_.begin(), slots_.end(),
                     [&](const Slot& slot) { return slot.card->served.id == id; });
}

int64_t ModelRegistry::LiveBytes() const {
  std::erase_if(live_, [](const auto& one) { return one.first.expired(); });
  int64_t bytes = 0;
  for (const auto& [adapter, size] : live_) bytes += size;
  return bytes;
}

// Lets those go that nobody uses, the one that was asked for longest ago first, until so many bytes
// more fit.
bool ModelRegistry::MakeRoom(int64_t bytes) {
  while (LiveBytes() + bytes > adapter_bytes_) {
    Slot* oldest = nullptr;
    for (Slot& slot : slots_) {
      const bool idle = slot.loaded && slot.loaded.use_count() == 1 &&
                        slot.loaded->served.adapter.use_count() == 1;
      if (idle && (!oldest || slot.last_use < oldest->last_use)) oldest = &slot;
    }
    if (!oldest) return false;
    oldest->loaded = nullptr;
    ++evictions_;
  }
  return true;
}

ModelPtr ModelRegistry::Find(const std::string& id) {
  ModelPtr card;
  {
    std::lock_guard lock(mutex_);
    Slot* slot = FindSlot(id);
    if (!slot) return nullptr;
    if (slot->card->served.source.empty()) return slot->card;
    slot->last_use = ++clock_;
    if (slot->loaded) return slot->loaded;
    card = slot->card;
  }
  return Load(id, card);
}

ModelPtr ModelRegistry::Load(const std::string& id, const ModelPtr& card) {
  std::lock_guard loading(load_mutex_);
  {
    std::lock_guard lock(mutex_);
    const Slot* slot = FindSlot(id);
    if (slot && slot->loaded) return slot->loaded;
    const int64_t bytes = slot ? slot->bytes : 0;
    if (!MakeRoom(bytes)) {
      Throw(
          ErrorCode::kUnavailable,
          "the adapters in use leave no room for '{}' ({} of {} bytes are taken); try again later",
          id, LiveBytes(), adapter_bytes_);
    }
  }
  ServedModel served = card->served;
  served.adapter = LoadAdapter(served.source, served.engine->model());
  std::lock_guard lock(mutex_);
  Slot fresh = MakeSlot(served, card->chat, card->created);
  // It fits, but for a file that grew or a name that is gone meanwhile: then the request has it for
  // itself.
  ModelPtr entry = fresh.loaded;
  if (!entry) {
    ModelEntry whole = *fresh.card;
    whole.served.adapter = served.adapter;
    entry = std::make_shared<const ModelEntry>(std::move(whole));
  }
  if (Slot* slot = FindSlot(id); slot && slot->card == card) *slot = std::move(fresh);
  return entry;
}

std::vector<ModelPtr> ModelRegistry::List() const {
  std::lock_guard lock(mutex_);
  std::vector<ModelPtr> entries;
  for (const Slot& slot : slots_) entries.push_back(slot.card);
  return entries;
}

ModelPtr ModelRegistry::Put(const std::string& id, const std::filesystem::path& source,
                            const std::string& base) {
  std::lock_guard loading(load_mutex_);
  ModelPtr parent;
  {
    std::lock_guard lock(mutex_);
    const Slot* old = FindSlot(id);
    if (id.empty() || (old && old->card->served.parent.empty())) {
      Throw(ErrorCode::kInvalidArgument,
            "'{}' is the name of a model: an adapter needs another one", id);
    }
    const auto first = std::find_if(slots_.begin(), slots_.end(),
                                    [](const Slot& slot) { return !slot.card->embeds(); });
    const Slot* found = base.empty() ? (first == slots_.end() ? nullptr : &*first) : FindSlot(base);
    if (!found || !found->card->served.parent.empty() || found->card->embeds()) {
      Throw(ErrorCode::kNotFound,
            "there is no model '{}' that writes and that the adapter '{}' could belong to", base,
            id);
    }
    parent = found->card;
  }
  ServedModel served{.id = id,
                     .engine = parent->served.engine,
                     .adapter = LoadAdapter(source, parent->model()),
                     .parent = parent->served.id,
                     .source = source};
  std::lock_guard lock(mutex_);
  Slot fresh = MakeSlot(std::move(served), parent->chat, api::UnixTime());
  ModelPtr card = fresh.card;
  if (Slot* old = FindSlot(id)) {
    *old = std::move(fresh);
  } else {
    slots_.push_back(std::move(fresh));
  }
  return card;
}

bool ModelRegistry::Remove(const std::string& id) {
  std::lock_guard lock(mutex_);
  const Slot* slot = FindSlot(id);
  if (!slot || slot->card->served.parent.empty()) return false;
  slots_.erase(slots_.begin() + (slot - slots_.data()));
  return true;
}

std::vector<AdapterInfo> ModelRegistry::Adapters() const {
  std::lock_guard lock(mutex_);
  std::vector<AdapterInfo> infos;
  for (const Slot& slot : slots_) {
    const ServedModel& served = slot.card->served;
    if (served.source.empty()) continue;
    const bool in_use =
        slot.loaded && (slot.loaded.use_count() > 1 || slot.loaded->served.adapter.use_count() > 1);
    infos.push_back({served.id, served.parent, served.source, ToHex(slot.card->adapter_hash),
                     slot.bytes, slot.loaded != nullptr, in_use});
  }
  return infos;
}

AdapterStats ModelRegistry::Stats() const {
  std::lock_guard lock(mutex_);
  AdapterStats stats{.bytes = LiveBytes(), .loads = loads_, .evictions = evictions_};
  for (const Slot& slot : slots_) {
    stats.registered += !slot.card->served.source.empty();
    stats.loaded += slot.loaded != nullptr;
  }
  return stats;
}

}  // namespace bakestone::api
