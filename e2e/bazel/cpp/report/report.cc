// Prints how often each word of standard input occurs, and marks the text with its checksum.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

#include "codec/base64.h"
#include "codec/crc32.h"
#include "graph/order.h"
#include "text/counter.h"

int main() {
  const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
  std::istringstream stream(input);
  for (const auto& [word, count] : text::CountWords(stream)) {
    std::printf("%s %d\n", word.c_str(), count);
  }
  const graph::Digraph lonely(1);
  if (!graph::TopologicalOrder(lonely)) return 1;
  std::printf("crc32 %08x\n", codec::Crc32(input));
  std::printf("base64 %zu\n", codec::EncodeBase64(input).size());
  return 0;
}
