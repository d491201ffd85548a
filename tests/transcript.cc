// Sixteen greedy tokens of a real model, and the hash of every bit of their logits, against what
// the reference table made: machines that never meet give one answer. The Arm build runs it under
//   an emulator. transcript --write MODEL > GOLDEN        the reference table's
//   transcript MODEL GOLDEN [TABLE ...]      tables named, or all that run here but the reference
// MODEL "-": BAKESTONE_TEST_MODEL's; without one, exit 77 (skipped).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "kernels/isa.h"
#include "model/model.h"

namespace bakestone {
namespace {

constexpr std::string_view kPrompt =
    "<|im_start|>user\nName three fruits that are red.<|im_end|>\n<|im_start|>assistant\n";
constexpr int kTokens = 16;

std::string Transcript(const Model& model, const KernelTable& kernels, ThreadPool& pool) {
  Exec exec(kernels, pool);
  const auto allocator = MakeHeapAllocator(model.config, KvType::kBf16, int64_t{1} << 30);
  SequenceState state(model.config, KvType::kBf16, *allocator);
  const std::vector<int32_t> prompt =
      model.tokenizer.Encode(kPrompt, {.add_special = false, .parse_special = true});
  std::vector<int32_t> fed = prompt, made;
  Buffer<float> hidden(model.config.hidden_dim), logits(model.config.vocab_size);
  Sha256 sha;
  while (made.size() < kTokens) {
    const auto count = static_cast<int32_t>(fed.size());
    std::vector<int32_t> positions(fed.size());
    for (int32_t i = 0; i < count; ++i) {
      positions[static_cast<size_t>(i)] = static_cast<int32_t>(state.length()) + i;
    }
    const SequenceRun run{0, count, &state};
    const int32_t last = count - 1;
    const auto row = DenseView(hidden.data(), 1, model.config.hidden_dim);
    const auto out = DenseView(logits.data(), 1, model.config.vocab_size);
    state.Reserve(count);
    model.decoder->Forward(exec,
                           {.tokens = fed,
                            .positions = positions,
                            .sequences = {&run, 1},
                            .adapters = {},
                            .output_rows = {&last, 1}},
                           row);
    model.decoder->Logits(exec, row, out);
    state.Commit(count);
    sha.Update({reinterpret_cast<const uint8_t*>(logits.data()),
                static_cast<size_t>(model.config.vocab_size) * sizeof(float)});
    made.push_back(static_cast<int32_t>(
        std::max_element(logits.data(), logits.data() + model.config.vocab_size) - logits.data()));
    fed = {made.back()};
  }
  return fmt::format("model {}\nprompt {}\ntokens {}\nlogits {}\n", ToHex(model.file_hash),
                     fmt::join(prompt, " "), fmt::join(made, " "), ToHex(sha.Finish()));
}

int Check(const char* path, const char* golden, std::vector<const KernelTable*> tables) {
  const MappedFile file = MappedFile::Open(golden);
  const std::string expected(reinterpret_cast<const char*>(file.bytes().data()),
                             file.bytes().size());
  ThreadPool pool(UsableCores());
  const auto model = Model::Load(path, ChooseKernels(nullptr), pool);
  int wrong = 0;
  for (const KernelTable* table : tables) {
    const std::string found = Transcript(*model, *table, pool);
    const bool same = found == expected;
    fmt::print("{} {}\n", IsaName(table->isa), same ? "ok" : "DIFFERS");
    if (same) continue;
    ++wrong;
    fmt::print("expected ({}):\n{}found:\n{}", golden, expected, found);
  }
  return wrong == 0 ? 0 : 1;
}

int Run(const std::vector<const char*>& arguments) {
  const bool write = std::string_view(arguments[0]) == "--write";
  const char* path = arguments[write ? 1 : 0];
  if (std::string_view(path) == "-") path = std::getenv("BAKESTONE_TEST_MODEL");
  if (path == nullptr || *path == 0) {
    std::fprintf(stderr, "skipped: BAKESTONE_TEST_MODEL does not name a model file\n");
    return 77;
  }
  if (write) {
    ThreadPool pool(UsableCores());
    const KernelTable& reference = ChooseKernels("reference");
    std::fputs(Transcript(*Model::Load(path, reference, pool), reference, pool).c_str(), stdout);
    return 0;
  }
  std::vector<const KernelTable*> tables;
  for (size_t i = 2; i < arguments.size(); ++i) tables.push_back(&ChooseKernels(arguments[i]));
  if (tables.empty()) {
    tables = AvailableKernels();
    tables.erase(tables.begin());  // the golden is the reference's; it is slow
  }
  return Check(path, arguments[1], tables);
}

}  // namespace
}  // namespace bakestone

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: transcript --write MODEL | transcript MODEL GOLDEN [TABLE ...]\n");
    return 2;
  }
  try {
    return bakestone::Run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "transcript: %s\n", error.what());
    return 2;
  }
}
