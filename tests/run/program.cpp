#include "tests/run/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>

#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/random.h"
#include "engine/checkpoint/checkpoint.h"

namespace lehr::testing {

static const std::string kProgram = LEHR_BINARY_DIR "/lehr";

pid_t start_lehr(const std::vector<std::string>& words, const std::string& folder,
                 const std::string& log) {
  std::vector<std::string> all{kProgram};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> arguments;
  for (auto& word : all) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = fork();
  if (pid == 0) {
    if (chdir(folder.c_str()) != 0) _exit(126);
    int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(fd, 1);
    dup2(fd, 2);
    execv(kProgram.c_str(), arguments.data());
    _exit(127);
  }
  return pid;
}

bool wait_for(const std::function<bool()>& condition, double seconds, pid_t pid) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    siginfo_t ended{};
    if (pid > 0 &&
        waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        ended.si_pid == pid)
      return condition();  // what it did last
    if (std::chrono::steady_clock::now() > end) return false;
    usleep(1000);
  }
  return true;
}

int wait_for(pid_t pid, double seconds) {
  int status = 0;
  if (!wait_for([&] { return waitpid(pid, &status, WNOHANG) != 0; }, seconds)) {
    ADD_FAILURE() << "process " << pid << " does not end";
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int free_port() {
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  socklen_t size = sizeof any;
  const int fd = socket(AF_INET6, SOCK_STREAM, 0), off = 0;
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&any), size) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&any), &size) == 0;
  EXPECT_TRUE(bound) << "no port is free";
  close(fd);
  return ntohs(any.sin6_port);
}

Outcome lehr(const std::vector<std::string>& words, const std::string& folder) {
  char name[] = "/tmp/lehr-test-log-XXXXXX";
  int fd = mkstemp(name);
  close(fd);
  Outcome outcome;
  outcome.code = wait_for(start_lehr(words, folder, name));
  outcome.out = read_file(name);
  unlink(name);
  return outcome;
}

Outcome shell(const std::string& command, const std::string& folder) {
  Outcome outcome;
  FILE* pipe = popen(fmt::format("cd '{}' && ( {} ) 2>&1", folder, command).c_str(), "r");
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.out.append(buffer, n);
  int status = pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

Scratch::Scratch() {
  char name[] = "/tmp/lehr-test-XXXXXX";
  path = mkdtemp(name);
}

Scratch::~Scratch() {
  if (!::testing::Test::HasFailure()) remove_tree(path);  // kept for a look when something failed
}

void Scratch::write(const std::string& name, const std::string& content) const {
  std::ofstream(file(name), std::ios::binary) << content;
}

std::string Scratch::read(const std::string& name) const { return read_file(file(name)); }

static std::string big_endian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

void write_images(const Scratch& scratch, int64_t n) {
  for (const char* split : {"train", "test"}) {
    std::string images =
        big_endian(0x803) + big_endian(static_cast<uint32_t>(n)) + big_endian(8) + big_endian(8);
    std::string labels = big_endian(0x801) + big_endian(static_cast<uint32_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      Random random(split[1] == 'r' ? 7 : 8, Stream::kTest, static_cast<uint64_t>(i));
      const int label = static_cast<int>(random.below(3));
      labels += static_cast<char>(label);
      // a bright bar whose place tells the class, under noise
      for (int y = 0; y < 8; ++y)
        for (int x = 0; x < 8; ++x) {
          int value = static_cast<int>(random.below(120)) + (x / 3 == label ? 100 : 0);
          images += static_cast<char>(value);
        }
    }
    scratch.write(std::string(split) + "-images", images);
    scratch.write(std::string(split) + "-labels", labels);
  }
}

void write_small_recipe(const Scratch& scratch, int64_t steps, int64_t interval,
                        const std::string& more) {
  scratch.write("small.yaml", fmt::format(R"(model:
  name: cnn
  channels: [8, 8]
  hidden: 16
  dropout: 0.1
data:
  source: idx
  train_images: train-images
  train_labels: train-labels
  test_images: test-images
  test_labels: test-labels
  classes: [left, middle, right]
  validation_fraction: 0.2
  augment:
    pad_crop: 1
    flip: 0
training:
  global_batch_size: 16
  max_steps: {}
  threads: 1
  seed: 3
optimizer:
  name: adamw
  lr: 3e-3
lr_scheduler:
  name: one_cycle
checkpoint:
  interval: {}
validation:
  interval: 10
  monitor: accuracy
metrics:
  log_interval: 1
{}
)",
                                          steps, interval, more));
}

std::string fingerprint(const std::string& run) {
  auto loaded = checkpoint::newest(join_path(run, "checkpoints"),
                                   [](const std::string& problem) { ADD_FAILURE() << problem; });
  if (!loaded) return "no checkpoint";
  std::string text = fmt::format("step {} samples {}\n", loaded->step, loaded->samples);
  for (const auto& [shard, file] : loaded->shards)
    for (const auto& tensor : file->tensors())
      text += shard + ":" + tensor.name + " " + xxh3_128(tensor.data, tensor.bytes) + "\n";
  for (const auto& [shard, pieces] : loaded->shared)
    for (const auto& piece : pieces)
      for (const auto& tensor : piece.file->tensors())
        text += shard + ":" + tensor.name + " " + xxh3_128(tensor.data, tensor.bytes) + "\n";
  return text;
}

}  // namespace lehr::testing
