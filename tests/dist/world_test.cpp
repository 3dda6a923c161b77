// What a world promises, on threads of one process and on processes over Gloo.
#include "engine/dist/world.h"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "engine/base/error.h"
#include "engine/dist/meeting.h"
#include "engine/dist/node_memory.h"

namespace lehr::dist {
namespace {

// What every rank does and checks; throws on a difference.
void exercise(World& world) {
  const int size = world.size();
  const auto require = [](bool good, const char* what) {
    if (!good) throw std::runtime_error(what);
  };
  world.barrier("the test");
  at::Tensor mine = at::arange(5, at::kFloat) + world.rank();
  world.sum(mine);
  require(mine.equal(at::arange(5, at::kFloat) * size + size * (size - 1) / 2), "sum");

  // 1e8 + 1 - 1e8 + ... differs by order: a tree of neighbours is one order
  const float values[] = {1e8F, 1, -1e8F, 3};
  at::Tensor leaf = at::full({2}, values[world.rank() % 4]);
  if (size == 4) {
    world.sum_in_tree(leaf);
    require(leaf[0].item<float>() == (1e8F + 1) + (-1e8F + 3), "sum_in_tree");
  }
  at::Tensor told = at::full({3}, static_cast<double>(world.rank()), at::kDouble);
  world.broadcast(told, size - 1);
  require(told.equal(at::full({3}, size - 1.0, at::kDouble)), "broadcast");

  const auto all = world.gather(at::full({world.rank()}, world.rank(), at::kLong));
  require(static_cast<int>(all.size()) == size, "gather");
  for (int r = 0; r < size; ++r)
    require(all[static_cast<size_t>(r)].equal(at::full({r}, r, at::kLong)), "gather");
  require(world.gather_text("rank " + std::to_string(world.rank())).back() ==
              "rank " + std::to_string(size - 1),
          "gather_text");
  require(world.any(world.rank() == size - 1) && !world.any(false), "any");
  require(world.broadcast_text(world.is_lead() ? "x" : "") == "x", "broadcast_text");

  // part r of the sum: the ranks' parts are r + 10 i
  at::Tensor parts = at::arange(size, at::kFloat).repeat_interleave(3) + 10.0 * world.rank();
  at::Tensor part = at::empty({3}, at::kFloat);
  world.begin_reduce_scatter(parts, part)->wait();
  require(part.equal(at::full({3}, world.rank() * size + 5.0 * size * (size - 1), at::kFloat)),
          "reduce_scatter");
  at::Tensor joined = at::zeros({2 * size}, at::kFloat);
  at::Tensor own = joined.narrow(0, 2 * world.rank(), 2).fill_(world.rank());  // in place
  world.begin_all_gather(own, joined)->wait();
  require(joined.equal(at::arange(size, at::kFloat).repeat_interleave(2)), "all_gather");

  // neighbours in pairs; calls of the parts and of the whole beside each other
  const auto pair = world.split(world.rank() / 2);
  const int first = world.rank() / 2 * 2, members = std::min(2, size - first);
  require(pair->size() == members && pair->rank() == world.rank() - first, "split");
  at::Tensor of_pair = at::full({1}, world.rank(), at::kFloat), of_all = at::ones({1}, at::kFloat);
  const auto under_way = world.begin_sum(of_all);
  pair->sum(of_pair);
  under_way->wait();
  require(of_pair.item<float>() == (members == 2 ? 2 * first + 1 : first), "sum of a part");
  require(of_all.item<float>() == size, "sum beside a part's");
  world.require_same("colour", "green");
  try {
    world.require_same("colour", world.rank() == 1 ? "red" : "green");
    require(size == 1, "require_same");
  } catch (const Error& e) {
    require(std::string(e.what()).find("rank 1 has another colour than rank 0: red and green") !=
                std::string::npos,
            e.what());
  }
}

TEST(World, OfOneRankIsAlone) { exercise(single()); }

TEST(World, OfThreadsKeepsItsPromises) {
  for (int size : {1, 2, 4}) {
    auto worlds = thread_worlds(size);
    std::vector<std::thread> threads;
    for (auto& world : worlds) threads.emplace_back([&] { exercise(*world); });
    for (auto& thread : threads) thread.join();
  }
}

// `scenario` in each of `size` processes; their exit codes.
template <class Scenario>
std::vector<int> processes(int size, uint16_t port, Scenario scenario) {
  std::vector<pid_t> pids;
  for (int rank = 0; rank < size; ++rank) {
    pids.push_back(fork());
    if (pids.back() != 0) continue;
    Place place;
    place.rank = place.local_rank = rank;
    place.size = place.local_size = size;
    place.address = "127.0.0.1";
    place.port = port;
    int code = 0;
    try {
      scenario(place);
    } catch (const Error& e) {
      std::fprintf(stderr, "%s\n", e.what());
      code = static_cast<int>(e.code());
    } catch (const std::exception& e) {
      std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
      code = 1;
    }
    _exit(code);
  }
  std::vector<int> codes;
  for (pid_t pid : pids) {
    int status = 0;
    waitpid(pid, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return codes;
}

uint16_t port() { return static_cast<uint16_t>(20000 + (getpid() * 7) % 9000); }

TEST(World, OfProcessesKeepsItsPromises) {
  for (int size : {2, 3, 4, 6})
    // by shared memory; by Gloo; by both, on nodes of two; on nodes that have no such order
    for (const int of_node : {size, 1, 2, 0}) {
      const auto codes = processes(size, static_cast<uint16_t>(port() + size), [&](Place place) {
        place.local_size = of_node > 0 ? of_node : 1 + place.rank % 2;
        place.local_rank = place.rank % place.local_size;
        exercise(*open_world(place, {30}));
      });
      EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0)) << size << " " << of_node;
    }
}

std::vector<std::string> shared_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm"))
    if (entry.path().filename().string().starts_with("lehr-")) names.push_back(entry.path());
  return names;
}

// Of each rank; ranks in the order of `size` threads.
void on_node(int size, const std::function<void(NodeMemory&, int)>& work) {
  auto lead = NodeMemory::make(size, std::chrono::seconds(20));
  ASSERT_TRUE(lead);
  std::vector<std::unique_ptr<NodeMemory>> all;
  all.push_back(std::move(lead));
  for (int rank = 1; rank < size; ++rank) {
    all.push_back(NodeMemory::open(all[0]->path(), rank, size, std::chrono::seconds(20)));
    ASSERT_TRUE(all.back());
  }
  all[0]->remove_name();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] { work(*all[static_cast<size_t>(rank)], rank); });
  for (auto& thread : threads) thread.join();
}

at::Tensor of_rank(int rank, int64_t numel, at::ScalarType type) {
  return ((at::arange(numel) * (rank + 3)).remainder(97) - 48).mul(0.37).to(type);
}

// Sums that take several chunks, one after the other, in every dtype.
TEST(NodeMemory, SumsInTheOrderOfRanksOrOfATree) {
  for (int size : {2, 3, 4})
    for (auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong})
      on_node(size, [&](NodeMemory& memory, int rank) {
        for (int64_t numel : {1, 7, 300001, 0, 131072}) {
          at::Tensor plain = of_rank(0, numel, type) + of_rank(1, numel, type);
          for (int r = 2; r < size; ++r) plain.add_(of_rank(r, numel, type));
          at::Tensor mine = of_rank(rank, numel, type);
          memory.sum(mine, /*in_tree=*/false);
          EXPECT_TRUE(mine.equal(plain)) << size << " " << numel;
          at::Tensor told = of_rank(rank, numel, type);
          memory.share(told);
          EXPECT_TRUE(told.equal(of_rank(0, numel, type))) << size << " " << numel;
          if (size == 3) continue;
          at::Tensor tree = of_rank(0, numel, type) + of_rank(1, numel, type);
          if (size == 4) tree = tree + (of_rank(2, numel, type) + of_rank(3, numel, type));
          mine = of_rank(rank, numel, type);
          memory.sum(mine, /*in_tree=*/true);
          EXPECT_TRUE(mine.equal(tree)) << size << " " << numel;
        }
      });
}

TEST(NodeMemory, EndsASumWhoseRankIsGone) {
  auto lead = NodeMemory::make(2, std::chrono::seconds(60));
  const pid_t child = fork();
  if (child == 0) {
    const auto other = NodeMemory::open(lead->path(), 1, 2, std::chrono::seconds(60));
    const at::Tensor one = at::ones({1});
    other->sum(one, false);
    _exit(0);  // stays a zombie: its parent does not ask
  }
  const at::Tensor one = at::ones({1});
  lead->sum(one, false);
  EXPECT_EQ(one.item<float>(), 2);
  const auto begin = std::chrono::steady_clock::now();
  try {
    lead->sum(one, false);
    FAIL() << "a sum with a rank that is gone";
  } catch (const std::runtime_error& e) {
    EXPECT_STREQ(e.what(), "rank 1 of this node is gone");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  waitpid(child, nullptr, 0);
  EXPECT_FALSE(NodeMemory::open("/dev/shm/lehr-none", 1, 2, std::chrono::seconds(1)));
  lead->remove_name();
}

TEST(World, LeavesNoSharedMemoryBehind) {
  const auto before = shared_files();
  const auto codes = processes(3, static_cast<uint16_t>(port() + 55), [&](const Place& place) {
    const auto world = open_world(place, {30});
    world->barrier("open");
    if (place.rank == 1 && shared_files() != before) throw std::runtime_error("a file is left");
    world->barrier("seen");
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

TEST(World, NamesARankThatDoesNotCome) {
  testing::internal::CaptureStderr();
  const auto codes = processes(3, static_cast<uint16_t>(port() + 9), [](const Place& place) {
    if (place.rank == 1) return;
    open_world(place, {1});
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{6, 0, 6})) << said;
  EXPECT_NE(said.find("of 3 ranks these have not come: 1"), std::string::npos) << said;
}

TEST(World, EndsACallWhenARankIsGone) {
  const auto begin = std::chrono::steady_clock::now();
  testing::internal::CaptureStderr();
  const auto codes = processes(3, static_cast<uint16_t>(port() + 13), [](const Place& place) {
    auto world = open_world(place, {60});
    world->barrier("all are in");
    if (place.rank == 2) _exit(9);
    at::Tensor ones = at::ones({1000});
    world->sum(ones);
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{6, 6, 9})) << said;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_NE(said.find("rank 0 of 3: a sum, call 2, failed for "), std::string::npos) << said;
  EXPECT_NE(said.find("nothing heard of rank 2"), std::string::npos) << said;
}

TEST(World, NamesTheCallsOfRanksThatDisagree) {
  testing::internal::CaptureStderr();
  const auto codes = processes(2, static_cast<uint16_t>(port() + 17), [](const Place& place) {
    auto world = open_world(place, {2});
    at::Tensor ones = at::ones({1000});
    if (place.rank == 0)
      world->sum(ones);
    else
      world->sum_in_tree(ones);
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{6, 6})) << said;
  EXPECT_NE(said.find("rank 1 was in a sum in a tree, call 2"), std::string::npos) << said;
  EXPECT_NE(said.find("rank 0 was in a sum, call 2"), std::string::npos) << said;
}

// What the processes of a test count together.
class Counter {
 public:
  Counter()
      : count_(new (mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0)) std::atomic<int>(0)) {}
  void add() const { ++*count_; }
  void wait_for(int count) const {
    for (int patience = 0; *count_ < count; ++patience) {
      if (patience == 60000) throw std::runtime_error("the others do not come");
      usleep(1000);
    }
  }

 private:
  std::atomic<int>* count_;
};

// A hang: for every rank its step, phase, call and how long it waits.
TEST(World, SaysOfARankThatHangsElsewhereWhereItIs) {
  testing::internal::CaptureStderr();
  const Counter ended;
  const auto codes = processes(3, static_cast<uint16_t>(port() + 23), [&](const Place& place) {
    auto world = open_world(place, {1});
    world->enter(place.rank == 2 ? "load" : "step", 14);
    at::Tensor ones = at::ones({10});
    if (place.rank == 2) return ended.wait_for(2);
    try {
      world->sum(ones);
    } catch (const Error&) {
      ended.add();
      throw;
    }
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{6, 6, 0})) << said;
  EXPECT_NE(said.find("rank 0 of 3: a sum, call 2, failed (step 14, step) for "), std::string::npos)
      << said;
  EXPECT_NE(said.find("; in the same call: rank 1"), std::string::npos) << said;
  EXPECT_NE(said.find("; rank 2 was in no call (step 14, load) for "), std::string::npos) << said;
}

TEST(World, SaysOfAPartWhichRanksOfTheWholeItWas) {
  testing::internal::CaptureStderr();
  const Counter ended;
  const auto codes = processes(4, static_cast<uint16_t>(port() + 25), [&](const Place& place) {
    auto world = open_world(place, {60});
    auto part = world->split(place.rank / 2);
    world->barrier("all are in");
    if (place.rank == 3) _exit(9);
    at::Tensor ones = at::ones({10});
    try {
      part->sum(ones);
    } catch (const Error&) {
      ended.add();
      throw;
    }
    ended.wait_for(1);  // rank 0 keeps the store
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes[2], 6) << said;
  EXPECT_NE(said.find("rank 2 of 4: a sum, "), std::string::npos) << said;
  EXPECT_NE(said.find("nothing heard of rank 3"), std::string::npos) << said;
}

TEST(World, RefusesTheStoreOfAnotherJob) {
  testing::internal::CaptureStderr();
  const auto codes = processes(2, static_cast<uint16_t>(port() + 27), [](Place place) {
    place.job = place.rank == 0 ? "41.0" : "42.0";
    open_world(place, {2});
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{6, 6})) << said;
  // whichever came first
  EXPECT_TRUE(said.find("is that of job 41.0, and rank 1 is of job 42.0") != said.npos ||
              said.find("is that of job 42.0, and rank 0 is of job 41.0") != said.npos)
      << said;
}

TEST(World, SumsSeveralAtATimeAndInLowPrecision) {
  const auto codes = processes(2, static_cast<uint16_t>(port() + 19), [](const Place& place) {
    auto world = open_world(place, {30});
    at::Tensor large = at::ones({100000}), small = at::full({3}, 2, at::kBFloat16);
    auto first = world->begin_sum(large), second = world->begin_sum(small);
    world->barrier("beside them");
    second->wait(), first->wait();
    if (!large.equal(at::full({100000}, 2.0F)) || !small.equal(at::full({3}, 4, at::kBFloat16)))
      throw std::runtime_error("sums");
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

// The addresses that something listens at on this port: "0100007F" is 127.0.0.1.
std::vector<std::string> listeners(size_t port) {
  std::vector<std::string> found;
  for (const char* name : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream rows(name);
    char address[40];
    unsigned at = 0, state = 0;
    for (std::string row; std::getline(rows, row);)
      if (std::sscanf(row.c_str(), " %*d: %39[0-9A-F]:%x %*[0-9A-F]:%*x %x", address, &at,
                      &state) == 3 &&
          at == port && state == 0x0A)
        found.push_back(address);
  }
  return found;
}

// Also where a rank knows nothing of its node, as when it is started by hand or in a pod of its
// own.
TEST(World, ListensAtTheJobsAddressOnly) {
  const std::vector<std::string> v4{"0100007F"}, v6{"00000000000000000000000001000000"};
  uint16_t store = static_cast<uint16_t>(port() + 21);
  for (const auto& [address, knows_node] : {std::pair<std::string, bool>{"127.0.0.1", true},
                                            {"127.0.0.1", false},
                                            {"localhost", false},
                                            {"::1", false}}) {
    ++store;
    const auto codes =
        processes(2, store, [&, address = address, knows_node = knows_node](Place place) {
          place.address = address;
          if (!knows_node) place.local_rank = 0, place.local_size = 1;
          auto world = open_world(place, {30});
          if (const auto found = listeners(store); found != v4 && found != v6)
            throw std::runtime_error(address);
          world->barrier("looking");
        });
    EXPECT_EQ(codes, (std::vector<int>{0, 0})) << address << knows_node;
  }
}

// Other programs at the port: rank 1 ends in time, and says what it heard.
TEST(World, EndsInTimeWhereSomethingElseServesTheStoresPort) {
  const std::string listen =
      "import socket, sys\nserver = socket.create_server(('127.0.0.1', "
      "int(sys.argv[1])), backlog=9)\n";
  const std::vector<std::pair<std::string, std::string>> others{
      {"", "nothing listens there"},
      {listen + "all = [server.accept() for _ in range(99)]",
       "something there takes connections and says nothing"},
      {listen + "while True: server.accept()[0].sendall(b'SSH-2.0-none\\r\\n' * 99)",
       "something else answers there: \"SSH-2.0-none\""},
      {"import http.server, sys; sys.stderr = open('/dev/null', 'w'); "
       "http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), "
       "bind='127.0.0.1')",
       "something else answers there: \"HTTP/1.0 200 OK\""}};
  const auto first = static_cast<uint16_t>(port() + 31);
  std::vector<pid_t> servers;
  for (size_t i = 1; i < others.size(); ++i) {
    const std::string at = std::to_string(first + i);
    servers.push_back(fork());
    if (servers.back() == 0) {
      execlp("python3", "python3", "-c", others[i].first.c_str(), at.c_str(), nullptr);
      _exit(127);
    }
    for (int patience = 0; patience < 30000 && listeners(first + i).empty(); ++patience)
      usleep(1000);
  }
  testing::internal::CaptureStderr();
  const auto begin = std::chrono::steady_clock::now();
  const auto codes = processes(static_cast<int>(others.size()), first, [](Place place) {
    place.port += place.rank;
    place.rank = place.local_rank = 1, place.size = place.local_size = 2;
    open_world(place, {.timeout_s = 1, .heartbeat_s = 0.5});
  });
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << text;
  for (const pid_t server : servers) kill(server, SIGKILL), waitpid(server, nullptr, 0);
  for (size_t i = 0; i < others.size(); ++i) {
    EXPECT_EQ(codes[i], 6);
    const std::string& said = others[i].second;
    const std::string where = fmt::format("the store at 127.0.0.1:{}: ", first + i);
    const size_t at = text.find("rank 1 cannot reach " + where);
    ASSERT_NE(at, std::string::npos) << text;
    const std::string line = text.substr(at, text.find('\n', at) - at);
    EXPECT_NE(line.find("; " + said), std::string::npos) << text;
    if (said.ends_with("says nothing")) {
      EXPECT_NE(line.find(": no answer for 1 s; "), std::string::npos) << text;
    }
    // what speaks by itself may be found out before
    EXPECT_TRUE(text.find("rank 1 waits for " + where + said) != text.npos ||
                said.find("SSH") != said.npos)
        << text;
  }
}

TEST(World, SaysWhoHasNotComeBeforeItsPatienceEnds) {
  testing::internal::CaptureStderr();
  const Counter met;
  const auto codes = processes(3, static_cast<uint16_t>(port() + 41), [&](const Place& place) {
    if (place.rank == 2) met.wait_for(1);
    if (place.rank == 1) {
      std::thread([&] {
        usleep(500000);
        met.add();
      }).detach();
    }
    open_world(place, {.timeout_s = 60, .heartbeat_s = 0.1});
  });
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0})) << said;
  EXPECT_NE(said.find("after 0.1 s at start, of 3 ranks these have not come yet: "),
            std::string::npos)
      << said;
}

void limit_descriptors(rlim_t count) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min(count, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(World, ListsRanksInRanges) {
  EXPECT_EQ(list_of({}), "");
  EXPECT_EQ(list_of({3}), "3");
  EXPECT_EQ(list_of({2, 1}), "1, 2");
  EXPECT_EQ(list_of({7, 1, 2, 3, 9, 10, 11, 12}), "1-3, 7, 9-12");
}

// Of each rank, threads of this process: the questions to the store from the start to the end of a
// few calls.
std::vector<int64_t> store_calls(int size, uint16_t port) {
  std::vector<int64_t> calls(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      Place place;
      place.rank = place.local_rank = rank;
      place.size = place.local_size = size;
      place.address = "127.0.0.1", place.port = port;
      const auto world = open_world(place, {.timeout_s = 60, .ends_stuck_calls = false});
      world->require_same("recipe", "one");
      world->barrier("here");
      at::Tensor ones = at::ones({100});
      world->sum(ones);
      EXPECT_EQ(ones[0].item<float>(), size);
      EXPECT_EQ(world->broadcast_text(rank == 0 ? "name" : ""), "name");
      const auto part = world->split(rank / 4);
      part->sum(ones);
      EXPECT_EQ(ones[0].item<float>(), 4 * size);
      calls[static_cast<size_t>(rank)] = world->store_calls();
    });
  for (auto& thread : threads) thread.join();
  return calls;
}

TEST(World, AsksTheStoreAsOftenAmongManyRanksAsAmongFew) {
  const auto few = store_calls(8, static_cast<uint16_t>(port() + 51));
  const auto many = store_calls(32, static_cast<uint16_t>(port() + 52));
  const auto most = [](std::vector<int64_t> calls) {  // but for the lead, which watches
    return *std::max_element(calls.begin() + 1, calls.end());
  };
  EXPECT_GT(most(few), 0);
  EXPECT_LE(static_cast<double>(most(many)), 1.5 * static_cast<double>(most(few)))
      << most(many) << " at 32, " << most(few) << " at 8";
}

TEST(World, RaisesTheLimitOfDescriptorsOnEveryRank) {
  const auto codes = processes(2, static_cast<uint16_t>(port() + 53), [](const Place& place) {
    limit_descriptors(100);
    const auto world = open_world(place, {30});
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur != limit.rlim_max) throw std::runtime_error("still the soft limit");
    world->barrier("seen");
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

int connect_to(uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET, at.sin_port = htons(port), at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  return connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0 ? fd : -1;
}

// Strangers at the store's port before and while ranks meet.
TEST(World, IsNotDisturbedByStrangers) {
  const auto store = static_cast<uint16_t>(port() + 23);
  const auto codes = processes(3, store, [&](const Place& place) {
    if (place.rank == 2) {  // comes late, after the strangers
      int fd = -1;
      for (int i = 0; i < 500 && (fd = connect_to(store)) < 0; ++i) usleep(10000);
      if (fd < 0) throw std::runtime_error("no store");
      std::string huge(1, '\x00');  // a query with a key of 1 TiB
      const uint64_t length = 1ULL << 40;
      huge.append(reinterpret_cast<const char*>(&length), sizeof length);
      for (const std::string& message : {std::string("G"), std::string("GET / HTTP/1.1\r\n\r\n"),
                                         huge, std::string(9, '\xff'), std::string("\x09\xe8")}) {
        const int stranger = connect_to(store);
        if (stranger < 0 || write(stranger, message.data(), message.size()) < 0)
          throw std::runtime_error("stranger");
      }
      limit_descriptors(2000);
      for (int i = 0; i < 1000; ++i)  // idle ones
        if (connect_to(store) < 0) throw std::runtime_error("idle stranger");
    } else {
      limit_descriptors(256);
    }
    auto world = open_world(place, {20});
    world->barrier("among strangers");
    at::Tensor ones = at::ones({10});
    world->sum(ones);
    if (!ones.equal(at::full({10}, 3.0F))) throw std::runtime_error("sum");
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

}  // namespace
}  // namespace lehr::dist
