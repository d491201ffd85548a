#include "grammar/wire.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace bakestone::grammar {
namespace {

template <class T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}
  template <class T>
  T Take() {
    T value;
    std::memcpy(&value, TakeBytes(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view TakeBytes(size_t size) {
    if (size > bytes_.size()) {
      Throw(ErrorCode::kCorrupt, "the grammar helper's set-up is cut short");
    }
    const std::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }

 private:
  std::string_view bytes_;
};

}  // namespace

std::string PackSetUp(const SetUp& set_up) {
  std::string bytes;
  Put(static_cast<uint64_t>(set_up.cpu_seconds), &bytes);
  Put(static_cast<uint64_t>(set_up.memory_bytes), &bytes);
  Put(static_cast<uint32_t>(set_up.vocabulary.tokens.size()), &bytes);
  for (const std::string& token : set_up.vocabulary.tokens) {
    Put(static_cast<uint32_t>(token.size()), &bytes);
    bytes += token;
  }
  Put(static_cast<uint32_t>(set_up.vocabulary.endings.size()), &bytes);
  for (const int32_t id : set_up.vocabulary.endings) Put(static_cast<uint32_t>(id), &bytes);
  return bytes;
}

SetUp UnpackSetUp(std::string_view bytes) {
  Unpacker in(bytes);
  SetUp set_up;
  set_up.cpu_seconds = static_cast<int64_t>(in.Take<uint64_t>());
  set_up.memory_bytes = static_cast<int64_t>(in.Take<uint64_t>());
  for (uint32_t left = in.Take<uint32_t>(); left > 0; --left) {
    set_up.vocabulary.tokens.emplace_back(in.TakeBytes(in.Take<uint32_t>()));
  }
  for (uint32_t left = in.Take<uint32_t>(); left > 0; --left) {
    set_up.vocabulary.endings.push_back(static_cast<int32_t>(in.Take<uint32_t>()));
  }
  return set_up;
}

bool ReadExactly(int fd, void* to, size_t size) {
  auto* at = static_cast<char*>(to);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteExactly(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

bool ReadFrame(int fd, size_t most, std::string* bytes) {
  uint64_t size = 0;
  if (!ReadExactly(fd, &size, sizeof(size))) return false;
  if (size > most) {
    Throw(ErrorCode::kCorrupt, "a message of {} bytes; at most {} are read", size, most);
  }
  bytes->resize(size);
  return ReadExactly(fd, bytes->data(), size);
}

bool WriteFrame(int fd, std::string_view bytes) {
  const uint64_t size = bytes.size();
  return WriteExactly(fd, {reinterpret_cast<const char*>(&size), sizeof(size)}) &&
         WriteExactly(fd, bytes);
}

}  // namespace bakestone::grammar
