// bakestone export WHAT OUT: models and adapters in the format that the next tool wants.
#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/core.h>

#include "base/quote.h"
#include "cli/convert_report.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "convert/export.h"
#include "convert/hf_folder_writer.h"
#include "convert/hf_source.h"

namespace bakestone::cli {
namespace {

void ExportModel(const std::filesystem::path& path, const std::filesystem::path& out,
                 ThreadPool& pool) {
  const ModelSource source = OpenSource(path);
  RefuseToReplace(source, out);
  const QuantizePlan plan = PlanLike(source, source);
  PrintPlan(plan, "the folder's types");
  WriteWithBar("exporting", source, plan, out, pool, {});
}

void ExportFolder(const std::filesystem::path& path, const std::filesystem::path& out,
                  const std::optional<std::string>& type, std::optional<int64_t> threads) {
  std::optional<DType> to;
  if (type) {
    to = FindWeightType(*type);
    if (!to || IsQuantized(*to)) {
      throw UsageError(
          fmt::format("export: --type: expected f32, f16 or bf16, found {}", Quote(*type)));
    }
  }
  ThreadPool pool(NumThreads(threads));
  std::unique_ptr<Progress> progress;
  WriteHfFolder(path, out, to, Kernels(), pool,
                [&](int64_t done, int64_t total, const std::string& tensor) {
                  ThrowIfStopped();
                  if (!progress) {
                    progress = std::make_unique<Progress>("exporting", total >> 20, "MB");
                  }
                  progress->Update(done >> 20, tensor);
                });
}

// Files are GGUF, folders are not: a name that says the other is a slip.
void CheckForm(const std::filesystem::path& path, const std::filesystem::path& out, bool to_file) {
  if ((out.extension() == ".gguf") == to_file) return;
  throw UsageError(fmt::format("export: {} becomes {}: expected an OUT that {} .gguf, found {}",
                               Quote(path.string()), to_file ? "a GGUF file" : "a folder",
                               to_file ? "ends with" : "does not end with", Quote(out.string())));
}

}  // namespace

int Export(const Arguments& arguments) {
  std::string what, out;
  std::optional<std::string> base, type;
  std::optional<int64_t> threads;
  Flags flags("export",
              "Write a Hugging Face folder as a GGUF file and the other way, a PEFT adapter as a "
              "GGUF adapter and the "
              "other way; nothing but the format changes.",
              "bakestone export my-peft-folder adapter.gguf --base smollm2-135m-instruct");
  flags.Positional("WHAT", &what,
                   "A Hugging Face folder, a GGUF file, a PEFT folder or a GGUF adapter");
  flags.Positional("OUT", &out, "The file or folder to write");
  flags.Add("--base", &base, "The adapter's base model: its heads say how rows are ordered");
  flags.Add(
      "--type", &type,
      "Of a folder's tensors: f32, f16 or bf16; default: the model's own, f32 of a quantized one");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Parse(arguments);
  CatchSignals();
  const bool there = std::filesystem::exists(what);
  const std::filesystem::path path = there ? std::filesystem::path(what) : ResolveModel(what);
  const Artifact artifact = ArtifactAt(path);
  const bool adapter = artifact == Artifact::kPeftAdapter || artifact == Artifact::kGgufAdapter;
  CheckForm(path, out, artifact == Artifact::kHfModel || artifact == Artifact::kPeftAdapter);
  if (type && artifact != Artifact::kGgufModel) {
    throw UsageError(
        "export: --type: expected only where a GGUF file becomes a folder ('bakestone "
        "quantize' writes a folder as a GGUF file of other types)");
  }
  if (base && !adapter) throw UsageError("export: --base: expected only with an adapter");
  switch (artifact) {
    case Artifact::kHfModel: {
      ThreadPool pool(NumThreads(threads));
      ExportModel(path, out, pool);
      break;
    }
    case Artifact::kGgufModel:
      ExportFolder(path, out, type, threads);
      break;
    case Artifact::kPeftAdapter:
    case Artifact::kGgufAdapter:
      if (!base) throw UsageError("export: expected --base, the model that the adapter belongs to");
      ExportAdapter(path, OpenSource(ResolveModel(*base)), out);
      break;
  }
  fmt::print("{}\n", out);
  return 0;
}

}  // namespace bakestone::cli
