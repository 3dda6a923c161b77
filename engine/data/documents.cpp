#include "engine/data/documents.h"

#include <fmt/format.h>

#include "engine/base/hash.h"
#include "engine/base/what_is.h"

namespace lehr::data {

std::string_view text_of(const Bytes& file) {
  return plain_text({reinterpret_cast<const char*>(file.begin()), file.size}, file.path);
}

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

std::string separator_remark(const std::string& separator, std::string_view text,
                             const std::string& path) {
  const bool returns = separator.find('\n') != separator.npos &&
                       separator.find('\r') == separator.npos && text.find("\r\n") != text.npos;
  return fmt::format(
      "{}: the document separator stands nowhere in it, so it is one document{}", path,
      returns ? " (its lines end with \\r\\n: convert it, or write the separator so)" : "");
}

void encode_documents(const Bytes& file, const std::vector<std::string_view>& documents,
                      const Tokenizer& tokenizer, bool ends, Tokens& ids,
                      std::vector<int64_t>& begins) {
  const Tokens begin = ends ? tokenizer.begin_of_text() : Tokens();
  for (std::string_view document : documents) {
    begins.push_back(static_cast<int64_t>(ids.size()));
    ids.insert(ids.end(), begin.begin(), begin.end());
    try {
      tokenizer.encode(document, ids);
    } catch (const UnknownText& error) {
      bad_byte(
          file.path,
          static_cast<uint64_t>(document.data() - reinterpret_cast<const char*>(file.begin())) +
              error.byte(),
          error.message(), error.hint());
    }
    if (ends) ids.push_back(*tokenizer.end_of_text());
  }
}

uint64_t document_id(std::string_view document) {
  return std::stoull(xxh3_128(document.data(), document.size()).substr(0, 16), nullptr, 16);
}

uint64_t document_id(const Xxh3& document) {
  return std::stoull(document.digest().substr(0, 16), nullptr, 16);
}

}  // namespace lehr::data
