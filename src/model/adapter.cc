#include "model/adapter.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "model/adapter_entries.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

// Of an expert: gate, up, down.
constexpr int64_t kNumExpertSites = kNumSites - static_cast<int64_t>(Site::kGate);

size_t NumPairs(const ModelConfig& config) {
  return static_cast<size_t>(config.num_layers *
                             (kNumSites + kNumExpertSites * config.router.experts));
}

Site SiteOf(const std::string& file, const AdapterEntry& entry) {
  switch (entry.site) {
    case AdapterSite::kQProj:
      return Site::kQ;
    case AdapterSite::kKProj:
      return Site::kK;
    case AdapterSite::kVProj:
      return Site::kV;
    case AdapterSite::kOProj:
      return Site::kO;
    case AdapterSite::kGateProj:
      return Site::kGate;
    case AdapterSite::kUpProj:
      return Site::kUp;
    case AdapterSite::kDownProj:
      return Site::kDown;
    case AdapterSite::kQkvProj:
    case AdapterSite::kGateUpProj:
      Throw(ErrorCode::kUnsupported,
            "adapter {}: {}: expected a matrix that the base has, found one of several that are "
            "each by themselves there",
            file, AdapterEntryName(entry));
    case AdapterSite::kEmbedTokens:
    case AdapterSite::kLmHead:
      break;
  }
  Throw(ErrorCode::kUnsupported, "adapter {}: {}: an adapted embedding or head is not supported",
        file, AdapterEntryName(entry));
}

// In pieces of a known length, which compilers turn into vectors: an adapter that is asked for is
// read while others are answered.
void RoundRow(const float* from, uint16_t* to, int64_t n) {
  constexpr int64_t kPiece = 16;
  int64_t i = 0;
  for (; i + kPiece <= n; i += kPiece) {
    for (int64_t j = 0; j < kPiece; ++j) to[i + j] = FloatToBF16(from[i + j]);
  }
  for (; i < n; ++i) to[i] = FloatToBF16(from[i]);
}

// Where so many bytes of panels begin in their memory. Large memory begins on a page of 2 MiB: at
// another place in the sets of a cache for each adapter, as a step reads the same matrix of many,
// and those of 64 would share the 16 lines that a set has.
int64_t NextShift(int64_t bytes) {
  constexpr int64_t kLarge = int64_t{4} << 20;
  constexpr uint32_t kPlaces = 32;
  constexpr int64_t kDistance = 4096 + 64;
  static std::atomic<uint32_t> count{0};
  if (bytes < kLarge) return 0;
  return count.fetch_add(1, std::memory_order_relaxed) % kPlaces * kDistance;
}

int64_t FirstBytes(const LoraPair& pair) { return ops::NarrowPanelBytes(pair.a.rows, pair.a.cols); }

int64_t SecondBytes(const LoraPair& pair) {
  return PanelBytes(PanelType::kBF16, pair.b.rows, pair.b.cols);
}

}  // namespace

Adapter::Adapter(const ModelConfig& config, std::string name)
    : name_(std::move(name)),
      layers_(config.num_layers),
      experts_(config.router.experts),
      pairs_(NumPairs(config)),
      panels_(NumPairs(config)),
      storage_(NumPairs(config)) {}

namespace {

void CheckLayer(const AdapterFile& file, const AdapterEntry& entry, const ModelConfig& config) {
  if (!IsLayerSite(entry.site) || (entry.layer >= 0 && entry.layer < config.num_layers)) return;
  Throw(ErrorCode::kInvalidArgument,
        "adapter {}: {}: expected a layer below {}, found {}: was it trained on another base?",
        file.name, AdapterEntryName(entry), config.num_layers, entry.layer);
}

}  // namespace

void Adapter::Take(const AdapterFile& file, const AdapterEntry& entry, const ModelConfig& config) {
  const LinearId id = {entry.layer, SiteOf(file.name, entry), entry.expert};
  if (entry.expert >= 0 && !CanAdaptExperts(config)) {
    Throw(ErrorCode::kUnsupported,
          "adapter {}: {}: expected no pairs at the experts of {} models: they are not adapted "
          "by this program",
          file.name, AdapterEntryName(entry), config.architecture);
  }
  if (!HasSite(config, id)) {
    Throw(ErrorCode::kUnsupported,
          "adapter {}: {}: expected a matrix that this {} model has, found one that it has not",
          file.name, AdapterEntryName(entry), config.architecture);
  }
  const LinearShape shape = ShapeOf(config, id);
  if (entry.in != shape.k || entry.out != shape.n) {
    Throw(ErrorCode::kInvalidArgument,
          "adapter {}: {}: expected a matrix of {} x {}, found {} x {}: was it trained on another "
          "base?",
          file.name, AdapterEntryName(entry), shape.n, shape.k, entry.out, entry.in);
  }
  if (Find(id) != nullptr) {
    Throw(ErrorCode::kInvalidArgument, "adapter {}: {}: expected once, found twice", file.name,
          AdapterEntryName(entry));
  }
  Set(id, DenseView(entry.a.data(), entry.rank, entry.in),
      DenseView(entry.b.data(), entry.out, entry.rank),
      static_cast<float>(AdapterScale(file, entry)));
}

std::shared_ptr<const Adapter> Adapter::Load(const AdapterFile& file, const ModelConfig& config) {
  if (file.use_dora) {
    Throw(ErrorCode::kUnsupported, "adapter {}: use_dora: expected false, found true", file.name);
  }
  if (!file.architecture.empty() && file.architecture != config.architecture) {
    Throw(ErrorCode::kInvalidArgument,
          "adapter {}: architecture: expected the base model's '{}', found '{}'", file.name,
          config.architecture, file.architecture);
  }
  auto adapter = std::make_shared<Adapter>(config, file.name);
  for (const AdapterEntry& entry : file.entries) {
    CheckLayer(file, entry, config);
    const auto parts = SplitEntry(file, entry, config);
    if (!parts) {
      adapter->Take(file, entry, config);
      continue;
    }
    for (const AdapterEntry& part : *parts) adapter->Take(file, part, config);
  }
  adapter->Publish();
  adapter->ForgetRows();
  return adapter;
}

std::optional<size_t> Adapter::IndexOf(LinearId id) const noexcept {
  if (id.layer < 0 || id.layer >= layers_) return std::nullopt;
  if (id.expert < 0) return static_cast<size_t>(id.index());
  if (id.expert >= experts_ || id.site < Site::kGate) return std::nullopt;
  const int64_t site = static_cast<int64_t>(id.site) - static_cast<int64_t>(Site::kGate);
  return static_cast<size_t>(layers_ * kNumSites +
                             (id.layer * experts_ + id.expert) * kNumExpertSites + site);
}

bool Adapter::AdaptsExperts(int64_t layer) const noexcept {
  const auto first = panels_.begin() + layers_ * kNumSites + layer * experts_ * kNumExpertSites;
  return std::any_of(first, first + experts_ * kNumExpertSites,
                     [](const ops::LoraPanels& pair) { return pair.a.data != nullptr; });
}

void Adapter::Set(LinearId id, MatrixView<const float> a, MatrixView<const float> b, float scale) {
  const std::optional<size_t> index = IndexOf(id);
  BAKESTONE_CHECK(index.has_value());
  BAKESTONE_CHECK(a.rows >= 1 && a.rows == b.cols && std::isfinite(scale));
  Buffer<uint16_t>& storage = storage_[*index];
  const int64_t size = a.rows * a.cols + b.rows * b.cols;
  if (storage.size() != size) storage = Buffer<uint16_t>(size);
  uint16_t* to_a = storage.data();
  uint16_t* to_b = to_a + a.rows * a.cols;
  for (int64_t r = 0; r < a.rows; ++r) RoundRow(a.Row(r), to_a + r * a.cols, a.cols);
  for (int64_t r = 0; r < b.rows; ++r) RoundRow(b.Row(r), to_b + r * b.cols, b.cols);
  pairs_[*index] = {
      .a = DenseView<const uint16_t>(to_a, a.rows, a.cols),
      .b = DenseView<const uint16_t>(to_b, b.rows, b.cols),
      .scale = scale,
  };
  published_ = false;
}

const LoraPair* Adapter::Find(LinearId id) const noexcept {
  const std::optional<size_t> index = IndexOf(id);
  if (!index) return nullptr;
  const LoraPair& pair = pairs_[*index];
  return pair.a.data == nullptr ? nullptr : &pair;
}

const ops::LoraPanels* Adapter::FindPanels(LinearId id) const noexcept {
  const std::optional<size_t> index = IndexOf(id);
  if (!index) return nullptr;
  const ops::LoraPanels& panels = panels_[*index];
  return panels.a.data == nullptr ? nullptr : &panels;
}

void Adapter::Publish() {
  if (published_) return;
  int64_t bytes = 0;
  for (const LoraPair& pair : pairs_) {
    if (pair.a.data != nullptr) bytes += FirstBytes(pair) + SecondBytes(pair);
  }
  if (panel_storage_.size() != bytes + shift_) {
    shift_ = NextShift(bytes);
    panel_storage_ = Buffer<uint8_t>(bytes + shift_);
  }
  uint8_t* to = panel_storage_.data() + shift_;
  Sha256 hash;
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const LoraPair& pair = pairs_[i];
    if (pair.a.data == nullptr) continue;
    int64_t head[4] = {static_cast<int64_t>(i), pair.a.rows, pair.a.cols, pair.b.rows};
    hash.Update({reinterpret_cast<const uint8_t*>(head), sizeof head});
    hash.Update({reinterpret_cast<const uint8_t*>(&pair.scale), sizeof pair.scale});
    hash.Update({reinterpret_cast<const uint8_t*>(storage_[i].data()),
                 static_cast<size_t>(storage_[i].bytes())});
  }
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const LoraPair& pair = pairs_[i];
    if (pair.a.data == nullptr) continue;
    panels_[i] = {.a = ops::PackNarrow(pair.a, to), .b = {}, .scale = pair.scale};
    to += FirstBytes(pair);
  }
  for (size_t i = 0; i < pairs_.size(); ++i) {
    const LoraPair& pair = pairs_[i];
    if (pair.a.data == nullptr) continue;
    panels_[i].b = ops::PackFlushed(pair.b, to);
    to += SecondBytes(pair);
  }
  hash_ = hash.Finish();
  published_ = true;
}

void Adapter::ForgetRows() {
  for (LoraPair& pair : pairs_) pair = {};
  for (Buffer<uint16_t>& storage : storage_) storage = {};
}

int64_t Adapter::bytes() const noexcept {
  int64_t total = panel_storage_.bytes();
  for (const Buffer<uint16_t>& storage : storage_) total += storage.bytes();
  return total;
}

}  // namespace bakestone
