#include "store/licence.h"

#include <algorithm>
#include <cctype>

#include <fmt/core.h>

namespace bakestone {
namespace {

struct Entry {
  std::string_view word;  // lower case
  std::string_view id;    // canonical
  LicenceKind kind;
  bool attribution;
};

using enum LicenceKind;

// SPDX identifiers and the hubs' words for them. Longest match is not tried: a word is known or
// not.
constexpr Entry kEntries[] = {
    {"cc0-1.0", "CC0-1.0", kPublicDomain, false},
    {"public-domain", "public-domain", kPublicDomain, false},
    {"public domain", "public-domain", kPublicDomain, false},
    {"unlicense", "Unlicense", kPublicDomain, false},
    {"0bsd", "0BSD", kPublicDomain, false},
    {"pddl", "PDDL-1.0", kPublicDomain, false},
    {"apache-2.0", "Apache-2.0", kPermissive, true},
    {"apache 2.0", "Apache-2.0", kPermissive, true},
    {"mit", "MIT", kPermissive, true},
    {"mit-0", "MIT-0", kPublicDomain, false},
    {"isc", "ISC", kPermissive, true},
    {"zlib", "Zlib", kPermissive, true},
    {"bsd-2-clause", "BSD-2-Clause", kPermissive, true},
    {"bsd-3-clause", "BSD-3-Clause", kPermissive, true},
    {"psf-2.0", "PSF-2.0", kPermissive, true},
    {"python-2.0", "Python-2.0", kPermissive, true},
    {"cc-by-3.0", "CC-BY-3.0", kPermissive, true},
    {"cc-by-4.0", "CC-BY-4.0", kPermissive, true},
    {"odc-by", "ODC-By-1.0", kPermissive, true},
    {"cc-by-sa-3.0", "CC-BY-SA-3.0", kShareAlike, true},
    {"cc-by-sa-4.0", "CC-BY-SA-4.0", kShareAlike, true},
    {"odbl", "ODbL-1.0", kShareAlike, true},
    {"gpl-2.0", "GPL-2.0-only", kShareAlike, true},
    {"gpl-2.0-only", "GPL-2.0-only", kShareAlike, true},
    {"gpl-2.0-or-later", "GPL-2.0-or-later", kShareAlike, true},
    {"gpl-3.0", "GPL-3.0-only", kShareAlike, true},
    {"gpl-3.0-only", "GPL-3.0-only", kShareAlike, true},
    {"gpl-3.0-or-later", "GPL-3.0-or-later", kShareAlike, true},
    {"agpl-3.0", "AGPL-3.0-only", kShareAlike, true},
    {"lgpl-3.0", "LGPL-3.0-only", kShareAlike, true},
    {"mpl-2.0", "MPL-2.0", kShareAlike, true},
    {"gfdl", "GFDL-1.3", kShareAlike, true},
    {"gfdl-1.3", "GFDL-1.3", kShareAlike, true},
    {"llama2", "llama2", kUseRestricted, true},
    {"llama3", "llama3", kUseRestricted, true},
    {"llama3.1", "llama3.1", kUseRestricted, true},
    {"llama3.2", "llama3.2", kUseRestricted, true},
    {"llama3.3", "llama3.3", kUseRestricted, true},
    {"llama4", "llama4", kUseRestricted, true},
    {"gemma", "gemma", kUseRestricted, true},
    {"openrail", "openrail", kUseRestricted, true},
    {"openrail++", "openrail++", kUseRestricted, true},
    {"bigscience-openrail-m", "bigscience-openrail-m", kUseRestricted, true},
    {"bigcode-openrail-m", "bigcode-openrail-m", kUseRestricted, true},
    {"creativeml-openrail-m", "creativeml-openrail-m", kUseRestricted, true},
    {"deepseek", "deepseek", kUseRestricted, true},
    {"qwen", "qwen", kUseRestricted, true},
    {"cc-by-nc-2.0", "CC-BY-NC-2.0", kNonCommercial, true},
    {"cc-by-nc-3.0", "CC-BY-NC-3.0", kNonCommercial, true},
    {"cc-by-nc-4.0", "CC-BY-NC-4.0", kNonCommercial, true},
    {"cc-by-nc-sa-3.0", "CC-BY-NC-SA-3.0", kNonCommercial, true},
    {"cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0", kNonCommercial, true},
    {"qwen-research", "qwen-research", kNonCommercial, true},
    {"mistral-research", "mistral-research", kNonCommercial, true},
    {"fair-noncommercial-research-license", "FAIR-Noncommercial", kNonCommercial, true},
    {"cc-by-nd-4.0", "CC-BY-ND-4.0", kNoDerivatives, true},
    {"cc-by-nc-nd-4.0", "CC-BY-NC-ND-4.0", kNoDerivatives, true},
    {"all rights reserved", "all-rights-reserved", kNoDerivatives, true},
    {"proprietary", "proprietary", kNoDerivatives, true},
};

bool SameId(const LicensedPart& part, const Licence& licence) {
  return part.licence.id == licence.id;
}

void AddObligations(const LicensedPart& part, DerivedLicence* result) {
  if (part.licence.attribution) {
    result->obligations.push_back(
        fmt::format("keep the notice of {} ({})", part.name, part.licence.id));
  }
  if (part.licence.kind == kShareAlike) {
    result->warnings.push_back(fmt::format(
        "{} is share-alike ({}): whether weights trained on it must carry its licence is not "
        "settled; take advice before passing the result on",
        part.name, part.licence.id));
  }
}

}  // namespace

Licence ParseLicence(std::optional<std::string_view> text) {
  if (!text) return {"unknown", kUnknown, false};
  std::string word(*text);
  const auto is_space = [](unsigned char c) { return std::isspace(c) != 0; };
  word.erase(word.begin(), std::find_if_not(word.begin(), word.end(), is_space));
  word.erase(std::find_if_not(word.rbegin(), word.rend(), is_space).base(), word.end());
  const std::string found = word;
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Entry& entry : kEntries) {
    if (word == entry.word) return {std::string(entry.id), entry.kind, entry.attribution};
  }
  return {found.empty() ? "unknown" : found, kUnknown, false};
}

const char* LicenceKindName(LicenceKind kind) {
  switch (kind) {
    case kPublicDomain:
      return "public domain";
    case kPermissive:
      return "permissive";
    case kShareAlike:
      return "share-alike";
    case kUseRestricted:
      return "use restricted";
    case kNonCommercial:
      return "non-commercial";
    case kNoDerivatives:
      return "no derivatives";
    case kUnknown:
      return "unknown";
  }
  return "unknown";
}

DerivedLicence DeriveLicence(const LicensedPart& base, const std::vector<LicensedPart>& data) {
  std::vector<LicensedPart> parts = {base};
  parts.insert(parts.end(), data.begin(), data.end());
  DerivedLicence result;
  result.licence = base.licence;
  for (const LicensedPart& part : parts) AddObligations(part, &result);

  const auto collect = [&](LicenceKind kind, const std::string& id, const char* rule,
                           const char* warning) {
    bool any = false;
    for (const LicensedPart& part : parts) {
      if (part.licence.kind != kind) continue;
      any = true;
      result.reasons.push_back(fmt::format("{}: {} is '{}'", rule, part.name, part.licence.id));
      result.warnings.push_back(fmt::format("{} is '{}': {}", part.name, part.licence.id, warning));
    }
    if (any) {
      result.licence = {
          SameId(base, result.licence) && base.licence.kind == kind ? base.licence.id : id, kind,
          false};
    }
    return any;
  };
  // The strictest last, so that it decides: rules 2, 3, 1.
  const bool non_commercial = collect(kNonCommercial, "non-commercial", "rule 2",
                                      "the result may not be used commercially");
  const bool no_derivatives =
      collect(kNoDerivatives, "not-redistributable", "rule 3", "the result may not be passed on");
  const bool unknown =
      collect(kUnknown, "unknown", "rule 1",
              "what the result may be used for is not known; find out and write it "
              "into the recipe");
  if (non_commercial || no_derivatives || unknown) return result;
  if (base.licence.kind == kUseRestricted) {
    result.reasons.push_back(
        fmt::format("rule 4: the terms of {} ({}) pass to the result", base.name, base.licence.id));
    result.warnings.push_back(fmt::format("{} comes under '{}', which restricts use: read it",
                                          base.name, base.licence.id));
  } else {
    result.reasons.push_back(
        fmt::format("rule 6: {} is {}, no part restricts it further", base.name, base.licence.id));
  }
  return result;
}

}  // namespace bakestone
