// Heads that give a text, or a pair of them, a score for each label: of a pooled row x,
// out(norm(activation(dense x))). In folders of BERT the dense layer is the model's pooler;
// llama.cpp calls the three cls, cls.norm and cls.output.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "model/families/families.h"

namespace bakestone {
namespace {

bool IsClassifier(const ConfigReader& in) {
  for (const std::string& name : in.Texts({nullptr, "architectures"})) {
    if (name.ends_with("ForSequenceClassification")) return true;
  }
  return !in.is_hf() && (in.HasTensor("cls.weight") || in.HasTensor("cls.output.weight"));
}

}  // namespace

void ReadClassifier(const ConfigReader& in, ModelConfig& config) {
  if (!IsClassifier(in)) return;
  const bool modern = config.architecture == "modern-bert",
             rooted = in.HasTensor("classifier.out_proj.weight");
  ClassifierConfig& head = config.classifier;
  head.dense = !in.is_hf() ? "cls"
               : modern    ? "head.dense"
               : rooted    ? "classifier.dense"
                           : "model.pooler.dense";
  head.out = !in.is_hf() ? "cls.output" : rooted ? "classifier.out_proj" : "classifier";
  if (modern) head.norm = in.is_hf() ? "head.norm" : "cls.norm";
  for (const std::string* name : {&head.dense, &head.out, &head.norm}) {
    if (name->empty() || in.HasTensor(*name + ".weight")) continue;
    Throw(ErrorCode::kUnsupported,
          "{}: tensor '{}.weight': expected it beside the others of a head that scores, found "
          "none: without it the scores would "
          "not be the model's; take the model's folder",
          in.file(), *name);
  }
  head.labels = in.VocabularyRows(head.out.c_str());
  if (head.labels < 1 || head.labels > kMaxWidth) {
    Throw(ErrorCode::kCorrupt, "{}: tensor '{}.weight': expected 1 to {} rows, found {}", in.file(),
          head.out, kMaxWidth, head.labels);
  }
  head.activation =
      modern ? ClassifierConfig::Activation::kGelu : ClassifierConfig::Activation::kTanh;
  // GGUF has no key for it: llama.cpp takes ModernBERT's mean.
  const Field pooling = {nullptr, "classifier_pooling"};
  const std::string mode = in.Text(pooling).value_or(modern && !in.is_hf() ? "mean" : "cls");
  if (mode != "cls" && mode != "mean") {
    Throw(ErrorCode::kUnsupported, "{}: {}: expected cls or mean, found {}", in.file(),
          in.Spelled(pooling), Quote(mode));
  }
  head.pooling = mode == "mean" ? Pooling::kMean : Pooling::kFirst;
  const std::string activation = in.Text({nullptr, "classifier_activation"}).value_or("gelu");
  if (modern && activation != "gelu") {
    Throw(ErrorCode::kUnsupported, "{}: classifier_activation: expected gelu, found {}", in.file(),
          Quote(activation));
  }
  head.names = in.Labels();
  if (!head.names.empty() && std::ssize(head.names) != head.labels) {
    Throw(ErrorCode::kCorrupt, "{}: {}: expected a name for each of {} labels, found {}", in.file(),
          in.is_hf() ? "id2label" : in.Spelled({"classifier.output_labels", nullptr}), head.labels,
          head.names.size());
  }
}

}  // namespace bakestone
