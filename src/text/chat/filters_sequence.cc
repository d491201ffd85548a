// Filters over lists, dicts and iterators.
#include <algorithm>

#include "text/chat/filters.h"
#include "text/chat/unicode.h"

namespace bakestone::chat {
namespace {

Value IgnoreCase(Runtime& rt, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return rt.MakeString(MapCase(value.text(), CaseMap::kLower));
}

struct Keyed {
  Value key;
  Value item;
};

void SortKeyed(Runtime& rt, std::vector<Keyed>& items, bool reverse) {
  rt.budget.Step(static_cast<std::int64_t>(items.size()) * 20);
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? Less(b.key, a.key) : Less(a.key, b.key);
  });
}

Value Items(const std::vector<Keyed>& keyed, Runtime& rt) {
  std::vector<Value> out;
  out.reserve(keyed.size());
  for (const Keyed& k : keyed) out.push_back(k.item);
  return rt.NewList(std::move(out));
}

Value Sort(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("sort", args, {"reverse", "case_sensitive", "attribute"});
  const bool sensitive = p.Flag(1, false);
  std::vector<Value> paths = {Value()};
  if (p.HasValue(2)) {
    paths = {p[2]};
    if (p[2].is_string()) {
      const Value comma = rt.MakeString(",");
      paths.clear();
      for (Text& part : SplitText(p[2].text(), &comma, -1, false)) {
        paths.push_back(rt.MakeString(std::move(part)));
      }
    }
  }
  std::vector<Keyed> keyed;
  for (Value& item : rt.Iterate(self)) {
    std::vector<Value> key;
    for (const Value& path : paths) {
      key.push_back(IgnoreCase(rt, AttributePath(rt, item, path), sensitive));
    }
    keyed.push_back({rt.NewList(std::move(key)), std::move(item)});
  }
  SortKeyed(rt, keyed, p.Flag(0, false));
  return Items(keyed, rt);
}

Value DictSort(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("dictsort", args, {"case_sensitive", "by", "reverse"});
  if (self.is_undefined()) Fail(self.undefined_message());
  if (!self.is_dict()) FailF("dictsort: '{}' object has no attribute 'items'", self.type_name());
  const std::string by = p.Has(1) ? p.String(1).bytes() : "key";
  if (by != "key" && by != "value") Fail("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : self.dict().items()) {
    keyed.push_back(
        {IgnoreCase(rt, by == "key" ? key : value, p.Flag(0, false)), MakeTuple({key, value})});
  }
  SortKeyed(rt, keyed, p.Flag(2, false));
  return Items(keyed, rt);
}

Value Unique(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("unique", args, {"case_sensitive", "attribute"});
  std::vector<Keyed> keyed;
  for (Value& item : rt.Iterate(self)) {
    Value key = AttributePath(rt, item, p.Get(1, Value()));
    if (!Hashable(key)) FailF("unhashable type: '{}'", key.type_name());
    keyed.push_back({IgnoreCase(rt, key, p.Flag(0, false)), std::move(item)});
  }
  rt.budget.Step(static_cast<std::int64_t>(keyed.size()) * 20);
  std::vector<std::size_t> order(keyed.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return CompareKeys(keyed[a].key, keyed[b].key) < 0;
  });
  std::vector<bool> keep(keyed.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    keep[order[i]] = i == 0 || CompareKeys(keyed[order[i - 1]].key, keyed[order[i]].key) != 0;
  }
  std::vector<Value> out;
  for (std::size_t i = 0; i < keyed.size(); ++i) {
    if (keep[i]) out.push_back(std::move(keyed[i].item));
  }
  return rt.NewGenerator(std::move(out));
}

template <bool kMax>
Value MinMax(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p(kMax ? "max" : "min", args, {"case_sensitive", "attribute"});
  std::vector<Value> items = rt.Iterate(self);
  if (items.empty()) return Value::MakeUndefined("No aggregated item, sequence was empty.");
  std::size_t best = 0;
  Value best_key;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Value key = IgnoreCase(rt, AttributePath(rt, items[i], p.Get(1, Value())), p.Flag(0, false));
    if (i == 0 || (kMax ? Less(best_key, key) : Less(key, best_key))) {
      best = i;
      best_key = std::move(key);
    }
  }
  return items[best];
}

Value GroupBy(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("groupby", args, {"attribute", "default", "case_sensitive"}, 1);
  const Value* fallback = p.HasValue(1) ? &p[1] : nullptr;
  std::vector<Keyed> keyed;
  for (Value& item : rt.Iterate(self)) {
    Value key = IgnoreCase(rt, AttributePath(rt, item, p[0], fallback), p.Flag(2, false));
    keyed.push_back({std::move(key), std::move(item)});
  }
  SortKeyed(rt, keyed, false);
  std::vector<Value> out;
  for (std::size_t i = 0; i < keyed.size();) {
    std::vector<Value> group;
    const std::size_t first = i;
    for (; i < keyed.size() && Equal(keyed[i].key, keyed[first].key); ++i) {
      group.push_back(keyed[i].item);
    }
    Value key = AttributePath(rt, keyed[first].item, p[0], fallback);
    out.push_back(rt.NewList({std::move(key), rt.NewList(std::move(group))}, true));
  }
  return rt.NewList(std::move(out));
}

Value List(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("list", args, {});
  return rt.NewList(rt.Iterate(self));
}

Value Length(Runtime&, const Value& self, const CallArgs& args) {
  Params("length", args, {});
  const auto size = chat::Length(self);
  if (!size) FailF("object of type '{}' has no len()", self.type_name());
  return Value(*size);
}

Value First(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("first", args, {});
  const Value empty = Value::MakeUndefined("No first item, sequence was empty.");
  if (auto* generator = self.As<Generator>()) {
    return generator->next < generator->items.size() ? generator->items[generator->next++] : empty;
  }
  if (self.is_list()) return self.list().items.empty() ? empty : self.list().items.front();
  const std::vector<Value> items = rt.Iterate(self);
  return items.empty() ? empty : items.front();
}

void CheckReversible(const Value& self) {
  if (self.As<Generator>() != nullptr) {
    Fail("'generator' object is not reversible; use |list first");
  }
}

Value Last(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("last", args, {});
  CheckReversible(self);
  if (self.is_undefined()) Fail(self.undefined_message());
  const std::vector<Value> items = rt.Iterate(self);
  return items.empty() ? Value::MakeUndefined("No last item, sequence was empty.") : items.back();
}

Value Reverse(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("reverse", args, {});
  if (self.is_string()) return GetSlice(rt, self, Value(), Value(), Value(-1));
  std::vector<Value> items = rt.Iterate(self);
  std::reverse(items.begin(), items.end());
  return self.As<Generator>() != nullptr ? rt.NewList(std::move(items))
                                         : rt.NewGenerator(std::move(items));
}

Value Sum(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("sum", args, {"attribute", "start"});
  Value total = p.Get(1, Value(0));
  if (total.is_string()) Fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : rt.Iterate(self)) {
    total = Arithmetic(rt, "+", total, p.HasValue(0) ? AttributePath(rt, item, p[0]) : item);
  }
  return total;
}

std::size_t Count(const Params& p, std::string_view what) {
  const Int n = p.Integer(0, 0);
  if (n < 1 || n > 100'000) {
    FailF("{}: expected a number from 1 to 100,000, found {}", what, IntToString(n));
  }
  return static_cast<std::size_t>(n);
}

Value Batch(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("batch", args, {"linecount", "fill_with"}, 1);
  const std::size_t count = Count(p, "batch");
  const std::vector<Value> items = rt.Iterate(self);
  std::vector<Value> out;
  for (std::size_t i = 0; i < items.size(); i += count) {
    std::vector<Value> row(
        items.begin() + static_cast<std::ptrdiff_t>(i),
        items.begin() + static_cast<std::ptrdiff_t>(std::min(i + count, items.size())));
    if (p.HasValue(1)) row.resize(count, p[1]);
    out.push_back(rt.NewList(std::move(row)));
  }
  return rt.NewGenerator(std::move(out));
}

Value Slice(Runtime& rt, const Value& self, const CallArgs& args) {
  const Params p("slice", args, {"slices", "fill_with"}, 1);
  const std::size_t slices = Count(p, "slice");
  const std::vector<Value> items = rt.Iterate(self);
  const std::size_t each = items.size() / slices;
  const std::size_t extra = items.size() % slices;
  std::vector<Value> out;
  auto at = items.begin();
  for (std::size_t i = 0; i < slices; ++i) {
    const auto end = at + static_cast<std::ptrdiff_t>(each + (i < extra ? 1 : 0));
    std::vector<Value> column(at, end);
    if (p.HasValue(1) && i >= extra) column.push_back(p[1]);
    out.push_back(rt.NewList(std::move(column)));
    at = end;
  }
  return rt.NewGenerator(std::move(out));
}

Value DictItems(Runtime& rt, const Value& self, const CallArgs& args) {
  Params("items", args, {});
  if (self.is_undefined()) return rt.NewGenerator({});
  if (!self.is_dict()) Fail("Can only get item pairs from a mapping.");
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict().items()) out.push_back(MakeTuple({key, value}));
  return rt.NewGenerator(std::move(out));
}

CallArgs Rest(const CallArgs& args, std::size_t skip) {
  CallArgs out = args;
  out.positional.erase(out.positional.begin(),
                       out.positional.begin() + static_cast<std::ptrdiff_t>(skip));
  return out;
}

Value Map(Runtime& rt, const Value& self, const CallArgs& args) {
  if (!Truthy(self)) return rt.NewGenerator({});
  std::vector<Value> out;
  if (args.positional.empty()) {
    const Params p("map", args, {"attribute", "default"}, 1);
    const Value* fallback = p.HasValue(1) ? &p[1] : nullptr;
    for (const Value& item : rt.Iterate(self)) {
      out.push_back(AttributePath(rt, item, p[0], fallback));
    }
    return rt.NewGenerator(std::move(out));
  }
  const Value& name = args.positional[0];
  const NamedBuiltin* filter = name.is_string() ? FindFilter(name.str()) : nullptr;
  if (filter == nullptr) FailF("map: no filter named '{}'", Str(name).bytes());
  const CallArgs rest = Rest(args, 1);
  for (const Value& item : rt.Iterate(self)) {
    rt.budget.Step();
    out.push_back(filter->call(rt, item, rest));
  }
  return rt.NewGenerator(std::move(out));
}

template <bool kWanted, bool kAttribute>
Value Select(Runtime& rt, const Value& self, const CallArgs& args) {
  if (!Truthy(self)) return rt.NewGenerator({});
  std::size_t used = 0;
  Value path;
  if (kAttribute) {
    if (args.positional.empty()) Fail("Missing parameter for attribute name");
    path = args.positional[used++];
  }
  const NamedBuiltin* test = nullptr;
  if (args.positional.size() > used) {
    const Value& name = args.positional[used++];
    test = name.is_string() ? FindTest(name.str()) : nullptr;
    if (test == nullptr) FailF("select: no test named '{}'", Str(name).bytes());
  }
  const CallArgs rest = Rest(args, used);
  std::vector<Value> out;
  for (Value& item : rt.Iterate(self)) {
    rt.budget.Step();
    const Value subject = kAttribute ? AttributePath(rt, item, path) : item;
    const bool yes = test != nullptr ? Truthy(test->call(rt, subject, rest)) : Truthy(subject);
    if (yes == kWanted) out.push_back(std::move(item));
  }
  return rt.NewGenerator(std::move(out));
}

constexpr NamedBuiltin kSequenceFilters[] = {
    {"batch", Batch},
    {"count", Length},
    {"dictsort", DictSort},
    {"first", First},
    {"groupby", GroupBy},
    {"items", DictItems},
    {"last", Last},
    {"length", Length},
    {"list", List},
    {"map", Map},
    {"max", MinMax<true>},
    {"min", MinMax<false>},
    {"reject", Select<false, false>},
    {"rejectattr", Select<false, true>},
    {"reverse", Reverse},
    {"select", Select<true, false>},
    {"selectattr", Select<true, true>},
    {"slice", Slice},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Unique},
};

}  // namespace

std::span<const NamedBuiltin> SequenceFilters() { return kSequenceFilters; }

Value AttributePath(Runtime& rt, const Value& item, const Value& path, const Value* fallback) {
  if (path.is_none()) return item;
  Value out = item;
  if (!path.is_string()) {
    out = GetItem(rt, out, path);
    return fallback != nullptr && out.is_undefined() ? *fallback : out;
  }
  const Value dot = Value(Text::Trusted("."));
  for (const Text& part : SplitText(path.text(), &dot, -1, false)) {
    const bool digits =
        !part.empty() && part.bytes().find_first_not_of("0123456789") == std::string::npos;
    out = GetItem(rt, out, digits ? Value(ParseInt(part.view(), 10).value_or(0)) : Value(part));
    if (fallback != nullptr && out.is_undefined()) out = *fallback;
  }
  return out;
}

}  // namespace bakestone::chat
