#include "out/table.h"

#include <algorithm>
#include <iterator>

#include "text.h"

bool IsKnown(std::string_view word) {
  return std::find(std::begin(kTable), std::end(kTable), word) != std::end(kTable);
}
