#include "model/train_layout.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "model/families/tensor_names.h"

namespace bakestone {
namespace {

constexpr int64_t kMaxRank = 1024;

// '*' is any text, also none.
bool FitsWhole(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, after_star = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after_star = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++after_star;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

bool FitsPattern(std::string_view pattern, std::string_view name) {
  for (;;) {
    if (FitsWhole(pattern, name)) return true;
    const size_t dot = name.find('.');
    if (dot == std::string_view::npos) return false;
    name.remove_prefix(dot + 1);
  }
}

// Lays tensors out one after another, and notes which patterns were of use.
class LayoutBuilder {
 public:
  LayoutBuilder(const ModelConfig& config, const TrainShape& shape,
                const std::vector<LinearId>& biases)
      : config_(config), shape_(shape), biases_(biases), used_(shape.targets.size()) {
    layout_.tied = config.tied_embedding;
  }

  TrainLayout Pairs() {
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const bool of_experts = config_.has_experts(layer) && CanAdaptExperts(config_);
      const int64_t experts = of_experts ? config_.router.experts : 0;
      for (int64_t expert = -1; expert < experts; ++expert) {
        for (int site = 0; site < kNumSites; ++site) {
          const LinearId id{static_cast<int32_t>(layer), static_cast<Site>(site),
                            static_cast<int32_t>(expert)};
          if (HasSite(config_, id) && Wanted(LinearName(id))) Pair(id);
        }
      }
    }
    if (shape_.rows != TrainedRows::kNone) {
      if (config_.per_layer_dim > 0) {
        Throw(ErrorCode::kUnsupported,
              "training: expected rows of embedding and head to stay as they are, found some to "
              "be trained; this model has embeddings by layer beside them: use kind \"lora\" "
              "without 'embeddings' and new tokens");
      }
      const int64_t first = shape_.rows == TrainedRows::kNew ? shape_.first_new_row : 0;
      const std::string what = shape_.rows == TrainedRows::kNew ? ".new_rows" : ".weight";
      if (first < config_.vocab_size) {
        layout_.embedding = Rows("embed_tokens" + what, first);
        if (!layout_.tied) layout_.head = Rows("lm_head" + what, first);
      }
    }
    return Finish();
  }

  TrainLayout Whole() {
    if (Wanted("embed_tokens")) layout_.embedding = Rows("embed_tokens.weight", 0);
    layout_.attention_norms.assign(static_cast<size_t>(config_.num_layers), -1);
    layout_.mlp_norms = layout_.attention_norms;
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const auto at = static_cast<size_t>(layer);
      const std::string prefix = fmt::format("layers.{}.", layer);
      layout_.attention_norms[at] = Norm(prefix + "input_layernorm");
      for (int site = 0; site < kNumSites; ++site) {
        if (static_cast<Site>(site) == Site::kGate) {
          layout_.mlp_norms[at] = Norm(prefix + "post_attention_layernorm");
        }
        const LinearId id{static_cast<int32_t>(layer), static_cast<Site>(site)};
        if (HasSite(config_, id)) Matrix(id);
      }
    }
    layout_.final_norm = Norm("norm");
    if (!layout_.tied && Wanted("lm_head")) layout_.head = Rows("lm_head.weight", 0);
    return Finish();
  }

 private:
  bool Wanted(std::string_view name) {
    bool wanted = false;
    for (size_t i = 0; i < shape_.targets.size(); ++i) {
      const std::string& pattern = shape_.targets[i];
      if (pattern != "all" && !FitsPattern(pattern, name)) continue;
      used_[i] = true;
      wanted = true;
    }
    return wanted;
  }

  int64_t Add(std::string name, int64_t rows, int64_t cols, bool embedding = false) {
    const int64_t offset = layout_.size;
    layout_.tensors.push_back({.name = std::move(name),
                               .offset = offset,
                               .rows = rows,
                               .cols = cols,
                               .embedding = embedding,
                               .decays = cols > 0});
    layout_.size += layout_.tensors.back().size();
    return offset;
  }

  void Pair(LinearId id) {
    if (shape_.dora && id.expert >= 0) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected a matrix that every row goes through to be trained with DoRA, found an "
            "expert's; use kind \"lora\" or \"rslora\", or targets of attention alone",
            LinearName(id));
    }
    const bool has_bias = std::find(biases_.begin(), biases_.end(), id) != biases_.end();
    if (shape_.dora && has_bias && (id.site == Site::kGate || id.site == Site::kUp)) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected a matrix without a bias to be trained with DoRA, found one with a bias; "
            "use kind \"lora\" or \"rslora\", or targets of attention alone",
            LinearName(id));
    }
    if (shape_.dora && config_.names != nullptr && !AllTogether(id)) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected all matrices that lie in one to be trained with DoRA, found some; name "
            "q_proj, k_proj and v_proj together, and gate_proj with up_proj",
            LinearName(id));
    }
    if (shape_.dora && config_.output_gate && id.site == Site::kQ) {
      Throw(ErrorCode::kUnsupported,
            "{}: expected a matrix of its own to be trained with DoRA, found one that holds a gate "
            "too; use kind \"lora\" or \"rslora\"",
            LinearName(id));
    }
    const LinearShape shape = ShapeOf(config_, id);
    const std::string name = LinearName(id);
    LoraSlot slot{.id = id, .rank = shape_.rank, .in = shape.k, .out = shape.n};
    slot.a_offset = Add(name + ".lora_A", shape_.rank, shape.k);
    slot.b_offset = Add(name + ".lora_B", shape.n, shape_.rank);
    if (shape_.dora) slot.magnitude_offset = Add(name + ".lora_magnitude_vector", shape.n, 0);
    layout_.slots.push_back(slot);
  }

  // Whether the matrices that the id's lies together with are all wanted.
  bool AllTogether(LinearId id) {
    std::vector<Site> together;
    if (id.site <= Site::kV && config_.names->q_k_v != nullptr) {
      together = {Site::kQ, Site::kK, Site::kV};
    }
    if ((id.site == Site::kGate || id.site == Site::kUp) && config_.names->gate_up != nullptr) {
      together = {Site::kGate, Site::kUp};
    }
    return std::all_of(together.begin(), together.end(),
                       [&](Site site) { return Wanted(LinearName({id.layer, site})); });
  }

  void Matrix(LinearId id) {
    const std::string name = LinearName(id);
    if (!Wanted(name)) return;
    const LinearShape shape = ShapeOf(config_, id);
    MatrixSlot slot{.id = id, .in = shape.k, .out = shape.n};
    slot.offset = Add(name + ".weight", shape.n, shape.k);
    if (std::find(biases_.begin(), biases_.end(), id) != biases_.end()) {
      slot.bias_offset = Add(name + ".bias", shape.n, 0);
    }
    layout_.matrices.push_back(slot);
  }

  int64_t Norm(const std::string& name) {
    const bool known =
        config_.norm_kind == NormKind::kRms &&
        (name == "norm" || config_.norm_placement == NormPlacement::kPre);  // else called otherwise
    return known && Wanted(name) ? Add(name + ".weight", config_.hidden_dim, 0) : -1;
  }

  RowsSlot Rows(std::string name, int64_t first) {
    RowsSlot slot{.first = first, .rows = config_.vocab_size - first};
    slot.offset = Add(std::move(name), slot.rows, config_.hidden_dim, true);
    return slot;
  }

  TrainLayout Finish() {
    for (size_t i = 0; i < used_.size(); ++i) {
      if (used_[i]) continue;
      Throw(ErrorCode::kInvalidArgument,
            "targets: expected \"all\" or patterns of names such as q_proj, mlp.* or layers.0.*, "
            "found "
            "'{}', which fits nothing that can be trained here",
            shape_.targets[i]);
    }
    if (layout_.size == 0) {
      Throw(ErrorCode::kInvalidArgument, "targets: expected something to train, found none");
    }
    return std::move(layout_);
  }

  const ModelConfig& config_;
  const TrainShape& shape_;
  const std::vector<LinearId>& biases_;
  std::vector<bool> used_;
  TrainLayout layout_;
};

TrainLayout TrainLayout::Make(const ModelConfig& config, const TrainShape& shape,
                              const std::vector<LinearId>& biases) {
  if (shape.rank < 0 || shape.rank > kMaxRank) {
    Throw(ErrorCode::kInvalidArgument, "LoRA rank: expected 1 to {}, found {}", kMaxRank,
          shape.rank);
  }
  if (const char* frozen = FrozenPart(config); shape.rank == 0 && frozen != nullptr) {
    Throw(ErrorCode::kUnsupported,
          "training: expected pairs (kind \"lora\" or \"rslora\") on this model, found the whole "
          "model; {} stay as they are",
          frozen);
  }
  LayoutBuilder builder(config, shape, biases);
  return shape.rank > 0 ? builder.Pairs() : builder.Whole();
}

namespace {

template <class Slot>
const Slot* FindById(const std::vector<Slot>& slots, LinearId id) noexcept {
  const auto at =
      std::lower_bound(slots.begin(), slots.end(), id,
                       [](const Slot& slot, LinearId wanted) { return slot.id < wanted; });
  return at != slots.end() && at->id == id ? &*at : nullptr;
}

}  // namespace

const LoraSlot* TrainLayout::Find(LinearId id) const noexcept { return FindById(slots, id); }
const MatrixSlot* TrainLayout::FindMatrix(LinearId id) const noexcept {
  return FindById(matrices, id);
}

int64_t TrainLayout::lowest_layer(int64_t num_layers) const noexcept {
  if (embedding.rows > 0) return 0;
  int64_t lowest = num_layers;
  if (!slots.empty()) lowest = std::min<int64_t>(lowest, slots.front().id.layer);
  if (!matrices.empty()) lowest = std::min<int64_t>(lowest, matrices.front().id.layer);
  for (const auto* norms : {&attention_norms, &mlp_norms}) {
    const auto first =
        std::find_if(norms->begin(), norms->end(), [](int64_t at) { return at >= 0; });
    lowest = std::min<int64_t>(lowest, first == norms->end() ? num_layers : first - norms->begin());
  }
  return lowest;
}

}  // namespace bakestone
