// What a server must be before a participant may use it; see postgres.h, docs/participants.md.
#include <charconv>

#include "participant/postgres.h"

namespace troth {
namespace {

Status Refuse(std::string what) { return Status(Code::kRefused, std::move(what)); }

std::string At(const PgConnection& connection) {
  return "the server at " + connection.greeting().address + ": ";
}

}  // namespace

Status CheckServer(PgConnection* connection, int max_in_doubt, std::string_view prefix) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  const std::string parameters[] = {std::string(prefix)};
  const Answer answer = connection->Execute(
      "SELECT pg_catalog.current_setting('max_prepared_transactions'),"
      " pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes'),"
      " pg_catalog.current_setting('synchronous_commit'),"
      " pg_catalog.current_setting('synchronous_standby_names'),"
      " current_user OPERATOR(pg_catalog.=) session_user, session_user, current_user,"
      " (SELECT owner FROM pg_catalog.pg_prepared_xacts"
      "  WHERE pg_catalog.starts_with(gid, $1)"
      "  AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
      "  AND owner OPERATOR(pg_catalog.<>) session_user AND NOT"
      "  (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=)"
      "   session_user) LIMIT 1)",
      parameters, deadline);
  if (!answer.ok) return Status(Code::kUnavailable, At(*connection) + answer.message);
  const auto text = [&](std::size_t i) { return answer.rows[0][i].value_or(""); };
  int slots = 0;
  const std::string setting = text(0);
  std::from_chars(setting.data(), setting.data() + setting.size(), slots);
  if (slots < max_in_doubt) {
    return Refuse(At(*connection) + "max_prepared_transactions is " + setting + ", and up to " +
                  std::to_string(max_in_doubt) +
                  " branches may be in doubt (max_in_doubt; of all participants of this server "
                  "together). Run: ALTER SYSTEM SET max_prepared_transactions = " +
                  std::to_string(max_in_doubt) + "; and restart the server");
  }
  if (text(1) != "on") {
    return Refuse(At(*connection) +
                  "fsync is off, so that a vote may be lost in a crash. Run: "
                  "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();");
  }
  if (text(2) != "on") {
    return Refuse(At(*connection) +
                  "full_page_writes is off, so that a crash may damage data. "
                  "Run: ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();");
  }
  if (text(3) == "off" && !text(4).empty()) {
    return Refuse(At(*connection) +
                  "synchronous_commit is off although there are synchronous "
                  "standbys (" +
                  text(4) +
                  "): a commit may be lost in a failover. Run: ALTER "
                  "SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf();");
  }
  if (text(5) != "t") {
    return Refuse(At(*connection) + "role " + text(6) + " becomes " + text(7) +
                  " at login and could not finish what it prepares. Run: ALTER ROLE " + text(6) +
                  " RESET role;");
  }
  if (answer.rows[0][8].has_value()) {
    return Refuse(At(*connection) +
                  "there are prepared branches of this participant that belong to role " + text(8) +
                  ", which " + text(6) + " may not finish. Connect as " + text(8) +
                  ", or run as a superuser: ALTER ROLE " + text(6) + " SUPERUSER;");
  }
  return OkStatus();
}

}  // namespace troth
