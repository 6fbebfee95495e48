// See conninfo.h.
#include "participant/conninfo.h"

#include <memory>

#include <libpq-fe.h>

namespace troth {

Status CheckNoSecret(const std::string& conninfo, std::string_view flag) {
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(conninfo.c_str(), nullptr), PQconninfoFree);
  for (const PQconninfoOption* option = options.get();
       option != nullptr && option->keyword != nullptr; ++option) {
    const std::string_view keyword = option->keyword;
    const bool secret = keyword == "password" || keyword == "sslpassword";
    if (!secret || option->val == nullptr || *option->val == '\0') continue;
    return Status(Code::kInvalid,
                  std::string(flag) + " holds a " + std::string(keyword) +
                      ", which ps shows to everybody: put it into ~/.pgpass, or name a file with "
                      "passfile=FILE or service=NAME");
  }
  return OkStatus();
}

}  // namespace troth
