// A client of the job's store that counts what it asks. The one server answers them one after the
// other, so what a rank asks must not grow with the number of ranks.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>
#include <vector>

namespace lehr::dist {

using StorePointer = c10::intrusive_ptr<c10d::Store>;
using CallCount = std::shared_ptr<std::atomic<int64_t>>;

class CountedStore : public c10d::Store {
 public:
  CountedStore(StorePointer store, CallCount count)
      : Store(store->getTimeout()), store_(std::move(store)), count_(std::move(count)) {}
  // another connection, with the same count
  StorePointer clone() override {
    return c10::make_intrusive<CountedStore>(store_->clone(), count_);
  }
  using Store::compareSet;
  using Store::set;
  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    asked().set(key, value);
  }
  std::vector<uint8_t> compareSet(const std::string& key, const std::vector<uint8_t>& then,
                                  const std::vector<uint8_t>& now) override {
    return asked().compareSet(key, then, now);
  }
  std::vector<uint8_t> get(const std::string& key) override { return asked().get(key); }
  int64_t add(const std::string& key, int64_t value) override { return asked().add(key, value); }
  bool deleteKey(const std::string& key) override { return asked().deleteKey(key); }
  bool check(const std::vector<std::string>& keys) override { return asked().check(keys); }
  int64_t getNumKeys() override { return asked().getNumKeys(); }
  void wait(const std::vector<std::string>& keys) override { asked().wait(keys); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    asked().wait(keys, timeout);
  }
  void append(const std::string& key, const std::vector<uint8_t>& value) override {
    asked().append(key, value);
  }
  std::vector<std::vector<uint8_t>> multiGet(const std::vector<std::string>& keys) override {
    return asked().multiGet(keys);
  }
  void multiSet(const std::vector<std::string>& keys,
                const std::vector<std::vector<uint8_t>>& values) override {
    asked().multiSet(keys, values);
  }
  bool hasExtendedApi() const override { return store_->hasExtendedApi(); }
  const std::chrono::milliseconds& getTimeout() const noexcept override {
    return store_->getTimeout();
  }
  void setTimeout(const std::chrono::milliseconds& timeout) override {
    store_->setTimeout(timeout);
  }

 private:
  c10d::Store& asked() {
    ++*count_;
    return *store_;
  }
  const StorePointer store_;
  const CallCount count_;
};

}  // namespace lehr::dist
