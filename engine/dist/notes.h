// What ranks tell each other, through the store, when something fails: where each one was.
#pragma once

#include <string>

#include "engine/dist/meeting.h"

namespace lehr::dist {

// Where a rank is or was: "a sum, call 812", " (step 14, step)", seconds in it.
struct Note {
  std::string call, place;
  double seconds = 0;
};

// Of one job; a connection of its own for each thread that asks.
class Notes {
 public:
  Notes(StorePointer store, const Place& place) : store_(std::move(store)), place_(place) {}
  // Waits until somebody asks; false: not within `limit`.
  bool are_asked_for(Milliseconds limit);
  // Leaves this rank's note, once; asks the others for theirs where `asks`.
  void leave(const Note& mine, bool asks);
  // Of the lead, when asked: waits for the others' notes, and puts down what all say.
  void sum_up();
  // What the others say, for a sentence about `mine`: "; rank 17 was in no call (step 3, load) for
  // 2.0 s; in the same call: rank 0-16; nothing heard of rank 18". Ends in time, also where nobody
  // sums up.
  std::string heard(const Note& mine);

 private:
  std::string joined(const std::string& notes) const;
  const StorePointer store_;
  const Place place_;
};

}  // namespace lehr::dist
