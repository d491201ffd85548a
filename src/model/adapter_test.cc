#include "model/adapter.h"
#include "model/adapter_entries.h"
#include "model/families/tensor_names.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "model/test_model.h"
#include "ops/linear.h"
#include "tensor/half.h"

namespace bakestone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ModelConfig Config() {
  ModelConfig config;
  config.architecture = "llama";
  config.num_layers = 2;
  config.hidden_dim = 8;
  config.ffn_dim = 12;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  return config;
}

AdapterEntry Entry(int32_t layer, AdapterSite site, int64_t rank, int64_t in, int64_t out) {
  AdapterEntry entry = {.layer = layer,
                        .site = site,
                        .rank = rank,
                        .in = in,
                        .out = out,
                        .alpha = 8,
                        .a = {},
                        .b = {},
                        .magnitude = {}};
  for (int64_t i = 0; i < rank * in; ++i) entry.a.push_back(1.0f + static_cast<float>(i) / 512);
  for (int64_t i = 0; i < out * rank; ++i) entry.b.push_back(-1.0f - static_cast<float>(i) / 512);
  return entry;
}

AdapterFile File() {
  AdapterFile file;
  file.name = "house";
  file.architecture = "llama";
  file.rank = 2;
  file.alpha = 8;
  file.entries = {Entry(0, AdapterSite::kKProj, 2, 8, 4),
                  Entry(1, AdapterSite::kDownProj, 2, 12, 8)};
  return file;
}

TEST(Adapter, LoadsPairsRoundedToBf16) {
  const auto adapter = Adapter::Load(File(), Config());
  EXPECT_EQ(adapter->FindPanels({0, Site::kQ}), nullptr);
  EXPECT_EQ(adapter->FindPanels({7, Site::kQ}), nullptr);
  EXPECT_EQ(adapter->Find({1, Site::kDown}), nullptr);  // only trained ones keep rows
  const ops::LoraPanels* panels = adapter->FindPanels({1, Site::kDown});
  ASSERT_NE(panels, nullptr);
  EXPECT_EQ(panels->scale, 4.0f);
  EXPECT_EQ(panels->a.n, 2);
  EXPECT_EQ(panels->a.k, 12);
  EXPECT_EQ(panels->b.n, 8);
  EXPECT_EQ(panels->b.k, 2);
  std::vector<float> row(12);
  const KernelTable& reference = ChooseKernels("reference");
  Buffer<uint8_t> strip(StripBytes(PanelType::kBF16, 12));
  ops::DequantizeRows(reference, ops::Widen(panels->a, strip.data()), 1,
                      DenseView(row.data(), 1, 12));
  EXPECT_EQ(row[5], BF16ToFloat(FloatToBF16(1.0f + 17.0f / 512)));
  ops::DequantizeRows(reference, panels->b, 7, DenseView(row.data(), 1, 2));
  EXPECT_EQ(row[1], BF16ToFloat(FloatToBF16(-1.0f - 15.0f / 512)));
}

TEST(Adapter, HashIsOfTheNumbersNotOfTheName) {
  AdapterFile file = File();
  const Hash first = Adapter::Load(file, Config())->hash();
  file.name = "another";
  EXPECT_EQ(Adapter::Load(file, Config())->hash(), first);
  file.entries[0].b[3] = 5;
  EXPECT_NE(Adapter::Load(file, Config())->hash(), first);
}

TEST(Adapter, IsPublishedAnewAfterSet) {
  const auto adapter = testing::MakeTestAdapter(Config(), {Site::kQ}, 3, 1);
  const Hash before = adapter->hash();
  EXPECT_TRUE(adapter->published());
  const std::vector<float> a(8, 0.5f), b(8, 0.25f);
  adapter->Set({0, Site::kQ}, DenseView(a.data(), 1, 8), DenseView(b.data(), 8, 1), 2.0f);
  EXPECT_FALSE(adapter->published());
  adapter->Publish();
  EXPECT_NE(adapter->hash(), before);
  EXPECT_EQ(adapter->FindPanels({0, Site::kQ})->a.n, 1);
}

void ExpectLoadError(const AdapterFile& file, ErrorCode code,
                     const ::testing::Matcher<const std::string&>& message) {
  try {
    Adapter::Load(file, Config());
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    EXPECT_THAT(std::string(error.what()), AllOf(HasSubstr("house"), message));
  }
}

TEST(Adapter, NamesWhatDoesNotFitTheBase) {
  AdapterFile file = File();
  file.architecture = "qwen2";
  ExpectLoadError(file, ErrorCode::kInvalidArgument, AllOf(HasSubstr("llama"), HasSubstr("qwen2")));
  file = File();
  file.entries[1].layer = 2;
  ExpectLoadError(file, ErrorCode::kInvalidArgument, HasSubstr("layers.2.mlp.down_proj"));
  file = File();
  file.entries[0] = Entry(0, AdapterSite::kKProj, 2, 16, 4);
  ExpectLoadError(file, ErrorCode::kInvalidArgument,
                  AllOf(HasSubstr("4 x 8"), HasSubstr("4 x 16")));
  file = File();
  file.use_dora = true;
  ExpectLoadError(file, ErrorCode::kUnsupported, HasSubstr("dora"));
  file = File();
  file.entries.push_back(Entry(-1, AdapterSite::kLmHead, 2, 8, 20));
  ExpectLoadError(file, ErrorCode::kUnsupported, HasSubstr("lm_head"));
}

TEST(Adapter, RefusesAMatrixThatTheBaseHasNot) {
  ModelConfig config = Config();
  config.router = {.experts = 4, .used = 2};
  EXPECT_FALSE(HasSite(config, {1, Site::kDown}));
  try {
    Adapter::Load(File(), config);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(error.what()), HasSubstr("layers.1.mlp.down_proj"));
  }
  config.router.dense_layers = 1;
  config.latent.kv_rank = 8;
  EXPECT_TRUE(HasSite(config, {0, Site::kDown}));
  EXPECT_FALSE(HasSite(config, {0, Site::kQ}));
  EXPECT_TRUE(HasSite(config, {0, Site::kO}));
  config.router = {};
  config.latent = {};
  config.mlp = MlpKind::kGelu;
  EXPECT_FALSE(HasSite(config, {0, Site::kGate}));
  EXPECT_TRUE(HasSite(config, {0, Site::kUp}));
}

// Files have the queries of gated heads by head before their gate's rows; pairs are of the queries.
TEST(Adapter, TakesTheQueriesOfGatedHeads) {
  ModelConfig config = Config();
  AdapterFile plain, gated;
  plain.name = gated.name = "house";
  plain.rank = gated.rank = 2;
  plain.entries = {Entry(0, AdapterSite::kQProj, 2, 8, config.q_dim())};
  AdapterEntry wide = plain.entries[0];
  wide.out *= 2;
  wide.b.assign(static_cast<size_t>(wide.out * wide.rank), 0.0f);
  for (int64_t row = 0; row < config.q_dim(); ++row) {
    const int64_t to = row / config.head_dim * 2 * config.head_dim + row % config.head_dim;
    std::copy_n(plain.entries[0].b.begin() + row * 2, 2, wide.b.begin() + to * 2);
  }
  gated.entries = {wide};
  const Hash expected = Adapter::Load(plain, config)->hash();
  config.output_gate = true;
  EXPECT_EQ(Adapter::Load(gated, config)->hash(), expected);
  gated.entries[0].b[static_cast<size_t>(2 * config.head_dim)] = 1;
  try {
    Adapter::Load(gated, config);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(std::string(error.what()), HasSubstr("gate"));
  }
}

// Files of Phi-3 have queries, keys and values in one matrix: ours as one pair of all ranks, which
// comes apart again; another's, whose first matrix they share, as a pair for each.
TEST(Adapter, MatricesThatLieTogetherAreOneEntryOfAFile) {
  ModelConfig config = Config();
  TensorNames names;
  names.q_k_v = "attn_qkv";
  config.names = &names;
  AdapterFile file;
  file.name = "house";
  file.rank = 2;
  file.alpha = 4;
  const int64_t hidden = config.hidden_dim, q = config.q_dim(), kv = config.kv_dim();
  file.entries = {Entry(0, AdapterSite::kQProj, 2, hidden, q),
                  Entry(0, AdapterSite::kVProj, 2, hidden, kv)};
  for (AdapterEntry& entry : file.entries) entry.alpha = 4;
  const std::vector<AdapterEntry> apart = file.entries;
  JoinEntries(config, file);
  ASSERT_EQ(file.entries.size(), 1u);
  const AdapterEntry& whole = file.entries[0];
  EXPECT_EQ(whole.site, AdapterSite::kQkvProj);
  EXPECT_EQ(whole.rank, 4);
  EXPECT_EQ(whole.out, q + 2 * kv);
  EXPECT_EQ(AdapterScale(file, whole), 2);
  const auto parts = SplitEntry(file, whole, config);
  ASSERT_TRUE(parts.has_value());
  ASSERT_EQ(parts->size(), 3u);
  const auto delta = [](const AdapterEntry& entry, int64_t row, int64_t column) {
    float sum = 0;
    for (int64_t r = 0; r < entry.rank; ++r) {
      sum += entry.b[static_cast<size_t>(row * entry.rank + r)] *
             entry.a[static_cast<size_t>(r * entry.in + column)];
    }
    return sum;
  };
  for (int64_t column = 0; column < hidden; ++column) {
    EXPECT_EQ(delta((*parts)[0], q - 1, column), delta(apart[0], q - 1, column));
    EXPECT_EQ(delta((*parts)[1], kv - 1, column), 0);
    EXPECT_EQ(delta((*parts)[2], kv - 1, column), delta(apart[1], kv - 1, column));
  }
  // Of three equal ranks each gets its own back.
  AdapterFile all = file;
  all.entries = {apart[0], Entry(0, AdapterSite::kKProj, 2, hidden, kv), apart[1]};
  for (AdapterEntry& entry : all.entries) entry.alpha = 4;
  JoinEntries(config, all);
  const auto split = SplitEntry(all, all.entries[0], config);
  EXPECT_EQ(split->at(0).rank, 2);
  EXPECT_EQ(split->at(0).a, apart[0].a);
  EXPECT_EQ(split->at(2).b, apart[1].b);
  EXPECT_EQ(split->at(2).alpha, 4);
  EXPECT_NE(Adapter::Load(all, config)->FindPanels({0, Site::kK}), nullptr);
  all.entries[0].out -= 1;
  all.entries[0].b.resize(static_cast<size_t>(all.entries[0].out * all.entries[0].rank));
  EXPECT_THROW(Adapter::Load(all, config), Error);
}

}  // namespace
}  // namespace bakestone
