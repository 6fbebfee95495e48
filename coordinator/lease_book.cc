// See lease_book.h.
#include "coordinator/lease_book.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace troth {

void LeaseBook::Reserved(std::uint64_t end) { reserved_ = std::max(reserved_, end); }

LeaseBook::Grant LeaseBook::GrantBlock(std::uint32_t count, std::int64_t now_ms) {
  TROTH_CHECK(count > 0 && CanGrant(count));
  Grant grant{next_, count, now_ms + lease_ms_};
  TROTH_CHECK(leases_.empty() || leases_.back().end_ms <= grant.end_ms);
  leases_.push_back(Lease{grant.first, count, grant.end_ms, std::vector<std::uint8_t>(count),
                          std::vector<std::uint32_t>(count)});
  next_ += count;
  return grant;
}

void LeaseBook::Expire(std::int64_t now_ms) {
  while (!leases_.empty() && leases_.front().end_ms <= now_ms) leases_.pop_front();
}

std::uint64_t LeaseBook::line() const { return leases_.empty() ? next_ : leases_.front().first; }

std::int64_t LeaseBook::NextEnd() const {
  return leases_.empty() ? std::numeric_limits<std::int64_t>::max() : leases_.front().end_ms;
}

const LeaseBook::Lease* LeaseBook::Find(std::uint64_t sequence) const {
  auto after = std::upper_bound(leases_.begin(), leases_.end(), sequence,
                                [](std::uint64_t s, const Lease& l) { return s < l.first; });
  if (after == leases_.begin()) return nullptr;
  const Lease& lease = *--after;
  return sequence < lease.first + lease.count ? &lease : nullptr;
}

std::int64_t LeaseBook::EndOf(std::uint64_t sequence) const {
  const Lease* lease = Find(sequence);
  TROTH_CHECK(lease != nullptr);
  return lease->end_ms;
}

LeaseBook::Mark LeaseBook::MarkOf(std::uint64_t sequence) const {
  const Lease* lease = Find(sequence);
  TROTH_CHECK(lease != nullptr);
  return static_cast<Mark>(lease->marks[sequence - lease->first]);
}

std::uint32_t LeaseBook::ListOf(std::uint64_t sequence) const {
  const Lease* lease = Find(sequence);
  TROTH_CHECK(lease != nullptr);
  return lease->lists[sequence - lease->first];
}

void LeaseBook::Set(std::uint64_t sequence, Mark mark, std::uint32_t list) {
  Lease* lease = const_cast<Lease*>(Find(sequence));
  if (lease == nullptr) return;
  std::uint8_t& now = lease->marks[sequence - lease->first];
  TROTH_CHECK(static_cast<Mark>(now) != Mark::kAborted || mark == Mark::kAborted);
  TROTH_CHECK(static_cast<Mark>(now) != Mark::kCommitted || mark == Mark::kCommitted);
  now = static_cast<std::uint8_t>(mark);
  if (list != 0) lease->lists[sequence - lease->first] = list;
}

}  // namespace troth
