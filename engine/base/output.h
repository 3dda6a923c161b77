// What a verb was asked for, on its way out: to standard output, or to the file that is named.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/files.h"

namespace lehr {

// To standard output, whole. Throws Error{kData} where it is lost (a full disk); a reader that has
// gone ends the process by SIGPIPE.
void print_out(std::string_view text);

// A plain file, or a new one, is there whole after finish(), or stays as it was before; a link is
// followed. What is no plain file (a pipe, a terminal, /dev/null, /dev/stdout; "-" is standard
// output) is written to as it is.
class OutputFile {
 public:
  // Throws Error{kUsage} for a folder, a disk, a socket, and for one of `inputs`.
  explicit OutputFile(const std::string& path, const std::vector<std::string>& inputs = {});
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::string_view text);
  void finish();
  bool is_standard_output() const { return fd_ == 1; }

 private:
  std::string path_;
  int fd_ = -1;  // of what is no plain file
  std::unique_ptr<Temporary> temporary_;
  std::unique_ptr<FileWriter> writer_;
};
// One text.
void write_output(const std::string& path, std::string_view text);

}  // namespace lehr
