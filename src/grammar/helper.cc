#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/bounded_mask.h"
#include "grammar/calls.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "grammar/library.h"
#include "grammar/wire.h"

namespace bakestone {
namespace grammar {
namespace {

constexpr size_t kMaxSetUpBytes = size_t{256} << 20;
constexpr size_t kMaxRequestBytes = size_t{64} << 20;

void Limit(int resource, rlim_t value) {
  rlimit limit{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  limit.rlim_cur = std::min(value, limit.rlim_max);
  ::setrlimit(static_cast<__rlimit_resource>(resource), &limit);
}

void LimitProcess(const SetUp& set_up) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::setpriority(PRIO_PROCESS, 0, 10);  // answers that are being written come first
  Limit(RLIMIT_CORE, 0);
  Limit(RLIMIT_FSIZE, rlim_t{1} << 20);
#ifndef BAKESTONE_SANITIZED  // whose shadow is larger than any limit
  Limit(RLIMIT_AS, static_cast<rlim_t>(set_up.memory_bytes));
#else
  (void)set_up;
#endif
}

// From now on this process may use so much more of a CPU before it is ended.
void LimitTime(int64_t cpu_seconds) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const int64_t microseconds = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 +
                               usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  Limit(RLIMIT_CPU, static_cast<rlim_t>(microseconds / 1'000'000 + 1 + cpu_seconds));
}

// What is written to standard error, which is where the library tells what it leaves out.
class StandardError {
 public:
  StandardError() : file_(::memfd_create("grammar-warnings", MFD_CLOEXEC)) {
    if (file_ < 0 || ::dup2(file_, STDERR_FILENO) < 0) {
      Throw(ErrorCode::kIo, "the grammar helper cannot read its own warnings");
    }
  }
  std::string Take() {
    struct stat status{};
    ::fstat(file_, &status);
    std::string text(static_cast<size_t>(std::min<off_t>(status.st_size, 400)), '\0');
    const ssize_t got = ::pread(file_, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    if (::ftruncate(file_, 0) != 0 || ::lseek(file_, 0, SEEK_SET) != 0) {
      Throw(ErrorCode::kIo, "the grammar helper cannot read its own warnings");
    }
    return text;
  }

 private:
  const int file_;
};

std::string EbnfOf(GrammarSource::Kind kind, const std::string& text) {
  using Kind = GrammarSource::Kind;
  switch (kind) {
    case Kind::kJsonObject:
      return AnyJsonObject();
    case Kind::kJsonSchema:
      return FromJsonSchema(nlohmann::ordered_json::parse(text));
    case Kind::kRegex:
      return WholeRegex(text);
    case Kind::kChoice:
      return AnyOfTexts(nlohmann::json::parse(text).get<std::vector<std::string>>());
    case Kind::kCalls:
      return FromCalls(text);
    case Kind::kEbnf:
      if (text.find('\0') != std::string::npos) {
        Throw(ErrorCode::kInvalidArgument, "a grammar has no NUL bytes");
      }
      return text;
  }
  Throw(ErrorCode::kInternal, "unknown kind of grammar");
}

std::string Reply(const std::string& request, LibraryCompiler& compiler, StandardError& warnings) {
  try {
    if (request.empty()) Throw(ErrorCode::kInternal, "an empty request");
    warnings.Take();
    const auto kind = static_cast<GrammarSource::Kind>(request[0]);
    const std::string ebnf = EbnfOf(kind, request.substr(1));
    const bool ours = kind != GrammarSource::Kind::kEbnf;  // a user's rules may have any name
    const std::string compiled = compiler.Compile(ebnf, ours ? WithoutCounts(ebnf) : ebnf);
    const std::string warning = warnings.Take();
    if (!warning.empty()) return "ethe grammar library would leave something out: " + warning;
    return "k" + compiled;
  } catch (const std::bad_alloc&) {
    return "ecompiling it takes more memory than is allowed";
  } catch (const std::exception& error) {
    return std::string("e") + error.what();
  }
}

}  // namespace
}  // namespace grammar

int RunGrammarHelper(int socket) {
  std::string bytes;
  if (!grammar::ReadFrame(socket, grammar::kMaxSetUpBytes, &bytes)) return 1;
  const grammar::SetUp set_up = grammar::UnpackSetUp(bytes);
  grammar::LimitProcess(set_up);
  grammar::StandardError warnings;
  const auto compiler = grammar::MakeLibraryCompiler(set_up.vocabulary);
  while (grammar::ReadFrame(socket, grammar::kMaxRequestBytes, &bytes)) {
    grammar::LimitTime(set_up.cpu_seconds);
    if (!grammar::WriteFrame(socket, grammar::Reply(bytes, *compiler, warnings))) return 1;
  }
  return 0;
}

}  // namespace bakestone
