// See doorkeeper.h.
#include "wire/doorkeeper.h"

#include <sys/socket.h>

namespace troth {

void Doorkeeper::Came(int fd) {
  MutexLock lock(&mutex_);
  unproven_.push_back(fd);
  if (unproven_.size() <= max_unproven_) return;
  // An honest handshake takes milliseconds: the oldest is hardly one.
  shutdown(unproven_.front(), SHUT_RDWR);
  unproven_.pop_front();
  ++broken_off_;
}

bool Doorkeeper::Proved(int fd, const std::string& name) {
  MutexLock lock(&mutex_);
  std::size_t& count = of_name_[name];
  if (count >= max_per_name_ || proven_.size() >= max_proven_) {
    if (count == 0) of_name_.erase(name);
    ++too_many_;
    return false;
  }
  unproven_.remove(fd);
  ++count;
  proven_[fd] = name;
  return true;
}

void Doorkeeper::Leaves(int fd) {
  MutexLock lock(&mutex_);
  unproven_.remove(fd);
  const auto found = proven_.find(fd);
  if (found == proven_.end()) return;
  const auto count = of_name_.find(found->second);
  if (--count->second == 0) of_name_.erase(count);
  proven_.erase(found);
}

Doorkeeper::Counts Doorkeeper::counts() const {
  MutexLock lock(&mutex_);
  return {unproven_.size(), proven_.size(), broken_off_, too_many_};
}

}  // namespace troth
