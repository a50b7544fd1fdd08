#ifndef TEXT_COUNTER_H_
#define TEXT_COUNTER_H_

#include <istream>
#include <map>
#include <string>

namespace text {

// How often each word of `stream` occurs.
std::map<std::string, int> CountWords(std::istream& stream);

}  // namespace text

#endif  // TEXT_COUNTER_H_
