#include "engine/track/event_file.h"

#include <array>
#include <cstring>

namespace lehr::track {

namespace {

// field numbers of Event
enum EventField {
  kWallTime = 1,
  kStep = 2,
  kFileVersion = 3,
  kSummary = 5,
  kSessionLog = 7,
  kSource = 10
};
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? (c >> 1) ^ 0x82F63B78u : c >> 1;
    table[i] = c;
  }
  return table;
}

uint32_t masked_crc(std::string_view data) {
  const uint32_t c = crc32c(data);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

template <class T>
void put_raw(std::string& out, T value) {
  // the hosts that LibTorch runs on are little-endian, as the format is
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T get_raw(std::string_view data, size_t offset) {
  T value;
  std::memcpy(&value, data.data() + offset, sizeof value);
  return value;
}

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void put_key(std::string& out, int field, WireType type) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | type);
}

void put_int(std::string& out, int field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, int field, std::string_view value) {
  put_key(out, field, kBytes);
  put_varint(out, value.size());
  out.append(value);
}

std::string event_head(double time, int64_t step) {
  std::string out;
  put_key(out, kWallTime, kFixed64);
  put_raw(out, time);
  if (step != 0) put_int(out, kStep, step);
  return out;
}

// The size of the record that `data` begins with; 0: it is none, or short, or does not verify.
size_t record_at(std::string_view data) {
  constexpr size_t kFrame = 16;
  if (data.size() < kFrame || get_raw<uint32_t>(data, 8) != masked_crc(data.substr(0, 8))) return 0;
  const auto size = get_raw<uint64_t>(data, 0);
  if (size > data.size() - kFrame ||
      get_raw<uint32_t>(data, 12 + size) != masked_crc(data.substr(12, size)))
    return 0;
  return kFrame + size;
}

bool get_varint(std::string_view& data, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && !data.empty(); shift += 7) {
    const uint8_t byte = static_cast<uint8_t>(data.front());
    data.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

}  // namespace

uint32_t crc32c(std::string_view data) {
  static constexpr auto table = crc_table();
  uint32_t c = 0xffffffffu;
  for (const char byte : data) c = table[(c ^ static_cast<uint8_t>(byte)) & 0xff] ^ (c >> 8);
  return ~c;
}

std::string event_record(std::string_view data) {
  std::string out;
  put_raw(out, static_cast<uint64_t>(data.size()));
  put_raw(out, masked_crc(out));
  out.append(data);
  put_raw(out, masked_crc(data));
  return out;
}

std::string version_event(double time) {
  std::string out = event_head(time, 0), source;
  put_bytes(out, kFileVersion, "brain.Event:2");
  put_bytes(source, 1, "lehr");
  put_bytes(out, kSource, source);
  return out;
}

std::string session_start_event(double time, int64_t step) {
  std::string out = event_head(time, step), log;
  put_int(log, 1, 1);  // status: START
  put_bytes(out, kSessionLog, log);
  return out;
}

ScalarEvent::ScalarEvent(double time, int64_t step) : head_(event_head(time, step)) {}

void ScalarEvent::add(const std::string& tag, float value) {
  std::string one;
  put_bytes(one, 1, tag);
  put_key(one, 2, kFixed32);  // simple_value
  put_raw(one, value);
  put_bytes(summary_, 1, one);
}

std::string ScalarEvent::event() const {
  std::string out = head_;
  put_bytes(out, kSummary, summary_);
  return out;
}

bool RecordReader::next() {
  if (rest_.empty() || damaged_) return false;
  record_ = rest_.substr(0, record_at(rest_));
  damaged_ = record_.empty();
  rest_.remove_prefix(record_.size());
  return !damaged_;
}

size_t first_record(std::string_view part) {
  for (size_t at = 0; at < part.size(); ++at)
    if (record_at(part.substr(at)) > 0) return at;
  return std::string_view::npos;
}

int64_t step_of_event(std::string_view data) {
  uint64_t key = 0, value = 0;
  while (!data.empty() && get_varint(data, key)) {
    size_t skip = 0;
    switch (key & 7) {
      case kVarint:
        if (!get_varint(data, value)) return 0;
        if (key >> 3 == kStep) return static_cast<int64_t>(value);
        break;
      case kFixed64:
        skip = 8;
        break;
      case kFixed32:
        skip = 4;
        break;
      case kBytes:
        if (!get_varint(data, value)) return 0;
        skip = value;
        break;
      default:
        return 0;
    }
    if (skip > data.size()) return 0;
    data.remove_prefix(skip);
  }
  return 0;
}

}  // namespace lehr::track
