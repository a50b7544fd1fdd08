#include "text/counter.h"

#include "text/tokenizer.h"

namespace text {

std::map<std::string, int> CountWords(std::istream& stream) {
  std::map<std::string, int> counts;
  for (std::string line; std::getline(stream, line);) {
    for (const std::string& word : Tokenize(line)) ++counts[word];
  }
  return counts;
}

}  // namespace text
