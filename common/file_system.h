// The file system behind a seam: what the log needs of it, no more. The real one is POSIX
// (file_system.cc); the simulated one loses what was not synced (tests/simulation/).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace troth {

// An open file. Writes are positioned; there is no cursor. Different threads may use different
// files at once; one file is used by one thread at a time.
//
// Errors: kNoSpace when the disk (or quota) is full; kIo for all else, and then what is on disk
// is not known. After a failed Sync nothing more may be believed of the file (law L15).
class File {
 public:
  virtual ~File() = default;
  // Reads up to `size` bytes at `offset` into `*out` (replaced); shorter only at the end.
  virtual Status Read(std::uint64_t offset, std::size_t size, std::string* out) const = 0;
  // Writes all of `bytes` at `offset`. Durable only after Sync.
  virtual Status Write(std::uint64_t offset, std::string_view bytes) = 0;
  // Makes room for [0, size), so that writes below `size` need no more disk space, and makes
  // the file at least that long; new bytes read as zero. kNoSpace: surely not done.
  virtual Status Allocate(std::uint64_t size) = 0;
  // Blocks until what was written, and the size, is on disk (fdatasync).
  virtual Status Sync() = 0;
  virtual Result<std::uint64_t> Size() const = 0;
};

// Held until destroyed.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

// Paths are as the real file system's. Names become durable by SyncDirectory only.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // kNotFound when there is none.
  virtual Result<std::unique_ptr<File>> OpenForRead(const std::string& path) = 0;
  virtual Result<std::unique_ptr<File>> OpenForWrite(const std::string& path) = 0;
  // A new, empty file; kExists when there is one.
  virtual Result<std::unique_ptr<File>> Create(const std::string& path) = 0;
  // Replaces `to` if it is there. Atomic, not durable.
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  // kNotFound when there is none.
  virtual Status Remove(const std::string& path) = 0;
  // Blocks until the names in `directory` are on disk.
  virtual Status SyncDirectory(const std::string& directory) = 0;
  // kExists when there is one. Its own name is made durable too.
  virtual Status MakeDirectory(const std::string& directory) = 0;
  // Names (not paths) of the entries, sorted; kNotFound when there is no such directory.
  virtual Result<std::vector<std::string>> List(const std::string& directory) = 0;
  virtual Result<std::uint64_t> Size(const std::string& path) = 0;
  // Takes the lock on `path`, making the file if need be, and writes the owner's pid into it.
  // kRefused, naming the owner's pid, when another one holds it; never waits. Ends with the
  // process. Sound on a local file system only.
  virtual Result<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;
};

// The machine's files. Any thread; lives for ever.
FileSystem* PosixFileSystem();

// `directory` + "/" + `name`.
std::string JoinPath(std::string_view directory, std::string_view name);

}  // namespace troth
