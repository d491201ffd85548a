// Folders that `transformers` saved, beside the GGUF files that were made of them
// (tools/make_family_goldens.py).
#include "convert/hf_source.h"

#include <gmock/gmock.h>

#include "base/file.h"
#include "base/source_dir.h"
#include "convert/config_difference.h"
#include "convert/export.h"
#include "convert/gguf_keys.h"
#include "convert/hf_config_writer.h"
#include "convert/hf_folder_writer.h"
#include "convert/quantize.h"
#include "convert/stored_source.h"
#include "convert/test_source.h"
#include "format/gguf_adapter.h"
#include "format/gguf_tokenizer.h"
#include "format/tokenizer_json.h"
#include "format/peft.h"
#include "model/model_file.h"
#include "text/tokenizer.h"
#include "text/tokenizer_goldens.h"

namespace bakestone {
namespace {

using ::testing::HasSubstr;

class HfSourceTest : public testing::ConvertTest,
                     public ::testing::WithParamInterface<const char*> {
 protected:
  static std::filesystem::path Family(const std::string& name) {
    return std::filesystem::path(SourceDir()) / "tests/data/families" / name;
  }
};

TEST_P(HfSourceTest, FolderBecomesTheGgufFileOfTheSameModel) {
  const std::filesystem::path folder = Family(GetParam()), out = folder_ / "out.gguf";
  const ModelSource source = OpenHfSource(folder, {.tokenizer = false});
  WriteQuantized(source, PlanLike(source, source), out, kernels_, pool_);
  const ModelSource written = OpenGgufSource(out), golden = OpenGgufSource(folder / "model.gguf");
  for (const SourceTensor& tensor : golden.tensors) {
    if (tensor.name.find(".nextn.") != std::string::npos) continue;
    const SourceTensor* mine = written.Find(tensor.name);
    ASSERT_NE(mine, nullptr) << tensor.name;
    EXPECT_EQ(mine->ne, tensor.ne) << tensor.name;
    if (tensor.name.starts_with("rope_f") || tensor.name.ends_with(".ssm_a")) {  // made by pow, exp
      const std::vector<float> a = Values(*mine), b = Values(tensor);
      for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5f * std::abs(b[i]));
    } else {
      EXPECT_EQ(Values(*mine), Values(tensor)) << tensor.name;
    }
  }
  EXPECT_EQ(written.tensors.size() + (GetParam() == std::string("glm4_moe")),
            golden.tensors.size());  // a layer not run
  EXPECT_EQ(DifferenceOf(ReadConfig(*written.header), ReadConfig(*golden.header)), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(Families, HfSourceTest,
                         ::testing::Values("llama", "mistral", "qwen2", "qwen3", "granite",
                                           "smollm3", "olmo2", "starcoder2", "mixtral", "qwen2_moe",
                                           "qwen3_moe", "glm4_moe", "gemma4_text", "gemma4",
                                           "deepseek_v3", "glm4_moe_lite", "gpt_oss", "lfm2",
                                           "qwen3_5_text", "qwen3_5_moe_text", "phi3", "olmo3",
                                           "bert", "modernbert", "nomic_bert", "roberta",
                                           "xlm-roberta", "rwkv7",
                                           "gemma3_text+use_bidirectional_attention"));

class RoundTripTest : public HfSourceTest {};

// Folder -> GGUF -> folder -> GGUF: what was in the folder is in it again, and so are the settings.
TEST_P(RoundTripTest, FolderToGgufToFolderIsExact) {
  const std::filesystem::path first = Family(GetParam()), file = folder_ / "out.gguf";
  const ModelSource source = OpenHfSource(first, {.tokenizer = false});
  WriteQuantized(source, PlanLike(source, source), file, kernels_, pool_);
  const ModelSource written = OpenGgufSource(file);
  const ModelConfig config = ReadConfig(*written.header);
  ASSERT_EQ(LostInFolder(config), std::nullopt);
  WriteHfTensors(written, config, DType::kF32, folder_, kernels_, pool_);
  WriteFileAtomically(folder_ / "config.json", MakeHfConfig(config, {}, DType::kF32).dump());
  if (config.encoder.both_ways) WriteModules(config, folder_);
  const ModelFile before = ModelFile::Open(first), after = ModelFile::Open(folder_);
  EXPECT_EQ(DifferenceOf(before.Config(), after.Config()), std::nullopt);
  const TensorSource mine = after.Tensors(), original = before.Tensors();
  EXPECT_GT(mine.tensors().size(), 10u);
  for (const StoredTensor& tensor : mine.tensors()) {
    const StoredTensor* expected = original.Find(tensor.name);
    if (expected == nullptr) continue;  // stacked there, or in bits
    // RoBERTa's positions begin behind the padding's, as BERT's at once.
    if (tensor.name.ends_with("position_embeddings.weight") &&
        before.Config().encoder.first_position > 0)
      continue;
    EXPECT_EQ(tensor.shape, expected->shape) << tensor.name;
    const SourceTensor a = SourceOf(mine, tensor), b = SourceOf(original, *expected);
    const std::vector<float> x = Values(a), y = Values(b);
    ASSERT_EQ(x.size(), y.size()) << tensor.name;
    // Norms less 1 and logarithms are rounded.
    const bool rounded = before.Config().norms_less_one || tensor.name.ends_with("A_log");
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_NEAR(x[i], y[i], rounded ? 1e-6f : 0) << tensor.name;
    }
  }
  const ModelSource again = OpenHfSource(folder_, {.tokenizer = false});
  ASSERT_EQ(again.tensors.size(), written.tensors.size());
  for (size_t i = 0; i < again.tensors.size(); ++i) {
    EXPECT_EQ(again.tensors[i].name, written.tensors[i].name);
    EXPECT_EQ(again.tensors[i].ne, written.tensors[i].ne) << written.tensors[i].name;
    const std::vector<float> x = Values(again.tensors[i]), y = Values(written.tensors[i]);
    for (size_t at = 0; at < x.size(); ++at) {
      ASSERT_NEAR(x[at], y[at], 1e-6) << written.tensors[i].name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RoundTripTest,
                         ::testing::Values("llama", "mistral", "qwen2", "qwen3", "granite",
                                           "smollm3", "olmo2", "olmo3", "starcoder2", "mixtral",
                                           "qwen2_moe", "qwen3_moe", "glm4_moe", "gemma", "phi3",
                                           "gemma4_text", "gemma4", "deepseek_v2", "deepseek_v3",
                                           "glm4_moe_lite", "gpt_oss", "lfm2", "qwen3_5_text",
                                           "qwen3_5_moe_text", "bert", "modernbert", "nomic_bert",
                                           "roberta", "xlm-roberta", "rwkv7",
                                           "gemma3_text+use_bidirectional_attention"));

TEST(AddTokenizerKeys, GemmasMergesStayMergesInFilesOfItsFourth) {
  const std::filesystem::path root = SourceDir();
  const TokenizerSpec spec =
      FromTokenizerJson(ReadFile(root / "tests/data/hf_tokenizer/gemma.json"), "gemma.json");
  ModelConfig config;
  config.architecture = "gemma4";
  config.vocab_size = static_cast<int64_t>(spec.tokens.size()) + 2;
  GgufWriter writer;
  AddTokenizerKeys(spec, config, "m", writer);
  const std::string file = writer.Serialize();
  const TokenizerSpec again =
      FromGguf(GgufFile::Parse({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "m"));
  EXPECT_EQ(again.merges, spec.merges);
  const Tokenizer before(spec), after(again);
  const std::string text = "A baker's  oven,\n\n hot \xE2\x98\x95\xF0\x9F\x8D\x9E enough?";
  EXPECT_EQ(after.Encode(text), before.Encode(text));
}

// XLM-R's tokenizer as SentencePiece has it, and as two forms of tokenizer.json, whose rules are
// the same for usual texts.
TEST(AddTokenizerKeys, UnigramKeepsItsIds) {
  constexpr size_t kSentences = 47;  // the corpus' first lines, code among them
  const std::filesystem::path folder =
      std::filesystem::path(SourceDir()) / "tests/data/hf_tokenizer";
  std::vector<TokenizerSpec> specs = {FromGguf(GgufFile::Open(folder / "fairseq.gguf"))};
  for (const char* name : {"xlmr.json", "bge_m3.json"}) {
    specs.push_back(FromTokenizerJson(ReadFile(folder / name), name));
    specs.back().pad = 1;
  }
  for (const TokenizerSpec& spec : specs) {
    ModelConfig config;
    config.architecture = "bert";
    config.vocab_size = static_cast<int64_t>(spec.tokens.size()) + 2;
    GgufWriter writer;
    writer.AddString("general.architecture", "bert");
    AddTokenizerKeys(spec, config, "m", writer);
    const std::string file = writer.Serialize();
    const TokenizerSpec again = FromGguf(
        GgufFile::Parse({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "m"));
    EXPECT_EQ(again.precompiled_charsmap, spec.precompiled_charsmap);
    EXPECT_EQ(again.pad, 1);
    const Tokenizer before(spec), after(again);
    size_t line = 0, differing = 0;
    for (const goldens::Text& text : goldens::Corpus(SourceDir())) {
      const bool same = before.Encode(text.bytes) == after.Encode(text.bytes);
      EXPECT_TRUE(same || (spec.marked_words && line >= kSentences)) << text.bytes;
      differing += text.valid_utf8 && !same;
      ++line;
    }
    // White space beyond the map's at the ends, marks in the text, characters with marks on them.
    EXPECT_LT(differing * 15, line);
    for (const char* text : {"Hello,  world", " a <mask> b", "caf\xC3\xA9</s>x"}) {
      const EncodeOptions options = {.add_special = true, .parse_special = true};
      EXPECT_EQ(before.Encode(text, options), after.Encode(text, options)) << text;
    }
  }
}

class FolderTest : public HfSourceTest {};

// The other way: the settings and the tensors of the folder that the GGUF file was made from.
TEST_P(FolderTest, GgufFileBecomesTheFolderOfTheSameModel) {
  const ModelSource source = OpenGgufSource(Family(GetParam()) / "model.gguf");
  const ModelConfig config = ReadConfig(*source.header);
  ASSERT_EQ(LostInFolder(config), std::nullopt);
  const auto json = MakeHfConfig(config, {}, DType::kBF16);
  const std::string type = json["model_type"];
  EXPECT_EQ(type, GetParam());
  WriteHfTensors(source, config, DType::kF32, folder_, kernels_, pool_);
  WriteFileAtomically(folder_ / "config.json", json.dump());
  const ModelSource mine = OpenHfSource(folder_, {.tokenizer = false});
  for (const SourceTensor& tensor : source.tensors) {
    if (tensor.name.starts_with("rope_f") || tensor.name.find(".nextn.") != std::string::npos ||
        tensor.name.ends_with(".attn_kv_b.weight")) {  // in two tensors, as newer files have it
      continue;
    }
    const SourceTensor* again = mine.Find(tensor.name);
    ASSERT_NE(again, nullptr) << tensor.name;
    const std::vector<float> a = Values(*again), b = Values(tensor);
    ASSERT_EQ(a.size(), b.size()) << tensor.name;
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_NEAR(a[i], b[i], 1e-6) << tensor.name;  // norms less 1 are rounded
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FolderTest,
                         ::testing::Values("mistral", "qwen2", "qwen3", "gemma", "granite",
                                           "smollm3", "olmo2", "starcoder2", "mixtral", "qwen2_moe",
                                           "qwen3_moe", "llama", "olmo3", "phi3", "glm4_moe",
                                           "gemma4_text", "deepseek_v2", "deepseek_v3", "gpt_oss",
                                           "lfm2", "qwen3_5_text", "qwen3_5_moe_text", "rwkv7"));

class RefusedFamily : public HfSourceTest {};

// A scale of scores and a pattern of windows that these keys do not say.
TEST_P(RefusedFamily, WhatTheKeysCannotSayIsNoFile) {
  EXPECT_THAT(MessageOf([&] { OpenHfSource(Family(GetParam()), {.tokenizer = false}); }),
              HasSubstr("cannot be said in GGUF's keys"));
}

INSTANTIATE_TEST_SUITE_P(Families, RefusedFamily, ::testing::Values("gemma2", "gemma3_text"));

class ExportTest : public testing::ConvertTest {};

TEST_F(ExportTest, AFolderAndTheGgufFileOfItHoldTheSameModel) {
  for (const char* architecture : {"llama", "qwen2"}) {
    auto options = testing::WideModel(DType::kBF16);
    options.architecture = architecture;
    options.tied = false;
    options.bias = options.architecture == "qwen2";
    const auto path = Write("m.gguf", options), folder = folder_ / architecture;
    WriteHfFolder(path, folder, std::nullopt, kernels_, pool_);
    const ModelSource before = OpenGgufSource(path), after = OpenHfSource(folder);
    for (const SourceTensor& tensor : before.tensors) {
      const SourceTensor* again = after.Find(tensor.name);
      ASSERT_NE(again, nullptr) << tensor.name;
      EXPECT_EQ(Values(*again).size(), Values(tensor).size());
      if (tensor.ne.size() == 2) {  // vectors are rounded to the folder's bf16
        EXPECT_EQ(Values(*again), Values(tensor)) << tensor.name;
      }
    }
    const TokenizerSpec a = FromGguf(*before.header), b = FromGguf(*after.header);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.types, b.types);
    EXPECT_EQ(a.merges, b.merges);
    EXPECT_EQ(a.pre_tokenizer, b.pre_tokenizer);
    EXPECT_EQ(a.eos, b.eos);
    EXPECT_EQ(after.header->GetString("general.license"), "apache-2.0");
    EXPECT_EQ(after.header->GetString("tokenizer.chat_template"),
              before.header->GetString("tokenizer.chat_template"));
    EXPECT_THAT(MessageOf([&] { WriteHfFolder(path, folder, std::nullopt, kernels_, pool_); }),
                HasSubstr("empty folder"));
  }
  const auto stopped = folder_ / "stopped";
  EXPECT_THROW(WriteHfFolder(folder_ / "m.gguf", stopped, std::nullopt, kernels_, pool_,
                             [](int64_t done, int64_t, const std::string&) {
                               if (done > 0) Throw(ErrorCode::kCancelled, "stopped");
                             }),
               Error);
  EXPECT_FALSE(std::filesystem::exists(stopped));
  auto scaled = testing::WideModel(DType::kF32);
  scaled.rope_factors.assign(32, 2.0f);
  EXPECT_THAT(MessageOf([&] {
                WriteHfFolder(Write("s.gguf", scaled), folder_ / "s", std::nullopt, kernels_,
                              pool_);
              }),
              HasSubstr("the rotary embedding cannot be said"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "s"));
}

TEST_F(ExportTest, AdaptersGoToTheOtherFormatAndBack) {
  const ModelSource base = OpenGgufSource(Write("m.gguf", testing::WideModel(DType::kF32)));
  AdapterFile adapter;
  adapter.rank = 2;
  adapter.alpha = 4;
  for (const AdapterSite site : {AdapterSite::kQProj, AdapterSite::kDownProj}) {
    AdapterEntry entry{.layer = 1, .site = site, .rank = 2, .in = 256, .out = 256, .alpha = 4};
    for (int i = 0; i < 512; ++i) {
      entry.a.push_back(0.01f * static_cast<float>(i % 37));
      entry.b.push_back(0.02f * static_cast<float>(i % 41));
    }
    adapter.entries.push_back(entry);
  }
  WritePeftAdapter(adapter, folder_ / "peft");
  EXPECT_EQ(ArtifactAt(folder_ / "peft"), Artifact::kPeftAdapter);
  ExportAdapter(folder_ / "peft", base, folder_ / "a.gguf");
  EXPECT_EQ(ArtifactAt(folder_ / "a.gguf"), Artifact::kGgufAdapter);
  ExportAdapter(folder_ / "a.gguf", base, folder_ / "again");
  const AdapterFile again = ReadPeftAdapter(folder_ / "again");
  ASSERT_EQ(again.entries.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(again.entries[i].a, adapter.entries[i].a);
    EXPECT_EQ(again.entries[i].b, adapter.entries[i].b);
    EXPECT_EQ(AdapterScale(again, again.entries[i]), 2.0);
  }
  auto other = testing::WideModel(DType::kF32);
  other.num_layers = 1;
  const ModelSource shorter = OpenGgufSource(Write("s.gguf", other));
  EXPECT_THAT(MessageOf([&] { ExportAdapter(folder_ / "peft", shorter, folder_ / "b.gguf"); }),
              HasSubstr("trained on another base"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b.gguf"));
}

}  // namespace
}  // namespace bakestone
