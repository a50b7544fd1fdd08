#include "text/counter.h"

#include <fstream>

#include "testing/check.h"

int main() {
  std::ifstream poem("text/testdata/poem.txt");
  CHECK(poem.is_open());
  const auto counts = text::CountWords(poem);
  CHECK(counts.at("build") == 3);
  CHECK(counts.at("what") == 2);
  CHECK(counts.count("missing") == 0);
  return testing::Failures();
}
