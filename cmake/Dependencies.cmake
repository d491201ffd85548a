# Outside libraries, each from a Debian package (README.md has the table and the reasons).

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto SSL)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
if(NOT CMAKE_CROSSCOMPILING)
  find_package(Boost 1.81 REQUIRED)
  find_package(CLI11 REQUIRED)
  find_package(CURL REQUIRED)
  find_package(ZLIB REQUIRED)
  pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
  # Optional: Arrow's C++ library, as PyPI's pyarrow carries it (tools/setup.sh parquet).
  if(DEFINED ENV{BAKESTONE_HOME})
    set(bakestone_home $ENV{BAKESTONE_HOME})
  else()
    set(bakestone_home $ENV{HOME}/.local/share/bakestone)
  endif()
  find_path(BAKESTONE_ARROW_FOLDER include/parquet/arrow/reader.h NO_DEFAULT_PATH
    PATHS ${bakestone_home}/pyarrow/pyarrow)
  # Optional: what holds answers to a given form (tools/get_xgrammar.sh).
  find_path(BAKESTONE_XGRAMMAR_FOLDER include/xgrammar/xgrammar.h NO_DEFAULT_PATH PATHS ${bakestone_home}/xgrammar-0.2.8-1)
endif()

# What nearly every file above the kernels includes, compiled once (Bakestone.cmake says who shares it).
add_library(bakestone_headers OBJECT ${CMAKE_CURRENT_LIST_DIR}/headers.cc)
target_link_libraries(bakestone_headers PRIVATE fmt::fmt nlohmann_json::nlohmann_json)
target_precompile_headers(bakestone_headers PRIVATE <algorithm> <array> <functional> <map> <memory> <optional> <span>
                          <string> <string_view> <utility> <vector> <fmt/format.h> <nlohmann/json.hpp>)

if(BAKESTONE_TESTS OR BAKESTONE_BENCH)
  # The one unit that depends on the tree's path, so that a compiler cache serves every checkout.
  add_library(bakestone_source_dir STATIC ${CMAKE_CURRENT_LIST_DIR}/source_dir.cc)
  target_include_directories(bakestone_source_dir PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(bakestone_source_dir PRIVATE BAKESTONE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
endif()
if(BAKESTONE_TESTS)
  find_package(GTest REQUIRED)
  add_library(bakestone_testing INTERFACE)
  target_link_libraries(bakestone_testing INTERFACE bakestone_source_dir GTest::gmock GTest::gtest
                        GTest::gtest_main)
  add_library(bakestone_test_headers OBJECT ${CMAKE_CURRENT_LIST_DIR}/headers.cc)
  target_link_libraries(bakestone_test_headers PRIVATE bakestone_testing fmt::fmt)
  target_precompile_headers(bakestone_test_headers PRIVATE <algorithm> <functional> <map> <memory> <optional> <string>
                            <vector> <fmt/format.h> <gtest/gtest.h>)
endif()
if(BAKESTONE_BENCH)
  find_package(benchmark REQUIRED)
endif()
