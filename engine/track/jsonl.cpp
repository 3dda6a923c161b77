// metrics.jsonl: one JSON object a line, steps ascending, no step twice, whatever was killed when.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
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

// A row whose end lies at the end of its line, as ours do: its step, without reading the rest.
std::optional<int64_t> step_at_front(std::string_view line) {
  constexpr std::string_view kKey = "{\"step\":";
  if (!line.starts_with(kKey) || !line.ends_with('}')) return std::nullopt;
  int64_t step = 0;
  const char* begin = line.data() + kKey.size();
  const auto [end, error] = std::from_chars(begin, line.data() + line.size(), step);
  if (error != std::errc() || (*end != ',' && *end != '}')) return std::nullopt;
  return step;
}

// The lines of a file from its last one back. What follows the last line's end is none.
class LinesBack {
 public:
  explicit LinesBack(const AppendFile& file) : file_(file), begin_(file.size()), end_(begin_) {
    line_ = find_line_end();
  }
  // False: there is none before. The line is without its end, and lives until the next call.
  bool next(std::string_view* line) {
    if (line_ == 0) return false;
    end_ = line_;
    held_.resize(end_ - 1 - begin_);
    line_ = find_line_end();
    *line = std::string_view(held_).substr(line_ - begin_);
    return true;
  }
  uint64_t begin() const { return line_; }  // of the line given last
  uint64_t end() const { return end_; }     // its own end included

 private:
  // after the last line end in what is held; reads backwards until there is one
  uint64_t find_line_end() {
    for (size_t searched = held_.size();;) {
      const size_t at = searched == 0 ? std::string::npos : held_.rfind('\n', searched - 1);
      if (at != std::string::npos) return begin_ + at + 1;
      if (begin_ == 0) return 0;
      searched = std::min<uint64_t>(begin_, 1 << 16);
      begin_ -= searched;
      held_.insert(0, file_.read(begin_, searched));
    }
  }

  const AppendFile& file_;
  std::string held_;  // of the file, from begin_ on
  uint64_t begin_, end_, line_ = 0;
};

// Rows that may stay: whole, ascending, not beyond `last_step`.
struct Kept {
  std::string text;
  Row last;
  uint64_t last_begin = 0;
  bool any = false;
};

Kept keep(std::string_view text, int64_t last_step) {
  Kept kept;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const bool whole = end != std::string_view::npos;
    text.remove_prefix(whole ? end + 1 : text.size());
    std::optional<Row> row = whole ? row_of(line) : std::nullopt;
    if (!row || row->step > last_step || (kept.any && row->step <= kept.last.step)) continue;
    kept.last_begin = kept.text.size();
    kept.text.append(line).push_back('\n');
    kept.last = std::move(*row);
    kept.any = true;
  }
  return kept;
}

// The last row that a resume leaves in a file.
struct Last {
  std::optional<Row> row;
  uint64_t begin = 0;  // of its line
};

// For a file that is damaged between `begin` and `end`: what is before stays, and rows in between.
Last rewrite(const AppendFile& file, uint64_t begin, uint64_t end, int64_t last_step) {
  Kept kept = keep(file.read(begin, end - begin), last_step);
  const std::string temporary = file.path() + ".tmp-" + unique_id();
  FileWriter writer(temporary);
  for (uint64_t at = 0; at < begin; at += kSearched) {
    const std::string part = file.read(at, std::min(kSearched, begin - at));
    writer.write(part.data(), part.size());
  }
  writer.write(kept.text.data(), kept.text.size());
  writer.commit();
  rename_durably(temporary, file.path());
  if (!kept.any) return {};
  return {std::move(kept.last), begin + kept.last_begin};
}

// Reads back from the end to the first row that stays, and on through what a power cut may have
// damaged. Of a sound file nothing but rows beyond `last_step` and a torn end is cut.
Last cut_back(const std::string& path, int64_t last_step) {
  AppendFile file(path, false);
  LinesBack lines(file);
  std::string_view line;
  Last last;
  uint64_t end = 0;  // of its line
  int64_t damaged = 0;
  while (last_step >= 0 && end == 0 && lines.next(&line)) {
    if (const auto step = step_at_front(line); step && *step > last_step) continue;
    last.row = row_of(line);
    if (!last.row) ++damaged;
    if (last.row && last.row->step <= last_step) last.begin = lines.begin(), end = lines.end();
  }
  if (end == 0) last = {};
  uint64_t begin = last.begin;
  bool sound = true;
  int64_t after = last.row ? last.row->step : 0;
  while (begin > 0 && end - begin < kSearched && lines.next(&line)) {
    const auto row = row_of(line);
    if (!row) ++damaged;
    sound = sound && row && row->step < after;
    if (row) after = row->step;
    begin = lines.begin();
  }
  if (damaged > 0)
    log_warning(fmt::format("{}: dropped {} line(s) that are no rows", path, damaged));
  if (!sound) return rewrite(file, begin, end, last_step);
  if (end < file.size()) file.cut(end);
  return last;
}

class Jsonl final : public Sink {
 public:
  Jsonl(const std::string& path, Last last)
      : last_(std::move(last.row)), last_begin_(last.begin), file_(path, false) {}

  void write(const Row& row) final {
    if (last_ && row.step < last_->step)
      throw Error(Code::kInternal,
                  fmt::format("a row of step {} came after one of step {}", row.step, last_->step));
    const bool joins = last_ && row.step == last_->step;
    Row whole = joins ? *last_ : Row{row.step, row.samples, row.time, {}};
    join(whole, row);  // a name given twice in one row counts once
    std::string line = line_of(whole);
    const uint64_t begin = joins ? last_begin_ : file_.size();
    // never shorter than the line that it replaces, so one write does it; JSON skips blanks
    if (const uint64_t before = file_.size() - begin; line.size() < before)
      line.insert(line.size() - 1, before - line.size(), ' ');
    joins ? file_.replace_from(begin, line) : file_.append(line);
    last_begin_ = begin;
    last_ = std::move(whole);
  }

  void flush() final {}  // every row is in the kernel already

 private:
  std::optional<Row> last_;
  uint64_t last_begin_;
  AppendFile file_;
};

}  // namespace

std::unique_ptr<Sink> open_jsonl(const std::string& path, int64_t resume_step) {
  return std::make_unique<Jsonl>(path, cut_back(path, resume_step));
}

}  // namespace lehr::track
