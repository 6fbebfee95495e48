/* Preloaded into a coordinator: counts the system calls that touch one directory, over all
 * threads of the process, and lets the n-th of them fail or be the last thing the process does.
 * Knows no log. Used by syscalls.py; docs/wal_format.md, "Commands".
 *
 *   CALL_SHIM_DIR    calls on files below it (and on itself) count
 *   CALL_SHIM_BOARD  a file of sizeof(struct board), shared with who watches
 *   CALL_SHIM_AT     which call is hit, from 1; 0: none
 *   CALL_SHIM_DO     kill: SIGKILL in front of the call; EIO, ENOSPC: the call fails with that, a
 *                    write after half of its bytes
 *
 * Fault model: kill leaves what was handed to the kernel; an error leaves what a disk that gave up
 * in the middle of a write would leave. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

struct board {
  _Atomic unsigned long seen; /* calls so far */
  _Atomic unsigned long hit;  /* 1 when the n-th came */
  char name[64];              /* of the call that was hit, and its file */
};

enum { kMaxFds = 4096 };
static struct board* board;
static char directory[PATH_MAX];
static unsigned long at;
static int error_code; /* 0: kill */
static _Atomic int watched[kMaxFds];
static char names[kMaxFds][40]; /* of the files behind them */

#define REAL(name) ((__typeof__(&name))real_##name())
#define DEFINE_REAL(name)                               \
  static void* real_##name(void) {                      \
    static void* found;                                 \
    if (found == NULL) found = dlsym(RTLD_NEXT, #name); \
    return found;                                       \
  }
DEFINE_REAL(open)
DEFINE_REAL(openat)
DEFINE_REAL(close)
DEFINE_REAL(pwrite)
DEFINE_REAL(write)
DEFINE_REAL(fsync)
DEFINE_REAL(fdatasync)
DEFINE_REAL(sync_file_range)
DEFINE_REAL(rename)
DEFINE_REAL(ftruncate)
DEFINE_REAL(posix_fallocate)
DEFINE_REAL(fallocate)
DEFINE_REAL(unlink)
DEFINE_REAL(mkdir)

__attribute__((constructor)) static void Start(void) {
  const char* dir = getenv("CALL_SHIM_DIR");
  const char* path = getenv("CALL_SHIM_BOARD");
  const char* what = getenv("CALL_SHIM_DO");
  const char* which = getenv("CALL_SHIM_AT");
  if (dir == NULL || path == NULL) return;
  if (realpath(dir, directory) == NULL) snprintf(directory, sizeof directory, "%s", dir);
  at = which != NULL ? strtoul(which, NULL, 10) : 0;
  if (what != NULL && strcmp(what, "EIO") == 0) error_code = EIO;
  if (what != NULL && strcmp(what, "ENOSPC") == 0) error_code = ENOSPC;
  const int fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) abort();
  void* shared = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) abort();
  REAL(close)(fd);
  board = shared;
}

static int Below(const char* path) {
  const size_t length = strlen(directory);
  return board != NULL && strncmp(path, directory, length) == 0 &&
         (path[length] == '/' || path[length] == '\0');
}

static int Watched(int fd) { return board != NULL && fd >= 0 && fd < kMaxFds && watched[fd]; }

/* Counts a call. True: it is the n-th, and is to fail with error_code. */
static int Count(const char* name, const char* path) {
  if (atomic_fetch_add(&board->seen, 1) + 1 != at) return 0;
  const char* file = strrchr(path, '/');
  snprintf(board->name, sizeof board->name, "%s %.40s", name, file != NULL ? file + 1 : path);
  board->hit = 1;
  if (error_code == 0) kill(getpid(), SIGKILL);
  errno = error_code;
  return 1;
}

static int Opened(int fd, const char* path) {
  if (fd < 0 || fd >= kMaxFds || !Below(path)) return fd;
  const char* name = strrchr(path, '/');
  snprintf(names[fd], sizeof names[fd], "%s", name != NULL ? name + 1 : path);
  watched[fd] = 1;
  return fd;
}

static mode_t ModeOf(int flags, va_list list) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
}

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = ModeOf(flags, list);
  va_end(list);
  if (Below(path) && Count("open", path)) return -1;
  return Opened(REAL(open)(path, flags, mode), path);
}
int open64(const char* path, int flags, ...) __attribute__((alias("open")));

int openat(int dir, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = ModeOf(flags, list);
  va_end(list);
  if (Below(path) && Count("open", path)) return -1;
  return Opened(REAL(openat)(dir, path, flags, mode), path);
}
int openat64(int dir, const char* path, int flags, ...) __attribute__((alias("openat")));

int close(int fd) {
  if (fd >= 0 && fd < kMaxFds) watched[fd] = 0;
  return REAL(close)(fd);
}

ssize_t pwrite(int fd, const void* bytes, size_t size, off_t offset) {
  if (Watched(fd) && Count("write", names[fd])) {
    if (REAL(pwrite)(fd, bytes, size / 2, offset) < 0) return -1;
    errno = error_code;
    return -1;
  }
  return REAL(pwrite)(fd, bytes, size, offset);
}
ssize_t pwrite64(int fd, const void* bytes, size_t size, off_t offset)
    __attribute__((alias("pwrite")));

ssize_t write(int fd, const void* bytes, size_t size) {
  if (Watched(fd) && Count("write", names[fd])) return -1;
  return REAL(write)(fd, bytes, size);
}

int fsync(int fd) { return Watched(fd) && Count("sync", names[fd]) ? -1 : REAL(fsync)(fd); }

int fdatasync(int fd) { return Watched(fd) && Count("sync", names[fd]) ? -1 : REAL(fdatasync)(fd); }

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned int flags) {
  return Watched(fd) && Count("sync", names[fd]) ? -1
                                                 : REAL(sync_file_range)(fd, offset, size, flags);
}

int rename(const char* from, const char* to) {
  return Below(from) && Count("rename", from) ? -1 : REAL(rename)(from, to);
}

int ftruncate(int fd, off_t size) {
  return Watched(fd) && Count("truncate", names[fd]) ? -1 : REAL(ftruncate)(fd, size);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
  return Watched(fd) && Count("allocate", names[fd]) ? error_code
                                                     : REAL(posix_fallocate)(fd, offset, size);
}
int posix_fallocate64(int fd, off_t offset, off_t size) __attribute__((alias("posix_fallocate")));

int fallocate(int fd, int mode, off_t offset, off_t size) {
  return Watched(fd) && Count("allocate", names[fd]) ? -1 : REAL(fallocate)(fd, mode, offset, size);
}

int unlink(const char* path) {
  return Below(path) && Count("unlink", path) ? -1 : REAL(unlink)(path);
}

int mkdir(const char* path, mode_t mode) {
  return Below(path) && Count("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
