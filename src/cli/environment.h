// What a verb takes from outside its command line: the environment (read here and nowhere below),
// and what follows from it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "kernels/kernel_table.h"
#include "model/model.h"
#include "model/sequence_state.h"

namespace bakestone::cli {

// $BAKESTONE_HOME, or ~/.local/share/bakestone: models, packed weights, caches.
std::filesystem::path HomeFolder();

// --threads if given, else $BAKESTONE_THREADS, else the cores this process may use.
int NumThreads(std::optional<int64_t> flag);

// Of --kv-type; a name that serving does not know is a wrong command line (UsageError) of that
// verb.
KvType KvTypeOf(const std::string& verb, const std::string& name);

// The fastest kernel table of this machine, lowered by $BAKESTONE_ISA.
const KernelTable& Kernels();

// How a model is loaded: its packed weights are kept in the home folder, where those of all models
// take up to $BAKESTONE_PACK_CACHE gigabytes (default 32; 0: none are kept). no_pack_cache: pack in
// memory.
LoadOptions Loading(bool no_pack_cache);

// A model argument: a path, or the name of a model in the home folder ("smollm2-135m-instruct").
// Throws kNotFound saying what was looked for where, and what is there.
std::filesystem::path ResolveModel(const std::string& argument);

// How the user called this program: its path, or its name where that is in PATH.
std::string ProgramName();

// True where stderr is a terminal: progress bars; else plain lines.
bool StderrIsTerminal();

}  // namespace bakestone::cli
