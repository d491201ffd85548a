// bakestone export WHAT OUT: models and adapters in the format that the next tool wants.
#include <cstdio>
#include <optional>

#include <fmt/core.h>

#include "base/error.h"
#include "cli/convert_report.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "convert/export.h"
#include "convert/hf_source.h"

namespace bakestone::cli {
namespace {

void ExportModel(const std::filesystem::path& path, const std::filesystem::path& out, ThreadPool& pool) {
  const ModelSource source = OpenSource(path);
  RefuseToReplace(source, out);
  const QuantizePlan plan = PlanLike(source, source);
  PrintPlan(plan, "the folder's types");
  WriteWithBar("exporting", source, plan, out, pool, {});
}

}  // namespace

int Export(const Arguments& arguments) {
  std::string what, out;
  std::optional<std::string> base;
  std::optional<int64_t> threads;
  Flags flags("export",
              "Write a Hugging Face folder as a GGUF file, a PEFT adapter as a GGUF adapter, or a GGUF adapter as a "
              "PEFT folder; nothing but the format changes.",
              "bakestone export my-peft-folder adapter.gguf --base smollm2-135m-instruct");
  flags.Positional("WHAT", &what, "A Hugging Face folder, a PEFT folder or a GGUF adapter");
  flags.Positional("OUT", &out, "The file or folder to write");
  flags.Add("--base", &base, "The adapter's base model: its heads say how rows are ordered");
  flags.Add("--threads", &threads, 1, 1024, "Threads to use");
  flags.Parse(arguments);
  CatchSignals();
  const bool there = std::filesystem::exists(what);
  const std::filesystem::path path = there ? std::filesystem::path(what) : ResolveModel(what);
  switch (ArtifactAt(path)) {
    case Artifact::kHfModel: {
      ThreadPool pool(NumThreads(threads));
      ExportModel(path, out, pool);
      break;
    }
    case Artifact::kGgufModel:
      Throw(ErrorCode::kUnsupported, "{}: expected a folder or an adapter to export, found a GGUF model: a folder made "
            "of one is not written yet; 'bakestone quantize' writes it in other types", path.string());
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
