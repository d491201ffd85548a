#include "train/checkpoint.h"

#include <cstring>
#include <span>

#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mapped_file.h"
#include "base/sha256.h"

namespace bakestone {
namespace {

constexpr char kCheckpointMagic[] = "BAKECKPT";
constexpr uint32_t kCheckpointVersion = 1;
constexpr size_t kPrefix = 8 + 4 + 4 + 8;
constexpr size_t kMostCopied = size_t{256} << 20;

std::span<const uint8_t> Bytes(std::span<const float> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

[[noreturn]] void Damaged(const std::filesystem::path& path, const std::string& what) {
  Throw(ErrorCode::kCorrupt,
        "{}: {}; the checkpoint is damaged: delete it to start this run again from its beginning",
        path.string(), what);
}

}  // namespace

void WriteCheckpoint(const std::filesystem::path& path, const Checkpoint& checkpoint) {
  const size_t moments = checkpoint.first_moments.size();
  BAKESTONE_CHECK(moments == 0 || moments == checkpoint.masters.size());
  BAKESTONE_CHECK(moments == checkpoint.second_moments.size());
  const std::string header = nlohmann::json{{"key", checkpoint.key},
                                            {"stage", checkpoint.stage},
                                            {"step", checkpoint.step},
                                            {"tokens", checkpoint.tokens},
                                            {"seconds", checkpoint.seconds},
                                            {"log_bytes", checkpoint.log_bytes},
                                            {"best_step", checkpoint.best_step},
                                            {"best_loss", checkpoint.best_loss},
                                            {"best_answers", checkpoint.best_answers},
                                            {"worse", checkpoint.worse},
                                            {"stopped", checkpoint.stopped},
                                            {"size", checkpoint.masters.size()},
                                            {"finished", moments == 0}}
                                 .dump();
  std::string prefix(kCheckpointMagic, 8);
  const uint32_t words[2] = {kCheckpointVersion, 0};
  const uint64_t length = header.size();
  prefix.append(reinterpret_cast<const char*>(words), sizeof words);
  prefix.append(reinterpret_cast<const char*>(&length), sizeof length);
  prefix += header;

  AtomicFile file(path);
  Sha256 sha;
  sha.Update(prefix);
  file.Write(prefix);
  for (const auto* values :
       {&checkpoint.masters, &checkpoint.first_moments, &checkpoint.second_moments}) {
    sha.Update(Bytes(*values));
    file.Write(Bytes(*values));
  }
  file.Write(sha.Finish());
  file.Commit();
}

void CheckpointWriter::Write(const Checkpoint& checkpoint) {
  Wait();
  if (checkpoint.masters.size() * 3 * sizeof(float) > kMostCopied) {
    WriteCheckpoint(path_, checkpoint);
    return;
  }
  pending_ = std::async(std::launch::async,
                        [path = path_, copy = checkpoint] { WriteCheckpoint(path, copy); });
}

void CheckpointWriter::Wait() {
  if (pending_.valid()) pending_.get();
}

std::optional<Checkpoint> ReadCheckpoint(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const MappedFile mapped = MappedFile::Open(path);
  const std::span<const uint8_t> bytes = mapped.bytes();
  if (bytes.size() < kPrefix + 32 || std::memcmp(bytes.data(), kCheckpointMagic, 8) != 0) {
    Damaged(path, "expected it to begin with 'BAKECKPT'");
  }
  uint32_t version;
  uint64_t header_length;
  std::memcpy(&version, bytes.data() + 8, 4);
  std::memcpy(&header_length, bytes.data() + 16, 8);
  if (version != kCheckpointVersion) {
    Throw(ErrorCode::kUnsupported, "{}: expected a checkpoint of version {}, found {}",
          path.string(), kCheckpointVersion, version);
  }
  const auto body = bytes.first(bytes.size() - 32);
  const Hash found = HashOf(body);
  if (std::memcmp(found.data(), bytes.data() + body.size(), 32) != 0) {
    Damaged(path, "expected the SHA-256 at its end to match its contents, found " + ToHex(found));
  }
  if (header_length > body.size() - kPrefix) Damaged(path, "the header is longer than the file");
  const auto header = nlohmann::json::parse(
      body.begin() + kPrefix, body.begin() + kPrefix + static_cast<ptrdiff_t>(header_length),
      nullptr, false);
  Checkpoint checkpoint;
  uint64_t size = 0;
  bool finished = false;
  try {
    checkpoint.key = header.at("key").get<std::string>();
    checkpoint.stage = header.at("stage").get<int64_t>();
    checkpoint.step = header.at("step").get<int64_t>();
    checkpoint.tokens = header.at("tokens").get<int64_t>();
    checkpoint.seconds = header.at("seconds").get<double>();
    checkpoint.log_bytes = header.at("log_bytes").get<int64_t>();
    checkpoint.best_step = header.value("best_step", int64_t{-1});
    checkpoint.best_loss = header.value("best_loss", 0.0);
    checkpoint.best_answers = header.value("best_answers", 0.0);
    checkpoint.worse = header.value("worse", int64_t{0});
    checkpoint.stopped = header.value("stopped", false);
    size = header.at("size").get<uint64_t>();
    finished = header.at("finished").get<bool>();
  } catch (const nlohmann::json::exception& error) {
    Damaged(path, std::string("the header: ") + error.what());
  }
  const auto array_bytes = CheckedMul<uint64_t>(size, (finished ? 1 : 3) * sizeof(float));
  if (!array_bytes || *array_bytes != body.size() - kPrefix - header_length) {
    Damaged(path, "the arrays do not have the size that the header names");
  }
  const uint8_t* next = body.data() + kPrefix + header_length;
  for (auto* values :
       {&checkpoint.masters, &checkpoint.first_moments, &checkpoint.second_moments}) {
    if (finished && values != &checkpoint.masters) break;
    values->resize(size);
    std::memcpy(values->data(), next, size * sizeof(float));
    next += size * sizeof(float);
  }
  return checkpoint;
}

}  // namespace bakestone
