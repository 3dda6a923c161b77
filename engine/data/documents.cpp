#include "engine/data/documents.h"

#include "engine/base/hash.h"

namespace lehr::data {

std::vector<std::string_view> split_documents(std::string_view text, const std::string& separator) {
  std::vector<std::string_view> documents;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = separator.empty() ? text.npos : text.find(separator, begin);
    if (end == text.npos) end = text.size();
    if (end > begin) documents.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return documents;
}

uint64_t document_id(std::string_view document) {
  return std::stoull(xxh3_128(document.data(), document.size()).substr(0, 16), nullptr, 16);
}

}  // namespace lehr::data
