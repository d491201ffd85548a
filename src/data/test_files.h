// Small files for the tests of this folder.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"

namespace bakestone::testing {

inline std::filesystem::path WriteTestFile(const std::string& name, std::string_view contents) {
  const auto path = std::filesystem::path(::testing::TempDir()) / "bakestone_data" / name;
  WriteFileAtomically(path, contents);
  return path;
}

inline std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace bakestone::testing
