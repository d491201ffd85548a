// What the server did, as Prometheus reads it. Labels are routes, models and names of keys: as many
// as the server has, never what a client makes up. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>

#include "server/api/model_registry.h"
#include "server/http/message.h"

namespace bakestone {

class Metrics {
 public:
  void CountRequest(const std::string& route, int status, double seconds);
  void CountCost(const std::string& key, const http::Cost& cost);
  static std::string TextOf(const api::AdapterStats& adapters);
  std::string Text(const api::ModelRegistry& models) const;  // of its loops and the answers

 private:
  struct Histogram {
    static constexpr std::array kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                           0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0, 300.0};
    std::array<int64_t, kBounds.size() + 1> counts{};
    double sum = 0;
    void Add(double seconds);
    std::string Text(const char* name, const char* help) const;
  };

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;  // by route and status
  std::map<std::tuple<std::string, std::string, std::string>, int64_t>
      tokens_;  // by model, key, kind
  Histogram first_token_, per_token_, duration_;
};

}  // namespace bakestone
