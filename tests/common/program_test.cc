// How a program starts: what it answers to good and bad flags.
#include "common/program.h"

#include <csignal>
#include <filesystem>
#include <fstream>

#include <gflags/gflags.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/failpoint.h"

DEFINE_int32(listen_port, 7411,
             "Port for the tests of this file; it is bound by nobody, and its "
             "description is long enough to be broken into more lines than one by --help");
DEFINE_bool(kill, true, "Whether somebody is killed");
DEFINE_string(directory, "", "Where the log lives");

namespace troth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ProgramTest : public ::testing::Test {
 protected:
  // Calls StartProgram as a shell would; what is left of argv behind the name is in left_.
  std::optional<int> Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "/usr/bin/troth-test");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int argc = static_cast<int>(arguments.size());
    char** pointer = argv.data();
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const std::optional<int> done = StartProgram("Tests a thing.", &argc, &pointer);
    out_ = ::testing::internal::GetCapturedStdout();
    err_ = ::testing::internal::GetCapturedStderr();
    left_.assign(pointer + 1, pointer + argc);
    return done;
  }

  // The path of a flag file that holds `text`.
  std::string FlagFile(const std::string& text) {
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("program_test." + std::to_string(::getpid()));
    std::ofstream(path) << text;
    files_.push_back(path);
    return path;
  }

  void TearDown() override {
    for (const auto& file : files_) std::filesystem::remove(file);
  }

  gflags::FlagSaver saver_;
  std::vector<std::filesystem::path> files_;
  std::vector<std::string> left_;
  std::string out_;
  std::string err_;
};

TEST_F(ProgramTest, HelpShowsUsageAndOwnFlagsAndEndsWith0) {
  EXPECT_EQ(Start({"--help"}), 0);
  EXPECT_THAT(out_, HasSubstr("Tests a thing.\n"));
  EXPECT_THAT(out_, HasSubstr("--listen_port (int32, default 7411)\n      Port for the tests"));
  EXPECT_THAT(out_, HasSubstr("--directory (string, default \"\")"));
  EXPECT_THAT(out_, Not(HasSubstr("--logtostderr")));
  EXPECT_EQ(err_, "");
  EXPECT_EQ(Start({"--helpfull"}), 0);
  EXPECT_THAT(out_, HasSubstr("--logtostderr"));
}

TEST_F(ProgramTest, HelpWinsOverAMistake) { EXPECT_EQ(Start({"--nonsense", "--help"}), 0); }

TEST_F(ProgramTest, HelpBehindTheEndOfFlagsIsAnArgument) {
  EXPECT_EQ(Start({"--", "--help"}), std::nullopt);
  EXPECT_THAT(left_, ElementsAre("--help"));
}

TEST_F(ProgramTest, VersionNamesTheProgram) {
  EXPECT_EQ(Start({"--version"}), 0);
  EXPECT_THAT(out_, ::testing::MatchesRegex("troth-test [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(ProgramTest, UnknownFlagEndsWith2AndNamesANearOne) {
  EXPECT_EQ(Start({"--listen-prot", "1"}), 2);
  EXPECT_THAT(err_, HasSubstr("troth-test: unknown flag --listen-prot"));
  EXPECT_THAT(err_, HasSubstr("did you mean --listen_port?"));
  EXPECT_THAT(err_, HasSubstr("--help"));
  EXPECT_EQ(out_, "");
}

TEST_F(ProgramTest, WrongOrMissingValueEndsWith2) {
  EXPECT_EQ(Start({"--listen-port=many"}), 2);
  EXPECT_THAT(err_, HasSubstr("--listen_port: 'many' is not allowed"));
  EXPECT_THAT(err_, HasSubstr("int32"));
  EXPECT_EQ(Start({"--listen-port"}), 2);
  EXPECT_THAT(err_, HasSubstr("--listen_port needs a value"));
  EXPECT_EQ(FLAGS_listen_port, 7411);
}

TEST_F(ProgramTest, FlagsAreSetAndTheOtherArgumentsStayInOrder) {
  EXPECT_EQ(Start({"transfer", "--listen_port", "5", "east/17", "--no-kill", "5", "-7",
                   "--directory=/a=b", "-"}),
            std::nullopt);
  EXPECT_THAT(left_, ElementsAre("transfer", "east/17", "5", "-7", "-"));
  EXPECT_EQ(FLAGS_listen_port, 5);
  EXPECT_FALSE(FLAGS_kill);
  EXPECT_EQ(FLAGS_directory, "/a=b");
}

TEST_F(ProgramTest, BooleansTakeNoValueBehindThem) {
  EXPECT_EQ(Start({"--nokill", "--kill", "false"}), std::nullopt);
  EXPECT_TRUE(FLAGS_kill);
  EXPECT_THAT(left_, ElementsAre("false"));
  EXPECT_EQ(Start({"--kill=false"}), std::nullopt);
  EXPECT_FALSE(FLAGS_kill);
  EXPECT_EQ(Start({"--no-listen-port"}), 2);
}

TEST_F(ProgramTest, FlagFileIsReadAndLaterArgumentsWin) {
  const std::string file = FlagFile("# ports\n\n  --listen-port=9  \n--no-kill\n");
  EXPECT_EQ(Start({"--flagfile", file}), std::nullopt);
  EXPECT_EQ(FLAGS_listen_port, 9);
  EXPECT_FALSE(FLAGS_kill);
  EXPECT_EQ(Start({"--flagfile=" + file, "--listen-port=10"}), std::nullopt);
  EXPECT_EQ(FLAGS_listen_port, 10);
}

TEST_F(ProgramTest, MistakeInAFlagFileIsToldWithItsLine) {
  const std::string file = FlagFile("--kill\n--listen-prot=9\n");
  EXPECT_EQ(Start({"--flagfile", file}), 2);
  EXPECT_THAT(err_, HasSubstr(file + ", line 2: unknown flag --listen-prot"));
  EXPECT_EQ(Start({"--flagfile", FlagFile("listen\n")}), 2);
  EXPECT_THAT(err_, HasSubstr("'listen' is no --name=value"));
  EXPECT_EQ(Start({"--flagfile", "/nonexistent/flags"}), 2);
  EXPECT_THAT(err_, HasSubstr("/nonexistent/flags can't be read: No such file or directory"));
}

TEST_F(ProgramTest, FlagFileThatNamesItselfIsAMistake) {
  const std::string file = FlagFile("");
  std::ofstream(file) << "--flagfile=" << file << "\n";
  EXPECT_EQ(Start({"--flagfile", file}), 2);
  EXPECT_THAT(err_, HasSubstr("too deep"));
}

TEST_F(ProgramTest, FailpointsAreInertUntilTheFlagIsGiven) {
  ::setenv("TROTH_FAILPOINTS", "program-test-point=error", 1);
  EXPECT_EQ(Start({}), std::nullopt);
  EXPECT_THAT(err_, HasSubstr("ignored without --enable_failpoints"));
  EXPECT_FALSE(TROTH_FAILPOINT("program-test-point"));
  EXPECT_EQ(Start({"--enable_failpoints"}), std::nullopt);
  EXPECT_TRUE(TROTH_FAILPOINT("program-test-point"));
  failpoint::DisableAll();
  ::setenv("TROTH_FAILPOINTS", "program-test-point=explode", 1);
  EXPECT_EQ(Start({"--enable_failpoints"}), 2);
  ::unsetenv("TROTH_FAILPOINTS");
}

TEST_F(ProgramTest, BrokenPipesAreErrorsOfTheCallNotDeaths) {
  std::signal(SIGPIPE, SIG_DFL);  // as in a fresh process, whatever started this one
  EXPECT_EQ(Start({}), std::nullopt);
  int pipe_ends[2];
  ASSERT_EQ(::pipe(pipe_ends), 0);
  ::close(pipe_ends[0]);
  EXPECT_EQ(::write(pipe_ends[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  ::close(pipe_ends[1]);
}

}  // namespace
}  // namespace troth
