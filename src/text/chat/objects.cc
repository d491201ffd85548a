#include "text/chat/objects.h"

#include <algorithm>

#include "text/chat/unicode.h"

namespace bakestone::chat {

const Value* Namespace::Find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(std::string_view name, Value value) {
  for (auto& [key, old] : attributes) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  attributes.emplace_back(name, std::move(value));
}

std::string_view DictView::type_name() const {
  return part == Part::kKeys ? "dict_keys" : part == Part::kValues ? "dict_values" : "dict_items";
}

std::size_t Range::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const Int span = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  return static_cast<std::size_t>((span + stride - 1) / stride);
}

void Budget::FailSteps() const {
  FailF("the template needs more than {} steps", limits_.max_steps);
}

void Budget::String(std::size_t bytes) {
  const auto size = static_cast<std::int64_t>(bytes);
  if (size > limits_.max_string_bytes) {
    FailF("a string would pass {} bytes", limits_.max_string_bytes);
  }
  Work(bytes);
  if ((bytes_ += size + 64) > limits_.max_total_bytes) {
    FailF("the template allocates more than {} bytes", limits_.max_total_bytes);
  }
}

void Budget::Items(std::size_t items) {
  const auto count = static_cast<std::int64_t>(items);
  if (count > limits_.max_items) FailF("a list would pass {} items", limits_.max_items);
  Step(1 + count / 8);
  if ((bytes_ += (count + 2) * static_cast<std::int64_t>(sizeof(Value))) >
      limits_.max_total_bytes) {
    FailF("the template allocates more than {} bytes", limits_.max_total_bytes);
  }
}

Value Runtime::MakeString(Text text) {
  budget.String(text.size() + text.runs().size() * sizeof(Text::Run));
  return Value(std::move(text));
}

Value Runtime::NewList(std::vector<Value> items, bool tuple) {
  budget.Items(items.size());
  return MakeList(std::move(items), tuple);
}

Value Runtime::NewDict(std::vector<Dict::Item> items) {
  budget.Items(items.size() * 4);
  return MakeDict(std::move(items));
}

Value Runtime::NewGenerator(std::vector<Value> items) {
  budget.Items(items.size());
  auto generator = std::make_shared<Generator>();
  generator->depth = DepthAbove(items);
  generator->items = std::move(items);
  return Value(std::move(generator));
}

Text Runtime::ToText(const Value& value) {
  Text text = Str(value);
  if (!value.is_string()) budget.String(text.size());
  return text;
}

std::vector<Value> Runtime::Iterate(const Value& value) {
  std::vector<Value> out;
  if (value.is_undefined()) return out;
  if (value.is_list()) {
    out = value.list().items;
  } else if (value.is_dict()) {
    for (const auto& item : value.dict().items()) out.push_back(item.first);
  } else if (value.is_string()) {
    const Text& text = value.text();
    budget.Items(text.length());
    for (std::size_t p = 0; p < text.size();) {
      const std::size_t at = p;
      NextCodePoint(text.view(), p);
      out.push_back(MakeString(text.Slice(at, p)));
    }
  } else if (auto* generator = value.As<Generator>()) {
    out.assign(generator->items.begin() + static_cast<std::ptrdiff_t>(generator->next),
               generator->items.end());
    generator->next = generator->items.size();
  } else if (const auto* view = value.As<DictView>()) {
    for (std::size_t i = 0; i < view->dict->size(); ++i) out.push_back(DictViewItem(*view, i));
  } else if (const auto* range = value.As<Range>()) {
    const std::size_t n = range->size();
    for (std::size_t i = 0; i < n; ++i) {
      out.emplace_back(range->start + static_cast<Int>(i) * range->step);
    }
  } else {
    FailF("'{}' object is not iterable", value.type_name());
  }
  budget.Items(out.size());
  return out;
}

std::optional<std::size_t> ObjectSize(const Value& value) {
  if (const auto* view = value.As<DictView>()) return view->dict->size();
  if (const auto* range = value.As<Range>()) return range->size();
  if (const auto* loop = value.As<Loop>()) return loop->items.size();
  return std::nullopt;
}

bool ObjectsEqual(const Value& a, const Value& b) {
  if (a.object() == b.object()) return true;
  const auto* x = a.As<Range>();
  const auto* y = b.As<Range>();
  if (x == nullptr || y == nullptr) return false;
  const std::size_t n = x->size();
  return n == y->size() && (n == 0 || (x->start == y->start && (n == 1 || x->step == y->step)));
}

std::optional<std::size_t> Length(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return 0;
    case Value::Kind::kString:
      return value.text().length();
    case Value::Kind::kList:
      return value.list().items.size();
    case Value::Kind::kDict:
      return value.dict().size();
    case Value::Kind::kObject:
      return ObjectSize(value);
    default:
      return std::nullopt;
  }
}

bool Iterable(const Value& value) {
  if (!value.is_object()) {
    return value.is_undefined() || value.is_string() || value.is_list() || value.is_dict();
  }
  return value.As<Generator>() != nullptr || value.As<DictView>() != nullptr ||
         value.As<Range>() != nullptr || value.As<Loop>() != nullptr;
}

bool IsCallable(const Value& value) {
  // jinja2's Undefined defines __call__ (to raise), so Python says that it is callable.
  return value.is_undefined() || (value.is_object() && value.object()->callable());
}

Value DictViewItem(const DictView& view, std::size_t index) {
  const auto& [key, item] = view.dict->items()[index];
  switch (view.part) {
    case DictView::Part::kKeys:
      return key;
    case DictView::Part::kValues:
      return item;
    case DictView::Part::kItems:
      break;
  }
  return MakeTuple({key, item});
}

}  // namespace bakestone::chat
