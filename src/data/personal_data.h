// Personal data in text: what can be told by its form and its check digits, so that it is warned of
// or masked before a model learns it. Names and addresses are not found. Every kind is held against
// a labelled set (tests/data/personal); the rules:
//
//   e-mail            local@domain.tld
//   phone             +country and 7 to 14 digits; (area) with 7 to 10 digits; 3-3-4 and local
//                     groups after a word that says phone
//   card              13 to 19 digits of a known range, Luhn
//   IBAN              country's length, modulo 97
//   CPF, CNPJ         Brazil: both check digits
//   DNI, NIE          Spain: check letter
//   PESEL             Poland: check digit and a birth date
//   NIK               Indonesia: province, birth date, 16 digits
//   NRIC, FIN         Singapore: check letter
//   SSN               United States: 3-2-4 with the ranges that are given out
//   Aadhaar           India: 4-4-4, Verhoeff's digit
//   codice fiscale    Italy: check letter
//   NIR               France: 13 digits and the key modulo 97
//
// Pure functions, linear in the text, for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone {

enum class PersonalKind : uint8_t {
  kEmail,
  kPhone,
  kCard,
  kIban,
  kCpf,
  kCnpj,
  kDni,
  kPesel,
  kNik,
  kNric,
  kSsn,
  kAadhaar,
  kCodiceFiscale,
  kNir
};
inline constexpr int kNumPersonalKinds = 14;
std::string_view PersonalKindName(PersonalKind kind);  // "e-mail", "phone", ...

struct PersonalFinding {
  PersonalKind kind;
  size_t begin, end;  // bytes of the text
};

// Ascending, none over another one.
std::vector<PersonalFinding> FindPersonalData(std::string_view text);

// The text with each finding as its kind in brackets: "[e-mail]".
std::string MaskPersonalData(std::string_view text, const std::vector<PersonalFinding>& findings);

}  // namespace bakestone
