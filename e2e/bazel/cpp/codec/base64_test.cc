#include "codec/base64.h"

#include "testing/check.h"

int main() {
  CHECK(codec::EncodeBase64("") == "");
  CHECK(codec::EncodeBase64("f") == "Zg==");
  CHECK(codec::EncodeBase64("fo") == "Zm8=");
  CHECK(codec::EncodeBase64("foobar") == "Zm9vYmFy");
  CHECK(!codec::Version().empty());
  return testing::Failures();
}
