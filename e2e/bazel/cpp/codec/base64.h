#ifndef CODEC_BASE64_H_
#define CODEC_BASE64_H_

#include <string>
#include <string_view>

namespace codec {

std::string EncodeBase64(std::string_view bytes);

// The version of this library, from a generated header.
std::string_view Version();

}  // namespace codec

#endif  // CODEC_BASE64_H_
