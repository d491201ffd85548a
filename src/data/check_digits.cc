#include "data/check_digits.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace bakestone {
namespace {

int Digit(char c) { return c - '0'; }
bool AllDigits(std::string_view text) { return std::all_of(text.begin(), text.end(), IsDigit); }
bool AllSame(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c == text[0]; });
}
int Number(std::string_view digits) {
  int number = 0;
  for (const char c : digits) number = number * 10 + Digit(c);
  return number;
}

bool IsDay(int month, int day) {
  static constexpr int kDays[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return month >= 1 && month <= 12 && day >= 1 && day <= kDays[month - 1];
}

// Sum of digits times weights.
template <size_t N>
int Weighted(std::string_view digits, const std::array<int, N>& weights) {
  int sum = 0;
  for (size_t i = 0; i < N; ++i) sum += Digit(digits[i]) * weights[i];
  return sum;
}

bool Luhn(std::string_view digits) {
  int sum = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    int digit = Digit(digits[digits.size() - 1 - i]);
    if (i % 2 == 1) digit = digit * 2 > 9 ? digit * 2 - 9 : digit * 2;
    sum += digit;
  }
  return sum % 10 == 0;
}

int Modulo97(std::string_view text) {
  int64_t rest = 0;
  for (const char c : text) {
    const int value = IsDigit(c) ? Digit(c) : c - 'A' + 10;
    rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
  }
  return static_cast<int>(rest);
}

}  // namespace

// ISO/IEC 7812: first digits of Visa, Mastercard, American Express, Discover, Diners, JCB,
// UnionPay, Maestro.
bool IsCard(std::string_view digits) {
  const size_t size = digits.size();
  if (size < 13 || size > 19 || !AllDigits(digits) || AllSame(digits) || !Luhn(digits)) {
    return false;
  }
  const int two = Number(digits.substr(0, 2)), four = Number(digits.substr(0, 4));
  if (digits[0] == '4') return size == 13 || size == 16 || size == 19;
  if ((two >= 51 && two <= 55) || (four >= 2221 && four <= 2720)) return size == 16;
  if (two == 34 || two == 37) return size == 15;
  if (two == 36 || two == 38 || two == 39 || (four >= 3000 && four <= 3059)) {
    return size == 14 || size == 16;
  }
  if (four == 6011 || two == 65 || two == 62 || (four >= 6440 && four <= 6499)) return size >= 16;
  if (four >= 3528 && four <= 3589) return size >= 16;
  return (two == 50 || (two >= 56 && two <= 58) || two == 63 || two == 67) && size >= 15;
}

// ISO 13616, registry of lengths (SWIFT, release 99).
bool IsIban(std::string_view text) {
  static constexpr std::pair<const char*, size_t> kLengths[] = {
      {"AD", 24}, {"AE", 23}, {"AL", 28}, {"AT", 20}, {"AZ", 28}, {"BA", 20}, {"BE", 16},
      {"BG", 22}, {"BH", 22}, {"BR", 29}, {"BY", 28}, {"CH", 21}, {"CR", 22}, {"CY", 28},
      {"CZ", 24}, {"DE", 22}, {"DK", 18}, {"DO", 28}, {"EE", 20}, {"EG", 29}, {"ES", 24},
      {"FI", 18}, {"FO", 18}, {"FR", 27}, {"GB", 22}, {"GE", 22}, {"GI", 23}, {"GL", 18},
      {"GR", 27}, {"GT", 28}, {"HR", 21}, {"HU", 28}, {"IE", 22}, {"IL", 23}, {"IQ", 23},
      {"IS", 26}, {"IT", 27}, {"JO", 30}, {"KW", 30}, {"KZ", 20}, {"LB", 28}, {"LC", 32},
      {"LI", 21}, {"LT", 20}, {"LU", 20}, {"LV", 21}, {"MC", 27}, {"MD", 24}, {"ME", 22},
      {"MK", 19}, {"MR", 27}, {"MT", 31}, {"MU", 30}, {"NL", 18}, {"NO", 15}, {"PK", 24},
      {"PL", 28}, {"PS", 29}, {"PT", 25}, {"QA", 29}, {"RO", 24}, {"RS", 22}, {"SA", 24},
      {"SE", 24}, {"SI", 19}, {"SK", 24}, {"SM", 27}, {"TN", 24}, {"TR", 26}, {"UA", 29},
      {"VA", 22}, {"VG", 24}, {"XK", 20}};
  if (text.size() < 15 || text.size() > 32 || !AllDigits(text.substr(2, 2))) return false;
  const bool known =
      std::any_of(std::begin(kLengths), std::end(kLengths), [&](const auto& country) {
        return text.substr(0, 2) == country.first && text.size() == country.second;
      });
  if (!known) return false;
  std::array<char, 32> turned{};
  std::copy(text.begin() + 4, text.end(), turned.begin());
  std::copy(text.begin(), text.begin() + 4, turned.begin() + static_cast<int64_t>(text.size()) - 4);
  return Modulo97({turned.data(), text.size()}) == 1;
}

// Receita Federal: modulo 11, a rest below 2 gives 0.
bool IsCpf(std::string_view digits) {
  if (digits.size() != 11 || !AllDigits(digits) || AllSame(digits)) return false;
  const auto check = [](int sum) { return sum % 11 < 2 ? 0 : 11 - sum % 11; };
  return check(Weighted(digits, std::array{10, 9, 8, 7, 6, 5, 4, 3, 2})) == Digit(digits[9]) &&
         check(Weighted(digits, std::array{11, 10, 9, 8, 7, 6, 5, 4, 3, 2})) == Digit(digits[10]);
}

bool IsCnpj(std::string_view digits) {
  if (digits.size() != 14 || !AllDigits(digits) || AllSame(digits)) return false;
  const auto check = [](int sum) { return sum % 11 < 2 ? 0 : 11 - sum % 11; };
  return check(Weighted(digits, std::array{5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2})) ==
             Digit(digits[12]) &&
         check(Weighted(digits, std::array{6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2})) ==
             Digit(digits[13]);
}

// Ministerio del Interior: the number modulo 23 names the letter; X, Y, Z stand for 0, 1, 2.
bool IsDni(std::string_view text) {
  constexpr std::string_view kLetters = "TRWAGMYFPDXBNJZSQVHLCKE";
  if (text.size() != 9 || !AllDigits(text.substr(1, 7))) return false;
  int first = 0;
  if (IsDigit(text[0])) {
    first = Digit(text[0]);
  } else if (text[0] >= 'X' && text[0] <= 'Z') {
    first = text[0] - 'X';
  } else {
    return false;
  }
  const int number = first * 10'000'000 + Number(text.substr(1, 7));
  return number > 0 && kLetters[static_cast<size_t>(number % 23)] == text[8];
}

// Month carries the century: 1800 + 80, 1900 + 0, 2000 + 20, 2100 + 40, 2200 + 60.
bool IsPesel(std::string_view digits) {
  if (digits.size() != 11 || !AllDigits(digits)) return false;
  if (!IsDay(Number(digits.substr(2, 2)) % 20, Number(digits.substr(4, 2)))) return false;
  const int sum = Weighted(digits, std::array{1, 3, 7, 9, 1, 3, 7, 9, 1, 3});
  return (10 - sum % 10) % 10 == Digit(digits[10]);
}

// Province (2), regency (2), district (2), day (+40 for women), month, year, serial number. No
// check digit.
bool IsNik(std::string_view digits) {
  static constexpr int kProvinces[] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 21, 31, 32, 33,
                                       34, 35, 36, 51, 52, 53, 61, 62, 63, 64, 65, 71, 72,
                                       73, 74, 75, 76, 81, 82, 91, 92, 93, 94, 95, 96};
  if (digits.size() != 16 || !AllDigits(digits)) return false;
  const int province = Number(digits.substr(0, 2));
  if (!std::binary_search(std::begin(kProvinces), std::end(kProvinces), province)) return false;
  const int regency = Number(digits.substr(2, 2)), district = Number(digits.substr(4, 2));
  if (regency == 0 || district == 0 || Number(digits.substr(12, 4)) == 0) return false;
  const int day = Number(digits.substr(6, 2));
  return IsDay(Number(digits.substr(8, 2)), day > 40 ? day - 40 : day);
}

// Immigration and Checkpoints Authority: weights 2 7 6 5 4 3 2, +4 for T and G, +3 for M.
bool IsNric(std::string_view text) {
  if (text.size() != 9 || !AllDigits(text.substr(1, 7))) return false;
  int sum = Weighted(text.substr(1, 7), std::array{2, 7, 6, 5, 4, 3, 2});
  const char series = text[0];
  if (series == 'T' || series == 'G') sum += 4;
  if (series == 'M') sum += 3;
  const auto rest = static_cast<size_t>(sum % 11);
  if (series == 'S' || series == 'T') return std::string_view("JZIHGFEDCBA")[rest] == text[8];
  if (series == 'F' || series == 'G') return std::string_view("XWUTRQPNMLK")[rest] == text[8];
  if (series == 'M') return std::string_view("XWUTRQPNJLK")[rest] == text[8];
  return false;
}

// Social Security Administration: area not 000, 666, 900-999; group not 00; serial not 0000.
bool IsSsn(std::string_view digits) {
  if (digits.size() != 9 || !AllDigits(digits)) return false;
  const int area = Number(digits.substr(0, 3));
  if (digits == "123456789" || digits == "078051120") return false;  // printed in advertisements
  return area != 0 && area != 666 && area < 900 && digits.substr(3, 2) != "00" &&
         digits.substr(5) != "0000";
}

// J. Verhoeff, "Error Detecting Decimal Codes", 1969: products in the dihedral group of order 10.
bool IsAadhaar(std::string_view digits) {
  static constexpr int kPermutation[8][10] = {
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4},
      {5, 8, 0, 3, 7, 9, 6, 1, 4, 2}, {8, 9, 1, 6, 0, 4, 3, 5, 2, 7},
      {9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1},
      {2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8}};
  if (digits.size() != 12 || !AllDigits(digits) || digits[0] < '2') return false;
  const auto product = [](int a, int b) {
    if (a < 5) return b < 5 ? (a + b) % 5 : 5 + (a + b - 5) % 5;
    return b < 5 ? 5 + (a - 5 - b + 5) % 5 : (a - b + 5) % 5;
  };
  int check = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    check = product(check, kPermutation[i % 8][Digit(digits[digits.size() - 1 - i])]);
  }
  return check == 0;
}

// Agenzia delle Entrate, DM 23/12/1976: odd places by a table, even ones by value, modulo 26.
// Digits may have been replaced by letters where two people would bear the same code.
bool IsCodiceFiscale(std::string_view text) {
  static constexpr int kOdd[] = {1,  0,  5, 7, 9, 13, 15, 17, 19, 21, 2,  4,  18,
                                 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23};
  constexpr std::string_view kShape = "AAAAAA00A00A000A", kReplaced = "LMNPQRSTUV",
                             kMonths = "ABCDEHLMPRST";
  if (text.size() != kShape.size()) return false;
  int sum = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool letter = c >= 'A' && c <= 'Z';
    if (kShape[i] == 'A' ? !letter : !IsDigit(c) && kReplaced.find(c) == std::string_view::npos) {
      return false;
    }
    if (i == 15) break;
    const int value = letter ? c - 'A' : Digit(c);
    sum += i % 2 == 0 ? kOdd[value] : value;
  }
  return kMonths.find(text[8]) != std::string_view::npos && text[15] == 'A' + sum % 26;
}

// INSEE: sex, year, month, department, commune, order; key = 97 - number modulo 97. Corsica's 2A
// and 2B are left out.
bool IsNir(std::string_view digits) {
  if (digits.size() != 15 || !AllDigits(digits) || (digits[0] != '1' && digits[0] != '2')) {
    return false;
  }
  const int month = Number(digits.substr(3, 2));
  if (month == 0 || (month > 12 && month < 20) || digits.substr(5, 2) == "00") return false;
  return 97 - Modulo97(digits.substr(0, 13)) == Number(digits.substr(13, 2));
}

}  // namespace bakestone
