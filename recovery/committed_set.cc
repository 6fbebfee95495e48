// See committed_set.h.
#include "recovery/committed_set.h"

#include <roaring/roaring.h>

#include <bit>
#include <cstring>

#include "common/check.h"
#include "common/codec.h"

namespace troth {
namespace {

// A record holds one window of sequences, so that it stays below kMaxOutcomesBytes: 16
// containers of at most 8 KiB, and their headers.
constexpr std::uint64_t kWindow = 16u << 16;

std::uint32_t High(std::uint64_t sequence) { return static_cast<std::uint32_t>(sequence >> 32); }
std::uint32_t Low(std::uint64_t sequence) { return static_cast<std::uint32_t>(sequence); }

// Takes little-endian values off the front; all bounds are checked here.
class RoaringReader {
 public:
  explicit RoaringReader(std::string_view bytes) : rest_(bytes) {}

  bool Take16(std::uint32_t* value) {
    if (rest_.size() < 2) return false;
    std::uint16_t narrow;
    std::memcpy(&narrow, rest_.data(), 2);
    *value = narrow;
    rest_.remove_prefix(2);
    return true;
  }
  bool Take32(std::uint32_t* value) {
    if (rest_.size() < 4) return false;
    *value = LoadFixed32(rest_.data());
    rest_.remove_prefix(4);
    return true;
  }
  bool Take(std::size_t size, std::string_view* part) {
    if (rest_.size() < size) return false;
    *part = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }
  std::size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

bool CheckRuns(RoaringReader* in, std::uint32_t cardinality) {
  std::uint32_t count;
  if (!in->Take16(&count)) return false;
  std::uint32_t next = 0, total = 0;  // `next`: the least start allowed
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint32_t start, more;
    if (!in->Take16(&start) || !in->Take16(&more)) return false;
    if (start < next || start + more > 0xffff) return false;
    next = start + more + 2;  // runs that touch would be one
    total += more + 1;
  }
  return total == cardinality;
}

bool CheckArray(RoaringReader* in, std::uint32_t cardinality) {
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < cardinality; ++i) {
    std::uint32_t value;
    if (!in->Take16(&value) || value < next) return false;
    next = value + 1;
  }
  return true;
}

bool CheckBitset(RoaringReader* in, std::uint32_t cardinality) {
  std::string_view words;
  if (!in->Take(8192, &words)) return false;
  std::uint32_t total = 0;
  for (std::size_t i = 0; i < words.size(); i += 8) {
    total += static_cast<std::uint32_t>(std::popcount(LoadFixed64(words.data() + i)));
  }
  return total == cardinality;
}

}  // namespace

// The published format: cookie, which containers are runs, (key, cardinality - 1) of each,
// offsets (always, unless there are runs and fewer than 4 containers), containers.
bool IsPortableRoaring(std::string_view bytes) {
  constexpr std::uint32_t kCookieWithRuns = 12347, kCookie = 12346;
  constexpr std::uint32_t kOffsetsFrom = 4, kArrayUpTo = 4096;
  RoaringReader in(bytes);
  std::uint32_t cookie, size;
  if (!in.Take32(&cookie)) return false;
  std::string_view run_flags;
  const bool with_runs = (cookie & 0xffff) == kCookieWithRuns;
  if (with_runs) {
    size = (cookie >> 16) + 1;
    if (!in.Take((size + 7) / 8, &run_flags)) return false;
  } else if (cookie != kCookie || !in.Take32(&size) || size > 0x10000) {
    return false;
  }
  std::string_view descriptions, offsets;
  if (!in.Take(std::size_t{size} * 4, &descriptions)) return false;
  const bool with_offsets = !with_runs || size >= kOffsetsFrom;
  if (with_offsets && !in.Take(std::size_t{size} * 4, &offsets)) return false;

  RoaringReader description(descriptions);
  std::uint32_t next_key = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    std::uint32_t key, cardinality;
    if (!description.Take16(&key) || !description.Take16(&cardinality)) return false;
    if (key < next_key) return false;
    next_key = key + 1;
    ++cardinality;
    if (with_offsets && LoadFixed32(offsets.data() + i * 4) != bytes.size() - in.left()) {
      return false;
    }
    const bool is_run = with_runs && (run_flags[i / 8] >> (i % 8) & 1);
    if (is_run                     ? !CheckRuns(&in, cardinality)
        : cardinality > kArrayUpTo ? !CheckBitset(&in, cardinality)
                                   : !CheckArray(&in, cardinality)) {
      return false;
    }
  }
  return in.left() == 0;
}

void CommittedSet::FreeBitmap::operator()(roaring_bitmap_s* bitmap) const {
  roaring_bitmap_free(bitmap);
}

CommittedSet::CommittedSet() = default;
CommittedSet::CommittedSet(CommittedSet&&) noexcept = default;
CommittedSet& CommittedSet::operator=(CommittedSet&&) noexcept = default;
CommittedSet::~CommittedSet() = default;

CommittedSet::Bitmap& CommittedSet::BitmapFor(const Epoch& epoch, std::uint32_t high) {
  Bitmap& bitmap = epochs_[epoch][high];
  if (bitmap == nullptr) {
    bitmap.reset(roaring_bitmap_create());
    TROTH_CHECK(bitmap != nullptr);
  }
  return bitmap;
}

bool CommittedSet::Add(const LocalId& id) {
  if (last_ == nullptr || last_epoch_ != id.epoch || last_high_ != High(id.sequence)) {
    last_epoch_ = id.epoch;
    last_high_ = High(id.sequence);
    last_ = BitmapFor(last_epoch_, last_high_).get();
  }
  return roaring_bitmap_add_checked(last_, Low(id.sequence));
}

bool CommittedSet::Contains(const LocalId& id) const {
  const auto epoch = epochs_.find(id.epoch);
  if (epoch == epochs_.end()) return false;
  const auto bitmap = epoch->second.find(High(id.sequence));
  return bitmap != epoch->second.end() &&
         roaring_bitmap_contains(bitmap->second.get(), Low(id.sequence));
}

void CommittedSet::DropBelow(const LocalId& line) {
  last_ = nullptr;
  while (!epochs_.empty() && epochs_.begin()->first < line.epoch) epochs_.erase(epochs_.begin());
  const auto epoch = epochs_.find(line.epoch);
  if (epoch == epochs_.end()) return;
  ByHigh& by_high = epoch->second;
  while (!by_high.empty() && by_high.begin()->first < High(line.sequence)) {
    by_high.erase(by_high.begin());
  }
  const auto bitmap = by_high.find(High(line.sequence));
  if (bitmap != by_high.end() && Low(line.sequence) > 0) {
    roaring_bitmap_remove_range_closed(bitmap->second.get(), 0, Low(line.sequence) - 1);
  }
}

Status CommittedSet::Load(const OutcomesRecord& record) {
  // 64-bit portable form: a count, then (high half, 32-bit bitmap) each; we write one.
  constexpr std::size_t kHead = 12;
  const std::string_view bytes = record.bitmap;
  if (bytes.size() < kHead || LoadFixed64(bytes.data()) != 1 ||
      !IsPortableRoaring(bytes.substr(kHead))) {
    return Status(Code::kCorrupt,
                  "outcomes of epoch " + record.epoch.ToString() + " are not a bitmap");
  }
  Bitmap loaded(
      roaring_bitmap_portable_deserialize_safe(bytes.data() + kHead, bytes.size() - kHead));
  TROTH_CHECK(loaded != nullptr);
  Bitmap& bitmap = BitmapFor(record.epoch, LoadFixed32(bytes.data() + 8));
  roaring_bitmap_or_inplace(bitmap.get(), loaded.get());
  return OkStatus();
}

void CommittedSet::ForEachRecord(const std::function<void(const OutcomesRecord&)>& fn) const {
  for (const auto& [epoch, by_high] : epochs_) {
    for (const auto& [high, bitmap] : by_high) {
      if (roaring_bitmap_is_empty(bitmap.get())) continue;
      const std::uint64_t last = roaring_bitmap_maximum(bitmap.get());
      std::uint64_t from = roaring_bitmap_minimum(bitmap.get()) / kWindow * kWindow;
      for (; from <= last; from += kWindow) {
        const Bitmap range(roaring_bitmap_from_range(from, from + kWindow, 1));
        const Bitmap window(roaring_bitmap_and(bitmap.get(), range.get()));
        if (roaring_bitmap_is_empty(window.get())) continue;
        roaring_bitmap_run_optimize(window.get());
        OutcomesRecord record;
        record.epoch = epoch;
        PutFixed64(1, &record.bitmap);
        PutFixed32(high, &record.bitmap);
        const std::size_t head = record.bitmap.size();
        record.bitmap.resize(head + roaring_bitmap_portable_size_in_bytes(window.get()));
        roaring_bitmap_portable_serialize(window.get(), record.bitmap.data() + head);
        fn(record);
      }
    }
  }
}

}  // namespace troth
