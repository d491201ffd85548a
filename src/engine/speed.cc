#include "engine/speed.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>

#include <fmt/format.h>

#include "base/error.h"
#include "base/rng.h"
#include "engine/engine.h"

namespace bakestone {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<int32_t> SyntheticTokens(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  Rng rng(1, 0);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab_size)));
  }
  return tokens;
}

void AddProduct(const Weight& weight, Macs& macs) {
  double* kind = nullptr;
  switch (ActTypeOf(weight.panel().type)) {
    case ActType::kInt8x32:
    case ActType::kInt8x128:
      kind = &macs.int8;
      break;
    case ActType::kBF16:
      kind = &macs.bf16;
      break;
    case ActType::kF32:
      kind = &macs.f32;
      break;
  }
  *kind += static_cast<double>(weight.n() * weight.k());
}

// a + factor * b
Macs Plus(const Macs& a, const Macs& b, double factor) {
  return {a.int8 + factor * b.int8, a.bf16 + factor * b.bf16, a.f32 + factor * b.f32};
}

int64_t PanelBytesOf(const Weight& weight) {
  return PanelBytes(weight.panel().type, weight.n(), weight.k());
}

// Commits `context` tokens that nobody computed: every byte 0x3C is a small finite number in every
// type of keys and values, and the pages are written, so that reading them costs what it costs in
// use.
void FillContext(SequenceState& state, int64_t context) {
  state.Reserve(context);
  state.Commit(context);
  for (const std::shared_ptr<KvPage>& page : state.pages()) {
    std::memset(page->bytes.data(), 0x3C, static_cast<size_t>(page->bytes.size()));
  }
}

}  // namespace

TokenWork WorkOf(const Model& model) {
  TokenWork work;
  const ModelConfig& config = model.config;
  const auto add = [&](const Weight& weight) {
    work.weight_bytes += PanelBytesOf(weight);
    AddProduct(weight, work.layers);
  };
  for (const LayerWeights& layer : model.weights->layers) {
    for (int site = 0; site < kNumSites; ++site) add(layer.at(static_cast<Site>(site)));
    add(layer.router);
    add(layer.output_gate);
    add(layer.shared_gate);
    for (const Weight* matrix : {&layer.shared.gate, &layer.shared.up, &layer.shared.down}) {
      add(*matrix);
    }
    if (layer.rwkv) {
      for (const Weight* matrix : layer.rwkv->matrices()) add(*matrix);
    }
    if (const DeltaWeights* delta = layer.delta.get()) {
      for (const Weight* matrix :
           {&delta->qkv, &delta->z, &delta->alpha, &delta->beta, &delta->out}) {
        add(*matrix);
      }
    }
    if (layer.convolution) {
      add(layer.convolution->in);
      add(layer.convolution->out);
    }
    if (const LatentWeights* latent = layer.latent.get()) {
      for (const Weight* matrix :
           {&latent->q_a, &latent->q_b, &latent->kv_a, &latent->k_b, &latent->v_b}) {
        add(*matrix);
      }
    }
    if (layer.per_layer) {
      add(layer.per_layer->gate);
      add(layer.per_layer->out);
    }
    for (size_t i = 0; i < std::min(layer.experts.size(), static_cast<size_t>(config.router.used));
         ++i) {
      add(layer.experts[i].gate);  // as many as a token chooses; all are alike
      add(layer.experts[i].up);
      add(layer.experts[i].down);
    }
  }
  const Weight& head = model.weights->head();
  work.weight_bytes += PanelBytesOf(head);
  AddProduct(head, work.head);
  add(model.weights->per_layer_projection);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    work.context_macs += 2 * config.q_dim(layer);
  }
  work.context_bytes = KvPageBytes(config, KvType::kBf16) / kPageTokens;
  work.state_bytes = 2 * LayerStateBytes(config);
  return work;
}

Spread SpreadOf(std::vector<double> values) {
  BAKESTONE_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back(), static_cast<int64_t>(values.size())};
}

MachineLimits MeasureMachine(const KernelTable& kernels, ThreadPool& pool, MemoryProbe& memory) {
  ThreadPool one(1);
  MachineLimits limits;
  limits.read_bandwidth_one = memory.ReadBandwidth(one);
  limits.read_bandwidth = memory.ReadBandwidth(pool);
  limits.peaks = ops::MeasurePeaks(kernels, pool);
  return limits;
}

SpeedBench::SpeedBench(const Model& model, const KernelTable& kernels, ThreadPool& pool,
                       SpeedOptions options)
    : model_(model),
      pool_(pool),
      options_(options),
      exec_(kernels, pool),
      work_(WorkOf(model)),
      memory_(options.probe_bytes),
      limits_(MeasureMachine(kernels, pool, memory_)),
      allocator_(MakeHeapAllocator(model.config, KvType::kBf16,
                                   std::numeric_limits<int64_t>::max() / 2)) {}

// Throughputs or times that body() returns, as often as the options say.
template <class Body>
std::vector<double> SpeedBench::Repeat(const Body& body) {
  constexpr int64_t kMostByDefault = 5;
  const int64_t most = options_.repetitions > 0 ? options_.repetitions : kMostByDefault;
  const auto start = std::chrono::steady_clock::now();
  std::vector<double> values;
  do {
    values.push_back(body());
  } while (static_cast<int64_t>(values.size()) < most &&
           (options_.repetitions > 0 || SecondsSince(start) < options_.seconds));
  return values;
}

// One step: tokens.size() / states.size() tokens of each state, and the logits of each one's last
// row.
void SpeedBench::Step(std::span<const int32_t> tokens, States& states, bool logits) {
  const auto rows = static_cast<int32_t>(tokens.size());
  const int32_t each = rows / static_cast<int32_t>(states.size());
  std::vector<int32_t> positions, output_rows;
  std::vector<SequenceRun> runs;
  for (const auto& state : states) {
    const auto begin = static_cast<int32_t>(positions.size());
    for (int32_t i = 0; i < each; ++i) {
      positions.push_back(static_cast<int32_t>(state->length()) + i);
    }
    runs.push_back({begin, begin + each, state.get()});
    if (logits) output_rows.push_back(begin + each - 1);
    state->Reserve(each);
  }
  const ModelConfig& config = model_.config;
  const auto outputs = static_cast<int64_t>(output_rows.size());
  hidden_.resize(static_cast<size_t>(outputs * config.hidden_dim));
  logits_.resize(static_cast<size_t>(outputs * config.vocab_size));
  const auto hidden = DenseView(hidden_.data(), outputs, config.hidden_dim);
  model_.decoder->Forward(exec_, {tokens, positions, runs, {}, output_rows}, hidden);
  if (outputs > 0) {
    model_.decoder->Logits(exec_,
                           DenseView<const float>(hidden_.data(), outputs, config.hidden_dim),
                           DenseView(logits_.data(), outputs, config.vocab_size));
  }
  for (const auto& state : states) state->Commit(each);
}

double SpeedBench::LimitSeconds(double bytes, const Macs& macs) const {
  const ops::Peaks& peaks = limits_.peaks;
  return std::max(bytes / limits_.read_bandwidth, macs.int8 / peaks.int8_per_second +
                                                      macs.bf16 / peaks.bf16_per_second +
                                                      macs.f32 / peaks.float_per_second);
}

// bytes and macs: of each token.
void SpeedBench::SetLimits(SpeedFigure& figure, double bytes, const Macs& macs) const {
  const double rate = figure.tokens_per_second.median;
  figure.limit = 1 / LimitSeconds(bytes, macs);
  figure.bandwidth_share = rate * bytes / limits_.read_bandwidth;
  figure.integer_share = rate * macs.int8 / limits_.peaks.int8_per_second;
}

SpeedFigure SpeedBench::Prefill(int64_t tokens) {
  const int64_t chunk = EngineOptions{}.max_step_tokens;
  const std::vector<int32_t> prompt = SyntheticTokens(tokens, model_.config.vocab_size);
  States states;
  states.push_back(std::make_unique<SequenceState>(model_.config, KvType::kBf16, *allocator_));
  states.back()->Expect(tokens);
  const auto run = [&](int64_t count) {
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const int64_t end = std::min(begin + chunk, count);
      Step(std::span(prompt).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
           states, end == count);
    }
    states[0]->Truncate(0);
  };
  run(std::min(tokens, chunk));  // scratch of this size, caches
  SpeedFigure figure{.name = fmt::format("prefill-{}", tokens)};
  figure.tokens_per_second = SpreadOf(Repeat([&] {
    const auto start = std::chrono::steady_clock::now();
    run(tokens);
    return static_cast<double>(tokens) / SecondsSince(start);
  }));
  const auto count = static_cast<double>(tokens);
  const auto steps = static_cast<double>((tokens + chunk - 1) / chunk);
  Macs macs = Plus(work_.layers, work_.head, 1 / count);
  macs.bf16 += static_cast<double>(work_.context_macs) * (count + 1) / 2;
  SetLimits(figure, static_cast<double>(work_.weight_bytes) * steps / count, macs);
  return figure;
}

SpeedFigure SpeedBench::DecodeTogether(std::string name, int64_t sequences, int64_t context) {
  const ModelConfig& config = model_.config;
  const int64_t count = std::min(options_.decode_tokens, config.context_length);
  context = std::min(context, config.context_length - count);
  States states;
  for (int64_t i = 0; i < sequences; ++i) {
    states.push_back(std::make_unique<SequenceState>(config, KvType::kBf16, *allocator_));
    states.back()->Expect(context + count);
  }
  const bool rewinds = !config.has_state();  // other states cannot go back to where they were
  const auto begin = [&] {
    for (const auto& state : states) {
      if (rewinds && state->length() >= context) {
        state->Truncate(context);
      } else {
        state->Truncate(0);
        FillContext(*state, context);
      }
    }
  };
  const std::vector<int32_t> tokens = SyntheticTokens(sequences * count, config.vocab_size);
  const auto run = [&](int64_t steps) {
    for (int64_t i = 0; i < steps; ++i) {
      Step(std::span(tokens).subspan(static_cast<size_t>(i * sequences),
                                     static_cast<size_t>(sequences)),
           states, true);
    }
  };
  begin();
  run(std::min<int64_t>(count, 2));
  SpeedFigure figure{.name = std::move(name)};
  figure.tokens_per_second = SpreadOf(Repeat([&] {
    begin();
    const auto start = std::chrono::steady_clock::now();
    run(count);
    return static_cast<double>(count * sequences) / SecondsSince(start);
  }));
  const double slots = static_cast<double>(context) + static_cast<double>(count + 1) / 2;
  Macs macs = Plus(work_.layers, work_.head, 1);
  macs.bf16 += static_cast<double>(work_.context_macs) * slots;
  const double bytes = static_cast<double>(work_.weight_bytes) / static_cast<double>(sequences) +
                       static_cast<double>(work_.context_bytes) * slots +
                       static_cast<double>(work_.state_bytes);
  SetLimits(figure, bytes, macs);
  return figure;
}

SpeedFigure SpeedBench::Decode(int64_t context) {
  if (context > model_.config.context_length) {
    Throw(ErrorCode::kInvalidArgument,
          "decode-{}: expected at most the model's context of {} tokens", context,
          model_.config.context_length);
  }
  return DecodeTogether(fmt::format("decode-{}", context), 1, context);
}

SpeedFigure SpeedBench::Batch(int64_t sequences) {
  return DecodeTogether(fmt::format("batch-{}", sequences), sequences, 0);
}

ShapeFigure SpeedBench::Shape(ShapeFigure figure, std::span<const Weight* const> weights) {
  const Panel& panel = weights[0]->panel();
  figure.bytes = PanelBytesOf(*weights[0]);
  figure.macs = figure.n * figure.k * figure.rows;
  Macs macs;
  AddProduct(*weights[0], macs);
  macs = Plus({}, macs, static_cast<double>(figure.rows));
  figure.limit_seconds = LimitSeconds(static_cast<double>(figure.bytes), macs);
  std::vector<float> x(static_cast<size_t>(figure.rows * figure.k)),
      y(static_cast<size_t>(figure.rows * figure.n));
  Rng rng(2, 0);
  for (float& value : x) value = rng.Normal();
  const std::array<ActType, 1> types = {ops::ActTypeFor(panel.type, Precision::kServe)};
  ops::QuantizedRows rows;
  ops::Quantize(exec_.context, DenseView<const float>(x.data(), figure.rows, figure.k), types, rows,
                "bench");
  // One row: every matrix of the kind, one after the other, as decoding meets them.
  const size_t used = figure.rows == 1 ? weights.size() : std::min<size_t>(weights.size(), 4);
  figure.seconds = SpreadOf(Repeat([&] {
    memory_.EvictCaches(pool_);
    const auto start = std::chrono::steady_clock::now();
    for (const Weight* weight : weights.first(used)) {
      const ops::Product product{weight->panel(), nullptr,
                                 DenseView(y.data(), figure.rows, figure.n)};
      ops::MatMul(exec_.context, rows, {&product, 1}, Precision::kServe);
    }
    return SecondsSince(start) / static_cast<double>(used);
  }));
  return figure;
}

std::vector<ShapeFigure> SpeedBench::Shapes(int64_t rows) {
  struct Kind {
    ShapeFigure figure;
    std::vector<const Weight*> weights;
  };
  std::vector<Kind> kinds;
  const auto add = [&](const char* site, const Weight& weight) {
    if (weight.n() == 0) return;
    auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const Kind& k) {
      return k.figure.type == weight.disk_type() && k.figure.n == weight.n() &&
             k.figure.k == weight.k();
    });
    if (kind == kinds.end()) {
      kinds.push_back({{.type = weight.disk_type(), .n = weight.n(), .k = weight.k()}, {}});
      kind = kinds.end() - 1;
    }
    std::string& sites = kind->figure.sites;
    if ((" " + sites + " ").find(fmt::format(" {} ", site)) == std::string::npos) {
      sites += (sites.empty() ? "" : " ") + std::string(site);
    }
    kind->weights.push_back(&weight);
  };
  constexpr std::array<const char*, kNumSites> kSiteNames = {"q",    "k",  "v",   "o",
                                                             "gate", "up", "down"};
  for (const LayerWeights& layer : model_.weights->layers) {
    for (size_t site = 0; site < kNumSites; ++site) {
      add(kSiteNames[site], layer.at(static_cast<Site>(site)));
    }
  }
  add("head", model_.weights->head());
  std::vector<ShapeFigure> figures;
  for (Kind& kind : kinds) {
    for (const int64_t count : {int64_t{1}, rows}) {
      kind.figure.rows = count;
      figures.push_back(Shape(kind.figure, kind.weights));
    }
  }
  return figures;
}

}  // namespace bakestone
