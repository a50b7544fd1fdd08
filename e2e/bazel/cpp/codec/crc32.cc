#include "codec/crc32.h"

#include "codec/crc32_table.h"

namespace codec {

std::uint32_t Crc32(std::string_view bytes) {
  std::uint32_t value = 0xFFFFFFFFu;
  for (const unsigned char byte : bytes) {
    value = kCrc32Table[(value ^ byte) & 0xFFu] ^ (value >> 8);
  }
  return ~value;
}

}  // namespace codec
