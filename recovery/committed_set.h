// Which transactions committed, at about a bit each: a Roaring bitmap of sequences per epoch.
// Hides the bitmap library, whose own reader does not check what it reads; this one does.
// Pure, one thread at a time. docs/wal_format.md, "Outcomes".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "recovery/log_record.h"

struct roaring_bitmap_s;

namespace troth {

class CommittedSet {
 public:
  CommittedSet();
  CommittedSet(CommittedSet&&) noexcept;
  CommittedSet& operator=(CommittedSet&&) noexcept;
  ~CommittedSet();

  // False when it was there already.
  bool Add(const LocalId& id);
  bool Contains(const LocalId& id) const;
  // Drops every id below `line`.
  void DropBelow(const LocalId& line);
  // Adds what a checkpoint says. kCorrupt, and nothing is added, when the bytes are no bitmap.
  Status Load(const OutcomesRecord& record);
  // Emits records that Load takes; together they are this set.
  void ForEachRecord(const std::function<void(const OutcomesRecord&)>& fn) const;

 private:
  struct FreeBitmap {
    void operator()(roaring_bitmap_s* bitmap) const;
  };
  using Bitmap = std::unique_ptr<roaring_bitmap_s, FreeBitmap>;
  using ByHigh = std::map<std::uint32_t, Bitmap>;  // by the high half of the sequence

  Bitmap& BitmapFor(const Epoch& epoch, std::uint32_t high);

  std::map<Epoch, ByHigh> epochs_;
  // The bitmap last added to: commits come in runs of one epoch.
  Epoch last_epoch_;
  std::uint32_t last_high_ = 0;
  roaring_bitmap_s* last_ = nullptr;
};

// True when `bytes` are exactly one well-formed 32-bit portable Roaring bitmap.
bool IsPortableRoaring(std::string_view bytes);

}  // namespace troth
