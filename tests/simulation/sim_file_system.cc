// See sim_file_system.h.
#include "tests/simulation/sim_file_system.h"

#include <algorithm>
#include <utility>

namespace troth {

class SimFileSystem::SimFile final : public File {
 public:
  SimFile(SimFileSystem* fs, std::string path, InodePtr inode, std::uint64_t life)
      : fs_(fs), path_(std::move(path)), inode_(std::move(inode)), life_(life) {}

  Status Read(std::uint64_t offset, std::size_t size, std::string* out) const override {
    const std::lock_guard lock(fs_->mutex_);
    if (dead()) return fs_->Dead();
    const std::size_t from = std::min<std::uint64_t>(offset, inode_->now.size());
    *out = inode_->now.substr(from, size);
    return OkStatus();
  }
  Status Write(std::uint64_t offset, std::string_view bytes) override {
    const std::lock_guard lock(fs_->mutex_);
    return dead() ? fs_->Dead() : fs_->Write(inode_.get(), path_, offset, bytes);
  }
  Status Allocate(std::uint64_t size) override {
    const std::lock_guard lock(fs_->mutex_);
    if (dead()) return fs_->Dead();
    TROTH_RETURN_IF_ERROR(fs_->Enter("allocating", path_));
    return fs_->Resize(inode_.get(), path_, std::max<std::uint64_t>(size, inode_->now.size()));
  }
  Status Sync() override {
    const std::lock_guard lock(fs_->mutex_);
    return dead() ? fs_->Dead() : fs_->Sync(inode_.get(), path_);
  }
  Result<std::uint64_t> Size() const override {
    const std::lock_guard lock(fs_->mutex_);
    if (dead()) return fs_->Dead();
    return std::uint64_t{inode_->now.size()};
  }

 private:
  bool dead() const { return fs_->crashed_ || fs_->life_ != life_; }

  SimFileSystem* const fs_;
  const std::string path_;
  const InodePtr inode_;
  const std::uint64_t life_;
};

class SimFileSystem::SimLock final : public FileLock {
 public:
  SimLock(SimFileSystem* fs, std::string path, std::uint64_t life)
      : fs_(fs), path_(std::move(path)), life_(life) {}
  ~SimLock() override {
    const std::lock_guard lock(fs_->mutex_);
    if (fs_->life_ == life_) fs_->locks_.erase(path_);
  }

 private:
  SimFileSystem* const fs_;
  const std::string path_;
  const std::uint64_t life_;
};

SimFileSystem::SimFileSystem(std::uint64_t seed) : random_(seed) { directories_.insert("/"); }
SimFileSystem::~SimFileSystem() = default;

// ---- Faults.

void SimFileSystem::SetCapacity(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

std::uint64_t SimFileSystem::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return UsedLocked();
}

std::uint64_t SimFileSystem::UsedLocked() const {
  std::uint64_t used = 0;
  for (const auto& [path, inode] : now_) used += (inode->now.size() + 4095) / 4096 * 4096;
  return used;
}

std::uint64_t SimFileSystem::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

void SimFileSystem::FailAt(std::uint64_t n, Code code) {
  const std::lock_guard lock(mutex_);
  fail_at_ = n == 0 ? 0 : operations_ + n;
  fail_code_ = code;
}

void SimFileSystem::CrashAt(std::uint64_t n) {
  const std::lock_guard lock(mutex_);
  crash_at_ = n == 0 ? 0 : operations_ + n;
}

bool SimFileSystem::crashed() const {
  const std::lock_guard lock(mutex_);
  return crashed_;
}

Status SimFileSystem::Dead() const { return Status(Code::kIo, "the process is dead"); }

Status SimFileSystem::Enter(std::string_view what, const std::string& path, bool* dies) {
  if (crashed_) return Dead();
  ++operations_;
  if (operations_ == crash_at_) {
    crashed_ = true;
    if (dies != nullptr) *dies = true;
    return Dead();
  }
  if (operations_ == fail_at_) {
    return Status(fail_code_, std::string(what) + " " + path + ": injected");
  }
  return OkStatus();
}

void SimFileSystem::Restart() {
  const std::lock_guard lock(mutex_);
  crashed_ = false;
  crash_at_ = fail_at_ = 0;
  locks_.clear();
  ++life_;
}

void SimFileSystem::LoseSectors(Inode* inode, const PowerLoss& how) {
  using Sectors = PowerLoss::Sectors;
  std::string disk = inode->kept;
  const bool keep_length =
      how.keep == Sectors::kAll || (how.keep == Sectors::kRandom && random_() % 2 == 0);
  if (keep_length) disk.resize(inode->now.size(), '\0');
  for (const std::size_t sector : inode->dirty) {
    const std::size_t from = sector * kSectorBytes;
    const std::size_t to = std::min(from + kSectorBytes, std::min(disk.size(), inode->now.size()));
    if (from >= to || how.keep == Sectors::kNone) continue;
    const std::uint64_t draw = how.keep == Sectors::kAll ? 0 : random_() % (how.garble ? 5 : 4);
    if (draw < 2) {
      std::copy(inode->now.begin() + static_cast<std::ptrdiff_t>(from),
                inode->now.begin() + static_cast<std::ptrdiff_t>(to),
                disk.begin() + static_cast<std::ptrdiff_t>(from));
    } else if (draw == 4) {
      for (std::size_t i = from; i < to; ++i) disk[i] = static_cast<char>(random_());
    }
  }
  inode->now = disk;
  inode->kept = std::move(disk);
  inode->dirty.clear();
}

void SimFileSystem::Apply(const NameChange& change, Names* names) {
  if (!change.removed.empty()) names->erase(change.removed);
  if (!change.added.empty()) (*names)[change.added] = change.inode;
}

void SimFileSystem::LosePower(const PowerLoss& how) {
  {
    const std::lock_guard lock(mutex_);
    using Sectors = PowerLoss::Sectors;
    std::size_t prefix = how.keep == Sectors::kAll    ? changes_.size()
                         : how.keep == Sectors::kNone ? 0
                                                      : random_() % (changes_.size() + 1);
    for (std::size_t i = 0; i < changes_.size(); ++i) {
      const bool subset = how.reorder_names && how.keep == Sectors::kRandom;
      if (subset ? random_() % 2 == 0 : i < prefix) Apply(changes_[i], &kept_);
    }
    changes_.clear();
    now_ = kept_;
    std::set<Inode*> seen;
    for (const auto& [path, inode] : now_) {
      if (seen.insert(inode.get()).second) LoseSectors(inode.get(), how);
    }
  }
  Restart();
}

// ---- Hands.

SimFileSystem::Tree SimFileSystem::Snapshot() const {
  const std::lock_guard lock(mutex_);
  Tree tree;
  for (const auto& [path, inode] : now_) tree[path] = inode->now;
  return tree;
}

bool SimFileSystem::Holds(const Tree& tree) const {
  const std::lock_guard lock(mutex_);
  return std::equal(
      now_.begin(), now_.end(), tree.begin(), tree.end(),
      [](const auto& a, const auto& b) { return a.first == b.first && a.second->now == b.second; });
}

void SimFileSystem::Load(const Tree& tree) {
  {
    const std::lock_guard lock(mutex_);
    now_.clear();
    kept_.clear();
    changes_.clear();
    for (const auto& [path, bytes] : tree) {
      directories_.insert(DirectoryOf(path));
      auto inode = std::make_shared<Inode>();
      inode->now = inode->kept = bytes;
      now_[path] = kept_[path] = inode;
    }
  }
  Restart();
}

std::string SimFileSystem::Contents(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto it = now_.find(path);
  return it == now_.end() ? std::string() : it->second->now;
}

void SimFileSystem::SetContents(const std::string& path, std::string bytes) {
  const std::lock_guard lock(mutex_);
  InodePtr& inode = now_[path];
  if (inode == nullptr) inode = std::make_shared<Inode>();
  inode->now = inode->kept = std::move(bytes);
  inode->dirty.clear();
  kept_[path] = inode;
}

// ---- Bytes.

void SimFileSystem::WriteBytes(Inode* inode, std::uint64_t offset, std::string_view bytes) {
  if (bytes.empty()) return;
  if (inode->now.size() < offset + bytes.size()) inode->now.resize(offset + bytes.size(), '\0');
  std::copy(bytes.begin(), bytes.end(), inode->now.begin() + static_cast<std::ptrdiff_t>(offset));
  for (std::size_t s = offset / kSectorBytes; s <= (offset + bytes.size() - 1) / kSectorBytes;
       ++s) {
    inode->dirty.insert(s);
  }
}

Status SimFileSystem::Write(Inode* inode, const std::string& path, std::uint64_t offset,
                            std::string_view bytes) {
  if (const Status status = Enter("writing", path); !status.ok()) {
    WriteBytes(inode, offset, bytes.substr(0, random_() % (bytes.size() + 1)));
    return status;
  }
  if (offset + bytes.size() > inode->now.size()) {
    TROTH_RETURN_IF_ERROR(Resize(inode, path, offset + bytes.size()));
  }
  WriteBytes(inode, offset, bytes);
  return OkStatus();
}

Status SimFileSystem::Resize(Inode* inode, const std::string& path, std::uint64_t size) {
  const std::string::size_type old = inode->now.size();
  inode->now.resize(size, '\0');
  if (UsedLocked() <= capacity_) return OkStatus();
  inode->now.resize(old);
  return Status(Code::kNoSpace, "allocating " + path + ": the simulated disk is full");
}

Status SimFileSystem::Sync(Inode* inode, const std::string& path) {
  bool dies = false;
  const Status status = Enter("syncing", path, &dies);
  if (!status.ok()) {
    // What was to be synced is taken for clean, and is not on disk.
    if (!dies && !crashed_) inode->dirty.clear();
    return status.code() == Code::kNoSpace ? Status(Code::kIo, status.message()) : status;
  }
  inode->kept.resize(inode->now.size(), '\0');
  for (const std::size_t sector : inode->dirty) {
    const std::size_t from = sector * kSectorBytes;
    const std::size_t to = std::min(from + kSectorBytes, inode->now.size());
    if (from >= to) continue;
    std::copy(inode->now.begin() + static_cast<std::ptrdiff_t>(from),
              inode->now.begin() + static_cast<std::ptrdiff_t>(to),
              inode->kept.begin() + static_cast<std::ptrdiff_t>(from));
  }
  inode->dirty.clear();
  return OkStatus();
}

// ---- Names.

std::string SimFileSystem::DirectoryOf(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

Status SimFileSystem::Change(NameChange change) {
  Apply(change, &now_);
  changes_.push_back(std::move(change));
  return OkStatus();
}

Result<std::unique_ptr<File>> SimFileSystem::OpenForRead(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (crashed_) return Dead();
  const auto it = now_.find(path);
  if (it == now_.end()) return Status(Code::kNotFound, "opening " + path + ": no such file");
  return std::unique_ptr<File>(std::make_unique<SimFile>(this, path, it->second, life_));
}

Result<std::unique_ptr<File>> SimFileSystem::OpenForWrite(const std::string& path) {
  return OpenForRead(path);
}

Result<std::unique_ptr<File>> SimFileSystem::Create(const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    TROTH_RETURN_IF_ERROR(Enter("creating", path));
    if (!directories_.contains(DirectoryOf(path))) {
      return Status(Code::kNotFound, "creating " + path + ": no such directory");
    }
    if (now_.contains(path)) return Status(Code::kExists, "creating " + path + ": file exists");
    TROTH_RETURN_IF_ERROR(Change(NameChange{"", path, std::make_shared<Inode>()}));
  }
  return OpenForRead(path);
}

Status SimFileSystem::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  TROTH_RETURN_IF_ERROR(Enter("renaming", from));
  const auto it = now_.find(from);
  if (it == now_.end()) return Status(Code::kNotFound, "renaming " + from + ": no such file");
  return Change(NameChange{from, to, it->second});
}

Status SimFileSystem::Remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  TROTH_RETURN_IF_ERROR(Enter("removing", path));
  if (!now_.contains(path)) return Status(Code::kNotFound, "removing " + path + ": no such file");
  return Change(NameChange{path, "", nullptr});
}

Status SimFileSystem::SyncDirectory(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  const Status status = Enter("syncing", directory);
  if (!status.ok()) {
    return status.code() == Code::kNoSpace ? Status(Code::kIo, status.message()) : status;
  }
  std::vector<NameChange> others;
  for (NameChange& change : changes_) {
    const std::string& name = change.added.empty() ? change.removed : change.added;
    if (DirectoryOf(name) == directory) {
      Apply(change, &kept_);
    } else {
      others.push_back(std::move(change));
    }
  }
  changes_ = std::move(others);
  return OkStatus();
}

Status SimFileSystem::MakeDirectory(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  TROTH_RETURN_IF_ERROR(Enter("making", directory));
  if (!directories_.insert(directory).second) {
    return Status(Code::kExists, "making " + directory + ": it exists");
  }
  return OkStatus();
}

Result<std::vector<std::string>> SimFileSystem::List(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  if (crashed_) return Dead();
  if (!directories_.contains(directory)) {
    return Status(Code::kNotFound, "listing " + directory + ": no such directory");
  }
  std::vector<std::string> names;
  const std::string prefix = JoinPath(directory, "");
  for (auto it = now_.lower_bound(prefix); it != now_.end() && it->first.starts_with(prefix);
       ++it) {
    const std::string name = it->first.substr(prefix.size());
    if (name.find('/') == name.npos) names.push_back(name);
  }
  return names;
}

Result<std::uint64_t> SimFileSystem::Size(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (crashed_) return Dead();
  const auto it = now_.find(path);
  if (it == now_.end()) return Status(Code::kNotFound, path + ": no such file");
  return std::uint64_t{it->second->now.size()};
}

Result<std::unique_ptr<FileLock>> SimFileSystem::Lock(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (crashed_) return Dead();
  if (!locks_.insert(path).second) {
    return Status(Code::kRefused, path + " is held by a live process (pid simulated)");
  }
  return std::unique_ptr<FileLock>(std::make_unique<SimLock>(this, path, life_));
}

}  // namespace troth
