// Adapters: what the package peft wrote, our own round trips, and the traps of both formats.
#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/rng.h"
#include "format/adapter_file.h"
#include "format/gguf.h"
#include "format/gguf_adapter.h"
#include "format/gguf_writer.h"
#include "format/peft.h"
#include "format/q_k_permute.h"
#include "format/safetensors.h"
#include "format/test_bytes_test.h"
#include "tensor/dequantize.h"

namespace bakestone {
namespace {

using testing::HasSubstr;

std::filesystem::path Scratch(const std::string& name) {
  const auto folder = "bakestone_adapter_" + std::to_string(::getpid());
  const auto path = std::filesystem::path(testing::TempDir()) / folder / name;
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path.parent_path());
  return path;
}

// scale * B A of one entry, [out, in].
std::vector<double> Delta(const AdapterFile& file, const AdapterEntry& entry) {
  std::vector<double> delta(static_cast<size_t>(entry.out * entry.in));
  for (int64_t o = 0; o < entry.out; ++o) {
    for (int64_t i = 0; i < entry.in; ++i) {
      double sum = 0;
      for (int64_t r = 0; r < entry.rank; ++r) {
        sum += static_cast<double>(entry.b[static_cast<size_t>(o * entry.rank + r)]) *
               entry.a[static_cast<size_t>(r * entry.in + i)];
      }
      delta[static_cast<size_t>(o * entry.in + i)] = AdapterScale(file, entry) * sum;
    }
  }
  return delta;
}

void ExpectNear(const std::vector<double>& found, const std::vector<double>& expected, double error,
                const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], error) << what << " at " << i;
  }
}

struct Golden {
  const char* name;
  size_t entries;
  double error;  // peft multiplies in float32
};
class PeftGolden : public testing::TestWithParam<Golden> {};

TEST_P(PeftGolden, AddsToEachWeightWhatPeftAdds) {
  const auto folder = TestData("peft") / GetParam().name;
  const AdapterFile adapter = ReadPeftAdapter(folder);
  EXPECT_EQ(adapter.entries.size(), GetParam().entries);
  const SafetensorsFile deltas = SafetensorsFile::Open(folder / "delta.safetensors");
  EXPECT_EQ(deltas.tensors().size(), GetParam().entries);
  for (const AdapterEntry& entry : adapter.entries) {
    const bool embedding = entry.site == AdapterSite::kEmbedTokens;
    const std::string name =
        (entry.site == AdapterSite::kLmHead ? "" : "model.") + AdapterEntryName(entry);
    const SafetensorsTensor* tensor = deltas.Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    std::vector<float> values(static_cast<size_t>(tensor->elements()));
    DequantizeRow(DType::kF32, tensor->data.data(), values.data(), tensor->elements());
    std::vector<double> expected(values.begin(), values.end());
    if (embedding) {  // peft has the table [vocabulary, hidden]; ours is [out, in] = its transpose
      for (int64_t v = 0; v < entry.in; ++v) {
        for (int64_t h = 0; h < entry.out; ++h) {
          expected[static_cast<size_t>(h * entry.in + v)] =
              values[static_cast<size_t>(v * entry.out + h)];
        }
      }
    }
    ExpectNear(Delta(adapter, entry), expected, GetParam().error, name);
    EXPECT_EQ(entry.magnitude.empty(), !adapter.use_dora);
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, PeftGolden,
                         testing::Values(Golden{"plain", 14, 1e-6}, Golden{"patterns", 16, 1e-6},
                                         Golden{"dora", 4, 1e-6}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(PeftGolden, PatternsAndScalesAreResolved) {
  const AdapterFile adapter = ReadPeftAdapter(TestData("peft/patterns"));
  EXPECT_TRUE(adapter.use_rslora);
  EXPECT_EQ(adapter.rank, 4);
  for (const AdapterEntry& entry : adapter.entries) {
    const bool q1 = entry.layer == 1 && entry.site == AdapterSite::kQProj;
    const bool up0 = entry.layer == 0 && entry.site == AdapterSite::kUpProj;
    EXPECT_EQ(entry.rank, q1 ? 2 : entry.site == AdapterSite::kDownProj ? 3 : 4);
    EXPECT_EQ(entry.alpha, up0 ? 5 : entry.site == AdapterSite::kKProj ? 1.5f : 8);
  }
}

constexpr HeadShape kHeads{.num_heads = 4, .num_kv_heads = 2, .head_dim = 4};

// Every site, hidden 16, ff 24, vocabulary 40; what is set by the caller: rsLoRA, ranks and alphas.
AdapterFile RandomAdapter(bool embeddings = true) {
  Rng rng(20240919, 0);
  AdapterFile adapter;
  adapter.name = "for tests";
  adapter.architecture = "llama";
  adapter.base_name = "tiny/llama";
  adapter.base_hash = std::string(64, 'a');
  adapter.base_norms = std::string(64, 'b');
  adapter.rank = 4;
  adapter.alpha = 6;
  const auto fill = [&](std::vector<float>& values, int64_t size) {
    for (int64_t i = 0; i < size; ++i) values.push_back(rng.Normal());
  };
  const auto add = [&](int32_t layer, AdapterSite site, int64_t in, int64_t out) {
    AdapterEntry entry;
    entry.layer = layer;
    entry.site = site;
    entry.rank = 4;
    entry.alpha = 6;
    entry.in = in;
    entry.out = out;
    fill(entry.a, 4 * in);
    fill(entry.b, 4 * out);
    adapter.entries.push_back(std::move(entry));
  };
  for (int32_t layer = 0; layer < 2; ++layer) {
    add(layer, AdapterSite::kQProj, 16, 16);
    add(layer, AdapterSite::kKProj, 16, 8);
    add(layer, AdapterSite::kVProj, 16, 8);
    add(layer, AdapterSite::kOProj, 16, 16);
    add(layer, AdapterSite::kGateProj, 16, 24);
    add(layer, AdapterSite::kUpProj, 16, 24);
    add(layer, AdapterSite::kDownProj, 24, 16);
  }
  if (embeddings) {
    add(-1, AdapterSite::kEmbedTokens, 40, 16);
    add(-1, AdapterSite::kLmHead, 16, 40);
  }
  return adapter;
}

// With pairs at the experts of one layer, but for one matrix, and of another rank at one.
void AddExperts(AdapterFile& adapter) {
  Rng rng(5, 1);
  for (int32_t expert = 0; expert < 3; ++expert) {
    for (const AdapterSite site :
         {AdapterSite::kGateProj, AdapterSite::kUpProj, AdapterSite::kDownProj}) {
      if (expert == 1 && site == AdapterSite::kUpProj) continue;
      AdapterEntry entry;
      entry.layer = 2;
      entry.site = site;
      entry.expert = expert;
      entry.rank = expert == 2 ? 3 : 4;
      entry.alpha = 6;
      entry.in = site == AdapterSite::kDownProj ? 8 : 16;
      entry.out = site == AdapterSite::kDownProj ? 16 : 8;
      for (int64_t i = 0; i < entry.rank * entry.in; ++i) entry.a.push_back(rng.Normal());
      for (int64_t i = 0; i < entry.rank * entry.out; ++i) entry.b.push_back(rng.Normal());
      adapter.entries.push_back(std::move(entry));
    }
  }
}

// Gives one entry another rank and another one another alpha.
void Vary(AdapterFile& adapter) {
  AdapterEntry& narrow = adapter.entries[3];
  narrow.rank = 2;
  narrow.a.resize(static_cast<size_t>(2 * narrow.in));
  narrow.b.resize(static_cast<size_t>(2 * narrow.out));
  adapter.entries[5].alpha = 2.5f;
}

void ExpectSameDeltas(const AdapterFile& found, AdapterFile expected, double error) {
  NormalizeAdapter(expected, "expected");
  ASSERT_EQ(found.entries.size(), expected.entries.size());
  for (size_t i = 0; i < found.entries.size(); ++i) {
    ASSERT_EQ(AdapterEntryName(found.entries[i]), AdapterEntryName(expected.entries[i]));
    ExpectNear(Delta(found, found.entries[i]), Delta(expected, expected.entries[i]), error,
               AdapterEntryName(found.entries[i]));
  }
}

class RoundTrip : public testing::TestWithParam<bool> {};

TEST_P(RoundTrip, ThroughPeftIsExact) {
  AdapterFile adapter = RandomAdapter();
  adapter.use_rslora = GetParam();
  adapter.licence = "Apache-2.0";
  Vary(adapter);
  const auto folder = Scratch("peft");
  WritePeftAdapter(adapter, folder);
  const AdapterFile found = ReadPeftAdapter(folder);
  ExpectSameDeltas(found, adapter, 0);
  EXPECT_EQ(found.use_rslora, GetParam());
  EXPECT_EQ(found.base_name, "tiny/llama");
  EXPECT_EQ(found.base_hash, std::string(64, 'a'));
  EXPECT_EQ(found.base_norms, std::string(64, 'b'));
  EXPECT_EQ(found.licence, "Apache-2.0");
  const std::string card = ReadFile(folder / "README.md");
  EXPECT_THAT(card, testing::StartsWith("---\nlibrary_name: peft\nbase_model: \"tiny/llama\"\n"
                                        "license: \"apache-2.0\"\n---\n"));
  EXPECT_EQ(SafetensorsFile::Open(folder / "adapter_model.safetensors").Metadata("format"), "pt");
}

TEST_P(RoundTrip, ThroughGgufKeepsEveryScale) {
  AdapterFile adapter = RandomAdapter();
  adapter.use_rslora = GetParam();
  adapter.licence = "Apache-2.0";
  Vary(adapter);
  const auto path = Scratch("adapter.gguf");
  WriteGgufAdapter(adapter, kHeads, path);
  const AdapterFile found = ReadGgufAdapter(path, kHeads);
  ExpectSameDeltas(found, adapter, 1e-5);
  EXPECT_FALSE(found.use_rslora);
  EXPECT_EQ(found.licence, "Apache-2.0");
  EXPECT_EQ(found.architecture, "llama");
  EXPECT_EQ(found.name, "for tests");
  EXPECT_EQ(found.base_name, "tiny/llama");
  EXPECT_EQ(found.base_hash, std::string(64, 'a'));
  EXPECT_EQ(found.base_norms, std::string(64, 'b'));
}

TEST_P(RoundTrip, ExpertsThroughPeftAreExactUnderEitherName) {
  for (const char* architecture : {"llama", "qwen3moe"}) {
    AdapterFile adapter = RandomAdapter();
    adapter.architecture = architecture;
    adapter.use_rslora = GetParam();
    AddExperts(adapter);
    const auto folder = Scratch("peft_experts");
    WritePeftAdapter(adapter, folder);
    ExpectSameDeltas(ReadPeftAdapter(folder), adapter, 0);
    const SafetensorsFile file = SafetensorsFile::Open(folder / "adapter_model.safetensors");
    const bool mixtral = std::string(architecture) == "llama";
    EXPECT_NE(
        file.Find(
            mixtral ? "base_model.model.model.layers.2.block_sparse_moe.experts.2.w3.lora_A.weight"
                    : "base_model.model.model.layers.2.mlp.experts.2.up_proj.lora_A.weight"),
        nullptr);
    const std::string config = ReadFile(folder / "adapter_config.json", 1 << 20);
    EXPECT_EQ(config.find("\"w1\"") != std::string::npos, mixtral);
  }
}

TEST(AdapterFile, ExpertsHaveOneShape) {
  AdapterFile adapter = RandomAdapter();
  AddExperts(adapter);
  AdapterEntry& last = adapter.entries.back();
  ASSERT_GE(last.expert, 0);
  last.in += 1;
  last.a.resize(static_cast<size_t>(last.rank * last.in));
  try {
    NormalizeAdapter(adapter, "x");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(std::string(error.what()), HasSubstr("outputs as in layers."));
  }
}

TEST_P(RoundTrip, FamiliesKeepTheirOwnNamesInPeft) {
  struct Case {
    const char *architecture, *name, *target;
  };
  for (const Case& c : {Case{"lfm2", "layers.0.feed_forward.w2", "\"feed_forward.w2\""},
                        Case{"starcoder2", "layers.0.mlp.c_proj", "\"mlp.c_proj\""}}) {
    AdapterFile adapter = RandomAdapter();
    adapter.architecture = c.architecture;
    adapter.use_rslora = GetParam();
    const auto folder = Scratch("peft_names");
    WritePeftAdapter(adapter, folder);
    const AdapterFile found = ReadPeftAdapter(folder);
    ExpectSameDeltas(found, adapter, 0);
    EXPECT_EQ(found.architecture, c.architecture);
    const SafetensorsFile file = SafetensorsFile::Open(folder / "adapter_model.safetensors");
    EXPECT_NE(file.Find(fmt::format("base_model.model.model.{}.lora_A.weight", c.name)), nullptr);
    const std::string config = ReadFile(folder / "adapter_config.json", 1 << 20);
    EXPECT_NE(config.find(c.target), std::string::npos);
  }
}

TEST_P(RoundTrip, ExpertsThroughGgufAreStackedAndKeepEveryScale) {
  AdapterFile adapter = RandomAdapter();
  adapter.use_rslora = GetParam();
  adapter.num_experts = 4;
  AddExperts(adapter);
  const auto path = Scratch("experts.gguf");
  WriteGgufAdapter(adapter, kHeads, path);
  const GgufFile file = GgufFile::Open(path);
  const GgufTensor* b = file.FindTensor("blk.2.ffn_up_exps.weight.lora_b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(std::vector<int64_t>(b->ne.begin(), b->ne.begin() + b->num_dims),
            (std::vector<int64_t>{4, 8, 4}));
  const AdapterFile found = ReadGgufAdapter(path, kHeads);
  EXPECT_EQ(found.entries.size(), adapter.entries.size() + 4);  // those without pairs have zeros
  for (const AdapterEntry& entry : found.entries) {
    const auto same = [&](const AdapterEntry& other) {
      return other.layer == entry.layer && other.site == entry.site && other.expert == entry.expert;
    };
    const auto expected = std::find_if(adapter.entries.begin(), adapter.entries.end(), same);
    const std::vector<double> delta = Delta(found, entry);
    ExpectNear(delta,
               expected != adapter.entries.end() ? Delta(adapter, *expected)
                                                 : std::vector<double>(delta.size()),
               1e-5, AdapterEntryName(entry));
  }
}

INSTANTIATE_TEST_SUITE_P(Scaling, RoundTrip, testing::Bool(), [](const auto& test) {
  return std::string(test.param ? "rsLoRA" : "plain");
});

TEST(GgufAdapter, HoldsWhatLlamaCppReads) {
  AdapterFile adapter = RandomAdapter();
  adapter.use_rslora = true;
  const auto path = Scratch("adapter.gguf");
  WriteGgufAdapter(adapter, kHeads, path);
  const GgufFile file = GgufFile::Open(path);
  EXPECT_EQ(file.GetString("general.type"), "adapter");
  EXPECT_EQ(file.GetString("general.architecture"), "llama");
  EXPECT_EQ(file.GetString("adapter.type"), "lora");
  // The scale there is always alpha / rank: 12 / 4 = 6 / sqrt(4).
  EXPECT_EQ(file.GetF32("adapter.lora.alpha"), 12.0f);
  EXPECT_EQ(file.tensors().size(), 32u);

  const auto shape = [&](const char* name) {
    const GgufTensor& tensor = file.Tensor(name);
    return std::pair(tensor.ne[0], tensor.ne[1]);
  };
  EXPECT_EQ(shape("blk.1.ffn_down.weight.lora_a"), std::pair(int64_t{24}, int64_t{4}));
  EXPECT_EQ(shape("blk.1.ffn_down.weight.lora_b"), std::pair(int64_t{4}, int64_t{16}));
  EXPECT_EQ(shape("token_embd.weight.lora_a"), std::pair(int64_t{4}, int64_t{40}));
  EXPECT_EQ(shape("token_embd.weight.lora_b"), std::pair(int64_t{4}, int64_t{16}));
  EXPECT_EQ(shape("output.weight.lora_a"), std::pair(int64_t{16}, int64_t{4}));

  // Row 1 of a head in the file is row head_dim / 2 of it in Hugging Face's order; v stays.
  const auto row = [&](const char* name, int64_t r) {
    std::vector<float> values(4);
    const GgufTensor& tensor = file.Tensor(name);
    DequantizeRow(DType::kF32, tensor.data.data() + r * 16, values.data(), 4);
    return values;
  };
  const auto hf_row = [&](size_t entry, int64_t r) {
    const auto begin = adapter.entries[entry].b.begin() + r * 4;
    return std::vector<float>(begin, begin + 4);
  };
  EXPECT_EQ(row("blk.0.attn_q.weight.lora_b", 4 + 1), hf_row(0, 4 + 2));
  EXPECT_EQ(row("blk.0.attn_k.weight.lora_b", 2), hf_row(1, 1));
  EXPECT_EQ(row("blk.0.attn_v.weight.lora_b", 1), hf_row(2, 1));

  adapter.architecture = "qwen2";
  WriteGgufAdapter(adapter, {}, path);
  const GgufFile plain = GgufFile::Open(path);
  const GgufTensor& q = plain.Tensor("blk.0.attn_q.weight.lora_b");
  EXPECT_EQ(std::memcmp(q.data.data(), adapter.entries[0].b.data(), q.data.size()), 0);
}

TEST(GgufAdapter, WhatTheFormatCannotHoldIsRefused) {
  AdapterFile adapter = RandomAdapter(false);
  const auto path = Scratch("adapter.gguf");
  EXPECT_THAT(MessageOf([&] {
                WriteGgufAdapter(adapter, {.num_heads = 2, .num_kv_heads = 2, .head_dim = 4}, path);
              }),
              HasSubstr("layers.0.self_attn.q_proj: expected 8 rows of B (2 heads of 4, an even "
                        "size), found 16"));
  EXPECT_FALSE(std::filesystem::exists(path));
  AdapterFile nameless = adapter;
  nameless.architecture.clear();
  EXPECT_THAT(MessageOf([&] { WriteGgufAdapter(nameless, kHeads, path); }),
              HasSubstr("expected the base's architecture"));
  adapter.use_dora = true;
  for (AdapterEntry& entry : adapter.entries) {
    entry.magnitude.assign(static_cast<size_t>(entry.out), 1);
  }
  EXPECT_THAT(MessageOf([&] { WriteGgufAdapter(adapter, kHeads, path); }), HasSubstr("DoRA"));
  WritePeftAdapter(adapter, Scratch("dora"));
}

TEST(GgufAdapter, FilesThatAreNoneAreRefused) {
  const auto message = [&](auto change) {
    GgufWriter writer;
    writer.AddString("general.type", "adapter");
    writer.AddString("general.architecture", "qwen2");
    writer.AddF32("adapter.lora.alpha", 8);
    change(writer);
    const std::string bytes = writer.Serialize();
    return MessageOf([&] { ReadGgufAdapter(GgufFile::Parse(AsBytes(bytes), "x.gguf"), {}); });
  };
  const std::vector<uint8_t> data(4 * 8 * 4);
  const auto add = [&](GgufWriter& writer, const char* name, int64_t n0, int64_t n1) {
    const int64_t ne[] = {n0, n1};
    writer.AddTensor(name, DType::kF32, ne,
                     std::span(data).first(static_cast<size_t>(n0 * n1 * 4)));
  };
  EXPECT_THAT(message([](GgufWriter&) {}),
              HasSubstr("key 'adapter.type': expected STRING, found no"));
  EXPECT_THAT(message([](GgufWriter& w) { w.AddString("adapter.type", "control"); }),
              HasSubstr("key 'adapter.type': expected 'lora', found 'control'"));
  const auto lora = [&](std::vector<std::tuple<const char*, int64_t, int64_t>> tensors) {
    return message([&](GgufWriter& writer) {
      writer.AddString("adapter.type", "lora");
      for (const auto& [name, n0, n1] : tensors) add(writer, name, n0, n1);
    });
  };
  EXPECT_THAT(lora({}), HasSubstr("x.gguf: expected at least one adapted matrix, found none"));
  EXPECT_THAT(lora({{"blk.0.attn_norm.weight", 4, 1}}),
              HasSubstr("tensor 'blk.0.attn_norm.weight'"));
  EXPECT_THAT(lora({{"blk.-1.attn_q.weight.lora_a", 4, 1}}), HasSubstr("tensor 'blk.-1.attn_q"));
  EXPECT_THAT(lora({{"blk.0.output.weight.lora_a", 4, 1}}), HasSubstr("tensor 'blk.0.output"));
  EXPECT_THAT(lora({{"blk.99999999999.attn_q.weight.lora_a", 4, 1}}), HasSubstr("expected"));
  EXPECT_THAT(
      lora({{"blk.0.attn_q.weight.lora_a", 8, 2}}),
      HasSubstr("layers.0.self_attn.q_proj: expected lora_a and lora_b, found lora_b missing"));
  EXPECT_THAT(lora({{"blk.0.attn_q.weight.lora_a", 8, 2}, {"blk.0.attn_q.weight.lora_b", 4, 8}}),
              HasSubstr("expected lora_a [in, r] and lora_b [r, out], found [8, 2] and [4, 8]"));
  // Layers can have heads of different sizes.
  EXPECT_EQ(lora({{"blk.0.attn_q.weight.lora_a", 8, 4},
                  {"blk.0.attn_q.weight.lora_b", 4, 8},
                  {"blk.1.attn_q.weight.lora_a", 4, 4},
                  {"blk.1.attn_q.weight.lora_b", 4, 8}}),
            "no error");
  EXPECT_EQ(lora({{"blk.0.attn_q.weight.lora_a", 8, 4}, {"blk.0.attn_q.weight.lora_b", 4, 8}}),
            "no error");
  EXPECT_THAT(
      lora({{"blk.0.ffn_up_exps.weight.lora_a", 8, 4}, {"blk.0.ffn_up_exps.weight.lora_b", 4, 8}}),
      HasSubstr("blk.0.ffn_up_exps.weight.lora_a: expected lora_a [in, r, experts]"));
  EXPECT_THAT(lora({{"blk.0.attn_q_exps.weight.lora_a", 8, 4}}),
              HasSubstr("tensor 'blk.0.attn_q_exps"));
}

// Reads the plain golden with its configuration changed.
std::string PeftMessage(const std::string& from, const std::string& to,
                        const char* golden = "peft/plain") {
  const auto folder = Scratch("changed");
  std::filesystem::copy(TestData(golden), folder);
  std::string config = ReadFile(folder / "adapter_config.json");
  const size_t at = config.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  config.replace(at, from.size(), to);
  WriteFileAtomically(folder / "adapter_config.json", config);
  return MessageOf([&] { ReadPeftAdapter(folder); });
}

TEST(Peft, StackedExpertsMustBeWhatTheConfigurationSays) {
  const auto message = [](const char* from, const char* to) {
    return PeftMessage(from, to, "peft/experts_mixtral");
  };
  EXPECT_EQ(message("\"bias\": \"none\"", "\"bias\":  \"none\""), "no error");
  EXPECT_THAT(message("\"r\": 4", "\"r\": 3"),
              HasSubstr("mlp.experts': expected A [experts * 3, in]"));
  EXPECT_THAT(message("\"mlp.experts.down_proj\"", "\"mlp.gate.weight\""),
              HasSubstr("field 'target_parameters': expected mlp.experts.gate_up_proj and "
                        "mlp.experts.down_proj"));
  EXPECT_THAT(message("\"target_parameters\": [", "\"others\": ["),
              HasSubstr("expected a linear layer"));
  EXPECT_THAT(message("\"mlp.experts.down_proj\",", ""),
              HasSubstr("module 'model.layers.0.mlp.experts'"));
  EXPECT_THAT(message(".*\\\\.gate_up_proj", ".*[a]"),
              HasSubstr("_pattern': expected names of modules"));
}

TEST(Peft, ConfigurationsThatChangeTheResultAreRefusedByName) {
  EXPECT_EQ(PeftMessage("\"bias\": \"none\"", "\"bias\":  \"none\""), "no error");
  EXPECT_THAT(
      PeftMessage("\"peft_type\": \"LORA\"", "\"peft_type\": \"IA3\""),
      HasSubstr("adapter_config.json: field 'peft_type': expected \"LORA\", found '\"IA3\"'"));
  EXPECT_THAT(PeftMessage("\"peft_type\"", "\"type\""),
              HasSubstr("field 'peft_type': expected \"LORA\", found 'null'"));
  EXPECT_THAT(PeftMessage("\"bias\": \"none\"", "\"bias\": \"all\""), HasSubstr("field 'bias'"));
  EXPECT_THAT(PeftMessage("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]"),
              HasSubstr("field 'modules_to_save': expected none, found '[\"lm_head\"]'"));
  EXPECT_THAT(PeftMessage("\"fan_in_fan_out\": false", "\"fan_in_fan_out\": true"),
              HasSubstr("field 'fan_in_fan_out'"));
  EXPECT_THAT(
      PeftMessage("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\""),
      HasSubstr("leaves the base unchanged"));
  EXPECT_THAT(PeftMessage("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"layers.[01].mlp\": 1}"),
              HasSubstr("field 'alpha_pattern': expected names of modules"));
}

TEST(Peft, WrongFieldsNameExpectedAndFound) {
  EXPECT_THAT(PeftMessage("{", "["),
              HasSubstr("expected a JSON object, found text that is no JSON"));
  EXPECT_THAT(PeftMessage("\"r\": 4", "\"r\": -4"),
              HasSubstr("field 'r': expected an integer from 1 to 2^31, found '-4'"));
  EXPECT_THAT(PeftMessage("\"r\": 4", "\"r\": 8"),
              HasSubstr("down_proj': expected rank 8 (adapter_config.json), found 4"));
  EXPECT_THAT(PeftMessage("\"lora_alpha\": 6", "\"lora_alpha\": \"6\""),
              HasSubstr("field 'lora_alpha': expected a number above 0, found '\"6\"'"));
  EXPECT_THAT(PeftMessage("\"lora_alpha\": 6", "\"lora_alpha\": 1e39"), HasSubstr("above 0"));
  EXPECT_THAT(PeftMessage("\"use_rslora\": false", "\"use_rslora\": 1"),
              HasSubstr("field 'use_rslora': expected true or false, found '1'"));
  EXPECT_THAT(PeftMessage("\"use_dora\": false", "\"use_dora\": true"),
              HasSubstr("magnitude: expected"));
  EXPECT_THAT(PeftMessage("\"rank_pattern\": {}", "\"rank_pattern\": []"),
              HasSubstr("expected an object"));
  // What prints or copies such a value by recursion would end the process.
  EXPECT_THAT(PeftMessage("\"rank_pattern\": {}", "\"rank_pattern\": " + std::string(200'000, '[') +
                                                      std::string(200'000, ']')),
              HasSubstr("expected JSON of at most 200 levels, found more"));
}

TEST(Peft, TensorsMustBePairsOfKnownModules) {
  const auto message = [](std::vector<std::tuple<std::string, DType, std::vector<int64_t>>> tensors,
                          float value = 1) {
    const auto folder = Scratch("tensors");
    WriteFileAtomically(folder / "adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 2}");
    const std::vector<float> values(64, value);
    const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()), 256);
    SafetensorsWriter writer;
    for (const auto& [name, type, shape] : tensors) {
      int64_t size = BlockBytes(type);
      for (const int64_t n : shape) size *= n;
      writer.AddTensor("base_model.model." + name, type, shape,
                       bytes.first(static_cast<size_t>(size)));
    }
    writer.Write(folder / "adapter_model.safetensors");
    return MessageOf([&] { ReadPeftAdapter(folder); });
  };
  const std::string q = "model.layers.0.self_attn.q_proj";
  const std::string a = q + ".lora_A.weight", b = q + ".lora_B.weight";
  EXPECT_EQ(message({{a, DType::kF32, {2, 8}}, {b, DType::kF32, {4, 2}}}), "no error");
  EXPECT_THAT(message({{a, DType::kF32, {2, 8}}}),
              HasSubstr("expected lora_A and lora_B, found lora_B missing"));
  EXPECT_THAT(message({{a, DType::kF32, {2, 8}}, {b, DType::kF32, {4, 3}}}),
              HasSubstr("expected A [rank, in] and B [out, rank], found [2, 8] and [4, 3]"));
  EXPECT_THAT(message({{a, DType::kF32, {16}}, {b, DType::kF32, {4, 2}}}),
              HasSubstr("found [16] and [4, 2]"));
  EXPECT_THAT(message({{a, DType::kI32, {2, 8}}, {b, DType::kF32, {4, 2}}}),
              HasSubstr("expected F32, F16 or BF16, found I32"));
  EXPECT_THAT(
      message({{a, DType::kF32, {2, 8}}, {b, DType::kF32, {4, 2}}}, NAN),
      HasSubstr("layers.0.self_attn.q_proj: A: expected finite values, found nan at position 0"));
  EXPECT_THAT(message({{q + ".bias", DType::kF32, {4}}}),
              HasSubstr("expected 'base_model.model.MODULE"));
  EXPECT_THAT(message({{"model.layers.0.mlp.router.lora_A.weight", DType::kF32, {2, 8}}}),
              HasSubstr("module 'model.layers.0.mlp.router': expected a linear layer"));
  EXPECT_THAT(message({{"model.layers.-1.mlp.up_proj.lora_A.weight", DType::kF32, {2, 8}}}),
              HasSubstr("expected a linear layer"));
  EXPECT_THAT(message({{"model.layers.0.lm_head.lora_A.weight", DType::kF32, {2, 8}}}),
              HasSubstr("expected a linear layer"));
}

TEST(AdapterFile, NormalizeRefusesWhatDoesNotFit) {
  const auto message = [](auto change) {
    AdapterFile adapter = RandomAdapter();
    change(adapter);
    return MessageOf([&] { NormalizeAdapter(adapter, "x"); });
  };
  EXPECT_EQ(message([](AdapterFile&) {}), "no error");
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[1] = f.entries[0]; }),
              HasSubstr("x: layers.0.self_attn.q_proj: expected once, found again"));
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[0].layer = -1; }),
              HasSubstr("layer: expected 0"));
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[0].a.pop_back(); }),
              HasSubstr("A: expected 4 x 16 values, found 63"));
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[0].rank = INT64_MAX; }),
              HasSubstr("A: expected"));
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[0].alpha = 0; }),
              HasSubstr("alpha: expected a finite"));
  EXPECT_THAT(message([](AdapterFile& f) { f.entries[0].magnitude = {1}; }),
              HasSubstr("magnitude: expected none (use_dora is false), found 1 values"));
}

}  // namespace
}  // namespace bakestone
