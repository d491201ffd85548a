// What a server and its grammar helper say to each other over a socket: frames of
//
//   size u64 (little endian), then so many bytes
//
// The first frame is the set-up, each later one a request, and each request has one reply:
//
//   set-up:  cpu_seconds u64, memory_bytes u64, number of tokens u32, then each token: size u32,
//            bytes; number of tokens that end an answer u32, then each id u32
//   request: a letter (GrammarSource::Kind), the source
//   reply:   'k' and the compiled grammar, or 'e' and why there is none
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone::grammar {

struct Vocabulary {
  std::vector<std::string> tokens;  // bytes; empty: never legal
  std::vector<int32_t> endings;
};
struct SetUp {
  int64_t cpu_seconds = 0, memory_bytes = 0;
  Vocabulary vocabulary;
};

std::string PackSetUp(const SetUp& set_up);
SetUp UnpackSetUp(std::string_view bytes);  // throws kCorrupt

// False where the other end is gone. EINTR is waited out; no SIGPIPE.
bool ReadExactly(int fd, void* to, size_t size);
bool WriteExactly(int fd, std::string_view bytes);
// Throws kCorrupt for one larger than most.
bool ReadFrame(int fd, size_t most, std::string* bytes);
bool WriteFrame(int fd, std::string_view bytes);

}  // namespace bakestone::grammar
