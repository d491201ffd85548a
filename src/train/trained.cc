#include "train/trained.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "format/gguf_adapter.h"
#include "format/peft.h"
#include "model/adapter_entries.h"
#include "model/train_weights.h"
#include "tensor/half.h"
#include "train/streams.h"

namespace bakestone {
namespace {

constexpr int64_t kRows = 64;  // a unit of work: 64 rows of the widest matrices stay in L2

// Rows of a matrix or a table of the base, on all threads.
template <class Read>
void CopyRows(ThreadPool& pool, int64_t rows, int64_t cols, const Read& read, float* to) {
  pool.ParallelFor((rows + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end, int) {
    const int64_t first = begin * kRows, last = std::min(end * kRows, rows);
    read(Range{first, last}, DenseView(to + first * cols, last - first, cols));
  });
}

void FillPair(const LoraSlot& slot, uint64_t seed, float* values) {
  Rng rng(seed, kInitStream + (static_cast<uint64_t>(slot.id.index()) << 8));
  const double bound = 1.0 / std::sqrt(static_cast<double>(slot.in));
  float* a = values + slot.a_offset;
  for (int64_t i = 0; i < slot.rank * slot.in; ++i) {
    a[i] = static_cast<float>((2 * rng.Uniform() - 1) * bound);
  }
}

// ||W|| of every row.
void FillMagnitude(const LoraSlot& slot, const TrainSource& source, ThreadPool& pool,
                   float* values) {
  pool.ParallelFor(slot.out, kRows, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(slot.in));
    for (int64_t o = begin; o < end; ++o) {
      source.linear(slot.id, {o, o + 1}, DenseView(row.data(), 1, slot.in));
      double sum = 0;
      for (const float value : row) sum += static_cast<double>(value) * static_cast<double>(value);
      values[slot.magnitude_offset + o] = static_cast<float>(std::sqrt(sum));
    }
  });
}

void FillOwnTensors(const ModelConfig& config, const TrainLayout& layout, const TrainSource& source,
                    ThreadPool& pool, float* values) {
  for (const MatrixSlot& slot : layout.matrices) {
    CopyRows(
        pool, slot.out, slot.in,
        [&](Range rows, MatrixView<float> out) { source.linear(slot.id, rows, out); },
        values + slot.offset);
    if (slot.bias_offset >= 0) {
      std::copy_n(source.bias(slot.id), slot.out, values + slot.bias_offset);
    }
  }
  for (size_t layer = 0; layer < layout.attention_norms.size(); ++layer) {
    const auto at = static_cast<int64_t>(layer);
    const int64_t attention = layout.attention_norms[layer], mlp = layout.mlp_norms[layer];
    if (attention >= 0) {
      std::copy_n(source.attention_norm(at), config.hidden_dim, values + attention);
    }
    if (mlp >= 0) std::copy_n(source.mlp_norm(at), config.hidden_dim, values + mlp);
  }
  if (layout.final_norm >= 0) {
    std::copy_n(source.final_norm(), config.hidden_dim, values + layout.final_norm);
  }
}

}  // namespace

TrainLayout LayoutOf(const Model& model, const Recipe& recipe) {
  std::vector<LinearId> biases;
  for (int64_t i = 0; i < model.config.num_layers * kNumSites; ++i) {
    const LinearId id{static_cast<int32_t>(i / kNumSites), static_cast<Site>(i % kNumSites)};
    const Weight& weight = model.weights->layers[static_cast<size_t>(id.layer)].at(id.site);
    if (weight.bias() != nullptr) biases.push_back(id);
  }
  const LoraRecipe& lora = recipe.lora;
  const bool full = lora.kind == AdapterKind::kFull;
  const LayerWeights& first = model.weights->layers.front();
  if (full && (first.attention_norm.empty() || first.mlp_norm.empty())) {
    Throw(ErrorCode::kUnsupported,
          "{}: expected a norm before attention and MLP to train the whole model, and {} models "
          "have none; use kind "
          "\"lora\", \"rslora\" or \"dora\"",
          model.path.string(), model.config.architecture);
  }
  return TrainLayout::Make(model.config,
                           {.targets = lora.targets,
                            .rank = full ? 0 : lora.rank,
                            .dora = lora.kind == AdapterKind::kDora,
                            .rows = full || !lora.trains_rows() ? TrainedRows::kNone
                                    : lora.embeddings           ? TrainedRows::kAll
                                                                : TrainedRows::kNew,
                            .first_new_row = lora.first_new},
                           biases);
}

float PairScale(const LoraRecipe& lora) {
  const auto rank = static_cast<double>(lora.rank);
  return static_cast<float>(lora.alpha / (lora.rslora() ? std::sqrt(rank) : rank));
}

AlignedVector<float> InitialValues(const Model& model, const TrainLayout& layout, uint64_t seed,
                                   const KernelTable& kernels, ThreadPool& pool) {
  AlignedVector<float> values(static_cast<size_t>(layout.size), 0.0f);
  const TrainSource source = SourceOf(*model.weights, kernels);
  for (const LoraSlot& slot : layout.slots) {
    FillPair(slot, seed, values.data());
    if (slot.magnitude_offset >= 0) FillMagnitude(slot, source, pool, values.data());
  }
  FillOwnTensors(model.config, layout, source, pool, values.data());
  const auto rows = [&](const RowsSlot& slot, const auto& read) {
    CopyRows(
        pool, slot.rows, model.config.hidden_dim,
        [&](Range range, MatrixView<float> out) {
          read(Range{slot.first + range.begin, slot.first + range.end}, out);
        },
        values.data() + slot.offset);
  };
  rows(layout.embedding, source.embedding);
  rows(layout.head, source.head);
  return values;
}

void StartFrom(const Model& model, const TrainLayout& layout, const LoraRecipe& lora,
               std::span<float> values) {
  const ModelConfig& config = model.config;
  const std::string where = lora.start.string();
  const AdapterFile file =
      std::filesystem::is_directory(lora.start)
          ? ReadPeftAdapter(lora.start)
          : ReadGgufAdapter(lora.start, {config.num_heads, config.num_kv_heads, config.head_dim});
  if (!file.base_hash.empty() && file.base_hash != ToHex(model.file_hash)) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected an adapter of {}, found one of another base ({})", where,
          model.path.string(), file.base_name.empty() ? "its hash differs" : file.base_name);
  }
  std::vector<AdapterEntry> entries;
  for (const AdapterEntry& entry : file.entries) {
    auto parts = SplitEntry(file, entry, config);
    if (!parts) parts = {entry};
    // Of matrices that lie together, those without pairs have zeros.
    for (AdapterEntry& part : *parts) {
      const bool empty = parts->size() > 1 && std::all_of(part.b.begin(), part.b.end(),
                                                          [](float value) { return value == 0; });
      const LinearId id = {part.layer, static_cast<Site>(part.site), part.expert};
      if (!empty || layout.Find(id) != nullptr) entries.push_back(std::move(part));
    }
  }
  if (entries.size() != layout.slots.size()) {
    Throw(ErrorCode::kInvalidArgument,
          "{}: expected pairs at {} matrices as 'targets' say, found {}", where,
          layout.slots.size(), entries.size());
  }
  for (const AdapterEntry& entry : entries) {
    const double scale = AdapterScale(file, entry), wanted = PairScale(lora);
    const auto slot =
        std::find_if(layout.slots.begin(), layout.slots.end(), [&](const LoraSlot& known) {
          return known.id.layer == entry.layer &&
                 static_cast<int>(known.id.site) == static_cast<int>(entry.site) &&
                 known.id.expert == entry.expert;
        });
    const bool fits = slot != layout.slots.end() && slot->rank == entry.rank &&
                      slot->in == entry.in && slot->out == entry.out &&
                      (slot->magnitude_offset >= 0) == !entry.magnitude.empty() &&
                      std::fabs(scale - wanted) <= 1e-6 * wanted;
    if (!fits) {
      Throw(ErrorCode::kInvalidArgument,
            "{}: {}: expected the recipe's kind \"{}\", rank {} and alpha {:g}, found rank {} and "
            "scale {:g}{}",
            where, AdapterEntryName(entry), AdapterKindName(lora.kind), lora.rank, lora.alpha,
            entry.rank, scale, entry.magnitude.empty() ? "" : " with DoRA magnitudes");
    }
    std::copy(entry.a.begin(), entry.a.end(), values.begin() + slot->a_offset);
    std::copy(entry.b.begin(), entry.b.end(), values.begin() + slot->b_offset);
    if (slot->magnitude_offset >= 0) {
      std::copy(entry.magnitude.begin(), entry.magnitude.end(),
                values.begin() + slot->magnitude_offset);
    }
  }
}

void SetAdapter(const TrainLayout& layout, std::span<const float> values, const LoraRecipe& lora,
                Adapter* adapter) {
  for (const LoraSlot& slot : layout.slots) {
    adapter->Set(slot.id, {values.data() + slot.a_offset, slot.rank, slot.in},
                 {values.data() + slot.b_offset, slot.out, slot.rank}, PairScale(lora));
  }
}

}  // namespace bakestone
