// See inspection_service.h.
#include "participant/inspection_service.h"

#include <algorithm>
#include <charconv>
#include <sstream>

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
  return LookAtPrepared(connection->get(), question, time);
}

}  // namespace troth
