#include "train/event_file.h"

#include <array>
#include <bit>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bakestone {
namespace {

constexpr const char* kName = "events.out.tfevents.0.bakestone";

constexpr std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    table[i] = crc;
  }
  return table;
}

uint32_t Masked(std::string_view bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <class T>
void AppendRaw(T value, std::string* to) {
  to->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void AppendVarint(uint64_t value, std::string* to) {
  for (; value >= 0x80; value >>= 7) to->push_back(static_cast<char>(value | 0x80));
  to->push_back(static_cast<char>(value));
}

// Tags of fields: number << 3 | wire type (0 varint, 1 eight bytes, 2 counted bytes, 5 four bytes).
void AppendBytes(int field, std::string_view bytes, std::string* to) {
  AppendVarint(static_cast<uint64_t>(field << 3 | 2), to);
  AppendVarint(bytes.size(), to);
  to->append(bytes);
}

std::string Event(double wall_time, int64_t step) {
  std::string event;
  AppendVarint(1 << 3 | 1, &event);
  AppendRaw(wall_time, &event);
  AppendVarint(2 << 3 | 0, &event);
  AppendVarint(static_cast<uint64_t>(step), &event);
  return event;
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) noexcept {
  static constexpr std::array<uint32_t, 256> kTable = MakeTable();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  }
  return crc ^ 0xFFFFFFFFu;
}

EventFile::EventFile(const std::filesystem::path& folder, double start)
    : path_(folder / kName), start_(start) {
  std::ifstream log(folder / "log.jsonl");
  file_.open(path_, std::ios::binary | std::ios::trunc);
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot open for writing", path_.string());
  std::string first = Event(start_, 0);
  AppendBytes(3, "brain.Event:2", &first);
  Write(first);
  for (std::string line; std::getline(log, line);) {
    const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
    if (!json.is_object()) continue;
    std::vector<std::pair<std::string, double>> values;
    for (const auto& [name, value] : json.items()) {
      if (value.is_number() && name != "step" && name != "seconds") {
        values.emplace_back(name, value.get<double>());
      }
    }
    Append(json.value("step", int64_t{0}), json.value("seconds", 0.0), values);
  }
}

void EventFile::Append(int64_t step, double seconds,
                       const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [tag, number] : values) {
    std::string value;
    AppendBytes(1, tag, &value);
    AppendVarint(2 << 3 | 5, &value);
    AppendRaw(static_cast<float>(number), &value);
    AppendBytes(1, value, &summary);
  }
  std::string event = Event(start_ + seconds, step);
  AppendBytes(5, summary, &event);
  Write(event);
}

void EventFile::Write(std::string_view event) {
  std::string record;
  AppendRaw(static_cast<uint64_t>(event.size()), &record);
  AppendRaw(Masked(record), &record);
  record.append(event);
  AppendRaw(Masked(event), &record);
  file_.write(record.data(), static_cast<std::streamsize>(record.size()));
  file_.flush();
  if (!file_) Throw(ErrorCode::kIo, "{}: cannot write; is the disk full?", path_.string());
}

}  // namespace bakestone
