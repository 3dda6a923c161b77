#include "engine/run/resume_test.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <thread>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/hash.h"
#include "engine/base/random.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/run/spawn.h"

namespace lehr::run {
namespace {

using Clock = std::chrono::steady_clock;

pid_t start(const ResumeTestRequest& request, const std::string& run, const std::string& log) {
  std::vector<std::string> words{request.program, "train", request.recipe, "--run", run};
  for (const auto& value : request.overrides) words.insert(words.end(), {"--set", value});
  words.insert(words.end(), {"--set", "export.enabled=false"});
  return spawn(std::move(words), log);
}

// How often a run that ended by itself before its first kill begins again.
constexpr int kMisses = 6;

// checksum of every tensor, and the data position
std::map<std::string, std::string> fingerprint(const std::string& run) {
  auto loaded = checkpoint::newest(join_path(run, "checkpoints"), [](const std::string&) {});
  if (!loaded) throw Error(Code::kCheckpoint, "the run left no checkpoint", run);
  std::map<std::string, std::string> sums{{"step", std::to_string(loaded->step)},
                                          {"samples", std::to_string(loaded->samples)}};
  for (const auto& [shard, file] : loaded->shards)
    for (const auto& tensor : file->tensors())
      sums[shard + ":" + tensor.name] = xxh3_128(tensor.data, tensor.bytes);
  for (const auto& [shard, pieces] : loaded->shared)
    for (size_t i = 0; i < pieces.size(); ++i)
      for (const auto& tensor : pieces[i].file->tensors())
        sums[fmt::format("{}:{} of part {}", shard, tensor.name, i)] =
            xxh3_128(tensor.data, tensor.bytes);
  return sums;
}

}  // namespace

bool resume_test(const ResumeTestRequest& request, track::Terminal& terminal) {
  make_folders(request.folder);
  const std::string whole = join_path(request.folder, "whole"),
                    cut = join_path(request.folder, "cut");
  const std::string log = join_path(request.folder, "log.txt");
  const auto begin = Clock::now();
  finish(start(request, whole, log), log);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  terminal.print(fmt::format("uninterrupted: {:.1f} s", seconds));

  Random random(request.seed, Stream::kTest, 0);
  int killed = 0;
  // anywhere from before the first instruction to beyond a saved step
  double longest = 0.8 * seconds;
  for (int i = 0, misses = 0; i < request.kills; ++i) {
    const double wait_s = random.uniform() * longest;
    const pid_t pid = start(request, cut, log);
    std::this_thread::sleep_for(std::chrono::duration<double>(wait_s));
    kill(pid, SIGKILL);
    if (WIFSIGNALED(end_of(pid))) {
      ++killed;
    } else if (killed == 0 && misses++ < kMisses) {  // the first run was slower than this one
      terminal.print(fmt::format(
          "it had ended before it was killed after {:.2f} s; once more, sooner", wait_s));
      longest *= 0.6;
      remove_tree(cut);
      --i;
      continue;
    }
    const auto entries = checkpoint::list(join_path(cut, "checkpoints"));
    terminal.print(fmt::format(
        "kill {} of {} after {:.2f} s: newest checkpoint is {}", i + 1, request.kills, wait_s,
        entries.empty() ? "none" : fmt::format("step {}", entries.front().step)));
  }
  finish(start(request, cut, log), log);

  const auto a = fingerprint(whole), b = fingerprint(cut);
  std::vector<std::string> different;
  for (const auto& [name, sum] : a) {
    auto other = b.find(name);
    if (other == b.end() || other->second != sum) different.push_back(name);
  }
  for (const auto& [name, sum] : b)
    if (!a.count(name)) different.push_back(name);
  if (killed == 0 && request.kills > 0) {
    terminal.print(
        fmt::format("nothing is proved: each of {} starts had ended before it was killed; raise "
                    "training.max_steps, or --kills; both runs are in {}",
                    request.kills, request.folder));
    return false;
  }
  if (different.empty()) {
    terminal.print(fmt::format("equal: {} tensors, step {} and {} samples, killed {} time(s)",
                               a.size() - 2, a.at("step"), a.at("samples"), killed));
    remove_tree(request.folder);
    return true;
  }
  terminal.print(fmt::format("DIFFERENT in {} of {}: first {}; both runs are in {}",
                             different.size(), a.size(), different.front(), request.folder));
  return false;
}

}  // namespace lehr::run
