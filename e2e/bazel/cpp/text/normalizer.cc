#include "text/normalizer.h"

#include <cctype>

namespace text {

std::string Normalize(std::string_view word) {
  std::string normal;
  for (const unsigned char letter : word) {
    if (std::isalnum(letter)) normal.push_back(static_cast<char>(std::tolower(letter)));
  }
  return normal;
}

}  // namespace text
