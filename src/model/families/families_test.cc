// Every family against the logits that transformers (or, where it lacks the family, a plain
// reference) computes for a tiny random model of it (tools/make_family_goldens.py): as a Hugging
// Face folder and as GGUF, whole and token by token. Beside it: axes_test.cc, encoders_test.cc,
// family_training_test.cc.
#include "model/families/families.h"

#include <unistd.h>

#include <fmt/format.h>

#include "model/families/test_families.h"

namespace bakestone {
namespace {

using namespace testing;

TEST_P(FamilyProof, FolderGivesTheLogitsOfTransformers) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_LT(
        MaxDifference(LogitsOf(config, *weights, golden.tokens, {.kernels = table}), golden.logits),
        kTolerance)
        << IsaName(table->isa);
  }
  for (const int64_t window : config.windows) {
    EXPECT_LT(window, static_cast<int64_t>(golden.tokens.size()))
        << "the prompt is no longer than the window";
  }
}

TEST_P(FamilyProof, GgufGivesTheLogitsOfTransformers) {
  const std::filesystem::path path = FolderOf(type()) / "model.gguf";
  if (!std::filesystem::exists(path) && type() == "gemma3") {
    return;  // the same file as gemma3_text's
  }
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(path);
  const ModelConfig config = file.Config();
  EXPECT_LT(MaxDifference(LogitsOf(config, *LoadFrom(file, config), golden.tokens), golden.logits),
            kTolerance);
}

TEST_P(FamilyProof, TokenByTokenIsTheWholeBitForBit) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  for (const Precision precision : {Precision::kExact, Precision::kServe}) {
    const auto whole = LogitsOf(config, *weights, golden.tokens, {.precision = precision});
    for (const int64_t chunk : {1, 7}) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens,
                                       {.precision = precision, .chunk = chunk}),
                              whole),
                0);
    }
    for (const KernelTable* table : AvailableKernels()) {
      EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens,
                                       {.kernels = table, .precision = precision}),
                              whole),
                0)
          << IsaName(table->isa);
    }
  }
}

// What a row computes does not depend on which rows are asked for.
TEST_P(FamilyProof, TheLastRowAloneIsTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole = LogitsOf(config, *weights, golden.tokens);
  const auto last = LogitsOf(config, *weights, golden.tokens, {.last_only = true});
  EXPECT_EQ(MaxDifference(last, std::span(whole).last(last.size())), 0);
}

// Nor on whether a state keeps what the row sees.
TEST_P(FamilyProof, WithoutAStateItIsTheSameBits) {
  const Golden golden = ReadGolden(type());
  const ModelFile file = ModelFile::Open(FolderOf(type()));
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  const auto whole = LogitsOf(config, *weights, golden.tokens);
  EXPECT_EQ(MaxDifference(LogitsOf(config, *weights, golden.tokens, {.keeps_state = false}), whole),
            0);
  const auto last =
      LogitsOf(config, *weights, golden.tokens, {.last_only = true, .keeps_state = false});
  EXPECT_EQ(MaxDifference(last, std::span(whole).last(last.size())), 0);
}

// Texts without a state have temporary pages of their own.
TEST_P(FamilyProof, TwoTextsOfAStepDoNotTouch) {
  const Golden golden = ReadGolden(type());
  const auto both = StatesOf(ModelFile::Open(FolderOf(type())), ChooseKernels(nullptr),
                             golden.tokens, Precision::kServe);
  EXPECT_EQ(MaxDifference(both[1], std::span(both[0]).first(both[1].size())), 0);
}

TEST(Families, ASequenceThatWasBegunNearDoesNotGoFar) {
  const ModelConfig config = ModelFile::Open(FolderOf("phi3")).Config();
  const auto allocator = MakeHeapAllocator(config, KvType::kBf16, 1 << 20);
  SequenceState near(config, KvType::kBf16, *allocator), far(config, KvType::kBf16, *allocator);
  far.Expect(65);
  EXPECT_TRUE(far.far());
  far.Reserve(65);
  near.Expect(64);
  near.Reserve(64);
  near.Commit(64);
  EXPECT_THROW(near.Reserve(1), Error);
}

// Pages hold the keys and values of layers that have some of their own, each at its own size.
TEST(Families, KeysAndValuesThatLayersShareAreKeptOnce) {
  const ModelConfig config = ModelFile::Open(FolderOf("gemma4_text")).Config();
  EXPECT_THAT(config.kv_layers, ::testing::ElementsAre(0, 1, 2, 3, 2, 3));
  EXPECT_THAT(config.head_dims, ::testing::ElementsAre(8, 16, 8, 16, 8, 16));
  const int64_t small = KvHeadBytes(KvElement::kF32, 8), large = KvHeadBytes(KvElement::kF32, 16);
  EXPECT_EQ(KvPageBytes(config, KvType::kF32), 2 * (2 * small + 2 * large) * 2);
  const auto allocator = MakeHeapAllocator(config, KvType::kF32, int64_t{1} << 20);
  SequenceState state(config, KvType::kF32, *allocator);
  state.Reserve(1);
  EXPECT_EQ(state.Keys(4, 0), state.Keys(2, 0));
  EXPECT_EQ(state.Values(5, 0), state.Values(3, 0));
  EXPECT_NE(state.Keys(3, 0), state.Keys(1, 0));
  const ModelConfig moe = ModelFile::Open(FolderOf("gemma4") / "model.gguf").Config();
  EXPECT_THAT(moe.kv_head_counts, ::testing::ElementsAre(2, 1, 2, 1));
  EXPECT_THAT(moe.keys_as_values, ::testing::ElementsAre(false, true, false, true));
}

// gpt-oss as it is saved after training: experts transposed, in halves.
TEST(Families, GptOssRunsUnquantizedToo) {
  const auto folder =
      std::filesystem::path(::testing::TempDir()) / fmt::format("gpt_oss_{}", ::getpid());
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(FolderOf("gpt_oss") / "plain.safetensors",
                             folder / "model.safetensors");
  std::filesystem::copy_file(FolderOf("gpt_oss") / "config.json", folder / "config.json");
  const ModelFile file = ModelFile::Open(folder);
  const ModelConfig config = file.Config();
  const auto weights = LoadFrom(file, config);
  std::filesystem::remove_all(folder);
  const Golden golden = ReadGolden("gpt_oss");
  EXPECT_LT(MaxDifference(LogitsOf(config, *weights, golden.tokens), golden.logits), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Types, FamilyProof, ::testing::ValuesIn(AllTypes()),
                         [](const auto& info) { return TestName(info.param); });

// A family without a folder of proofs fails here, and a folder without a family.
TEST(Families, HaveTheirProofs) {
  for (const Family& family : Families()) {
    EXPECT_FALSE(family.hf_types[0].empty()) << family.architecture;
    EXPECT_FALSE(family.models.empty()) << family.architecture;
    bool has_gguf = false;
    for (const std::string_view type : family.hf_types) {
      if (type.empty()) continue;
      for (const char* name : {"config.json", "model.safetensors", "golden.safetensors"}) {
        EXPECT_TRUE(std::filesystem::exists(FolderOf(type) / name)) << type << "/" << name;
      }
      has_gguf = has_gguf || std::filesystem::exists(FolderOf(type) / "model.gguf");
    }
    EXPECT_TRUE(has_gguf) << family.architecture;
  }
  std::vector<std::string> types = AllTypes();
  for (const std::string& type : AllTypes(true)) types.push_back(type);
  for (const auto& entry : std::filesystem::directory_iterator(FolderOf(""))) {
    if (!entry.is_directory()) continue;
    EXPECT_THAT(types, ::testing::Contains(entry.path().filename().string()));
  }
}

}  // namespace
}  // namespace bakestone
