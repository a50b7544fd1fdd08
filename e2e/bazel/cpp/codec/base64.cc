#include "codec/base64.h"

#include <cstddef>
#include <cstdint>

#include "codec/version.h"

namespace codec {
namespace {

constexpr std::string_view kLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string EncodeBase64(std::string_view bytes) {
  std::string encoded;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::string_view group = bytes.substr(at, 3);
    std::uint32_t bits = 0;
    for (std::size_t index = 0; index < 3; ++index) {
      bits = (bits << 8) | (index < group.size() ? static_cast<unsigned char>(group[index]) : 0u);
    }
    for (std::size_t index = 0; index < 4; ++index) {
      encoded.push_back(index <= group.size() ? kLetters[(bits >> (18 - 6 * index)) & 63u] : '=');
    }
  }
  return encoded;
}

std::string_view Version() { return CODEC_VERSION; }

}  // namespace codec
