// Prints a C++ source file with the table of the reflected CRC-32 polynomial.
#include <cstdint>
#include <cstdio>

int main() {
  std::puts("#include \"codec/crc32_table.h\"\n");
  std::puts("namespace codec {\nconst std::uint32_t kCrc32Table[256] = {");
  for (std::uint32_t index = 0; index < 256; ++index) {
    std::uint32_t value = index;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0xEDB88320u : 0u);
    std::printf("    0x%08xu,\n", value);
  }
  std::puts("};\n}  // namespace codec");
  return 0;
}
