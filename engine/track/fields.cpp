#include "engine/track/fields.h"

namespace lehr::track {

Section TrackFields::section() {
  Declare<TrackFields> d("metrics", "What is measured, and where the numbers go.");
  d.field("log_interval", &TrackFields::log_interval,
          "How often training values become a row; its loss is the mean over the interval.")
      .above(0)
      .units(kLengths, "rows would depend on the machine")
      .synonyms({"log_freq", "logging_steps", "log_every_n_steps", "steps_per_print", "display"})
      .free_to_change();
  d.field("report_to", &TrackFields::report_to,
          "Sinks of the rows beside metrics.jsonl, which is always written.")
      .choices({"tensorboard", "jsonl"})
      .synonyms({"enable_tensorboard", "metric_logger", "loggers", "logger", "trackers"})
      .free_to_change();
  return d.section();
}

Section ProfilingFields::section() {
  Declare<ProfilingFields> d("profiling",
                             "A Chrome trace of chosen steps, for chrome://tracing or Perfetto; "
                             "how near the device's limits a "
                             "step is.");
  d.field("enabled", &ProfilingFields::enabled, "Record a trace.")
      .synonyms({"enable_profiling", "profiler", "profile"})
      .free_to_change();
  d.field("first_step", &ProfilingFields::first_step, "The first step that is recorded.")
      .at_least(1)
      .synonyms({"profile_freq", "profile_step", "wait", "warmup_steps"})
      .free_to_change();
  d.field("steps", &ProfilingFields::steps, "Steps recorded; each costs about a megabyte.")
      .range(1, 1000)
      .synonyms({"num_steps", "active_steps", "active"})
      .free_to_change();
  d.field("file", &ProfilingFields::file, "File name of the trace in the run folder.")
      .names(NameRule::kPlain)
      .synonyms({"save_traces_folder", "trace_file"})
      .free_to_change();
  d.field(
       "speed_of_light", &ProfilingFields::speed_of_light,
       "After training, times the step's products alone and says what share of the step they are.")
      .free_to_change();
  return d.section();
}

std::vector<Section> sections() { return {TrackFields::section(), ProfilingFields::section()}; }

}  // namespace lehr::track
