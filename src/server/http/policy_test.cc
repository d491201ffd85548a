#include "server/http/policy.h"

#include <gtest/gtest.h>

namespace bakestone::http {
namespace {

TEST(HostAllowed, ThisMachineAddressesAndGivenNamesOnly) {
  const std::vector<std::string> allowed = {"models.intern"};
  for (const char* host :
       {"localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:1", "192.168.1.7:8080", "[::1]",
        "[::1]:8080", "models.intern", "Models.Intern:443"}) {
    EXPECT_TRUE(HostAllowed(host, allowed)) << host;
  }
  for (const char* host :
       {"", ":80", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.1",
        "2130706433", "0x7f.1", "localhost:8080:1", "localhost:http", "[::1", "[::1]x", "[evil]",
        "localhost ", "models.intern.evil", "localhost\t", "localhost."}) {
    EXPECT_FALSE(HostAllowed(host, allowed)) << host;
  }
}

TEST(IsLoopback, KnowsTheWholeNetwork) {
  EXPECT_TRUE(IsLoopback("127.0.0.1"));
  EXPECT_TRUE(IsLoopback("127.255.0.3"));
  EXPECT_TRUE(IsLoopback("::1"));
  EXPECT_TRUE(IsLoopback("localhost"));
  EXPECT_FALSE(IsLoopback("0.0.0.0"));
  EXPECT_FALSE(IsLoopback("::"));
  EXPECT_FALSE(IsLoopback("10.0.0.1"));
  EXPECT_FALSE(IsLoopback("127.0.0.1.example"));
}

}  // namespace
}  // namespace bakestone::http
