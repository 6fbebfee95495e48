// Fuzz target: one record from any bytes (recovery/log_record), and the bitmaps inside. What is
// taken is written out as the same bytes again, within its bound; what is not is left alone.
#include <cstdint>
#include <string>

#include "common/check.h"
#include "recovery/committed_set.h"
#include "recovery/log_record.h"

namespace troth {
namespace {

void TryRecords(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view before = bytes;
    const Result<LogRecord> record = DecodeRecord(&bytes);
    if (!record.ok()) {
      TROTH_CHECK(record.status().code() == Code::kCorrupt);
      TROTH_CHECK(bytes.data() == before.data() && bytes.size() == before.size());
      return;
    }
    const std::string_view taken = before.substr(0, before.size() - bytes.size());
    std::string again;
    EncodeRecord(*record, &again);
    TROTH_CHECK(again == taken);
    TROTH_CHECK(again.size() <= EncodedSizeBound(*record));
    TROTH_CHECK(!DebugString(*record).empty());
    if (const auto* outcomes = std::get_if<OutcomesRecord>(&*record)) {
      CommittedSet set;
      if (!set.Load(*outcomes).ok()) continue;
      CommittedSet copy;
      set.ForEachRecord([&copy](const OutcomesRecord& r) { TROTH_CHECK(copy.Load(r).ok()); });
    }
  }
}

// A bitmap alone: what the check lets through, the library must take (Load dies if not).
void TryBitmap(std::string_view bytes) {
  OutcomesRecord record;
  record.epoch = Epoch{1, 1};
  record.bitmap = std::string("\1\0\0\0\0\0\0\0\0\0\0\0", 12);
  record.bitmap += bytes;
  CommittedSet set;
  const bool taken = set.Load(record).ok();
  TROTH_CHECK(taken == IsPortableRoaring(bytes));
  if (!taken) return;
  set.DropBelow(LocalId{Epoch{1, 1}, 70'000});
  TROTH_CHECK(!set.Contains(LocalId{Epoch{1, 1}, 69'999}));
}

}  // namespace
}  // namespace troth

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    troth::TryRecords(bytes);
  } else {
    troth::TryBitmap(bytes);
  }
  return 0;
}
