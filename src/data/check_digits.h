// Check digits of numbers that people carry. Each function gets the bare number, separators taken
// out, letters as capitals, and says whether it may be one; digits are '0' to '9'. Sources: ISO/IEC
// 7812 (cards), ISO 13616 (IBAN), and each country's own rule, named beside it in check_digits.cc.
#pragma once

#include <string_view>

namespace bakestone {

inline bool IsDigit(char c) { return c >= '0' && c <= '9'; }

bool IsCard(std::string_view digits);  // 13 to 19, issuer's range, Luhn
bool IsIban(std::string_view text);    // country and its length, modulo 97
bool IsCpf(std::string_view digits);   // Brazil, person: 11
bool IsCnpj(std::string_view digits);  // Brazil, company: 14
bool IsDni(
    std::string_view text);  // Spain: 8 digits and a letter, or X, Y, Z, 7 digits and a letter
bool IsPesel(std::string_view digits);        // Poland: 11
bool IsNik(std::string_view digits);          // Indonesia: 16
bool IsNric(std::string_view text);           // Singapore: S, T, F, G, M, 7 digits and a letter
bool IsSsn(std::string_view digits);          // United States: 9
bool IsAadhaar(std::string_view digits);      // India: 12
bool IsCodiceFiscale(std::string_view text);  // Italy: 16
bool IsNir(std::string_view digits);          // France: 15, key included

}  // namespace bakestone
