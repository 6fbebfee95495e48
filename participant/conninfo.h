// What may stand in a connection string that is given as a flag, and what is put behind it. Knows
// no connection.
// docs/operations.md, "Security".
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace troth {

// kInvalid when `conninfo` (libpq's, or a URI), the value of `flag`, holds a secret: the arguments
// of a process are shown to everybody by ps. The message names the flag, says where secrets belong,
// and does not repeat them. What libpq can't parse is left to the connection, which says why.
Status CheckNoSecret(const std::string& conninfo, std::string_view flag = "--conninfo");

// `conninfo` (libpq's, or a URI) as keywords and values, with `defaults` ("keepalives_idle=5 ...")
// where it says nothing. What libpq can't parse is returned as it is.
std::string WithDefaults(const std::string& conninfo, std::string_view defaults);

// Whether `conninfo` says where the server is. What libpq can't parse does not.
bool NamesHost(const std::string& conninfo);

// Of which machine an address is, when `host` (as libpq names it) means something on one machine
// only, a socket's folder or loopback, and the server was reached there: `server` is its
// inet_server_addr(), empty for a socket. Else it is empty: what any machine means by a name, or
// what a local proxy leads to, is one database. Told by 12 hex digits of a hash of /etc/machine-id,
// which is not for others to see; empty, too, where there is no such id, as in many containers.
std::string MachineOf(const std::string& host, const std::string& server);

}  // namespace troth
