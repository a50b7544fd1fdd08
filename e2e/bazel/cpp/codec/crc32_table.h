#ifndef CODEC_CRC32_TABLE_H_
#define CODEC_CRC32_TABLE_H_

#include <cstdint>

namespace codec {

extern const std::uint32_t kCrc32Table[256];

}  // namespace codec

#endif  // CODEC_CRC32_TABLE_H_
