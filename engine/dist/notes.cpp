#include "engine/dist/notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

namespace lehr::dist {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr const char *kAsked = "asked", *kNotes = "notes", *kSummary = "summary";
constexpr auto kNoteTime = Milliseconds(500);  // for the others' notes to come

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// a note a line
struct Said {
  int rank;
  Note note;
};
std::vector<Said> parse(const std::string& notes) {
  std::vector<Said> all;
  for (size_t at = 0, end; (end = notes.find('\n', at)) != std::string::npos; at = end + 1) {
    const json line = json::parse(notes.substr(at, end - at));
    all.push_back({line.at(0), {line.at(1), line.at(2), line.at(3)}});
  }
  return all;
}

}  // namespace

bool Notes::are_asked_for(Milliseconds limit) {
  const auto end = Clock::now() + limit;
  try {
    store_->wait({kAsked}, limit);
    return true;
  } catch (const std::exception&) {
    if (Clock::now() + Milliseconds(1) < end) throw;
    return false;
  }
}

void Notes::leave(const Note& mine, bool asks) {
  const std::string own = "noted/" + std::to_string(place_.rank);
  if (store_->add(own, 1) == 1)
    store_->append(kNotes,
                   bytes_of(json{place_.rank, mine.call, mine.place, mine.seconds}.dump() + '\n'));
  if (asks) store_->set(kAsked, "yes");
}

// Ranks in one call at one place are one line, so that a thousand can be read.
std::string Notes::joined(const std::string& notes) const {
  struct Group {
    std::vector<int> ranks;
    double seconds = 0;
  };
  std::map<std::pair<std::string, std::string>, Group> groups;
  std::vector<bool> heard(static_cast<size_t>(place_.size));
  for (const Said& said : parse(notes)) {
    Group& group = groups[{said.note.call, said.note.place}];
    group.ranks.push_back(said.rank);
    group.seconds = std::max(group.seconds, said.note.seconds);
    heard.at(static_cast<size_t>(said.rank)) = true;
  }
  json all = json::array(), silent = json::array();
  for (const auto& [where, group] : groups)
    all.push_back({where.first, where.second, group.seconds, group.ranks});
  for (int rank = 0; rank < place_.size; ++rank)
    if (!heard[static_cast<size_t>(rank)]) silent.push_back(rank);
  return json{all, silent}.dump();
}

void Notes::sum_up() {
  const auto end = Clock::now() + kNoteTime;
  std::string notes = store_->get_to_str(kNotes);
  while (std::count(notes.begin(), notes.end(), '\n') < place_.size && Clock::now() < end) {
    std::this_thread::sleep_for(Milliseconds(20));
    notes = store_->get_to_str(kNotes);
  }
  store_->set(kSummary, joined(notes));
}

std::string Notes::heard(const Note& mine) {
  std::string summary;
  try {
    store_->wait({kSummary}, 2 * kNoteTime);
    summary = store_->get_to_str(kSummary);
  } catch (const std::exception&) {  // the lead itself hangs or is gone
    summary = joined(store_->get_to_str(kNotes));
  }
  const json all = json::parse(summary);
  std::string said;
  std::vector<int> alike, silent = all.at(1);
  for (const auto& group : all.at(0)) {
    std::vector<int> ranks = group.at(3);
    std::erase(ranks, place_.rank);
    if (ranks.empty()) continue;
    if (group.at(0) == mine.call)
      alike.insert(alike.end(), ranks.begin(), ranks.end());
    else
      said += fmt::format("; rank {} {} in {}{} for {:.1f} s", list_of(ranks),
                          ranks.size() == 1 ? "was" : "were", group.at(0).get<std::string>(),
                          group.at(1).get<std::string>(), group.at(2).get<double>());
  }
  std::erase(silent, place_.rank);
  if (!alike.empty()) said += "; in the same call: rank " + list_of(alike);
  if (!silent.empty()) said += "; nothing heard of rank " + list_of(silent);
  return said;
}

}  // namespace lehr::dist
