// A file system in memory that loses what it was not told to keep. The log's tests and the
// cluster simulator run the real log on it.
//
// The fault model, all of it drawn from one seed:
// - a killed process loses nothing but its handles and locks (Restart);
// - a power loss (LosePower) keeps, of each 512-byte sector written since the file's last
//   Sync, the new bytes, the old ones, or garbage, each sector for itself; a file's length
//   likewise; and of the names made, moved and removed since the directory's last sync, any
//   prefix, or, with `reorder_names`, any subset (a rename stays atomic);
// - a failed Sync marks what was to be synced as clean although it is not on disk: a later
//   Sync succeeds without it, as on Linux;
// - operations fail or the process dies at the n-th of them; a write that dies or fails may
//   have happened in part;
// - the disk has a capacity; space is charged by file length, in whole 4 KiB.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/file_system.h"

namespace troth {

class SimFileSystem final : public FileSystem {
 public:
  static constexpr std::size_t kSectorBytes = 512;

  explicit SimFileSystem(std::uint64_t seed = 1);
  ~SimFileSystem() override;

  // ---- Faults.
  void SetCapacity(std::uint64_t bytes);
  std::uint64_t used_bytes() const;
  // Operations that change something (create, write, allocate, sync, rename, remove, sync of a
  // directory), in all.
  std::uint64_t operations() const;
  // The n-th operation from now (1: the next) fails with `code`.
  void FailAt(std::uint64_t n, Code code);
  // The process dies in the n-th operation from now: it and all later ones fail, until Restart
  // or LosePower.
  void CrashAt(std::uint64_t n);
  bool crashed() const;
  // The process died; the machine did not. Handles and locks of the old process are dead.
  void Restart();
  struct PowerLoss {
    enum class Sectors { kNone, kAll, kRandom };
    Sectors keep = Sectors::kRandom;  // of those not synced
    bool garble = true;               // a sector may also hold garbage
    bool reorder_names = false;
  };
  void LosePower(const PowerLoss& how);
  void LosePower() { LosePower(PowerLoss()); }

  // ---- Hands of an operator or a cosmic ray; all of it counts as synced.
  using Tree = std::map<std::string, std::string>;  // path -> bytes
  Tree Snapshot() const;
  bool Holds(const Tree& tree) const;  // Snapshot() == tree
  void Load(const Tree& tree);         // replaces everything; directories are those of the paths
  std::string Contents(const std::string& path) const;  // empty when there is none
  void SetContents(const std::string& path, std::string bytes);

  // ---- FileSystem.
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override;
  Result<std::unique_ptr<File>> OpenForWrite(const std::string& path) override;
  Result<std::unique_ptr<File>> Create(const std::string& path) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status SyncDirectory(const std::string& directory) override;
  Status MakeDirectory(const std::string& directory) override;
  Result<std::vector<std::string>> List(const std::string& directory) override;
  Result<std::uint64_t> Size(const std::string& path) override;
  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override;

 private:
  class SimFile;
  class SimLock;
  struct Inode {
    std::string now;              // what readers see
    std::string kept;             // what is on disk
    std::set<std::size_t> dirty;  // sectors of `now` not handed to the disk
  };
  using InodePtr = std::shared_ptr<Inode>;  // names and handles share it, as on a real one
  // A change of names, not synced yet: `removed` goes, `added` comes.
  struct NameChange {
    std::string removed;
    std::string added;
    InodePtr inode;
  };
  using Names = std::map<std::string, InodePtr>;

  // Counts an operation. Not ok: it fails here; `*dies` when the process does.
  Status Enter(std::string_view what, const std::string& path, bool* dies = nullptr);
  Status Dead() const;
  Status Write(Inode* inode, const std::string& path, std::uint64_t offset, std::string_view bytes);
  void WriteBytes(Inode* inode, std::uint64_t offset, std::string_view bytes);
  Status Resize(Inode* inode, const std::string& path, std::uint64_t size);
  Status Sync(Inode* inode, const std::string& path);
  void LoseSectors(Inode* inode, const PowerLoss& how);
  std::uint64_t UsedLocked() const;
  Status Change(NameChange change);
  static void Apply(const NameChange& change, Names* names);
  static std::string DirectoryOf(const std::string& path);

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  Names now_, kept_;
  std::vector<NameChange> changes_;
  std::set<std::string> directories_;
  std::set<std::string> locks_;
  std::uint64_t capacity_ = ~std::uint64_t{0};
  std::uint64_t operations_ = 0;
  std::uint64_t fail_at_ = 0, crash_at_ = 0;  // 0: never
  Code fail_code_ = Code::kIo;
  bool crashed_ = false;
  std::uint64_t life_ = 1;  // handles of an older one are dead
};

}  // namespace troth
