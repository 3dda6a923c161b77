// Preloaded into a rank, makes it one of another build.
#include <string>

namespace lehr {
std::string build_stamp();
std::string build_stamp() { return "a build of last year"; }
}  // namespace lehr
