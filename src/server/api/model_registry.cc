#include "server/api/model_registry.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/chat.h"
#include "server/api/fields.h"
#include "text/dialog/reply_parser.h"

namespace bakestone::api {
namespace {

std::string FingerprintOf(const ServedModel& served) {
  Sha256 hash;
  hash.Update(served.engine->model().file_hash);
  if (served.adapter) hash.Update(served.adapter->hash());
  return "bs-" + ToHex(hash.Finish()).substr(0, 16);
}

std::shared_ptr<const ChatSupport> SupportOf(const Model& model) {
  if (!model.chat_template) return nullptr;
  const Tokenizer& tokenizer = model.tokenizer;
  ChatSupport support;
  support.traits = dialog::LearnTraits(*model.chat_template, TemplateTokens(tokenizer),
                                       [&](const char* text) { return tokenizer.Find(text).has_value(); });
  const std::vector<std::string> markers = dialog::MarkersOf(support.traits.format);
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.IsControl(id) || tokenizer.IsEndOfGeneration(id)) continue;
    const std::string text(tokenizer.TokenText(id));
    const bool marks = !text.empty() && std::any_of(markers.begin(), markers.end(), [&](const std::string& marker) {
      return marker.find(text) != std::string::npos;
    });
    if (marks) support.shown_control.push_back(id);
  }
  return std::make_shared<const ChatSupport>(std::move(support));
}

int64_t UnixTime() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace

ModelRegistry::ModelRegistry(std::vector<ServedModel> models) {
  if (models.empty()) Throw(ErrorCode::kInvalidArgument, "a server needs at least one model");
  std::map<const Model*, std::shared_ptr<const ChatSupport>> supports;
  for (ServedModel& served : models) {
    BAKESTONE_CHECK(served.engine != nullptr);
    if (served.id.empty() || Find(served.id)) {
      Throw(ErrorCode::kInvalidArgument, "served models need different names, found '{}' twice or empty", served.id);
    }
    if (std::find(engines_.begin(), engines_.end(), served.engine) == engines_.end()) engines_.push_back(served.engine);
    const Model* model = &served.engine->model();
    if (!supports.contains(model)) supports[model] = SupportOf(*model);
    std::string fingerprint = FingerprintOf(served);
    entries_.push_back(std::make_shared<const ModelEntry>(
        ModelEntry{std::move(served), std::move(fingerprint), supports[model], UnixTime()}));
  }
}

ModelPtr ModelRegistry::Find(const std::string& id) const {
  std::lock_guard lock(mutex_);
  for (const ModelPtr& entry : entries_) {
    if (entry->served.id == id) return entry;
  }
  return nullptr;
}

std::vector<ModelPtr> ModelRegistry::List() const {
  std::lock_guard lock(mutex_);
  return entries_;
}

}  // namespace bakestone::api
