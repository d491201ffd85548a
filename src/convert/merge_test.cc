#include "convert/merge.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "base/source_dir.h"
#include "convert/compare.h"
#include "convert/quantize.h"
#include "convert/test_source.h"
#include "model/model.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

class MergeTest : public testing::ConvertTest {
 protected:
  // Pairs for every layer's sites, values of about `size` in W's units.
  static AdapterFile MakeAdapter(const std::vector<AdapterSite>& sites, uint64_t seed,
                                 float size = 0.1f) {
    AdapterFile file;
    file.name = "test";
    file.rank = 2;
    file.alpha = 4;
    for (int32_t layer = 0; layer < 4; ++layer) {
      for (const AdapterSite site : sites) {
        AdapterEntry entry{
            .layer = layer, .site = site, .rank = 2, .in = 256, .out = 256, .alpha = 4};
        if (site == AdapterSite::kKProj || site == AdapterSite::kVProj) entry.out = 128;
        Fill(entry, seed, size);
        file.entries.push_back(std::move(entry));
      }
    }
    return file;
  }
  static void Fill(AdapterEntry& entry, uint64_t seed, float size) {
    Rng rng(seed, static_cast<uint64_t>(entry.layer + 1) * 16 + static_cast<uint64_t>(entry.site));
    entry.a.resize(static_cast<size_t>(entry.rank * entry.in));
    entry.b.resize(static_cast<size_t>(entry.out * entry.rank));
    for (float& value : entry.a) value = size * rng.Normal();
    for (float& value : entry.b) value = size * rng.Normal();
  }
  // KL of the merged file from base and adapter served side by side.
  double KlToUnmerged(const std::filesystem::path& base, const AdapterFile& adapter,
                      const std::filesystem::path& out) {
    const auto scores =
        CompareModels({.path = base, .adapter = &adapter}, {{"merged", out}},
                      {"the other hen thought of the weather"}, kernels_, pool_, {});
    return scores[0].score.MeanKl();
  }
  std::vector<float> Prepared(const Merged& merged, const char* tensor) {
    const SourceTensor& found = *merged.source.Find(tensor);
    if (found.prepare) found.prepare(pool_);
    return Values(found);
  }
};

constexpr const char* kQ = "blk.1.attn_q.weight";

TEST_F(MergeTest, MergedAdapterAnswersAsTheSeparateOne) {
  const auto path = Write("m.gguf", testing::WideModel(DType::kF32)), out = folder_ / "out.gguf";
  const ModelSource base = OpenGgufSource(path);
  const AdapterFile adapter = MakeAdapter(
      {AdapterSite::kQProj, AdapterSite::kKProj, AdapterSite::kOProj, AdapterSite::kDownProj}, 3);
  const Merged merged = MergeAdapters(base, {{adapter, 1}}, {});
  EXPECT_EQ(merged.num_merged, 16);
  EXPECT_FALSE(merged.untied);
  WriteQuantized(merged.source, PlanLike(merged.source, base), out, kernels_, pool_);
  // Pairs are served in bf16; what is left is their rounding.
  EXPECT_LT(KlToUnmerged(path, adapter, out), 2e-4);
  EXPECT_GT(KlToUnmerged(path, adapter, path), 1e-2);
  EXPECT_EQ(GgufFile::Open(out).Tensor("blk.0.ffn_up.weight").type, DType::kF32);
}

TEST_F(MergeTest, ExpertsGetTheirOwnPairsAndTheOthersStay) {
  const ModelSource base =
      OpenGgufSource(std::filesystem::path(SourceDir()) / "tests/data/families/mixtral/model.gguf");
  AdapterFile adapter{.name = "experts", .rank = 2, .alpha = 4};
  for (const int32_t expert : {1, 4}) {
    AdapterEntry entry{.layer = 1,
                       .site = AdapterSite::kUpProj,
                       .expert = expert,
                       .rank = 2,
                       .in = 32,
                       .out = 48,
                       .alpha = 4};
    Fill(entry, static_cast<uint64_t>(expert), 0.3f);
    adapter.entries.push_back(std::move(entry));
  }
  const char* name = "blk.1.ffn_up_exps.weight";
  const Merged merged = MergeAdapters(base, {{adapter, 0.5}}, {});
  EXPECT_EQ(merged.num_merged, 1);
  const std::vector<float> w = Values(*base.Find(name)), found = Prepared(merged, name);
  ASSERT_EQ(found.size(), static_cast<size_t>(5 * 48 * 32));
  for (size_t i = 0; i < found.size(); ++i) {
    const size_t expert = i / (48 * 32), row = i / 32 % 48, k = i % 32;
    double expected = static_cast<double>(w[i]);
    for (const AdapterEntry& entry : adapter.entries) {
      for (size_t r = 0; static_cast<size_t>(entry.expert) == expert && r < 2; ++r) {
        expected += 0.5 * 2 * static_cast<double>(entry.b[row * 2 + r]) *
                    static_cast<double>(entry.a[r * 32 + k]);
      }
    }
    ASSERT_NEAR(found[i], expected, 1e-5) << i;
  }
  adapter.entries[1].expert = 5;
  try {
    MergeAdapters(base, {{adapter, 1}}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("layers.1.mlp.experts.5.up_proj"));
  }
  AdapterEntry twice = adapter.entries[0];
  twice.expert = 4;
  const AdapterFile sum = SumOfAdapters(
      {{adapter, 1}, {{.name = "more", .rank = 2, .alpha = 4, .entries = {twice}}, 1}});
  EXPECT_EQ(sum.entries.size(), 3u);
}

TEST_F(MergeTest, SumOfAdaptersIsOneAdapter) {
  const auto path = Write("m.gguf", testing::WideModel(DType::kF32)), out = folder_ / "out.gguf";
  const ModelSource base = OpenGgufSource(path);
  const std::vector<MergeAdapter> two = {
      {MakeAdapter({AdapterSite::kQProj}, 3), 0.5},
      {MakeAdapter({AdapterSite::kQProj, AdapterSite::kVProj}, 4), -1}};
  const AdapterFile sum = SumOfAdapters(two);
  EXPECT_EQ(sum.entries.size(), 8u);
  EXPECT_EQ(sum.rank, 4);
  const auto a = Prepared(MergeAdapters(base, two, {}), kQ),
             b = Prepared(MergeAdapters(base, {{sum, 1}}, {}), kQ);
  const auto w = Values(*base.Find(kQ));
  double change = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-5);
    change = std::max(change, std::fabs(static_cast<double>(a[i] - w[i])));
  }
  EXPECT_GT(change, 0.01);
}

TEST_F(MergeTest, DoraGivesRowsTheirMagnitudes) {
  const ModelSource base = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kF32)));
  AdapterFile adapter = MakeAdapter({AdapterSite::kUpProj}, 3);
  adapter.use_dora = true;
  for (AdapterEntry& entry : adapter.entries) entry.magnitude.assign(256, 2.5f);
  const auto w = Prepared(MergeAdapters(base, {{adapter, 1}}, {}), "blk.2.ffn_up.weight");
  for (size_t row = 0; row < 256; row += 50) {
    double square = 0;
    for (size_t k = 0; k < 256; ++k) square += std::pow(w[row * 256 + k], 2);
    EXPECT_NEAR(std::sqrt(square), 2.5, 1e-4);
  }
  EXPECT_THROW(SumOfAdapters({{adapter, 1}}), Error);
}

TEST_F(MergeTest, AnAdaptedHeadOfATiedModelIsUntied) {
  const auto path = Write("m.gguf", testing::WideModel(DType::kF32)), out = folder_ / "out.gguf";
  const ModelSource base = OpenGgufSource(path);
  AdapterFile adapter;
  AdapterEntry embed{.site = AdapterSite::kEmbedTokens,
                     .rank = 2,
                     .in = testing::kTestVocabSize,
                     .out = 256,
                     .alpha = 2};
  Fill(embed, 5, 0.3f);
  adapter.entries.push_back(embed);
  const Merged merged = MergeAdapters(base, {{adapter, 1}}, {});
  EXPECT_TRUE(merged.untied);
  WriteQuantized(merged.source, PlanLike(merged.source, base), out, kernels_, pool_);
  const ModelSource written = OpenGgufSource(out);
  EXPECT_EQ(Values(*written.Find("output.weight")), Values(*base.Find("token_embd.weight")));
  const auto table = Values(*written.Find("token_embd.weight")),
             before = Values(*base.Find("token_embd.weight"));
  const int64_t token = 17, c = 40;
  float expected = before[static_cast<size_t>(token * 256 + c)];
  for (int64_t r = 0; r < 2; ++r) {
    expected += embed.b[static_cast<size_t>(c * 2 + r)] *
                embed.a[static_cast<size_t>(r * testing::kTestVocabSize + token)];
  }
  EXPECT_NEAR(table[static_cast<size_t>(token * 256 + c)], expected, 1e-5);
  EXPECT_FALSE(Model::Load(out, kernels_, pool_)->config.tied_embedding);
}

TEST_F(MergeTest, ModelsAreMixedByTheirFormulas) {
  const ModelSource base = OpenGgufSource(Write("a.gguf", testing::WideModel(DType::kF32, 1)));
  const auto other_path = Write("b.gguf", testing::WideModel(DType::kF32, 2));
  const auto third_path = Write("c.gguf", testing::WideModel(DType::kF32, 3));
  const auto mix = [&](std::vector<double> weights, MergeOptions options) {
    std::vector<MergeModel> models;
    models.push_back({OpenGgufSource(other_path), weights[0]});
    if (weights.size() > 1) models.push_back({OpenGgufSource(third_path), weights[1]});
    return Prepared(MergeModels(base, std::move(models), options), kQ);
  };
  const auto a = Values(*base.Find(kQ)), b = Values(*OpenGgufSource(other_path).Find(kQ)),
             c = Values(*OpenGgufSource(third_path).Find(kQ));
  const auto linear = mix({0.25, 0.5}, {}), slerp = mix({0.3}, {.method = MergeMethod::kSlerp});
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(linear[i], 0.25 * a[i] + 0.25 * b[i] + 0.5 * c[i], 1e-6);
    aa += a[i] * a[i];
    bb += b[i] * b[i];
    ab += a[i] * b[i];
  }
  const double angle = std::acos(ab / std::sqrt(aa * bb));
  for (size_t i = 0; i < a.size(); i += 97) {
    EXPECT_NEAR(slerp[i],
                (std::sin(0.7 * angle) * a[i] + std::sin(0.3 * angle) * b[i]) / std::sin(angle),
                1e-5);
  }
  // TIES, plainly: the largest 20 % of each change, the elected sign, the mean of those that have
  // it.
  const auto ties = mix({1, 1}, {.method = MergeMethod::kTies, .density = 0.2});
  const auto trimmed = [&](const std::vector<float>& m) {
    std::vector<float> d(m.size()), sorted(m.size());
    for (size_t i = 0; i < d.size(); ++i) sorted[i] = std::fabs(d[i] = m[i] - a[i]);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const float least =
        sorted[static_cast<size_t>(std::ceil(0.2 * static_cast<double>(d.size()))) - 1];
    for (float& value : d) value = std::fabs(value) >= least ? value : 0;
    return d;
  };
  const auto db = trimmed(b), dc = trimmed(c);
  int64_t wrong = 0;  // magnitudes at the threshold's own bucket may stay beside it
  for (size_t i = 0; i < a.size(); ++i) {
    double expected = a[i];
    const double sum = db[i] + dc[i];
    if (db[i] != 0 && dc[i] != 0 && db[i] * dc[i] > 0) {
      expected += sum / 2;
    } else {
      expected += std::fabs(db[i]) > std::fabs(dc[i]) ? db[i] : dc[i];
    }
    wrong += std::fabs(ties[i] - expected) > 1e-5;
  }
  EXPECT_LT(wrong, static_cast<int64_t>(a.size() / 500));
  const auto dare = mix({1, 1}, {.method = MergeMethod::kDareTies, .density = 0.5, .seed = 7});
  EXPECT_EQ(dare, mix({1, 1}, {.method = MergeMethod::kDareTies, .density = 0.5, .seed = 7}));
  const auto kept = std::count_if(dare.begin(), dare.end(),
                                  [&, i = size_t{0}](float x) mutable { return x == a[i++]; });
  EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(a.size()), 0.25, 0.01);
}

TEST_F(MergeTest, WhatDoesNotBelongTogetherIsRefused) {
  const ModelSource base = OpenGgufSource(Write("a.gguf", testing::WideModel(DType::kF32)));
  auto wider = testing::WideModel(DType::kF32);
  wider.ffn_dim = 512;
  const auto merge = [&](const std::filesystem::path& other) {
    std::vector<MergeModel> models;
    models.push_back({OpenGgufSource(other), 1});
    MergeModels(base, std::move(models), {});
  };
  EXPECT_THAT(MessageOf([&] { merge(Write("wide.gguf", wider)); }),
              HasSubstr("expected its shape in"));
  auto qwen = testing::WideModel(DType::kF32);
  qwen.architecture = "qwen2";
  EXPECT_THAT(MessageOf([&] { merge(Write("q.gguf", qwen)); }),
              HasSubstr("general.architecture: expected the same"));
  AdapterFile adapter = MakeAdapter({AdapterSite::kQProj}, 1);
  adapter.entries[0].layer = 9;
  EXPECT_THAT(MessageOf([&] { MergeAdapters(base, {{adapter, 1}}, {}); }),
              HasSubstr("trained on another base"));
  EXPECT_THAT(
      MessageOf([&] { MergeAdapters(base, {{adapter, 1}}, {.method = MergeMethod::kSlerp}); }),
      HasSubstr("found adapters"));
}

TEST_F(MergeTest, RoundingIsHeldAgainstWhatWasMerged) {
  const ModelSource base = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kQ4_1)));
  const auto loss = [&](float size, const char* mix) {
    const Merged merged =
        MergeAdapters(base, {{MakeAdapter({AdapterSite::kUpProj}, 3, size), 1}}, {});
    const QuantizePlan plan = mix == nullptr
                                  ? PlanLike(merged.source, base)
                                  : PlanQuantize(merged.source, {.mix = FindQuantMix(mix)});
    WriteQuantized(merged.source, plan, folder_ / "out.gguf", kernels_, pool_);
    return MeasureMergeLoss(base, merged.source, OpenGgufSource(folder_ / "out.gguf"), pool_);
  };
  const MergeLoss small = loss(0.02f, nullptr), large = loss(0.5f, nullptr),
                  eight = loss(0.1f, "Q8_0");
  EXPECT_GT(small.error, 0.5 * small.change);  // warned of
  EXPECT_LT(large.error, 0.5 * large.change);
  EXPECT_LT(eight.error, 0.1 * eight.change);
  EXPECT_GT(eight.error, 0);
}

}  // namespace
}  // namespace bakestone
