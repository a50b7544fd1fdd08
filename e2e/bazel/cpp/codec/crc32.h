#ifndef CODEC_CRC32_H_
#define CODEC_CRC32_H_

#include <cstdint>
#include <string_view>

namespace codec {

std::uint32_t Crc32(std::string_view bytes);

}  // namespace codec

#endif  // CODEC_CRC32_H_
