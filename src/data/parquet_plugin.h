// What passes between the program and the library that reads Parquet (parquet_plugin.cc): plain C,
// so that neither side knows how the other was built.
#pragma once

#include <cstddef>

extern "C" {

struct BakestoneParquet {
  // Opens a file; null and the reason in error (ended by zero, cut at error_size) where it cannot.
  void* (*open)(const char* path, char* error, size_t error_size);
  // The next row as a JSON object, valid until the next call. 1: a row, 0: the end, -1: an error.
  int (*next)(void* file, const char** json, size_t* size, char* error, size_t error_size);
  void (*close)(void* file);
};

// The one symbol of the library.
using BakestoneParquetEntry = const BakestoneParquet* (*)();
}

inline constexpr const char* kParquetLibrary = "libbakestone_parquet.so";
inline constexpr const char* kParquetSymbol = "bakestone_parquet_1";
