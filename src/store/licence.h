// Licences, derived and not printed: what the result of a run may be used for, from its base and
// its data, by rules that are stated here and shown with the result.
//
//   1. A part whose licence is absent or not known here is "unknown", and so is the result.
//   2. A non-commercial part makes the result non-commercial.
//   3. A part that may not be changed or passed on changed (no derivatives, all rights reserved)
//      makes the result "not redistributable".
//   4. The base's own terms (a licence that restricts use or asks for its name, such as llama3.1,
//      gemma, openrail) pass to the result, which keeps the base's identifier.
//   5. Share-alike data (cc-by-sa, gpl) is kept as an obligation with a warning: whether weights
//      are an adaptation of data is not settled.
//   6. Else the result has the base's identifier; each part that asks for attribution is listed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bakestone {

enum class LicenceKind {
  kPublicDomain,   // no conditions: CC0, public domain, Unlicense
  kPermissive,     // attribution or notice: Apache-2.0, MIT, BSD, CC-BY, PSF
  kShareAlike,     // copyleft: CC-BY-SA, GPL, GFDL
  kUseRestricted,  // a model's own terms: llama3, gemma, openrail
  kNonCommercial,
  kNoDerivatives,
  kUnknown,
};

struct Licence {
  std::string id;  // canonical spelling ("Apache-2.0"), or what was found
  LicenceKind kind = LicenceKind::kUnknown;
  bool attribution = false;
};

// Understands SPDX identifiers and the words of model hubs, in any case. Absent, empty, "other" and
// what is not in the table: kUnknown, never a guess.
Licence ParseLicence(std::optional<std::string_view> text);

const char* LicenceKindName(LicenceKind kind);

struct LicensedPart {
  std::string name;  // "base SmolLM2-135M-Instruct", "data 'handbook'"
  Licence licence;
};

struct DerivedLicence {
  Licence licence;
  std::vector<std::string> reasons;      // which rule, because of which part
  std::vector<std::string> obligations;  // attribution, share-alike
  std::vector<std::string> warnings;     // what a user must know before using it in earnest
};

DerivedLicence DeriveLicence(const LicensedPart& base, const std::vector<LicensedPart>& data);

}  // namespace bakestone
