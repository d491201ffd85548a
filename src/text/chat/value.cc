#include "text/chat/value.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "text/chat/objects.h"

namespace bakestone::chat {
namespace {

// Beyond this a value would be a bomb, not data: json.loads() of Python stops near 1,000.
constexpr int kMaxValueDepth = 400;

void CheckDepth(int depth) {
  if (depth > kMaxValueDepth) FailF("values nest deeper than {} levels", kMaxValueDepth);
}

int Sign(long double d) { return (d > 0) - (d < 0); }

int CompareNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return (a.as_int() > b.as_int()) - (a.as_int() < b.as_int());
  }
  const auto wide = [](const Value& v) {
    return v.is_float() ? static_cast<long double>(v.as_double())
                        : static_cast<long double>(v.as_int());
  };
  return Sign(wide(a) - wide(b));
}

int KeyRank(const Value& v) {
  if (v.is_number()) return 0;
  if (v.is_string()) return 1;
  if (v.is_none()) return 2;
  if (v.is_tuple()) return 3;
  if (v.is_undefined()) return 4;
  return 5;
}

bool EqualLists(const List& a, const List& b) {
  return a.tuple == b.tuple && a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), Equal);
}

bool EqualDicts(const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  return std::all_of(a.items().begin(), a.items().end(), [&](const Dict::Item& item) {
    const Value* other = b.Find(item.first);
    return other != nullptr && Equal(item.second, *other);
  });
}

}  // namespace

void Fail(std::string message) { throw Error(ErrorCode::kInvalidArgument, std::move(message)); }

Value Value::MakeUndefined(std::string message) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(message))});
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kList:
      return list().depth;
    case Kind::kDict:
      return dict().depth();
    case Kind::kObject:
      return object()->depth;
    default:
      return 0;
  }
}

std::string_view Value::type_name() const {
  switch (kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return text().markup() ? "Markup" : "str";
    case Kind::kList:
      return list().tuple ? "tuple" : "list";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return object()->type_name();
  }
  return "?";
}

int DepthAbove(std::span<const Value> items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  CheckDepth(depth + 1);
  return depth + 1;
}

Value MakeList(std::vector<Value> items, bool tuple) {
  const int depth = DepthAbove(items);
  return Value(std::make_shared<const List>(List{std::move(items), tuple, depth}));
}

Value MakeDict(std::vector<Dict::Item> items) {
  return Value(std::make_shared<const Dict>(std::move(items)));
}

Dict::Dict(std::vector<Item> items) : items_(std::move(items)) {
  for (const Item& item : items_) {
    if (!Hashable(item.first)) FailF("unhashable type: '{}'", item.first.type_name());
    depth_ = std::max({depth_, item.first.depth() + 1, item.second.depth() + 1});
  }
  CheckDepth(depth_);
  sorted_.resize(items_.size());
  std::iota(sorted_.begin(), sorted_.end(), 0U);
  std::stable_sort(sorted_.begin(), sorted_.end(), [&](std::uint32_t a, std::uint32_t b) {
    return CompareKeys(items_[a].first, items_[b].first) < 0;
  });
  std::vector<bool> drop(items_.size());
  bool any = false;
  for (std::size_t i = 0; i < sorted_.size();) {
    std::size_t j = i + 1;
    for (;
         j < sorted_.size() && CompareKeys(items_[sorted_[i]].first, items_[sorted_[j]].first) == 0;
         ++j) {
      items_[sorted_[i]].second = items_[sorted_[j]].second;
      drop[sorted_[j]] = any = true;
    }
    i = j;
  }
  if (!any) return;
  std::vector<Item> kept;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!drop[i]) kept.push_back(std::move(items_[i]));
  }
  *this = Dict(std::move(kept));
}

const Value* Dict::Find(const Value& key) const {
  const auto it = std::lower_bound(
      sorted_.begin(), sorted_.end(), key,
      [&](std::uint32_t i, const Value& k) { return CompareKeys(items_[i].first, k) < 0; });
  if (it == sorted_.end() || CompareKeys(items_[*it].first, key) != 0) return nullptr;
  return &items_[*it].second;
}

const Value* Dict::Find(std::string_view key) const {
  return Find(Value(Text::Trusted(std::string(key))));
}

bool Hashable(const Value& v) {
  if (v.is_dict()) return false;
  if (!v.is_list()) return true;
  return v.is_tuple() && std::all_of(v.list().items.begin(), v.list().items.end(), Hashable);
}

int CompareKeys(const Value& a, const Value& b) {
  const int rank = KeyRank(a);
  if (rank != KeyRank(b)) return rank < KeyRank(b) ? -1 : 1;
  switch (rank) {
    case 0:
      return CompareNumbers(a, b);
    case 1:
      return a.str().compare(b.str());
    case 3: {
      const auto& x = a.list().items;
      const auto& y = b.list().items;
      for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
        if (const int c = CompareKeys(x[i], y[i]); c != 0) return c;
      }
      return (x.size() > y.size()) - (x.size() < y.size());
    }
    case 5:
      return (a.object().get() > b.object().get()) - (a.object().get() < b.object().get());
    default:
      return 0;
  }
}

bool Truthy(const Value& v) {
  switch (v.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
      return v.as_bool();
    case Value::Kind::kInt:
      return v.as_int() != 0;
    case Value::Kind::kFloat:
      return v.as_double() != 0;
    case Value::Kind::kString:
      return !v.str().empty();
    case Value::Kind::kList:
      return !v.list().items.empty();
    case Value::Kind::kDict:
      return v.dict().size() != 0;
    case Value::Kind::kObject: {
      const std::optional<std::size_t> size = ObjectSize(v);
      return !size || *size != 0;
    }
  }
  return true;
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if ((a.is_float() && std::isnan(a.as_double())) ||
        (b.is_float() && std::isnan(b.as_double()))) {
      return false;
    }
    return CompareNumbers(a, b) == 0;
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kString:
      return a.str() == b.str();
    case Value::Kind::kList:
      return &a.list() == &b.list() || EqualLists(a.list(), b.list());
    case Value::Kind::kDict:
      return &a.dict() == &b.dict() || EqualDicts(a.dict(), b.dict());
    case Value::Kind::kObject:
      return ObjectsEqual(a, b);
    default:
      return true;  // both None, or both undefined
  }
}

bool Less(const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) Fail(v->undefined_message());
  }
  if (a.is_number() && b.is_number()) {
    const bool nan = std::isnan(a.as_double()) || std::isnan(b.as_double());
    return !nan && CompareNumbers(a, b) < 0;
  }
  if (a.is_string() && b.is_string()) return a.str() < b.str();  // UTF-8 keeps code point order
  if (a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    const auto& x = a.list().items;
    const auto& y = b.list().items;
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i) {
      if (!Equal(x[i], y[i])) return Less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  FailF("'<' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name());
}

}  // namespace bakestone::chat
