// bank-branch: a bank's branch that lets transactions into its PostgreSQL database. All of two-
// phase commit is troth::Participant's; here is what is particular to a bank. Tables: schema.sql.
#include <iostream>
#include <limits>
#include <mutex>
#include <set>

#include <gflags/gflags.h>
#include <glog/logging.h>
#include <pqxx/pqxx>

#include "BankBranch.h"
#include "common/program.h"
#include "examples/bank/schema.h"
#include "participant/conninfo.h"
#include "participant/main_serve.h"
#include "participant/participant.h"
#include "wire/main_flags.h"

DEFINE_string(name, "", "name of the branch, [a-z0-9-]: `east`");
DEFINE_string(conninfo, "",
              "libpq connection string of its database; passwords belong into ~/.pgpass");
DEFINE_string(coordinators, "127.0.0.1:7712", "peer addresses of the coordinator, HOST:PORT,...");
DEFINE_string(host, "127.0.0.1", "where clients and the coordinator reach it");
DEFINE_string(bind, "127.0.0.1", "address the listeners bind to");
DEFINE_int32(port, 0, "port for clients; 0: any free one");
DEFINE_int32(peer_port, 0, "port for the coordinator; 0: any free one");
DEFINE_int32(http_port, -1, "port for /metrics, /healthz and /readyz; 0: any free one, -1: none");
DEFINE_int32(pool_size, 32, "connections for branches");
DEFINE_int32(max_in_doubt, 200,
             "branches open or in doubt at once; max_prepared_transactions "
             "must be at least this");
DEFINE_string(port_file, "", "written when ready: JSON with pid and ports");
DEFINE_bool(init, false, "make the tables in the database of --conninfo, and exit");

namespace troth::bank {
namespace {

constexpr char kUsage[] =
    "A branch of a bank whose accounts take part in transactions over several branches.\n"
    "\n"
    "  bank-branch --init --conninfo DATABASE                 once: make the tables\n"
    "  bank-branch --name east --conninfo DATABASE            run until SIGTERM\n"
    "\n"
    "Exit codes: 0 stopped, 1 cannot start, 2 wrong flags.";

constexpr std::size_t kMaxLegs = 1000;
constexpr std::int32_t kMaxOpened = 10'000;
constexpr std::int32_t kMaxPage = 5000;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

wire::Refused Invalid(const std::string& message) {
  wire::Refused refused;
  refused.reason = wire::Reason::INVALID;
  refused.message = message;
  refused.retryable = false;
  return refused;
}

// Reads outside any transaction: a connection of its own, made when first needed and made anew
// when it was lost. For audits, so one at a time, and none for ever: the next ones wait, and so
// does the end of the process.
class Reader {
 public:
  explicit Reader(const std::string& conninfo)
      : conninfo_(WithDefaults(conninfo,
                               "connect_timeout=10 keepalives_idle=5 keepalives_interval=5 "
                               "keepalives_count=3 tcp_user_timeout=10000")) {}

  // Runs `read` in one read-only transaction. Throws wire::Refused.
  template <typename F>
  void Read(F&& read) {
    std::lock_guard<std::mutex> lock(mutex_);
    try {
      if (connection_ == nullptr) {
        connection_ = std::make_unique<pqxx::connection>(conninfo_);
        connection_->set_variable("statement_timeout", "10000");
      }
      pqxx::read_transaction transaction(*connection_);
      read(transaction);
    } catch (const pqxx::broken_connection& e) {
      connection_.reset();
      wire::Refused refused;
      refused.reason = wire::Reason::DATABASE_UNAVAILABLE;
      refused.message = std::string("the branch's database cannot be reached: ") + e.what();
      refused.retryable = true;
      throw refused;
    } catch (const pqxx::sql_error& e) {
      connection_.reset();
      wire::Refused refused;
      refused.reason = wire::Reason::DATABASE;
      refused.message = e.what();
      refused.retryable = false;
      refused.__set_sqlstate(e.sqlstate());
      throw refused;
    }
  }

 private:
  const std::string conninfo_;
  std::mutex mutex_;
  std::unique_ptr<pqxx::connection> connection_;
};

class Handler : public BankBranchIf {
 public:
  Handler(troth::Participant* participant, const std::string& name, const std::string& conninfo)
      : participant_(participant), name_(name), reader_(conninfo) {}

  void hello(wire::ParticipantHello& reply, const std::int32_t version) override {
    participant_->Hello(version, &reply);
  }

  void apply(ApplyReply& reply, const wire::Context& context, const std::vector<Leg>& legs,
             const std::string& note) override {
    CheckLegs(legs);
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      for (const Leg& leg : legs) Book(tx, context.transaction_id, leg, note);
    });
  }

  void open(OpenReply& reply, const wire::Context& context, const std::int64_t first,
            const std::int32_t count, const std::int64_t balance) override {
    if (count < 1 || count > kMaxOpened || first < 1 || balance < 0) {
      throw Invalid("accounts are opened from 1 up, 1 to 10000 at a time, with 0 or more in them");
    }
    if (first > kMost - (count - 1)) {
      throw Invalid("the last account has a number of at most " + std::to_string(kMost));
    }
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      const pqxx::result opened = tx.exec_params(
          "INSERT INTO account (number, balance, opened_with) "
          "SELECT n, $3, $3 FROM pg_catalog.generate_series($1::bigint, $2::bigint) n "
          "ON CONFLICT (number) DO NOTHING",
          first, first + count - 1, balance);
      reply.opened = static_cast<std::int32_t>(opened.affected_rows());
    });
  }

  void balances(BalancesReply& reply, const wire::Context& context,
                const std::vector<std::int64_t>& accounts) override {
    if (accounts.size() > kMaxLegs) throw Invalid("at most 1000 accounts are read at a time");
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      // A read-only branch may not lock rows; its snapshot is what it has. Only work 0 is told
      // that the branch is read-only; the block knows.
      const bool read_only =
          tx.exec1("SELECT current_setting('transaction_read_only')")[0].as<std::string>() == "on";
      const std::string lock = read_only ? "" : " FOR SHARE";
      reply.accounts.clear();
      for (const std::int64_t number : accounts) {
        const pqxx::result rows = tx.exec_params(
            "SELECT number, balance, opened_with FROM account WHERE number = $1" + lock, number);
        if (rows.empty()) throw ApplicationRefusal(Unknown(number));
        reply.accounts.push_back(ToAccount(rows[0]));
      }
    });
  }

  void accounts(std::vector<Account>& reply, const std::int64_t after,
                const std::int32_t limit) override {
    reader_.Read([&](pqxx::transaction_base& tx) {
      const pqxx::result rows = tx.exec_params(
          "SELECT number, balance, opened_with FROM account WHERE number > $1 "
          "ORDER BY number LIMIT $2",
          after, std::clamp(limit, 1, kMaxPage));
      for (const pqxx::row& row : rows) reply.push_back(ToAccount(row));
    });
  }

  void entries(std::vector<Entry>& reply, const std::string& after_id,
               const std::int64_t after_account, const std::int32_t limit) override {
    reader_.Read([&](pqxx::transaction_base& tx) {
      const pqxx::result rows = tx.exec_params(
          "SELECT transaction_id, account, amount, note FROM entry "
          "WHERE (transaction_id, account) > ($1, $2) ORDER BY transaction_id, account LIMIT $3",
          after_id, after_account, std::clamp(limit, 1, kMaxPage));
      for (const pqxx::row& row : rows) {
        Entry entry;
        entry.transaction_id = row[0].c_str();
        entry.account = row[1].as<std::int64_t>();
        entry.amount = row[2].as<std::int64_t>();
        entry.note = row[3].c_str();
        reply.push_back(std::move(entry));
      }
    });
  }

  void in_doubt(std::vector<std::string>& reply) override {
    reader_.Read([&](pqxx::transaction_base& tx) {
      const pqxx::result rows = tx.exec_params(
          "SELECT gid FROM pg_catalog.pg_prepared_xacts "
          "WHERE database = current_database() AND starts_with(gid, $1) ORDER BY prepared",
          "troth:" + name_ + ":");
      for (const pqxx::row& row : rows) reply.push_back(row[0].c_str());
    });
  }

 private:
  static Account ToAccount(const pqxx::row& row) {
    Account account;
    account.number = row[0].as<std::int64_t>();
    account.balance = row[1].as<std::int64_t>();
    account.opened_with = row[2].as<std::int64_t>();
    return account;
  }

  std::string Unknown(std::int64_t number) const {
    return "there is no account " + name_ + "/" + std::to_string(number);
  }

  static void CheckLegs(const std::vector<Leg>& legs) {
    if (legs.empty() || legs.size() > kMaxLegs) throw Invalid("a transfer has 1 to 1000 legs here");
    std::set<std::int64_t> seen;
    for (const Leg& leg : legs) {
      if (leg.amount == 0) throw Invalid("the amount of a leg is not 0");
      if (leg.amount < -kMost) throw Invalid("a leg takes at most " + std::to_string(kMost));
      if (!seen.insert(leg.account).second) {
        throw Invalid("account " + std::to_string(leg.account) + " stands in two legs");
      }
    }
  }

  // The change and its entry, in one statement.
  void Book(pqxx::dbtransaction& tx, const std::string& transaction_id, const Leg& leg,
            const std::string& note) const {
    try {
      const pqxx::result booked = tx.exec_params(
          "WITH changed AS (UPDATE account SET balance = balance + $2 WHERE number = $1 "
          "RETURNING number) INSERT INTO entry (transaction_id, account, amount, note) "
          "SELECT $3, number, $2, $4 FROM changed",
          leg.account, leg.amount, transaction_id, note);
      if (booked.affected_rows() != 1) throw ApplicationRefusal(Unknown(leg.account));
    } catch (const pqxx::check_violation&) {
      throw ApplicationRefusal("insufficient funds: account " + name_ + "/" +
                               std::to_string(leg.account) + " has less than " +
                               std::to_string(-leg.amount));
    } catch (const pqxx::sql_error& e) {
      if (e.sqlstate() != "22003") throw;  // numeric value out of range
      throw ApplicationRefusal("account " + name_ + "/" + std::to_string(leg.account) +
                               " cannot hold so much");
    }
  }

  troth::Participant* const participant_;
  const std::string name_;
  Reader reader_;
};

int Init() {
  try {
    pqxx::connection connection(FLAGS_conninfo);
    pqxx::work transaction(connection);
    transaction.exec(kSchema);
    transaction.commit();
  } catch (const std::exception& e) {
    std::cerr << "bank-branch: the tables could not be made: " << e.what() << "\n";
    return 1;
  }
  return 0;
}

int Run() {
  ParticipantOptions options;
  options.name = FLAGS_name;
  options.conninfo = FLAGS_conninfo;
  options.host = FLAGS_host;
  options.port = FLAGS_port;
  options.peer_port = FLAGS_peer_port;
  options.http_port = FLAGS_http_port;
  options.bind = FLAGS_bind;
  options.coordinators = SplitAtCommas(FLAGS_coordinators);
  options.pool_size = FLAGS_pool_size;
  options.max_in_doubt = FLAGS_max_in_doubt;
  options.security = SecurityFromFlags();
  Result<std::unique_ptr<troth::Participant>> participant = troth::Participant::Open(options);
  if (!participant.ok()) {
    std::cerr << "bank-branch: " << participant.status().message() << "\n";
    return 1;
  }
  auto handler = std::make_shared<Handler>(participant->get(), FLAGS_name, FLAGS_conninfo);
  return troth::ServeUntilSignal({"bank-branch", FLAGS_name, FLAGS_host, FLAGS_port_file, {}},
                                 participant->get(),
                                 std::make_shared<BankBranchProcessor>(handler));
}

}  // namespace
}  // namespace troth::bank

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bank::kUsage, &argc, &argv)) return *done;
  if (argc > 1) {
    std::cerr << "bank-branch: '" << argv[1] << "' is no flag; see --help\n";
    return 2;
  }
  for (const auto& [flag, value] :
       {std::pair("conninfo", &FLAGS_conninfo), std::pair("name", &FLAGS_name)}) {
    const bool needed = !FLAGS_init || value == &FLAGS_conninfo;
    if (needed && value->empty()) {
      std::cerr << "bank-branch: --" << flag << " is required; see --help\n";
      return 2;
    }
  }
  if (const troth::Status fit = troth::CheckNoSecret(FLAGS_conninfo); !fit.ok()) {
    std::cerr << "bank-branch: " << fit.message() << "\n";
    return 2;
  }
  return FLAGS_init ? troth::bank::Init() : troth::bank::Run();
}
