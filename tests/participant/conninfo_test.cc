// What is put behind a connection string, as libpq then understands it.
#include "participant/conninfo.h"

#include <filesystem>
#include <map>
#include <memory>
#include <system_error>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libpq-fe.h>

namespace troth {
namespace {

constexpr char kDefaults[] = "keepalives_idle=5 tcp_user_timeout=10000";

std::map<std::string, std::string> Read(const std::string& conninfo) {
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(conninfo.c_str(), nullptr), PQconninfoFree);
  std::map<std::string, std::string> read;
  for (const PQconninfoOption* option = options.get();
       option != nullptr && option->keyword != nullptr; ++option) {
    if (option->val != nullptr) read[option->keyword] = option->val;
  }
  return read;
}

TEST(Conninfo, DefaultsHoldWhereItSaysNothing) {
  using Map = std::map<std::string, std::string>;
  EXPECT_EQ(Read(WithDefaults("host=a keepalives_idle=7", kDefaults)),
            (Map{{"host", "a"}, {"keepalives_idle", "7"}, {"tcp_user_timeout", "10000"}}));
  EXPECT_EQ(Read(WithDefaults("postgresql://a/bank?keepalives_idle=7", kDefaults)),
            (Map{{"host", "a"},
                 {"dbname", "bank"},
                 {"keepalives_idle", "7"},
                 {"tcp_user_timeout", "10000"}}));
  const Map odd = Read(WithDefaults(R"(dbname='it\'s \\ odd' options='')", kDefaults));
  EXPECT_EQ(odd.at("dbname"), R"(it's \ odd)");
  EXPECT_EQ(WithDefaults("no such thing", kDefaults), "no such thing") << "libpq says why";
}

TEST(Conninfo, SaysWhereTheServerIs) {
  EXPECT_TRUE(NamesHost("user=a host=b"));
  EXPECT_TRUE(NamesHost("hostaddr=10.0.0.1"));
  EXPECT_TRUE(NamesHost("postgresql://b/bank"));
  EXPECT_FALSE(NamesHost("user=a passfile=/b"));
  EXPECT_FALSE(NamesHost("service=b")) << "a host that stands beside it wins";
  EXPECT_FALSE(NamesHost("no such thing"));
}

// A name is not of one machine, even one that leads to loopback; nor is what a local proxy leads
// to.
TEST(Conninfo, AnAddressIsOfAMachineWhenTheServerIsThere) {
  const std::string here = MachineOf("/var/run/postgresql", "");
  std::error_code none;
  const auto id_bytes = std::filesystem::file_size("/etc/machine-id", none);
  const bool has_id = !none && id_bytes >= 32;  // most containers have none
  EXPECT_THAT(here, testing::MatchesRegex(has_id ? "[0-9a-f]{12}" : ""));
  EXPECT_EQ(MachineOf("@socket", ""), here);
  EXPECT_EQ(MachineOf("127.0.0.1", "127.0.0.1"), here);
  EXPECT_EQ(MachineOf("localhost", "::1"), here);
  EXPECT_EQ(MachineOf("127.0.0.1", ""), here) << "a proxy in front of a socket";
  EXPECT_EQ(MachineOf("db", "127.0.1.1"), "");
  EXPECT_EQ(MachineOf("10.0.0.1", "10.0.0.1"), "");
  EXPECT_EQ(MachineOf("127.0.0.1", "10.0.0.1"), "");
  EXPECT_EQ(MachineOf("/var/run/proxy", "10.0.0.1"), "");
}

}  // namespace
}  // namespace troth
