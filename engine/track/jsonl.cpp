// metrics.jsonl: one JSON object a line, steps ascending, no step twice, whatever was killed when.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/files.h"
#include "engine/base/log.h"
#include "engine/track/append_file.h"
#include "engine/track/track.h"

namespace lehr::track {

namespace {

using Json = nlohmann::ordered_json;

std::string line_of(const Row& row) {
  std::string line =
      fmt::format("{{\"step\":{},\"samples\":{},\"time\":{:.3f}", row.step, row.samples, row.time);
  for (const auto& [name, value] : row.values) {
    line += ',' + Json(name).dump(-1, ' ', false, Json::error_handler_t::replace) + ':';
    // the shortest text that reads back as the same double
    line += std::isfinite(value) ? fmt::format("{}", value) : "null";
  }
  return line + "}\n";
}

std::optional<Row> row_of(std::string_view line) {
  const Json object = Json::parse(line, nullptr, false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() || !step->is_number_integer()) return std::nullopt;
  Row row;
  for (const auto& [name, value] : object.items()) {
    const double number =
        value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (name == "step")
      row.step = value.get<int64_t>();
    else if (name == "samples")
      row.samples = static_cast<int64_t>(number);
    else if (name == "time")
      row.time = number;
    else
      row.values.emplace_back(name, number);
  }
  return row;
}

void join(Row& row, const Row& later) {
  row.samples = later.samples;
  row.time = later.time;
  for (const auto& [name, value] : later.values) {
    auto known = row.values.begin();
    while (known != row.values.end() && known->first != name) ++known;
    if (known == row.values.end())
      row.values.emplace_back(name, value);
    else
      known->second = value;
  }
}

// Lines that may stay: whole, ascending, not beyond `last_step`.
struct Kept {
  std::string text;
  Row last;
  uint64_t last_begin = 0;
  bool any = false;
};

Kept keep(std::string_view text, int64_t last_step, const std::string& path) {
  Kept kept;
  int64_t damaged = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const bool whole = end != std::string_view::npos;
    text.remove_prefix(whole ? end + 1 : text.size());
    std::optional<Row> row = whole ? row_of(line) : std::nullopt;
    if (whole && !row) ++damaged;
    if (!row || row->step > last_step || (kept.any && row->step <= kept.last.step)) continue;
    kept.last_begin = kept.text.size();
    kept.text.append(line).push_back('\n');
    kept.last = std::move(*row);
    kept.any = true;
  }
  if (damaged > 0)
    log_warning(fmt::format("{}: dropped {} line(s) that are no rows", path, damaged));
  return kept;
}

class Jsonl final : public Sink {
 public:
  Jsonl(const std::string& path, Kept kept)
      : file_(path, false),
        last_(std::move(kept.last)),
        last_begin_(kept.last_begin),
        any_(kept.any) {}

  void write(const Row& row) final {
    if (any_ && row.step < last_.step)
      throw Error(Code::kInternal,
                  fmt::format("a row of step {} came after one of step {}", row.step, last_.step));
    if (any_ && row.step == last_.step) {
      join(last_, row);
      std::string line = line_of(last_);
      // never shorter than the line that it replaces, so one write does it; JSON skips blanks
      const uint64_t old_size = file_.size() - last_begin_;
      if (line.size() < old_size) line.insert(line.size() - 1, old_size - line.size(), ' ');
      file_.replace_from(last_begin_, line);
      return;
    }
    Row whole{row.step, row.samples, row.time, {}};
    join(whole, row);  // a name given twice in one row counts once
    const uint64_t begin = file_.size();
    file_.append(line_of(whole));
    last_begin_ = begin;
    last_ = std::move(whole);
    any_ = true;
  }

  void flush() final {}  // every row is in the kernel already

 private:
  AppendFile file_;
  Row last_;
  uint64_t last_begin_;
  bool any_;
};

}  // namespace

std::unique_ptr<Sink> open_jsonl(const std::string& path, int64_t resume_step) {
  Kept kept;
  if (file_exists(path)) {
    const std::string text = read_file(path);
    kept = keep(text, resume_step, path);
    if (kept.text != text) write_file_durably(path, kept.text);
  }
  return std::make_unique<Jsonl>(path, std::move(kept));
}

}  // namespace lehr::track
