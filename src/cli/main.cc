// bakestone: picks the verb and turns what it throws into one line on stderr and an exit code.
#include <errno.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include <fmt/core.h>

#include "base/error.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "cli/version.h"
#include "grammar/grammar.h"

namespace bakestone::cli {
namespace {

constexpr Verb kVerbs[] = {
    {"run", "chat with a model in the terminal", Run},
    {"serve", "answer over HTTP as OpenAI's API does", Serve},
    {"bake", "the whole road from one recipe: check, train, measure, export, serve", Bake},
    {"train", "the training stages of a recipe", Train},
    {"data", "what a data file holds, and what of it is learned", Data},
    {"eval", "measure a model on texts and questions", Eval},
    {"embed", "texts as vectors", Embed},
    {"score", "texts by a reranker or a classifier", Score},
    {"export", "models and adapters in the format that the next tool wants", Export},
    {"merge", "adapters into their base, or models into one", Merge},
    {"quantize", "a model in fewer bits, and what that cost", Quantize},
    {"show", "what a model file is", Show},
    {"tokenize", "text to token ids and back", Tokenize},
    {"template", "render a chat template", Template},
    {"bench", "how fast a model computes and starts, against the machine's limits", Bench},
    {"doctor", "what this machine can run, and how fast", Doctor},
};

std::string Overview() {
  std::string text =
      "bakestone: own a language model: adapt it, measure it, keep it the same, serve it.\n\n"
      "Usage: bakestone VERB [ARGUMENTS]\n\nVerbs:\n";
  for (const Verb& verb : kVerbs) text += fmt::format("  {:<10} {}\n", verb.name, verb.summary);
  text +=
      "\n'bakestone VERB --help' explains a verb and ends with an example.\n"
      "Environment: BAKESTONE_HOME (models and caches), BAKESTONE_THREADS, BAKESTONE_ISA,\n"
      "BAKESTONE_PACK_CACHE (gigabytes of packed weights to keep).\n";
  return text;
}

int Dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw UsageError("expected a verb; see 'bakestone --help'");
  const std::string& name = arguments[0];
  if (name == "--help" || name == "-h" || (name == "help" && arguments.size() == 1)) {
    throw HelpRequested(Overview());
  }
  if (name == "help" || name == "--version") {
    const size_t most = name == "help" ? 2 : 1;
    if (arguments.size() > most) {
      throw UsageError(fmt::format("{}: expected nothing more, found '{}'", name, arguments[most]));
    }
  }
  if (name == "help") return Dispatch({arguments[1], "--help"});
  if (name == "--version") {
    fmt::print("bakestone {}\n", kVersion);
    return 0;
  }
  // Not for people: what a server runs beside itself.
  if (name == kGrammarHelperVerb) return RunGrammarHelper(STDIN_FILENO);
  for (const Verb& verb : kVerbs) {
    if (name == verb.name) {
      return verb.run(Arguments(arguments.begin() + 1, arguments.end()));
    }
  }
  throw UsageError(fmt::format("unknown verb '{}'; see 'bakestone --help'", name));
}

// What was printed is there, or the verb failed: a full disk must not look like success.
int Flushed(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  Throw(ErrorCode::kIo, "cannot write the results to standard output: {}; they are not complete",
        std::strerror(errno));
}

int Main(int argc, char** argv) {
  try {
    return Flushed(Dispatch(std::vector<std::string>(argv + 1, argv + argc)));
  } catch (const HelpRequested& help) {
    fmt::print("{}", help.what());
    return 0;
  } catch (const UsageError& error) {
    fmt::print(stderr, "bakestone: {}\n", error.what());
    return 2;
  } catch (const Error& error) {
    fmt::print(stderr, "bakestone: {}\n", error.what());
    return 1;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "bakestone: out of memory: close other programs or use a smaller model\n");
    return 1;
  } catch (const std::system_error& error) {  // of a file or of standard output, with its name
    fmt::print(stderr, "bakestone: {}\n", error.what());
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bakestone: unexpected error: {}; please report it\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace bakestone::cli

int main(int argc, char** argv) { return bakestone::cli::Main(argc, argv); }
