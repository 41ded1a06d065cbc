// The client's half of the protocol of lib/box/control.h, against a recorder that these tests play.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "lib/control/client.h"
#include "tests/support/box_builder.h"

namespace heapflare::control {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

class ControlTest : public testing::Test {
 protected:
  ControlTest() : box_(directory_.File("a.box")) {
    box_.Publish();
    fd_ = open(control_path().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(ftruncate(fd_, box::kAnswerOffset + sizeof(box::ControlAnswer)), 0);
  }
  ~ControlTest() override {
    stop_ = true;
    if (recorder_.joinable()) recorder_.join();
    close(fd_);
  }

  std::string box_path() const { return directory_.File("a.box"); }
  std::string control_path() const { return directory_.File("a.ctl"); }

  // Answers requests as long as the test runs.
  void PlayRecorder(std::function<box::ControlAnswer(const box::ControlRequest&)> answer) {
    recorder_ = std::thread([this, answer = std::move(answer)] {
      uint64_t answered = 0;
      while (!stop_) {
        box::ControlRequest request = {};
        if (pread(fd_, &request, sizeof(request), box::kRequestOffset) != sizeof(request) ||
            request.magic != box::kControlMagic || request.sequence <= answered) {
          usleep(500);
          continue;
        }
        requests_.push_back(request);
        box::ControlAnswer written = answer(request);
        answered = written.sequence = request.sequence;
        EXPECT_EQ(pwrite(fd_, &written, sizeof(written), box::kAnswerOffset),
                  static_cast<ssize_t>(sizeof(written)));
      }
    });
  }
  static box::ControlAnswer Text(const std::string& text) {
    box::ControlAnswer answer = {};
    answer.text_bytes = static_cast<uint32_t>(text.size());
    memcpy(answer.text, text.data(), text.size());
    return answer;
  }

  test::TemporaryDirectory directory_;
  test::BoxBuilder box_;
  int fd_ = -1;
  std::atomic<bool> stop_ = false;
  std::thread recorder_;
  std::vector<box::ControlRequest> requests_;
};

TEST_F(ControlTest, ReturnsWhatTheRecorderAnswers) {
  PlayRecorder([](const box::ControlRequest&) { return Text("/dumps/a.pb.gz"); });
  for (int i = 0; i < 3; ++i) {
    const auto answer = Ask(box_path(), getpid(), {.kind = box::ControlKind::kDump}, 5 * kSecond);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(*answer, "/dumps/a.pb.gz");
  }
  stop_ = true;
  recorder_.join();
  ASSERT_EQ(requests_.size(), 3u);
  EXPECT_EQ(requests_[2].sequence, 3u) << "each request has a number of its own";
  EXPECT_EQ(box_.header().doorbell, 3u) << "and rings once";
}

TEST_F(ControlTest, PassesTheArgument) {
  PlayRecorder([](const box::ControlRequest&) { return box::ControlAnswer{}; });
  ASSERT_TRUE(
      Ask(box_path(), 0, {.kind = box::ControlKind::kSetInterval, .argument = 4096}, 5 * kSecond)
          .ok());
  stop_ = true;
  recorder_.join();
  EXPECT_EQ(requests_[0].kind, static_cast<uint32_t>(box::ControlKind::kSetInterval));
  EXPECT_EQ(requests_[0].argument, 4096u);
}

TEST_F(ControlTest, TellsTheRecordersOwnReason) {
  PlayRecorder([](const box::ControlRequest&) {
    box::ControlAnswer answer = {};
    answer.error = ENOSPC;
    return answer;
  });
  const auto answer = Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, 5 * kSecond);
  ASSERT_TRUE(absl::IsInternal(answer.status()));
  EXPECT_NE(answer.status().message().find(strerror(ENOSPC)), std::string::npos);
}

TEST_F(ControlTest, DoesNotBelieveALengthThatCannotBe) {
  PlayRecorder([](const box::ControlRequest&) {
    box::ControlAnswer answer = Text("x");
    answer.text_bytes = ~uint32_t{0};
    return answer;
  });
  const auto answer = Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, 5 * kSecond);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->size(), sizeof(box::ControlAnswer::text));
}

TEST_F(ControlTest, GivesUpWhenTimeIsUp) {
  const auto answer = Ask(box_path(), getpid(), {.kind = box::ControlKind::kDump}, kSecond / 10);
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status())) << answer.status();
}

TEST_F(ControlTest, DoesNotWaitForAnotherClientWithoutEnd) {
  const int other = open(control_path().c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  const auto answer = Ask(box_path(), getpid(), {.kind = box::ControlKind::kDump}, kSecond / 10);
  EXPECT_TRUE(absl::IsDeadlineExceeded(answer.status()));
  EXPECT_NE(answer.status().message().find("another request"), std::string::npos);
  close(other);
}

TEST_F(ControlTest, NoticesThatTheProcessEnds) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  const auto answer = Ask(box_path(), child, {.kind = box::ControlKind::kDump}, 60 * kSecond);
  EXPECT_TRUE(absl::IsAborted(answer.status())) << answer.status();
}

TEST_F(ControlTest, ExplainsAMissingOrStrangeControlFile) {
  unlink(control_path().c_str());
  EXPECT_TRUE(
      absl::IsNotFound(Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, kSecond).status()));
  mkfifo(control_path().c_str(), 0600);
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, kSecond).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      Ask("/proc/1/fd/5", 0, {.kind = box::ControlKind::kDump}, kSecond).status()));
}

TEST_F(ControlTest, IsNotKilledByABoxThatShrinks) {
  ASSERT_EQ(truncate(box_path().c_str(), 0), 0);
  PlayRecorder([](const box::ControlRequest&) { return Text("ok"); });
  EXPECT_TRUE(Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, 5 * kSecond).ok());
}

TEST_F(ControlTest, RefusesUsedUpNumbers) {
  const uint64_t last = UINT64_MAX;
  ASSERT_EQ(pwrite(fd_, &last, sizeof(last), box::kAnswerOffset), 8);
  EXPECT_TRUE(
      absl::IsDataLoss(Ask(box_path(), 0, {.kind = box::ControlKind::kDump}, kSecond).status()));
}

}  // namespace
}  // namespace heapflare::control
