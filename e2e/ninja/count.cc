#include <fstream>
#include <stdexcept>

#include "text.h"

std::size_t CountLines(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::size_t count = 0;
  for (std::string line; std::getline(file, line);) ++count;
  return count;
}
