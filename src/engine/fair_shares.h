// Who had how much: every tenant is to get as much of a loop as the others, and within a tenant
// every line of it (an adapter, a request). Each has a counter of what was computed for it, and the
// least counter goes first. Who comes after a pause starts at the least counter of those that are
// active: an hour of silence gives no claim on the next. (Sheng et al., "Fairness in serving large
// language models", OSDI 2024.) The background's counters are apart, and come after all others.
//
// Key names a line within its tenant; Payload is what its owner keeps with it. References to lines
// hold while they are active. Internal to engine/; the owner's lock guards it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

namespace bakestone {

template <class Key, class Payload>
class FairShares {
 public:
  struct Tenant;
  struct Line {
    Tenant* tenant = nullptr;
    Key key = {};
    double served = 0;
    double owed = 0;  // counted as if it had been served, while somebody compares
    int64_t active = 0;
    Payload payload = {};
  };
  struct Class {
    std::map<std::string, std::unique_ptr<Tenant>> tenants;
    int64_t active = 0;  // tenants
  };
  struct Tenant {
    Class* of = nullptr;
    std::string name = {};
    bool background = false;
    double served = 0, owed = 0;
    int64_t active = 0;   // requests
    int64_t running = 0;  // the owner's
    std::map<Key, std::unique_ptr<Line>> lines = {};
  };

  // Counters of those that are not active are kept up to so many of a kind; then they are
  // forgotten.
  explicit FairShares(size_t most_kept_lines) : most_kept_lines_(most_kept_lines) {}

  // One more request of this line.
  Line& Enter(const std::string& tenant_name, bool background, const Key& key) {
    Class& all = classes_[background ? 1 : 0];
    auto& tenant = all.tenants[tenant_name];
    if (!tenant) {
      tenant = std::make_unique<Tenant>(
          Tenant{.of = &all, .name = tenant_name, .background = background});
    }
    if (tenant->active++ == 0) {
      CatchUp(all.tenants, tenant.get());
      ++all.active;
    }
    auto& line = tenant->lines[key];
    if (!line) line = std::make_unique<Line>(Line{.tenant = tenant.get(), .key = key});
    if (line->active++ == 0) CatchUp(tenant->lines, line.get());
    return *line;
  }

  // One of them has ended.
  void Leave(Line& line) {
    Tenant& tenant = *line.tenant;
    if (--line.active == 0 && tenant.lines.size() > most_kept_lines_)
      tenant.lines.erase(Key(line.key));
    if (--tenant.active > 0) return;
    Class& all = *tenant.of;
    if (--all.active == 0) {
      all.tenants.clear();  // nobody is compared with anybody
    } else if (all.tenants.size() > kMostKeptTenants) {
      all.tenants.erase(std::string(tenant.name));
    }
  }

  static void Count(Line& line, double cost) {
    line.served += cost;
    line.tenant->served += cost;
  }
  static void Owe(Line& line, double cost) {
    line.owed += cost;
    line.tenant->owed += cost;
  }
  // The least goes first.
  static std::tuple<bool, double, double> Turn(const Line& line) {
    const Tenant& tenant = *line.tenant;
    return {tenant.background, tenant.served + tenant.owed, line.served + line.owed};
  }

  template <class Visit>
  void ForEachLine(const Visit& visit) const {
    for (const Class& all : classes_) {
      for (const auto& [name, tenant] : all.tenants) {
        for (const auto& [key, line] : tenant->lines) visit(*line);
      }
    }
  }
  int64_t ActiveTenants(bool background) const { return classes_[background ? 1 : 0].active; }

 private:
  static constexpr size_t kMostKeptTenants = 4096;

  // Where one that becomes active begins: at least where the others are.
  template <class Map, class One>
  static void CatchUp(const Map& all, One* one) {
    bool any = false;
    double least = 0;
    for (const auto& [name, other] : all) {
      if (other.get() == one || other->active == 0) continue;
      least = any ? std::min(least, other->served) : other->served;
      any = true;
    }
    if (any) one->served = std::max(one->served, least);
  }

  const size_t most_kept_lines_;
  std::array<Class, 2> classes_;  // the second: background
};

}  // namespace bakestone
