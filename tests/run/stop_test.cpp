// What a signal does: to every verb, at any time, sent once or twice, to a process alone or to the
// launcher of ranks.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>

#include "engine/base/files.h"
#include "tests/run/program.h"

namespace lehr::testing {
namespace {

class Stop : public ::testing::Test {
 protected:
  void SetUp() override {
    write_images(scratch, 60);
    write_small_recipe(scratch, 1000000, 100000, "export:\n  enabled: false\n");
  }
  std::string log() const { return file_exists(scratch.file("log")) ? scratch.read("log") : ""; }
  bool says(const std::string& text) const { return log().find(text) != std::string::npos; }

  // Starts with what opens, writes or flushes `held` standing still; "": nothing.
  pid_t start(const std::vector<std::string>& words, const std::string& held = "") {
    for (const char* name : {"log", "hold", "held"}) unlink(scratch.file(name).c_str());
    if (!held.empty()) scratch.write("hold", held);
    setenv("LD_PRELOAD", LEHR_BINARY_DIR "/tests/libheld.so", 1);
    const pid_t pid = start_lehr(words, scratch.path, scratch.file("log"));
    unsetenv("LD_PRELOAD");
    return pid;
  }
  bool is_held(pid_t pid) const {
    return wait_for([&] { return file_exists(scratch.file("held")); }, 60, pid);
  }
  void let_go() const { unlink(scratch.file("hold").c_str()); }
  bool has_stepped(const std::string& run, pid_t pid) const {
    const std::string rows = run + "/metrics.jsonl";
    return wait_for(
        [&] { return file_exists(scratch.file(rows)) && scratch.read(rows).size() > 100; }, 60,
        pid);
  }
  std::vector<std::string> checkpoints(const std::string& run) const {
    return list_folder(scratch.file(run + "/checkpoints"));
  }
  Scratch scratch;
};

// whoever reads what is printed may go away
TEST_F(Stop, ATrainingOutlivesItsReader) {
  for (const char* words : {"train", "launch -n 2"}) {
    const std::string run = std::string("piped-") + words[0];
    const Outcome piped = shell(
        fmt::format("{}/lehr {} small.yaml --run {} --set training.max_steps=60 2>&1 | head -1",
                    LEHR_BINARY_DIR, words, run),
        scratch.path);
    EXPECT_TRUE(wait_for([&] { return file_exists(scratch.file(run + "/finished.json")); }))
        << piped.out;
  }
}

const std::vector<std::string> kTrain{"train"}, kLaunch{"launch", "-n", "2"};

TEST_F(Stop, ATrainingSavesAtAnyRequest) {
  for (const auto& [signal, launched] : {std::pair{SIGTERM, false},
                                         {SIGINT, false},
                                         {SIGHUP, false},
                                         {SIGUSR1, false},
                                         {SIGUSR2, false},
                                         {SIGXCPU, false},
                                         {SIGINT, true},
                                         {SIGHUP, true},
                                         {SIGUSR2, true}}) {
    const std::string name = fmt::format("SIG{}", sigabbrev_np(signal)),
                      run = name + (launched ? "-launch" : "");
    auto words = launched ? kLaunch : kTrain;
    words.insert(words.end(), {"small.yaml", "--run", run});
    const pid_t pid = start(words);
    ASSERT_TRUE(has_stepped(run, pid)) << log();
    kill(pid, signal);
    EXPECT_EQ(wait_for(pid, 60), 75) << run << log();
    EXPECT_TRUE(says("stopped by " + name + " after step ")) << run << log();
    EXPECT_TRUE(says("everything is saved")) << run << log();
    EXPECT_EQ(checkpoints(run).size(), 1U) << run;
  }
}

TEST_F(Stop, BeforeTheFirstStepAndAfterTheLastItEndsAtOnce) {
  const std::string first = " before the first step; nothing is lost",
                    last = " after the last step, which is saved";
  for (const auto& [signal, launched, held, said, saved] :
       {std::tuple{SIGTERM, false, "train-images", first, 0U},
        {SIGINT, false, "train-images", first, 0U},
        {SIGTERM, true, "train-images", first, 0U},
        {SIGINT, true, "train-images", first, 0U},
        {SIGTERM, false, "metrics.json.tmp-", last, 1U},
        {SIGINT, true, "metrics.json.tmp-", last, 1U}}) {
    auto words = launched ? kLaunch : kTrain;
    words.insert(words.end(), {"small.yaml", "--run", "run", "--set", "training.max_steps=2"});
    const pid_t pid = start(words, held);
    ASSERT_TRUE(is_held(pid)) << log();
    kill(pid, signal);
    EXPECT_EQ(wait_for(pid, 20), 75) << log();
    EXPECT_TRUE(says(fmt::format("stopped by SIG{}{}", sigabbrev_np(signal), said))) << log();
    EXPECT_EQ(checkpoints("run").size(), saved) << log();
    let_go();
  }
  // and then goes on to its end
  EXPECT_EQ(
      lehr({"train", "small.yaml", "--run", "run", "--set", "training.max_steps=2"}, scratch.path)
          .code,
      0);
}

// Whatever answers there, or nothing; and in the time that it is given, unasked.
TEST_F(Stop, WhoWaitsForTheStoreEndsAtOnce) {
  for (const auto& [words, signal, code] :
       {std::tuple<std::vector<std::string>, int, int>{{"train", "small.yaml"}, SIGTERM, 75},
        {{"train", "small.yaml"}, SIGINT, 75},
        {{"doctor"}, SIGINT, 130},
        {{"doctor", "--timeout", "1"}, 0, 6}}) {
    const int silent = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET, at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    ASSERT_EQ(bind(silent, reinterpret_cast<sockaddr*>(&at), size), 0);
    ASSERT_EQ(listen(silent, 9), 0);
    getsockname(silent, reinterpret_cast<sockaddr*>(&at), &size);
    const std::string port = std::to_string(ntohs(at.sin_port));
    const std::map<std::string, std::string> variables{{"RANK", "1"},
                                                       {"LOCAL_RANK", "1"},
                                                       {"WORLD_SIZE", "2"},
                                                       {"LOCAL_WORLD_SIZE", "2"},
                                                       {"MASTER_ADDR", "127.0.0.1"},
                                                       {"MASTER_PORT", port}};
    for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
    const pid_t pid = start(words);
    for (const auto& [name, value] : variables) unsetenv(name.c_str());
    pollfd caller{silent, POLLIN, 0};
    ASSERT_EQ(poll(&caller, 1, 60000), 1) << log();
    const int connection = accept(silent, nullptr, nullptr);
    kill(pid, signal);
    EXPECT_EQ(wait_for(pid, 20), code) << words[0] << log();
    EXPECT_TRUE(signal != 0 || says(fmt::format("127.0.0.1:{}: no answer for 1 s", port))) << log();
    close(connection), close(silent);
  }
}

// Wrappers hand on to a process of their own group what the terminal has sent it already.
TEST_F(Stop, OneInterruptThatComesTwiceCountsOnceAndADeliberateOneEndsAtOnce) {
  for (const bool launched : {false, true})
    for (const bool deliberate : {false, true}) {
      const std::string run = fmt::format("{}-{}", launched, deliberate);
      auto words = launched ? kLaunch : kTrain;
      words.insert(words.end(), {"small.yaml", "--run", run});
      const pid_t pid = start(words);
      ASSERT_TRUE(has_stepped(run, pid)) << log();
      // the training stands still, so nothing but a signal ends it
      scratch.write("hold", "metrics.jsonl 0");
      ASSERT_TRUE(is_held(pid)) << log();
      for (const int signal : {SIGINT, SIGINT, SIGTERM, SIGINT}) {
        kill(pid, signal);
        usleep(20000);
      }
      if (deliberate) {
        usleep(1100000);
        kill(pid, SIGINT);
        EXPECT_EQ(wait_for(pid, 20), 130) << log();
        EXPECT_TRUE(says("interrupted twice: what follows the last checkpoint is not saved"))
            << log();
      }
      let_go();
      if (deliberate) continue;
      EXPECT_EQ(wait_for(pid, 60), 75) << log();
      EXPECT_TRUE(says("everything is saved")) << log();
    }
}

TEST_F(Stop, AnInterruptAfterEverythingIsSavedChangesNothing) {
  const pid_t pid = start({"train", "small.yaml", "--run", "run"}, "exit");
  ASSERT_TRUE(has_stepped("run", pid)) << log();
  kill(pid, SIGINT);
  ASSERT_TRUE(is_held(pid)) << log();
  kill(pid, SIGINT);
  usleep(1100000);
  kill(pid, SIGINT);
  EXPECT_EQ(wait_for(pid, 20), 75) << log();
}

TEST_F(Stop, WhatWasIgnoredAtTheStartStaysIgnored) {
  scratch.write("ignoring.sh", "trap '' INT HUP USR2\nexec \"$@\"\n");
  for (const std::string verb : {"train small.yaml", "launch -n 2 small.yaml"}) {
    const std::string run = verb.substr(0, 5), command = LEHR_BINARY_DIR "/lehr " + verb;
    const pid_t pid = fork();
    if (pid == 0) {
      const std::string line = fmt::format("cd {} && exec sh ignoring.sh {} --run {} > log 2>&1",
                                           scratch.path, command, run);
      execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
      _exit(127);
    }
    ASSERT_TRUE(has_stepped(run, pid)) << log();
    for (const int signal : {SIGINT, SIGHUP, SIGUSR2}) kill(pid, signal);
    // it goes on: later signals come after these
    const size_t rows = scratch.read(run + "/metrics.jsonl").size();
    EXPECT_TRUE(
        wait_for([&] { return scratch.read(run + "/metrics.jsonl").size() > 2 * rows; }, 60, pid))
        << log();
    kill(pid, SIGTERM);
    EXPECT_EQ(wait_for(pid, 60), 75) << log();
    EXPECT_TRUE(says("stopped by SIGTERM after step ")) << log();
  }
}

TEST_F(Stop, ALimitOfFileSizesIsAnErrorOfTheFile) {
  const Outcome outcome = shell("ulimit -f 16; " LEHR_BINARY_DIR
                                "/lehr train small.yaml --run run --set checkpoint.interval=1",
                                scratch.path);
  EXPECT_EQ(outcome.code, 5) << outcome.out;
  EXPECT_NE(outcome.out.find("File too large"), std::string::npos) << outcome.out;
}

// Verbs that keep nothing end as the signal says, and leave nothing half-written; a tokenization
// keeps the shards that it has.
TEST_F(Stop, OtherVerbsEndAtOnceAndLeaveNothingHalfWritten) {
  write_small_recipe(scratch, 2, 1);
  ASSERT_EQ(lehr({"train", "small.yaml", "--run", "run"}, scratch.path).code, 0);
  scratch.write("text", std::string(10000, 'x'));
  const std::string artefact = "run/artefact";
  const std::vector<std::string> tokenize{"tokenize", "text",     "--tokenizer",
                                          "byte",     "--output", "tokens"};
  const auto before = list_folder(scratch.path);
  const auto is_noise = [](const std::string& name) {
    return name == "log" || name == "hold" || name == "held" || name == "tokens";
  };
  for (const auto& [words, held, signal, code] :
       {std::tuple<std::vector<std::string>, std::string, int, int>{
            {"predict", artefact, "--input", "test-images", "--output", "out.csv"},
            "out.csv.tmp-",
            SIGINT,
            130},
        {{"predict", artefact, "--input", "test-images", "--output", "out.csv"},
         "out.csv.tmp-",
         SIGTERM,
         143},
        {{"export", "run", "--output", "model"}, "model.tmp-", SIGINT, 130},
        {{"export", "run", "--output", "model"}, "model.tmp-", SIGHUP, 129},
        {{"evaluate", artefact, "--data", "test-images", "test-labels"},
         "test-labels",
         SIGINT,
         130},
        {{"generate", artefact, "--prompt", "x"}, "MANIFEST.json", SIGINT, 130},
        {{"inspect", artefact}, "MANIFEST.json", SIGINT, 130},
        {{"check", "small.yaml"}, "train-images", SIGINT, 130},
        {tokenize, "tokens/train-00000.tokens.tmp-", SIGINT, 75},
        {tokenize, "tokens/train-00000.tokens.tmp-", SIGTERM, 75}}) {
    const pid_t pid = start(words, held);
    ASSERT_TRUE(is_held(pid)) << words[0] << log();
    kill(pid, signal);
    EXPECT_EQ(wait_for(pid, 20), code) << words[0] << log();
    auto after = list_folder(scratch.path);
    std::erase_if(after, is_noise);
    EXPECT_EQ(after, before) << words[0];
    let_go();
  }
  for (const auto& name : list_folder(scratch.file("tokens")))
    EXPECT_EQ(name.find(".tmp-"), std::string::npos) << name;
  EXPECT_TRUE(says("stopped by SIGTERM; the shards that are done stay")) << log();
  EXPECT_EQ(lehr(tokenize, scratch.path).code, 0);
}

}  // namespace
}  // namespace lehr::testing
