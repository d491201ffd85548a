#include "data/personal_data.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>

#include "data/check_digits.h"

namespace bakestone {
namespace {

bool IsLetter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
bool IsAlnum(char c) { return IsDigit(c) || IsLetter(c); }
char Upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

// A run of ASCII letters and digits.
struct Piece {
  size_t begin = 0, end = 0;
  bool digits = true;
  size_t size() const { return end - begin; }
};

class Finder {
 public:
  explicit Finder(std::string_view text) : text_(text) {
    for (size_t i = 0; i < text.size();) {
      if (!IsAlnum(text[i])) {
        ++i;
        continue;
      }
      Piece piece{i, i, true};
      for (; i < text.size() && IsAlnum(text[i]); ++i) {
        piece.digits = piece.digits && IsDigit(text[i]);
      }
      piece.end = i;
      pieces_.push_back(piece);
    }
  }

  std::vector<PersonalFinding> Find() {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].begin < done_) continue;
      for (const auto match :
           {&Finder::Email, &Finder::Letters, &Finder::Numbers, &Finder::Phone}) {
        const auto found = (this->*match)(i);
        if (!found) continue;
        findings_.push_back(*found);
        done_ = found->end;
        break;
      }
    }
    return std::move(findings_);
  }

 private:
  using Found = std::optional<PersonalFinding>;

  char At(size_t i) const { return i < text_.size() ? text_[i] : ' '; }
  char Before(size_t i) const { return i > 0 ? text_[i - 1] : ' '; }

  // What stands between piece i and the next one, if it is one of these single characters.
  bool Joined(size_t i, std::string_view separators) const {
    if (i + 1 >= pieces_.size() || pieces_[i + 1].begin != pieces_[i].end + 1) return false;
    return separators.find(text_[pieces_[i].end]) != std::string_view::npos;
  }

  // No part of a longer thing: a decimal number, a path, an identifier.
  bool StandsAlone(size_t begin, size_t end) const {
    constexpr std::string_view kJoin = "_/-.,=&%@\\";
    const char before = Before(begin), after = At(end);
    const bool opens = before == '.' || before == ','
                           ? !IsAlnum(Before(begin - 1))
                           : kJoin.find(before) == std::string_view::npos;
    const bool closes = after == '.' || after == ',' ? !IsAlnum(At(end + 1))
                                                     : kJoin.find(after) == std::string_view::npos;
    return opens && closes;
  }

  // Sizes of the pieces from i on, all digits, with these separators in turn: the digits, or
  // nothing.
  std::string Groups(size_t i, std::initializer_list<size_t> sizes,
                     std::string_view separators) const {
    std::string digits;
    size_t number = 0;
    for (const size_t size : sizes) {
      if (i + number >= pieces_.size()) return "";
      const Piece& piece = pieces_[i + number];
      if (!piece.digits || piece.size() != size) return "";
      if (number > 0) {
        const char wanted = separators[std::min(number - 1, separators.size() - 1)];
        if (piece.begin != pieces_[i + number - 1].end + 1 || text_[piece.begin - 1] != wanted) {
          return "";
        }
      }
      digits += text_.substr(piece.begin, size);
      ++number;
    }
    const size_t begin = pieces_[i].begin, end = pieces_[i + number - 1].end;
    return StandsAlone(begin, end) ? digits : "";
  }

  Found Make(PersonalKind kind, size_t first, size_t count) const {
    return PersonalFinding{kind, pieces_[first].begin, pieces_[first + count - 1].end};
  }

  Found Email(size_t i) const {
    constexpr std::string_view kLocal = "._%+-";
    // The piece must be the last of the local part: an '@' follows it.
    size_t at = pieces_[i].end;
    while (kLocal.find(At(at)) != std::string_view::npos && at < text_.size()) ++at;
    if (At(at) != '@') return std::nullopt;
    size_t begin = pieces_[i].begin;
    while (begin > done_ &&
           (IsAlnum(text_[begin - 1]) || kLocal.find(text_[begin - 1]) != std::string_view::npos)) {
      --begin;
    }
    while (begin < at && !IsAlnum(text_[begin])) ++begin;
    size_t end = at + 1, last_dot = 0;
    while (end < text_.size() && (IsAlnum(text_[end]) || text_[end] == '-' || text_[end] == '.')) {
      if (text_[end] == '.') {
        if (end == at + 1 || text_[end - 1] == '.') break;
        last_dot = end;
      }
      ++end;
    }
    while (end > at && !IsAlnum(text_[end - 1])) {
      --end;
      if (last_dot >= end) last_dot = text_.rfind('.', end - 1);
    }
    if (last_dot <= at + 1 || last_dot == std::string_view::npos || end - last_dot < 3) {
      return std::nullopt;
    }
    const auto domain = text_.substr(last_dot + 1, end - last_dot - 1);
    if (!std::all_of(domain.begin(), domain.end(), IsLetter)) return std::nullopt;
    return PersonalFinding{PersonalKind::kEmail, begin, end};
  }

  // Numbers that begin or end with letters.
  Found Letters(size_t i) const {
    const Piece& piece = pieces_[i];
    std::string word;
    for (size_t at = piece.begin; at < piece.end && word.size() < 40; ++at) {
      word += Upper(text_[at]);
    }
    if (const Found iban = Iban(i, word)) return iban;
    if (!StandsAlone(piece.begin, piece.end) && !Joined(i, "-")) return std::nullopt;
    if (word.size() == 9 && !piece.digits && StandsAlone(piece.begin, piece.end)) {
      if (IsDni(word)) return Make(PersonalKind::kDni, i, 1);
      if (IsNric(word)) return Make(PersonalKind::kNric, i, 1);
    }
    if (word.size() == 16 && IsCodiceFiscale(word)) return Make(PersonalKind::kCodiceFiscale, i, 1);
    // 12345678-Z and X-1234567-L.
    if (Joined(i, "-") && (word.size() == 8 || word.size() == 1)) {
      std::string joined = word;
      size_t last = i;
      while (last - i < 2 && Joined(last, "-") && joined.size() < 9) {
        ++last;
        for (size_t at = pieces_[last].begin; at < pieces_[last].end && joined.size() < 10; ++at) {
          joined += Upper(text_[at]);
        }
      }
      if (joined.size() == 9 && !IsDigit(joined[8]) && IsDni(joined)) {
        return Make(PersonalKind::kDni, i, last - i + 1);
      }
    }
    return std::nullopt;
  }

  // In one piece, or in groups of four.
  Found Iban(size_t i, std::string word) const {
    if (word.size() < 4 || IsDigit(word[0]) || IsDigit(word[1]) || !IsDigit(word[2]) ||
        !IsDigit(word[3])) {
      return std::nullopt;
    }
    size_t last = i;
    while (true) {
      if (IsIban(word)) return Make(PersonalKind::kIban, i, last - i + 1);
      if (word.size() >= 32 || !Joined(last, " -") || pieces_[last].size() != 4) {
        return std::nullopt;
      }
      ++last;
      if (pieces_[last].size() > 4) return std::nullopt;
      for (size_t at = pieces_[last].begin; at < pieces_[last].end; ++at) word += Upper(text_[at]);
    }
  }

  // Words that stand shortly before piece i.
  bool Announced(size_t i, std::initializer_list<std::string_view> words) const {
    const size_t from = pieces_[i].begin > 40 ? pieces_[i].begin - 40 : 0;
    std::string before;
    for (size_t at = from; at < pieces_[i].begin; ++at) {
      before += text_[at] == '\n' ? '\0' : Lower(text_[at]);
    }
    before.erase(0, before.rfind('\0') + 1);
    return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
      for (size_t at = before.find(word); at != std::string::npos; at = before.find(word, at + 1)) {
        const bool starts = at == 0 || !IsAlnum(before[at - 1]);
        const bool ends = at + word.size() == before.size() || !IsAlnum(before[at + word.size()]);
        if (starts && ends) return true;
      }
      return false;
    });
  }

  Found Numbers(size_t i) const {
    if (!pieces_[i].digits) return std::nullopt;
    std::string digits;
    if (IsCpf(digits = Groups(i, {3, 3, 3, 2}, "..-"))) return Make(PersonalKind::kCpf, i, 4);
    if (IsCnpj(digits = Groups(i, {2, 3, 3, 4, 2}, "../-"))) return Make(PersonalKind::kCnpj, i, 5);
    for (const std::string_view separator : {" ", "-"}) {
      if (IsCard(Groups(i, {4, 4, 4, 4, 3}, separator))) return Make(PersonalKind::kCard, i, 5);
      if (IsCard(Groups(i, {4, 4, 4, 4}, separator))) return Make(PersonalKind::kCard, i, 4);
      if (IsCard(Groups(i, {4, 6, 5}, separator))) return Make(PersonalKind::kCard, i, 3);
      if (IsCard(Groups(i, {4, 6, 4}, separator))) return Make(PersonalKind::kCard, i, 3);
      if (IsAadhaar(Groups(i, {4, 4, 4}, separator))) return Make(PersonalKind::kAadhaar, i, 3);
      if (IsSsn(Groups(i, {3, 2, 4}, separator))) return Make(PersonalKind::kSsn, i, 3);
    }
    if (IsNir(Groups(i, {1, 2, 2, 2, 3, 3, 2}, " "))) return Make(PersonalKind::kNir, i, 7);
    if (IsNir(Groups(i, {13, 2}, " "))) return Make(PersonalKind::kNir, i, 2);
    if (IsNik(Groups(i, {6, 6, 4}, "."))) return Make(PersonalKind::kNik, i, 3);
    return Bare(i);
  }

  // One run of digits: what its length and check digits say. Where the check is weak, a word must
  // announce it.
  Found Bare(size_t i) const {
    const std::string digits = Groups(i, {pieces_[i].size()}, " ");
    if (digits.size() < 9 || digits.size() > 19 || Before(pieces_[i].begin) == '+') {
      return std::nullopt;
    }
    const bool nik = IsNik(digits);
    if (nik && Announced(i, {"nik", "ktp", "e-ktp", "nomor induk kependudukan"})) {
      return Make(PersonalKind::kNik, i, 1);
    }
    // One number in a hundred passes another country's check too.
    if (IsPesel(digits) && Announced(i, {"pesel"})) return Make(PersonalKind::kPesel, i, 1);
    if (IsCpf(digits)) return Make(PersonalKind::kCpf, i, 1);
    if (IsPesel(digits)) return Make(PersonalKind::kPesel, i, 1);
    if (IsCnpj(digits)) return Make(PersonalKind::kCnpj, i, 1);
    if (IsNir(digits)) return Make(PersonalKind::kNir, i, 1);
    if (IsCard(digits)) return Make(PersonalKind::kCard, i, 1);
    if (nik) return Make(PersonalKind::kNik, i, 1);
    if (IsAadhaar(digits) && Announced(i, {"aadhaar", "aadhar", "uidai"})) {
      return Make(PersonalKind::kAadhaar, i, 1);
    }
    if (IsSsn(digits) && Announced(i, {"ssn", "social security", "social security number"})) {
      return Make(PersonalKind::kSsn, i, 1);
    }
    return std::nullopt;
  }

  // Pieces of digits from i on, as people set phone numbers apart.
  struct Run {
    size_t count = 0, digits = 0;
    std::array<size_t, 8> sizes{};
  };
  Run PhoneRun(size_t i) const {
    Run run;
    for (size_t at = i; at < pieces_.size() && run.count < run.sizes.size(); ++at) {
      const Piece& piece = pieces_[at];
      if (!piece.digits || piece.size() > 14) break;
      if (run.count > 0) {
        const auto between = text_.substr(pieces_[at - 1].end, piece.begin - pieces_[at - 1].end);
        static constexpr std::string_view kBetween[] = {" ", "-", ".",   ") ", " (",
                                                        ")", "(", " - ", ")-", "/"};
        if (std::find(std::begin(kBetween), std::end(kBetween), between) == std::end(kBetween)) {
          break;
        }
      }
      if (run.digits + piece.size() > 15) break;
      run.sizes[run.count++] = piece.size();
      run.digits += piece.size();
    }
    return run;
  }

  static bool Shaped(const Run& run, std::initializer_list<size_t> sizes) {
    return run.count >= sizes.size() && std::equal(sizes.begin(), sizes.end(), run.sizes.begin());
  }

  Found Phone(size_t i) const {
    const Piece& first = pieces_[i];
    if (!first.digits || IsAlnum(Before(first.begin))) return std::nullopt;
    const Run run = PhoneRun(i);
    size_t count = 0;
    const char before = Before(first.begin);
    const bool plus =
        before == '+' || (before == '(' && first.begin > 1 && text_[first.begin - 2] == '+');
    if (plus && first.size() <= 14) {
      if (run.digits >= 8 && run.digits <= 15 && text_[first.begin] != '0') count = run.count;
    } else if (before == '(' && At(first.end) == ')' && first.size() >= 2 && first.size() <= 4) {
      if (run.digits >= 9 && run.digits <= 13 && run.count >= 2) count = run.count;
    } else if (Ends(i, run)) {
      if (Shaped(run, {3, 3, 4}) && Same(i, 3) && text_[first.begin] >= '2') count = 3;
      if (Shaped(run, {2, 5, 4}) || Shaped(run, {2, 4, 4})) {
        count = text_[pieces_[i + 1].end] == '-' ? 3 : 0;
      }
      if (Shaped(run, {2, 2, 2, 2, 2}) && run.count == 5 && text_[first.begin] == '0' &&
          Same(i, 5)) {
        count = 5;
      }
      if (text_[first.begin] == '0' && text_[first.begin + 1] == '8' && first.size() == 4 &&
          Same(i, 3) && (Shaped(run, {4, 4, 4}) || Shaped(run, {4, 4, 3}))) {
        count = 3;
      }
      const bool announced = run.digits >= 7 && run.digits <= 13 &&
                             Announced(i, {"tel",
                                           "tel.",
                                           "tlf",
                                           "telefone",
                                           "telefono",
                                           "tel\xC3\xA9"
                                           "fono",
                                           "telepon",
                                           "telp",
                                           "telefon",
                                           "phone",
                                           "fone",
                                           "fax",
                                           "mobile",
                                           "cell",
                                           "celular",
                                           "m\xC3\xB3vil",
                                           "whatsapp",
                                           "hp",
                                           "call",
                                           "ligue",
                                           "hotline",
                                           "kom",
                                           "kom.",
                                           "sms"});
      if (count == 0 && announced) count = run.count;
    }
    if (count == 0) return std::nullopt;
    Found found = Make(PersonalKind::kPhone, i, count);
    if (IsAlnum(At(found->end))) return std::nullopt;
    if (plus || before == '(') found->begin -= before == '(' && plus ? 2 : 1;
    return found;
  }

  // No part of a longer thing at the front; the run's end is looked at by its shape.
  bool Ends(size_t i, const Run& run) const {
    const size_t last = i + std::max<size_t>(run.count, 1) - 1;
    return StandsAlone(pieces_[i].begin, pieces_[last].end);
  }

  // One and the same separator between `count` pieces.
  bool Same(size_t i, size_t count) const {
    for (size_t at = i; at + 1 < i + count; ++at) {
      if (at + 1 >= pieces_.size() || pieces_[at + 1].begin != pieces_[at].end + 1) return false;
      const char separator = text_[pieces_[at].end];
      if (separator != text_[pieces_[i].end] || separator == '/') return false;
    }
    return true;
  }

  std::string_view text_;
  std::vector<Piece> pieces_;
  std::vector<PersonalFinding> findings_;
  size_t done_ = 0;
};

}  // namespace

std::string_view PersonalKindName(PersonalKind kind) {
  static constexpr std::string_view kNames[] = {
      "e-mail", "phone", "card", "IBAN", "CPF",     "CNPJ",           "DNI",
      "PESEL",  "NIK",   "NRIC", "SSN",  "Aadhaar", "codice fiscale", "NIR"};
  static_assert(std::size(kNames) == kNumPersonalKinds);
  return kNames[static_cast<size_t>(kind)];
}

std::vector<PersonalFinding> FindPersonalData(std::string_view text) { return Finder(text).Find(); }

std::string MaskPersonalData(std::string_view text, const std::vector<PersonalFinding>& findings) {
  std::string masked;
  size_t at = 0;
  for (const PersonalFinding& finding : findings) {
    masked += text.substr(at, finding.begin - at);
    masked += '[';
    masked += PersonalKindName(finding.kind);
    masked += ']';
    at = finding.end;
  }
  masked += text.substr(at);
  return masked;
}

}  // namespace bakestone
