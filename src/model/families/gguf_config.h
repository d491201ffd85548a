// The settings of a GGUF file. See config_reader.h.
#pragma once

#include <string>

#include "model/families/config_reader.h"

namespace bakestone {

class GgufFile;

class GgufConfig : public ConfigReader {
 public:
  explicit GgufConfig(const GgufFile& file);  // keeps the reference

  std::string file() const override;
  std::string Spelled(const Field& field) const override;
  std::optional<double> Number(const Field& field) const override;
  std::optional<bool> Flag(const Field& field) const override;
  std::optional<std::string> Text(const Field& field) const override;
  std::vector<double> Numbers(const Field& field) const override;
  std::vector<std::string> Labels() const override;
  void ReadRope(ModelConfig& config) const override;
  int64_t VocabularyRows(const char* embedding) const override;
  bool HasHead() const override;
  bool HasTensor(const std::string& name) const override;

 private:
  bool Has(const Field& field) const;
  std::vector<float> Factors(const char* tensor, int64_t rope_dim) const;
  void ReadLongRope(ModelConfig& config) const;

  const GgufFile& file_;
  std::string prefix_;  // "llama."
};

}  // namespace bakestone
