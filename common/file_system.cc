// See file_system.h.
#include "common/file_system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

namespace troth {
namespace {

Status FromErrno(int error, std::string_view what, const std::string& path) {
  Code code = Code::kIo;
  if (error == ENOSPC || error == EDQUOT) code = Code::kNoSpace;
  if (error == ENOENT) code = Code::kNotFound;
  if (error == EEXIST) code = Code::kExists;
  return Status(code, std::string(what) + " " + path + ": " + std::strerror(error));
}

// Closes on leaving the scope.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  int get() const { return fd_; }

 private:
  int fd_;
};

Descriptor OpenDescriptor(const std::string& path, int flags) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0640);
  } while (fd < 0 && errno == EINTR);
  return Descriptor(fd);
}

class PosixFile final : public File {
 public:
  PosixFile(std::string path, Descriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  Status Read(std::uint64_t offset, std::size_t size, std::string* out) const override {
    out->resize(size);
    std::size_t done = 0;
    while (done < size) {
      const ssize_t n =
          ::pread(fd_.get(), out->data() + done, size - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FromErrno(errno, "reading", path_);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    out->resize(done);
    return OkStatus();
  }

  Status Write(std::uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FromErrno(errno, "writing", path_);
      if (n == 0) return Status(Code::kIo, "writing " + path_ + ": nothing was written");
      bytes.remove_prefix(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
    return OkStatus();
  }

  Status Allocate(std::uint64_t size) override {
    int error;
    do {
      error = ::posix_fallocate(fd_.get(), 0, static_cast<off_t>(size));
    } while (error == EINTR);
    return error == 0 ? OkStatus() : FromErrno(error, "allocating", path_);
  }

  Status Sync() override {
    // Not repeated on EINTR: a second fdatasync may succeed although the first lost pages.
    return ::fdatasync(fd_.get()) == 0 ? OkStatus() : Fatal("syncing");
  }

  Result<std::uint64_t> Size() const override {
    struct stat info {};
    if (::fstat(fd_.get(), &info) != 0) return FromErrno(errno, "asking the size of", path_);
    return static_cast<std::uint64_t>(info.st_size);
  }

 private:
  // Whatever errno says, what is on disk is not known.
  Status Fatal(std::string_view what) const {
    return Status(Code::kIo, std::string(what) + " " + path_ + ": " + std::strerror(errno));
  }

  const std::string path_;
  const Descriptor fd_;
};

class PosixLock final : public FileLock {
 public:
  explicit PosixLock(Descriptor fd) : fd_(std::move(fd)) {}

 private:
  const Descriptor fd_;
};

class PosixFileSystemImpl final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> OpenForRead(const std::string& path) override {
    return OpenFile(path, O_RDONLY);
  }
  Result<std::unique_ptr<File>> OpenForWrite(const std::string& path) override {
    return OpenFile(path, O_RDWR);
  }
  Result<std::unique_ptr<File>> Create(const std::string& path) override {
    return OpenFile(path, O_RDWR | O_CREAT | O_EXCL);
  }

  Status Rename(const std::string& from, const std::string& to) override {
    return ::rename(from.c_str(), to.c_str()) == 0 ? OkStatus()
                                                   : FromErrno(errno, "renaming", from);
  }

  Status Remove(const std::string& path) override {
    return ::unlink(path.c_str()) == 0 ? OkStatus() : FromErrno(errno, "removing", path);
  }

  Status SyncDirectory(const std::string& directory) override {
    const Descriptor fd = OpenDescriptor(directory, O_RDONLY | O_DIRECTORY);
    if (fd.get() < 0) return FromErrno(errno, "opening", directory);
    if (::fsync(fd.get()) != 0) {
      return Status(Code::kIo, "syncing " + directory + ": " + std::strerror(errno));
    }
    return OkStatus();
  }

  Status MakeDirectory(const std::string& directory) override {
    if (::mkdir(directory.c_str(), 0750) != 0) return FromErrno(errno, "making", directory);
    // Not the slash at its end.
    const std::size_t name = std::max<std::size_t>(directory.find_last_not_of('/') + 1, 1) - 1;
    const std::size_t slash = directory.find_last_of('/', name);
    if (slash == directory.npos) return SyncDirectory(".");
    return SyncDirectory(slash == 0 ? "/" : directory.substr(0, slash));
  }

  Result<std::vector<std::string>> List(const std::string& directory) override {
    DIR* dir = ::opendir(directory.c_str());
    if (dir == nullptr) return FromErrno(errno, "listing", directory);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
    }
    const int error = errno;
    ::closedir(dir);
    if (error != 0) return FromErrno(error, "listing", directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  Result<std::uint64_t> Size(const std::string& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return FromErrno(errno, "asking the size of", path);
    return static_cast<std::uint64_t>(info.st_size);
  }

  Result<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    Descriptor fd = OpenDescriptor(path, O_RDWR | O_CREAT);
    if (fd.get() < 0) return FromErrno(errno, "opening", path);
    // flock belongs to the open file: it also keeps out a second opening in this process.
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return FromErrno(errno, "locking", path);
      char owner[32] = {};
      const ssize_t n = ::pread(fd.get(), owner, sizeof owner - 1, 0);
      std::string_view pid(owner, n > 0 ? static_cast<std::size_t>(n) : 0);
      while (!pid.empty() && (pid.back() == '\n' || pid.back() == ' ')) pid.remove_suffix(1);
      return Status(Code::kRefused, path + " is held by a live process (pid " +
                                        (pid.empty() ? "unknown" : std::string(pid)) +
                                        "); stop it first");
    }
    // Fixed width, in place: needs no new block on a full disk. Failing to write it costs only
    // the name in another one's message.
    char line[32];
    const int size = std::snprintf(line, sizeof line, "%-20ld\n", static_cast<long>(::getpid()));
    if (::pwrite(fd.get(), line, static_cast<std::size_t>(size), 0) < 0) errno = 0;
    return std::unique_ptr<FileLock>(std::make_unique<PosixLock>(std::move(fd)));
  }

 private:
  Result<std::unique_ptr<File>> OpenFile(const std::string& path, int flags) {
    Descriptor fd = OpenDescriptor(path, flags);
    if (fd.get() < 0) return FromErrno(errno, "opening", path);
    return std::unique_ptr<File>(std::make_unique<PosixFile>(path, std::move(fd)));
  }
};

}  // namespace

FileSystem* PosixFileSystem() {
  static PosixFileSystemImpl file_system;
  return &file_system;
}

std::string JoinPath(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty() && path.back() != '/') path += '/';
  return path.append(name);
}

}  // namespace troth
