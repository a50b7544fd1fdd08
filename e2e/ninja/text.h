#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// The number of lines of a file; throws where it can't be read.
std::size_t CountLines(const std::string& path);

// The text in capital letters.
std::string Shout(std::string_view text);

// Whether a word is in the generated table.
bool IsKnown(std::string_view word);
