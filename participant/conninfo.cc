// See conninfo.h.
#include "participant/conninfo.h"

#include <fstream>
#include <memory>

#include <libpq-fe.h>
#include <openssl/evp.h>

#include "common/check.h"
#include "wire/security.h"

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

bool NamesHost(const std::string& conninfo) {
  const Options options = Parse(conninfo);
  for (const PQconninfoOption* option = options.get();
       option != nullptr && option->keyword != nullptr; ++option) {
    const std::string_view keyword = option->keyword;
    if ((keyword == "host" || keyword == "hostaddr") && option->val != nullptr &&
        *option->val != '\0')
      return true;
  }
  return false;
}

std::string MachineOf(const std::string& host, const std::string& server) {
  const bool socket = host.starts_with('/') || host.starts_with('@');
  if (!socket && !IsLoopback(host)) return "";
  if (!server.empty() && !IsLoopback(server)) return "";
  constexpr std::size_t kIdDigits = 32;  // machine-id(5)
  std::string id;
  std::getline(std::ifstream("/etc/machine-id"), id);
  if (id.size() != kIdDigits) return "";
  id.insert(0, "troth ");
  unsigned char hash[EVP_MAX_MD_SIZE];
  TROTH_CHECK(EVP_Digest(id.data(), id.size(), hash, nullptr, EVP_sha256(), nullptr) == 1);
  std::string text;
  for (int i = 0; i < 6; ++i) {
    text += "0123456789abcdef"[hash[i] >> 4];
    text += "0123456789abcdef"[hash[i] & 15];
  }
  return text;
}

}  // namespace troth
