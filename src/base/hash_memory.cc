#include "base/hash_memory.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace bakestone {
namespace {

constexpr int64_t kNanoseconds = 1'000'000'000;
// Times of files advance by ticks of up to 10 ms.
constexpr int64_t kSettled = kNanoseconds / 20;

int64_t Nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * kNanoseconds + time.tv_nsec;
}

struct stat StatusOf(const std::filesystem::path& file) {
  struct stat status;
  if (::stat(file.c_str(), &status) != 0) {
    const int error = errno;
    Throw(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: cannot read its status: {}",
          file.string(), std::strerror(error));
  }
  return status;
}

std::string Identity(const struct stat& status) {
  return fmt::format("{} {} {} {} {}", status.st_size, Nanoseconds(status.st_mtim),
                     Nanoseconds(status.st_ctim), status.st_ino, status.st_dev);
}

bool HasSettled(const struct stat& status) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t changed = std::max(Nanoseconds(status.st_mtim), Nanoseconds(status.st_ctim));
  return Nanoseconds(now) - changed > kSettled;
}

std::optional<Hash> ReadNote(const std::filesystem::path& note, const std::string& identity) {
  std::string text;
  try {
    text = ReadFile(note, 1024);
  } catch (const Error&) {
    return std::nullopt;
  }
  Hash hash;
  const size_t size = identity.size() + 1 + 2 * hash.size() + 1;
  if (text.size() != size || !text.starts_with(identity + " ")) return std::nullopt;
  for (size_t i = 0; i < hash.size(); ++i) {
    const char* digits = text.data() + identity.size() + 1 + 2 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, hash[i], 16);
    if (error != std::errc{} || end != digits + 2) return std::nullopt;
  }
  return hash;
}

}  // namespace

HashMemory::HashMemory(std::filesystem::path folder) : folder_(std::move(folder)) {}

std::filesystem::path HashMemory::NoteOf(const std::filesystem::path& path,
                                         int64_t without_last) const {
  const std::string name =
      ToHex(bakestone::HashOf(fmt::format("{} {}", without_last, path.string())));
  return folder_ / (name.substr(0, 32) + ".hash");
}

void HashMemory::Write(const std::filesystem::path& note, const std::string& identity,
                       const Hash& hash) const {
  try {
    WriteFileAtomically(note, fmt::format("{} {}\n", identity, ToHex(hash)));
  } catch (const Error& error) {
    LogDebug("{}: a hash is not remembered: {}", note.string(), error.what());
  }
}

Hash HashMemory::HashOf(const std::filesystem::path& file, int64_t without_last) const {
  const std::filesystem::path path = std::filesystem::absolute(file);
  const std::filesystem::path note = NoteOf(path, without_last);
  const struct stat before = StatusOf(path);
  const std::string identity = Identity(before);
  if (const auto hash = ReadNote(note, identity)) return *hash;
  const bool settled = HasSettled(before);
  const Hash hash = HashOfFile(path, without_last);
  if (settled && Identity(StatusOf(path)) == identity) Write(note, identity, hash);
  return hash;
}

std::optional<Hash> HashMemory::Recall(const std::filesystem::path& file,
                                       int64_t without_last) const {
  const std::filesystem::path path = std::filesystem::absolute(file);
  return ReadNote(NoteOf(path, without_last), Identity(StatusOf(path)));
}

void HashMemory::Remember(const std::filesystem::path& file, const Hash& hash,
                          int64_t without_last) const {
  const std::filesystem::path path = std::filesystem::absolute(file);
  const std::string identity = Identity(StatusOf(path));
  std::this_thread::sleep_for(std::chrono::nanoseconds(kSettled + kSettled / 10));
  const struct stat now = StatusOf(path);
  if (HasSettled(now) && Identity(now) == identity) {
    Write(NoteOf(path, without_last), identity, hash);
  }
}

}  // namespace bakestone
