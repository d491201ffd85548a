// Reading goldens of training: tensors of a safetensors file as vectors, and how far a result is
// from them. For tests only.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "format/safetensors.h"
#include "tensor/half.h"

namespace bakestone::testing {

template <class T>
std::vector<T> ValuesOf(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor* tensor = file.Find(name);
  if (tensor == nullptr) {
    ADD_FAILURE() << name << " is missing";
    return {};
  }
  std::vector<T> values(static_cast<size_t>(tensor->elements()));
  std::memcpy(values.data(), tensor->data.data(), values.size() * sizeof(T));
  return values;
}

inline std::vector<float> Widened(const SafetensorsFile& file, const std::string& name) {
  std::vector<float> values;
  for (const uint16_t half : ValuesOf<uint16_t>(file, name)) values.push_back(BF16ToFloat(half));
  return values;
}

// |found - expected| / |expected| over a range.
inline double RelativeError(std::span<const float> found, std::span<const float> expected) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return std::sqrt(error / norm);
}

}  // namespace bakestone::testing
