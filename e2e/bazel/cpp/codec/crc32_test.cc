#include "codec/crc32.h"

#include "testing/check.h"

int main() {
  CHECK(codec::Crc32("") == 0u);
  CHECK(codec::Crc32("123456789") == 0xCBF43926u);
  return testing::Failures();
}
