// See inspection_service.h.
#include "participant/inspection_service.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "common/clock.h"
#include "common/transaction_id.h"
#include "participant/postgres_connection.h"

namespace troth {
namespace {

constexpr char kApplicationName[] = "troth inspection";
// What is told stays below the limit of a frame.
constexpr std::size_t kMaxWaiting = 100;       // behind one branch
constexpr std::size_t kMaxWaitingInAll = 800;  // behind all of a list
constexpr std::size_t kRelationsOf = 100;      // of so many branches of a list

// $1: GIDs as an array, may be empty; $2: prefix; $3: limit; $4: this database only.
constexpr char kPrepared[] = R"(
WITH horizon AS (
  SELECT max(age) AS age FROM (
    SELECT age(backend_xmin) AS age FROM pg_stat_activity
    UNION ALL SELECT age(backend_xid) FROM pg_stat_activity
    UNION ALL SELECT age(xmin) FROM pg_replication_slots
    UNION ALL SELECT age(catalog_xmin) FROM pg_replication_slots
    UNION ALL SELECT age(transaction) FROM pg_prepared_xacts) AS ages)
SELECT p.gid, p.transaction::text,
  (extract(epoch FROM clock_timestamp() - p.prepared) * 1000)::bigint,
  p.owner, p.database, age(p.transaction),
  age(p.transaction) >= (SELECT age FROM horizon),
  array_to_string(ARRAY(
    SELECT c.oid::regclass::text FROM pg_locks AS own
    JOIN pg_locks AS l ON l.virtualtransaction = own.virtualtransaction
    JOIN pg_class AS c ON c.oid = l.relation
    WHERE own.locktype = 'transactionid' AND own.transactionid = p.transaction
      AND own.pid IS NULL AND l.pid IS NULL AND l.locktype = 'relation'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND c.relkind IN ('r', 'p', 'm') AND c.relnamespace <> 'pg_catalog'::regnamespace
    GROUP BY c.oid ORDER BY 1 LIMIT 20), E'\n')
FROM pg_prepared_xacts AS p
WHERE (p.gid = ANY ($1::text[]) OR ($1::text[] = '{}' AND starts_with(p.gid, $2)))
  AND (NOT $4::boolean OR p.database = current_database())
ORDER BY p.prepared LIMIT $3::bigint)";

// $1: GIDs. A prepared transaction has no pid; its locks bear the virtual transaction under which
// the lock of its own xid is held. A session waits for a branch when the branch holds what it asks
// for in a mode that conflicts (PostgreSQL's table of lock conflicts, a bit for each mode), or
// behind one that does.
constexpr char kWaiting[] = R"(
WITH RECURSIVE locks AS MATERIALIZED (
  SELECT *, array_position(ARRAY['AccessShareLock', 'RowShareLock', 'RowExclusiveLock',
    'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
    'AccessExclusiveLock'], mode) AS mode_number
  FROM pg_locks),
waits AS MATERIALIZED (
  SELECT *, pg_blocking_pids(pid) AS blockers
  FROM locks WHERE NOT granted AND pid IS NOT NULL),
held AS MATERIALIZED (
  SELECT p.gid, l.* FROM pg_prepared_xacts AS p
  JOIN locks AS own ON own.locktype = 'transactionid' AND own.transactionid = p.transaction
    AND own.granted AND own.pid IS NULL
  JOIN locks AS l ON l.virtualtransaction = own.virtualtransaction AND l.granted AND l.pid IS NULL
  WHERE p.gid = ANY ($1::text[])),
behind AS (
  SELECT h.gid, w.pid FROM waits AS w JOIN held AS h ON h.locktype = w.locktype
    AND (h.database, h.relation, h.page, h.tuple, h.virtualxid, h.transactionid, h.classid,
         h.objid, h.objsubid) IS NOT DISTINCT FROM
        (w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid,
         w.objid, w.objsubid)
    AND ((ARRAY[256, 384, 480, 496, 472, 504, 508, 510])[w.mode_number] >> h.mode_number) & 1 = 1
  UNION
  SELECT b.gid, w.pid FROM behind AS b JOIN waits AS w ON b.pid = ANY (w.blockers))
SELECT b.gid, w.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''),
  coalesce((extract(epoch FROM clock_timestamp() - w.waitstart) * 1000)::bigint, 0),
  w.locktype || ' ' || w.mode || coalesce(' of ' || c.oid::regclass::text, ''),
  array_to_string(array_remove(w.blockers, 0), ' '),
  left(regexp_replace(coalesce(a.query, ''), '\s+', ' ', 'g'), 200)
FROM behind AS b JOIN waits AS w ON w.pid = b.pid
LEFT JOIN pg_stat_activity AS a ON a.pid = w.pid
LEFT JOIN pg_class AS c ON c.oid = w.relation AND w.database =
  (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 5 DESC, 2)";

std::int64_t Number(const std::optional<std::string>& text) {
  std::int64_t value = 0;
  if (text.has_value()) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

// GIDs of Troth need no quoting in an array's literal; any other is left out.
std::string ArrayOf(const std::vector<std::string>& gids) {
  std::string list = "{";
  for (const std::string& gid : gids) {
    if (gid.find_first_of("\\\"{}, ") != std::string::npos) continue;
    if (list.size() > 1) list += ",";
    list += gid;
  }
  return list + "}";
}

// `troth:<participant>:<transaction id>`; the last part.
std::string TransactionOf(const std::string& gid) { return gid.substr(gid.rfind(':') + 1); }

wire::PreparedBranch BranchOf(const Row& row) {
  wire::PreparedBranch branch;
  branch.gid = row[0].value_or("");
  branch.transaction_id = TransactionOf(branch.gid);
  branch.xid = Number(row[1]);
  branch.prepared_ms = std::max<std::int64_t>(Number(row[2]), 0);
  branch.owner = row[3].value_or("");
  branch.database = row[4].value_or("");
  branch.xmin_age = Number(row[5]);
  branch.holds_vacuum = row[6].value_or("f") == "t";
  std::istringstream relations(row[7].value_or(""));
  for (std::string name; std::getline(relations, name);) branch.relations.push_back(name);
  return branch;
}

wire::WaitingSession SessionOf(const Row& row) {
  wire::WaitingSession session;
  session.pid = static_cast<std::int32_t>(Number(row[1]));
  session.user = row[2].value_or("");
  session.application = row[3].value_or("");
  session.waiting_ms = std::max<std::int64_t>(Number(row[4]), 0);
  session.lock = row[5].value_or("");
  std::istringstream pids(row[6].value_or(""));
  for (std::int32_t pid = 0; pids >> pid;) session.behind.push_back(pid);
  session.statement = row[7].value_or("");
  return session;
}

}  // namespace

Result<std::vector<wire::PreparedBranch>> LookAtPrepared(PgConnection* connection,
                                                         const PreparedQuestion& question,
                                                         std::chrono::milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  // Objects of the role's own schemas must not take the place of PostgreSQL's.
  const Answer path = connection->Execute("SET search_path = pg_catalog", {}, deadline);
  if (!path.ok) return Status(Code::kUnavailable, path.message);
  const std::string asked[] = {ArrayOf(question.gids), question.prefix,
                               std::to_string(question.limit),
                               question.this_database ? "true" : "false"};
  Result<std::vector<Row>> rows = connection->Query(kPrepared, asked, deadline);
  if (!rows.ok()) return rows.status();
  std::vector<wire::PreparedBranch> branches;
  std::vector<std::string> gids;
  for (const Row& row : *rows) {
    branches.push_back(BranchOf(row));
    if (branches.size() > kRelationsOf) branches.back().relations.clear();
    gids.push_back(branches.back().gid);
  }
  if (branches.empty()) return branches;
  const std::string held[] = {ArrayOf(gids)};
  Result<std::vector<Row>> waits = connection->Query(kWaiting, held, deadline);
  if (!waits.ok()) return waits.status();
  waits->resize(std::min(waits->size(), kMaxWaitingInAll));
  for (const Row& row : *waits) {
    const auto branch = std::find_if(branches.begin(), branches.end(), [&](const auto& one) {
      return one.gid == row[0].value_or("");
    });
    if (branch == branches.end() || branch->waiting.size() >= kMaxWaiting) continue;
    branch->waiting.push_back(SessionOf(row));
  }
  return branches;
}

Result<std::vector<wire::PreparedBranch>> LookAtPrepared(const std::string& conninfo,
                                                         const PreparedQuestion& question,
                                                         std::chrono::milliseconds time) {
  Result<std::unique_ptr<PgConnection>> connection =
      PgConnection::Open(conninfo, kApplicationName, time);
  if (!connection.ok()) return connection.status();
  const Greeting& met = (*connection)->greeting();
  if (!question.system_identifier.empty() &&
      met.identity.system_identifier != question.system_identifier) {
    return Status(Code::kUnavailable,
                  "another server answers at " + met.address + ": its system identifier is " +
                      met.identity.system_identifier + ", not " + question.system_identifier);
  }
  if (met.standby) {
    return Status(Code::kUnavailable, "the server at " + met.address +
                                          " is a standby, which shows nothing prepared: ask the "
                                          "primary");
  }
  return LookAtPrepared(connection->get(), question, time);
}

Result<Evidence> EvidenceNow(const std::string& conninfo, const std::string& gid, std::uint32_t xid,
                             std::chrono::milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  Result<std::unique_ptr<PgConnection>> connection =
      PgConnection::Open(conninfo, kApplicationName, time);
  if (!connection.ok()) return connection.status();
  const std::string asked[] = {gid};
  Result<std::vector<Row>> rows =
      (*connection)
          ->Query(
              "SELECT transaction::pg_catalog.text,"
              " pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()),"
              " pg_catalog.pg_current_wal_insert_lsn()"
              " FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) $1"
              " AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()",
              asked, deadline);
  if (!rows.ok()) return rows.status();
  if (rows->empty() || Number((*rows)[0][0]) != xid) {
    return Status(Code::kNotFound, "no branch " + gid + " with xid " + std::to_string(xid) +
                                       " is prepared there (any more)");
  }
  // The newest 64-bit number that ends in these 32 bits and was given out.
  const auto next = static_cast<std::uint64_t>(Number((*rows)[0][1]));
  std::uint64_t whole = (next & ~std::uint64_t{0xffffffff}) | xid;
  if (whole >= next) whole -= std::uint64_t{1} << 32;
  return Evidence{
      whole, {(*connection)->greeting().point.timeline, ParseLsn((*rows)[0][2].value_or("0/0"))}};
}

namespace {

void Find(std::vector<wire::Finding>* findings, const char* about, const char* verdict,
          std::string what, std::string advice = "") {
  wire::Finding& finding = findings->emplace_back();
  finding.about = about;
  finding.verdict = verdict;
  finding.what = std::move(what);
  finding.advice = std::move(advice);
}

void JudgeSettings(const ParticipantOptions& options, const Row& row,
                   std::vector<wire::Finding>* findings) {
  const auto text = [&](std::size_t i) { return row[i].value_or(""); };
  const std::int64_t slots = Number(row[0]), used = Number(row[1]), bound = options.max_in_doubt;
  Find(findings, "postgres",
       slots < bound      ? "wrong"
       : used * 2 > slots ? "warning"
                          : "good",
       "max_prepared_transactions " + text(0) + ", max_in_doubt " + std::to_string(bound) + ", " +
           text(1) + " prepared now",
       slots < bound ? "ALTER SYSTEM SET max_prepared_transactions = " + std::to_string(bound) +
                           "; restart the server"
       : used * 2 > slots ? "see who holds them: SELECT gid, prepared FROM pg_prepared_xacts"
                          : "");
  for (const auto& [name, column] : {std::pair("fsync", 2), std::pair("full_page_writes", 3)}) {
    const bool on = text(static_cast<std::size_t>(column)) == "on";
    Find(findings, "postgres", on ? "good" : "wrong",
         std::string(name) + " " + text(static_cast<std::size_t>(column)),
         on ? "" : std::string("ALTER SYSTEM SET ") + name + " = on; SELECT pg_reload_conf();");
  }
  const bool waits = text(4) != "off";
  Find(findings, "postgres", waits ? "good" : "warning", "synchronous_commit " + text(4),
       waits ? ""
             : "what Troth prepares and commits waits all the same; other transactions of "
               "this database may be lost in a crash");
  const std::int64_t needed = options.pool_size + options.finish_connections + 2;
  const std::int64_t connections = Number(row[5]);
  Find(findings, "postgres", connections < needed + 10 ? "warning" : "good",
       "max_connections " + text(5) + ", this participant uses up to " + std::to_string(needed),
       connections < needed + 10 ? "raise max_connections, or lower pool_size" : "");
  const bool reads = text(6) == "t";
  Find(findings, "postgres", reads ? "good" : "warning",
       reads ? "the history of timelines can be read"
             : "the history of timelines cannot be read: after a failover a branch may become a "
               "hazard",
       reads ? "" : "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO " + text(7));
  const std::int64_t oldest_s = Number(row[8]);
  Find(findings, "postgres", oldest_s > 60 ? "warning" : "good",
       "oldest prepared transaction of the server " + std::to_string(oldest_s) + " s",
       oldest_s > 60 ? "trothctl list --in_doubt; one of another program: its own operator's" : "");
}

}  // namespace

std::vector<wire::Finding> DiagnoseDatabase(const ParticipantOptions& options,
                                            std::chrono::milliseconds time) {
  const auto deadline = std::chrono::steady_clock::now() + time;
  std::vector<wire::Finding> findings;
  const auto unreachable = [&](const std::string& why) {
    Find(&findings, "postgres", "wrong", "the database does not answer: " + why,
         "start it, or mend --conninfo");
    return findings;
  };
  Result<std::unique_ptr<PgConnection>> connection =
      PgConnection::Open(options.conninfo, kApplicationName, time);
  if (!connection.ok()) return unreachable(connection.status().message());
  const Answer path = (*connection)->Execute("SET search_path = pg_catalog", {}, deadline);
  if (!path.ok) return unreachable(path.message);
  const std::int64_t before_ms = SystemClock()->WallUnixMs();
  Result<std::vector<Row>> rows =
      (*connection)
          ->Query(
              "SELECT current_setting('max_prepared_transactions'),"
              " (SELECT count(*) FROM pg_catalog.pg_prepared_xacts), current_setting('fsync'),"
              " current_setting('full_page_writes'), current_setting('synchronous_commit'),"
              " current_setting('max_connections'),"
              " has_function_privilege('pg_catalog.pg_read_file(text)', 'EXECUTE'), current_user,"
              " (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - prepared)), 0)::bigint"
              "  FROM pg_catalog.pg_prepared_xacts),"
              " (extract(epoch FROM clock_timestamp()) * 1000)::bigint, "
              "current_setting('server_version')",
              {}, deadline);
  if (!rows.ok()) return unreachable(rows.status().message());
  const std::int64_t after_ms = SystemClock()->WallUnixMs();
  const Row& row = rows->front();
  Find(&findings, "postgres", "good",
       "PostgreSQL " + row[10].value_or("") + " at " + (*connection)->greeting().address);
  JudgeSettings(options, row, &findings);
  const std::int64_t off_ms = Number(row[9]) - (before_ms + after_ms) / 2;
  const bool far = off_ms > 2'000 || off_ms < -2'000;
  Find(&findings, "clock", far ? "warning" : "good",
       "the database's clock differs from ours by " + std::to_string(off_ms) + " ms",
       far ? "let chrony or systemd-timesyncd set both; nothing is decided by clocks, but logs "
             "and ages mislead"
           : "");
  return findings;
}

}  // namespace troth
