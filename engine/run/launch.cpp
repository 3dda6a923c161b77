#include "engine/run/launch.h"

#include <fmt/format.h>
#include <signal.h>

#include <algorithm>

#include "engine/base/files.h"
#include "engine/base/leave.h"
#include "engine/base/pulse.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/run/family.h"
#include "engine/run/fields.h"
#include "engine/run/plan.h"
#include "engine/run/stop.h"
#include "engine/step/fields.h"

namespace lehr::run {
namespace {

constexpr int kFruitless = 3;  // restarts without a committed step

int64_t newest_step(const std::string& run_folder) {
  if (run_folder.empty()) return -1;
  for (const auto& entry : checkpoint::list(join_path(run_folder, "checkpoints")))
    if (entry.problem.empty()) return entry.step;
  return -1;
}

}  // namespace

Code launch(const LaunchRequest& request, track::Terminal& terminal) {
  const recipe::Recipe recipe = load_recipe(request.recipe, request.overrides);
  const int64_t most = recipe.get<JobFields>().max_restarts;
  const auto parallelism = recipe.get<step::ParallelismFields>();
  install_stop_signals(false);
  const SharedPulses pulses(request.ranks);
  Relay relay(terminal);
  int fruitless = 0;
  int64_t committed = -1;
  for (int attempt = 0;; ++attempt) {
    std::vector<std::string> words{"train", request.recipe};
    if (request.debug) words.insert(words.begin(), "--debug");
    for (const auto& override : request.overrides) words.insert(words.end(), {"--set", override});
    const std::string begun = pulses.of(0).folder;
    const std::string folder = begun.empty() ? request.run : begun;
    if (!folder.empty()) words.insert(words.end(), {"--run", folder});
    if (request.fresh && (attempt == 0 || folder.empty())) words.emplace_back("--fresh");
    if (request.approximate) words.emplace_back("--allow-approximate-resume");
    Family family(request.program, pulses, relay, request.ranks,
                  {parallelism.heartbeat.value, parallelism.timeout.value});
    family.start(words, attempt);
    const Family::End end = family.run();
    if (end.cause.empty()) return end.code;
    if (!end.curable || stop_requested()) {
      tell_launcher(end.cause);
      return end.code;
    }
    const int64_t now = newest_step(pulses.of(0).folder);
    fruitless = now > committed ? 1 : fruitless + 1;
    committed = std::max(committed, now);
    if (attempt >= most)
      throw Error(Code::kRanks, fmt::format("{} (after {} restarts)", end.cause, attempt),
                  "job.max_restarts", "see the first failure above; the same command continues");
    if (fruitless > kFruitless)
      throw Error(Code::kRanks,
                  fmt::format("{} ({} restarts without a new checkpoint)", end.cause, kFruitless),
                  "lehr launch",
                  "it fails before checkpoint.interval; see the first failure above");
    terminal.print(fmt::format("restarting all {} ranks from {} ({} of {} restarts)", request.ranks,
                               now < 0 ? std::string("the start") : fmt::format("step {}", now),
                               attempt + 1, most));
  }
}

Code launch_once(const Program& program, int ranks, const std::vector<std::string>& words,
                 track::Terminal& terminal) {
  install_stop_signals(false);
  const SharedPulses pulses(ranks);
  Relay relay(terminal);
  Code code;
  {
    Family family(program, pulses, relay, ranks, {});
    family.start(words, 0);
    const Family::End end = family.run();
    code = end.code;
    if (!end.cause.empty()) tell_launcher(end.cause);
  }
  if (const int signal =
          stop_signal()) {  // there is nothing to save: as if it had not been handled
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
  return code;
}

void tell_launcher_folder(const std::string& folder) {
  if (!pulse_is_shared() || folder.size() >= Pulse::kFolder) return;
  folder.copy(pulse().folder, folder.size());
  pulse().folder[folder.size()] = '\0';
}

}  // namespace lehr::run
