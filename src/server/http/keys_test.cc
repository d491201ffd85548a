#include "server/http/keys.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace bakestone::http {
namespace {

KeyRing Ring(const std::vector<std::string>& lines) { return KeyRing(lines); }

TEST(KeyRing, TenantsHaveDifferentNames) {
  const KeyRing ring = Ring({"0123456789abcdef", "fedcba9876543210"});
  const auto a = ring.Find("0123456789abcdef"), b = ring.Find("fedcba9876543210");
  ASSERT_TRUE(a && b);
  EXPECT_NE(a->tenant, b->tenant);
  EXPECT_EQ(a->name, a->tenant);
  EXPECT_EQ(a->tenant.find("0123456789abcdef"), std::string::npos);
  EXPECT_FALSE(ring.Find(""));
  EXPECT_FALSE(ring.Find("0123456789abcdef "));
}

TEST(KeyRing, HashedKeysAreFoundByTheirText) {
  const KeyRing ring = Ring({"sha256:" + ToHex(HashOf("0123456789abcdef")) +
                             "  name=team models=a,b default=b background max-requests=2 "
                             "requests-per-minute=30 tokens-per-minute=5000"});
  const auto key = ring.Find("0123456789abcdef");
  ASSERT_TRUE(key);
  EXPECT_EQ(key->name, "team");
  EXPECT_EQ(key->models, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(key->default_model, "b");
  EXPECT_TRUE(key->background);
  EXPECT_FALSE(key->admin);
  EXPECT_EQ(key->max_requests, 2);
  EXPECT_EQ(key->requests_per_minute, 30);
  EXPECT_EQ(key->tokens_per_minute, 5000);
  EXPECT_FALSE(
      ring.Find("sha256:" + ToHex(HashOf("0123456789abcdef"))));  // the digest itself opens nothing
}

TEST(KeyRing, WrongLinesAreToldByNumberWithoutTheirKey) {
  for (const char* line :
       {"short", "sha256:12", "sha256:zz", "0123456789abcde\xC3\xA9", "0123456789abcdef rest",
        "0123456789abcdef limit=5", "0123456789abcdef max-requests=0",
        "0123456789abcdef max-requests=x", "0123456789abcdef max-requests=99999999999999999999",
        "0123456789abcdef name=", "first-key-0123456789"}) {
    try {
      Ring({"first-key-0123456789", line});
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("line 2"), std::string::npos) << message;
      EXPECT_EQ(message.find("0123456789"), std::string::npos) << message;
    }
  }
  EXPECT_TRUE(Ring({"", " # nothing"}).empty());
  EXPECT_THROW(Ring({"first-key-0123456789 name=x", "second-key-0123456789 name=x"}), Error);
}

}  // namespace
}  // namespace bakestone::http
