#include "server/metrics.h"

#include <algorithm>

#include <fmt/format.h>

namespace bakestone {
namespace {

std::string Label(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return escaped;
}

std::string Family(const char* name, const char* type, const char* help) {
  return fmt::format("# HELP bakestone_{} {}\n# TYPE bakestone_{} {}\n", name, help, name, type);
}

}  // namespace

void Metrics::Histogram::Add(double seconds) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  ++counts[static_cast<size_t>(bound - kBounds.begin())];
  sum += seconds;
}

std::string Metrics::Histogram::Text(const char* name, const char* help) const {
  std::string text = Family(name, "histogram", help);
  int64_t count = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    count += counts[i];
    const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds[i]) : "+Inf";
    text += fmt::format("bakestone_{}_bucket{{le=\"{}\"}} {}\n", name, bound, count);
  }
  return text + fmt::format("bakestone_{}_sum {}\nbakestone_{}_count {}\n", name, sum, name, count);
}

void Metrics::CountRequest(const std::string& route, int status, double seconds) {
  std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
  duration_.Add(seconds);
}

void Metrics::CountCost(const std::string& key, const http::Cost& cost) {
  std::lock_guard lock(mutex_);
  tokens_[{cost.model, key, "prompt"}] += cost.prompt_tokens;
  tokens_[{cost.model, key, "cached"}] += cost.cached_tokens;
  tokens_[{cost.model, key, "completion"}] += cost.completion_tokens;
  if (cost.first_token_seconds >= 0) first_token_.Add(cost.first_token_seconds);
  if (cost.seconds_per_token >= 0) per_token_.Add(cost.seconds_per_token);
}

std::string Metrics::TextOf(const api::AdapterStats& adapters) {
  const auto line = [](const char* name, const char* type, const char* help, int64_t value) {
    return Family(name, type, help) + fmt::format("bakestone_{} {}\n", name, value);
  };
  return line("adapters", "gauge", "Adapters that can be read again.", adapters.registered) +
         line("adapters_loaded", "gauge", "Of those, in memory.", adapters.loaded) +
         line("adapter_bytes", "gauge",
              "What they take there, with replaced ones that are still in use.", adapters.bytes) +
         line("adapter_loads_total", "counter", "Adapters read.", adapters.loads) +
         line("adapter_evictions_total", "counter", "Adapters that made room for others.",
              adapters.evictions);
}

std::string Metrics::Text(const api::ModelRegistry& models) const {
  std::string text;
  const auto line = [&](const char* name, const ServingLoop& loop,
                        auto value) {  // labelled by its first model
    text +=
        fmt::format("bakestone_{}{{engine=\"{}\"}} {}\n", name, Label(models.NameOf(loop)), value);
  };
  const auto of_loops = [&](const char* name, const char* type, const char* help, auto get) {
    text += Family(name, type, help);
    for (const auto& loop : models.loops()) line(name, *loop, get(loop->Load()));
  };
  const auto of_engines = [&](const char* name, const char* type, const char* help, auto get) {
    if (!models.engines().empty()) text += Family(name, type, help);
    for (const auto& engine : models.engines()) line(name, *engine, get(engine->Metrics()));
  };
  using L = const LoopMetrics&;
  using M = const EngineMetrics&;
  of_loops("running_requests", "gauge", "Requests that are being computed.",
           [](L m) { return m.running; });
  of_loops("waiting_requests", "gauge", "Requests in the queue.", [](L m) { return m.waiting; });
  of_loops("waiting_tokens", "gauge", "Prompt tokens in the queue.",
           [](L m) { return m.waiting_tokens; });
  of_engines("kv_pages", "gauge",
             "Pages that keys and values may take; each holds those of 32 tokens.",
             [](M m) { return m.pool.capacity_pages; });
  of_engines("kv_pages_used", "gauge", "Of those, what running requests and the prefix cache hold.",
             [](M m) { return m.pool.used_pages; });
  of_engines("kv_pages_cached", "gauge", "What the prefix cache holds; it makes room for requests.",
             [](M m) { return m.pool.cached_pages; });
  of_engines("kv_pages_allocated", "gauge",
             "Pages that have memory: used ones, and those that are kept for the next request.",
             [](M m) { return m.pool.allocated_pages; });
  of_engines("kv_pages_per_state", "gauge",
             "Pages that the states of layers without keys and values (recurrent ones) would fill, "
             "after a token; 0: there are no such layers.",
             [](M m) { return m.pool.pages_per_state; });
  of_engines("kv_states_allocated", "gauge",
             "Such states that have memory, the prefix cache's too.",
             [](M m) { return m.pool.allocated_states; });
  of_engines("kv_states_cached", "gauge", "Such states that the prefix cache holds.",
             [](M m) { return m.pool.cached_states; });
  of_engines("prefix_hit_tokens_total", "counter", "Prompt tokens found in the prefix cache.",
             [](M m) { return m.pool.hit_tokens; });
  of_engines("prefix_missed_tokens_total", "counter", "Prompt tokens that had to be computed.",
             [](M m) { return m.pool.missed_tokens; });
  of_loops("steps_total", "counter", "Steps of the engine.", [](L m) { return m.steps; });
  of_loops("busy_seconds_total", "counter", "Time that the engine computed.",
           [](L m) { return m.busy_seconds; });
  of_engines("proposed_tokens_total", "counter", "Tokens proposed by speculation.",
             [](M m) { return m.proposed_tokens; });
  of_engines("accepted_tokens_total", "counter", "Proposed tokens that were kept.",
             [](M m) { return m.accepted_tokens; });
  of_loops("cancelled_requests_total", "counter",
           "Requests that ended before their answer did: the client left, time was up "
           "(--max-request-seconds), or the server ended.",
           [](L m) { return m.cancelled; });
  of_engines("suspended_requests_total", "counter",
             "Times that a request made room for another one, to go on later with the same answer.",
             [](M m) { return m.suspended; });
  of_loops("seconds_since_progress", "gauge", "Since the last step while work waits; 0 when idle.",
           [](L m) { return m.seconds_since_progress; });
  std::lock_guard lock(mutex_);
  text +=
      Family("requests_total", "counter", "Requests by route and status; 499: the client left.");
  for (const auto& [of, count] : requests_) {
    text += fmt::format("bakestone_requests_total{{route=\"{}\",status=\"{}\"}} {}\n",
                        Label(of.first), of.second, count);
  }
  text += Family("tokens_total", "counter",
                 "Tokens by model, key and kind; cached ones are prompt tokens too.");
  for (const auto& [of, count] : tokens_) {
    text += fmt::format("bakestone_tokens_total{{model=\"{}\",key=\"{}\",kind=\"{}\"}} {}\n",
                        Label(std::get<0>(of)), Label(std::get<1>(of)), std::get<2>(of), count);
  }
  text += first_token_.Text(
      "time_to_first_token_seconds",
      "From when a request joins the queue to its first token; reading it, and where "
      "need be its adapter and its schema, comes before.");
  text += per_token_.Text("time_per_output_token_seconds",
                          "Between tokens after the first, the mean of an answer.");
  return text + duration_.Text("request_duration_seconds",
                               "From a request's arrival to the end of its answer.");
}

}  // namespace bakestone
