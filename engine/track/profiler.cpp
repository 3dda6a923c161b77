#include "engine/track/profiler.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <cstdlib>
#include <exception>
#include <set>

#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/track/append_file.h"
#include "engine/track/trace.h"

namespace lehr::track {

namespace kineto = torch::autograd::profiler;
namespace impl = torch::profiler::impl;

struct Profiler::Recording {
  int64_t step_begin_ns = 0;
};

namespace {

// Kineto's times count from an origin that its file names; 0 where it names none.
int64_t origin_of(const std::string& text) {
  static const std::string key = "\"baseTimeNanoseconds\":";
  const size_t at = text.rfind(key);
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + key.size());
}

}  // namespace

Profiler::Profiler(std::string path, int64_t first_step, int64_t steps, bool gpu)
    : path_(std::move(path)), first_(first_step), last_(first_step + steps - 1), gpu_(gpu) {
  // its complaint that there is no GPU would tear the progress line; failures come as exceptions
  if (steps > 0) ::setenv("KINETO_LOG_LEVEL", "99", 0);
}

Profiler::~Profiler() { write(); }

void Profiler::begin(int64_t step) {
  if (!recording_) {
    try {
      const impl::ProfilerConfig config(impl::ProfilerState::KINETO, /*report_input_shapes=*/true);
      std::set<impl::ActivityType> activities{impl::ActivityType::CPU};
      if (gpu_) activities.insert(impl::ActivityType::CUDA);
      kineto::prepareProfiler(config, activities);
      kineto::enableProfiler(config, activities,
                             {at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                              at::RecordScope::USER_SCOPE});
    } catch (const std::exception& error) {
      log_warning(fmt::format("profiling could not begin at step {}: {}", step, error.what()));
      last_ = first_ - 1;
      return;
    }
    recording_ = std::make_unique<Recording>();
    Trace::start();
  }
  recording_->step_begin_ns = Trace::now_ns();
}

void Profiler::end(int64_t step) {
  if (!recording_) return;
  Trace::record(fmt::format("step {}", step), recording_->step_begin_ns, Trace::now_ns());
  if (step == last_) write();
}

void Profiler::write() {
  if (!recording_) return;
  recording_.reset();
  const std::string temporary = path_ + ".part";
  try {
    const auto result = kineto::disableProfiler();
    AppendFile(temporary, false);  // says why when it cannot be made; save() would only log it
    result->save(temporary);
    std::string text = read_file(temporary);
    const std::string phases = Trace::stop(origin_of(text));
    // our phases go first into its list of events
    static const std::string key = "\"traceEvents\": [";
    const size_t at = text.find(key);
    if (at != std::string::npos && !phases.empty())
      text.insert(at + key.size(), "\n" + phases + ",");
    write_file_durably(path_, text);
    log_info("profile of the chosen steps: " + path_);
  } catch (const std::exception& error) {
    log_warning(fmt::format("the profile could not be written: {}", error.what()));
    Trace::stop(0);
  }
  std::remove(temporary.c_str());
}

std::unique_ptr<Profiler> make_profiler(const ProfilingFields& fields, const std::string& folder,
                                        bool gpu) {
  return std::make_unique<Profiler>(join_path(folder, fields.file), fields.first_step,
                                    fields.enabled ? fields.steps : 0, gpu);
}

}  // namespace lehr::track
