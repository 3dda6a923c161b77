// Whether the ranks of a job can work together: who is there, on which host, with which build, how
// fast each is, and whether what they sum up is right. Some tenths of a second a rank, no data.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/dist/world.h"

namespace lehr::run {

// What the lead knows at the end, as one JSON object: `size`, `launcher`, `ranks` (an array of one
// object a rank, shorter where the roll call was cut) and `problems` (each with `ranks`, `what`,
// `hint`; empty when all is well).
//
// A rank is slow when its product takes over three times the median; a line between two hosts when
// it takes over three times what a good one takes, and then a rank all of whose lines are.
// Opens the world; waits for `timeout_s` at each meeting. All ranks call this. An empty object on
// the others, for which the lead speaks; throws Error{kRanks} where the lead cannot be reached.
nlohmann::ordered_json roll_call(const dist::Place& place, double timeout_s);
// The same in a world that is open.
nlohmann::ordered_json roll_call(dist::World& world, const dist::Place& place);

std::string roll_call_lines(const nlohmann::ordered_json& report);

}  // namespace lehr::run
