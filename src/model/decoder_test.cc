// One model, one answer: what a row computes depends on its sequence, position and adapter only.
// Every comparison here is of bits.
#include "model/decoder.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "format/gguf.h"
#include "format/q_k_permute.h"
#include "kernels/isa.h"
#include "model/test_model.h"

namespace bakestone {
namespace {

using testing::MakeTestAdapter;
using testing::TestModelOptions;

using Rows = std::vector<std::vector<float>>;  // final hidden states, by row

const std::vector<Site> kAllSites = {Site::kQ,    Site::kK,  Site::kV,   Site::kO,
                                     Site::kGate, Site::kUp, Site::kDown};

struct TestModel {
  explicit TestModel(const TestModelOptions& options = {})
      : TestModel(testing::MakeTestModel(options)) {}
  explicit TestModel(std::string gguf)
      : bytes(std::move(gguf)),
        file(GgufFile::Parse({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m")),
        config(ReadConfig(file)) {
    ThreadPool pool(1);
    weights = Weights::Load(file, config, ChooseKernels("reference"), pool);
    decoder = std::make_unique<Decoder>(config, *weights);
  }

  std::string bytes;
  GgufFile file;
  ModelConfig config;
  std::unique_ptr<Weights> weights;
  std::unique_ptr<Decoder> decoder;
};

std::vector<int32_t> Tokens(int64_t n, uint64_t seed) {
  Rng rng(seed, 0);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.Below(testing::kTestVocabSize));
  return tokens;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A sequence that is fed piece by piece.
struct Stream {
  Stream(const TestModel& model, KvPageAllocator& allocator, KvType type,
         std::vector<int32_t> tokens, const Adapter* adapter = nullptr)
      : state(model.config, type, allocator), tokens(std::move(tokens)), adapter(adapter) {}

  int64_t left() const { return static_cast<int64_t>(tokens.size()) - state.length(); }

  SequenceState state;
  std::vector<int32_t> tokens;
  const Adapter* adapter;
  Rows rows = {};  // of the tokens fed so far
};

// One step that feeds counts[i] tokens of streams[i], all rows being output rows.
void Feed(const TestModel& model, Exec& exec, std::span<Stream* const> streams,
          std::span<const int64_t> counts) {
  std::vector<int32_t> tokens, positions, output;
  std::vector<SequenceRun> runs;
  std::vector<AdapterRun> adapters;
  for (size_t i = 0; i < streams.size(); ++i) {
    Stream& stream = *streams[i];
    const auto begin = static_cast<int32_t>(tokens.size());
    stream.state.Reserve(counts[i]);
    for (int64_t t = 0; t < counts[i]; ++t) {
      const int64_t position = stream.state.length() + t;
      tokens.push_back(stream.tokens[static_cast<size_t>(position)]);
      positions.push_back(static_cast<int32_t>(position));
      output.push_back(static_cast<int32_t>(output.size()));
    }
    runs.push_back({begin, static_cast<int32_t>(tokens.size()), &stream.state});
    adapters.push_back({begin, static_cast<int32_t>(tokens.size()), stream.adapter});
  }
  Buffer<float> hidden(static_cast<int64_t>(tokens.size()) * model.config.hidden_dim);
  const auto view =
      DenseView(hidden.data(), static_cast<int64_t>(tokens.size()), model.config.hidden_dim);
  model.decoder->Forward(exec,
                         {.tokens = tokens,
                          .positions = positions,
                          .sequences = runs,
                          .adapters = adapters,
                          .output_rows = output},
                         view);
  int64_t row = 0;
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i]->state.Commit(counts[i]);
    for (int64_t t = 0; t < counts[i]; ++t, ++row) {
      streams[i]->rows.emplace_back(view.Row(row), view.Row(row) + view.cols);
    }
  }
}

struct RunOptions {
  const char* isa = "reference";
  int threads = 1;
  Precision precision = Precision::kServe;
  const Adapter* adapter = nullptr;
  int64_t chunk = 64;
  KvType kv_type = KvType::kBf16;  // at kServe
};

Rows Compute(const TestModel& model, const std::vector<int32_t>& tokens,
             const RunOptions& options = {}) {
  ThreadPool pool(options.threads);
  Exec exec(ChooseKernels(options.isa), pool, options.precision);
  const KvType type = options.precision == Precision::kExact ? KvType::kF32 : options.kv_type;
  const auto allocator = MakeHeapAllocator(model.config, type, int64_t{1} << 30);
  Stream stream(model, *allocator, type, tokens, options.adapter);
  while (stream.left() > 0) {
    const int64_t count = std::min(options.chunk, stream.left());
    Stream* streams[] = {&stream};
    Feed(model, exec, streams, {&count, 1});
  }
  return stream.rows;
}

TEST(Decoder, ChunkingDoesNotChangeTheBits) {
  const TestModel model;
  const std::vector<int32_t> tokens = Tokens(600, 1);  // past a segment of 512
  const Rows whole = Compute(model, tokens, {.chunk = 600});
  ASSERT_EQ(whole.size(), 600u);
  for (const int64_t chunk : {1, 7, 32, 100}) {
    EXPECT_TRUE(Compute(model, tokens, {.chunk = chunk}) == whole) << chunk;
  }
}

TEST(Decoder, EveryTypeOfKeysAndValuesGivesTheSameBitsForAnyChunkTableAndThreads) {
  const TestModel model;
  const std::vector<int32_t> tokens = Tokens(90, 6);
  const Rows bf16 = Compute(model, tokens);
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    const Rows whole = Compute(model, tokens, {.chunk = 90, .kv_type = type});
    EXPECT_FALSE(whole == bf16) << KvTypeName(type);
    EXPECT_TRUE(Compute(model, tokens, {.chunk = 1, .kv_type = type}) == whole) << KvTypeName(type);
    for (const KernelTable* table : AvailableKernels()) {
      const RunOptions run = {
          .isa = IsaName(table->isa), .threads = 3, .chunk = 41, .kv_type = type};
      EXPECT_TRUE(Compute(model, tokens, run) == whole) << KvTypeName(type) << " on " << run.isa;
    }
  }
}

TEST(Decoder, AWindowOfOneLayerHidesWhatIsBeforeItForAnyChunk) {
  TestModel model;
  const std::vector<int32_t> tokens = Tokens(90, 7);
  const Rows plain = Compute(model, tokens);
  model.config.windows.assign(static_cast<size_t>(model.config.num_layers), 0);
  model.config.windows.back() = 90;
  EXPECT_TRUE(Compute(model, tokens) == plain);
  model.config.windows.back() = 20;
  const Rows windowed = Compute(model, tokens, {.chunk = 90});
  EXPECT_TRUE(std::equal(windowed.begin(), windowed.begin() + 20, plain.begin()));
  EXPECT_FALSE(windowed[20] == plain[20]);
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_TRUE(Compute(model, tokens, {.isa = IsaName(table->isa), .threads = 2, .chunk = 13}) ==
                windowed);
  }
}

TEST(Decoder, ThreadsDoNotChangeTheBits) {
  const TestModel model;
  const std::vector<int32_t> tokens = Tokens(90, 2);
  const auto adapter = MakeTestAdapter(model.config, kAllSites, 5, 1);
  const Rows one = Compute(model, tokens, {.threads = 1, .adapter = adapter.get()});
  for (int threads = 2; threads <= 8; ++threads) {
    EXPECT_TRUE(Compute(model, tokens, {.threads = threads, .adapter = adapter.get()}) == one)
        << threads;
  }
}

TEST(Decoder, EveryTableGivesTheSameBits) {
  TestModelOptions wide = {.hidden_dim = 256,
                           .ffn_dim = 512,
                           .num_heads = 4,
                           .num_kv_heads = 1,
                           .head_dim = 64,
                           .embedding_type = DType::kQ6_K};
  wide.types = {DType::kQ4_K,   DType::kQ3_K, DType::kQ6_K, DType::kQ5_K,
                DType::kIQ4_XS, DType::kQ2_K, DType::kQ4_K};
  TestModelOptions floats = {.embedding_type = DType::kF16, .tied = false, .bias = true};
  floats.types = {DType::kF32,  DType::kF16,   DType::kBF16, DType::kIQ4_NL,
                  DType::kBF16, DType::kMXFP4, DType::kF16};
  for (const TestModelOptions& options : {TestModelOptions{}, wide, floats}) {
    const TestModel model(options);
    const std::vector<int32_t> tokens = Tokens(70, 3);
    const auto adapter = MakeTestAdapter(model.config, {Site::kQ, Site::kDown}, 4, 2);
    for (const Precision precision : {Precision::kServe, Precision::kExact}) {
      const RunOptions run = {.precision = precision, .adapter = adapter.get()};
      const Rows reference = Compute(model, tokens, run);
      for (const KernelTable* table : AvailableKernels()) {
        RunOptions other = run;
        other.isa = IsaName(table->isa);
        other.chunk = 17;
        EXPECT_TRUE(Compute(model, tokens, other) == reference) << other.isa;
      }
    }
  }
}

TEST(Decoder, WhatElseIsInTheStepDoesNotChangeTheBits) {
  const TestModel model;
  const auto first = MakeTestAdapter(model.config, kAllSites, 8, 1);
  const auto second = MakeTestAdapter(model.config, {Site::kV, Site::kGate}, 3, 2);
  const Adapter* adapters[] = {nullptr, first.get(), second.get(), first.get(), nullptr};
  ThreadPool pool(3);
  Exec exec(ChooseKernels(nullptr), pool);
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{1} << 30);
  std::vector<std::unique_ptr<Stream>> streams;
  for (size_t i = 0; i < 5; ++i) {
    streams.push_back(std::make_unique<Stream>(model, *allocator, KvType::kBf16,
                                               Tokens(40 + 13 * static_cast<int64_t>(i), i),
                                               adapters[i]));
  }
  Rng rng(5, 0);
  while (true) {  // prefill chunks and single tokens, mixed at random
    std::vector<Stream*> active;
    std::vector<int64_t> counts;
    for (const auto& stream : streams) {
      if (stream->left() == 0 || rng.Below(4) == 0) continue;
      active.push_back(stream.get());
      const auto most = static_cast<uint64_t>(std::min<int64_t>(stream->left(), 20));
      counts.push_back(rng.Below(2) == 0 ? 1 : 1 + static_cast<int64_t>(rng.Below(most)));
    }
    if (!active.empty()) Feed(model, exec, active, counts);
    if (std::all_of(streams.begin(), streams.end(), [](const auto& s) { return s->left() == 0; })) {
      break;
    }
  }
  for (const auto& stream : streams) {
    EXPECT_TRUE(Compute(model, stream->tokens, {.adapter = stream->adapter}) == stream->rows);
  }
  EXPECT_FALSE(Compute(model, streams[1]->tokens) ==
               streams[1]->rows);  // the adapter does something
}

TEST(Decoder, OnlyTheOutputRowsAreComputedToTheEndAndTheyAreTheSame) {
  const TestModel model;
  const auto adapter = MakeTestAdapter(model.config, kAllSites, 4, 3);
  const std::vector<int32_t> tokens = Tokens(75, 4);
  const Rows all = Compute(model, tokens, {.adapter = adapter.get()});
  ThreadPool pool(2);
  Exec exec(ChooseKernels("reference"), pool);
  std::vector<int32_t> positions(75);
  for (int32_t i = 0; i < 75; ++i) positions[static_cast<size_t>(i)] = i;
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{1} << 30);
  const std::vector<std::vector<int32_t>> choices = {{}, {74}, {0}, {3, 4, 5, 40, 74}};
  for (const std::vector<int32_t>& rows : choices) {
    SequenceState state(model.config, KvType::kBf16, *allocator);
    state.Reserve(75);
    const SequenceRun run = {0, 75, &state};
    const std::array<AdapterRun, 1> with = {{{0, 75, adapter.get()}}};
    std::vector<float> hidden(rows.size() * 64);
    model.decoder->Forward(exec,
                           {.tokens = tokens,
                            .positions = positions,
                            .sequences = {&run, 1},
                            .adapters = with,
                            .output_rows = rows},
                           DenseView(hidden.data(), static_cast<int64_t>(rows.size()), 64));
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::vector<float> row(hidden.begin() + static_cast<int64_t>(i) * 64,
                                   hidden.begin() + static_cast<int64_t>(i + 1) * 64);
      EXPECT_TRUE(SameBits(row, all[static_cast<size_t>(rows[i])])) << rows[i];
    }
    state.Commit(75);
    // The keys and values are there whatever was asked for: the next token sees all of them.
    state.Truncate(74);
    state.Reserve(1);
    const SequenceRun last = {0, 1, &state};
    const std::array<AdapterRun, 1> with_last = {{{0, 1, adapter.get()}}};
    std::vector<float> again(64);
    const int32_t zero = 0;
    model.decoder->Forward(exec,
                           {.tokens = std::span(tokens).last(1),
                            .positions = std::span(positions).last(1),
                            .sequences = {&last, 1},
                            .adapters = with_last,
                            .output_rows = {&zero, 1}},
                           DenseView(again.data(), 1, 64));
    EXPECT_TRUE(SameBits(again, all[74]));
  }
}

TEST(Decoder, RunsWithoutAStateEqualSequences) {
  const TestModel model;
  const std::vector<int32_t> first = Tokens(70, 5), second = Tokens(33, 6);
  ThreadPool pool(2);
  for (const Precision precision : {Precision::kServe, Precision::kExact}) {
    Exec exec(ChooseKernels("reference"), pool, precision);
    std::vector<int32_t> tokens = first, positions, rows;
    tokens.insert(tokens.end(), second.begin(), second.end());
    for (int32_t i = 0; i < 103; ++i) {
      positions.push_back(i < 70 ? i : i - 70);
      rows.push_back(i);
    }
    const std::array<SequenceRun, 2> runs = {{{0, 70, nullptr}, {70, 103, nullptr}}};
    std::vector<float> hidden(103 * 64);
    model.decoder->Forward(exec,
                           {.tokens = tokens,
                            .positions = positions,
                            .sequences = runs,
                            .adapters = {},
                            .output_rows = rows},
                           DenseView(hidden.data(), 103, 64));
    Rows expected = Compute(model, first, {.precision = precision});
    for (const auto& row : Compute(model, second, {.precision = precision})) {
      expected.push_back(row);
    }
    for (size_t i = 0; i < 103; ++i) {
      EXPECT_EQ(std::memcmp(expected[i].data(), hidden.data() + i * 64, 64 * sizeof(float)), 0)
          << i;
    }
  }
}

TEST(Decoder, RejectedDraftsAndAdoptedPrefixesLeaveNoTrace) {
  const TestModel model;
  const std::vector<int32_t> tokens = Tokens(80, 7), drafts = Tokens(80, 8);
  const Rows expected = Compute(model, tokens);
  ThreadPool pool(2);
  Exec exec(ChooseKernels("reference"), pool);
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{1} << 30);
  Stream stream(model, *allocator, KvType::kBf16, tokens);
  Stream* streams[] = {&stream};
  while (stream.left() > 0) {
    const int64_t length = stream.state.length();
    stream.tokens = drafts;  // seven wrong tokens, all rejected
    const int64_t wrong = std::min<int64_t>(7, 80 - length),
                  right = std::min<int64_t>(9, 80 - length);
    Feed(model, exec, streams, {&wrong, 1});
    stream.state.Truncate(length);
    stream.rows.resize(static_cast<size_t>(length));
    stream.tokens = tokens;
    Feed(model, exec, streams, {&right, 1});
  }
  EXPECT_TRUE(stream.rows == expected);

  Stream heir(model, *allocator, KvType::kBf16, tokens);
  heir.state.AdoptPrefix({stream.state.pages()[0], stream.state.pages()[1]});
  Stream* heirs[] = {&heir};
  const int64_t rest = heir.left();
  ASSERT_EQ(rest, 16);
  Feed(model, exec, heirs, {&rest, 1});
  EXPECT_TRUE(heir.rows == Rows(expected.begin() + 64, expected.end()));
}

TEST(Decoder, AnAdapterOfZerosChangesNothing) {
  const TestModel model;
  const std::vector<int32_t> tokens = Tokens(40, 9);
  Adapter adapter(model.config, "zeros");
  for (const Site site : kAllSites) {
    const LinearShape shape = ShapeOf(model.config, {0, site});
    const std::vector<float> a(static_cast<size_t>(2 * shape.k), 1.0f);
    const std::vector<float> b(static_cast<size_t>(2 * shape.n), 0.0f);
    adapter.Set({0, site}, DenseView(a.data(), 2, shape.k), DenseView(b.data(), shape.n, 2), 2.0f);
  }
  adapter.Publish();
  // The base takes the fused gate-and-up product, the adapter the separate ones.
  EXPECT_TRUE(Compute(model, tokens, {.adapter = &adapter}) == Compute(model, tokens));
}

// Adds scale * B A to a matrix of F32 inside the bytes of a file.
void Merge(TestModel& model, const Adapter& adapter, Site site, int32_t layer, const char* name) {
  const GgufTensor& tensor =
      model.file.Tensor("blk." + std::to_string(layer) + "." + name + ".weight");
  ASSERT_EQ(tensor.type, DType::kF32);
  auto* data = reinterpret_cast<uint8_t*>(model.bytes.data()) +
               (tensor.data.data() - reinterpret_cast<const uint8_t*>(model.bytes.data()));
  const LoraPair& pair = *adapter.Find({layer, site});
  const bool permuted = site == Site::kQ || site == Site::kK;
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    const int64_t hf = permuted ? HfRowOfGgufRow(row, model.config.head_dim) : row;
    for (int64_t col = 0; col < tensor.cols(); ++col) {
      double sum = 0;
      for (int64_t r = 0; r < pair.a.rows; ++r) {
        sum += static_cast<double>(BF16ToFloat(pair.b(hf, r))) * BF16ToFloat(pair.a(r, col));
      }
      float value;
      uint8_t* at = data + (row * tensor.cols() + col) * 4;
      std::memcpy(&value, at, 4);
      value += static_cast<float>(pair.scale * sum);
      std::memcpy(at, &value, 4);
    }
  }
}

TEST(Decoder, AnAdapterEqualsItsMergeIntoTheWeights) {
  TestModelOptions options = {.embedding_type = DType::kF32};
  options.types.fill(DType::kF32);
  const TestModel base(options);
  const auto adapter = MakeTestAdapter(base.config, kAllSites, 6, 4);
  const std::vector<int32_t> tokens = Tokens(50, 10);
  const Rows adapted =
      Compute(base, tokens, {.precision = Precision::kExact, .adapter = adapter.get()});
  TestModel source(options);
  const char* names[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                         "ffn_gate", "ffn_up", "ffn_down"};
  for (int32_t layer = 0; layer < 2; ++layer) {
    for (size_t site = 0; site < kNumSites; ++site) {
      Merge(source, *adapter, static_cast<Site>(site), layer, names[site]);
    }
  }
  const TestModel merged(std::move(source.bytes));
  const Rows expected = Compute(merged, tokens, {.precision = Precision::kExact});
  double largest = 0;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t i = 0; i < adapted[t].size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(adapted[t][i]) - expected[t][i]));
    }
  }
  EXPECT_LT(largest, 2e-4);
}

TEST(Decoder, LogitsDoNotDependOnTheirBatch) {
  const TestModel model;
  const Rows rows = Compute(model, Tokens(20, 11));
  ThreadPool pool(3);
  Exec exec(ChooseKernels(nullptr), pool);
  std::vector<float> hidden, all(20 * testing::kTestVocabSize), one(testing::kTestVocabSize);
  for (const auto& row : rows) hidden.insert(hidden.end(), row.begin(), row.end());
  model.decoder->Logits(exec, DenseView<const float>(hidden.data(), 20, 64),
                        DenseView(all.data(), 20, testing::kTestVocabSize));
  for (int64_t i = 0; i < 20; ++i) {
    model.decoder->Logits(exec, DenseView<const float>(hidden.data() + i * 64, 1, 64),
                          DenseView(one.data(), 1, testing::kTestVocabSize));
    EXPECT_EQ(std::memcmp(one.data(), all.data() + i * testing::kTestVocabSize, one.size() * 4), 0);
  }
}

TEST(Decoder, NamesATokenOutsideTheVocabulary) {
  const TestModel model;
  for (const int32_t bad : {-1, static_cast<int32_t>(testing::kTestVocabSize)}) {
    try {
      Compute(model, {5, bad});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(std::string(error.what()), ::testing::HasSubstr("from 0 to 261"));
    }
  }
}

TEST(Decoder, ReportsNumbersThatAreNotFinite) {
  std::string bytes = testing::MakeTestModel();
  const TestModel intact(bytes);
  const GgufTensor& norm = intact.file.Tensor("blk.1.ffn_norm.weight");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto offset = norm.data.data() - reinterpret_cast<const uint8_t*>(intact.bytes.data());
  std::memcpy(bytes.data() + offset, &nan, sizeof nan);
  const TestModel damaged(std::move(bytes));
  try {
    Compute(damaged, {5});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_THAT(std::string(error.what()), ::testing::HasSubstr("MLP"));
  }
}

TEST(Decoder, AStepOfAKnownSizeTakesNoNewScratch) {
  const TestModel model;
  ThreadPool pool(2);
  Exec exec(ChooseKernels("reference"), pool);
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{1} << 30);
  Stream stream(model, *allocator, KvType::kBf16, Tokens(60, 12));
  Stream* streams[] = {&stream};
  const int64_t prefill = 30, one = 1;
  Feed(model, exec, streams, {&prefill, 1});
  const int64_t held = exec.scratch.arena.bytes();
  while (stream.left() > 0) Feed(model, exec, streams, {&one, 1});
  EXPECT_EQ(exec.scratch.arena.bytes(), held);
}

}  // namespace
}  // namespace bakestone
