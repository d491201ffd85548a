#include "model/config.h"

#include "base/error.h"
#include "format/gguf.h"
#include "model/families/families.h"

namespace bakestone {

LinearShape ShapeOf(const ModelConfig& config, Site site) {
  switch (site) {
    case Site::kQ:
      return {config.q_dim(), config.hidden_dim};
    case Site::kK:
    case Site::kV:
      return {config.kv_dim(), config.hidden_dim};
    case Site::kO:
      return {config.hidden_dim, config.q_dim()};
    case Site::kGate:
    case Site::kUp:
      return {config.ffn_dim, config.hidden_dim};
    case Site::kDown:
      return {config.hidden_dim, config.ffn_dim};
  }
  BAKESTONE_CHECK(false && "a site outside the enum");
  return {};
}

ModelConfig ReadConfig(const GgufFile& file) {
  const std::string_view type = file.GetString("general.type", "model");
  if (type != "model") {
    Throw(ErrorCode::kUnsupported, "{}: general.type: expected 'model', found '{}'{}", file.name(),
          type, type == "adapter" ? "; give an adapter beside its base model" : "");
  }
  const std::string_view architecture = file.GetString("general.architecture");
  std::string known;
  for (const Family& family : Families()) {
    if (family.architecture == architecture) return family.read(file);
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  Throw(ErrorCode::kUnsupported, "{}: general.architecture: expected one of {}, found '{}'",
        file.name(), known, architecture);
}

}  // namespace bakestone
