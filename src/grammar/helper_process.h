// The other end of grammar/helper.cc: a child process that compiles, and is ended where it takes
// too long. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

#include "grammar/wire.h"

namespace bakestone::grammar {

class HelperProcess {
 public:
  // Starts it and hands the vocabulary over. Throws kIo.
  HelperProcess(const std::vector<std::string>& command, const SetUp& set_up);
  ~HelperProcess();  // ends it
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;

  // The compiled grammar. Throws kInvalidArgument, saying why there is none; where usable() is
  // false afterwards, the process has ended over it.
  std::string Compile(const std::string& request, size_t max_bytes, std::chrono::seconds deadline);
  bool usable() const { return pid_ > 0; }

 private:
  bool WaitReadable(std::chrono::steady_clock::time_point until) const;
  int End();  // the status of waitpid

  pid_t pid_ = -1;
  int socket_ = -1;
};

}  // namespace bakestone::grammar
