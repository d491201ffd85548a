// Tokenizer speed on one core: BM_Encode and BM_Decode/<vocabulary>/<text> in bytes/s of text,
// BM_Load. usage: tokenizer_bench [MODEL.gguf] [--benchmark_...]. With a model its vocabulary is
// measured too. tools/bench_tokenizers.py measures PyPI's tokenizers on the same texts and the same
// vocabulary.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <memory>

#include "base/source_dir.h"
#include "format/gguf_tokenizer.h"
#include "text/tokenizer_goldens.h"

namespace bakestone {
namespace {

const std::filesystem::path kRoot = SourceDir();

// The test corpus is the worst case: thirty scripts, hardly a word twice. The handbook is plain
// prose.
std::string CorpusText() {
  std::string text;
  for (const auto& line : goldens::Corpus(kRoot)) {
    if (line.valid_utf8) text.append(line.bytes).append("\n");
  }
  return text;
}

void Encode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  size_t tokens = 0;
  for (auto _ : state) tokens += tokenizer.Encode(text, {.add_special = false}).size();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}

void Decode(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.Encode(text, {.add_special = false});
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.Decode(ids));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

void Register(const std::string& name, std::shared_ptr<const Tokenizer> tokenizer) {
  const std::pair<const char*, std::string> texts[] = {
      {"corpus", CorpusText()},
      {"handbook", ReadFile(kRoot / "examples" / "handbook" / "handbook.md")}};
  for (const auto& [text_name, text] : texts) {
    const std::string suffix = name + "/" + text_name;
    benchmark::RegisterBenchmark(("BM_Encode/" + suffix).c_str(), [=, text = text](auto& state) {
      Encode(state, *tokenizer, text);
    });
    benchmark::RegisterBenchmark(("BM_Decode/" + suffix).c_str(), [=, text = text](auto& state) {
      Decode(state, *tokenizer, text);
    });
  }
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) try {
  using namespace bakestone;
  benchmark::Initialize(&argc, argv);
  for (const char* name : {"gpt2", "llama3", "qwen2", "spm_llama", "unigram_nfkc"}) {
    Register(name, std::make_shared<const Tokenizer>(goldens::Spec(kRoot, name)));
  }
  if (argc > 1) {
    const std::string path = argv[1];
    Register("model", std::make_shared<const Tokenizer>(FromGguf(GgufFile::Open(path))));
    benchmark::RegisterBenchmark("BM_Load/model", [path](auto& state) {
      for (auto _ : state) {
        const Tokenizer tokenizer(FromGguf(GgufFile::Open(path)));
        benchmark::DoNotOptimize(tokenizer.vocab_size());
      }
    });
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "tokenizer_bench: %s\n", error.what());
  return 1;
}
