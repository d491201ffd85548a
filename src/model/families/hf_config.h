// The settings of a Hugging Face folder's config.json. See config_reader.h.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "model/families/config_reader.h"

namespace bakestone {

class HfFolder;

class HfConfig : public ConfigReader {
 public:
  explicit HfConfig(const HfFolder& folder);  // keeps the reference

  std::string file() const override;
  std::optional<double> Number(const Field& field) const override;
  std::optional<bool> Flag(const Field& field) const override;
  std::optional<std::string> Text(const Field& field) const override;
  std::vector<double> Numbers(const Field& field) const override;
  std::vector<std::string> Texts(const Field& field) const override;
  void ReadRope(ModelConfig& config) const override;
  int64_t VocabularyRows(const char* embedding) const override;
  bool HasHead() const override;
  std::string File(const char* name) const override;
  std::vector<Module> Modules() const override;
  std::vector<std::string> Labels() const override;
  bool HasTensor(const std::string& name) const override;
  std::vector<std::pair<std::string, double>> OfLayer(int64_t layer) const override;
  bool HasLayerConfig() const override;
  bool is_hf() const override { return true; }

 private:
  const nlohmann::json* Find(const Field& field) const;
  [[noreturn]] void Fail(const std::string& field, const char* expected,
                         const nlohmann::json& found) const;
  void Scale(const nlohmann::json& scaling, ModelConfig& config, RopeConfig& rope) const;
  void ReadLongRope(const nlohmann::json& scaling, ModelConfig& config, RopeConfig& rope) const;
  // A number of the scaling object.
  double Part(const nlohmann::json& scaling, const char* name,
              std::optional<double> fallback) const;

  const HfFolder& folder_;
};

}  // namespace bakestone
