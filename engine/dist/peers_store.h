// What Gloo asks of the store when it first speaks to a rank, that rank's address, asked for all
// that a world is known to speak to at once.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/dist/counted_store.h"

namespace lehr::dist {

class PeersStore : public CountedStore {
 public:
  explicit PeersStore(StorePointer store)
      : CountedStore(store, std::make_shared<std::atomic<int64_t>>(0)), inner_(std::move(store)) {}
  // Waits for these keys, and keeps them.
  void fetch(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) {
    if (keys.empty()) return;
    inner_->wait(keys, timeout);
    const auto values = inner_->multiGet(keys);
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < keys.size(); ++i) kept_[keys[i]] = values[i];
  }
  std::vector<uint8_t> get(const std::string& key) override {
    const auto value = kept(key);
    return value ? *value : inner_->get(key);
  }
  void wait(const std::vector<std::string>& keys) override { wait(keys, inner_->getTimeout()); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    for (const auto& key : keys)
      if (!kept(key)) return inner_->wait(keys, timeout);
  }
  // The last key that was set: by Gloo this rank's own, which ends with its number.
  void set(const std::string& key, const std::vector<uint8_t>& value) override {
    inner_->set(key, value), last_set_ = key;
  }
  using Store::set;
  const std::string& last_set() const { return last_set_; }

 private:
  std::optional<std::vector<uint8_t>> kept(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = kept_.find(key);
    if (found == kept_.end()) return std::nullopt;
    return found->second;
  }
  const StorePointer inner_;
  std::mutex mutex_;
  std::map<std::string, std::vector<uint8_t>> kept_;
  std::string last_set_;
};

}  // namespace lehr::dist
