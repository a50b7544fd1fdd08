#ifndef TEXT_TOKENIZER_H_
#define TEXT_TOKENIZER_H_

#include <string>
#include <string_view>
#include <vector>

namespace text {

// The normalized words of `line`, in order, without empty ones.
std::vector<std::string> Tokenize(std::string_view line);

}  // namespace text

#endif  // TEXT_TOKENIZER_H_
