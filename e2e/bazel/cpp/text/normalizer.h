#ifndef TEXT_NORMALIZER_H_
#define TEXT_NORMALIZER_H_

#include <string>
#include <string_view>

namespace text {

// `word` in lower case, without what is not a letter or a digit.
std::string Normalize(std::string_view word);

}  // namespace text

#endif  // TEXT_NORMALIZER_H_
