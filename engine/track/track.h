// Where a run's numbers go: metrics.jsonl, TensorBoard event files, report.html, the progress line.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
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

// One sink of rows; each keeps its file well-formed at every instant: a row is one system call, so
// it is in the kernel when write() returns, and a kill leaves at most a torn last one, which a
// resume drops. Throws Error{kData} when the file cannot be written; what was written before stays
// whole.
class Sink {
 public:
  virtual ~Sink() = default;
  // Steps ascend. A second row of the same step joins the first one (later values win).
  virtual void write(const Row& row) = 0;
  virtual void flush() = 0;  // to the kernel; called at each checkpoint and at the end
};
// metrics.jsonl: one object a line. Opening cuts rows beyond `resume_step` first; -1 cuts all. It
// reads what it cuts, and no more than a little of what stays. NaN and infinite values are written
// as null, because JSON has no word for them.
std::unique_ptr<Sink> open_jsonl(const std::string& path, int64_t resume_step);
// TensorBoard event files in `folder`; train.loss becomes the tag train/loss. Opening removes
// events beyond `resume_step` from older files, and starts a new one whose session_log START makes
// a TensorBoard that is already running forget them too.
std::unique_ptr<Sink> open_tensorboard(const std::string& folder, int64_t resume_step);

// Sinks that end no training: where one cannot be opened or written, that is a warning, said once
// for each cause; its rows are held, and tried again at every flush.
class Trackers {
 public:
  using Open = std::function<std::unique_ptr<Sink>()>;
  void add(Open open);
  void write(const Row& row);
  void flush();   // at each checkpoint
  void finish();  // at the end: flushes, and says what is lost
 private:
  struct Tracker {
    Open open;
    std::unique_ptr<Sink> sink;
    std::deque<Row> waiting;
    int64_t lost = 0;  // rows, of more than can be held
    bool failed = false;
    std::string said;
  };
  static void deliver(Tracker& tracker);
  std::vector<Tracker> all_;
};

// Curves come from `metrics_path`; the summary is a JSON object, shown as a table: nested objects
// by dotted key, a list of lists of numbers (a confusion matrix) as a table of its own.
struct Report {
  std::string title, recipe_yaml, summary_json;
  std::string metrics_path;  // metrics.jsonl; a missing one gives no curves
};
// A self-contained report.html (inline SVG curves, no scripts, nothing from elsewhere), written
// atomically.
void write_report(const std::string& path, const Report& report);

// One live line on a terminal, plain lines at intervals in a pipe. What is 0 is left out.
struct Progress {
  int64_t step = 0, total_steps = 0, epoch = 0;  // epoch counts from 0, and is shown from 1
  double epochs_total = 0, samples_per_s = 0, loss = 0, lr = 0, seconds_left = 0;
  int64_t memory_bytes = 0;
};
// Safe from several threads. A terminal that went away is no error: training goes on without it.
class Terminal {
 public:
  // 1 or 2; live when it is a terminal and TERM is not dumb. Colours unless NO_COLOR is set; bars
  // and rules in Unicode where the locale is UTF-8.
  explicit Terminal(int fd, double plain_interval_s = 10);
  ~Terminal();                          // leaves the last progress line standing
  void progress(const Progress& p);     // rate-limited to 10 a second on a terminal
  void print(const std::string& line);  // above the live line
  void table(const std::vector<std::string>& header,
             const std::vector<std::vector<std::string>>& rows);
  bool is_live() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lehr::track
