// When a main thread counts as standing still, by signs and a clock of the test's own.
#include "engine/run/beats.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "engine/base/hash.h"
#include "engine/base/leave.h"

namespace lehr::run {
namespace {

using Verdict = Standstill::Verdict;

class Beats : public ::testing::Test {
 protected:
  void SetUp() override { show_pulse_in(&shown); }
  void TearDown() override { show_pulse_in(&before); }

  // Looks ten times a second for so long, at a process that runs or, not `alive`, is stopped: the
  // seconds until the first verdict, or -1.
  double until(Verdict wanted, double seconds, bool alive = true) {
    for (int look = 1; look <= seconds * 10; ++look) {
      now += std::chrono::milliseconds(100);
      if (alive) ++shown.alive;
      const Verdict verdict = standstill.look(shown, now);
      if (verdict == wanted) return look / 10.0;
      EXPECT_EQ(verdict, Verdict::kFine);
    }
    return -1;
  }
  // The phase `name` so often that it is not new.
  void visit(const char* name, int visits, int milliseconds = 0) {
    for (int i = 0; i < visits; ++i) {
      enter_phase(name, i);
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    }
  }

  Pulse& before = pulse();
  Pulse shown{};
  Standstill standstill{{.heartbeat_s = 2, .timeout_s = 30}};
  Standstill::Clock::time_point now{};
};

TEST_F(Beats, AStandstillIsNamedAfterTheHeartbeatAndOverAfterTheTimeout) {
  visit("load", 15);
  enter_phase("load", 1505);
  EXPECT_NEAR(until(Verdict::kBegins, 5), 2.1, 0.11);
  EXPECT_EQ(standstill.text(shown), "has been in `load` of step 1505 for 2 s");
  EXPECT_NEAR(until(Verdict::kOver, 60), 30 - 2, 0.2);
}

TEST_F(Beats, ASignEndsAStandstillAndEachBeginsAnew) {
  visit("step", 15);
  EXPECT_GT(until(Verdict::kBegins, 5), 0);
  get_on();
  EXPECT_EQ(until(Verdict::kEnds, 1), 0.1);
  for (int batch = 0; batch < 100; ++batch) {
    get_on();
    EXPECT_EQ(until(Verdict::kBegins, 1.9), -1);
  }
  EXPECT_GT(until(Verdict::kBegins, 5), 0);
}

TEST_F(Beats, APhaseThatIsNewHasTenHeartbeats) {
  visit("start", 1);
  EXPECT_EQ(until(Verdict::kBegins, 20), -1);
  EXPECT_GT(until(Verdict::kBegins, 1), 0);
}

TEST_F(Beats, APhaseThatUsuallyTakesLongHasTenTimesThat) {
  visit("slow", 15, 30);
  EXPECT_NEAR(static_cast<double>(shown.usual_ns), 30e6, 29e6);
  shown.usual_ns = 500'000'000;
  EXPECT_EQ(until(Verdict::kBegins, 5), -1);
  EXPECT_GT(until(Verdict::kBegins, 1), 0);
  shown.usual_ns = 5'000'000'000;  // ten times that is beyond the timeout: it may take so long
  EXPECT_EQ(until(Verdict::kOver, 40), -1);
}

// One save in sixteen stands, because the one before it is slow; what is slow there is usual.
TEST_F(Beats, WhatAnotherThreadDoesForAPhaseDecidesWhatIsUsual) {
  for (int i = 0; i < 12; ++i)
    std::thread([] {
      const WorkFor save("save");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      get_on();
    }).join();
  visit("save", 15);
  EXPECT_GT(shown.usual_ns, 15e6);
  // and its signs count while the main thread is there alone
  const auto sign = [] {
    std::thread([] {
      const WorkFor save("save");
      get_on();
    }).join();
  };
  uint64_t moves = shown.moves;
  sign();
  EXPECT_GT(shown.moves, moves);
  enter_phase("load", 1);
  moves = shown.moves;
  sign();
  EXPECT_EQ(shown.moves, moves);
}

// What loads ahead for a main thread that waits gets on for it, in every phase; so do the hashes of
// what may be a mapped file.
TEST_F(Beats, WhatIsLoadedAheadOrHashedGetsOn) {
  enter_phase("evaluate", 1);
  uint64_t moves = shown.moves;
  std::thread(get_on).join();
  EXPECT_EQ(shown.moves, moves + 1);
  const std::vector<char> large((size_t{3} << 26) + 5);
  moves = shown.moves;
  const std::string hash = xxh3_128(large.data(), large.size());
  EXPECT_EQ(shown.moves, moves + 4);
  Xxh3 parts;
  parts.update(large.data(), 7);
  parts.update(large.data() + 7, large.size() - 7);
  EXPECT_EQ(parts.digest(), hash);
  moves = shown.moves;
  sha256({large.data(), large.size()});
  EXPECT_EQ(shown.moves, moves + 4);
}

TEST_F(Beats, WhoWaitsForOthersDoesNotStand) {
  visit("step", 15);
  {
    const Waiting waiting;
    EXPECT_EQ(until(Verdict::kBegins, 100), -1);
  }
  EXPECT_GT(until(Verdict::kBegins, 5), 0);
}

TEST_F(Beats, AProcessThatIsStoppedDoesNotStand) {
  visit("step", 15);
  EXPECT_EQ(until(Verdict::kBegins, 1), -1);
  EXPECT_EQ(until(Verdict::kBegins, 3600, /*alive=*/false), -1);
  EXPECT_EQ(until(Verdict::kBegins, 0.4), -1);
  EXPECT_GT(until(Verdict::kBegins, 5), 0);
}

TEST_F(Beats, ALongCauseIsCutBetweenCharacters) {
  std::string cause(Pulse::kCause - 2, 'x');
  tell_launcher(cause + "ä, and more");
  EXPECT_EQ(shown.cause, cause);
  tell_launcher("short");
  EXPECT_STREQ(shown.cause, "short");
}

TEST_F(Beats, RanksShowTheirsInOneMemory) {
  const SharedPulses pulses(4096);
  show_pulse_in(&pulses.of(4095));
  enter_phase("evaluate", 7);
  tell_launcher("a cause");
  EXPECT_EQ(pulses.of(4095).phase_name(), "evaluate");
  EXPECT_EQ(pulses.of(4094).phase_name(), "");
  pulses.reset(4095);
  EXPECT_STREQ(pulses.of(4095).cause, "");
}

}  // namespace
}  // namespace lehr::run
