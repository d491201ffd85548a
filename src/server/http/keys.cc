#include "server/http/keys.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/quote.h"

namespace bakestone::http {
namespace {

constexpr size_t kMinKey = 16;
constexpr std::string_view kDigest = "sha256:";

std::vector<std::string> Split(std::string_view text, std::string_view separators) {
  std::vector<std::string> words;
  for (size_t at = text.find_first_not_of(separators); at != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(separators, end);
  }
  return words;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

Hash DigestOf(std::string_view word, size_t line) {
  if (word.starts_with(kDigest)) {
    const std::string_view hex = word.substr(kDigest.size());
    Hash digest{};
    const bool valid = hex.size() == 2 * digest.size() &&
                       std::all_of(hex.begin(), hex.end(), [](char c) { return HexDigit(c) >= 0; });
    if (!valid) {
      Throw(ErrorCode::kInvalidArgument,
            "API keys, line {}: expected 64 hex digits after sha256:", line);
    }
    for (size_t i = 0; i < digest.size(); ++i) {
      digest[i] = static_cast<uint8_t>(HexDigit(hex[2 * i]) * 16 + HexDigit(hex[2 * i + 1]));
    }
    return digest;
  }
  const bool printable =
      std::all_of(word.begin(), word.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (word.size() < kMinKey || !printable) {
    Throw(ErrorCode::kInvalidArgument,
          "API keys, line {}: expected at least {} printable ASCII characters without spaces, "
          "found {}{}",
          line, kMinKey, word.size(), printable ? "" : " with others among them");
  }
  return HashOf(word);
}

void ReadAliases(const std::string& value, size_t line, Key* key) {
  for (const std::string& pair : Split(value, ",")) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == pair.size()) {
      Throw(ErrorCode::kInvalidArgument, "API keys, line {}: alias: expected NAME=MODEL, found {}",
            line, Quote(pair));
    }
    key->aliases[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
}

void ReadWord(const std::string& word, size_t line, Key* key) {
  if (word == "background") {
    key->background = true;
    return;
  }
  if (word == "admin") {
    key->admin = true;
    return;
  }
  const size_t equals = std::min(word.find('='), word.size());
  const std::string name = word.substr(0, equals),
                    value = equals < word.size() ? word.substr(equals + 1) : "";
  const auto number = [&](int64_t* to) {
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *to);
    if (error != std::errc() || end != value.data() + value.size() || *to < 1) {
      Throw(ErrorCode::kInvalidArgument,
            "API keys, line {}: {}: expected a number from 1, found {}", line, name, Quote(value));
    }
  };
  if (value.empty()) {
    Throw(ErrorCode::kInvalidArgument,
          "API keys, line {}: after the key, expected words like name=team, found one of {} "
          "characters",
          line, word.size());
  }
  if (name == "name") {
    key->name = value;
  } else if (name == "models") {
    key->models = Split(value, ",");
  } else if (name == "default") {
    key->default_model = value;
  } else if (name == "alias") {
    ReadAliases(value, line, key);
  } else if (name == "max-requests") {
    number(&key->max_requests);
  } else if (name == "requests-per-minute") {
    number(&key->requests_per_minute);
  } else if (name == "tokens-per-minute") {
    number(&key->tokens_per_minute);
  } else {
    Throw(ErrorCode::kInvalidArgument,
          "API keys, line {}: expected name, models, default, alias, admin, background, "
          "max-requests, requests-per-minute or tokens-per-minute, found {}",
          line, Quote(name));
  }
}

Key ReadKey(const std::string& text, size_t line) {
  const std::vector<std::string> words = Split(text, " \t");
  Key key;
  key.digest = DigestOf(words[0], line);
  key.tenant = ToHex(key.digest).substr(0, 16);
  key.name = key.tenant;
  for (size_t i = 1; i < words.size(); ++i) ReadWord(words[i], line, &key);
  return key;
}

}  // namespace

KeyRing::KeyRing(std::span<const std::string> lines) {
  std::set<std::string> names, tenants;
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t begin = lines[i].find_first_not_of(" \t");
    if (begin == std::string::npos || lines[i][begin] == '#') continue;
    Key key = ReadKey(lines[i], i + 1);
    if (!tenants.insert(key.tenant).second || !names.insert(key.name).second) {
      Throw(ErrorCode::kInvalidArgument, "API keys, line {}: this key or its name was there before",
            i + 1);
    }
    keys_.push_back(std::make_shared<const Key>(std::move(key)));
  }
}

std::shared_ptr<const Key> KeyRing::Find(std::string_view key) const {
  const Hash shown = HashOf(key);
  std::shared_ptr<const Key> found;
  for (const auto& known : keys_) {
    unsigned difference = 0;
    for (size_t i = 0; i < shown.size(); ++i) difference |= known->digest[i] ^ shown[i];
    if (difference == 0) found = known;
  }
  return found;
}

}  // namespace bakestone::http
