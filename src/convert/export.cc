#include "convert/export.h"

#include "base/error.h"
#include "base/quote.h"
#include "convert/merge.h"
#include "format/gguf.h"
#include "format/gguf_adapter.h"
#include "format/peft.h"

namespace bakestone {

Artifact ArtifactAt(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    if (std::filesystem::exists(path / "adapter_config.json")) return Artifact::kPeftAdapter;
    if (std::filesystem::exists(path / "config.json")) return Artifact::kHfModel;
    Throw(ErrorCode::kNotFound,
          "{}: expected a folder with config.json or adapter_config.json, found neither",
          path.string());
  }
  const GgufFile file = GgufFile::Open(path);
  const std::string_view type = file.GetString("general.type", "model");
  if (type == "model") return Artifact::kGgufModel;
  if (type == "adapter") return Artifact::kGgufAdapter;
  Throw(ErrorCode::kUnsupported, "{}: general.type: expected 'model' or 'adapter', found {}",
        file.name(), Quote(type));
}

void ExportAdapter(const std::filesystem::path& adapter, const ModelSource& base,
                   const std::filesystem::path& out) {
  const HeadShape heads = HeadsOf(base);
  const bool to_gguf = ArtifactAt(adapter) == Artifact::kPeftAdapter;
  AdapterFile file = to_gguf ? ReadPeftAdapter(adapter) : ReadGgufAdapter(adapter, heads);
  if (file.name.empty()) {
    file.name = std::filesystem::absolute(adapter).lexically_normal().stem().string();
  }
  MergeAdapters(base, {{file, 1}}, {});  // throws where a shape is not the base's
  file.architecture = base.header->GetString("general.architecture");
  if (file.base_name.empty()) file.base_name = base.header->GetString("general.name", "");
  if (to_gguf) {
    WriteGgufAdapter(std::move(file), heads, out);
  } else {
    WritePeftAdapter(std::move(file), out);
  }
}

}  // namespace bakestone
