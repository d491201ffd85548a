#include "grammar/grammar.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "grammar/calls.h"
#include "grammar/helper_process.h"
#include "grammar/library.h"

namespace bakestone {
namespace {

using grammar::HelperProcess;

grammar::Vocabulary VocabularyOf(const Tokenizer& tokenizer) {
  grammar::Vocabulary vocabulary;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const TokenType type = tokenizer.Type(id);
    const bool text =
        !tokenizer.IsControl(id) && type != TokenType::kUnused && type != TokenType::kUnknown;
    vocabulary.tokens.emplace_back(text ? tokenizer.TokenBytes(id) : std::string_view());
  }
  const auto endings = tokenizer.EndOfGeneration();
  vocabulary.endings.assign(endings.begin(), endings.end());
  return vocabulary;
}

struct Outcome {
  std::shared_ptr<const Constraint> constraint;  // null: refused
  std::string refusal;
  size_t bytes = 0;
};

// What was asked before, the latest first.
class Cache {
 public:
  explicit Cache(size_t most) : most_(most) {}
  const Outcome* Find(const std::string& key) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return &entries_.front().second;
  }
  void Put(const std::string& key, Outcome outcome) {
    if (by_key_.contains(key)) return;
    bytes_ += outcome.bytes;
    entries_.emplace_front(key, std::move(outcome));
    by_key_[key] = entries_.begin();
    while (bytes_ > most_ && entries_.size() > 1) {
      bytes_ -= entries_.back().second.bytes;
      by_key_.erase(entries_.back().first);
      entries_.pop_back();
    }
  }

 private:
  using Entries = std::list<std::pair<std::string, Outcome>>;
  const size_t most_;
  Entries entries_;
  std::map<std::string, Entries::iterator> by_key_;
  size_t bytes_ = 0;
};

}  // namespace

bool GrammarsAreBuilt() { return grammar::LibraryIsBuilt(); }

struct Grammars::Impl {
  struct Job {
    std::string key;
    Result result;
  };

  Impl(const Tokenizer& tokenizer_in, GrammarOptions options_in)
      : tokenizer(tokenizer_in), options(std::move(options_in)), cache(options.cache_bytes) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    if (thread.joinable()) thread.join();
  }

  void Submit(std::string key, Result result);
  void Loop();
  Outcome Compile(const std::string& key);
  static void Tell(const Result& result, const Outcome& outcome);

  const Tokenizer& tokenizer;
  const GrammarOptions options;
  std::optional<grammar::SetUp> set_up;  // the thread's, like what follows
  std::unique_ptr<const grammar::LibraryLoader> loader;
  std::unique_ptr<HelperProcess> helper;

  std::mutex mutex;
  std::condition_variable wake;
  Cache cache;
  std::deque<Job> jobs;
  bool stopping = false;
  std::thread thread;  // begun with the first job
};

void Grammars::Impl::Tell(const Result& result, const Outcome& outcome) {
  if (outcome.constraint) return result(outcome.constraint, nullptr);
  // Its own statement: the error that is copied, and shares the copy's words, is gone before
  // anybody reads them.
  std::exception_ptr refusal =
      std::make_exception_ptr(Error(ErrorCode::kInvalidArgument, outcome.refusal));
  result(nullptr, std::move(refusal));
}

void Grammars::Impl::Submit(std::string key, Result result) {
  std::unique_lock lock(mutex);
  if (const Outcome* known = cache.Find(key)) {
    const Outcome outcome = *known;
    lock.unlock();
    return Tell(result, outcome);
  }
  if (jobs.size() >= options.max_waiting) {
    lock.unlock();
    return result(nullptr, std::make_exception_ptr(Error(
                               ErrorCode::kUnavailable,
                               "too many grammars are waiting to be compiled; try again later")));
  }
  jobs.push_back({std::move(key), std::move(result)});
  if (!thread.joinable()) thread = std::thread([this] { Loop(); });
  lock.unlock();
  wake.notify_one();
}

Outcome Grammars::Impl::Compile(const std::string& key) {
  if (!set_up) {
    set_up = grammar::SetUp{options.cpu_seconds, options.memory_bytes, VocabularyOf(tokenizer)};
  }
  if (!loader) loader = grammar::MakeLibraryLoader(set_up->vocabulary);
  if (!helper) helper = std::make_unique<HelperProcess>(options.helper, *set_up);
  Outcome outcome;
  try {
    constexpr int64_t kSlowest = 10;  // how much longer it may take than the CPU time it uses
    const std::string compiled = helper->Compile(
        key, options.max_compiled_bytes, std::chrono::seconds(options.cpu_seconds * kSlowest));
    const bool calls = key[0] == static_cast<char>(GrammarSource::Kind::kCalls);
    outcome.constraint = loader->Load(
        compiled, calls ? grammar::MarkersOfCalls(key.substr(1)) : std::vector<int32_t>(),
        &outcome.bytes);
  } catch (const Error& error) {
    if (!helper->usable()) helper.reset();
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    outcome.refusal = error.what();
  }
  outcome.bytes += key.size() + outcome.refusal.size() + sizeof(Outcome);
  return outcome;
}

void Grammars::Impl::Loop() {
  std::unique_lock lock(mutex);
  while (true) {
    const auto ready = [&] { return stopping || !jobs.empty(); };
    if (!wake.wait_for(lock, options.helper_idle, ready)) {
      helper.reset();
      wake.wait(lock, ready);
    }
    if (stopping) break;
    const Job job = std::move(jobs.front());
    jobs.pop_front();
    const Outcome* known = cache.Find(job.key);
    std::optional<Outcome> outcome = known ? std::optional(*known) : std::nullopt;
    lock.unlock();
    std::exception_ptr failure;  // handed over whole: who asked has the only reference
    try {
      if (!outcome) outcome = Compile(job.key);
    } catch (const std::exception& error) {
      LogError("a grammar could not be compiled: {}", error.what());
      failure = std::current_exception();
    }
    if (outcome) {
      Tell(job.result, *outcome);
    } else {
      job.result(nullptr, std::move(failure));
    }
    lock.lock();
    if (outcome) cache.Put(job.key, std::move(*outcome));
  }
  lock.unlock();
  for (const Job& job : jobs) {
    job.result(nullptr, std::make_exception_ptr(
                            Error(ErrorCode::kUnavailable, "the server is shutting down")));
  }
}

Grammars::Grammars(const Tokenizer& tokenizer, GrammarOptions options)
    : impl_(std::make_unique<Impl>(tokenizer, std::move(options))) {}
Grammars::~Grammars() = default;

void Grammars::Compile(GrammarSource source, Result result) {
  const auto refuse = [&](ErrorCode code, std::string why) {
    result(nullptr, std::make_exception_ptr(Error(code, std::move(why))));
  };
  if (!grammar::LibraryIsBuilt() || impl_->options.helper.empty()) {
    return refuse(ErrorCode::kUnsupported,
                  "this program was built without xgrammar, which answers of a given form need: "
                  "run tools/get_xgrammar.sh and build again");
  }
  if (source.text.size() > impl_->options.max_source_bytes) {
    return refuse(ErrorCode::kInvalidArgument,
                  fmt::format("it has {} bytes; at most {} are taken", source.text.size(),
                              impl_->options.max_source_bytes));
  }
  impl_->Submit(static_cast<char>(source.kind) + source.text, std::move(result));
}

}  // namespace bakestone
