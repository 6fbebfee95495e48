// See security.h.
#include "wire/security.h"

#include <arpa/inet.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

#include <glog/logging.h>

namespace troth {
namespace {

constexpr std::int64_t kLookEveryMs = 1'000;
constexpr std::string_view kRoleNames[kRoleCount] = {"client", "participant", "coordinator",
                                                     "administrator"};

std::int64_t NowMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// `objects` has the coordinator's id, or the name that the id begins with (`bank` of
// `bank-0123456789ab`).
bool NamesCoordinator(const std::vector<std::string>& objects, const std::string& id) {
  const std::string name = id.substr(0, id.rfind('-'));
  return std::any_of(objects.begin(), objects.end(),
                     [&](const std::string& one) { return one == id || one == name; });
}

}  // namespace

std::string_view RoleName(Role role) { return kRoleNames[static_cast<int>(role)]; }

Result<Roles> Roles::Parse(std::string_view text) {
  Roles roles;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    Grant grant;
    std::string role, object;
    if (!(words >> grant.name)) continue;
    const std::string where = "line " + std::to_string(number) + ": ";
    words >> role;
    const auto known = std::find(std::begin(kRoleNames), std::end(kRoleNames), role);
    if (known == std::end(kRoleNames)) {
      return Status(Code::kInvalid, where + "'" + role +
                                        "' is none of client, participant, "
                                        "coordinator, administrator");
    }
    grant.role = static_cast<Role>(known - std::begin(kRoleNames));
    while (words >> object) grant.objects.push_back(object);
    if (grant.role == Role::kClient && grant.objects.empty()) {
      return Status(Code::kInvalid, where + "which participants may client '" + grant.name +
                                        "' use? Name them, or * for all");
    }
    if (grant.role == Role::kAdministrator && !grant.objects.empty()) {
      return Status(Code::kInvalid, where + "nothing follows 'administrator'");
    }
    if (grant.role == Role::kParticipant && grant.objects.empty()) {
      grant.objects.push_back(grant.name);
    }
    roles.grants_.push_back(std::move(grant));
  }
  if (roles.grants_.empty()) return Status(Code::kInvalid, "nobody is in it");
  return roles;
}

std::optional<std::string> Roles::WhyNot(const std::string& name, Role role,
                                         const std::string& object) const {
  bool known = false, has_role = false;
  for (const Grant& grant : grants_) {
    if (grant.name != name) continue;
    known = true;
    if (grant.role != role) continue;
    has_role = true;
    if (object.empty() || role == Role::kAdministrator) return std::nullopt;
    const std::vector<std::string>& objects = grant.objects;
    if (role == Role::kCoordinator) {
      if (objects.empty() || NamesCoordinator(objects, object)) return std::nullopt;
      continue;
    }
    const auto names = [&](std::string_view one) {
      return std::find(objects.begin(), objects.end(), one) != objects.end();
    };
    if (names(object) || (role == Role::kClient && names("*"))) return std::nullopt;
  }
  const std::string who = "certificate '" + name + "' ";
  if (!known) return who + "stands in no line of the file of roles (--tls_roles)";
  if (!has_role) return who + "has not the role " + std::string(RoleName(role));
  switch (role) {
    case Role::kClient: return who + "may not use participant '" + object + "'";
    case Role::kParticipant: return who + "is not that of participant '" + object + "'";
    default: return who + "is not that of coordinator '" + object + "'";
  }
}

Security::Security(SecurityOptions options) : options_(std::move(options)) {
  if (!options_.tls.none()) tls_ = std::make_unique<TlsContext>(options_.tls);
}

Status Security::CheckCaller() { return tls_ == nullptr ? OkStatus() : tls_->Load(); }

Status Security::CheckServer() {
  TROTH_RETURN_IF_ERROR(CheckCaller());
  if (tls_ == nullptr) {
    if (options_.roles.empty()) return OkStatus();
    return Status(Code::kInvalid,
                  "--tls_roles tells certificates apart: give --tls_cert, --tls_key and --tls_ca "
                  "too");
  }
  if (options_.roles.empty()) {
    return Status(Code::kInvalid, "TLS needs --tls_roles, the file that says who may do what");
  }
  look_again_ms_ = NowMs() + kLookEveryMs;
  return CheckRoles();
}

Status Security::MayListenPlain(const std::string& host, const std::string& what) const {
  if (options_.allow_plain_text || IsLoopback(host)) return OkStatus();
  return Status(Code::kForbidden,
                "will not listen for " + what + ", which is plain text, on " + host +
                    ", which others can reach: give --allow_plain_text if they may read it");
}

Status Security::MayListen(const std::string& host, const std::string& what) const {
  if (tls_ != nullptr || options_.allow_plain_text || IsLoopback(host)) return OkStatus();
  return Status(Code::kForbidden,
                "will not listen for " + what + " in plain text on " + host +
                    ", which others can reach: give --tls_cert, --tls_key, --tls_ca and "
                    "--tls_roles, or --allow_plain_text on a network that is yours alone");
}

Status Security::CheckRoles() {
  const FileStamp stamp = FileStamp::Of(options_.roles);
  MutexLock lock(&mutex_);
  // What failed is tried again: it need not be the file, descriptors may have been short.
  if (roles_ != nullptr && roles_last_.ok() && stamp == roles_stamp_) return OkStatus();
  std::ifstream file(options_.roles, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  // Half a file is as bad as none: `text` tells of both, and of a directory.
  Result<Roles> read = file.good() && text.good()
                           ? Roles::Parse(text.str())
                           : Status(Code::kInvalid, "it cannot be read, or is empty");
  const bool first = roles_ == nullptr;
  roles_stamp_ = stamp;
  if (read.ok()) {
    if (!first) LOG(INFO) << "read " << options_.roles << " anew";
    roles_ = std::make_shared<const Roles>(*std::move(read));
    return roles_last_ = OkStatus();
  }
  Status wrong(Code::kInvalid, "--tls_roles '" + options_.roles + "': " + read.status().message());
  const bool told = wrong.message() == roles_last_.message();
  if (!first && !told) LOG(ERROR) << wrong.message() << "; what was read before holds on";
  return roles_last_ = std::move(wrong);
}

std::optional<std::string> Security::WhyNot(const std::string& name, Role role,
                                            const std::string& object) {
  if (tls_ == nullptr) return std::nullopt;
  const std::int64_t now_ms = NowMs();
  std::int64_t due_ms = look_again_ms_.load(std::memory_order_relaxed);
  if (now_ms >= due_ms && look_again_ms_.compare_exchange_strong(due_ms, now_ms + kLookEveryMs)) {
    // Said in the log; what was read before holds on.
    [[maybe_unused]] const Status read = CheckRoles();
  }
  std::shared_ptr<const Roles> roles;
  {
    MutexLock lock(&mutex_);
    roles = roles_;
  }
  if (roles == nullptr) return "there is no file of roles";
  return roles->WhyNot(name, role, object);
}

bool IsLoopback(const std::string& host) {
  in_addr four;
  if (inet_pton(AF_INET, host.c_str(), &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  return host == "::1" || host == "localhost";
}

}  // namespace troth
