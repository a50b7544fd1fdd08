#include <algorithm>
#include <cctype>

#include "text.h"

std::string Shout(std::string_view text) {
  std::string shouted(text);
  std::transform(shouted.begin(), shouted.end(), shouted.begin(),
                 [](unsigned char letter) { return std::toupper(letter); });
  return shouted;
}
