#include "data/personal_data.h"

#include <cstdio>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "data/check_digits.h"

namespace bakestone {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Found(std::string_view text) {
  std::vector<std::string> found;
  for (const PersonalFinding& finding : FindPersonalData(text)) {
    found.push_back(std::string(PersonalKindName(finding.kind)) + " " +
                    std::string(text.substr(finding.begin, finding.end - finding.begin)));
  }
  return found;
}

TEST(CheckDigits, KnownExamplesPassAndEveryOtherLastDigitFails) {
  struct Case {
    bool (*check)(std::string_view);
    std::string number;
  };
  // Specimens that the issuers publish.
  for (const auto& [check, number] : std::vector<Case>{{IsCard, "4111111111111111"},
                                                       {IsCard, "378282246310005"},
                                                       {IsIban, "DE89370400440532013000"},
                                                       {IsIban, "GB29NWBK60161331926819"},
                                                       {IsCpf, "52998224725"},
                                                       {IsCnpj, "11222333000181"},
                                                       {IsPesel, "44051401359"},
                                                       {IsNir, "255081416802538"}}) {
    EXPECT_TRUE(check(number)) << number;
    for (char c = '0'; c <= '9'; ++c) {
      std::string other = number;
      other.back() = c;
      if (other != number) {
        EXPECT_FALSE(check(other)) << other;
      }
    }
  }
  EXPECT_TRUE(IsDni("12345678Z"));
  EXPECT_TRUE(IsDni("X1234567L"));
  EXPECT_FALSE(IsDni("12345678A"));
  EXPECT_TRUE(IsNric("S1234567D"));
  EXPECT_FALSE(IsNric("S1234567E"));
  EXPECT_TRUE(IsCodiceFiscale("RSSMRA85T10A562S"));
  EXPECT_FALSE(IsCodiceFiscale("RSSMRA85T10A562T"));
  EXPECT_TRUE(IsAadhaar("234123412346"));
  EXPECT_FALSE(IsAadhaar("234123412347"));
  EXPECT_TRUE(IsNik("3171014501900001"));
  EXPECT_FALSE(IsNik("3171013213900001"));  // no thirteenth month
  EXPECT_TRUE(IsSsn("219099999"));
  EXPECT_FALSE(IsSsn("666099999"));
}

TEST(PersonalData, IsMaskedInPlace) {
  const std::string text =
      "Ask ana.souza@example.com. or call +55 11 91234-5678, CPF 529.982.247-25.";
  EXPECT_THAT(Found(text), ElementsAre("e-mail ana.souza@example.com", "phone +55 11 91234-5678",
                                       "CPF 529.982.247-25"));
  EXPECT_EQ(MaskPersonalData(text, FindPersonalData(text)),
            "Ask [e-mail]. or call [phone], CPF [CPF].");
}

TEST(PersonalData, HostileTextTakesLinearTime) {
  for (const std::string part : {"1", "1 ", "a@", "a.", "@", "+1-", "(1)", "AB12 ", "\xFF"}) {
    std::string text;
    while (text.size() < 200'000) text += part;
    FindPersonalData(text);  // a quadratic scan would take minutes
  }
  EXPECT_TRUE(FindPersonalData("").empty());
}

// Precision and recall by kind, on sentences made by tools/make_personal_goldens.py.
TEST(PersonalData, PrecisionAndRecallOnLabelledSentences) {
  const std::string lines = ReadFile(BAKESTONE_TEST_DATA "/personal/labelled.jsonl");
  struct Tally {
    int right = 0, found = 0, labelled = 0;
  };
  std::map<std::string, Tally> tallies;
  size_t begin = 0;
  while (begin < lines.size()) {
    const size_t end = lines.find('\n', begin);
    const auto line = nlohmann::json::parse(lines.substr(begin, end - begin));
    begin = end + 1;
    const std::string text = line["text"];
    std::multiset<std::string> labelled;
    for (const auto& item : line["found"]) {
      labelled.insert(item[0].get<std::string>() + " " + item[1].get<std::string>());
      ++tallies[item[0]].labelled;
    }
    for (const PersonalFinding& finding : FindPersonalData(text)) {
      const std::string kind(PersonalKindName(finding.kind));
      const auto known =
          labelled.find(kind + " " + text.substr(finding.begin, finding.end - finding.begin));
      ++tallies[kind].found;
      if (known == labelled.end()) {
        std::printf("  extra  %s in: %s\n", kind.c_str(), text.c_str());
        continue;
      }
      labelled.erase(known);
      ++tallies[kind].right;
    }
    for (const std::string& missed : labelled) {
      std::printf("  missed %s in: %s\n", missed.c_str(), text.c_str());
    }
  }
  ASSERT_EQ(tallies.size(), static_cast<size_t>(kNumPersonalKinds));
  Tally all;
  for (const auto& [kind, tally] : tallies) {
    std::printf("%-15s precision %.3f recall %.3f of %d\n", kind.c_str(),
                double(tally.right) / tally.found, double(tally.right) / tally.labelled,
                tally.labelled);
    EXPECT_GE(tally.right, 0.95 * tally.found) << kind;
    EXPECT_GE(tally.right, 0.95 * tally.labelled) << kind;
    all.right += tally.right;
    all.found += tally.found;
    all.labelled += tally.labelled;
  }
  EXPECT_GE(all.right, 0.98 * all.found);
  EXPECT_GE(all.right, 0.98 * all.labelled);
}

}  // namespace
}  // namespace bakestone
