// Where a run's numbers go: metrics.jsonl, TensorBoard event files, report.html, the progress line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lehr::track {

using Values = std::vector<std::pair<std::string, double>>;  // dotted names: train.loss

struct Row {
  int64_t step = 0, samples = 0;
  double time = 0;  // Unix seconds
  Values values;
};

// One sink of rows; each keeps its file well-formed at every instant.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void write(const Row& row) = 0;
  virtual void flush() = 0;  // to the kernel; called at each checkpoint and at the end
};
// metrics.jsonl: one object a line. `resume_step` >= 0 cuts rows beyond that step first (atomically).
std::unique_ptr<Sink> open_jsonl(const std::string& path, int64_t resume_step);
// TensorBoard event files in `folder`; on resume starts a new file with a session_log START at that step,
// and removes events beyond the step from older files.
std::unique_ptr<Sink> open_tensorboard(const std::string& folder, int64_t resume_step);

struct Report {
  std::string title, recipe_yaml, summary_json;  // summary: key -> value, shown as a table
  std::string metrics_path;                      // metrics.jsonl to draw curves from
};
// A self-contained report.html (inline SVG curves, no scripts from elsewhere), written atomically.
void write_report(const std::string& path, const Report& report);

// One live line on a terminal, plain lines at intervals in a pipe.
struct Progress {
  int64_t step = 0, total_steps = 0, epoch = 0;
  double epochs_total = 0, samples_per_s = 0, loss = 0, lr = 0, seconds_left = 0;
  int64_t memory_bytes = 0;
};
class Terminal {
 public:
  explicit Terminal(int fd);  // 1 or 2; live when it is a terminal and TERM is not dumb
  ~Terminal();
  void progress(const Progress& p);           // rate-limited to 10 a second on a terminal
  void print(const std::string& line);        // above the live line
  void table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);
  bool is_live() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lehr::track
