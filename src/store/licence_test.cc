#include "store/licence.h"

#include <gmock/gmock.h>

namespace bakestone {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

LicensedPart Part(const char* name, std::optional<std::string_view> licence) {
  return {name, ParseLicence(licence)};
}

TEST(Licence, ReadsSpdxAndHubWordsInAnyCase) {
  EXPECT_EQ(ParseLicence("Apache-2.0").kind, LicenceKind::kPermissive);
  EXPECT_EQ(ParseLicence(" apache-2.0 ").id, "Apache-2.0");
  EXPECT_EQ(ParseLicence("llama3.1").kind, LicenceKind::kUseRestricted);
  EXPECT_EQ(ParseLicence("CC-BY-NC-4.0").kind, LicenceKind::kNonCommercial);
}

TEST(Licence, AbsentAndUnlistedAreUnknownNeverAGuess) {
  EXPECT_EQ(ParseLicence(std::nullopt).kind, LicenceKind::kUnknown);
  EXPECT_EQ(ParseLicence("").id, "unknown");
  EXPECT_EQ(ParseLicence("other").kind, LicenceKind::kUnknown);
  EXPECT_EQ(ParseLicence("apache-2.0-ish").id, "apache-2.0-ish");
  EXPECT_EQ(ParseLicence("apache-2.0-ish").kind, LicenceKind::kUnknown);
}

TEST(DeriveLicence, PermissiveBaseAndPublicDomainDataKeepTheBases) {
  const auto result = DeriveLicence(Part("base", "apache-2.0"), {Part("data", "CC0-1.0")});
  EXPECT_EQ(result.licence.id, "Apache-2.0");
  EXPECT_THAT(result.warnings, IsEmpty());
  EXPECT_THAT(result.obligations, SizeIs(1));
}

TEST(DeriveLicence, UnknownDataMakesTheResultUnknownWithAWarning) {
  const auto result = DeriveLicence(Part("base", "apache-2.0"), {Part("notes", std::nullopt)});
  EXPECT_EQ(result.licence.id, "unknown");
  ASSERT_THAT(result.warnings, SizeIs(1));
  EXPECT_THAT(result.warnings[0], HasSubstr("notes"));
}

TEST(DeriveLicence, NonCommercialDataMakesTheResultNonCommercial) {
  const auto result = DeriveLicence(Part("base", "mit"), {Part("data", "cc-by-nc-4.0")});
  EXPECT_EQ(result.licence.kind, LicenceKind::kNonCommercial);
  EXPECT_THAT(result.warnings, SizeIs(1));
}

TEST(DeriveLicence, UnknownOutranksNonCommercial) {
  const auto result =
      DeriveLicence(Part("base", "mit"), {Part("a", "cc-by-nc-4.0"), Part("b", "whatever")});
  EXPECT_EQ(result.licence.kind, LicenceKind::kUnknown);
  EXPECT_THAT(result.reasons, SizeIs(2));
}

TEST(DeriveLicence, ModelTermsPassToTheResult) {
  const auto result = DeriveLicence(Part("base", "gemma"), {Part("data", "mit")});
  EXPECT_EQ(result.licence.id, "gemma");
  EXPECT_THAT(result.warnings, SizeIs(1));
}

TEST(DeriveLicence, ShareAlikeDataIsWarnedAboutAndListed) {
  const auto result = DeriveLicence(Part("base", "apache-2.0"), {Part("wiki", "cc-by-sa-4.0")});
  EXPECT_EQ(result.licence.id, "Apache-2.0");
  EXPECT_THAT(result.warnings, SizeIs(1));
  EXPECT_THAT(result.obligations, SizeIs(2));
}

}  // namespace
}  // namespace bakestone
