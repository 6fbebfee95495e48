// Who speaks, and what may they do: certificates (wire/tls.h) and the file of roles. Knows no
// service and no socket. docs/operations.md, "Security".
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/thread_annotations.h"
#include "wire/security_options.h"
#include "wire/tls.h"

namespace troth {

enum class Role : std::uint8_t { kClient, kParticipant, kCoordinator, kAdministrator };
inline constexpr int kRoleCount = 4;
std::string_view RoleName(Role role);

// The file of roles, read. A line for each certificate and role, # comments:
//   NAME client PARTICIPANT...|*      takes part in transactions, at these participants only
//   NAME participant [PARTICIPANT...] is these participants; none named: the one of its own name
//   NAME coordinator [COORDINATOR...] prepares and finishes, as these (names or ids); none: as any
//   NAME administrator                sees and settles
// Who is not in it may do nothing.
class Roles {
 public:
  // kInvalid names the line, or says that there is none.
  static Result<Roles> Parse(std::string_view text);
  // Why `name` may not act as `role` (for the participant, or as the coordinator, `object`, unless
  // empty); nothing: it may.
  std::optional<std::string> WhyNot(const std::string& name, Role role,
                                    const std::string& object) const;

 private:
  struct Grant {
    std::string name;
    Role role;
    std::vector<std::string> objects;
  };
  std::vector<Grant> grants_;
};

// What a process needs to call and to be called. Thread-safe; outlives what uses it.
class Security {
 public:
  // Reads nothing yet.
  explicit Security(SecurityOptions options);

  // What is wrong with the files, of one that only calls or of one that serves. kInvalid, with
  // what to do. Otherwise wrong files are told by the connection that is not made.
  Status CheckCaller();
  Status CheckServer();
  // What is wrong with the file of roles as it is now, also when what was read before holds on.
  Status CheckRoles() TROTH_EXCLUDES(mutex_);
  // kForbidden unless listening there is safe: with TLS, on loopback, or where plain text was
  // allowed. `what`, for the message: who is listened for.
  Status MayListen(const std::string& host, const std::string& what) const;
  // The same for HTTP, which is plain text always.
  Status MayListenPlain(const std::string& host, const std::string& what) const;

  // Null: plain text.
  TlsContext* tls() { return tls_.get(); }

  // Why the peer of that certificate may not act as `role`; nothing: it may. Without TLS everybody
  // may. The file of roles is looked at again each second: who is taken out is refused from then
  // on, on its open connections too.
  std::optional<std::string> WhyNot(const std::string& name, Role role,
                                    const std::string& object = "");

 private:
  const SecurityOptions options_;
  std::unique_ptr<TlsContext> tls_;
  std::atomic<std::int64_t> look_again_ms_{0};
  Mutex mutex_;
  FileStamp roles_stamp_ TROTH_GUARDED_BY(mutex_);
  Status roles_last_ TROTH_GUARDED_BY(mutex_);
  std::shared_ptr<const Roles> roles_ TROTH_GUARDED_BY(mutex_);
};

// 127.0.0.0/8, ::1, localhost.
bool IsLoopback(const std::string& host);

}  // namespace troth
