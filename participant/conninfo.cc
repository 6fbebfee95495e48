// See conninfo.h.
#include "participant/conninfo.h"

#include <memory>

#include <libpq-fe.h>

namespace troth {
namespace {

using Options = std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)>;

// nullptr: it can't be parsed.
Options Parse(const std::string& conninfo) {
  return {PQconninfoParse(conninfo.c_str(), nullptr), PQconninfoFree};
}

}  // namespace

Status CheckNoSecret(const std::string& conninfo, std::string_view flag) {
  const Options options = Parse(conninfo);
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

std::string WithDefaults(const std::string& conninfo, std::string_view defaults) {
  const Options options = Parse(conninfo);
  if (options == nullptr) return conninfo;
  std::string text(defaults);  // of two values the last one holds
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr) continue;
    text += std::string(" ") + option->keyword + "='";
    for (const char* c = option->val; *c != '\0'; ++c) {
      if (*c == '\'' || *c == '\\') text += '\\';
      text += *c;
    }
    text += '\'';
  }
  return text;
}

}  // namespace troth
