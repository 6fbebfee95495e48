// What is put behind a connection string, as libpq then understands it.
#include "participant/conninfo.h"

#include <map>
#include <memory>

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

}  // namespace
}  // namespace troth
