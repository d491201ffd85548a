#include "model/decoder.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "model/experts.h"
#include "model/rope_tables.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "ops/rows.h"

namespace bakestone {
namespace {

// A set of rows that go through the network together, with everything that depends on which rows
// they are. A step has two: all rows, and after the last layer's keys and values only the output
// rows.
struct RowSet {
  int64_t rows = 0;
  std::span<const AdapterRun> adapters;  // of these rows; none for the base
  std::span<const KvRun> runs;
  const RopeTables* rope = nullptr;
};

// One layer's pages of a run that has a state.
struct RunPages {
  uint8_t **k, **v;
};

struct SiteOutput {
  Site site;
  MatrixView<float> y;
};

// The forms of activations that a few products need, each once.
class Forms {
 public:
  void Add(ActType type) {
    if (std::find(types_.begin(), types_.begin() + count_, type) == types_.begin() + count_) {
      types_[count_++] = type;
    }
  }
  std::span<const ActType> span() const { return {types_.data(), count_}; }

 private:
  std::array<ActType, kNumActTypes> types_{};
  size_t count_ = 0;
};

// One call of Forward. T rows of the step, R output rows.
class Pass {
 public:
  Pass(const ModelConfig& config, const Weights& weights, const RopeTables& rope, Exec& exec,
       const Step& step)
      : config_(config), weights_(weights), exec_(exec), step_(step), arena_(exec.scratch.arena) {
    CheckStep();
    exec.scratch.rope = rope;
    exec.scratch.rope.Set(step.positions);
    PlanPages();
    all_ = {.rows = static_cast<int64_t>(step.tokens.size()),
            .adapters = step.adapters,
            .runs = PlanRuns(),
            .rope = &exec.scratch.rope};
    out_ = all_;
    if (num_outputs() < all_.rows) PlanOutputs(rope);
  }

  void Run(MatrixView<float> hidden) {
    MatrixView<float> x = arena_.TakeMatrix<float>(all_.rows, config_.hidden_dim);
    ops::Embed(exec_.context, weights_.embedding.panel(), step_.tokens, x);
    if (config_.embedding_scale != 1) ops::Scale(exec_.context, config_.embedding_scale, x);
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      const bool last = layer + 1 == config_.num_layers;
      attention_.window = config_.window(layer);
      LoadPages(layer);
      x = Attention(layer, x, last && num_outputs() < all_.rows);
      if (x.rows == 0) return;
      const RowSet& set = last ? out_ : all_;
      if (config_.router.experts > 0) {
        Experts(layer, x, set);
      } else {
        Mlp(layer, x, set);
      }
    }
    if (config_.norm_kind == NormKind::kLayer) {
      ops::LayerNorm(exec_.context, x, weights_.final_norm, weights_.final_norm_bias, config_.norm_eps, hidden);
    } else {
      ops::RmsNorm(exec_.context, x, weights_.final_norm, config_.norm_eps, hidden);
    }
  }

 private:
  int64_t num_outputs() const { return static_cast<int64_t>(step_.output_rows.size()); }
  const LayerWeights& Layer(int64_t layer) const {
    return weights_.layers[static_cast<size_t>(layer)];
  }

  void CheckStep() const {
    const auto rows = static_cast<int32_t>(step_.tokens.size());
    BAKESTONE_CHECK(rows > 0 && step_.positions.size() == step_.tokens.size());
    for (size_t i = 0; i < step_.tokens.size(); ++i) {
      if (step_.tokens[i] < 0 || step_.tokens[i] >= config_.vocab_size) {
        Throw(ErrorCode::kInvalidArgument, "token {}: expected an id from 0 to {}, found {}", i,
              config_.vocab_size - 1, step_.tokens[i]);
      }
      BAKESTONE_CHECK(step_.positions[i] >= 0);
    }
    int32_t end = 0;
    for (const SequenceRun& run : step_.sequences) {
      BAKESTONE_CHECK(run.begin == end && run.end > run.begin);
      BAKESTONE_CHECK(run.state == nullptr || run.state->reserved() >= run.end - run.begin);
      end = run.end;
    }
    BAKESTONE_CHECK(end == rows);
    end = step_.adapters.empty() ? rows : 0;
    for (const AdapterRun& run : step_.adapters) {
      BAKESTONE_CHECK(run.begin == end && run.end > run.begin);
      BAKESTONE_CHECK(run.adapter == nullptr || run.adapter->published());
      end = run.end;
    }
    BAKESTONE_CHECK(end == rows);
    int32_t previous = -1;
    for (const int32_t row : step_.output_rows) {
      BAKESTONE_CHECK(row > previous && row < rows);
      previous = row;
    }
  }

  // The type of keys and values, and room for those of runs without a state.
  void PlanPages() {
    attention_ = {
        .heads = config_.num_heads,
        .kv_heads = config_.num_kv_heads,
        .head_dim = config_.head_dim,
        .element = exec_.precision == Precision::kExact ? KvElement::kF32 : KvElement::kBF16,
        .scale = config_.attention_scale,
        .soft_cap = config_.attention_soft_cap};
    const SequenceState* first = nullptr;
    size_t num_without = 0;
    for (const SequenceRun& run : step_.sequences) {
      if (run.state == nullptr) {
        ++num_without;
        continue;
      }
      if (first == nullptr) first = run.state;
      BAKESTONE_CHECK(run.state->kv_type() == first->kv_type());
    }
    if (first != nullptr) {
      attention_.element = ElementOf(first->kv_type());
    }
    std::vector<ops::TemporaryPages>& temporary = exec_.scratch.run_pages;
    if (temporary.size() < num_without) temporary.resize(num_without);
    size_t next = 0;
    for (const SequenceRun& run : step_.sequences) {
      if (run.state == nullptr) temporary[next++].Reset(attention_, run.end - run.begin);
    }
  }

  // The pages of runs with a state are filled in layer by layer (LoadPages).
  std::span<const KvRun> PlanRuns() {
    const auto count = static_cast<int64_t>(step_.sequences.size());
    KvRun* runs = arena_.Take<KvRun>(count);
    pages_ = arena_.Take<RunPages>(count);
    size_t next_temporary = 0;
    for (int64_t i = 0; i < count; ++i) {
      const SequenceRun& run = step_.sequences[static_cast<size_t>(i)];
      runs[i] = {.row_begin = run.begin,
                 .row_end = run.end,
                 .first_slot = 0,
                 .k_pages = nullptr,
                 .v_pages = nullptr};
      if (run.state == nullptr) {
        const ops::TemporaryPages& pages = exec_.scratch.run_pages[next_temporary++];
        runs[i].k_pages = pages.k_pages();
        runs[i].v_pages = pages.v_pages();
        continue;
      }
      runs[i].first_slot = run.state->length();
      pages_[i] = {.k = arena_.Take<uint8_t*>(run.state->num_pages()),
                   .v = arena_.Take<uint8_t*>(run.state->num_pages())};
      runs[i].k_pages = pages_[i].k;
      runs[i].v_pages = pages_[i].v;
    }
    return {runs, static_cast<size_t>(count)};
  }

  void LoadPages(int64_t layer) const {
    for (size_t i = 0; i < step_.sequences.size(); ++i) {
      const SequenceState* state = step_.sequences[i].state;
      if (state == nullptr) continue;
      for (int64_t page = 0; page < state->num_pages(); ++page) {
        pages_[i].k[page] = state->Keys(layer, page);
        pages_[i].v[page] = state->Values(layer, page);
      }
    }
  }

  // The output rows as a set of their own: rows that follow each other in a run stay one run.
  void PlanOutputs(const RopeTables& rope) {
    const std::span<const int32_t> rows = step_.output_rows;
    KvRun* runs = arena_.Take<KvRun>(num_outputs());
    auto* adapters = arena_.Take<AdapterRun>(static_cast<int64_t>(step_.adapters.size()));
    int32_t* positions = arena_.Take<int32_t>(num_outputs());
    size_t num_runs = 0, num_adapters = 0, run = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      positions[i] = step_.positions[static_cast<size_t>(rows[i])];
      const bool follows = i > 0 && rows[i] == rows[i - 1] + 1 && rows[i] < all_.runs[run].row_end;
      if (follows) {
        ++runs[num_runs - 1].row_end;
        continue;
      }
      while (rows[i] >= all_.runs[run].row_end) ++run;
      runs[num_runs] = all_.runs[run];
      runs[num_runs].first_slot += rows[i] - all_.runs[run].row_begin;
      runs[num_runs].row_begin = at;
      runs[num_runs++].row_end = at + 1;
    }
    const auto index_of = [&](int32_t row) {
      return static_cast<int32_t>(std::lower_bound(rows.begin(), rows.end(), row) - rows.begin());
    };
    for (const AdapterRun& whole : step_.adapters) {
      const AdapterRun part = {index_of(whole.begin), index_of(whole.end), whole.adapter};
      if (part.end > part.begin) adapters[num_adapters++] = part;
    }
    exec_.scratch.out_rope = rope;
    exec_.scratch.out_rope.Set({positions, rows.size()});
    out_ = {.rows = num_outputs(),
            .adapters = {adapters, num_adapters},
            .runs = {runs, num_runs},
            .rope = &exec_.scratch.out_rope};
  }

  Forms FormsFor(int64_t layer, const RowSet& set, std::span<const SiteOutput> outputs) const {
    Forms forms;
    for (const SiteOutput& output : outputs) {
      forms.Add(ops::ActTypeFor(Layer(layer).at(output.site).panel().type, exec_.precision));
      if (Adapted(layer, set, output.site)) forms.Add(ops::LoraActType(exec_.precision));
    }
    return forms;
  }

  static bool Adapted(int64_t layer, const RowSet& set, Site site) {
    const LinearId id = {static_cast<int32_t>(layer), site};
    return std::any_of(set.adapters.begin(), set.adapters.end(), [&](const AdapterRun& run) {
      return run.adapter != nullptr && run.adapter->FindPanels(id) != nullptr;
    });
  }

  // y = W x (+ bias) or y += W x, then the adapters; the input is in scratch.rows.
  void Products(int64_t layer, const RowSet& set, std::span<const SiteOutput> outputs,
                Epilogue epilogue) {
    std::array<ops::Product, kNumSites> products;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Weight& weight = Layer(layer).at(outputs[i].site);
      products[i] = {.panel = weight.panel(), .bias = weight.bias(), .y = outputs[i].y};
    }
    const ops::QuantizedRows& x = exec_.scratch.rows;
    ops::MatMul(exec_.context, x, {products.data(), outputs.size()}, exec_.precision, epilogue);
    for (const SiteOutput& output : outputs) {
      const LinearId id = {static_cast<int32_t>(layer), output.site};
      for (const AdapterRun& run : set.adapters) {
        const ops::LoraPanels* lora = run.adapter ? run.adapter->FindPanels(id) : nullptr;
        if (lora == nullptr) continue;
        const int64_t count = run.end - run.begin;
        ops::Lora(exec_.context, x, run.begin, count, *lora, output.y.Rows(run.begin, count),
                  exec_.precision);
      }
    }
  }

  // A norm of what a branch takes; no scale where the family has none there.
  struct Norm {
    std::span<const float> scale, bias;
  };

  // x, normalized, as the input of products.
  void QuantizeNormed(MatrixView<const float> x, const Norm& norm, const Forms& forms, const char* what) {
    ops::QuantizedRows& rows = exec_.scratch.rows;
    if (norm.scale.empty()) {
      ops::Quantize(exec_.context, x, forms.span(), rows, what);
    } else if (config_.norm_kind == NormKind::kLayer) {
      ops::LayerNormQuantize(exec_.context, x, norm.scale, norm.bias, config_.norm_eps, forms.span(), rows, what);
    } else {
      ops::RmsNormQuantize(exec_.context, x, norm.scale, config_.norm_eps, {}, forms.span(), rows, what);
    }
  }

  void NormedProducts(int64_t layer, const RowSet& set, MatrixView<const float> x, const Norm& norm,
                      std::span<const SiteOutput> outputs, const char* what) {
    QuantizeNormed(x, norm, FormsFor(layer, set, outputs), what);
    Products(layer, set, outputs, Epilogue::kStore);
  }

  // The end of a branch: x += the product of what is in scratch.rows; where the family wants it, after a norm
  // and times a factor.
  void AddBranch(int64_t layer, const RowSet& set, Site site, std::span<const float> post_norm,
                 MatrixView<float> x) {
    if (post_norm.empty() && config_.residual_scale == 1) {
      const SiteOutput output = {site, x};
      return Products(layer, set, {&output, 1}, Epilogue::kAdd);
    }
    Arena::Scope scope(arena_);
    const SiteOutput output = {site, arena_.TakeMatrix<float>(x.rows, x.cols)};
    Products(layer, set, {&output, 1}, Epilogue::kStore);
    if (!post_norm.empty()) ops::RmsNorm(exec_.context, output.y, post_norm, config_.norm_eps, output.y);
    if (config_.residual_scale != 1) ops::Scale(exec_.context, config_.residual_scale, output.y);
    ops::Add(exec_.context, output.y, x);
  }

  // Queries or keys of the rows of a set, as attention takes them.
  void NormAndRotate(int64_t layer, const RowSet& set, std::span<const float> norm, MatrixView<float> x) {
    if (!norm.empty()) ops::RmsNormGroups(exec_.context, norm, config_.norm_eps, x);
    const LayerRope rope = config_.layer_rope(layer);
    if (rope == LayerRope::kNone) return;
    const auto& table = rope == LayerRope::kLocal ? set.rope->local : set.rope->main;
    ops::Rope(exec_.context, *table, x, config_.head_dim);
  }

  // x [T, hidden] plus attention, in place; only_outputs: the output rows alone, as a new matrix
  // (of no rows where keys and values were all that was asked for).
  MatrixView<float> Attention(int64_t layer, MatrixView<float> x, bool only_outputs) {
    const RowSet& set = only_outputs ? out_ : all_;
    const LayerWeights& weights = Layer(layer);
    const Norm norm = {weights.attention_norm, weights.attention_norm_bias};
    MatrixView<float> y = only_outputs ? GatherOutputs(x) : x;
    Arena::Scope scope(arena_);
    const MatrixView<float> k = arena_.TakeMatrix<float>(all_.rows, config_.kv_dim());
    const MatrixView<float> v = arena_.TakeMatrix<float>(all_.rows, config_.kv_dim());
    const MatrixView<float> q = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
    const std::array<SiteOutput, 3> outputs = {{{Site::kK, k}, {Site::kV, v}, {Site::kQ, q}}};
    const std::span<const SiteOutput> sites = outputs;
    NormedProducts(layer, all_, x, norm, only_outputs ? sites.first(2) : sites, "attention input");
    NormAndRotate(layer, all_, weights.k_norm, k);
    ops::WriteKv(exec_.context, attention_, all_.runs, k, v);
    if (set.rows == 0) return y;
    if (only_outputs) NormedProducts(layer, set, y, norm, sites.last(1), "attention input");
    NormAndRotate(layer, set, weights.q_norm, q);
    const MatrixView<float> mixed = arena_.TakeMatrix<float>(set.rows, config_.q_dim());
    ops::Attention(exec_.context, attention_, set.runs, q, mixed);
    const SiteOutput o = {Site::kO, y};
    ops::Quantize(exec_.context, mixed, FormsFor(layer, set, {&o, 1}).span(), exec_.scratch.rows,
                  "attention output");
    AddBranch(layer, set, Site::kO, weights.attention_post_norm, y);
    return y;
  }

  // x += down(activation(gate, up)), the rows of `set`.
  void Mlp(int64_t layer, MatrixView<float> x, const RowSet& set) {
    Arena::Scope scope(arena_);
    const LayerWeights& weights = Layer(layer);
    const Norm norm = {weights.mlp_norm, weights.mlp_norm_bias};
    const MatrixView<float> gate = arena_.TakeMatrix<float>(set.rows, config_.ffn_dim);
    const SiteOutput down = {Site::kDown, x};
    const Forms down_forms = FormsFor(layer, set, {&down, 1});
    const bool fused = config_.mlp == MlpKind::kSwiGlu &&
                        weights.gate.panel().type == weights.up.panel().type &&
                       !weights.gate.bias() && !weights.up.bias() &&
                       !Adapted(layer, set, Site::kGate) && !Adapted(layer, set, Site::kUp);
    if (fused) {
      Forms forms;
      forms.Add(ops::ActTypeFor(weights.gate.panel().type, exec_.precision));
      QuantizeNormed(x, norm, forms, "MLP input");
      ops::MatMulSwiGlu(exec_.context, exec_.scratch.rows, weights.gate.panel(), weights.up.panel(),
                        gate, exec_.precision);
      ops::Quantize(exec_.context, gate, down_forms.span(), exec_.scratch.rows, "MLP activation");
    } else if (config_.gated()) {
      const MatrixView<float> up = arena_.TakeMatrix<float>(set.rows, config_.ffn_dim);
      const std::array<SiteOutput, 2> outputs = {{{Site::kGate, gate}, {Site::kUp, up}}};
      NormedProducts(layer, set, x, norm, outputs, "MLP input");
      const auto activate = config_.mlp == MlpKind::kGeGlu ? ops::GeluQuantize : ops::SwiGluQuantize;
      activate(exec_.context, gate, up, down_forms.span(), exec_.scratch.rows, "MLP activation");
    } else {
      const SiteOutput up = {Site::kUp, gate};
      NormedProducts(layer, set, x, norm, {&up, 1}, "MLP input");
      ops::GeluQuantize(exec_.context, gate, {}, down_forms.span(), exec_.scratch.rows, "MLP activation");
    }
    AddBranch(layer, set, Site::kDown, weights.mlp_post_norm, x);
  }

  // x += the sum of what its experts make of each row, by ascending expert. Only their weights are read.
  void Experts(int64_t layer, MatrixView<float> x, const RowSet& set) {
    Arena::Scope scope(arena_);
    const LayerWeights& weights = Layer(layer);
    const MatrixView<float> h = arena_.TakeMatrix<float>(set.rows, x.cols);
    const MatrixView<float> logits = arena_.TakeMatrix<float>(set.rows, config_.router.experts);
    ops::RmsNorm(exec_.context, x, weights.mlp_norm, config_.norm_eps, h);
    ProductOf(h, weights.router, logits, "router input");
    const std::vector<ExpertRows> chosen = ChooseExperts(config_.router, logits);
    for (size_t expert = 0; expert < chosen.size(); ++expert) {
      if (!chosen[expert].rows.empty()) Expert(weights.experts[expert], chosen[expert], h, x);
    }
  }

  void Expert(const ExpertWeights& expert, const ExpertRows& chosen, MatrixView<const float> h,
              MatrixView<float> x) {
    Arena::Scope scope(arena_);
    const auto count = static_cast<int64_t>(chosen.rows.size());
    const MatrixView<float> in = arena_.TakeMatrix<float>(count, h.cols);
    const MatrixView<float> gate = arena_.TakeMatrix<float>(count, config_.ffn_dim);
    exec_.pool.ParallelFor(count, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(h.Row(chosen.rows[static_cast<size_t>(i)]), h.cols, in.Row(i));
      }
    });
    if (expert.gate.panel().type == expert.up.panel().type) {
      const ActType form = ops::ActTypeFor(expert.gate.panel().type, exec_.precision);
      ops::Quantize(exec_.context, in, {&form, 1}, exec_.scratch.rows, "expert input");
      ops::MatMulSwiGlu(exec_.context, exec_.scratch.rows, expert.gate.panel(), expert.up.panel(), gate,
                        exec_.precision);
    } else {
      const MatrixView<float> up = arena_.TakeMatrix<float>(count, config_.ffn_dim);
      ProductOf(in, expert.gate, gate, "expert input");
      ProductOf(in, expert.up, up, "expert input");
      ops::SwiGlu(exec_.context, gate, up, gate);
    }
    ProductOf(gate, expert.down, in, "expert activation");
    exec_.pool.ParallelFor(count, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const float share = chosen.shares[static_cast<size_t>(i)], *from = in.Row(i);
        float* to = x.Row(chosen.rows[static_cast<size_t>(i)]);
        for (int64_t c = 0; c < x.cols; ++c) to[c] += share * from[c];
      }
    });
  }

  // y = W x, without adapters.
  void ProductOf(MatrixView<const float> x, const Weight& weight, MatrixView<float> y, const char* what) {
    const ActType form = ops::ActTypeFor(weight.panel().type, exec_.precision);
    ops::Quantize(exec_.context, x, {&form, 1}, exec_.scratch.rows, what);
    const ops::Product product = {.panel = weight.panel(), .bias = weight.bias(), .y = y};
    ops::MatMul(exec_.context, exec_.scratch.rows, {&product, 1}, exec_.precision);
  }

  MatrixView<float> GatherOutputs(MatrixView<const float> x) {
    const MatrixView<float> y = arena_.TakeMatrix<float>(num_outputs(), x.cols);
    for (int64_t i = 0; i < y.rows; ++i) {
      const float* row = x.Row(step_.output_rows[static_cast<size_t>(i)]);
      std::memcpy(y.Row(i), row, static_cast<size_t>(x.cols) * sizeof(float));
    }
    return y;
  }

  const ModelConfig& config_;
  const Weights& weights_;
  Exec& exec_;
  const Step& step_;
  Arena& arena_;
  ops::AttentionShape attention_;
  RunPages* pages_ = nullptr;  // [sequences]
  RowSet all_, out_;
};

}  // namespace

Decoder::Decoder(const ModelConfig& config, const Weights& weights)
    : config_(config),
      weights_(weights),
      rope_{.main = ops::RopeTable(TableOf(config.rope)), .local = std::nullopt} {
  if (HasLocalRope(config)) rope_.local.emplace(TableOf(config.local_rope));
}

void Decoder::Forward(Exec& exec, const Step& step, MatrixView<float> hidden) const {
  BAKESTONE_CHECK(hidden.rows == static_cast<int64_t>(step.output_rows.size()));
  BAKESTONE_CHECK(hidden.rows == 0 || hidden.cols == config_.hidden_dim);
  Arena::Scope scope(exec.scratch.arena);
  Pass(config_, weights_, rope_, exec, step).Run(hidden);
}

void Decoder::Logits(Exec& exec, MatrixView<const float> hidden, MatrixView<float> logits) const {
  BAKESTONE_CHECK(hidden.rows == logits.rows && hidden.cols == config_.hidden_dim &&
                  logits.cols == config_.vocab_size);
  if (hidden.rows == 0) return;
  const Weight& head = weights_.head();
  const ActType form = ops::ActTypeFor(head.panel().type, exec.precision);
  ops::Quantize(exec.context, hidden, {&form, 1}, exec.scratch.rows, "head input");
  const ops::Product product = {.panel = head.panel(), .bias = head.bias(), .y = logits};
  ops::MatMul(exec.context, exec.scratch.rows, {&product, 1}, exec.precision);
  if (config_.logit_scale != 1) ops::Scale(exec.context, config_.logit_scale, logits);
  if (config_.final_soft_cap > 0) ops::SoftCap(exec.context, config_.final_soft_cap, logits);
}

}  // namespace bakestone
