#include "engine/dist/world.h"

namespace lehr::dist {
namespace {

class Single : public World {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  void sum(at::Tensor&) override {}
  std::vector<at::Tensor> gather(const at::Tensor& tensor) override { return {tensor}; }
  bool any(bool flag) override { return flag; }
};

}  // namespace

World& single() {
  static Single world;
  return world;
}

}  // namespace lehr::dist
