#include "text/tokenizer.h"

#include <sstream>

#include "text/normalizer.h"

namespace text {

std::vector<std::string> Tokenize(std::string_view line) {
  std::istringstream stream{std::string(line)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) {
    std::string normal = Normalize(word);
    if (!normal.empty()) words.push_back(std::move(normal));
  }
  return words;
}

}  // namespace text
