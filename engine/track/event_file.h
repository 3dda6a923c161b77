// TensorBoard's event files, without protobuf: a stream of checksummed records, each an Event
// message of which we write scalars and session marks and read steps. EVENT_FILES.md has the
// layout.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lehr::track {

uint32_t crc32c(std::string_view data);  // Castagnoli
// u64 length | masked crc of the length | data | masked crc of the data, little-endian.
std::string event_record(std::string_view data);

std::string version_event(double time);  // first of every file: "brain.Event:2"
std::string session_start_event(double time, int64_t step);
// One Event with all scalars of a step, as PyTorch's SummaryWriter.add_scalar writes each.
class ScalarEvent {
 public:
  ScalarEvent(double time, int64_t step);
  void add(const std::string& tag, float value);
  std::string event() const;

 private:
  std::string head_, summary_;
};

// Walks the records of a file's content; stops for good at one that is torn or does not verify.
class RecordReader {
 public:
  explicit RecordReader(std::string_view content) : rest_(content) {}
  bool next();
  std::string_view record() const { return record_; }  // with its frame
  std::string_view data() const { return record_.substr(12, record_.size() - 16); }
  bool damaged() const { return damaged_; }  // it stopped before the end

 private:
  std::string_view rest_, record_;
  bool damaged_ = false;
};

// Where the first whole record of a part of a file begins; npos: there is none.
size_t first_record(std::string_view part);

// Event.step; 0 where the message has none (as in proto3).
int64_t step_of_event(std::string_view data);

}  // namespace lehr::track
