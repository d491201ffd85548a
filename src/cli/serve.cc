// bakestone serve MODEL...: the server, until Ctrl-C or SIGTERM.
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <fmt/core.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/quote.h"
#include "cli/environment.h"
#include "cli/flags.h"
#include "cli/line_writer.h"
#include "cli/load_flags.h"
#include "cli/signals.h"
#include "cli/speculation_flags.h"
#include "cli/verbs.h"
#include "model/load_adapter.h"
#include "server/http/keys.h"
#include "server/server.h"

namespace bakestone::cli {
namespace {

struct Options {
  std::vector<std::string> models, embeddings, adapters;
  std::string host = "127.0.0.1";
  int64_t port = 8080;
  std::optional<std::string> adapter_folder, key_file, tls_certificate, tls_key, default_model;
  std::vector<std::string> allowed_hosts, allowed_origins;
  bool allow_anyone = false, log_requests = false;
  std::optional<int64_t> threads;
  KvType kv_type = KvType::kBf16;
  int64_t kv_megabytes = 512, adapter_megabytes = 1024, max_context = 0, max_running = 32,
          default_max_tokens = 2048, max_queue = 256, drain_seconds = 30;
  double inter_token = 0, max_seconds = 0;
  SpeculationFlags speculation;
  LoadFlags load;
  LoadOptions loading;  // as they say
  bool no_prefix_cache = false;
};

Options Parse(const Arguments& arguments) {
  Options options;
  std::string kv_type = KvTypeName(options.kv_type);
  Flags flags("serve",
              "Serve models to clients of OpenAI's, Anthropic's and Ollama's APIs "
              "(docs/server.md). Its address "
              "goes to stdout once it listens. SIGTERM or Ctrl-C lets admitted answers finish.",
              "bakestone serve smollm2-135m-instruct --adapter handbook=out/adapter.gguf "
              "--embeddings ./all-MiniLM-L6-v2");
  flags.PositionalList("MODEL", &options.models,
                       "GGUF files, Hugging Face folders, or names of those in the home folder; "
                       "encoders are served for embeddings");
  flags.AddConfig("--config",
                  "TOML file with these flags as keys (port = 8080, model = [\"smollm2\"]); what "
                  "the command line says counts");
  flags.Add("--embeddings", &options.embeddings,
            "MODEL or NAME=MODEL: serve this model for embeddings, an encoder or any other, under "
            "its file's name or NAME");
  flags.Add("--adapter", &options.adapters,
            "NAME=PATH: serve the first model that writes with this adapter under NAME");
  flags.Add("--adapter-folder", &options.adapter_folder,
            "Serve the adapters in it (NAME.gguf, PEFT folders) with the first model, and watch "
            "it: what comes, changes or goes there does so here");
  flags.Add("--adapter-memory", &options.adapter_megabytes, 1, int64_t{1} << 24,
            "Megabytes for adapters; those unused for longest make room, and are read again when "
            "asked for");
  flags.Add("--host", &options.host,
            "Address to listen on; beyond loopback only with --api-key-file or --allow-anyone");
  flags.Add("--port", &options.port, 0, 65535, "Port to listen on; 0: any free one");
  flags.Add("--api-key-file", &options.key_file,
            "Clients must show one of its keys, one a line: the key or sha256:HEX, then words like "
            "name=team max-requests=4 (docs/server.md); read again when it changes");
  flags.Add("--allow-anyone", &options.allow_anyone,
            "Listen beyond loopback without keys: whoever reaches the address may use it");
  flags.Add("--tls-certificate", &options.tls_certificate,
            "PEM file with the certificate and its chain: serve https");
  flags.Add("--tls-key", &options.tls_key, "PEM file with its private key");
  flags.Add("--allowed-origin", &options.allowed_origins,
            "An origin (https://page.example) whose pages browsers may let ask; '*': all");
  flags.Add("--default-model", &options.default_model,
            "Answers requests for models that are not served, from clients that insist on a name");
  flags.Add("--log-requests", &options.log_requests,
            "A line of JSON on stderr for every answer, without what was said");
  flags.Add("--allowed-host", &options.allowed_hosts,
            "A Host name to answer to, beyond localhost and IP addresses");
  flags.Add("--threads", &options.threads, 1, 1024,
            "Threads to compute with, of each model; else one for each core that this process may "
            "use");
  flags.Add("--kv-memory", &options.kv_megabytes, 1, int64_t{1} << 24,
            "Megabytes for keys and values, in equal shares for the models that write");
  flags.Add("--kv-type", &kv_type,
            "Keep keys and values as bf16, f16 or q8_0 (9/16 of the memory)");
  flags.Add("--max-context", &options.max_context, 0, int64_t{1} << 24,
            "Tokens of prompt and answer, or of a text to embed; 0: what the model allows, of a "
            "text up to 8192");
  flags.Add("--default-max-tokens", &options.default_max_tokens, 1, int64_t{1} << 24,
            "Longest answer of a request that does not say; memory is set aside for it");
  flags.Add("--max-running", &options.max_running, 1, 256,
            "Requests computed together, of each model");
  flags.Add("--max-queue", &options.max_queue, 1, 100'000,
            "Requests that may wait for each model; more get 429");
  flags.Add("--inter-token-target", &options.inter_token, 0, 60,
            "Seconds between tokens while prompts are read beside them; 0: twice what answers "
            "alone take");
  flags.Add("--max-request-seconds", &options.max_seconds, 0, 86'400,
            "From a request's arrival to its answer's end, then an error; 0: no limit");
  flags.Add("--drain-seconds", &options.drain_seconds, 0, 3600,
            "How long admitted answers may take at the end");
  AddLoadFlags(flags, &options.load);
  flags.Add("--no-prefix-cache", &options.no_prefix_cache, "Compute every prompt anew");
  AddSpeculationFlags(flags, &options.speculation);
  flags.Parse(arguments);
  options.kv_type = KvTypeOf("serve", kv_type);
  options.loading = Loading("serve", options.load);
  if (options.tls_certificate.has_value() != options.tls_key.has_value()) {
    throw UsageError("serve: expected --tls-certificate and --tls-key together, found one of them");
  }
  if (options.models.empty() && options.embeddings.empty()) {
    throw UsageError("serve: expected at least one MODEL; see 'bakestone serve --help'");
  }
  return options;
}

// The file's lines as http/keys.h reads them, checked: a wrong one is told before a model is
// loaded.
std::vector<std::string> ReadKeys(const std::string& path) {
  std::vector<std::string> lines;
  const std::string text = ReadFile(path, 1 << 20);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    lines.push_back(std::move(line));
    begin = end + 1;
  }
  if (http::KeyRing(lines).empty()) {
    Throw(ErrorCode::kInvalidArgument, "{}: expected one API key a line, found none", path);
  }
  return lines;
}

// "NAME=WHAT", taken apart at the first '='; without a name all of it is what.
struct NamedArgument {
  std::string name, what;
};

NamedArgument SplitName(const std::string& argument) {
  const size_t equals = argument.find('=');
  const bool named = equals != std::string::npos && equals > 0;
  return named ? NamedArgument{argument.substr(0, equals), argument.substr(equals + 1)}
               : NamedArgument{"", argument};
}

// What a model is called that nobody gave a name: a file's without its ending, a folder's whole.
std::string NameOf(const std::filesystem::path& path) {
  const std::filesystem::path plain = path.has_filename() ? path : path.parent_path();
  return std::filesystem::is_directory(path) ? plain.filename().string() : plain.stem().string();
}

// Models with their threads, which must live as long as they do.
struct Loaded {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  std::vector<ServedModel> served;
};

struct LoadedModel {
  std::string name;
  std::shared_ptr<const Model> model;
  ThreadPool* pool = nullptr;
  bool embeds = false;
};

LoadedModel LoadOne(const Options& options, const NamedArgument& argument, bool embeds,
                    Loaded& loaded) {
  const std::filesystem::path path = ResolveModel(argument.what);
  loaded.pools.push_back(std::make_unique<ThreadPool>(NumThreads(options.threads)));
  LoadedModel one{.name = argument.name.empty() ? NameOf(path) : argument.name,
                  .pool = loaded.pools.back().get()};
  one.model = Model::Load(path, Kernels(), *one.pool, options.loading);
  one.embeds = embeds || one.model->config.encoder.both_ways;
  return one;
}

std::shared_ptr<Engine> MakeEngine(const Options& options, const LoadedModel& one,
                                   int64_t kv_bytes) {
  EngineOptions engine;
  engine.kv_bytes = kv_bytes;
  engine.kv_type = options.kv_type;
  engine.prefix_cache = !options.no_prefix_cache;
  engine.max_context = options.max_context;
  engine.default_max_tokens = options.default_max_tokens;
  engine.max_running = options.max_running;
  engine.max_queued_requests = options.max_queue;
  engine.probe = true;
  engine.target_step_seconds = options.inter_token;
  engine.max_request_seconds = options.max_seconds;
  engine.speculation =
      MakeSpeculation(options.speculation, *one.pool, Loading(options.load.no_pack_cache));
  auto started = std::make_shared<Engine>(one.model, Kernels(), *one.pool, engine);
  LogInfo(
      "{}: {} tokens of context, {} threads; a step of 1 answer takes {:.1f} ms, of {} {:.1f} ms, "
      "and {} where prompts are read beside them",
      one.name, started->max_context(), one.pool->num_threads(),
      started->ProbedStepSeconds(1) * 1e3, options.max_running,
      started->ProbedStepSeconds(options.max_running) * 1e3,
      options.inter_token > 0 ? fmt::format("{:g} ms", options.inter_token * 1e3)
                              : "up to twice as long");
  if (options.max_context > started->max_context()) {
    LogWarning(
        "{}: {} tokens of context instead of {} (--max-context): the model ({}) or --kv-memory "
        "allow no more",
        one.name, started->max_context(), options.max_context, one.model->config.context_length);
  }
  return started;
}

std::shared_ptr<EmbeddingLoop> MakeEmbedder(const Options& options, const LoadedModel& one) {
  EmbeddingLoopOptions loop{.max_requests = options.max_queue,
                            .max_request_seconds = options.max_seconds};
  if (options.max_context > 0) loop.max_context = options.max_context;
  auto started = std::make_shared<EmbeddingLoop>(one.model, Kernels(), *one.pool, loop);
  LogInfo("{}: embeddings of {} dimensions, {} tokens of context, {} threads", one.name,
          one.model->config.hidden_dim, started->max_context(), one.pool->num_threads());
  return started;
}

void CheckAdapterNames(const Options& options) {
  for (const std::string& argument : options.adapters) {
    const NamedArgument adapter = SplitName(argument);
    if (adapter.name.empty()) {
      throw UsageError(fmt::format("serve: --adapter: expected NAME=PATH, found '{}'", argument));
    }
    if (!std::filesystem::exists(adapter.what)) {
      Throw(ErrorCode::kNotFound,
            "serve: --adapter: {}: expected a GGUF adapter or a PEFT folder, "
            "found nothing there",
            adapter.what);
    }
  }
}

void AddAdapters(const Options& options, std::vector<ServedModel>& served) {
  if (options.adapters.empty() && !options.adapter_folder) return;
  const auto first = std::find_if(served.begin(), served.end(),
                                  [](const ServedModel& model) { return model.engine != nullptr; });
  if (first == served.end()) {
    throw UsageError(
        "serve: --adapter, --adapter-folder: expected a MODEL that writes, found none");
  }
  const ServedModel base = *first;
  for (const std::string& argument : options.adapters) {
    const NamedArgument adapter = SplitName(argument);
    served.push_back({adapter.name, base.engine, LoadAdapter(adapter.what, base.engine->model()),
                      base.id, std::filesystem::absolute(adapter.what)});
  }
}

Loaded Load(const Options& options) {
  Loaded loaded;
  std::vector<LoadedModel> models;
  for (const std::string& argument : options.models) {
    models.push_back(LoadOne(options, {"", argument}, false, loaded));
  }
  for (const std::string& argument : options.embeddings) {
    const bool is_path = std::filesystem::exists(argument);  // which may have a '=' of its own
    models.push_back(LoadOne(options, is_path ? NamedArgument{"", argument} : SplitName(argument),
                             true, loaded));
  }
  const auto writing = std::count_if(models.begin(), models.end(),
                                     [](const LoadedModel& one) { return !one.embeds; });
  for (const LoadedModel& one : models) {
    ServedModel served{.id = one.name};
    if (one.embeds) {
      served.embedder = MakeEmbedder(options, one);
    } else {
      served.engine = MakeEngine(options, one, (options.kv_megabytes << 20) / writing);
    }
    loaded.served.push_back(std::move(served));
  }
  AddAdapters(options, loaded.served);
  return loaded;
}

// The socket that systemd opened for us, or -1.
int InheritedSocket() {
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (!pid || !count || std::to_string(::getpid()) != pid) return -1;
  constexpr int kFirst = 3;
  if (std::string_view(count) != "1") {
    Throw(ErrorCode::kInvalidArgument, "LISTEN_FDS: expected one socket, found {}", Quote(count));
  }
  return kFirst;
}

// Reads the keys again when their file changed. What cannot be read changes nothing.
class KeyWatch {
 public:
  explicit KeyWatch(const std::string& path) : path_(path), seen_(Stamp()) {}
  void Look(Server& server) {
    const auto now = Stamp();
    if (now == seen_) return;
    seen_ = now;
    try {
      server.SetKeys(ReadKeys(path_));
      LogInfo("{}: read again", path_);
    } catch (const Error& error) {
      LogWarning("the keys stay as they were: {}", error.what());
    }
  }

 private:
  std::array<int64_t, 4> Stamp() const {
    struct stat status{};
    if (::stat(path_.c_str(), &status) != 0) return {};
    return {static_cast<int64_t>(status.st_ino), status.st_size, status.st_mtim.tv_sec,
            status.st_mtim.tv_nsec};
  }
  const std::string path_;
  std::array<int64_t, 4> seen_;
};

// A connection is a file descriptor: take as many as the system allows without asking.
void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int Serve(const Arguments& arguments) {
  const Options options = Parse(arguments);
  ServerOptions server_options;
  server_options.address = options.host;
  server_options.port = static_cast<uint16_t>(options.port);
  server_options.allowed_hosts = options.allowed_hosts;
  std::optional<KeyWatch> watch;
  if (options.key_file) {
    watch.emplace(*options.key_file);
    server_options.api_keys = ReadKeys(*options.key_file);
  }
  server_options.listen_fd = InheritedSocket();
  server_options.allow_anyone = options.allow_anyone;
  server_options.tls_certificate = options.tls_certificate.value_or("");
  server_options.tls_key = options.tls_key.value_or("");
  server_options.allowed_origins = options.allowed_origins;
  if (options.adapter_folder) {
    server_options.adapter_folder = std::filesystem::absolute(*options.adapter_folder);
  }
  server_options.adapter_bytes = options.adapter_megabytes << 20;
  server_options.default_model = options.default_model.value_or("");
  server_options.grammar_helper = {"/proc/self/exe", kGrammarHelperVerb};
  std::optional<LineWriter>
      request_log;  // answers end on the engine's thread, which must not wait for a terminal
  if (options.log_requests) {
    request_log.emplace(STDERR_FILENO);
    server_options.on_request = [&](const std::string& line) { request_log->Write(line); };
  }
  CheckAdapterNames(options);
  Server::Check(server_options);  // not after minutes of loading
  CatchSignals();
  RaiseFileLimit();
  Loaded loaded = Load(options);
  for (const ServedModel& model : loaded.served) {
    LogInfo("serving {}{}", model.id,
            model.adapter    ? " (adapter)"
            : model.embedder ? " (embeddings)"
                             : "");
  }
  Server server(server_options, loaded.served);
  fmt::print("{}\n", server.url());
  std::fflush(stdout);
  LogInfo("listening on {}; Ctrl-C stops", server.url());
  WaitForStop([&] {
    if (watch) watch->Look(server);
    server.WatchAdapters();
  });
  LogInfo("stopping: no new requests; admitted answers have {} s", options.drain_seconds);
  const bool all = server.Stop(std::chrono::seconds(options.drain_seconds));
  if (!all) LogWarning("some answers were cut with an error");
  return 0;
}

}  // namespace bakestone::cli
