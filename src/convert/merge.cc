#include "convert/merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/quote.h"
#include "format/q_k_permute.h"
#include "kernels/pack.h"

namespace bakestone {
namespace {

constexpr const char* kEmbedding = "token_embd.weight";
constexpr const char* kHead = "output.weight";

std::string ArchitectureOf(const ModelSource& source) {
  return std::string(source.header->GetString("general.architecture"));
}

// A table that is embedding and head becomes two, each with its own changes.
void Untie(ModelSource& source) {
  SourceTensor head = *source.Find(kEmbedding);
  head.name = kHead;
  source.tensors.push_back(std::move(head));
}

// Puts a combination in the place of a tensor's rows.
void Replace(SourceTensor& tensor, std::vector<Change> changes, const MergeOptions& options,
             uint64_t stream) {
  const auto combination = std::make_shared<Combination>(
      tensor.rows, tensor.num_rows(), tensor.cols(), std::move(changes), options, stream);
  tensor.type = DType::kF32;
  tensor.bytes = {};
  tensor.prepare = [combination](ThreadPool& pool) { combination->Prepare(pool); };
  tensor.rows = [combination](int64_t row, int64_t count, float* x) {
    combination->Rows(row, count, x);
  };
}

// What one entry of an adapter changes. Rows are of the file: those of q and k are permuted.
class EntryChange {
 public:
  EntryChange(const AdapterEntry& entry, double scale, int64_t permuted_head_dim)
      : entry_(entry), scale_(static_cast<float>(scale)), head_dim_(permuted_head_dim) {}

  void Rows(int64_t row, int64_t count, const float* base, float* delta) const {
    const bool embedding = entry_.site == AdapterSite::kEmbedTokens;
    const int64_t cols = embedding ? entry_.out : entry_.in;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = head_dim_ > 0 ? HfRowOfGgufRow(row + i, head_dim_) : row + i;
      float* to = delta + i * cols;
      if (embedding) {
        EmbeddingRow(at, to);
      } else {
        MatrixRow(at, to);
      }
      if (!entry_.magnitude.empty()) Decompose(at, base + i * cols, to, cols);
    }
  }

 private:
  // scale * B[row] A
  void MatrixRow(int64_t row, float* to) const {
    std::fill_n(to, entry_.in, 0.0f);
    for (int64_t r = 0; r < entry_.rank; ++r) {
      const float b = scale_ * entry_.b[static_cast<size_t>(row * entry_.rank + r)];
      const float* a = entry_.a.data() + r * entry_.in;
      for (int64_t k = 0; k < entry_.in; ++k) to[k] += b * a[k];
    }
  }

  // The row of a token: scale * B A[:, token]
  void EmbeddingRow(int64_t token, float* to) const {
    for (int64_t c = 0; c < entry_.out; ++c) {
      float sum = 0;
      for (int64_t r = 0; r < entry_.rank; ++r) {
        sum += entry_.b[static_cast<size_t>(c * entry_.rank + r)] *
               entry_.a[static_cast<size_t>(r * entry_.in + token)];
      }
      to[c] = scale_ * sum;
    }
  }

  // DoRA: magnitude / ||W + d|| * (W + d) - W
  void Decompose(int64_t row, const float* base, float* to, int64_t cols) const {
    double square = 0;
    for (int64_t k = 0; k < cols; ++k) {
      const double sum = static_cast<double>(base[k]) + static_cast<double>(to[k]);
      square += sum * sum;
    }
    if (square == 0) return;
    const double factor =
        static_cast<double>(entry_.magnitude[static_cast<size_t>(row)]) / std::sqrt(square);
    for (int64_t k = 0; k < cols; ++k) {
      to[k] =
          static_cast<float>(factor * (static_cast<double>(base[k]) + static_cast<double>(to[k])) -
                             static_cast<double>(base[k]));
    }
  }

  const AdapterEntry& entry_;
  const float scale_;
  const int64_t head_dim_;
};

std::string TensorOf(const AdapterEntry& entry) {
  const std::string stem(AdapterSiteGgufName(entry.site));
  const char* stacked = entry.expert < 0 ? "" : "_exps";
  return IsLayerSite(entry.site) ? fmt::format("blk.{}.{}{}.weight", entry.layer, stem, stacked)
                                 : stem + ".weight";
}

// What one adapter changes of a layer's stacked experts: nothing of those that it has no pair for.
class ExpertsChange {
 public:
  void Add(const AdapterEntry& entry, double scale) {
    out_ = entry.out;
    cols_ = entry.in;
    experts_.emplace(entry.expert, EntryChange(entry, scale, 0));
  }
  void Rows(int64_t row, int64_t count, const float* base, float* delta) const {
    for (int64_t i = 0; i < count; ++i) {
      const auto found = experts_.find((row + i) / out_);
      float* to = delta + i * cols_;
      if (found == experts_.end()) {
        std::fill_n(to, cols_, 0.0f);
      } else {
        found->second.Rows((row + i) % out_, 1, base + i * cols_, to);
      }
    }
  }

 private:
  int64_t out_ = 1, cols_ = 0;
  std::map<int64_t, EntryChange> experts_;
};

void CheckEntry(const std::string& adapter, const AdapterEntry& entry, const ModelSource& base) {
  const SourceTensor* tensor = base.Find(TensorOf(entry));
  if (tensor == nullptr) {
    Throw(ErrorCode::kInvalidArgument,
          "adapter {}: {}: expected a tensor {} in {}, found none: was it trained on "
          "another base?",
          Quote(adapter), AdapterEntryName(entry), Quote(TensorOf(entry)), base.name);
  }
  const bool embedding = entry.site == AdapterSite::kEmbedTokens;
  const int64_t rows = embedding ? entry.in : entry.out, cols = embedding ? entry.out : entry.in;
  const bool stacked = entry.expert >= 0 && tensor->num_rows() % rows == 0 &&
                       entry.expert < tensor->num_rows() / rows;
  if ((tensor->num_rows() == rows || stacked) && tensor->cols() == cols) return;
  Throw(ErrorCode::kInvalidArgument,
        "adapter {}: {}: expected a matrix of {} x {}, found {} x {}: was it trained on "
        "another base?",
        Quote(adapter), AdapterEntryName(entry), tensor->num_rows(), tensor->cols(), rows, cols);
}

void CheckSame(const ModelSource& base, const ModelSource& other, const char* key) {
  const GgufValue *a = base.header->Find(key), *b = other.header->Find(key);
  if (a == nullptr && b == nullptr) return;
  if (a != nullptr && b != nullptr && a->type == b->type && a->element == b->element &&
      a->count == b->count &&
      std::equal(a->bytes.begin(), a->bytes.end(), b->bytes.begin(), b->bytes.end())) {
    return;
  }
  Throw(ErrorCode::kInvalidArgument,
        "{}: {}: expected the same as in {}, found another: only models with one "
        "tokenizer and one architecture can be merged",
        other.name, key, base.name);
}

void CheckAlike(const ModelSource& base, const ModelSource& other) {
  CheckSame(base, other, "general.architecture");
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
                          "tokenizer.ggml.merges"}) {
    CheckSame(base, other, key);
  }
  for (const SourceTensor& tensor : other.tensors) {
    const SourceTensor* mine = base.Find(tensor.name);
    if (mine == nullptr && tensor.name == kHead) mine = base.Find(kEmbedding);
    if (mine != nullptr && mine->ne == tensor.ne) continue;
    Throw(ErrorCode::kInvalidArgument, "{}: tensor {}: expected {} in {}, found {}", other.name,
          Quote(tensor.name), mine == nullptr ? "one" : "its shape", base.name,
          mine == nullptr ? "none" : "another");
  }
}

// `tensor` of a model that may have embedding and head in one.
const SourceTensor& TensorIn(const ModelSource& model, const std::string& tensor) {
  const SourceTensor* found = model.Find(tensor);
  if (found == nullptr && tensor == kHead) found = model.Find(kEmbedding);
  if (found == nullptr) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected a tensor {}, found none", model.name,
          Quote(tensor));
  }
  return *found;
}

bool SameBytes(const SourceTensor& a, const SourceTensor& b) {
  return a.type == b.type && !a.bytes.empty() &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

}  // namespace

HeadShape HeadsOf(const ModelSource& source) {
  const GgufFile& header = *source.header;
  const std::string prefix = ArchitectureOf(source) + ".";
  HeadShape heads;
  heads.num_heads = header.GetU32(prefix + "attention.head_count", 0);
  heads.num_kv_heads =
      header.GetU32(prefix + "attention.head_count_kv", static_cast<uint32_t>(heads.num_heads));
  const uint32_t width = header.GetU32(prefix + "embedding_length", 0);
  heads.head_dim =
      header.GetU32(prefix + "attention.key_length",
                    heads.num_heads > 0 ? width / static_cast<uint32_t>(heads.num_heads) : 0);
  return heads;
}

Merged MergeAdapters(const ModelSource& base, std::vector<MergeAdapter> adapters,
                     const MergeOptions& options) {
  if (options.method == MergeMethod::kSlerp) {
    Throw(ErrorCode::kInvalidArgument,
          "slerp: expected models to go between, found adapters; use sum, ties or dare-ties");
  }
  Merged merged{.source = base};
  const auto owner = std::make_shared<const std::vector<MergeAdapter>>(std::move(adapters));
  merged.source.owners.push_back(owner);
  const std::string architecture = ArchitectureOf(base);
  const int64_t head_dim = GgufPermutesQueryKey(architecture) ? HeadsOf(base).head_dim : 0;
  for (const MergeAdapter& adapter : *owner) {
    if (!adapter.file.architecture.empty() && adapter.file.architecture != architecture) {
      Throw(ErrorCode::kInvalidArgument,
            "adapter {}: architecture: expected the base's {}, found {}", Quote(adapter.file.name),
            Quote(architecture), Quote(adapter.file.architecture));
    }
    for (const AdapterEntry& entry : adapter.file.entries) {
      if (!IsLayerSite(entry.site) && merged.source.Find(kHead) == nullptr) {
        Untie(merged.source);
        merged.untied = true;
      }
      CheckEntry(adapter.file.name, entry, merged.source);
    }
  }
  std::map<std::string, std::vector<Change>> changes;
  for (const MergeAdapter& adapter : *owner) {
    std::map<std::string, std::shared_ptr<ExpertsChange>> stacked;
    for (const AdapterEntry& entry : adapter.file.entries) {
      if (entry.expert >= 0) {
        std::shared_ptr<ExpertsChange>& change = stacked[TensorOf(entry)];
        if (!change) change = std::make_shared<ExpertsChange>();
        change->Add(entry, AdapterScale(adapter.file, entry));
        continue;
      }
      const bool permuted = entry.site == AdapterSite::kQProj || entry.site == AdapterSite::kKProj;
      const EntryChange change(entry, AdapterScale(adapter.file, entry), permuted ? head_dim : 0);
      changes[TensorOf(entry)].push_back(
          {.weight = adapter.weight,
           .rows = [change](int64_t row, int64_t count, const float* w, float* delta) {
             change.Rows(row, count, w, delta);
           }});
    }
    for (const auto& [tensor, change] : stacked) {
      changes[tensor].push_back(
          {.weight = adapter.weight,
           .rows = [change = change](int64_t row, int64_t count, const float* w, float* delta) {
             change->Rows(row, count, w, delta);
           }});
    }
  }
  for (size_t i = 0; i < merged.source.tensors.size(); ++i) {
    SourceTensor& tensor = merged.source.tensors[i];
    const auto found = changes.find(tensor.name);
    if (found == changes.end()) continue;
    Replace(tensor, std::move(found->second), options, i);
    ++merged.num_merged;
  }
  return merged;
}

Merged MergeModels(const ModelSource& base, std::vector<MergeModel> models,
                   const MergeOptions& options) {
  if (options.method == MergeMethod::kSlerp && models.size() != 1) {
    Throw(ErrorCode::kInvalidArgument, "slerp: expected one model beside the base, found {}",
          models.size());
  }
  Merged merged{.source = base};
  const auto owner = std::make_shared<const std::vector<MergeModel>>(std::move(models));
  merged.source.owners.push_back(owner);
  for (const MergeModel& model : *owner) {
    CheckAlike(base, model.source);
    if (model.source.Find(kHead) != nullptr && merged.source.Find(kHead) == nullptr) {
      Untie(merged.source);
      merged.untied = true;
    }
  }
  for (size_t i = 0; i < merged.source.tensors.size(); ++i) {
    SourceTensor& tensor = merged.source.tensors[i];
    std::vector<Change> changes;
    bool same = true;
    for (const MergeModel& model : *owner) {
      const SourceTensor& other = TensorIn(model.source, tensor.name);
      same = same && SameBytes(tensor, other);
      changes.push_back({.weight = model.weight,
                         .rows = [&other, cols = tensor.cols()](int64_t row, int64_t count,
                                                                const float* w, float* d) {
                           other.rows(row, count, d);
                           for (int64_t k = 0; k < count * cols; ++k) d[k] -= w[k];
                         }});
    }
    if (same || !PanelTypeOf(tensor.type)) continue;
    Replace(tensor, std::move(changes), options, i);
    tensor.forget = [forget = tensor.forget, owner, name = tensor.name] {
      if (forget) forget();
      for (const MergeModel& model : *owner) {
        const SourceTensor& other = TensorIn(model.source, name);
        if (other.forget) other.forget();
      }
    };
    ++merged.num_merged;
  }
  return merged;
}

AdapterFile SumOfAdapters(const std::vector<MergeAdapter>& adapters) {
  AdapterFile sum = adapters.front().file;
  sum.entries.clear();
  sum.use_rslora = false;
  std::map<std::tuple<int32_t, int32_t, AdapterSite>, AdapterEntry> entries;
  for (const MergeAdapter& adapter : adapters) {
    if (adapter.file.use_dora) {
      Throw(ErrorCode::kUnsupported, "adapter {}: DoRA changes cannot be added as pairs",
            Quote(adapter.file.name));
    }
    for (const AdapterEntry& entry : adapter.file.entries) {
      AdapterEntry& to = entries[{entry.layer, entry.expert, entry.site}];
      const AdapterEntry before = std::exchange(to, entry);
      to.rank = before.rank + entry.rank;
      to.alpha = static_cast<float>(to.rank);  // a scale of 1: it is in B
      to.a = before.a;
      to.a.insert(to.a.end(), entry.a.begin(), entry.a.end());
      to.b.assign(static_cast<size_t>(entry.out * to.rank), 0);
      const auto scale = static_cast<float>(adapter.weight * AdapterScale(adapter.file, entry));
      for (int64_t row = 0; row < entry.out; ++row) {
        float* b = to.b.data() + row * to.rank;
        for (int64_t r = 0; r < before.rank; ++r) {
          b[r] = before.b[static_cast<size_t>(row * before.rank + r)];
        }
        for (int64_t r = 0; r < entry.rank; ++r) {
          b[before.rank + r] = scale * entry.b[static_cast<size_t>(row * entry.rank + r)];
        }
      }
    }
  }
  for (auto& [key, entry] : entries) {
    sum.rank = std::max(sum.rank, entry.rank);
    sum.entries.push_back(std::move(entry));
  }
  sum.alpha = static_cast<float>(sum.rank);
  return sum;
}

MergeLoss MeasureMergeLoss(const ModelSource& base, const ModelSource& merged,
                           const ModelSource& written, ThreadPool& pool) {
  constexpr int64_t kRows = 16, kEvery = 8;  // of 8 pieces of 16 rows, the first
  double change = 0, error = 0, values = 0;
  for (const SourceTensor& tensor : merged.tensors) {
    const SourceTensor *before = base.Find(tensor.name), *after = written.Find(tensor.name);
    if (!tensor.prepare || !IsQuantized(after != nullptr ? after->type : DType::kF32) ||
        before == nullptr) {
      continue;
    }
    const int64_t pieces = (tensor.num_rows() + kRows * kEvery - 1) / (kRows * kEvery),
                  cols = tensor.cols();
    std::vector<std::pair<double, double>> sums(static_cast<size_t>(pieces));
    pool.ParallelFor(pieces, 1, [&](int64_t begin, int64_t end, int) {
      std::vector<float> w(static_cast<size_t>(kRows * cols)), m = w, q = w;
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t row = piece * kRows * kEvery,
                      count = std::min(kRows, tensor.num_rows() - row);
        before->rows(row, count, w.data());
        tensor.rows(row, count, m.data());
        after->rows(row, count, q.data());
        auto& [changed, wrong] = sums[static_cast<size_t>(piece)];
        for (size_t i = 0; i < static_cast<size_t>(count * cols); ++i) {
          changed += std::pow(static_cast<double>(m[i]) - static_cast<double>(w[i]), 2);
          wrong += std::pow(static_cast<double>(q[i]) - static_cast<double>(m[i]), 2);
        }
      }
    });
    for (const auto& [changed, wrong] : sums) {
      change += changed;
      error += wrong;
    }
    values += static_cast<double>(tensor.elements()) / kEvery;
  }
  if (values == 0) return {};
  return {std::sqrt(change / values), std::sqrt(error / values)};
}

}  // namespace bakestone
