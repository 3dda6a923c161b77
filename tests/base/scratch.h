// Folders for tests, and messages of errors.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "engine/base/files.h"

namespace lehr {

// Where a test that makes thousands of files does not wait for a disk.
inline std::string in_memory() {
  return file_exists("/dev/shm") ? "/dev/shm" : LEHR_BINARY_DIR "/scratch";
}

// A folder of its own for a test, removed with it.
class Scratch {
 public:
  explicit Scratch(const std::string& parent = LEHR_BINARY_DIR "/scratch")
      : path_(join_path(parent, unique_id())) {
    make_folders(path_);
  }
  ~Scratch() {
    try {
      remove_tree(path_);
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
  }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return join_path(path_, name); }

 private:
  std::string path_;
};

// The message of the Error that `call` throws; "" when it does not throw.
template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace lehr
