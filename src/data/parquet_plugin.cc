// The library that reads Parquet, with Arrow's C++ library. It knows nothing of the program but the
// interface in parquet_plugin.h: a row comes out as a JSON object. Batches are read one after
// another, so a file larger than memory is no matter.
#include "data/parquet_plugin.h"

#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <nlohmann/json.hpp>
#include <parquet/arrow/reader.h>

namespace {

using Json = nlohmann::ordered_json;

template <class T>
T Take(arrow::Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return std::move(result).ValueUnsafe();
}

void Check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

Json ToJson(const arrow::Array& array, int64_t index);

// Elements of a list; of a map, its pairs as an object.
template <class List>
Json ListToJson(const List& list, int64_t index) {
  Json json = Json::array();
  const auto& values = *list.values();
  const int64_t begin = list.value_offset(index);
  for (int64_t i = begin; i < begin + list.value_length(index); ++i) {
    json.push_back(ToJson(values, i));
  }
  return json;
}

Json MapToJson(const arrow::MapArray& map, int64_t index) {
  Json json = Json::object();
  const int64_t begin = map.value_offset(index);
  for (int64_t i = begin; i < begin + map.value_length(index); ++i) {
    const Json key = ToJson(*map.keys(), i);
    json[key.is_string() ? key.get<std::string>() : key.dump()] = ToJson(*map.items(), i);
  }
  return json;
}

// Fields that are null in this row are left out: Arrow gives every row the fields of all.
Json StructToJson(const arrow::StructArray& array, int64_t index) {
  Json json = Json::object();
  for (int i = 0; i < array.num_fields(); ++i) {
    const auto& field = *array.field(i);
    if (!field.IsNull(index)) json[array.struct_type()->field(i)->name()] = ToJson(field, index);
  }
  return json;
}

template <class Array>
const Array& As(const arrow::Array& array) {
  return static_cast<const Array&>(array);
}

Json ToJson(const arrow::Array& array, int64_t index) {
  if (array.IsNull(index)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::STRING:
      return As<arrow::StringArray>(array).GetString(index);
    case arrow::Type::LARGE_STRING:
      return As<arrow::LargeStringArray>(array).GetString(index);
    case arrow::Type::BOOL:
      return As<arrow::BooleanArray>(array).Value(index);
    case arrow::Type::INT8:
      return As<arrow::Int8Array>(array).Value(index);
    case arrow::Type::INT16:
      return As<arrow::Int16Array>(array).Value(index);
    case arrow::Type::INT32:
      return As<arrow::Int32Array>(array).Value(index);
    case arrow::Type::INT64:
      return As<arrow::Int64Array>(array).Value(index);
    case arrow::Type::UINT8:
      return As<arrow::UInt8Array>(array).Value(index);
    case arrow::Type::UINT16:
      return As<arrow::UInt16Array>(array).Value(index);
    case arrow::Type::UINT32:
      return As<arrow::UInt32Array>(array).Value(index);
    case arrow::Type::UINT64:
      return As<arrow::UInt64Array>(array).Value(index);
    case arrow::Type::FLOAT:
      return As<arrow::FloatArray>(array).Value(index);
    case arrow::Type::DOUBLE:
      return As<arrow::DoubleArray>(array).Value(index);
    case arrow::Type::STRUCT:
      return StructToJson(As<arrow::StructArray>(array), index);
    case arrow::Type::MAP:
      return MapToJson(As<arrow::MapArray>(array), index);
    case arrow::Type::LIST:
      return ListToJson(As<arrow::ListArray>(array), index);
    case arrow::Type::LARGE_LIST:
      return ListToJson(As<arrow::LargeListArray>(array), index);
    case arrow::Type::DICTIONARY: {
      const auto& dictionary = As<arrow::DictionaryArray>(array);
      return ToJson(*dictionary.dictionary(), dictionary.GetValueIndex(index));
    }
    default:
      return Take(array.GetScalar(index))->ToString();  // dates and the like: as people write them
  }
}

class File {
 public:
  explicit File(const char* path) {
    auto input = Take(arrow::io::ReadableFile::Open(path));
    reader_ = Take(parquet::arrow::OpenFile(input, arrow::default_memory_pool()));
    reader_->set_batch_size(1024);
    batches_ = Take(reader_->GetRecordBatchReader());
  }

  bool Next(const char** json, size_t* size) {
    while (!batch_ || row_ == batch_->num_rows()) {
      Check(batches_->ReadNext(&batch_));
      row_ = 0;
      if (!batch_) return false;
    }
    Json object = Json::object();
    for (int i = 0; i < batch_->num_columns(); ++i) {
      const auto& column = *batch_->column(i);
      if (!column.IsNull(row_)) object[batch_->column_name(i)] = ToJson(column, row_);
    }
    ++row_;
    text_ = object.dump(-1, ' ', false, Json::error_handler_t::replace);
    *json = text_.data();
    *size = text_.size();
    return true;
  }

 private:
  std::unique_ptr<parquet::arrow::FileReader> reader_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
  std::shared_ptr<arrow::RecordBatch> batch_;
  int64_t row_ = 0;
  std::string text_;
};

void* Open(const char* path, char* error, size_t error_size) {
  try {
    return new File(path);
  } catch (const std::exception& problem) {
    std::snprintf(error, error_size, "%s", problem.what());
    return nullptr;
  }
}

int Next(void* file, const char** json, size_t* size, char* error, size_t error_size) {
  try {
    return static_cast<File*>(file)->Next(json, size) ? 1 : 0;
  } catch (const std::exception& problem) {
    std::snprintf(error, error_size, "%s", problem.what());
    return -1;
  }
}

void Close(void* file) { delete static_cast<File*>(file); }

constexpr BakestoneParquet kInterface = {Open, Next, Close};

}  // namespace

extern "C" __attribute__((visibility("default"))) const BakestoneParquet* bakestone_parquet_1() {
  return &kInterface;
}
