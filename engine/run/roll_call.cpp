#include "engine/run/roll_call.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/base/cores.h"
#include "engine/base/device.h"
#include "engine/base/error.h"

namespace lehr::run {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr double kSlow = 3;         // times what is usual
constexpr double kLeastLineMs = 5;  // below it a line is never slow: that is the scheduler
constexpr int64_t kSide = 1024;     // of the matrices of the product
constexpr int64_t kLineFloats = 1 << 18;
constexpr int64_t kSmallFloats = 1 << 8, kLargeFloats = 1 << 22;

double milliseconds_since(Clock::time_point t) {
  return std::chrono::duration<double, std::milli>(Clock::now() - t).count();
}

// the value that `share` of the others are below
double quantile(std::vector<double> values, double share) {
  const auto nth = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + nth, values.end());
  return values[static_cast<size_t>(nth)];
}
double median(const std::vector<double>& values) { return quantile(values, 0.5); }

std::vector<int> slow_in(const std::vector<double>& times) {
  std::vector<int> ranks;
  const double usual = median(times);
  for (size_t r = 0; r < times.size(); ++r)
    if (times[r] > kSlow * usual) ranks.push_back(static_cast<int>(r));
  return ranks;
}

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

// "0-3, 7"
std::string listed(const std::vector<int>& ranks) {
  std::string out;
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", ranks[i]);
    if (last > i) out += fmt::format("-{}", ranks[last]);
    i = last + 1;
  }
  return fmt::format("rank{} {}", ranks.size() > 1 ? "s" : "", out);
}

// Every rank's time of the same products at the same time, as in training.
double product_ms(const dist::Place& place) {
  at::set_num_threads(
      std::max(1, static_cast<int>(usable_cores()) / std::max(1, place.local_size)));
  const at::Tensor a = at::ones({kSide, kSide}), b = at::ones({kSide, kSide});
  at::Tensor c = at::mm(a, b);  // warms up
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) {
    const auto begin = Clock::now();
    at::mm_out(c, a, b);
    times.push_back(milliseconds_since(begin));
  }
  return median(times);
}

// Lines join neighbours in a ring, line i the ranks i and i + 1; no rank has two in one round. The
// fastest of some exchanges over the line to the next rank; 0 where there is none.
double line_ms(dist::World& world) {
  const int size = world.size(), lines = size == 2 ? 1 : size;
  const at::Tensor mine = at::ones({kLineFloats}), theirs = at::empty({kLineFloats});
  double fastest = 0;
  for (int round = 0; round < 3; ++round) {
    int partner = world.rank(), line = -1;
    for (const int candidate : {world.rank(), (world.rank() + size - 1) % size}) {
      const int its_round = candidate == size - 1 && size % 2 == 1 ? 2 : candidate % 2;
      if (candidate >= lines || its_round != round) continue;
      line = candidate;
      partner = line == world.rank() ? (line + 1) % size : line;
    }
    std::vector<double> times;
    for (int i = 0; i < 16; ++i) {
      const auto begin = Clock::now();
      world.exchange(mine, theirs, partner);
      times.push_back(milliseconds_since(begin));
    }
    if (line == world.rank()) fastest = *std::min_element(times.begin(), times.end());
  }
  return fastest;
}

struct Sum {
  double ms = 0;
  bool right = true;
};

// whole numbers, whose sum is exact in any order
Sum sum_of(dist::World& world, int64_t floats, int repeats) {
  const at::Tensor pattern = at::arange(floats).remainder(251).to(at::kFloat);
  const int size = world.size();
  const at::Tensor expected = pattern * size + size * (size - 1) / 2.0;
  at::Tensor tensor = at::empty_like(pattern);
  Sum sum;
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    tensor.copy_(pattern).add_(world.rank());
    const auto begin = Clock::now();
    world.sum(tensor);
    times.push_back(milliseconds_since(begin));
    sum.right = sum.right && tensor.equal(expected);
  }
  sum.ms = median(times);
  return sum;
}

std::vector<Json> gather(dist::World& world, const Json& mine) {
  std::vector<Json> all;
  for (const auto& text : world.gather_text(mine.dump())) all.push_back(Json::parse(text));
  return all;
}

class Call {
 public:
  explicit Call(const dist::Place& place) : place_(place) {
    report_ = {{"size", place.size},
               {"launcher", place.launcher},
               {"ranks", Json::array()},
               {"problems", Json::array()}};
  }

  void absent(const dist::Absent& error) {
    problem(error.ranks(),
            fmt::format("{} did not come: {}", named(error.ranks()), error.message()),
            error.hint());
  }

  void examine(dist::World& world) {
    try {
      present(world);
      measure(world);
      judge();
    } catch (const dist::Absent& error) {
      absent(error);
    } catch (const Error& error) {
      who_is_left(world, error);
    }
  }

  // the lead's; nothing on the others
  Json report() const { return place_.rank == 0 ? report_ : Json::object(); }

 private:
  void problem(const std::vector<int>& ranks, const std::string& what, const std::string& hint) {
    report_["problems"].push_back({{"ranks", ranks}, {"what", what}, {"hint", hint}});
  }
  const Json& of(int rank, const char* name) const {
    return report_["ranks"][static_cast<size_t>(rank)][name];
  }
  std::string host(int rank) const { return of(rank, "host").get<std::string>(); }
  std::vector<double> all(const char* name) const {
    std::vector<double> values;
    for (const Json& rank : report_["ranks"]) values.push_back(rank[name].get<double>());
    return values;
  }
  // with hosts, as far as they are known
  std::string named(const std::vector<int>& ranks) const {
    std::set<std::string> hosts;
    if (!report_["ranks"].empty())
      for (int rank : ranks) hosts.insert(host(rank));
    return hosts.empty() ? listed(ranks)
                         : fmt::format("{} ({})", listed(ranks), fmt::join(hosts, ", "));
  }

  void present(dist::World& world) {
    const auto all = gather(world, {{"rank", world.rank()},
                                    {"host", host_name()},
                                    {"cores", usable_cores()},
                                    {"build", build_stamp()}});
    report_["ranks"] = all;
    std::map<std::string, std::vector<int>> builds;
    for (const Json& rank : all) builds[rank["build"]].push_back(rank["rank"]);
    const auto usual = std::max_element(
        builds.begin(), builds.end(),
        [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
    for (const auto& [build, ranks] : builds)
      if (build != usual->first)
        problem(ranks,
                fmt::format("{} runs another build than {}: {} and {}", named(ranks),
                            listed(usual->second), build, usual->first),
                "give every host the same build; lehr train refuses to mix them");
  }

  void measure(dist::World& world) {
    world.barrier("the product");
    double product = product_ms(place_);
    // a busy moment makes no slow rank
    for (int again = 0; again < 2; ++again) {
      std::vector<double> products;
      for (const Json& ms : gather(world, product)) products.push_back(ms);
      if (slow_in(products).empty()) break;
      product = std::min(product, product_ms(place_));
    }
    Json mine = {{"product_ms", product}};
    world.barrier("the lines");
    mine["line_ms"] = line_ms(world);
    world.barrier("the sums");
    const Sum small = sum_of(world, kSmallFloats, 21), large = sum_of(world, kLargeFloats, 3);
    mine["small_sum_ms"] = small.ms;
    mine["large_sum_ms"] = large.ms;
    mine["sums_right"] = small.right && large.right;
    const auto all = gather(world, mine);
    for (size_t r = 0; r < all.size(); ++r) report_["ranks"][r].update(all[r]);
  }

  void judge() {
    for (int r = 0; r < place_.size; ++r)
      if (!of(r, "sums_right"))
        problem({r}, fmt::format("{} ends a sum with wrong numbers", named({r})),
                "its memory or network damages data; take the host out of the job");
    const auto products = all("product_ms");
    for (int r : slow_in(products))
      problem({r},
              fmt::format("{} is slow: a product takes it {:.1f} ms, the median {:.1f} ms",
                          named({r}), products[static_cast<size_t>(r)], median(products)),
              "see what else runs there, its clock and cooling, and the CPU limit of its job");
    judge_lines();
  }

  void judge_lines() {
    const int lines = place_.size == 2 ? 1 : place_.size;
    const auto times = all("line_ms");
    const auto next = [this](int line) { return (line + 1) % place_.size; };
    std::vector<int> between;  // hosts; within one, a product shows more
    std::vector<double> usual;
    for (int i = 0; i < lines; ++i)
      if (host(i) != host(next(i))) {
        between.push_back(i);
        usual.push_back(times[static_cast<size_t>(i)]);
      }
    if (between.empty()) return;
    const double limit = std::max(kSlow * quantile(usual, 0.25), kLeastLineMs);
    std::map<int, std::vector<bool>> slow_at;  // by rank
    std::vector<int> slow;
    for (int i : between) {
      const bool is_slow = times[static_cast<size_t>(i)] > limit;
      if (is_slow) slow.push_back(i);
      for (int rank : {i, next(i)}) slow_at[rank].push_back(is_slow);
    }
    std::set<int> blamed;
    for (const auto& [rank, its] : slow_at)
      if (its.size() > 1 && std::count(its.begin(), its.end(), true) == std::ssize(its))
        blamed.insert(rank);
    for (int rank : blamed)
      problem({rank},
              fmt::format("{} is slow to reach: 1 MiB each way takes {:.1f} ms with rank {} and "
                          "{:.1f} ms with rank {}",
                          named({rank}), times[static_cast<size_t>(rank)], next(rank),
                          times[static_cast<size_t>((rank + lines - 1) % lines)],
                          (rank + lines - 1) % lines),
              "see its network: the speed of its link, losses, and which interface it uses");
    for (int line : slow)
      if (!blamed.contains(line) && !blamed.contains(next(line)))
        problem({line, next(line)},
                fmt::format("the line between {} and {} is slow: 1 MiB each way takes {:.1f} ms",
                            named({line}), named({next(line)}), times[static_cast<size_t>(line)]),
                "see the network between these two");
  }

  // After a call that failed without a name, whoever still runs comes to a meeting.
  void who_is_left(dist::World& world, const Error& error) {
    problem({}, error.message(), error.hint());
    try {
      world.barrier("the roll call after a failure");
    } catch (const dist::Absent& left) {
      absent(left);
    } catch (const Error& nobody) {
      problem({}, nobody.message(), nobody.hint());
    }
  }

  const dist::Place& place_;
  Json report_;
};

}  // namespace

Json roll_call(dist::World& world, const dist::Place& place) {
  Call call(place);
  call.examine(world);
  return call.report();
}

Json roll_call(const dist::Place& place, double timeout_s) {
  try {
    dist::WorldOptions options;
    options.timeout_s = timeout_s;
    options.ends_stuck_calls = false;  // which ranks do not answer is what is asked here
    const auto world = dist::open_world(place, options);
    return roll_call(*world, place);
  } catch (const dist::Absent& error) {
    const auto& ranks = error.ranks();
    if (std::find(ranks.begin(), ranks.end(), 0) != ranks.end()) throw;
    Call call(place);
    call.absent(error);
    return call.report();
  }
}

std::string roll_call_lines(const Json& report) {
  std::string out;
  const auto line = [&out](const char* name, const std::string& value) {
    out += fmt::format("{:<9} {}\n", name, value);
  };
  const Json& ranks = report["ranks"];
  std::map<std::string, std::vector<int>> hosts;
  for (const Json& rank : ranks) hosts[rank["host"]].push_back(rank["rank"]);
  line("ranks",
       fmt::format("{} by {}{}", report["size"].dump(), report["launcher"].get<std::string>(),
                   hosts.empty() ? "" : fmt::format(", on {} host(s)", hosts.size())));
  for (const auto& [host, its] : hosts) line("host", fmt::format("{}: {}", host, listed(its)));
  if (!ranks.empty() && ranks[0].contains("large_sum_ms")) {
    out += fmt::format("{:>9} {:>12} {:>12} {:>12} {:>12}   ms\n", "rank", "product", "to the next",
                       "sum of 1 KiB", "of 16 MiB");
    double slowest = 0;
    for (const Json& rank : ranks) {
      const double large = rank["large_sum_ms"];
      slowest = std::max(slowest, large);
      out += fmt::format("{:>9} {:>12.2f} {:>12.2f} {:>12.3f} {:>12.2f}\n", rank["rank"].dump(),
                         rank["product_ms"].get<double>(), rank["line_ms"].get<double>(),
                         rank["small_sum_ms"].get<double>(), large);
    }
    const double size = report["size"], bytes = 4.0 * kLargeFloats * 2 * (size - 1) / size;
    line("bandwidth",
         fmt::format("{:.2f} GB/s in and out of each rank, summing 16 MiB", bytes / slowest / 1e6));
  }
  for (const Json& problem : report["problems"])
    line("problem", fmt::format("{}\n{:<10}{}", problem["what"].get<std::string>(), "",
                                problem["hint"].get<std::string>()));
  if (report["problems"].empty()) line("verdict", "all ranks are there, alike, and sum right");
  return out;
}

}  // namespace lehr::run
