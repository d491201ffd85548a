// For tests of this folder: tiny models in files that vanish with the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "convert/model_source.h"
#include "kernels/isa.h"
#include "model/test_model.h"

namespace bakestone::testing {

// 256 wide, so that every type of block fits, all matrices of `type`.
inline TestModelOptions WideModel(DType type, uint64_t seed = 1) {
  TestModelOptions options;
  options.num_layers = 4;
  options.hidden_dim = options.ffn_dim = 256;
  options.head_dim = 64;
  options.embedding_type = type;
  options.types.fill(type);
  options.seed = seed;
  return options;
}

class ConvertTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("bakestone-convert-" + std::to_string(::getpid()) + "-" + info->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path Write(const std::string& name, const TestModelOptions& options) const {
    const std::filesystem::path path = folder_ / name;
    WriteTestModel(path, options);
    return path;
  }

  template <class F>
  static std::string MessageOf(const F& f) {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  static std::vector<float> Values(const SourceTensor& tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    tensor.rows(0, tensor.num_rows(), values.data());
    return values;
  }

  std::filesystem::path folder_;
  const KernelTable& kernels_ = ChooseKernels(nullptr);
  ThreadPool pool_{2};
};

}  // namespace bakestone::testing
