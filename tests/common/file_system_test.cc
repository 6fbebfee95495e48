#include "common/file_system.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>

namespace troth {
namespace {

class FileSystemTest : public testing::Test {
 protected:
  FileSystemTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "troth-fs-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
  }
  ~FileSystemTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const char* name) const { return JoinPath(directory_, name); }

  FileSystem* const fs_ = PosixFileSystem();
  std::string directory_;
};

TEST_F(FileSystemTest, WritesAreReadBack) {
  auto file = fs_->Create(Path("a"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Write(3, "defg").ok());
  ASSERT_TRUE((*file)->Write(0, "abc").ok());
  ASSERT_TRUE((*file)->Sync().ok());
  std::string bytes;
  ASSERT_TRUE((*file)->Read(1, 100, &bytes).ok());
  EXPECT_EQ(bytes, "bcdefg");
  ASSERT_TRUE((*file)->Read(100, 1, &bytes).ok());
  EXPECT_EQ(bytes, "");
}

TEST_F(FileSystemTest, AllocatedRoomIsZero) {
  auto file = fs_->Create(Path("a"));
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Allocate(5000).ok());
  EXPECT_EQ(*(*file)->Size(), 5000u);
  std::string bytes;
  ASSERT_TRUE((*file)->Read(0, 6000, &bytes).ok());
  EXPECT_EQ(bytes, std::string(5000, '\0'));
}

TEST_F(FileSystemTest, NamesAreExclusiveAndListed) {
  ASSERT_TRUE(fs_->Create(Path("b")).ok());
  ASSERT_TRUE(fs_->Create(Path("a")).ok());
  EXPECT_EQ(fs_->Create(Path("a")).status().code(), Code::kExists);
  ASSERT_TRUE(fs_->Rename(Path("a"), Path("c")).ok());
  EXPECT_EQ(*fs_->List(directory_), (std::vector<std::string>{"b", "c"}));
  EXPECT_TRUE(fs_->SyncDirectory(directory_).ok());
  EXPECT_TRUE(fs_->Remove(Path("b")).ok());
  EXPECT_EQ(fs_->Remove(Path("b")).code(), Code::kNotFound);
  EXPECT_EQ(fs_->OpenForRead(Path("b")).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->OpenForWrite(Path("b")).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->List(Path("none")).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_->MakeDirectory(directory_).code(), Code::kExists);
  EXPECT_TRUE(fs_->MakeDirectory(Path("sub")).ok());
}

TEST_F(FileSystemTest, TheLockNamesItsOwner) {
  auto lock = fs_->Lock(Path("LOCK"));
  ASSERT_TRUE(lock.ok());
  const Status second = fs_->Lock(Path("LOCK")).status();
  EXPECT_EQ(second.code(), Code::kRefused);
  EXPECT_NE(second.message().find("pid " + std::to_string(getpid()) + ")"), std::string::npos)
      << second.message();
  lock = Status(Code::kInvalid, "released");
  EXPECT_TRUE(fs_->Lock(Path("LOCK")).ok());
}

TEST_F(FileSystemTest, AFailedWriteIsMaybeDone) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  auto* handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 4096;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  auto file = fs_->Create(Path("a"));
  const Status status = (*file)->Write(4096, "x");
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_TRUE(status.maybe_done());
  EXPECT_NE(status.message().find(Path("a")), std::string::npos);
}

}  // namespace
}  // namespace troth
