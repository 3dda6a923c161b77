// Where all ranks wait for all, through the store, so that whoever does not come is known.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "engine/dist/counted_store.h"
#include "engine/dist/launcher.h"

namespace lehr::dist {

using Milliseconds = std::chrono::milliseconds;

struct Meeting {
  StorePointer store;  // of this thread alone: it waits there
  Place place;
  Milliseconds timeout, heartbeat;
  std::string what, key;
};

// The ranks that have not come within `timeout`; none: all are here. Who waits longer than
// `heartbeat` says for whom. The lead's clock decides who is missing; the others' runs a little
// longer, so that all say the same. A rank asks the store a few times, whatever their number: it
// adds itself to a list, which the lead watches and answers with a verdict that the others wait
// for. Throws what the store throws.
std::vector<int> missing_at(const Meeting& meeting);

// "1, 2, 5-1023"
std::string list_of(std::vector<int> ranks);

}  // namespace lehr::dist
